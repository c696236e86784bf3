"""OpenL3's weights: found in the models folder or an installed package, fetched from their official home, imported.

Conventions: a published file is a ``.h5.gz``, known by git's blob id of it; what is kept is the ``.h5`` unpacked from
it (see `embedindex.models.cache`). ``$EMBEDINDEX_WEIGHTS_URL`` replaces the official address, ``$EMBEDINDEX_OFFLINE``
forbids the network.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
import os
import re
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from embedindex.errors import ChecksumError, UsageError, WeightsFormatError, WeightsMissingError
from embedindex.errors import display_path as shown
from embedindex.models.cache import (
    CHUNK,
    WeightsFile,
    cached_file,
    file_sha256,
    folder_lock,
    models_folder,
    offline,
    place_file,
)
from embedindex.models.download import Patience, Progress, download

__all__ = ["RELEASES", "Release", "WeightsFile", "find_openl3", "import_weights", "models_folder"]

logger = logging.getLogger(__name__)

OPENL3_HOME = "https://github.com/marl/openl3/raw/models"
INPUT_REPRS = ("linear", "mel128", "mel256")
CONTENT_TYPES = ("env", "music")
# 4.7 million float32 are 18.8 MB; anything twice as large is something else.
SIZE_LIMIT = 40_000_000
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Release:
    """One published OpenL3 weights file and how its bytes are known.

    Attributes:
        input_repr: ``"linear"``, ``"mel128"`` or ``"mel256"``.
        content_type: ``"env"`` or ``"music"``.
        gz_git_blob: git's id of the ``.h5.gz``: SHA-1 (hex) of ``blob <size>``, a zero byte, and the bytes.
        gz_sha256: SHA-256 (hex) of the ``.h5.gz``, where it is known.
        h5_sha256: SHA-256 (hex) of the ``.h5``, where it is known.
    """

    input_repr: str
    content_type: str
    gz_git_blob: str
    gz_sha256: str | None = None
    h5_sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name without extension."""
        return f"openl3_audio_{self.input_repr}_{self.content_type}"

    @property
    def file_name(self) -> str:
        """The name under which it is published."""
        return f"{self.name}-v0_4_0.h5.gz"

    @property
    def url(self) -> str:
        """Where it is fetched from."""
        return f"{(os.environ.get('EMBEDINDEX_WEIGHTS_URL') or OPENL3_HOME).rstrip('/')}/{self.file_name}"

    def matches(self, packed: bool, git_blob: str, sha256: str) -> bool:
        """Say whether a file with these checksums is the published one, `packed` (``.h5.gz``) or not (``.h5``)."""
        if packed:
            return git_blob == self.gz_git_blob and self.gz_sha256 in (None, sha256)
        return sha256 == self.h5_sha256


# Git blob ids as the official repository's branch `models` lists them.
RELEASES = (
    Release("linear", "env", "7837407f033f3564c7e8d53fc4a4241fe160478b"),
    Release("linear", "music", "4e2e61beb17865481c8b8791c72eac8307e2753a"),
    Release("mel128", "env", "8c3dfee140f7776373841e5938a3e76c54f28942"),
    Release("mel128", "music", "73ff29de441865318c4b3a3f98c40763c4773e7c"),
    Release("mel256", "env", "34dbd7a91cdd2de6a3d6d036ac0a24d27d78e3cc"),
    Release(
        "mel256",
        "music",
        "15e483646fa3d4091a463f0affbb706e6bbbb098",
        gz_sha256="e379f41e880b78e157c199ebddac80d3764e6a46282bcccdbe875bcf538f9afd",
        h5_sha256="624ee7b1dd5ff87e18073f66fd8b2052bebb8ac70210e9c0937c0c940c63e9d6",
    ),
)


def find_release(input_repr: str, content_type: str, releases: tuple[Release, ...] = RELEASES) -> Release:
    """Return the release of that kind.

    Raises:
        UsageError: there is none.
    """
    for release in releases:
        if (release.input_repr, release.content_type) == (input_repr, content_type):
            return release
    raise UsageError(
        f"OpenL3 has no weights {input_repr!r}, {content_type!r}: input_repr is one of {', '.join(INPUT_REPRS)},"
        f" content_type one of {', '.join(CONTENT_TYPES)}"
    )


def find_openl3(
    input_repr: str,
    content_type: str,
    *,
    weights: str | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
    patience: Patience | None = None,
    releases: tuple[Release, ...] = RELEASES,
) -> WeightsFile:
    """Return OpenL3's weights of that kind: the file given, the cached one, an installed package's, or a fresh copy.

    Args:
        input_repr: ``"linear"``, ``"mel128"`` or ``"mel256"``.
        content_type: ``"env"`` or ``"music"``.
        weights: a file to use instead; any content is allowed, its SHA-256 tells it apart.
        fetch: whether the network may be used.
        progress: told how far a download is.
        patience: time-outs and attempts of a download.
        releases: the published files.

    Raises:
        UsageError: there is no such kind.
        WeightsMissingError: not here and not to be had; the message says what to do.
        ChecksumError: what is here or came is not what was published.
    """
    if weights is not None:
        return given_weights(weights)
    release = find_release(input_repr, content_type, releases)
    may_fetch = fetch and not offline()
    try:
        found = cached_file(f"{release.name}.h5", release.h5_sha256) or _installed(release)
    except ChecksumError as problem:
        if not may_fetch:
            raise
        logger.warning("%s", problem)
        found = None
    if found is not None:
        return found
    if may_fetch:
        return _fetch(release, progress, patience)
    why = "$EMBEDINDEX_OFFLINE forbids to fetch them" if offline() else "they were not fetched yet"
    raise WeightsMissingError(f"{release.name}: the weights are not on this machine and {why}. {_advice(release)}")


def given_weights(path: str) -> WeightsFile:
    """Return the weights file that a user named, hashed.

    Raises:
        WeightsMissingError: it cannot be read.
        WeightsFormatError: it is compressed.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == GZIP_MAGIC
        if packed:
            raise WeightsFormatError(f"{shown(path)} is compressed: give the .h5 itself ('gunzip -k' unpacks it)")
        return WeightsFile(os.path.abspath(path), file_sha256(path), "the file given")
    except OSError as problem:
        raise WeightsMissingError(f"{shown(path)}: the weights cannot be read ({problem.strerror})") from problem


def import_weights(path: str, *, trust: bool = False, releases: tuple[Release, ...] = RELEASES) -> WeightsFile:
    """Put an OpenL3 weights file (``.h5`` or ``.h5.gz``) into the models folder, after checking it.

    A published ``.h5.gz`` is recognised by its checksum whatever its name. Of five of the six ``.h5`` files no checksum
    is known: those are taken only with `trust`, and then the name has to say which one it is.

    Raises:
        WeightsMissingError: the file cannot be read, or the models folder not written.
        WeightsFormatError: it is neither HDF5 nor gzip of it, or its name does not say which weights it holds.
        ChecksumError: it is not a published file, or cannot be told to be one and `trust` is False.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == GZIP_MAGIC
        checksums = _checksums(path)
    except OSError as problem:
        raise WeightsMissingError(f"{shown(path)}: cannot be read ({problem.strerror})") from problem
    source = f"imported from {os.path.abspath(path)}"
    for release in releases:
        if release.matches(packed, *checksums):
            return _place(release, path, source, packed)
    release = _named_release(path, releases)
    if not trust or (release.h5_sha256 and not packed):
        raise ChecksumError(_refusal(path, release, packed))
    return _place(release, path, f"{source}, unchecked", packed)


def _advice(release: Release) -> str:
    """Return what to do where the weights cannot be fetched."""
    return (
        f"Download {release.url} on another machine and run 'embedindex models import {release.file_name}' here;"
        " or set HTTPS_PROXY to your proxy, or $EMBEDINDEX_WEIGHTS_URL to a mirror,"
        f" and run 'embedindex models fetch openl3:input_repr={release.input_repr},content_type={release.content_type}'"
    )


def _refusal(path: str, release: Release, packed: bool) -> str:
    """Return why `import_weights` refuses a file whose checksum is not a known one."""
    if packed:
        return (
            f"{shown(path)} is not the published {release.file_name} (its checksum differs): download it again,"
            " or add --trust if you know where it comes from"
        )
    if release.h5_sha256:
        return (
            f"{shown(path)} is not the published {release.name}.h5 (its checksum differs): download it again;"
            " weights of your own are used with --weights FILE, without importing them"
        )
    return (
        f"{shown(path)} cannot be checked, as only the checksum of {release.file_name} is known, not the"
        " unpacked file's: import the .gz, or add --trust if you know where it comes from"
    )


def _named_release(path: str, releases: tuple[Release, ...]) -> Release:
    """Return the release that a file's name stands for."""
    named = re.search(r"openl3_audio_([a-z0-9]+)_([a-z]+)", os.path.basename(path))
    for release in releases:
        if named and named.groups() == (release.input_repr, release.content_type):
            return release
    raise WeightsFormatError(
        f"{shown(path)} is not a published weights file, and its name does not say which one it could be;"
        " a name like openl3_audio_mel256_env.h5 would"
    )


def _installed(release: Release) -> WeightsFile | None:
    """Return the file inside an installed `openl3` package, which is not imported for that."""
    spec = importlib.util.find_spec("openl3")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(folder, f"{release.name}.h5")
        if os.path.isfile(path):
            sha256 = file_sha256(path)
            if release.h5_sha256 in (None, sha256):
                return WeightsFile(path, sha256, "the installed openl3 package")
            logger.warning("%s is not the published file (its checksum differs); it is not used", shown(path))
    return None


def _fetch(release: Release, progress: Progress | None, patience: Patience | None) -> WeightsFile:
    """Download, check, unpack and place the weights of `release`."""
    with folder_lock(release.name):
        # Another process may have fetched them while this one waited for the lock.
        return cached_file(f"{release.name}.h5", release.h5_sha256) or _fetch_locked(release, progress, patience)


def _fetch_locked(release: Release, progress: Progress | None, patience: Patience | None) -> WeightsFile:
    part = os.path.join(models_folder(), f"{release.file_name}.part")
    for _ in range(2):
        joined = download(
            release.url, part, limit=SIZE_LIMIT, advice=_advice(release), progress=progress, patience=patience
        )
        try:
            checksums = _checksums(part)
            if release.matches(True, *checksums):
                return _place(release, part, f"fetched from {release.url}", packed=True)
            damage = _describe(part, checksums[0], release)
        finally:
            os.remove(part)
        if not joined:  # only a file put together from several transfers may come out better the next time
            break
    raise ChecksumError(f"{damage}. {_advice(release)}")


def _describe(part: str, blob: str, release: Release) -> str:
    """Return words about a download that is not what was published."""
    with open(part, "rb") as file:
        page = file.read(256).lstrip().startswith(b"<")
    hint = " (it is a web page, perhaps a proxy's or a log-in)" if page else ""
    return (
        f"{release.url} brought {os.path.getsize(part):,} bytes that are not the published weights{hint}:"
        f" git blob id {blob}, not {release.gz_git_blob}; they were deleted"
    )


def _place(release: Release, origin: str, source: str, packed: bool) -> WeightsFile:
    """Unpack or copy `origin` into the models folder under the release's name."""

    def write(target: BinaryIO) -> None:
        with open(origin, "rb") as file:
            _unpack(file, target, origin, packed)

    return place_file(f"{release.name}.h5", source, write, release.h5_sha256)


def _unpack(file: BinaryIO, target: BinaryIO, origin: str, packed: bool) -> None:
    """Copy `file`, decompressed when `packed`, to `target`.

    Raises:
        WeightsFormatError: it is not HDF5, cannot be decompressed, or is too large.
    """
    stream = gzip.GzipFile(fileobj=file) if packed else file
    written = 0
    while True:
        try:
            chunk = stream.read(CHUNK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
            raise WeightsFormatError(f"{shown(origin)} cannot be decompressed ({problem}); get it again") from problem
        if not written and chunk[: len(HDF5_MAGIC)] != HDF5_MAGIC:
            raise WeightsFormatError(f"{shown(origin)} holds no HDF5 file: these are not OpenL3 weights")
        if not chunk:
            return
        written += len(chunk)
        if written > SIZE_LIMIT:
            raise WeightsFormatError(f"{shown(origin)} holds more than weights can be ({SIZE_LIMIT:,} bytes)")
        target.write(chunk)


def _checksums(path: str) -> tuple[str, str]:
    """Return (git blob id, SHA-256), both hex, of a file."""
    blob = hashlib.sha1(b"blob %d\0" % os.path.getsize(path), usedforsecurity=False)
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            blob.update(chunk)
            sha256.update(chunk)
    return blob.hexdigest(), sha256.hexdigest()
