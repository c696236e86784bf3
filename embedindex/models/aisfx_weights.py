"""aisfx's weights: a checkpoint inside the wheel `aisfx` 0.1.2, which the environment's own installer downloads.

The package itself cannot be installed beside current libraries (it pins numpy 1.23.0), and need not be: the wheel is
downloaded without its dependencies, checked, and the checkpoint taken out. pip's (or uv's) own settings decide where
from: index, proxy, certificates. Nothing of the wheel is imported or run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, BinaryIO

from embedindex.errors import ChecksumError, WeightsFormatError, WeightsMissingError
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
    writing_failed,
)
from embedindex.models.download import Patience, Progress
from embedindex.whole_files import NO_SPACE

CHECKPOINT = "aisfx/models/checkpoint.pth"
CHECKPOINT_LIMIT = 40_000_000
# pip has to start and to ask the index before the first byte comes.
PIP_PATIENCE = Patience(open_s=60.0, read_s=60.0)
POLL_S = 0.1


@dataclass(frozen=True)
class WheelRelease:
    """The published wheel.

    Attributes:
        requirement: what the installer is asked for.
        wheel_sha256: SHA-256 (hex) of the wheel.
        wheel_bytes: its size, for the progress.
        checkpoint_sha256: SHA-256 (hex) of the checkpoint inside.
    """

    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    checkpoint_sha256: str

    @property
    def file_name(self) -> str:
        """Name of the checkpoint in the models folder."""
        return f"{self.requirement.replace('==', '-')}.pth"


AISFX = WheelRelease(
    requirement="aisfx==0.1.2",
    wheel_sha256="bfe219950715af179e9a1653e7117cc1852baef267cd6596c42cad74afe1d194",
    wheel_bytes=23_140_952,
    checkpoint_sha256="499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
)


def find_aisfx(
    *,
    weights: str | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
    patience: Patience | None = None,
    release: WheelRelease = AISFX,
) -> WeightsFile:
    """Return aisfx's checkpoint: the file given, the cached one, an installed package's, or a fresh one.

    Args:
        weights: a checkpoint to use instead; any content is allowed, its SHA-256 tells it apart.
        fetch: whether the network may be used.
        progress: told how far the download is.
        patience: how long to wait for the installer's first and for further bytes.
        release: the published wheel.

    Raises:
        WeightsMissingError: not here and not to be had; the message says what to do.
        ChecksumError: what is here or came is not what was published.
    """
    if weights is not None:
        try:
            return WeightsFile(os.path.abspath(weights), file_sha256(weights), "the file given")
        except OSError as problem:
            raise WeightsMissingError(f"{shown(weights)}: the weights cannot be read ({problem.strerror})") from problem
    may_fetch = fetch and not offline()
    try:
        found = cached_file(release.file_name, release.checkpoint_sha256) or _installed(release)
    except ChecksumError:
        if not may_fetch:
            raise
        found = None
    if found is not None:
        return found
    if not may_fetch:
        why = "$EMBEDINDEX_OFFLINE forbids to fetch them" if offline() else "they were not fetched yet"
        raise WeightsMissingError(f"aisfx: the weights are not on this machine and {why}. {_advice(release)}")
    with folder_lock("aisfx"):
        # Another process may have fetched them while this one waited for the lock.
        return cached_file(release.file_name, release.checkpoint_sha256) or _fetch(
            release, progress, patience or PIP_PATIENCE
        )


def import_aisfx(path: str, release: WheelRelease = AISFX) -> WeightsFile:
    """Put the checkpoint of a downloaded wheel (or the checkpoint itself) into the models folder, after checking it.

    Raises:
        WeightsMissingError: the file cannot be read, or the models folder not written.
        WeightsFormatError: it is neither.
        ChecksumError: the checkpoint is not the published one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = CHECKPOINT in archive.namelist()
    except OSError as problem:
        raise WeightsMissingError(f"{shown(path)}: cannot be read ({problem.strerror})") from problem
    except zipfile.BadZipFile as problem:
        raise WeightsFormatError(f"{shown(path)} is neither the wheel of {release.requirement} nor a checkpoint") from (
            problem
        )
    return _place(path, inside, f"imported from {os.path.abspath(path)}", release)


def _advice(release: WheelRelease) -> str:
    """Return what to do where the wheel cannot be fetched."""
    return (
        f"Run 'pip download --no-deps {release.requirement}' on another machine and 'embedindex models import FILE.whl'"
        " here; or tell pip of your proxy or mirror ('pip config') and run 'embedindex models fetch aisfx'"
    )


def _installed(release: WheelRelease) -> WeightsFile | None:
    """Return the checkpoint of an installed `aisfx` package, which is not imported for that."""
    spec = importlib.util.find_spec("aisfx")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(folder, *CHECKPOINT.split("/")[1:])
        if os.path.isfile(path) and file_sha256(path) == release.checkpoint_sha256:
            return WeightsFile(path, release.checkpoint_sha256, "the installed aisfx package")
    return None


def _fetch(release: WheelRelease, progress: Progress | None, patience: Patience) -> WeightsFile:
    """Let the installer download the wheel; check it; place the checkpoint."""
    try:
        folder = tempfile.mkdtemp(prefix="aisfx-", dir=models_folder())
    except OSError as problem:
        raise writing_failed(problem, os.path.join(models_folder(), "aisfx")) from problem
    try:
        source = _download(release, folder, progress, patience)
        wheels = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".whl")]
        if not wheels:  # uv installs; it has checked the wheel's SHA-256 itself
            return _place(os.path.join(folder, *CHECKPOINT.split("/")), False, source, release)
        found = file_sha256(wheels[0])
        if found != release.wheel_sha256:
            raise ChecksumError(
                f"{os.path.basename(wheels[0])} ({source}) has SHA-256 {found}, not {release.wheel_sha256}:"
                f" it was deleted. {_advice(release)}"
            )
        return _place(wheels[0], True, source, release)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(release: WheelRelease, folder: str, progress: Progress | None, patience: Patience) -> str:
    """Run the installer, which leaves the wheel (pip) or its content (uv) in `folder`; return who it was, in words."""
    if importlib.util.find_spec("pip") is not None:
        wanted = [release.requirement, "--no-deps", "--only-binary", ":all:", "--dest", folder]
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "1"]
        _run([sys.executable, "-m", "pip", "download", *wanted, *quiet], folder, release, progress, patience)
        return f"{release.requirement} downloaded by pip"
    uv = shutil.which("uv")
    if uv is not None:
        hashed = os.path.join(folder, "requirements.txt")
        with open(hashed, "w", encoding="utf-8") as file:
            file.write(f"{release.requirement} --hash=sha256:{release.wheel_sha256}\n")
        wanted = ["--requirements", hashed, "--require-hashes", "--no-deps", "--only-binary", ":all:"]
        place = ["--python", sys.executable, "--target", folder, "--quiet", "--no-progress"]
        # uv downloads into its own cache, where its progress cannot be seen.
        blind = Patience(open_s=600.0, read_s=600.0)
        _run([uv, "pip", "install", *wanted, *place], folder, release, None, blind)
        return f"{release.requirement} downloaded by uv"
    raise WeightsMissingError(f"aisfx: neither pip nor uv is here to fetch the weights with. {_advice(release)}")


def _run(command: list[str], folder: str, release: WheelRelease, progress: Progress | None, patience: Patience) -> None:
    """Run an installer until it ends or no longer gets anything.

    Its temporary files are kept in `folder`, so that the growing wheel can be watched; and it runs there, so that no
    module of the current folder is taken for pip.
    """
    environment = {**os.environ, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
    with open(os.path.join(folder, "errors.txt"), "w+b") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            stalled_s = _watch(process, lambda: _wheel_bytes(folder), release.wheel_bytes, progress, patience)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if stalled_s is not None:
        raise WeightsMissingError(f"aisfx: nothing came for {stalled_s:g} s. {_advice(release)}")
    full = [number for number in NO_SPACE if os.strerror(number) in said]
    if process.returncode and full:
        raise writing_failed(OSError(full[0], os.strerror(full[0])), os.path.join(models_folder(), "aisfx"))
    if process.returncode:
        raise WeightsMissingError(f"aisfx: the weights could not be fetched: {_reason(said)}. {_advice(release)}")


def _watch(
    process: subprocess.Popen[bytes],
    measure: Callable[[], int],
    total: int,
    progress: Progress | None,
    patience: Patience,
) -> float | None:
    """Report the growing download until the process ends (None) or stalls (how many seconds)."""
    here = 0
    changed = time.monotonic()
    while process.poll() is None:
        time.sleep(POLL_S)
        now = measure()
        if now > here:
            here, changed = now, time.monotonic()
            if progress is not None:
                progress(min(here, total), total)
        allowed = patience.read_s if here else patience.open_s
        # With all bytes here, what remains is the installer's own work.
        if time.monotonic() - changed > allowed and here < total:
            return allowed
    if progress is not None and process.returncode == 0:
        progress(total, total)
    return None


def _wheel_bytes(folder: str) -> int:
    """Return the size of the largest wheel anywhere below `folder`."""
    sizes = [0]
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                try:
                    sizes.append(os.path.getsize(os.path.join(place, name)))
                except OSError:  # moved in this moment
                    continue
    return max(sizes)


def _reason(said: str) -> str:
    """Return the line of an installer's messages that says why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error") and not line.endswith(":")]
    reason = (errors or lines or ["the installer said nothing"])[-1]
    return reason.removeprefix("ERROR: ").rstrip(".")


def _place(origin: str, is_wheel: bool, source: str, release: WheelRelease) -> WeightsFile:
    """Copy the checkpoint out of `origin` (a wheel, or the checkpoint itself) into the models folder."""

    def write(target: BinaryIO) -> None:
        if not is_wheel:
            with open(origin, "rb") as file:
                _copy(file, target, origin)
            return
        with zipfile.ZipFile(origin) as archive, archive.open(CHECKPOINT) as member:
            _copy(member, target, origin)

    return place_file(release.file_name, source, write, release.checkpoint_sha256)


def _copy(file: IO[bytes], target: BinaryIO, origin: str) -> None:
    written = 0
    while chunk := file.read(CHUNK):
        written += len(chunk)
        if written > CHECKPOINT_LIMIT:
            raise WeightsFormatError(f"{shown(origin)} holds more than weights can be ({CHECKPOINT_LIMIT:,} bytes)")
        target.write(chunk)
