"""Scans killed at random instants of all their phases, each followed by a restart that must make all well.

Before each run the library changes a little (files are added, changed, renamed, copied and removed), so that every scan
crawls, embeds, moves, sweeps and writes a new search index. Three kinds of kill, in turn: after a random part of the
time that a scan takes; at a random SQL statement, so that moments count alike that are over in no time; while the
search index is written or put in place of the old one. Every tenth run begins without
an index, so that the making of the database is killed, too.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from embedindex.arrays import Float32Array, Int64Array
from embedindex.embed import hash_content
from embedindex.index_file import index_path, read_index_file
from embedindex.index_refresh import refresh_index
from embedindex.models import load_model
from embedindex.scan import scan
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.worker import WorkerSetup
from embedindex.workers import WorkerPool
from embedindex.writer import StoreWriter
from tests.indexing import OPTIONS, TINY, age, make_sound
from tests.processes import ENVIRONMENT

FILES = 24
# argv: index, library, what is counted ("statements" or "index"), at which event to die (0: never), seconds later.
DYING_SCAN = """
import os, signal, sys, threading, time
index, library, what, left, later_s = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])

def die():
    time.sleep(later_s)
    os.kill(os.getpid(), signal.SIGKILL)

def count():
    global left
    left -= 1
    if left == 0:
        threading.Thread(target=die, daemon=True).start() if later_s else die()

def hook(event, arguments):
    if what == "statements" and event == "sqlite3.connect/handle":
        arguments[0].set_trace_callback(lambda statement: count())
    if what == "index" and event in ("open", "os.rename") and str(arguments[0]).endswith(".faiss.part"):
        count()

from embedindex.scan import scan
from tests.indexing import OPTIONS
sys.addaudithook(hook)
print("begun", flush=True)
scan(index, [library], OPTIONS)
print("done", flush=True)
"""


def change(library: Path, chance: random.Random, number: int) -> None:
    """Add, change, copy, rename and remove some files; never fewer than two files are new."""

    def some_sound(name: str) -> None:
        make_sound(library / str(chance.randrange(4)) / name, chance.uniform(100, 3000), chance.uniform(0.2, 4))

    for place in range(chance.randrange(2, 6)):
        some_sound(f"{number:03d}-{place}.wav")
    there = sorted(library.glob("?/*.wav"))  # without the broken one
    chance.shuffle(there)
    for path in there[FILES:]:
        path.unlink()
    changed, copied, moved = there[:3]
    make_sound(changed, chance.uniform(100, 3000), chance.uniform(0.2, 4))
    age(changed, number + 1)
    shutil.copy2(copied, copied.with_name(f"{number:03d}-copy.wav"))
    moved.rename(library / str(chance.randrange(4)) / f"{number:03d}-moved.wav")
    (library / "broken.wav").write_bytes(b"RIFF....WAVE, or so they say %d" % number)


def run_killed(index: str, library: Path, kind: int, chance: random.Random, took_s: float) -> bool:
    """Run a scan that is killed; return whether it was, before it ended."""
    event, later_s = 0, 0.0
    if kind == 1:
        event = chance.randrange(1, 200)
    elif kind == 2:
        event, later_s = chance.choice(
            ((1, 0.0), (1, chance.uniform(0, 0.004)), (2, 0.0), (2, chance.uniform(0, 0.01)))
        )
    words = [index, str(library), "index" if kind == 2 else "statements", str(event), str(later_s)]
    with subprocess.Popen(
        [sys.executable, "-c", DYING_SCAN, *words], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        if kind == 0:
            time.sleep(chance.uniform(0, took_s))
            process.kill()
        return process.stdout.read() == b""


def vectors_in(folder: str) -> tuple[Int64Array, Float32Array]:
    """Return (window numbers, vectors) of a search index, by number."""
    found = read_index_file(folder)
    assert found is not None
    mapped: Any = found[0]
    ids: Int64Array = faiss.vector_to_array(mapped.id_map)
    order = np.argsort(ids, kind="stable")
    inner = faiss.downcast_index(mapped.index)
    return ids[order], inner.reconstruct_n(0, inner.ntotal)[order]


def check(index: str, library: Path, scratch: str) -> None:
    """Nothing lost, nothing twice, everything equal to what a fresh start gives."""
    there = {os.fsencode(path): hash_content(os.fsencode(path)) for path in library.rglob("*.wav")}
    with Store(index) as store:
        found = list(store.files())
        assert {record.path: record.content_hash for record in found} == there
        assert [record.shown_status for record in found if record.path.endswith(b"broken.wav")] == ["failed"]
        assert sum(record.status == "ok" for record in found) == len(found) - 1
        runs = sorted((record.first_window, record.n_windows) for record in found if record.first_window is not None)
        for (first, count), (following, _) in pairwise(runs):
            assert first + count <= following
        by_content: dict[bytes | None, bytes] = {}
        for record in found:
            vectors = store.vectors_of(record).tobytes()
            assert by_content.setdefault(record.content_hash, vectors) == vectors
        assert verify(store).problems == ()
    assert not [name for name in os.listdir(index) if name.endswith(".part")]
    shutil.copytree(index, scratch)
    os.unlink(index_path(scratch))
    with StoreWriter(scratch) as store:
        refresh_index(store, rebuild=True)
    (numbers, kept), (fresh_numbers, fresh_kept) = vectors_in(index), vectors_in(scratch)
    assert np.array_equal(numbers, fresh_numbers)
    assert np.array_equal(kept, fresh_kept)
    shutil.rmtree(scratch)


def run_kills(index: str, library: Path, scratch: str, runs: int, seed: int) -> list[int]:
    """Kill scans and go on with them; return how many of each kind were killed before they ended.

    The longer the scans take on this machine, the later they are killed; the first kind is tried again, sooner and
    sooner, until a scan was killed.
    """
    chance = random.Random(seed)
    for number in range(FILES):
        make_sound(library / str(number % 4) / f"first-{number:02d}.wav", 200 + 20 * number, 0.2 + number % 5 * 0.7)
    killed = [0, 0, 0]
    took_s = 1.0
    with WorkerPool(WorkerSetup(TINY, 0.5, 3600.0, 0), 1, load_model(TINY).identity.fingerprint) as pool:
        number = -1
        while (number := number + 1) < runs or not killed[0]:
            if number % 10 == 0:
                shutil.rmtree(index, ignore_errors=True)
            change(library, chance, number)
            started = time.monotonic()
            kind = number % 3 if number < runs else 0
            was_killed = run_killed(index, library, kind, chance, took_s)
            killed[kind] += was_killed
            if not was_killed and kind == 0:
                took_s = 0.8 * min(took_s, time.monotonic() - started)
            scan(index, [str(library)], OPTIONS, pool=pool)
            check(index, library, scratch)
    return killed


def test_scan_killed_anywhere_is_made_good_by_the_next(index: str, library: Path, tmp_path: Path) -> None:
    killed = run_kills(index, library, str(tmp_path / "scratch"), 12, 1)
    assert sum(killed) >= 6
    assert all(killed)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10, 20))
def test_hundreds_of_scans_killed_anywhere_are_made_good(
    index: str, library: Path, tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    killed = run_kills(index, library, str(tmp_path / "scratch"), 30, seed)
    with capfd.disabled():
        print(f"\nseed {seed}: killed after a while {killed[0]}, at a statement {killed[1]}, at the index {killed[2]}")  # noqa: T201
    assert sum(killed) >= 15
