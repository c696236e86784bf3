"""How many times faster than it plays sound is scanned, against decoding alone, and where the time goes.

    python benchmarks/scan_speed.py [--library FOLDER] [--minutes 20] [--workers 1 2] [--model spectral] [--quick]

Without `--library` it makes one: tracks of 3 minutes, 44.1 kHz, stereo, as FLAC, MP3, Ogg Vorbis and WAV in turn. First
one process decodes all of it to the model's rate, then embeds it; the model's share is measured inside. Then cold scans
into new indexes, with some numbers of workers. "x CPU" is seconds of sound a second of processor time, which is what a
free core would do; "x wall" is what this machine did while others used it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import MIB, embedindex, library_sound, print_report, run_cold

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.crawl import CrawlTrouble, crawl
from embedindex.embed import embed_file
from embedindex.errors import AudioError
from embedindex.models import ModelIdentity, load_model, parse_request

SAMPLE_RATE = 44100
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as a scan's workers have
SUFFIXES = (".flac", ".mp3", ".ogg", ".wav")


class TimedModel:
    """A model that keeps the processor time its `embed` has taken."""

    def __init__(self, name: str) -> None:
        self._model = load_model(parse_request(name))
        self.identity: ModelIdentity = self._model.identity
        self.default_hop_s = self._model.default_hop_s
        self.cpu_s = 0.0

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return the model's vectors."""
        began = time.process_time()
        vectors = self._model.embed(windows)
        self.cpu_s += time.process_time() - began
        return vectors


def make_library(folder: Path, tracks: int, track_s: float) -> None:
    """Write tracks, each its own sound."""
    for number in range(tracks):
        left, right = (library_sound(track_s, SAMPLE_RATE, seed=2 * number + side) for side in (0, 1))
        stereo = np.stack([left, 0.5 * (left + right)], axis=1)
        with sf.SoundFile(folder / f"{number:03d}{SUFFIXES[number % 4]}", "w", SAMPLE_RATE, 2) as file:
            for start in range(0, len(stereo), SAMPLE_RATE):  # libsndfile's Vorbis encoder overflows on long writes
                file.write(stereo[start : start + SAMPLE_RATE])


def decode(paths: list[bytes], sample_rate: int) -> tuple[float, list[bytes]]:
    """Return the seconds of sound in some files, all decoded, and those of the files that can be."""
    seconds = 0.0
    usable = []
    for path in paths:
        try:
            with AudioReader(path, sample_rate=sample_rate) as reader:
                for block in reader.blocks():
                    seconds += len(block) / sample_rate
        except AudioError:
            continue
        usable.append(path)
    return seconds, usable


def measure_inside(library: str, name: str) -> dict[str, object]:
    """Return what decoding, and decoding and embedding, take in this process: (wall, processor) seconds each."""
    paths = [found.path for found in crawl([os.fsencode(library)], CrawlTrouble())]
    model = TimedModel(name)
    decode(paths[:1], model.identity.sample_rate)  # loads the decoders
    model.embed(np.full((1, model.identity.window_samples), 0.1, np.float32))
    began, used = time.perf_counter(), time.process_time()
    audio_s, usable = decode(paths, model.identity.sample_rate)
    decoding = (time.perf_counter() - began, time.process_time() - used)
    model.cpu_s, began, used = 0.0, time.perf_counter(), time.process_time()
    for path in usable:
        embed_file(path, model, model.default_hop_s)
    embedding = (time.perf_counter() - began, time.process_time() - used)
    return {
        "audio_s": audio_s,
        "files": len(usable),
        "decoding": decoding,
        "embedding": embedding,
        "model_cpu_s": model.cpu_s,
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=24.0, help="of sound to make")
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--model", default="spectral")
    parser.add_argument("--quick", action="store_true", help="4 tracks of 2 s, one worker: only to see that it works")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure_inside(options.library, options.model)))
        return
    track_s = 2.0 if options.quick else 180.0
    tracks = 4 if options.quick else max(4, round(60 * options.minutes / track_s))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        library = Path(options.library or Path(temporary, "library"))
        if not options.library:
            library.mkdir()
            make_library(library, tracks, track_s)
        inside = run_cold(
            [sys.executable, __file__, "--inside", "--model", options.model, "--library", str(library)], ONE_THREAD
        )
        alone = json.loads(inside.output)
        audio_s = alone["audio_s"]
        rows.append(_row("decoding alone", audio_s, *alone["decoding"]))
        rows.append(_row("decoding and embedding", audio_s, *alone["embedding"]))
        for workers in options.workers[:1] if options.quick else options.workers:
            index = str(Path(temporary, f"index{workers}"))
            command = embedindex(
                "scan", str(library), "-I", index, "--model", options.model, "-j", str(workers), "--json", "--nice", "0"
            )
            run = run_cold(command, memory=True)
            assert json.loads(run.output)["windows"] > 0
            parent, *others = run.peak_bytes.values()
            peaks = f"{parent / MIB:.0f} + {max(others) / MIB:.0f} MiB"
            rows.append(_row(f"scan, {workers} workers", audio_s, run.wall_s, run.cpu_s, peaks))
    model_s, embed_s = alone["model_cpu_s"], alone["embedding"][1]
    share = f"{100 * model_s / embed_s:.0f} % of the processor time of decoding and embedding"
    notes = [
        f"{audio_s / 60:.1f} minutes in {alone['files']} files; the last column is of the scan and its largest worker.",
        f"The model ({options.model}) takes {share}; by itself it does {audio_s / model_s:.0f} x.",
        "A scan's time includes starting, writing and indexing.",
    ]
    print_report("Speed of a scan", ["what", "wall", "CPU", "x wall", "x CPU", "peak memory"], rows, notes)


def _row(what: str, audio_s: float, wall_s: float, cpu_s: float, peaks: str = "") -> list[str]:
    return [what, f"{wall_s:.1f} s", f"{cpu_s:.1f} s", f"{audio_s / wall_s:.0f}", f"{audio_s / cpu_s:.0f}", peaks]


if __name__ == "__main__":
    main()
