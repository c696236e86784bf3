"""How long a scan takes that finds nothing changed: 10,000 small files, cold processes, medians.

    python benchmarks/rescan.py [--files 10000] [--runs 7] [--quick]

Makes the files (all different, 0.1 s each, 100 to a folder) in a temporary folder and indexes them with the built-in
model first. Checks that the scans after that call every file unchanged and leave each byte and time stamp of the index
as it was. Target: under 1 s for 10,000 files.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import Run, embedindex, median_cpu_s, median_wall_s, print_report, repeat, run_cold

SAMPLE_RATE = 22050
DURATION_S = 0.1
FILES_IN_FOLDER = 100
LONG_AGO_NS = 1_500_000_000_123_456_789  # fresh time stamps are not trusted, so that files would be read again


def make_library(folder: Path, files: int) -> None:
    """Write `files` different sounds."""
    random = np.random.default_rng(1)
    for number in range(files):
        path = folder / f"{number // FILES_IN_FOLDER:04d}" / f"{number:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, random.uniform(-0.5, 0.5, round(DURATION_S * SAMPLE_RATE)), SAMPLE_RATE, subtype="PCM_16")
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def state(index: Path) -> dict[str, tuple[int, bytes]]:
    """Return (time of change, bytes) of every file of an index that holds anything."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in index.iterdir()
        if path.suffix != ".lock" and path.stat().st_size and not path.name.endswith("-shm")
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="30 files, one run: only to see that it works")
    options = parser.parse_args()
    files, count = (30, 1) if options.quick else (options.files, options.runs)
    with tempfile.TemporaryDirectory() as temporary:
        library, index = Path(temporary, "library"), Path(temporary, "index")
        make_library(library, files)
        command = embedindex("scan", str(library), "--index", str(index), "--json")
        first = run_cold([*command, "--model", "spectral"])
        run_cold(command)  # SQLite settles its journal
        before = state(index)

        def rescan() -> Run:
            run = run_cold(command)
            summary = json.loads(run.output)
            assert summary["unchanged"] == summary["found"] == files, summary
            return run

        again = repeat(count, rescan)
        assert state(index) == before, "a scan that found nothing changed wrote into the index"
    rows = [
        ["first scan", f"{first.wall_s:.2f} s", f"{first.cpu_s:.2f} s"],
        ["nothing changed", f"{median_wall_s(again):.2f} s", f"{median_cpu_s(again):.2f} s"],
    ]
    notes = [f"Median of {count} cold processes after the first scan; the index was not written.", "Target: 1 s."]
    print_report(f"Scanning {files:,} small files again", ["scan", "wall", "CPU"], rows, notes)


if __name__ == "__main__":
    main()
