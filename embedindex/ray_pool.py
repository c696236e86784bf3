"""A scan's workers on a Ray cluster: one actor a machine, each with the pool of workers that a scan on one machine has.

Offers what `workers.WorkerPool` offers. Only vectors, hashes and facts travel; the machines read the sound files
themselves, under the same path or a mapped one. A machine that is lost gives its files to the others, one that joins is
used. Paths are the coordinator's; so are the stats that files are remembered by.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import embedindex
from embedindex.errors import ClusterError, EngineMissingError, display_path
from embedindex.file_stat import RECHECK, FileStat, file_stat
from embedindex.path_map import PathMap
from embedindex.ray_node import Answer, Node, Submit, Turn, list_models, pack_models
from embedindex.worker import Failed, WorkerSetup
from embedindex.workers import AHEAD_BYTES, AHEAD_FILES, STALL_S, Event, Finished, Hashed

TURN_S = 1.0
LOOK_FOR_NODES_S = 5.0
NO_NODES_S = 120.0
# A machine gets its next files before it asks for them, so many for each worker, and more while they are small
# together: a turn takes a millisecond or two, as long as a short sound.
AHEAD = 2
# A file that was in hand when so many machines were lost is taken to be the reason.
TRIES = 3
NODE_FAILURES = 3
KNOCK_S = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Where the workers of a scan are.

    Attributes:
        address: of the Ray cluster, ``host:port`` or ``auto``; None for one that runs here, else one is started.
        path_map: what paths are on the other machines.
    """

    address: str | None = None
    path_map: PathMap = field(default_factory=PathMap)


@dataclass(frozen=True)
class _Task:
    path: bytes
    stat: FileStat | None  # as this machine sees the file
    size: int


@dataclass
class _Machine:
    key: str
    name: str
    actor: Any
    workers: int
    ready: bool = False
    turn: Any = None
    commands: list[Submit | Answer] = field(default_factory=list)
    tasks: dict[int, _Task] = field(default_factory=dict)
    size: int = 0
    crashes: int = 0

    def room(self) -> int:
        """Return how many more tasks it is to have now: more while they are small together."""
        most = AHEAD_FILES if self.size < AHEAD_BYTES * self.workers else AHEAD
        return most * self.workers - len(self.tasks)

    def add(self, number: int, task: _Task) -> None:
        """Note a task that it gets."""
        self.tasks[number] = task
        self.size += task.size

    def end(self, number: int) -> None:
        """Note that a task is over."""
        self.size -= self.tasks.pop(number).size


class RayPool:
    """The workers of a cluster. Use as a context manager: leaving it ends them and lets go of the cluster.

    Args:
        setup: what every worker is told at its start.
        workers: how many a machine; 0 for one a core.
        fingerprint: the identity that the model must have.
        cluster: which machines.
        stall_s: seconds without a sign of life after which a worker is replaced.

    Raises:
        EngineMissingError: Ray is not installed.
        ClusterError: the cluster cannot be reached; from `events`, when all its machines are lost.
        ModelError: from `events`, when a machine cannot load the model.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        workers: int,
        fingerprint: str,
        cluster: Cluster,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        self._ray = _connect(cluster.address)
        self._per_machine = workers
        self._path_map = cluster.path_map
        self._arguments = (setup, fingerprint, stall_s)
        self._models = list_models()
        self._parcels: dict[tuple[str, ...], Any] = {}  # by what a machine lacks
        self._machines: dict[str, _Machine] = {}
        self._again: deque[tuple[int, bytes, int]] = deque()
        self._tries: dict[int, int] = {}
        self._failures: dict[str, int] = {}
        self._looked = self._worked = time.monotonic() - LOOK_FOR_NODES_S
        self._lost = self._crashes_before = 0

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and let go of the cluster."""
        self.abandon()
        with _signals_kept():
            self._ray.shutdown()

    def abandon(self) -> None:
        """Give up the tasks in hand."""
        for machine in self._machines.values():
            self._crashes_before += machine.crashes
            with contextlib.suppress(self._ray.exceptions.RayError):  # it may be gone
                self._ray.kill(machine.actor)
        self._machines.clear()
        self._again.clear()
        self._tries.clear()

    @property
    def crashes(self) -> int:
        """How many workers and machines were lost so far."""
        return self._lost + self._crashes_before + sum(machine.crashes for machine in self._machines.values())

    @property
    def busy(self) -> int:
        """How many tasks are in hand."""
        return sum(len(machine.tasks) for machine in self._machines.values()) + len(self._again)

    @property
    def has_room(self) -> bool:
        """Whether a machine can take another task."""
        return not self._again and self._freest() is not None

    def in_hand(self) -> list[bytes]:
        """Return the paths that are being worked on."""
        return [task.path for machine in self._machines.values() for task in machine.tasks.values()]

    def submit(self, task: int, path: bytes, size: int = 0) -> None:
        """Give a task, a file of `size` bytes, to the machine with the most room; call only while `has_room`."""
        machine = self._freest()
        if machine is None:
            self._again.append((task, path, size))
            return
        self._tries[task] = self._tries.get(task, 0) + 1
        machine.add(task, _Task(path, _stat(path), size))
        machine.commands.append(Submit(task, self._path_map.apply(path), size))

    def answer(self, task: int, *, embed: bool) -> None:
        """Tell the worker that hashed a file whether to embed it."""
        for machine in self._machines.values():
            if task in machine.tasks:
                machine.commands.append(Answer(task, embed))

    def _freest(self) -> _Machine | None:
        free = [one for one in self._machines.values() if one.ready and one.room() > 0]
        return max(free, key=_Machine.room, default=None)

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield what happened, waiting at most `timeout_s` seconds for something to happen."""
        self._look_for_machines()
        while self._again and self._freest() is not None:
            self.submit(*self._again.popleft())
        waiting = {machine.turn: machine for machine in self._machines.values() if self._take_turn(machine)}
        if not self.has_room and not self.busy:
            timeout_s = TURN_S  # nothing can be done before a machine is there
        if not waiting:
            time.sleep(timeout_s)
            return
        self._ray.wait(list(waiting), num_returns=1, timeout=timeout_s)
        done, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in done:
            yield from self._hear(waiting[reference], reference)

    def _take_turn(self, machine: _Machine) -> bool:
        """Let a machine go on, if there is something for it to do; return whether its answer is to be waited for."""
        if machine.turn is None and (machine.commands or machine.tasks):
            machine.turn = machine.actor.turn.remote(tuple(machine.commands), TURN_S)
            machine.commands = []
        return machine.turn is not None

    def _hear(self, machine: _Machine, reference: Any) -> Iterator[Event]:
        try:
            turn: Turn = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            yield from self._lose(machine, error)
            return
        machine.turn, machine.crashes, machine.ready = None, turn.crashes, not turn.lacks
        self._worked = time.monotonic()
        if turn.version != embedindex.__version__:
            raise ClusterError(
                f"{machine.name} has embedindex {turn.version}, this machine {embedindex.__version__}; install the "
                "same version on all machines"
            )
        for event in turn.events:
            if event.task in machine.tasks:
                yield self._as_seen_here(machine, event)
        if turn.error is not None:
            raise turn.error
        if turn.lacks:
            if turn.lacks not in self._parcels:
                self._parcels[turn.lacks] = self._ray.put(pack_models(turn.lacks))
            machine.turn = machine.actor.unpack_models.remote(self._parcels[turn.lacks])
        self._take_turn(machine)

    def _as_seen_here(self, machine: _Machine, event: Event) -> Event:
        """Return an event with the stat that this machine sees: other machines number disks and files in their way."""
        task = machine.tasks[event.task]
        if isinstance(event, Hashed):
            return replace(event, stat=_seen_here(event.stat, task.path, task.stat))
        machine.end(event.task)
        self._tries.pop(event.task, None)
        self._failures.pop(machine.key, None)
        if event.result is None or event.result.stat is None:
            return event
        return Finished(event.task, replace(event.result, stat=_seen_here(event.result.stat, task.path, task.stat)))

    def _look_for_machines(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_FOR_NODES_S and self._machines:
            return
        self._looked = now
        setup, fingerprint, stall_s = self._arguments
        for node in self._ray.nodes():
            name, cores = node["NodeManagerHostname"], int(node["Resources"].get("CPU", 0))
            key = node["NodeID"]
            if not node["Alive"] or not cores or key in self._machines:
                continue
            if self._failures.get(key, 0) >= NODE_FAILURES:
                continue
            workers = min(cores, self._per_machine or cores)
            actor = self._ray.remote(Node).options(
                num_cpus=workers,
                max_restarts=0,
                enable_task_events=False,
                scheduling_strategy=self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                    node_id=key, soft=False
                ),
            )
            started = actor.remote(setup, workers, fingerprint, stall_s)
            first = started.compare_models.remote(self._models)
            self._machines[key] = _Machine(key, name, started, workers, turn=first)
            log.info("%s joins with %d workers", name, workers)
        if now - self._worked > NO_NODES_S and not any(machine.ready for machine in self._machines.values()):
            raise ClusterError(
                "no machine of the cluster can be used (`ray status` shows them); what was done is kept, run the same "
                "command again when one can"
            )

    def _lose(self, machine: _Machine, error: Exception) -> Iterator[Event]:
        """Give the files of a machine that is gone to the others."""
        del self._machines[machine.key]
        self._failures[machine.key] = self._failures.get(machine.key, 0) + 1
        self._lost += 1
        self._crashes_before += machine.crashes
        log.warning("%s was lost with %d files in hand: %s", machine.name, len(machine.tasks), error)
        for number, task in machine.tasks.items():
            if self._tries[number] < TRIES:
                self._again.append((number, task.path, task.size))
                continue
            self._tries.pop(number)
            log.warning("given up: %s", display_path(task.path))
            reason = f"was in hand on {TRIES} machines when they were lost"
            yield Finished(number, Failed("crashed", reason, task.stat))


def _stat(path: bytes) -> FileStat | None:
    try:
        return file_stat(path)
    except OSError:
        return None


def _seen_here(there: FileStat, path: bytes, before: FileStat | None) -> FileStat:
    """Return the stat to remember a file by, from those that this machine saw before and sees now."""
    now = _stat(path)
    if now is None or before is None:
        return replace(there, mtime_ns=RECHECK)
    if there.mtime_ns == RECHECK or now != before:
        return replace(now, mtime_ns=RECHECK)
    return now


def _connect(address: str | None) -> Any:
    """Return the module ``ray``, connected to a cluster.

    Raises:
        EngineMissingError: Ray is not installed.
        ClusterError: there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise EngineMissingError(
            "Ray is not installed; install it with: pip install 'embedindex[ray]', or leave out --engine ray"
        ) from error
    try:
        if address is not None and address != "auto":
            _knock(address)
        with _signals_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=False,
                namespace="embedindex",
            )
    except (OSError, ValueError, RuntimeError) as error:
        where = address or "a cluster of its own"
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(
            f"Ray cannot reach {where}: {reason}; start a cluster with `ray start --head` (docs/cluster.md)"
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise when nobody listens at ``host:port``: Ray would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("write host:port, for example 192.168.1.20:6379, or auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the caller's handlers of Ctrl-C and SIGTERM, in whose place Ray puts its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
