"""A disk that is full at many instants of a scan: said clearly, nothing lost, and complete when there is space.

Each round fills a small disk but for some bytes (from nothing to more than the scan needs), scans into an index on it,
and frees the rest; rounds alternate between new indexes and ones that hold half of the library.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.indexing import make_sound
from tests.processes import ENVIRONMENT

NO_SMALL_DISKS = 99
ROUNDS = """
import os, shutil, subprocess, sys
folder, library, rounds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True).returncode:
    sys.exit(99)
import random
from embedindex.errors import DiskFullError, EmbedindexError, StoreError
from embedindex.index import load_view
from embedindex.models import load_model
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.worker import WorkerSetup
from embedindex.workers import WorkerPool
from tests.indexing import TINY

OPTIONS = ScanOptions(request=TINY, workers=2, niceness=0)
files = sum(len(names) for _, _, names in os.walk(library))
half = os.path.join(library, "0")

def leave(space):
    with open(os.path.join(folder, "filler"), "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(1, shutil.disk_usage(folder).free - space))

def content(store):
    return sorted((record.path, record.content_hash, store.vectors_of(record).tobytes()) for record in store.files())

def check(index, done_before):
    with Store(index) as store:
        assert store.integrity_problems() == []
        assert store.counts().ok >= done_before, (store.counts(), done_before)
        assert all(store.has_whole_vectors(record) for record in store.files("status = 'ok'"))
        if store.model() is not None:
            assert load_view(store).damage is None
        return store.counts().ok

with WorkerPool(WorkerSetup(TINY, 0.5, 3600.0, 0), 2, load_model(TINY).identity.fingerprint) as pool:
    whole = os.path.join(folder, "whole")
    scan(whole, [library], OPTIONS, pool=pool)
    with Store(whole) as store:
        wanted = content(store)
    kept = sum(os.path.getsize(os.path.join(whole, name)) for name in os.listdir(whole))
    most = 2 * kept + 1_000_000  # the write-ahead log, and the new search index beside the old one
    shutil.rmtree(whole)
    chance = random.Random(seed)
    refused = finished = 0
    partly = set()
    for number in range(rounds):
        index = os.path.join(folder, "index")
        held = 0
        if number % 2:
            scan(index, [half], OPTIONS, pool=pool)
            held = check(index, 0)
        leave(int(most * (number + chance.random()) / rounds) if number < rounds - 1 else 6_000_000)
        try:
            scan(index, [library], OPTIONS, pool=pool)
            finished += 1
        except (DiskFullError, StoreError) as error:
            refused += 1
            message = str(error)
            assert "space" in message, message
            assert "\\n" not in message, message
        os.unlink(os.path.join(folder, "filler"))
        if os.path.exists(os.path.join(index, "embedindex.db")):
            try:
                partly.add(check(index, held))
            except EmbedindexError as error:  # the schema was not written yet
                assert not held, error
                assert "the index was not finished" in str(error), error
        summary = scan(index, [library], OPTIONS, pool=pool)
        assert summary.failed == 0, summary
        with Store(index) as store:
            assert content(store) == wanted
            assert verify(store).problems == ()
        assert not [name for name in os.listdir(index) if name.endswith(".part")]
        shutil.rmtree(index)
print(rounds, "rounds:", refused, "refused,", finished, "finished; files held afterwards:", sorted(partly), "of", files)
assert refused >= rounds // 3, refused
assert finished, "no round had space enough"
"""


def run_rounds(tmp_path: Path, library: Path, rounds: int, seed: int) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1) to mount a small disk")
    for number in range(40):
        make_sound(library / str(number % 2) / f"{number:02d}.wav", 200 + 20 * number, 4 + number % 5)
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", ROUNDS, str(disk), str(library), str(rounds), str(seed)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode == NO_SMALL_DISKS or done.stderr.startswith("unshare"):
        pytest.skip("this system does not let a test mount a small disk")
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # noqa: T201  # read with `pytest -s`


def test_disk_full_at_some_instants_of_a_scan_loses_nothing(tmp_path: Path, library: Path) -> None:
    run_rounds(tmp_path, library, 5, 1)


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_disk_full_at_many_instants_of_a_scan_loses_nothing(tmp_path: Path, library: Path) -> None:
    run_rounds(tmp_path, library, 50, 2)
