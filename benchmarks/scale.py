"""What a scan of a large library costs before it decodes anything: crawl, rescan, memory, a renamed folder.

    python benchmarks/scale.py [--files 200000] [--moved 10000] [--whole-seconds] [--quick]

Makes a tree of different tiny sounds (60 samples, 100 to a folder) and writes an index of it, as a scan with the
built-in model would leave it, without decoding them: their vectors are random. Then: the crawl alone; cold scans that
find nothing changed, of a quarter of the tree and of all of it, with the peak memory of the scan; a cold scan after a
folder of 10,000 files got another name, which must decode none. With `--whole-seconds` the files have the times of
change that unpacked archives and FAT leave; those say too little, so that the renamed files are read to be known.
Targets: 20,000 entries a second; 1 s per 10,000 unchanged files; memory that does not grow with the library; 5 s for
the renamed folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import xxhash
from measure import MIB, Run, embedindex, median_cpu_s, median_wall_s, print_report, run_cold

from embedindex.audio import AudioFacts
from embedindex.crawl import CrawlTrouble, Found, crawl
from embedindex.embed import FileEmbedding
from embedindex.file_stat import file_stat
from embedindex.index_refresh import refresh_index
from embedindex.models import ModelRequest, load_model
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

SAMPLE_RATE = 22050
SAMPLES = 60
FILES_IN_FOLDER = 100
FOLDERS_IN_SHELF = 100
LONG_AGO_NS = 1_500_000_000_123_456_789  # fresh time stamps are not trusted, so that files would be read again
SECOND_NS = 1_000_000_000
BATCH = 2000
CRAWLS = 3
RUNS = 3


def make_tree(library: Path, numbers: range, *, whole_seconds: bool) -> None:
    """Write a different sound for each number: WAV, 16 bits, 60 samples, of which two hold the file's number."""
    first_ns, step_ns = (LONG_AGO_NS // SECOND_NS * SECOND_NS, SECOND_NS) if whole_seconds else (LONG_AGO_NS, 1)
    size = 2 * SAMPLES
    header = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16) + b"data" + struct.pack("<I", size)
    tail = np.random.default_rng(1).integers(-9999, 9999, SAMPLES - 2).astype("<i2").tobytes()
    for number in numbers:
        album = number // FILES_IN_FOLDER
        folder = library / f"shelf{album // FOLDERS_IN_SHELF:03d}" / f"album{album:05d}"
        if number % FILES_IN_FOLDER == 0 or number == numbers.start:
            folder.mkdir(parents=True)
        path = os.path.join(folder, f"{number:07d}.wav")
        with open(path, "wb") as file:
            file.write(header + struct.pack("<I", number) + tail)
        os.utime(path, ns=(LONG_AGO_NS, first_ns + step_ns * number))


def found_in(root: Path) -> Iterator[Found]:
    """Crawl a folder; nothing may be out of sight."""
    trouble = CrawlTrouble()
    yield from crawl([os.fsencode(root)], trouble)
    assert not trouble.folders + trouble.files, trouble


def write_index(index: Path, root: Path) -> None:
    """Write what a scan of a folder would leave, with random vectors."""
    request = ModelRequest("spectral")
    model = load_model(request)
    random = np.random.default_rng(2)
    facts = AudioFacts("WAV", "PCM_16", SAMPLE_RATE, 1, SAMPLES / SAMPLE_RATE, "soundfile")
    tags = Tags(None, None, None, None, None)
    with StoreWriter(str(index)) as store:
        hop_s = store.use_model(model.identity, request, model.default_hop_s).hop_s
        root_id = store.put_root(os.fsencode(root), file_stat(os.fsencode(root)).device)
        found = found_in(root)
        while batch := list(islice(found, BATCH)):
            with store.transaction():
                for file in batch:
                    with open(file.path, "rb") as sound:
                        digest = xxhash.xxh3_128_digest(sound.read())
                    vectors = random.standard_normal((1, model.identity.dimension)).astype(np.float16)
                    content = FileEmbedding(digest, vectors, 0, hop_s, facts, tags, SAMPLES / SAMPLE_RATE, 0.3)
                    store.put_file(file.path, root_id, file.stat, content)
        refresh_index(store)


def crawl_rates(root: Path, files: int) -> list[float]:
    """Return entries (files and folders) a second of some crawls."""
    entries = sum(len(folders) + len(names) for _, folders, names in os.walk(root))
    rates = []
    for _ in range(CRAWLS):
        began = time.perf_counter()
        assert sum(1 for _ in found_in(root)) == files
        rates.append(entries / (time.perf_counter() - began))
    return rates


def scan(index: Path, root: Path, **expected: int) -> Run:
    """Run a cold scan that must find just what is expected."""
    run = run_cold(embedindex("scan", str(root), "--index", str(index), "--json", "-q"), memory=True)
    summary = json.loads(run.output)
    assert {name: summary[name] for name in expected} == expected, summary
    return run


def row(name: str, runs: Sequence[Run], files: int) -> list[str]:
    """Return a row of the table."""
    wall_s = median_wall_s(runs)
    memory = max(next(iter(run.peak_bytes.values())) for run in runs)
    per_10k = f"{wall_s * 10_000 / files:.2f} s"
    return [name, f"{wall_s:.2f} s", f"{median_cpu_s(runs):.2f} s", per_10k, f"{memory / MIB:.0f} MiB"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--moved", type=int, default=10_000, help="files in the folder that gets another name")
    parser.add_argument("--whole-seconds", action="store_true", help="times of change without fractions of a second")
    parser.add_argument("--quick", action="store_true", help="400 files, 100 moved, one run: only to see that it works")
    options = parser.parse_args()
    files, moved, runs = (400, 100, 1) if options.quick else (options.files, options.moved, RUNS)
    quarter = files // 4
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        library = place / "library"
        parts = {"quarter": (0, quarter), "box": (quarter, quarter + moved), "rest": (quarter + moved, files)}
        for name, numbers in parts.items():
            make_tree(library / name, range(*numbers), whole_seconds=options.whole_seconds)
        rates = crawl_rates(library, files)
        small, large = place / "small", place / "large"
        write_index(small, library / "quarter")
        write_index(large, library)
        rows = [
            row(name, [scan(index, root, found=count, unchanged=count) for _ in range(runs)], count)
            for name, index, root, count in (
                (f"{quarter:,} files, nothing changed", small, library / "quarter", quarter),
                (f"{files:,} files, nothing changed", large, library, files),
            )
        ]
        (library / "box").rename(library / "renamed")
        rename = scan(large, library, found=files, moved=moved, unchanged=files - moved, windows=0, added=0)
        rows.append(row(f"{files:,} files, a folder of {moved:,} renamed", [rename], files))
        after = scan(large, library, found=files, unchanged=files)
        rows.append(row("the same after that", [after], files))
    notes = [
        f"The crawl alone: {statistics.median(rates):,.0f} entries a second (median of {CRAWLS}; target 20,000).",
        f"Cold processes, medians of {runs}; the renamed folder once. Targets: 1 s per 10,000 files,",
        "5 s more for the renamed folder, memory that does not grow with the library.",
    ]
    header = ["scan", "wall", "CPU", "wall per 10,000", "peak of the scan"]
    title = "Scanning a large library" + (", times of change in whole seconds" if options.whole_seconds else "")
    print_report(title, header, rows, notes)


if __name__ == "__main__":
    main()
