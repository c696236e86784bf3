"""What a remix costs in a very large library, and what a very long seed costs: time and memory. Linux only.

    python benchmarks/remix_scale.py [--sounds DIR] [--windows 100000,1000000] [--minutes 1,60] [--keep DIR] [--quick]

Scans some sounds (made-up ones, or those of a folder) with the built-in model, and writes indexes of so many windows
out of them: every file comes again and again under other names, hard links to the same sounds, each time with other
content as far as the index can tell: its vectors and small tracks are moved by a share of their spread, the whole file
and each window, so that neighbours are as near as those of different recordings, not copies of one another.
Then a seed of 60 s, 240 units, is remixed in a process of its own, twice: the second time is warm. Measured apart:
choosing (the seed read, the index asked, stretches compared, the path found), placing (the chosen stretches read, laid
in line, levels matched) and rendering with the finished file written.
Long seeds are remixed from the sounds alone. Targets: choosing 5 s warm at a million windows, 1.5 times that at ten
million; rendering 5 times as fast as it plays; an hour takes at most 200 MB more than a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import MIB, embedindex, library_sound, print_report, run_cold

from embedindex.arrays import Float32Array
from embedindex.audio import AudioFacts
from embedindex.embed import FileEmbedding
from embedindex.file_stat import file_stat
from embedindex.index_refresh import refresh_index
from embedindex.records import FileRecord
from embedindex.remix.coarse import CoarseStore, CoarseTrack
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

RATE = 22050
SOUNDS, SOUND_S = 300, 20.0
SEED_S = 60.0
UNITS = "grid:250ms"
FILE_SHARE, WINDOW_SHARE = 0.4, 0.2  # of the vectors' spread
TRACK_STEPS = 6.0  # of a small track's columns, the whole file
BATCH = 500
LINKS_A_FOLDER = 2000


def make_sounds(folder: Path, count: int, duration_s: float) -> None:
    """Write different sounds of many kinds."""
    folder.mkdir(parents=True)
    for number in range(count):
        sound = library_sound(duration_s, RATE, 1000 + number)
        sf.write(folder / f"{number:04d}.wav", 0.9 * np.roll(sound, number * 997), RATE, "PCM_16")


def make_seed(path: Path, duration_s: float) -> None:
    """Write a sound of many kinds that is in no library, with a little noise, so that no minute is like another."""
    random = np.random.default_rng(5)
    with sf.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for minute in range(int(np.ceil(duration_s / 60))):
            sound = library_sound(min(60.0, duration_s - 60 * minute), RATE, 500_000 + minute)
            file.write(0.8 * sound + random.normal(0, 0.002, len(sound)))


def scan(sounds: Path, index: Path) -> None:
    """Index sounds with the built-in model, small tracks included."""
    run_cold(embedindex("scan", str(sounds), "--index", str(index), "--model", "spectral", "--remix", "-q"))


class Copies:
    """Files of an index, again and again, moved a little each time.

    Args:
        index: the folder of the index.
    """

    def __init__(self, index: Path) -> None:
        self._random = np.random.default_rng(3)
        self.files: list[tuple[FileRecord, Float32Array, CoarseTrack]] = []
        with Store(str(index)) as store, CoarseStore(str(index)) as kept:
            model = store.model()
            assert model is not None
            self.model = model
            for record in store.files("status = 'ok' AND n_windows > 0"):
                small = kept.get(record.content_hash or b"")
                if small is not None:
                    self.files.append((record, store.vectors_of(record).astype(np.float32), small))
        rows = np.concatenate([vectors for _, vectors, _ in self.files])
        self._spread = rows[rows.any(axis=1)].std(axis=0)

    def endless(self) -> Iterator[tuple[FileRecord, FileEmbedding, CoarseTrack]]:
        """Yield copies of all files, over and over."""
        random, number = self._random, 0
        while True:
            for record, vectors, small in self.files:
                number += 1
                moved = vectors + self._spread * (
                    FILE_SHARE * random.standard_normal(vectors.shape[1], np.float32)
                    + WINDOW_SHARE * random.standard_normal(vectors.shape, np.float32)
                )
                moved[~vectors.any(axis=1)] = 0
                off = np.round(TRACK_STEPS * random.standard_normal(small.cells.shape[1]))
                cells = np.clip(small.cells + off, -128, 127).astype(np.int8)
                facts = AudioFacts("WAV", "PCM_16", record.sample_rate or 1, record.channels or 1, None, "soundfile")
                content = FileEmbedding(
                    number.to_bytes(16, "little"), moved.astype(np.float16), record.n_silent, record.hop_s or 1.0,
                    facts, Tags(), record.duration or 0.0, record.peak or 0.0,
                )  # fmt: skip
                yield record, content, CoarseTrack(cells, small.samples)


def write_library(base: Path, folder: Path, windows: int) -> Path:
    """Write an index of about so many windows beside links to its sounds, and return its folder."""
    copies = Copies(base)
    index, links = folder / "index", folder / "links"
    links.mkdir(parents=True)
    written = number = 0
    endless = copies.endless()
    with StoreWriter(str(index)) as store, CoarseStore(str(index)) as kept:
        store.use_model(copies.model.identity, copies.model.request, copies.model.hop_s)
        root_id = store.put_root(os.fsencode(links), file_stat(os.fsencode(links)).device)
        while written < windows:
            with store.transaction():
                for _ in range(BATCH):
                    record, content, small = next(endless)
                    place = links / f"{number // LINKS_A_FOLDER:05d}"
                    place.mkdir(exist_ok=True)
                    path = os.fsencode(place / f"{number:07d}{Path(os.fsdecode(record.path)).suffix}")
                    os.link(record.path, path)
                    store.put_file(path, root_id, file_stat(path), content)
                    kept.put(content.content_hash, small)
                    number += 1
                    written += len(content.vectors)
        refresh_index(store)
    return index


@contextmanager
def measured(times: dict[str, float], name: str) -> Iterator[None]:
    """Note elapsed and processor time of what is done inside."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    times[name], times[name + " CPU"] = time.perf_counter() - wall, time.process_time() - cpu


def remix_once(index: str, seed: str, units: str, rounds: int) -> dict[str, float]:
    """Remix a seed, the given number of times, and return the times of the last one."""
    from embedindex.index import load_view
    from embedindex.query import QueryMaker
    from embedindex.remix.compose import Composer
    from embedindex.remix.options import RemixOptions
    from embedindex.remix.outputs import write_remix
    from embedindex.remix.path import find_path
    from embedindex.remix.seed import unit_times_s
    from embedindex.remix.units import parse_units

    times: dict[str, float] = {}
    options = RemixOptions(cutting=parse_units(units))
    with Store(index) as store, tempfile.TemporaryDirectory() as folder:
        with measured(times, "opening"):
            view = load_view(store)
            model = QueryMaker(store, view.model).model
            model()
        for number in range(rounds):
            with measured(times, "choosing"):
                composer = Composer(store, view, model, seed, options)
            if number == 0:
                times["choosing cold"] = times["choosing"]
            with measured(times, "path"):
                find_path(composer.pool, options, unit_times_s(composer.seed)[:, 0])
        with measured(times, "placing"):
            recipe = composer.recipe()
        times["placing"] -= times["path"]  # which recipe() looks for anew
        times["placing CPU"] -= times["path CPU"]
        with measured(times, "rendering"):
            write_remix(str(Path(folder) / "out.wav"), recipe)
        times["units"] = len(recipe.events)
        times["files"] = len(recipe.sources)
        times["windows"] = view.windows
        times["seconds"] = recipe.output.frames / recipe.output.sample_rate
    return times


def one(index: Path, seed: Path, units: str, rounds: int) -> dict[str, float]:
    """Remix in a process of its own, and return its times and its peak of memory."""
    command = [sys.executable, __file__, "--one", str(index), str(seed), units, str(rounds)]
    run = run_cold(command, {"OPENBLAS_NUM_THREADS": "1"}, memory=True)  # as the command line does
    return {**json.loads(run.output), "peak": next(iter(run.peak_bytes.values()))}


def library_rows(base: Path, place: Path, seed: Path, sizes: list[int]) -> list[list[str]]:
    """Return a row of the table for each size of library."""
    rows, first = [], 0.0
    for windows in sizes:
        folder = place / f"{windows}"
        index = folder / "index" if (folder / "index").exists() else write_library(base, folder, windows)
        had = one(index, seed, UNITS, 2)
        chosen, used = had["choosing"] + had["path"], had["choosing CPU"] + had["path CPU"]
        first = first or chosen
        played = had["seconds"]
        rows.append(
            [
                f"{had['windows']:,.0f}", f"{chosen:.1f} s", f"{used:.1f} s", f"{chosen / first:.2f}",
                f"{had['choosing cold']:.1f} s", f"{had['path']:.2f} s",
                f"{had['placing']:.1f} s", f"{had['rendering']:.1f} s",
                f"{played / (had['placing'] + had['rendering']):.0f}", f"{had['peak'] / MIB:.0f} MiB",
            ]
        )  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def seed_rows(base: Path, place: Path, minutes: list[float], units: str) -> list[list[str]]:
    """Return a row of the table for each length of seed."""
    rows, first = [], 0.0
    for length in minutes:
        seed = place / f"seed{length:g}.wav"
        make_seed(seed, 60 * length)
        had = one(base, seed, units, 1)
        first = first or had["peak"]
        rows.append(
            [
                f"{length:g} min", f"{had['units']:,.0f}", f"{had['choosing'] + had['path']:.1f} s",
                f"{had['placing']:.1f} s", f"{had['rendering']:.1f} s", f"{had['peak'] / MIB:.0f} MiB",
                f"{(had['peak'] - first) / MIB:+.0f} MiB",
            ]
        )  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Run it."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(remix_once(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, metavar="DIR", help="real sounds; else some are made up")
    parser.add_argument("--seed", type=Path, metavar="FILE", help="what is remixed; else 60 s are made up")
    parser.add_argument("--windows", default="100000,1000000", metavar="N,N…")
    parser.add_argument("--minutes", default="1,60", metavar="N,N…", help="lengths of seeds; none: leave them out")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to leave the indexes for another time")
    parser.add_argument("--quick", action="store_true", help="small and short: only to see that it works")
    options = parser.parse_args()
    sizes = [1000] if options.quick else [int(part) for part in filter(None, options.windows.split(","))]
    minutes = [0.1, 0.2] if options.quick else [float(part) for part in filter(None, options.minutes.split(","))]
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        base: Path = place / "base"
        sounds: Path = options.sounds or place / "sounds"
        if not base.exists():
            if not options.sounds:
                make_sounds(sounds, 30 if options.quick else SOUNDS, 6.0 if options.quick else SOUND_S)
            scan(sounds, base)
        seed: Path = options.seed or place / "seed.wav"
        if not seed.exists():
            make_seed(seed, 5.0 if options.quick else SEED_S)
        libraries = library_rows(base, place, seed, sizes)
        seeds = seed_rows(base, place, minutes, UNITS)
    notes = [
        "Choosing is warm: the second time in one process, with the path; the first time beside it. The speed is that",
        "of placing and rendering. Peak: the resident size of the whole process, the mapped index in it.",
        "Targets: 5 s at a million windows, growth 1.5 to ten million; 5 times as fast as it plays; +200 MB.",
    ]
    header = [
        "windows",
        "choosing",
        "CPU",
        "growth",
        "first time",
        "of it path",
        "placing",
        "rendering",
        "speed",
        "peak",
    ]
    print_report("A seed of a minute, libraries of growing size", header, libraries, notes)
    print()
    header = ["seed", "units", "choosing", "placing", "rendering", "peak", "more"]
    print_report("Seeds of growing length, a small library", header, seeds)


if __name__ == "__main__":
    main()
