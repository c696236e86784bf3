"""Tempo and key of many files in worker processes, each file with a deadline.

A file that takes too long, or takes its worker down, is reported as such, and another worker goes on. Processes are
spawned, as everywhere (see `embedindex.workers`), one by one of the threads that wait for them. Protocol: the parent
sends a path, the worker answers with a `TempoKey`, or with a sentence that says why there is none.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from queue import Queue
from threading import Lock, Thread

import numpy as np

from embedindex.analysis_store import ToAnalyse, Wanted
from embedindex.arrays import Float32Array
from embedindex.errors import AudioError, QueryError
from embedindex.query import Part, part_blocks
from embedindex.tempo_key import LISTEN_S, SAMPLE_RATE, TempoKey, analyse

# The first file of a worker waits for librosa, and for what that compiles.
START_S = 120.0
GOODBYE_S = 2.0

Found = tuple[ToAnalyse, TempoKey | str]


def analyse_files(
    tasks: Iterable[ToAnalyse], wanted: Wanted, *, workers: int, limit_s: float, stop: Callable[[], bool]
) -> Iterator[Found]:
    """Yield each task with what was found, or with why nothing could be, in no order.

    Args:
        tasks: the files.
        wanted: what to look for.
        workers: how many processes.
        limit_s: seconds that a file may take.
        stop: asked before each file; True ends the work after the files in hand.
    """
    left, lock = iter(tasks), Lock()
    done: Queue[Found | None] = Queue()
    helpers: list[_Worker] = []
    ended = False

    def next_task() -> ToAnalyse | None:
        with lock:
            return None if ended or stop() else next(left, None)

    def serve() -> None:
        worker = _Worker(wanted)
        helpers.append(worker)
        try:
            while (task := next_task()) is not None:
                done.put((task, worker.ask(task.path, limit_s)))
        finally:
            worker.close()
            done.put(None)

    threads = [Thread(target=serve, daemon=True) for _ in range(max(1, workers))]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            found = done.get()
            if found is None:
                running -= 1
            else:
                yield found
    finally:
        ended = True
        for helper in helpers:
            helper.kill()
        for thread in threads:
            thread.join(GOODBYE_S)


class _Worker:
    """One process at a time; the next one is started when the last was lost."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._context = multiprocessing.get_context("spawn")
        self._connection: Connection | None = None

    def ask(self, path: bytes, limit_s: float) -> TempoKey | str:
        """Return what the process answers within the limit."""
        if self._connection is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=work, args=(theirs, self._wanted), daemon=True)
            self._process.start()
            theirs.close()
            limit_s += START_S
        try:
            self._connection.send(path)
            if self._connection.poll(limit_s):
                answer: TempoKey | str = self._connection.recv()
                return answer
            reason = f"took longer than {limit_s:.0f} seconds"
        except (EOFError, OSError):
            self._process.join(GOODBYE_S)
            reason = f"made the analysis crash (exit status {self._process.exitcode})"
        self.kill()
        self._connection = None
        return reason

    def kill(self) -> None:
        """End the process at once."""
        if self._connection is not None:
            self._process.kill()

    def close(self) -> None:
        """Let the process end."""
        if self._connection is not None:
            self._connection.close()


def work(connection: Connection, wanted: Wanted) -> None:
    """Answer paths until the pipe closes; the target of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if hasattr(os, "nice"):
        os.nice(5)
    warnings.simplefilter("ignore")  # librosa's remarks on short sounds
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone: so are we
        _compile_alone(wanted)
        while True:
            connection.send(_analyse_file(connection.recv(), wanted))


def _compile_alone(wanted: Wanted) -> None:
    """Analyse a sound while no other process does.

    librosa's functions are compiled when first called and kept on disk (numba). Two processes that do that at once can
    leave a file there which makes every later process crash.
    """
    from filelock import FileLock

    user = os.getuid() if hasattr(os, "getuid") else 0  # on Windows the folder is the user's own
    with FileLock(os.path.join(tempfile.gettempdir(), f"embedindex-librosa-{user}.lock")):
        analyse(first_sound(), tempo=wanted.tempo, key=wanted.key)


def first_sound() -> Float32Array:
    """Return (samples,) a chord with four beats, which has a tempo and a key."""
    seconds = np.arange(round(4.0 * SAMPLE_RATE)) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hz * seconds) for hz in (220.0, 261.63, 329.63))
    return np.asarray(chord * np.exp(-4.0 * (seconds % 0.5)) / 3.0, np.float32)


def _analyse_file(path: bytes, wanted: Wanted) -> TempoKey | str:
    try:
        samples = np.concatenate(list(part_blocks(path, SAMPLE_RATE, Part(0.0, LISTEN_S))))
        whole = len(samples) < round(LISTEN_S * SAMPLE_RATE)
        return analyse(samples, tempo=wanted.tempo, key=wanted.key, whole=whole)
    except (AudioError, QueryError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever librosa raises is that file's error
        return f"made the analysis fail ({type(error).__name__}: {error})"[:500]
