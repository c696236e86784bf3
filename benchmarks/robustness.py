"""Does an altered copy find its original first? Quieter, clipped, band-limited and late copies of a library's sounds.

    python benchmarks/robustness.py --index DIR [--index DIR…] [--count 200] [--seed 1] [--json]
    python benchmarks/robustness.py ~/samples --model aisfx --model spectral
    python benchmarks/robustness.py --each --model aisfx+spectral --hop 1 ~/drums ~/synths …  # one by one

Sounds of up to 30 s are drawn and copied as FLAC files: 20 dB quieter; 6 dB louder and clipped; at 16 kHz; at 8 kHz;
with 0.3 s of silence in front. A copy is right when its first hit is its original, or a file of exactly the same bytes;
in brackets, where it is more: or the same waveform but for its level, as layers of drum kits are (`same_sound.py`: the
whole files correlate by 0.999 at their own rate). All that is not right strictly is listed with its correlation.
Sounds that are silent, or shorter than 50 ms, are not drawn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile as sf
from altered import add_index_options, both_shares, collections, delayed, model_name, resampled, with_gain
from measure import print_results
from same_sound import SAME, same_recording

from embedindex.arrays import Float32Array
from embedindex.audio import read_audio
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.records import FileRecord
from embedindex.search import search
from embedindex.store import Store

SHORTEST_S, LONGEST_S = 0.05, 30.0
QUIETEST_PEAK = 1e-3


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


@dataclass(frozen=True)
class Wrong:
    """A copy whose first hit is not its original: what was done to it, the paths, and how much they correlate."""

    alteration: str
    original: str
    found: str
    correlation: float


@dataclass(frozen=True)
class Result:
    """What an index found, as ``--json`` has it: shares by alteration, strictly and with the same waveforms."""

    collection: str
    index: str
    windows: int
    copies: int
    found: dict[str, float]
    found_counted: dict[str, float]
    search_ms: float
    search_cpu_ms: float
    wrong: list[Wrong]

    @property
    def row(self) -> list[str]:
        """The line of the table."""
        shares = [both_shares(self.found[one.name], self.found_counted[one.name]) for one in ALTERATIONS]
        search = f"{self.search_ms:.0f} ms ({self.search_cpu_ms:.0f} ms)"
        return [self.collection, self.index, f"{self.windows:,}", *shares, search]


def ask(name: str, store: Store, copies: Sequence[tuple[FileRecord, Path]]) -> Result:
    """Return what one index finds."""
    view = load_view(store)
    maker = QueryMaker(store, view.model)
    wrong: list[Wrong] = []
    search_s, search_cpu_s = [], []
    for original, folder in copies:
        for place, alteration in enumerate(ALTERATIONS):
            query = maker.from_file(str(folder / f"{place}.flac"))
            began, used = time.perf_counter(), time.process_time()
            first = search(store, view, [query], k=1)[0].file
            search_s.append(time.perf_counter() - began)
            search_cpu_s.append(time.process_time() - used)
            if first.path != original.path and first.content_hash != original.content_hash:
                alike = round(same_recording(original.path, first.path), 4)
                wrong.append(Wrong(alteration.name, original.text_path, first.text_path, alike))
    count = max(1, len(copies))
    missed = Counter(one.alteration for one in wrong)
    other = Counter(one.alteration for one in wrong if one.correlation < SAME)
    return Result(
        name,
        model_name(store),
        view.windows,
        len(copies),
        {one.name: 1 - missed[one.name] / count for one in ALTERATIONS},
        {one.name: 1 - other[one.name] / count for one in ALTERATIONS},
        1000 * statistics.median(search_s),
        1000 * statistics.median(search_cpu_s),
        wrong,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_index_options(parser)
    options = parser.parse_args()
    count = min(options.count, 6) if options.quick else options.count
    results: list[Result] = []
    notes = []
    for name, stores in collections(options, sounds=8, sound_s=2):
        with TemporaryDirectory(prefix="embedindex-copies-") as folder:
            found = stores[0].files("status = 'ok' AND duration BETWEEN ? AND ?", (SHORTEST_S, LONGEST_S))
            records = sorted(found, key=lambda one: one.path)
            copies = write_copies(Path(folder), records, count, options.seed)
            results += [ask(name, store, copies) for store in stores]
        notes.append(f"{name}: {len(copies)} of {len(records)} sounds, seed {options.seed}.")
    for result in results:
        notes.append(f"Not strictly right, {result.collection}, {result.index}:")
        for one in result.wrong:
            what = "same waveform" if one.correlation >= SAME else f"correlation {one.correlation:.3f}"
            names = " -> ".join(os.path.basename(path) for path in (one.original, one.found))
            notes.append(f"  {one.alteration}: {names}: {what}")
    header = ["collection", "index", "windows", *(alteration.name for alteration in ALTERATIONS), "search"]
    rows = [result.row for result in results]
    rows.append(["target", "", "", *(f"{alteration.target:.2f}" for alteration in ALTERATIONS), ""])
    notes.append("Given is the share whose first hit is the original. In brackets: counting the same waveform under")
    notes.append("another name; processor time.")
    title = "Altered copies that find their original first"
    print_results(options.json, title, header, rows, notes, [asdict(one) for one in results])


if __name__ == "__main__":
    main()
