"""Search among very many windows: recall against exact, latency warm and cold, memory, time to build, additions.

    python benchmarks/search.py [--windows 100000 1000000] [--memory 1500000000] [--additions 1000] [--quick]
    python benchmarks/search.py --windows 10000000 --keep FOLDER

The vectors are made up, see `made_up_library`, and lie in a real index; queries are windows of sounds that are not in
it. With `--keep` the index is made in FOLDER and stays; what is there already is measured as it is. Targets at ten
million windows on two cores: recall@10 0.95, median 25 ms warm, 2 s from a cold process, 1.5 GB resident, built in an
hour; 50 ms for an addition to a million, and recall after a thousand within 0.01 of what an index made anew has.
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
from pathlib import Path

import numpy as np
from made_up_library import HOP_S, MadeUpLibrary, write_library
from measure import MIB, Run, print_report, run_cold

from embedindex import index_refresh
from embedindex.arrays import Float32Array
from embedindex.audio import AudioFacts
from embedindex.database import database_path
from embedindex.embed import FileEmbedding
from embedindex.file_stat import FileStat
from embedindex.index import IndexView, load_view
from embedindex.index_file import index_path, read_trailer
from embedindex.index_lists import ivf_of, merged
from embedindex.index_refresh import refresh_index, set_budget
from embedindex.query import Query
from embedindex.records import Label
from embedindex.search import Filters, search
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

K = 10
QUERIES = 300
COLD_RUNS = 5
PICKED_FILES = 10
PICKED = (("picked", "yes"),)
BUILT = "built.json"  # beside a kept index: what building it took


def recall(store: Store, view: IndexView, queries: Float32Array) -> float:
    """Return the share of the exact 10 nearest that a search finds."""
    scores = np.full((len(queries), K), -np.inf, np.float32)
    windows = np.full((len(queries), K), -1, np.int64)
    for numbers, vectors in store.vector_batches():
        found = queries @ view.space.apply(vectors).T
        best = np.argpartition(-found, min(K, found.shape[1] - 1), axis=1)[:, :K]
        scores, windows = merged(scores, windows, np.take_along_axis(found, best, 1), numbers[best])
    got = view.search(queries, K)[1]
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(got.tolist(), windows.tolist(), strict=True)]))


def timed(folder: str, queries: str, first: int, count: int) -> None:
    """Search with some of the queries in a file, one by one, and print what it took; this process must be fresh."""
    rows = np.load(queries)[first : first + count]
    wall, cpu = [], []
    with Store(folder) as store:
        view = load_view(store)
        for query in rows:
            start, used = time.perf_counter(), time.process_time()
            view.search(query[None], K)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    resident = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    print(json.dumps({"wall": wall, "cpu": cpu, "resident": resident}))


def forget_cached(folder: str) -> None:
    """Ask the system to drop an index's files from its cache, as far as it does that for anyone."""
    for path in (database_path(folder), index_path(folder)):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold(folder: str, queries: str, *, evicted: bool) -> str:
    """Return the median time of a process that searches once, Python's start included."""
    runs: list[Run] = []
    for number in range(COLD_RUNS):
        if evicted and hasattr(os, "posix_fadvise"):
            forget_cached(folder)
        runs.append(run_cold([sys.executable, __file__, "--timed", folder, queries, str(number), "1"]))
    return (
        f"{statistics.median(run.wall_s for run in runs):.2f} s ({statistics.median(run.cpu_s for run in runs):.2f} s)"
    )


def pick(folder: str) -> None:
    """Label ten files, anywhere in the library."""
    with StoreWriter(folder) as store, store.transaction():
        ids = [record.id for record in store.files("status = 'ok'")]
        for number in np.random.default_rng(3).choice(ids, min(PICKED_FILES, len(ids)), replace=False).tolist():
            store.put_labels(number, [Label(key, value, "human", 1.0) for key, value in PICKED])


def filtered(store: Store, view: IndexView, queries: Float32Array) -> str:
    """Return the median time of a search in ten files of all, after seeing that its answers are right."""
    filters = Filters(labels=PICKED)
    picked = list(store.files(*filters.sql()))
    rows = {record.path: view.space.apply(store.vectors_of(record)) for record in picked}
    wall, cpu = [], []
    for query in queries[:20]:
        start, used = time.perf_counter(), time.process_time()
        sound = Query(b"/query.wav", (query[None].astype(np.float16),), None)
        hits = search(store, view, [sound], k=K, filters=filters)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        best = {path: float((theirs @ query).max()) for path, theirs in rows.items()}
        wanted = sorted(best, key=lambda path: -best[path])[:K]
        assert [hit.file.path for hit in hits] == wanted, "a filtered search is wrong"
    return f"{np.median(wall) * 1000:.1f} ms ({np.median(cpu) * 1000:.1f} ms)"


def add_one_by_one(folder: str, rows: list[Float32Array]) -> str:
    """Return the median and the longest time of an addition that is found by a new view, having seen it found."""
    facts = AudioFacts("WAV", "PCM_16", 44_100, 1, HOP_S, "soundfile")
    wall, cpu = [], []
    with StoreWriter(folder) as store:
        for number, vectors in enumerate(rows):
            content = FileEmbedding(os.urandom(16), vectors.astype(np.float16), 0, HOP_S, facts, Tags(), HOP_S, 1.0)
            began, used = time.perf_counter(), time.process_time()
            store.put_file(b"/library/new/%s.wav" % os.urandom(8).hex().encode(), 1, FileStat(1, 1, 1, number), content)
            refresh_index(store)
            found = load_view(store).search(vectors, 1)[1]
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
            assert found[0, 0] == store.next_window - 1, "what was added is not found"
    p50, p95 = np.quantile(wall, [0.5, 0.95]) * 1000
    return f"{p50:.1f} / {p95:.1f} ms ({np.median(cpu) * 1000:.1f} ms)"


def additions(folder: str, library: MadeUpLibrary, count: int) -> list[str]:
    """Add so many sounds of one window; return times and recall: as they wait, written into the lists, made anew."""
    with Store(folder) as store:
        random = np.random.default_rng(store.next_window)  # others than what an earlier run added
    rows = library.files(np.ones(count, np.int64), random)
    # One half of the queries is like the library, the other like what came.
    near = np.concatenate(rows[: QUERIES // 2]) + 0.01 * random.standard_normal((min(count, QUERIES // 2), 512))
    near = near.astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    queries = np.asarray(np.concatenate((library.queries(QUERIES // 2), near)), np.float32)
    row = [add_one_by_one(folder, rows)]
    before = index_refresh.WAITING_WINDOWS
    for state in ("waiting", "written", "anew"):
        if state != "waiting":
            index_refresh.WAITING_WINDOWS = 0
            with StoreWriter(folder) as store:
                refresh_index(store, rebuild=state == "anew")
        with Store(folder) as store:
            row.append(f"{recall(store, load_view(store), queries):.3f}")
    index_refresh.WAITING_WINDOWS = before
    return row


def make(folder: str, windows: int, memory: int) -> str:
    """Make the index, as far as it is not there; return what building its lists took."""
    note = Path(folder) / BUILT
    if not Path(database_path(folder)).exists():
        write_library(folder, windows)
        pick(folder)
    if note.exists() and Path(index_path(folder)).exists():
        return str(json.loads(note.read_text(encoding="utf-8")))
    began, used = time.perf_counter(), time.process_time()
    with StoreWriter(folder) as store:
        set_budget(store, memory, 0.95)
        refresh_index(store, rebuild=True)
    taken = f"{time.perf_counter() - began:.0f} s ({time.process_time() - used:.0f} s)"
    note.write_text(json.dumps(taken), encoding="utf-8")
    return taken


def measure(folder: str, windows: int, memory: int) -> list[str]:
    """Return a row of the table."""
    build = make(folder, windows, memory)
    queries = os.path.join(folder, "queries.npy")
    np.save(queries, MadeUpLibrary(windows).queries(QUERIES))
    command = [sys.executable, __file__, "--timed", folder, queries, "0", str(QUERIES)]
    warm = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    p50, p95 = np.quantile(warm["wall"], [0.5, 0.95]) * 1000
    colds = [cold(folder, queries, evicted=evicted) for evicted in (False, True)]
    trailer = read_trailer(folder)
    with Store(folder) as store:
        view = load_view(store)
        kind = (
            "flat"
            if trailer is None or view.lists is None
            else f"{trailer.kind}, {ivf_of(view.lists.index).nlist:,} lists"
        )
        reads = "" if view.lists is None else f", {view.lists.step_for(K).probes} × {view.lists.step_for(K).candidates}"
        found = f"{recall(store, view, np.load(queries)):.3f}"
        if trailer is not None and trailer.steps:
            found += f" ({trailer.steps[0].recall:.3f})"
        ten = filtered(store, view, np.load(queries))
        count = store.next_window
    return [
        f"{count:,}",
        kind + reads,
        found,
        f"{p50:.1f} / {p95:.1f} ms ({np.median(warm['cpu']) * 1000:.1f} ms)",
        *colds,
        f"{warm['resident'] / MIB:.0f} MiB",
        build,
        f"{os.path.getsize(index_path(folder)) / 1e6:.0f} MB",
        ten,
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--memory", type=int, default=1_500_000_000)
    parser.add_argument("--additions", type=int, default=0, help="so many, one by one; with --keep they stay")
    parser.add_argument("--keep", metavar="FOLDER", help="where the index is, or is made and stays; of one size")
    parser.add_argument("--quick", action="store_true", help="2,000 windows: only to see that it works")
    parser.add_argument("--timed", nargs=4, metavar=("INDEX", "QUERIES", "FIRST", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timed:
        timed(options.timed[0], options.timed[1], int(options.timed[2]), int(options.timed[3]))
        return
    sizes, memory, count = options.windows, options.memory, options.additions
    if options.quick:
        sizes, memory, count = [2000], 1_200_000, 3
    if options.keep and len(sizes) > 1:
        parser.error("--keep takes one size: --windows N")
    rows, added = [], []
    for windows in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep or temporary
            os.makedirs(folder, exist_ok=True)
            rows.append(measure(folder, windows, memory))
            if count:
                added.append([rows[-1][0], *additions(folder, MadeUpLibrary(windows), count)])
    header = [
        "windows", "index, lists × candidates read", "recall@10 (promised)", "warm p50 / p95", "cold", "cold, evicted",
        "resident", "build", "file", "in 10 files",
    ]  # fmt: skip
    notes = ["Processor time in brackets; resident: the peak of a process that searched 300 times."]
    print_report("Search among many windows", header, rows, notes)
    if added:
        header = ["windows", f"{count} additions, p50 / p95", "recall@10, waiting", "in the lists", "made anew"]
        print()
        print_report("Additions one by one", header, added, ["From storing to being found by a new view."])


if __name__ == "__main__":
    main()
