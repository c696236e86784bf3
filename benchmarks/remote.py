"""What reading through fsspec costs a scan, without any network: a folder scanned as itself and as ``file://`` URL.

    python benchmarks/remote.py [--files 200] [--seconds 20] [--workers 2] [--quick]

Makes noisy stereo WAV files in a temporary folder, scans them both ways with the built-in model, and compares the
vectors bit by bit. On Linux it also watches how much disk the nameless temporary files of all processes take together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import MIB, Run, embedindex, print_report, run_cold

from embedindex.store import Store

SAMPLE_RATE = 44100


def make_library(folder: Path, files: int, duration_s: float) -> None:
    """Write `files` different sounds."""
    random = np.random.default_rng(1)
    for number in range(files):
        path = folder / f"{number // 50:03d}" / f"{number:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, random.uniform(-0.5, 0.5, (round(duration_s * SAMPLE_RATE), 2)), SAMPLE_RATE, subtype="PCM_16")


def vectors(index: Path) -> list[bytes]:
    """Return the vectors of all files of an index, by their paths."""
    with Store(str(index)) as store:
        return [store.vectors_of(record).tobytes() for record in store.files()]


def nameless_bytes(folder: str) -> int:
    """Return how much disk the files in a folder take that have no names any more, but are open somewhere."""
    taken: dict[tuple[int, int], int] = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link).startswith(folder + os.sep):
                found = link.stat()
                taken[found.st_dev, found.st_ino] = found.st_blocks * 512
        except OSError:  # it was closed meanwhile
            continue
    return sum(taken.values())


def watched(command: list[str], folder: str) -> tuple[Run, int]:
    """Return a run whose temporary files go into a folder, and the most bytes that those took together."""
    most = [0]
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            most[0] = max(most[0], nameless_bytes(folder))
            time.sleep(0.02)

    looking = threading.Thread(target=look)
    if sys.platform == "linux":
        looking.start()
    try:
        run = run_cold(command, {"TMPDIR": folder})
    finally:
        over.set()
        if sys.platform == "linux":
            looking.join()
    assert not os.listdir(folder), "something with a name was left behind"
    return run, most[0]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="4 short files: only to see that it works")
    options = parser.parse_args()
    files, duration_s = (4, 1.0) if options.quick else (options.files, options.seconds)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        library, room = Path(temporary, "library"), Path(temporary, "room")
        room.mkdir()
        make_library(library, files, duration_s)
        size = sum(path.stat().st_size for path in library.rglob("*.wav"))
        found = []
        for name, root in (("folder", str(library)), ("through fsspec", library.as_uri())):
            index = Path(temporary, name)
            command = embedindex("scan", root, "--index", str(index), "--model", "spectral", "--json")
            try:
                run, most = watched([*command, "--workers", str(options.workers)], str(room))
            except subprocess.CalledProcessError as error:
                raise SystemExit(f"the scan failed: {error}") from error
            rows.append([name, f"{run.wall_s:.1f} s", f"{run.cpu_s:.1f} s", f"{most / MIB:.0f} MiB"])
            found.append(vectors(index))
        assert found[0] == found[1], "the vectors differ"
    notes = [f"{size / MIB:.0f} MiB in {files} files, {options.workers} workers. The vectors are the same, bit by bit."]
    print_report("Scanning through fsspec", ["as", "wall", "CPU", "temporary files"], rows, notes)


if __name__ == "__main__":
    main()
