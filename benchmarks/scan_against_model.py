"""How near a whole scan comes to the model alone: windows a second of a scan over windows a second of its model.

    python benchmarks/scan_against_model.py [--model spectral] [--weights FILE] [--workers 2] [--pairs 3] [--quick]

Two libraries are made: MP3s of 5 minutes, and one-shots (WAV, 0.1 to 3 s). For each, in turn and `--pairs` times: the
model alone, embedding windows of such sounds in as many processes as the scan has workers, one thread each; then a scan
into a new index. "CPU" ratios are of windows a second of processor time, starting, writing and indexing included, and
hold on a machine that others use as well; "wall" ratios are what was seen.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import MIB, embedindex, library_sound, print_report, run_cold

from embedindex.arrays import Float32Array
from embedindex.embed import BATCH_WINDOWS
from embedindex.models import ModelRequest, load_model, parse_request

SAMPLE_RATE = 44100
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # As a scan's workers have them.
    "MALLOC_MMAP_THRESHOLD_": str(2**24),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
}


@dataclass(frozen=True)
class Speed:
    """Windows a second of elapsed and of processor time."""

    wall: float
    cpu: float


def make_tracks(folder: Path, tracks: int, track_s: float) -> None:
    """Write stereo MP3s, each its own sound."""
    for number in range(tracks):
        left, right = (library_sound(track_s, SAMPLE_RATE, seed=2 * number + side) for side in (0, 1))
        stereo = np.stack([left, 0.5 * (left + right)], axis=1)
        with sf.SoundFile(folder / f"{number:03d}.mp3", "w", SAMPLE_RATE, 2) as file:
            for start in range(0, len(stereo), SAMPLE_RATE):
                file.write(stereo[start : start + SAMPLE_RATE])


def make_shots(folder: Path, shots: int) -> None:
    """Write one-shots, each its own sound, in folders of a hundred."""
    sound = library_sound(60.0, SAMPLE_RATE)
    rng = np.random.default_rng(5)
    for number in range(shots):
        length = round(SAMPLE_RATE * float(np.clip(rng.lognormal(-0.5, 0.8), 0.1, 3.0)))
        start = int(rng.integers(0, len(sound) - length))
        decay = np.exp(-np.linspace(0, rng.uniform(0.5, 5), length))
        hit = sound[start : start + length] * decay + rng.normal(0, 1e-3, length)
        path = folder / f"{number // 100:03d}" / f"{number:05d}.wav"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, hit.astype(np.float32), SAMPLE_RATE, subtype="PCM_16")


def request_of(options: argparse.Namespace) -> ModelRequest:
    """Return the model that the options name."""
    from dataclasses import replace

    return replace(parse_request(options.model), weights=options.weights, precision=options.precision)


def model_alone(options: argparse.Namespace) -> None:
    """Embed windows for some seconds and print (windows, elapsed seconds, processor seconds) as JSON."""
    model = load_model(request_of(options))
    size, rate = model.identity.window_samples, model.identity.sample_rate
    sound = library_sound(60.0, rate)
    starts = np.random.default_rng(1).integers(0, len(sound) - size, 64)
    windows: Float32Array = np.stack([sound[start : start + size] for start in starts])
    model.embed(windows[:BATCH_WINDOWS])
    done, began, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < options.seconds:
        first = done % len(windows)
        done += len(model.embed(windows[first : first + BATCH_WINDOWS]))
    print(json.dumps([done, time.perf_counter() - began, time.process_time() - used]))


def measure_model(options: argparse.Namespace) -> Speed:
    """Return the speed of the model alone, in as many processes as the scan has workers."""
    command = [sys.executable, __file__, "--alone", *sys.argv[1:]]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT})
        for _ in range(options.workers)
    ]
    said = [json.loads(run.communicate()[0]) for run in runs]
    windows = sum(done for done, _, _ in said)
    return Speed(sum(done / wall for done, wall, _ in said), windows / sum(cpu for _, _, cpu in said))


def measure_scan(options: argparse.Namespace, library: Path, index: Path) -> tuple[Speed, int, int, int]:
    """Return a scan's speed, its windows that sound, and the peak memory of the parent and of its largest worker."""
    named = ["--model", options.model, "--precision", options.precision]
    if options.weights:
        named += ["--weights", options.weights]
    command = embedindex("scan", str(library), "-I", str(index), *named, "-j", str(options.workers), "--nice", "0")
    run = run_cold([*command, "--json"], memory=True)
    summary = json.loads(run.output)
    windows = summary["windows"] - summary["silent_windows"]
    assert summary["failed"] == 0 < windows
    parent, *others = run.peak_bytes.values()
    return Speed(windows / run.wall_s, windows / run.cpu_s), windows, parent, max(others)


def compare(options: argparse.Namespace, name: str, library: Path, scratch: Path) -> list[str]:
    """Return a row of the table: a library scanned, against the model alone."""
    alone, scans, memory = [], [], [0, 0]
    windows = 0
    for pair in range(options.pairs):
        alone.append(measure_model(options))
        speed, windows, *peaks = measure_scan(options, library, scratch / f"index-{name}-{pair}")
        scans.append(speed)
        memory = [max(old, new) for old, new in zip(memory, peaks, strict=True)]
    wall = statistics.median(scan.wall / model.wall for scan, model in zip(scans, alone, strict=True))
    cpu = statistics.median(scan.cpu / model.cpu for scan, model in zip(scans, alone, strict=True))
    return [
        name,
        f"{windows:,}",
        f"{statistics.median(model.cpu for model in alone):.1f}",
        f"{statistics.median(scan.cpu for scan in scans):.1f}",
        f"{cpu:.2f}",
        f"{wall:.2f}",
        f"{memory[0] / MIB:.0f} + {memory[1] / MIB:.0f} MiB",
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spectral")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tracks", type=int, default=8, help="MP3s of 5 minutes")
    parser.add_argument("--shots", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of the model alone")
    parser.add_argument("--keep", metavar="FOLDER", help="make the libraries here, or use those that are here")
    parser.add_argument("--quick", action="store_true", help="2 tracks of 3 s, 20 one-shots: only to see that it works")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    track_s = 300.0
    if options.quick:
        options.tracks, track_s, options.shots, options.pairs, options.seconds = 2, 3.0, 20, 1, 0.2
    if options.alone:
        model_alone(options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(options.keep or temporary)
        if options.tracks:
            tracks = place / f"tracks{options.tracks}"
            if not tracks.is_dir():
                tracks.mkdir(parents=True)
                make_tracks(tracks, options.tracks, track_s)
            rows.append(compare(options, f"{options.tracks} MP3s of {track_s / 60:g} minutes", tracks, Path(temporary)))
        if options.shots:
            shots = place / f"shots{options.shots}"
            if not shots.is_dir():
                shots.mkdir(parents=True)
                make_shots(shots, options.shots)
            rows.append(compare(options, f"{options.shots:,} one-shots", shots, Path(temporary)))
    print_report(
        f"A scan with {options.model}, {options.workers} workers, against the model alone",
        ["library", "windows", "model /CPU s", "scan /CPU s", "CPU ratio", "wall ratio", "peak memory"],
        rows,
        [f"Medians of {options.pairs} pairs; windows a second of processor time; memory of the scan + largest worker."],
    )


if __name__ == "__main__":
    main()
