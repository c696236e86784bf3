"""Real processes that are killed, interrupted, or run out of disk: what was done stays, and the next run goes on.

The same with more kills and fuller disks: tests/torture.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedindex.index import load_view
from embedindex.index_file import index_path
from embedindex.index_refresh import refresh_index
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.indexing import constant, make_sound, run_scan, write_samples
from tests.processes import (
    ENVIRONMENT,
    PATIENCE_S,
    children,
    files_done,
    finish,
    lives,
    problems,
    start,
    start_scan,
    wait_until,
)
from tests.storing import open_filled, put

FILES = 80


def fill_library(library: Path) -> None:
    for number in range(FILES):
        make_sound(library / f"{number % 7}" / f"{number:02d}.wav", 200 + 20 * number, 0.2 + number % 5 * 0.7)
    shutil.copy2(library / "0" / "00.wav", library / "0" / "copy.wav")
    (library / "broken.wav").write_bytes(b"RIFF....WAVE, or so they say")


@pytest.mark.slow
@pytest.mark.parametrize("files", [2, 20, 45])
def test_scan_killed_in_its_middle_goes_on_there(index: str, library: Path, files: int) -> None:
    fill_library(library)
    hangs = write_samples(library / "zz-hangs.wav", constant(-0.95))  # so it is in its middle however fast the machine
    process = start_scan(index, library)
    wait_until(lambda: files_done(index) >= files)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    held = files_done(index)
    assert held >= files
    hangs.unlink()
    with Store(index) as store:
        assert store.integrity_problems() == []
        assert all(store.has_whole_vectors(record) for record in store.files("status = 'ok'"))
    summary = run_scan(index, library)
    assert summary.unchanged >= held - 2  # fresh files may be compared again
    assert problems(index) == []


WRITE_INDEX = """
import os, sys, time
from embedindex.index_refresh import refresh_index
from embedindex.writer import StoreWriter
with StoreWriter(sys.argv[1]) as store:
    print("ready", flush=True)
    while True:
        refresh_index(store, rebuild=True)
"""


def test_kill_while_the_index_is_written_leaves_a_whole_one(index: str) -> None:
    with open_filled(index) as store:
        for number in range(40):
            put(store, b"%d.wav" % number, 200, number)
    chance = random.Random(21)
    leftovers = 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITE_INDEX, index], env=ENVIRONMENT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.35 + chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
        leftovers += os.path.exists(index_path(index) + ".part")
        with Store(index) as reader:
            view = load_view(reader)
            assert (view.damage, view.windows) == (None, 8000)
            assert [problem.what for problem in verify(reader).problems] in ([], ["there is no search index on disk"])
    with StoreWriter(index) as store:
        refresh_index(store)
        assert verify(store).problems == ()
    assert not os.path.exists(index_path(index) + ".part")


HOLD = """
import sys, time
from embedindex.writer import StoreWriter
store = StoreWriter(sys.argv[1])
print("held", flush=True)
time.sleep(3600)
"""


def test_second_scan_is_refused_at_once_and_the_lock_dies_with_its_holder(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, index], env=ENVIRONMENT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        status, out, err = finish(start_scan(index, library))
        assert (status, out) == (75, "")
        (line,) = err.strip().splitlines()
        assert "another embedindex is writing to this index; wait for it to finish" in line
        status, out, _ = finish(start("info", "--index", index))
        assert status == 0  # reading goes on
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    assert finish(start_scan(index, library))[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_once_a_scan_finishes_the_files_in_hand(
    index: str, library: Path, tmp_path: Path, number: signal.Signals
) -> None:
    fill_library(library)
    go, said = tmp_path / "go", tmp_path / "said"
    with open(said, "w") as stderr:
        process = start_scan(index, library, f"tiny:until={go},free=40", stderr=stderr)
    wait_until(lambda: files_done(index) >= 3 and len(list(tmp_path.glob("go.*"))) == 2)
    held = files_done(index)
    workers = children(process.pid)
    process.send_signal(number)
    wait_until(lambda: "finishing the files in hand" in said.read_text())
    go.touch()
    status, _, _ = finish(process)
    assert status == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    wait_until(lambda: not any(lives(worker) for worker in workers))
    assert held < files_done(index) < FILES
    assert problems(index) == []
    run_scan(index, library)
    assert files_done(index) == FILES + 2


@pytest.mark.slow
def test_interrupted_twice_a_scan_stops_at_once(index: str, library: Path, tmp_path: Path) -> None:
    fill_library(library)
    write_samples(library / "0" / "000-hangs.wav", constant(-0.95))
    go, said = tmp_path / "go", tmp_path / "said"
    go.touch()
    with open(said, "w") as stderr:
        process = start_scan(index, library, f"tiny:until={go}", stderr=stderr)
    wait_until(lambda: files_done(index) >= 10 and list(tmp_path.glob("go.*")))  # the file that hangs is in hand
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "finishing the files in hand" in said.read_text())  # two signals at once may arrive as one
    process.send_signal(signal.SIGINT)
    status, _, _ = finish(process)  # long before the file that hangs is given up, or comes to its end
    assert status == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    wait_until(lambda: not any(lives(worker) for worker in workers))
    os.unlink(library / "0" / "000-hangs.wav")
    run_scan(index, library)
    assert files_done(index) == FILES + 2
    assert problems(index) == []


# -- a disk that is full ---------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from embedindex.errors import EmbedindexError
from tests.storing import open_filled, put
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
with open_filled(sys.argv[1]) as store:
    for number in range(1000):
        try:
            put(store, b"%d.wav" % number, 200, number)
        except EmbedindexError as error:
            print(number, type(error).__name__, error)
            break
"""


def test_file_that_may_not_grow_is_said_and_what_was_written_stays(index: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, index],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    number, kind, message = done.stdout.split(maxsplit=2)
    assert kind in ("StoreError", "DiskFullError")
    assert "embedindex.db: " in message
    assert "what was done so far is kept" in message
    assert "run again" in message
    assert int(number) > 0
    with StoreWriter(index) as store:
        assert store.counts().ok == int(number)
        assert store.integrity_problems() == []
        put(store, b"more.wav", 200)
        assert all(store.has_whole_vectors(record) for record in store.files())


TINY_DISK = """
import os, subprocess, sys
folder = sys.argv[1]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True).returncode:
    sys.exit(99)
from embedindex.errors import DiskFullError, StoreError
from embedindex.index import load_view
from embedindex.index_refresh import refresh_index
from embedindex.index_file import index_path
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.storing import open_filled, put

def fill(store, first):
    for number in range(first, 10_000):
        try:
            put(store, b"%d.wav" % number, 200, number)
        except DiskFullError as error:
            assert "embedindex.db: no space left on the disk; what was done so far is kept. Free some" in str(error)
            return number

with open_filled(folder) as store:
    for number in range(20):
        put(store, b"%d.wav" % number, 200, number)
    refresh_index(store)
    old = open(index_path(folder), "rb").read()
    held = fill(store, 20)
    assert held > 21, held
    assert store.counts().ok == held
    try:
        refresh_index(store, rebuild=True)
        raise AssertionError("the disk was not full")
    except DiskFullError as error:
        assert "no space left on the disk" in str(error)
    assert open(index_path(folder), "rb").read() == old
    assert not os.path.exists(index_path(folder) + ".part")
    with Store(folder) as reader:
        view = load_view(reader)
        assert (view.windows, view.damage) == (200 * held, None)
with open(os.path.join(folder, "filler"), "wb", buffering=0) as filler:  # not a byte is left
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError:
        pass
try:
    with Store(folder) as reader:
        assert reader.counts().ok == held
except StoreError as error:
    assert "embedindex.db: " in str(error), error
    assert "space" in str(error), error
# Named with its source, it keeps no options of before: a user's number means nothing in a namespace.
subprocess.run(["mount", "-o", "remount,size=16m", "tmpfs", folder], check=True)
with StoreWriter(folder) as store:
    assert store.counts().ok == held
    put(store, b"more.wav", 200)
    refresh_index(store)
    assert verify(store).problems == ()
    assert all(store.has_whole_vectors(record) for record in store.files())
print("well", held)
"""


def test_full_disk_keeps_what_was_done_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1) to mount a small disk")
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", TINY_DISK, str(tmp_path)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare"):
        pytest.skip("this system does not let a test mount a small disk")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("well")
