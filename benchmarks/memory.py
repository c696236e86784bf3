"""How much more memory the scan of a very long file takes than that of a short one. Linux only.

    python benchmarks/memory.py [--long 36000] [--short 600] [--quick]

Makes a FLAC file (8 kHz, mono, many kinds of sound) of each length, scans each into an index of its own with the
built-in model and one worker, and follows the resident sizes of the scan and of its worker; what they hold at one
time counts.
Target: 10 hours take at most 100 MB more than 10 minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import MIB, Run, embedindex, library_sound, print_report, run_cold

SAMPLE_RATE = 8000
BLOCK_S = 600


def write_long(path: Path, duration_s: int) -> None:
    """Write a sound that goes on for `duration_s` seconds: sixty kinds of second, over and over, in noise."""
    random = np.random.default_rng(1)
    with sf.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        left = duration_s
        sound = library_sound(min(BLOCK_S, duration_s), SAMPLE_RATE)
        while left > 0:
            samples = min(left, BLOCK_S) * SAMPLE_RATE
            file.write(0.9 * sound[:samples] + random.normal(0.0, 0.001, samples))
            left -= BLOCK_S


def scan(folder: Path, duration_s: int) -> Run:
    """Make a file and return the measured scan of it."""
    library, index = folder / f"library{duration_s}", folder / f"index{duration_s}"
    library.mkdir()
    write_long(library / "long.flac", duration_s)
    command = embedindex(
        "scan", str(library), "--index", str(index), "--model", "spectral", "-j", "1", "--nice", "0", "--strict", "-q"
    )
    run = run_cold(command, memory=True)
    (library / "long.flac").unlink()
    return run


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=int, default=36_000, metavar="SECONDS")
    parser.add_argument("--short", type=int, default=600, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="20 s and 10 s: only to see that it works")
    options = parser.parse_args()
    lengths = (10, 20) if options.quick else (options.short, options.long)
    rows, sums = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for duration_s in lengths:
            run = scan(Path(temporary), duration_s)
            parent, *others = run.peak_bytes.values()
            sums.append(run.together_bytes)
            sizes = [f"{size / MIB:.0f} MiB" for size in (parent, max(others), sums[-1])]
            rows.append([f"{duration_s / 60:,.1f} min", *sizes, f"{run.wall_s:.1f} s", f"{run.cpu_s:.1f} s"])
    rows.append(["difference", "", "", f"{(sums[1] - sums[0]) / MIB:.0f} MiB", "", ""])
    notes = [
        "Peak resident sizes: of the scan, of its largest worker, and the most that all processes held at one time.",
        "Target: +100 MB.",
    ]
    print_report("Scanning one long file", ["length", "scan", "worker", "at once", "wall", "CPU"], rows, notes)


if __name__ == "__main__":
    main()
