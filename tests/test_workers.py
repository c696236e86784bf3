"""The supervisor of worker processes: replaced when they die, ended when it ends, and never waited for in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.audio import MAX_DURATION_S
from embedindex.embed import embed_file
from embedindex.errors import ModelError, UsageError
from embedindex.file_stat import RECHECK, FileStat
from embedindex.models import ModelRequest, load_model
from embedindex.worker import TOGETHER_BYTES, Embedded, Failed, WorkerSetup, trusted_stat
from embedindex.workers import AHEAD_BYTES, AHEAD_FILES, Event, Finished, Hashed, WorkerPool
from tests.indexing import TINY, constant, make_sound, write_samples
from tests.processes import PATIENCE_S, lives, wait_until

PATIENT_S = 3600.0  # a starving worker is not taken to hang
SETUP = WorkerSetup(TINY, 0.5, MAX_DURATION_S, niceness=0)


def fingerprint() -> str:
    return load_model(TINY).identity.fingerprint


def finish(pool: WorkerPool, *, embed: bool = True, hangs: Path | None = None) -> list[Finished]:
    """Answer every question and return what finished, until nothing is in hand.

    With `hangs`, a worker is given up as soon as a file beside that path says that it hangs (the test model's
    ``until``), and never before, however slow the machine is.
    """
    done: list[Finished] = []
    deadline = time.monotonic() + PATIENCE_S
    while pool.busy:
        assert time.monotonic() < deadline, "the workers do not get on"
        if hangs is not None:
            pool._stall_s = 0.0 if any(_waits(hangs, worker.process.pid) for worker in pool._workers) else PATIENT_S
        for event in pool.events(0.1):
            if isinstance(event, Hashed):
                pool.answer(event.task, embed=embed)
            else:
                done.append(event)
    return done


def _waits(path: Path, pid: int | None) -> bool:
    return os.path.exists(f"{path}.{pid}")


def first_event(pool: WorkerPool) -> Event:
    """Return the first thing that happens."""
    while True:
        for event in pool.events(0.1):
            return event


def test_each_file_comes_back_once(library: Path) -> None:
    paths = [make_sound(library / f"{number}.wav", 200 + 50 * number) for number in range(5)]
    with WorkerPool(SETUP, 2, fingerprint()) as pool:
        done: list[Finished] = []
        for number, path in enumerate(paths):
            while not pool.has_room:
                done += finish(pool)
            pool.submit(number, os.fsencode(path))
        done += finish(pool)
    assert sorted(event.task for event in done) == list(range(5))
    assert all(isinstance(event.result, Embedded) for event in done)


def test_vectors_do_not_depend_on_the_files_that_share_a_call_of_the_model(library: Path) -> None:
    paths = [make_sound(library / f"{number}.wav", 200 + 50 * number, 0.2 + 0.3 * number) for number in range(12)]
    with WorkerPool(SETUP, 1, fingerprint()) as pool:
        for number, path in enumerate(paths):
            assert pool.has_room
            pool.submit(number, os.fsencode(path), 1000)
        done = {event.task: event.result for event in finish(pool)}
    for number, path in enumerate(paths):
        result = done[number]
        assert isinstance(result, Embedded)
        wanted = embed_file(str(path), load_model(TINY), 0.5)
        np.testing.assert_array_equal(result.embedding.vectors, wanted.vectors)
        assert result.embedding.duration_s == wanted.duration_s


@pytest.mark.parametrize(("level", "kind", "replaced"), [(0.95, "crashed", 2), (-0.95, "timeout", 0)])
def test_only_the_bad_file_fails_of_those_that_are_in_hand_together(
    library: Path, tmp_path: Path, level: float, kind: str, replaced: int
) -> None:
    go = tmp_path / "go"
    go.touch()
    setup = replace(SETUP, request=replace(TINY, options=(("until", str(go)),)))
    paths = [make_sound(library / f"{number}.wav", 200 + 50 * number) for number in range(8)]
    paths.insert(4, write_samples(library / "bad.wav", constant(level)))
    with WorkerPool(setup, 1, fingerprint(), stall_s=PATIENT_S) as pool:
        for number, path in enumerate(paths):
            pool.submit(number, os.fsencode(path), 1000)
        done = {event.task: event.result for event in finish(pool, hangs=go)}
        assert pool.crashes == replaced
    bad = done.pop(4)
    assert isinstance(bad, Failed)
    assert bad.kind == kind
    assert sorted(done) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all(isinstance(result, Embedded) for result in done.values()), done


def test_slow_model_is_not_taken_for_a_decoder_that_hangs(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_sound(library / "a.wav")
    go = tmp_path / "go"
    setup = replace(SETUP, request=replace(TINY, options=(("until", str(go)), ("free", "1"))))
    monkeypatch.setattr("embedindex.workers.MODEL_PATIENCE", 10_000)
    with WorkerPool(setup, 1, fingerprint()) as pool:
        pool.submit(0, os.fsencode(path), 1000)
        while not _waits(go, pool._workers[0].process.pid):
            for event in pool.events(0.1):
                assert isinstance(event, Hashed)
                pool.answer(event.task, embed=True)
        pool._stall_s = 0.1
        until = time.monotonic() + 2 * pool._stall_s
        while time.monotonic() < until:
            assert list(pool.events(0.05)) == []
        pool._stall_s = PATIENT_S
        go.touch()
        (event,) = finish(pool)
    assert isinstance(event.result, Embedded)


def test_worker_is_given_small_files_ahead_and_of_large_ones_a_second(library: Path) -> None:
    path = os.fsencode(make_sound(library / "a.wav"))
    for size, wanted in ((1000, AHEAD_FILES), (AHEAD_BYTES, 2)):
        with WorkerPool(SETUP, 1, fingerprint()) as pool:
            given = 0
            while pool.has_room:
                pool.submit(given, path, size)
                given += 1
            assert given == wanted
            assert len(finish(pool, embed=False)) == given


def test_small_files_are_hashed_together_and_large_ones_one_by_one(library: Path, tmp_path: Path) -> None:
    small = [make_sound(library / f"{number}.wav", 200 + 50 * number) for number in range(4)]
    large = write_samples(library / "large.wav", np.zeros(TOGETHER_BYTES, np.float32))
    for paths in (small, [large, *small]):
        go = tmp_path / f"go{len(paths)}"  # the worker begins when all files are in its hands
        setup = replace(SETUP, request=replace(TINY, options=(("until", str(go)),)))
        with WorkerPool(setup, 1, fingerprint()) as pool:
            for number, path in enumerate(paths):
                pool.submit(number, os.fsencode(path), 1000)
            go.touch()
            hashed: list[Hashed] = []
            deadline = time.monotonic() + PATIENCE_S
            while not hashed and time.monotonic() < deadline:
                hashed = [event for event in pool.events(0.2) if isinstance(event, Hashed)]
            assert [event.task for event in hashed] == ([0] if paths[0] == large else [0, 1, 2, 3])


def test_dropped_file_is_not_decoded(library: Path) -> None:
    path = write_samples(library / "crash.wav", constant(0.5))  # decoding it would kill the worker
    with WorkerPool(SETUP, 1, fingerprint()) as pool:
        pool.submit(7, os.fsencode(path))
        assert finish(pool, embed=False) == [Finished(7, None)]
        assert pool.crashes == 0


def test_idle_worker_that_dies_is_replaced(library: Path) -> None:
    path = os.fsencode(make_sound(library / "a.wav"))
    with WorkerPool(SETUP, 1, fingerprint()) as pool:
        pool.submit(1, path)
        finish(pool)
        (worker,) = pool._workers
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
        pool.submit(2, path)
        (event,) = finish(pool)
        assert isinstance(event.result, Embedded)


def test_pool_goes_on_with_other_files_after_its_work_was_abandoned(library: Path) -> None:
    hanging = os.fsencode(write_samples(library / "hangs.wav", constant(-0.95)))
    path = os.fsencode(make_sound(library / "a.wav"))
    with WorkerPool(SETUP, 1, fingerprint()) as pool:
        pool.submit(1, hanging)
        while not any(isinstance(event, Hashed) for event in pool.events(0.1)):
            pass
        pool.answer(1, embed=True)
        pool.abandon()
        assert (pool.busy, pool.in_hand()) == (0, [])
        pool.submit(2, path)
        (event,) = finish(pool)
        assert event.task == 2
        assert isinstance(event.result, Embedded)


def test_worker_with_another_model_than_the_index_is_refused(library: Path) -> None:
    path = os.fsencode(make_sound(library / "a.wav"))
    with WorkerPool(SETUP, 1, "0" * 64) as pool:
        pool.submit(1, path)
        with pytest.raises(ModelError, match="the model changed while the scan was starting"):
            finish(pool)


def test_error_of_the_model_ends_the_pool_not_the_file(library: Path) -> None:
    path = os.fsencode(make_sound(library / "a.wav"))
    setup = WorkerSetup(ModelRequest("tiny", (("nonsense", "1"),)), 0.5, MAX_DURATION_S)
    with WorkerPool(setup, 1, fingerprint()) as pool:
        pool.submit(1, path)
        with pytest.raises(UsageError, match="tiny has no option nonsense"):
            finish(pool)


def test_file_that_vanished_is_unreadable(library: Path) -> None:
    with WorkerPool(SETUP, 1, fingerprint()) as pool:
        pool.submit(1, os.fsencode(library / "gone.wav"))
        (event,) = finish(pool)
    assert isinstance(event.result, Failed)
    assert (event.result.kind, event.result.reason) == ("io", "cannot be read (No such file or directory)")


def test_file_longer_than_allowed_is_refused(library: Path) -> None:
    path = make_sound(library / "long.wav", 440, 12.0)
    with WorkerPool(WorkerSetup(TINY, 0.5, 10.0), 1, fingerprint()) as pool:
        pool.submit(1, os.fsencode(path))
        (event,) = finish(pool)
    assert isinstance(event.result, Failed)
    assert event.result.kind == "limit"


def test_model_computes_before_any_sound_takes_memory(library: Path) -> None:
    broken = replace(TINY, options=(("broken", "all"),))
    with WorkerPool(replace(SETUP, request=broken), 1, load_model(broken).identity.fingerprint) as pool:
        pool.submit(1, os.fsencode(make_sound(library / "a.wav")))
        with pytest.raises(ModelError, match="cannot be computed"):
            first_event(pool)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's data is Linux's")
def test_file_that_needs_too_much_memory_fails_alone(library: Path) -> None:
    many_windows = make_sound(library / "long.wav", 440, 30.0)
    few = make_sound(library / "short.wav", 550)
    hungry = replace(TINY, options=(("hungry", "100"),))
    tight = WorkerSetup(hungry, 0.5, MAX_DURATION_S, niceness=0, memory_bytes=600 * 2**20)
    with WorkerPool(tight, 1, fingerprint()) as pool:
        pool.submit(1, os.fsencode(many_windows))
        (event,) = finish(pool)
        assert isinstance(event.result, Failed)
        assert event.result.kind == "memory"
        pool.submit(2, os.fsencode(few))
        (event,) = finish(pool)
        assert isinstance(event.result, Embedded)
        assert pool.crashes == 0


def test_leaving_the_pool_ends_a_hanging_worker_at_once(library: Path) -> None:
    path = write_samples(library / "hang.wav", constant(-0.5))
    with WorkerPool(SETUP, 1, fingerprint()) as pool:
        pool.submit(1, os.fsencode(path))
        events: list[Event] = []
        while not events:
            events += pool.events(0.1)
        pool.answer(1, embed=True)
        (worker,) = pool._workers
        process = worker.process
    assert not process.is_alive()  # what hangs would do so for an hour


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_workers_die_with_a_killed_parent(library: Path, tmp_path: Path) -> None:
    path = write_samples(library / "hang.wav", constant(-0.5))
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, os\n"
        "from embedindex.models import ModelRequest, load_model\n"
        "from embedindex.worker import WorkerSetup\n"
        "from embedindex.workers import WorkerPool, Hashed\n"
        "if __name__ == '__main__':\n"
        "    tiny = ModelRequest('tiny')\n"
        "    pool = WorkerPool(WorkerSetup(tiny, 0.5, 3600.0), 1, load_model(tiny).identity.fingerprint)\n"
        "    pool.submit(1, os.fsencode(sys.argv[1]))\n"
        "    while True:\n"
        "        for event in pool.events(0.1):\n"
        "            pool.answer(1, embed=True)\n"
        "            print(pool._workers[0].process.pid, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not lives(worker))


def test_stat_is_trusted_only_when_the_bytes_cannot_be_newer() -> None:
    second = 1_000_000_000
    old = FileStat(10, 5 * second + 1, 1, 1)
    assert trusted_stat(old, old, 100 * second) == old
    grown = FileStat(11, 5 * second + 1, 1, 1)
    assert trusted_stat(old, grown, 100 * second).mtime_ns == RECHECK
    assert trusted_stat(old, grown, 100 * second).size == 11
    just_now = FileStat(10, 100 * second - 10_000_000, 1, 1)
    assert trusted_stat(just_now, just_now, 100 * second).mtime_ns == RECHECK
    a_second_ago = FileStat(10, 99 * second + 1, 1, 1)
    assert trusted_stat(a_second_ago, a_second_ago, 100 * second) == a_second_ago
    whole_seconds = FileStat(10, 99 * second, 1, 1)  # as FAT has them: the file may be 2 s newer
    assert trusted_stat(whole_seconds, whole_seconds, 100 * second).mtime_ns == RECHECK
