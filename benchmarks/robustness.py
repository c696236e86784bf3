"""Does an altered copy find its original first? Quieter, clipped, band-limited and late copies of a library's sounds.

    python benchmarks/robustness.py --index DIR [--index DIR…] [--count 200] [--seed 1]
    python benchmarks/robustness.py ~/samples --model aisfx --model spectral
    python benchmarks/robustness.py --each --model aisfx+spectral --hop 1 ~/drums ~/synths …  # one by one

Sounds of up to 30 s are drawn and copied as FLAC files: 20 dB quieter; 6 dB louder and clipped; at 16 kHz; at 8 kHz;
with 0.3 s of silence in front. A copy is right when its first hit is its original, or a file of exactly the same bytes;
in brackets, where it is more: or one of exactly the same waveform but for its level, as layers of drum kits are.
Sounds that are silent, or shorter than 50 ms, are not drawn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile as sf
from altered import add_index_options, collections, delayed, model_name, resampled, with_gain
from measure import print_report

from embedindex.arrays import Float32Array
from embedindex.audio import read_audio
from embedindex.correlation import correlate, first_seconds, listening_rate
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.records import FileRecord
from embedindex.search import search
from embedindex.store import Store

SHORTEST_S, LONGEST_S = 0.05, 30.0
QUIETEST_PEAK = 1e-3
SAME_CORRELATION = 0.999


@dataclass(frozen=True)
class Alteration:
    """What is done to a copy: (samples, rate) → (samples, rate); and the share that should find their original."""

    name: str
    target: float
    alter: Callable[[Float32Array, int], tuple[Float32Array, int]]


def full_scale(samples: Float32Array) -> Float32Array:
    """Return the sound with peak 1."""
    return np.asarray(samples / np.abs(samples).max(), np.float32)


ALTERATIONS = (
    Alteration("20 dB quieter", 0.98, lambda samples, rate: (with_gain(samples, -20.0), rate)),
    Alteration("+6 dB, clipped", 0.97, lambda samples, rate: (with_gain(full_scale(samples), 6.0).clip(-1, 1), rate)),
    Alteration("16 kHz", 0.95, lambda samples, rate: (resampled(samples, rate, 16000), 16000)),
    Alteration("8 kHz", 0.85, lambda samples, rate: (resampled(samples, rate, 8000), 8000)),
    Alteration("0.3 s late", 0.95, lambda samples, rate: (delayed(samples, rate, 0.3), rate)),
)


def same_waveform(first: FileRecord, second: FileRecord) -> bool:
    """Return whether two sounds are one, to a thousandth, but for their level."""
    rate = listening_rate(first.duration or 0.0, second.duration or 0.0)
    found = correlate(first_seconds(first.path, rate), first_seconds(second.path, rate), rate)
    return min(found.whole, found.detail) >= SAME_CORRELATION


def write_copies(folder: Path, records: Sequence[FileRecord], count: int, seed: int) -> list[tuple[FileRecord, Path]]:
    """Return (original, folder of its copies) for up to `count` drawn sounds; copies are named by their number."""
    order = np.random.default_rng(seed).permutation(len(records))
    copies: list[tuple[FileRecord, Path]] = []
    for number in order:
        if len(copies) == count:
            break
        samples, facts = read_audio(records[number].path, mono=False)
        samples = samples.reshape(len(samples), -1)[:, :2]
        if np.abs(samples).max(initial=0.0) < QUIETEST_PEAK:
            continue
        own = folder / f"{len(copies):03d}"
        own.mkdir()
        for place, alteration in enumerate(ALTERATIONS):
            altered, rate = alteration.alter(samples, facts.sample_rate)
            sf.write(own / f"{place}.flac", altered.clip(-1, 1), rate, subtype="PCM_24")
        copies.append((records[number], own))
    return copies


def ask(store: Store, copies: Sequence[tuple[FileRecord, Path]]) -> list[str]:
    """Return the line of the table for one index."""
    view = load_view(store)
    maker = QueryMaker(store, view.model)
    found, twins = np.zeros((2, len(ALTERATIONS)), np.int64)
    search_s = []
    for original, folder in copies:
        for place in range(len(ALTERATIONS)):
            query = maker.from_file(str(folder / f"{place}.flac"))
            began = time.perf_counter()
            first = search(store, view, [query], k=1)[0].file
            search_s.append(time.perf_counter() - began)
            right = first.path == original.path or first.content_hash == original.content_hash
            found[place] += right
            twins[place] += not right and same_waveform(original, first)
    count = max(1, len(copies))
    shares = [
        f"{right / count:.3f}" + (f" ({(right + twin) / count:.3f})" if twin else "")
        for right, twin in zip(found, twins, strict=True)
    ]
    return [model_name(store), f"{view.windows:,}", *shares, f"{1000 * statistics.median(search_s):.0f} ms"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_index_options(parser)
    options = parser.parse_args()
    count = min(options.count, 6) if options.quick else options.count
    rows, notes = [], []
    for name, stores in collections(options, sounds=8, sound_s=2):
        with TemporaryDirectory(prefix="embedindex-copies-") as folder:
            found = stores[0].files("status = 'ok' AND duration BETWEEN ? AND ?", (SHORTEST_S, LONGEST_S))
            records = sorted(found, key=lambda one: one.path)
            copies = write_copies(Path(folder), records, count, options.seed)
            rows += [[name, *ask(store, copies)] for store in stores]
        notes.append(f"{name}: {len(copies)} of {len(records)} sounds, seed {options.seed}.")
    header = ["collection", "index", "windows", *(alteration.name for alteration in ALTERATIONS), "search"]
    rows.append(["target", "", "", *(f"{alteration.target:.2f}" for alteration in ALTERATIONS), ""])
    notes.append("Given is the share whose first hit is the original.")
    print_report("Altered copies that find their original first", header, rows, notes)


if __name__ == "__main__":
    main()
