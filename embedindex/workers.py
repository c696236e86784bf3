"""The supervisor of a scan's worker processes: one pipe each, a deadline each, replaced when they crash or hang.

A process pool of the standard library breaks as a whole when one worker dies, and knows no deadline; a damaged file can
do both. Processes are spawned, never forked: forked children of a process that used FAISS hang.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from embedindex.crawl import FileStat
from embedindex.errors import EmbedindexError, ModelError, display_path
from embedindex.worker import Embedded, Failed, WorkerSetup, receive_message, work

# A worker that reports nothing for so long is taken to hang (it reports every second while it gets on).
STALL_S = 60.0
# Loading a model may quantise it first.
START_S = 600.0
# A file that took its worker down gets one more chance: the memory may have been someone else's.
TRIES = 2
START_FAILURES = 3
GOODBYE_S = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hashed:
    """A file's content hash is known, and the stat to remember it by; the worker waits for `WorkerPool.answer`."""

    task: int
    digest: bytes
    stat: FileStat


@dataclass(frozen=True)
class Finished:
    """A task is over. `result` is None when the parent told the worker to drop it."""

    task: int
    result: Embedded | Failed | None


Event = Hashed | Finished


class Pool(Protocol):
    """What does the work of a scan: this machine's processes (`WorkerPool`), or a cluster's (`ray_pool.RayPool`)."""

    @property
    def crashes(self) -> int:
        """How many workers were lost so far."""

    @property
    def busy(self) -> int:
        """How many tasks are in hand."""

    @property
    def has_room(self) -> bool:
        """Whether a task would be worked on at once."""

    def in_hand(self) -> list[bytes]:
        """Return the paths that are being worked on."""

    def submit(self, task: int, path: bytes) -> None:
        """Give a task to a worker; call only while `has_room`."""

    def answer(self, task: int, *, embed: bool) -> None:
        """Tell the worker that hashed a file whether to embed it."""

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield what happened, waiting at most `timeout_s` seconds for something to happen."""

    def abandon(self) -> None:
        """Give up the tasks in hand."""


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    task: int | None = None
    path: bytes = b""
    heard: float = field(default_factory=time.monotonic)


class WorkerPool:
    """Some worker processes. Use as a context manager: leaving it ends them all at once.

    Args:
        setup: what every worker is told at its start.
        workers: how many processes.
        fingerprint: the identity that the model must have.
        stall_s: seconds without a sign of life after which a worker is replaced.

    Raises:
        ModelError: from `events`, when the workers cannot load the model.
    """

    def __init__(self, setup: WorkerSetup, workers: int, fingerprint: str, *, stall_s: float = STALL_S) -> None:
        self._setup = setup
        self._size = max(1, workers)
        self._fingerprint = fingerprint
        self._stall_s = stall_s
        self._workers: list[_Worker] = []
        self._again: deque[tuple[int, bytes]] = deque()
        self._tries: dict[int, int] = {}
        self._start_failures = 0
        self._crashes = 0

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers: idle ones by closing their pipe, busy ones by force."""
        for worker in self._workers:
            worker.connection.close()
            if worker.task is not None or not worker.ready:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(GOODBYE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def abandon(self) -> None:
        """Give up the tasks in hand, so that the pool is fit for other work; busy workers are replaced when needed."""
        for worker in [worker for worker in self._workers if worker.task is not None]:
            self._replace(worker)
        self._again.clear()
        self._tries.clear()

    @property
    def crashes(self) -> int:
        """How many workers have died so far."""
        return self._crashes

    @property
    def busy(self) -> int:
        """How many tasks are in hand."""
        return sum(worker.task is not None for worker in self._workers) + len(self._again)

    @property
    def has_room(self) -> bool:
        """Whether a task would be worked on at once."""
        return self.busy < self._size

    def in_hand(self) -> list[bytes]:
        """Return the paths that are being worked on."""
        return [worker.path for worker in self._workers if worker.task is not None]

    def submit(self, task: int, path: bytes) -> None:
        """Give a task to a free worker; call only while `has_room`."""
        for worker in self._workers:
            if worker.task is None:
                self._give(worker, task, path)
                return
        worker = self._start()
        self._workers.append(worker)
        self._give(worker, task, path)

    def _give(self, worker: _Worker, task: int, path: bytes) -> None:
        worker.task, worker.path, worker.heard = task, path, time.monotonic()
        self._tries[task] = self._tries.get(task, 0) + 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died idle: `events` sees and replaces it
            worker.connection.send((path,))

    def answer(self, task: int, *, embed: bool) -> None:
        """Tell the worker that hashed a file whether to embed it."""
        for worker in self._workers:
            if worker.task == task:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    worker.connection.send(embed)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._setup, os.getpid()), daemon=True)
        with _one_thread_each(), _interrupts_blocked():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replace(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield what happened, waiting at most `timeout_s` seconds for something to happen."""
        while self._again and sum(worker.task is not None for worker in self._workers) < self._size:
            task, path = self._again.popleft()
            self.submit(task, path)
        by_connection = {worker.connection: worker for worker in self._workers}
        heard = wait(list(by_connection), timeout_s)
        for connection in heard:
            yield from self._hear(by_connection[connection])  # type: ignore[index]
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.task is not None]:
            limit = self._stall_s if worker.ready else START_S
            if now - worker.heard > limit:
                hung = worker.task
                self._replace(worker)
                if hung is not None:
                    reason = f"the decoder did not get on with it for {limit:.0f} seconds"
                    yield self._finish(hung, Failed("timeout", reason))

    def _finish(self, task: int, result: Embedded | Failed | None) -> Finished:
        self._tries.pop(task, None)
        return Finished(task, result)

    def _hear(self, worker: _Worker) -> Iterator[Event]:
        try:
            message = receive_message(worker.connection)
        except (EOFError, OSError):
            yield from self._died(worker)
            return
        worker.heard = time.monotonic()
        kind = message[0]
        if kind == "ready":
            if message[1] != self._fingerprint:
                raise ModelError("the model changed while the scan was starting; run the scan again")
            worker.ready = True
            self._start_failures = 0
        elif kind == "broken":
            error: EmbedindexError = message[1]
            raise error
        elif kind == "hashed" and worker.task is not None:
            yield Hashed(worker.task, message[1], message[2])
        elif kind in ("done", "failed", "dropped") and worker.task is not None:
            task, worker.task = worker.task, None
            yield self._finish(task, message[1] if len(message) > 1 else None)

    def _died(self, worker: _Worker) -> Iterator[Event]:
        worker.process.join(5.0)
        code, task, path = worker.process.exitcode, worker.task, worker.path
        was_ready = worker.ready
        self._replace(worker)
        if not was_ready:
            self._start_failures += 1
            if self._start_failures >= START_FAILURES:
                raise ModelError(
                    f"the worker processes end before they can start ({_how(code)}); "
                    "`embedindex models list` shows whether the model can be used"
                )
            if task is not None:
                self._tries[task] -= 1
        self._crashes += 1
        if task is None:
            return
        log.warning("a worker died of %s (%s)", display_path(path), _how(code))
        if self._tries[task] < TRIES:
            self._again.append((task, path))
        else:
            yield self._finish(task, Failed("crashed", f"made the decoder crash twice ({_how(code)})"))


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let numeric libraries of a process started inside use one thread, as there is a process for each core already."""
    wanted = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
    )
    # glibc hands freed memory above these sizes back at once, and gets it cleared anew, page by page, for the next
    # array: a quarter of the time of the built-in model. Other C libraries do not know the names.
    wanted |= {"MALLOC_MMAP_THRESHOLD_": str(2**24), "MALLOC_TRIM_THRESHOLD_": str(2**25)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start a process with Ctrl-C blocked, so that it cannot be hit before it has said that it ignores it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
