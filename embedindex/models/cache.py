"""The models folder: weights files with a record of what they are, placed atomically, checked before every use.

Conventions: the folder is ``$EMBEDINDEX_MODELS`` or the platform's cache. In it ``NAME.h5`` (or ``.pth``) is a weights
file and ``NAME.json`` says which SHA-256 it has and where it came from; a file whose bytes say otherwise is renamed
``….damaged`` and never returned. Nothing gets its final name before it was checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

from embedindex.errors import ChecksumError, WeightsError, WeightsMissingError
from embedindex.errors import display_path as shown
from embedindex.whole_files import NO_SPACE, renamed

CHUNK = 1 << 20
LOCK_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on this machine, checked.

    Attributes:
        path: where it is.
        sha256: SHA-256 (hex) of its bytes.
        source: where it came from, in words.
    """

    path: str
    sha256: str
    source: str


def models_folder() -> str:
    """Return the folder of downloaded and converted models: ``$EMBEDINDEX_MODELS``, else the platform's cache."""
    chosen = os.environ.get("EMBEDINDEX_MODELS")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    from platformdirs import user_cache_dir

    return os.path.join(user_cache_dir("embedindex", appauthor=False), "models")


def offline() -> bool:
    """Say whether ``$EMBEDINDEX_OFFLINE`` forbids the network."""
    return os.environ.get("EMBEDINDEX_OFFLINE", "0") not in ("", "0")


def file_sha256(path: str) -> str:
    """Return the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cached_file(name: str, known_sha256: str | None) -> WeightsFile | None:
    """Return the file `name` of the models folder after reading all its bytes; None when it is not there.

    Args:
        name: the file's name.
        known_sha256: what its SHA-256 has to be; None when only its record knows.

    Raises:
        ChecksumError: its bytes are not the ones that were placed there; it has been set aside.
        WeightsMissingError: it cannot be read.
    """
    path = os.path.join(models_folder(), name)
    if not os.path.isfile(path):
        return None
    try:
        sha256 = file_sha256(path)
    except OSError as problem:
        raise WeightsMissingError(f"{shown(path)}: the weights cannot be read ({problem.strerror})") from problem
    record = _read_record(path)
    promised = known_sha256 or (record.sha256 if record else None)
    if sha256 == promised:
        return WeightsFile(path, sha256, record.source if record else "the models folder")
    what = f"has SHA-256 {sha256}, not {promised}" if promised else "was not put there by embedindex"
    raise ChecksumError(
        f"{shown(path)} {what}: {_set_aside(path)}; run 'embedindex models fetch' or 'embedindex models import' again"
    )


def place_file(name: str, source: str, write: Callable[[BinaryIO], None], known_sha256: str | None) -> WeightsFile:
    """Let `write` produce the file `name` of the models folder, check it, and give it its name atomically.

    Args:
        name: the file's name.
        source: where it comes from, in words, for the record.
        write: writes the bytes to the open file it is given.
        known_sha256: what the SHA-256 has to be; None when any content is right.

    Raises:
        ChecksumError: the bytes are not the known ones; nothing was placed.
        WeightsMissingError: the folder cannot be written, or is full.
    """
    path = os.path.join(models_folder(), name)
    with writing(path) as temporary:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        sha256 = file_sha256(temporary)
        if known_sha256 is not None and sha256 != known_sha256:
            raise ChecksumError(f"{name} ({source}) has SHA-256 {sha256}, not {known_sha256}; it is not used")
        placed = WeightsFile(path, sha256, source)
        with renamed(_record_path(path)) as record, open(record, "w", encoding="utf-8") as file:
            json.dump(asdict(placed), file)
    return placed


def discard_file(placed: WeightsFile) -> None:
    """Remove a file that turned out to be of no use, and its record.

    Raises:
        WeightsMissingError: the folder cannot be written.
    """
    try:
        os.remove(placed.path)
        os.remove(_record_path(placed.path))
    except OSError as problem:
        raise writing_failed(problem, placed.path) from problem


@contextlib.contextmanager
def writing(path: str) -> Iterator[str]:
    """Make the folder of a file of the models folder, and yield the name to write it under (`whole_files.renamed`).

    Raises:
        WeightsMissingError: in place of every OSError inside.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with renamed(path) as temporary:
            yield temporary
    except OSError as problem:
        raise writing_failed(problem, path) from problem


def writing_failed(problem: OSError, path: str) -> WeightsMissingError:
    """Return the error to raise when `path` in the models folder could not be written."""
    folder = shown(os.path.dirname(path))
    if problem.errno in NO_SPACE:
        return WeightsMissingError(
            f"{folder}: no space left for the weights; free 100 MB there,"
            " or set $EMBEDINDEX_MODELS to a folder on a larger disk"
        )
    return WeightsMissingError(
        f"{folder}: the weights cannot be written there ({problem.strerror or problem});"
        " set $EMBEDINDEX_MODELS to a folder that can be written"
    )


@contextlib.contextmanager
def folder_lock(name: str) -> Iterator[None]:
    """Hold the lock of one model's files, so that two processes do not write them at once; waits for the other.

    Raises:
        WeightsMissingError: the folder cannot be written.
        WeightsError: the other process takes longer than `LOCK_TIMEOUT_S`.
    """
    from filelock import FileLock, Timeout

    path = os.path.join(models_folder(), f"{name}.lock")
    lock = FileLock(path, timeout=LOCK_TIMEOUT_S)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lock.acquire()
    except Timeout as problem:
        raise WeightsError(
            f"{shown(path)}: another process has been fetching {name} for {LOCK_TIMEOUT_S:.0f} s; end it and try again"
        ) from problem
    except OSError as problem:
        raise writing_failed(problem, path) from problem
    try:
        yield
    finally:
        lock.release()


def _set_aside(path: str) -> str:
    """Rename a file that is not what it should be; return words about what became of it."""
    try:
        os.replace(path, f"{path}.damaged")
    except OSError as problem:
        return f"it is not used (and could not be renamed: {problem.strerror})"
    return f"it is not used, and kept as {shown(path)}.damaged"


def _record_path(path: str) -> str:
    return f"{os.path.splitext(path)[0]}.json"


def _read_record(path: str) -> WeightsFile | None:
    """Return the record of a cached file, None when there is none that can be read."""
    try:
        with open(_record_path(path), encoding="utf-8") as file:
            return WeightsFile(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None
