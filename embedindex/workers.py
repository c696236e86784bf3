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
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Protocol

from embedindex.child_process import interrupts_blocked, one_thread_each
from embedindex.errors import EmbedindexError, ModelError, display_path
from embedindex.file_stat import FileStat
from embedindex.messages import receive_message
from embedindex.read_ahead import AtWork
from embedindex.worker import Embedded, Failed, WorkerSetup, work

if TYPE_CHECKING:
    from embedindex.models.device_process import DeviceProcesses

# A worker that reports nothing for so long is taken to hang (it reports every second while it gets on).
STALL_S = 60.0
# A model computes several windows at once and says nothing meanwhile, which a small or busy machine may take long over.
MODEL_PATIENCE = 5
# Loading a model may quantise it first.
START_S = 600.0
# A file that took its worker down gets one more chance, alone: it may have been another one, or memory that was short.
TRIES = 2
START_FAILURES = 3
GOODBYE_S = 2.0
# Files that a worker is given ahead: two, and more while they are small together.
AHEAD_FILES = 16
AHEAD_BYTES = 4 * 2**20
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

    def submit(self, task: int, path: bytes, size: int = 0) -> None:
        """Give a task, a file of `size` bytes, to a worker; call only while `has_room`."""

    def answer(self, task: int, *, embed: bool) -> None:
        """Tell the worker that hashed a file whether to embed it."""

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield what happened, waiting at most `timeout_s` seconds for something to happen."""

    def abandon(self) -> None:
        """Give up the tasks in hand."""


@dataclass(frozen=True)
class _Task:
    number: int
    path: bytes
    size: int
    alone: bool = False  # a worker died or hung with it and others in hand: whose fault it was will show


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    at_work: AtWork
    ready: bool = False
    tasks: dict[int, _Task] = field(default_factory=dict)  # in the order in which it works on them
    heard: float = field(default_factory=time.monotonic)

    def takes(self, *, alone: bool = False) -> bool:
        """Return whether it is to have another task now."""
        if not self.tasks:
            return True
        if alone or len(self.tasks) >= AHEAD_FILES or any(task.alone for task in self.tasks.values()):
            return False
        return len(self.tasks) < 2 or sum(task.size for task in self.tasks.values()) < AHEAD_BYTES

    def suspects(self) -> list[_Task]:
        """Return the tasks, of those in hand, that it was at when it died or fell silent."""
        found = [self.tasks[number] for number in self.at_work.tasks() if number in self.tasks]
        return found or list(self.tasks.values())[:1]


class WorkerPool:
    """Some worker processes. Use as a context manager: leaving it ends them all at once.

    Args:
        setup: what every worker is told at its start.
        workers: how many processes.
        fingerprint: the identity that the model must have.
        stall_s: seconds without a sign of life after which a worker is replaced; five times as many in the model.

    Raises:
        ModelError: from `events` or `submit`, when the workers, or the device that is required, cannot have the model.
    """

    def __init__(self, setup: WorkerSetup, workers: int, fingerprint: str, *, stall_s: float = STALL_S) -> None:
        self._setup = setup
        self._size = max(1, workers)
        self._fingerprint = fingerprint
        self._stall_s = stall_s
        self._workers: list[_Worker] = []
        self._again: deque[_Task] = deque()
        self._tries: dict[int, int] = {}
        self._start_failures = 0
        self._crashes = 0
        self._devices: DeviceProcesses | None = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers: idle ones by closing their pipe, busy ones by force."""
        for worker in self._workers:
            worker.connection.close()
            if worker.tasks or not worker.ready:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(GOODBYE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()
        if self._devices is not None:
            self._devices.close()
            self._devices = None

    def abandon(self) -> None:
        """Give up the tasks in hand, so that the pool is fit for other work; busy workers are replaced when needed."""
        for worker in [worker for worker in self._workers if worker.tasks]:
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
        return sum(len(worker.tasks) for worker in self._workers) + len(self._again)

    @property
    def has_room(self) -> bool:
        """Whether a further task would be taken."""
        if self._again:
            return False
        return len(self._workers) < self._size or any(worker.takes() for worker in self._workers)

    def in_hand(self) -> list[bytes]:
        """Return the paths that are being worked on."""
        return [next(iter(worker.tasks.values())).path for worker in self._workers if worker.tasks]

    def submit(self, task: int, path: bytes, size: int = 0) -> None:
        """Give a task to a worker; call only while `has_room`.

        Args:
            task: a number for it.
            path: the file.
            size: its bytes: a worker is given many small ones ahead.
        """
        self._submit(_Task(task, path, size))

    def _submit(self, task: _Task) -> None:
        takers = [worker for worker in self._workers if worker.takes(alone=task.alone)]
        worker = min(takers, key=lambda worker: len(worker.tasks), default=None)
        if worker is None or (worker.tasks and len(self._workers) < self._size):
            worker = self._start()
            self._workers.append(worker)
        if not worker.tasks:
            worker.heard = time.monotonic()
        worker.tasks[task.number] = task
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died idle: `events` sees and replaces it
            worker.connection.send((task.number, task.path))

    def answer(self, task: int, *, embed: bool) -> None:
        """Tell the worker that hashed a file whether to embed it."""
        for worker in self._workers:
            if task in worker.tasks:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    worker.connection.send(embed)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        memory = AtWork.shared()
        arguments = (theirs, self._setup, os.getpid(), memory, self._server())
        process = context.Process(target=work, args=arguments, daemon=True)
        with one_thread_each(), interrupts_blocked():
            process.start()
        theirs.close()
        return _Worker(process, ours, AtWork(memory))

    def _server(self) -> str | None:
        """Return where a new worker finds the process that computes the model; None where it does so itself."""
        if self._setup.device == "cpu":
            return None
        if self._devices is None:
            from embedindex.models.device_process import DeviceProcesses
            from embedindex.models.devices import find_devices

            setup = self._setup
            devices = find_devices(setup.device, setup.request.engine)
            required = setup.device == "cuda"
            self._devices = DeviceProcesses(setup.request, devices, setup.niceness, required=required)
        return self._devices.address()

    def _replace(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield what happened, waiting at most `timeout_s` seconds for something to happen."""
        while self._again and self._takes(self._again[0]):
            self._submit(self._again.popleft())
        by_connection = {worker.connection: worker for worker in self._workers}
        of_devices = self._devices.connections if self._devices is not None else []
        for connection in wait([*by_connection, *of_devices], timeout_s):
            if self._devices is not None and connection in of_devices:
                self._devices.hear(connection)
            else:
                yield from self._hear(by_connection[connection])  # type: ignore[index]
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.tasks]:
            in_model = worker.at_work.in_model()
            limit = self._stall_s * (MODEL_PATIENCE if in_model else 1) if worker.ready else START_S
            if now - worker.heard > limit:
                suspects = worker.suspects()
                self._replace(worker)
                if len(suspects) == 1:
                    reason = f"the {'model' if in_model else 'decoder'} did not get on with it for {limit:.0f} seconds"
                    del worker.tasks[suspects[0].number]
                    yield self._finish(suspects[0].number, Failed("timeout", reason))
                self._try_again(worker, suspects)

    def _takes(self, task: _Task) -> bool:
        return len(self._workers) < self._size or any(worker.takes(alone=task.alone) for worker in self._workers)

    def _try_again(self, worker: _Worker, suspects: list[_Task]) -> None:
        """Put what an ended worker had in hand on the list again: what it was at is to be tried alone."""
        for task in worker.tasks.values():
            self._again.append(replace(task, alone=task.alone or task in suspects))

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
        elif kind == "hashed":
            yield from (Hashed(*one) for one in message[1] if one[0] in worker.tasks)
        elif kind in ("done", "failed", "dropped") and message[1] in worker.tasks:
            del worker.tasks[message[1]]
            yield self._finish(message[1], message[2] if len(message) > 2 else None)

    def _died(self, worker: _Worker) -> Iterator[Event]:
        worker.process.join(5.0)
        code, suspects = worker.process.exitcode, worker.suspects()
        self._replace(worker)
        self._crashes += 1
        if not worker.ready:
            self._start_failures += 1
            if self._start_failures >= START_FAILURES:
                raise ModelError(
                    f"the worker processes end before they can start ({_how(code)}); "
                    "`embedindex models list` shows whether the model can be used"
                )
            self._try_again(worker, [])
            return
        for task in suspects:
            log.warning("a worker died of %s (%s)", display_path(task.path), _how(code))
            self._tries[task.number] = self._tries.get(task.number, 0) + 1
            if self._tries[task.number] >= TRIES:
                del worker.tasks[task.number]
                yield self._finish(task.number, Failed("crashed", f"made the decoder crash twice ({_how(code)})"))
        self._try_again(worker, suspects)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"
