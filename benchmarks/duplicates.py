"""How many near duplicates are found, how many are found that are none, and how the time grows?

    python benchmarks/duplicates.py                                   # the time, with synthetic vectors
    python benchmarks/duplicates.py --every 3 FOLDER CUT:FOLDER…      # the quality, with sounds of yours

With folders, their sounds are written as FLAC (``CUT:`` before one takes three cuts of 20 s of each), altered copies of
every n-th are made (`altered_copies.py`) and all is scanned into one index. Counted are the copies in the group of
their original and, looking at the originals alone, those in a group with another; in brackets, those of them that
have not the same waveform, but for its level, as any other of their group (`same_sound.py`: a correlation of 0.999 at
the files' own rate). Files with the same bytes are taken once. Groups are listed with these correlations: two strokes,
or one recording treated differently, is for ears to decide.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from altered_copies import KINDS, gather, make_copies
from measure import print_report
from same_sound import SAME, same_recording

from embedindex.arrays import Float32Array
from embedindex.audio import AudioFacts
from embedindex.correlation import SAMPLE_RATE, correlate
from embedindex.embed import FileEmbedding
from embedindex.file_stat import FileStat
from embedindex.filters import Filters
from embedindex.index import load_view
from embedindex.models import ModelIdentity, ModelRequest
from embedindex.near_duplicates import find_duplicates
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

SIZES = (1_000, 5_000, 20_000, 100_000)
PACK = 40  # sounds of one kind in the synthetic library
SHARE_COPIED = 0.05


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    parser.add_argument("--every", type=int, default=3, help="copies are made of every n-th sound")
    parser.add_argument("--model", default="spectral")
    parser.add_argument("--work", help="keep sounds and index there, and use them if they are there already")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that it works")
    options = parser.parse_args()
    if options.folders:
        with tempfile.TemporaryDirectory() as temporary:
            _quality(options, Path(options.work or temporary))
    else:
        _scaling((200, 400) if options.quick else options.sizes)


def _quality(options: argparse.Namespace, work: Path) -> None:
    originals: dict[str, list[Path]] = {}
    copies: dict[Path, tuple[Path, str]] = {}
    for number, text in enumerate(options.folders):
        folder = Path(text.removeprefix("CUT:"))
        name = f"{number}-{folder.name}"
        originals[name] = gather(folder, work / "sounds" / name / "originals", cut=text.startswith("CUT:"))
        copies |= make_copies(originals[name][:: options.every], work / "sounds" / name / "copies")
    scan(str(work / "index"), [str(work / "sounds")], ScanOptions(request=ModelRequest(options.model)))
    with Store(str(work / "index")) as store:
        began, used = time.perf_counter(), time.process_time()
        groups = find_duplicates(store, load_view(store))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - used
        files = store.counts().ok
        alone = find_duplicates(store, load_view(store), filters=Filters(path="*/originals/*"))
    group_of = {one.file.text_path: number for number, group in enumerate(groups) for one in group.files}
    grouped: dict[str, float] = {}  # of each original in a group, its correlation with the nearest other one
    for group in alone:
        for one in group.files:
            others = [other.file.path for other in group.files if other is not one]
            grouped[one.file.text_path] = max(same_recording(one.file.path, other) for other in others)
    rows, missed = [], []
    for name, sounds in originals.items():
        cells = [name, f"{len(sounds)}"]
        for kind in KINDS:
            pairs = [(copy, of) for copy, (of, made) in copies.items() if made == kind and of in set(sounds)]
            found = [copy for copy, of in pairs if str(of) in group_of and group_of[str(of)] == group_of.get(str(copy))]
            missed += [f"  {kind} of {name}/{of.stem}" for copy, of in pairs if copy not in found]
            cells.append(f"{len(found)}/{len(pairs)}")
        wrong = [nearest for path, nearest in grouped.items() if Path(path) in set(sounds)]
        rows.append([*cells, f"{len(wrong)} ({sum(nearest < SAME for nearest in wrong)})"])
    notes = [f"{files:,} files in {wall_s:.0f} s, {cpu_s:.0f} s of processor time. The originals alone, in groups:"]
    for group in alone:
        names = [(Path(one.file.text_path), grouped[one.file.text_path]) for one in group.files]
        notes.append("  " + ", ".join(f"{path.parts[-3]}/{path.stem} {nearest:.4f}" for path, nearest in names))
    notes += ["Copies that were missed:", *missed]
    header = ["collection", "sounds", *KINDS, "originals alone: in groups"]
    print_report(f"Near duplicates ({options.model}): copies found", header, rows, notes)


def _scaling(sizes: tuple[int, ...]) -> None:
    rows = []
    for files in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _make_index(folder, files)
            with Store(folder) as store:
                view = load_view(store)
                began, used = time.perf_counter(), time.process_time()
                groups = find_duplicates(store, view, listen=False, threshold=0.98)
                wall_s, cpu_s = time.perf_counter() - began, time.process_time() - used
        found = sum(len(group.files) - 1 for group in groups)
        made = int(files * SHARE_COPIED)
        rows.append([f"{files:,}", f"{wall_s:.1f} s", f"{cpu_s:.1f} s", f"{1000 * cpu_s / files:.2f}",
                     f"{found / made:.1%}"])  # fmt: skip
    notes = [
        f"No sound is read: files come in packs of {PACK} alike, {SHARE_COPIED:.0%} of them are near copies.",
        *(f"Listening to one pair of {length_s:g} s: {1000 * _listening_s(length_s):.1f} ms" for length_s in (0.5, 10)),
    ]
    print_report(
        "Finding near duplicates in big libraries",
        ["files", "wall", "processor", "ms of processor a file", "copies found"],
        rows,
        notes,
    )


def _listening_s(length_s: float, repeats: int = 20) -> float:
    """Return the processor time of comparing two waveforms that are the same, seconds."""
    samples = np.random.default_rng(0).standard_normal(round(length_s * SAMPLE_RATE)).astype(np.float32)
    used = time.process_time()
    for _ in range(repeats):
        correlate(samples, samples)
    return (time.process_time() - used) / repeats


def _make_index(folder: str, files: int, dimension: int = 208) -> None:
    random = np.random.default_rng(0)
    copied = int(files * SHARE_COPIED)
    identity = ModelIdentity("synthetic", 8000, 8000, dimension)
    facts = AudioFacts("wav", "pcm_16", 8000, 1, 1.0, "none")
    middles = random.standard_normal((-(-files // PACK), dimension))
    with StoreWriter(folder) as store, store.transaction():
        store.use_model(identity, ModelRequest("synthetic"), 1.0)
        root = store.put_root(b"/synthetic", None)
        kept: list[Float32Array] = []
        for number in range(files):
            if number < files - copied:
                vectors = (middles[number // PACK] + 0.6 * random.standard_normal((2, dimension))).astype(np.float32)
                if number < copied:
                    kept.append(vectors)
            else:
                vectors = kept[number - files + copied] + np.float32(0.1) * random.standard_normal((2, dimension))
            made = FileEmbedding(
                content_hash=number.to_bytes(16, "little"),
                vectors=vectors.astype(np.float16),
                silent=0,
                hop_s=1.0,
                facts=facts,
                tags=Tags(),
                duration_s=2.0,
                peak=1.0,
                note=None,
            )
            store.put_file(f"/synthetic/{number}.wav".encode(), root, FileStat(1, 1, 1, number), made)


if __name__ == "__main__":
    main()
