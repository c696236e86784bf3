"""Search among very many windows: recall against exact, latency warm and cold, memory, time to build, additions.

    python benchmarks/search.py [--windows 100000 1000000] [--memory 1500000000] [--additions 1000] [--quick]

The vectors are made up, see `made_up_library`, and lie in a real index; queries are windows of sounds that are not in
it. Targets at ten million windows on two cores: recall@10 0.95, median 25 ms warm, 2 s from a cold process, 1.5 GB
resident, built in an hour; 50 ms for an addition to a million.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time

import numpy as np
from made_up_library import HOP_S, MadeUpLibrary, write_library
from measure import MIB, print_report, run_cold

from embedindex.audio import AudioFacts
from embedindex.crawl import FileStat
from embedindex.embed import FileEmbedding
from embedindex.index import IndexView, load_view
from embedindex.index_file import index_path
from embedindex.index_lists import merged
from embedindex.index_refresh import refresh_index, set_budget
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

K = 10
QUERIES = 200


def recall(store: Store, view: IndexView, queries: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """Return the share of the exact 10 nearest that a search finds."""
    scores = np.full((len(queries), K), -np.inf, np.float32)
    windows = np.full((len(queries), K), -1, np.int64)
    for numbers, vectors in store.vector_batches():
        found = queries @ view.space.apply(vectors).T
        scores, windows = merged(scores, windows, found, np.broadcast_to(numbers, found.shape))
    got = view.search(queries, K)[1]
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(got.tolist(), windows.tolist(), strict=True)]))


def cold(folder: str, windows: int) -> None:
    """Search once; this process must be fresh."""
    with Store(folder) as store:
        found = load_view(store).search(MadeUpLibrary(windows).queries(1), K)[1]
    print(json.dumps(found.tolist()))


def add_one_by_one(folder: str, windows: int, count: int) -> tuple[float, float]:
    """Return the median (elapsed, processor) seconds of an addition that is found by a new view, and see it found."""
    facts = AudioFacts("WAV", "PCM_16", 44_100, 1, HOP_S, "soundfile")
    rows = MadeUpLibrary(windows).files(np.ones(count, np.int64), np.random.default_rng(5))
    wall, cpu = [], []
    with StoreWriter(folder) as store:
        for number, vectors in enumerate(rows):
            content = FileEmbedding(os.urandom(16), vectors.astype(np.float16), 0, HOP_S, facts, Tags(), HOP_S, 1.0)
            began, used = time.perf_counter(), time.process_time()
            store.put_file(b"/library/new/%06d.wav" % number, 1, FileStat(1, 1, 1, 10**9 + number), content)
            refresh_index(store)
            found = load_view(store).search(vectors, 1)[1]
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
            assert found[0, 0] == store.next_window - 1
    return float(np.median(wall)), float(np.median(cpu))


def measure(folder: str, windows: int, memory: int, additions: int) -> list[str]:
    """Return a row of the table."""
    written = write_library(folder, windows)
    began, used = time.perf_counter(), time.process_time()
    with StoreWriter(folder) as store:
        set_budget(store, memory, 0.95)
        refresh_index(store, rebuild=True)
    build = f"{time.perf_counter() - began:.0f} s ({time.process_time() - used:.0f} s)"
    queries = MadeUpLibrary(windows).queries(QUERIES)
    with Store(folder) as store:
        view = load_view(store)
        wall, cpu = [], []
        for query in queries:
            start, used = time.perf_counter(), time.process_time()
            view.search(query[None], K)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        found = recall(store, view, queries)
    run = run_cold([sys.executable, __file__, "--cold", folder, str(windows)], memory=True)
    p50, p95 = np.quantile(wall, [0.5, 0.95]) * 1000
    added = add_one_by_one(folder, windows, additions)
    return [
        f"{written:,}",
        "flat" if view.lists is None else view.lists.index.__class__.__name__,
        f"{found:.3f}",
        f"{p50:.1f} / {p95:.1f} ms ({np.median(cpu) * 1000:.1f} ms)",
        f"{run.wall_s:.2f} s ({run.cpu_s:.2f} s)",
        f"{next(iter(run.peak_bytes.values()), 0) / MIB:.0f} MiB",
        build,
        f"{os.path.getsize(index_path(folder)) / 1e6:.0f} MB",
        f"{added[0] * 1000:.1f} ms ({added[1] * 1000:.1f} ms)",
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--memory", type=int, default=1_500_000_000)
    parser.add_argument("--additions", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="2,000 windows: only to see that it works")
    parser.add_argument("--cold", nargs=2, metavar=("INDEX", "WINDOWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cold:
        cold(options.cold[0], int(options.cold[1]))
        return
    sizes, memory, additions = options.windows, options.memory, options.additions
    if options.quick:
        sizes, memory, additions = [2000], 1_200_000, 3
    rows = []
    for windows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(folder, windows, memory, additions))
    header = ["windows", "index", "recall@10", "warm p50 / p95", "cold", "peak, cold", "build", "file", "addition"]
    print_report("Search among many windows", header, rows, ["Processor time in brackets."])


if __name__ == "__main__":
    main()
