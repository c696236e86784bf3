"""One machine of a Ray cluster: an actor that runs the very pool of workers that a scan on one machine has.

The coordinator talks to it in turns: it hands over commands and gets what happened. All supervision of decoders
(crashes, deadlines, memory) stays on the machine, so that a file fails there as it would anywhere.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import embedindex
from embedindex.errors import EmbedindexError
from embedindex.models.cache import models_folder
from embedindex.whole_files import renamed
from embedindex.worker import WorkerSetup
from embedindex.workers import Event, Finished, WorkerPool

MAX_PARCEL_BYTES = 2**30
# What happened is told together with what follows within this time: a turn takes four milliseconds of processor time.
# But not while a worker has less than so many files that it knows to be wanted: it may wait for an answer.
LINGER_S = 0.2
ENOUGH = 2


@dataclass(frozen=True)
class Submit:
    """A file of `size` bytes to work on, by its path on that machine."""

    task: int
    path: bytes
    size: int = 0


@dataclass(frozen=True)
class Answer:
    """Whether a file that was hashed is to be embedded."""

    task: int
    embed: bool


@dataclass(frozen=True)
class Turn:
    """What happened since the last turn.

    Attributes:
        events: in order.
        crashes: how many workers have died on this machine so far.
        version: of embedindex there.
        error: why this machine cannot work at all; None when it can.
        lacks: files of the coordinator's models folder that it has not.
    """

    events: tuple[Event, ...]
    crashes: int
    version: str
    error: EmbedindexError | None = None
    lacks: tuple[str, ...] = ()


class Node:
    """The actor.

    Args:
        setup: what every worker is told.
        workers: how many there are to be.
        fingerprint: the identity that the model must have.
        stall_s: seconds without a sign of life after which a worker is replaced.
    """

    def __init__(self, setup: WorkerSetup, workers: int, fingerprint: str, stall_s: float) -> None:
        # A spawned process imports its parent's main program again, and Ray's takes a second.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._pool = WorkerPool(setup, workers, fingerprint, stall_s=stall_s)
        self._workers = workers
        self._waiting: deque[Submit] = deque()
        self._wanted: set[int] = set()  # tasks that are to be embedded, and are not over yet

    def compare_models(self, names: Sequence[str]) -> Turn:
        """Return, as the first turn, which of these files the models folder here has not."""
        folder = models_folder()
        lacks = tuple(name for name in names if not os.path.exists(os.path.join(folder, name)))
        return Turn((), 0, embedindex.__version__, lacks=lacks)

    def unpack_models(self, parcel: dict[str, bytes]) -> Turn:
        """Take files of the coordinator's models folder."""
        unpack_models(parcel)
        return Turn((), 0, embedindex.__version__)

    def turn(self, commands: Sequence[Submit | Answer], timeout_s: float) -> Turn:
        """Take commands, and return what happened, waiting at most so many seconds for something to happen."""
        for command in commands:
            if isinstance(command, Submit):
                self._waiting.append(command)
            else:
                self._pool.answer(command.task, embed=command.embed)
                if command.embed:
                    self._wanted.add(command.task)
        events: list[Event] = []
        try:
            self._fill()
            ends = time.monotonic() + timeout_s
            while self._pool.busy and (left_s := ends - time.monotonic()) > 0:
                for event in self._pool.events(left_s):
                    if not events:
                        ends = min(ends, time.monotonic() + LINGER_S)
                    events.append(event)
                    if isinstance(event, Finished):
                        self._wanted.discard(event.task)
                    self._fill()
                if events and len(self._wanted) < ENOUGH * self._workers:
                    break
        except EmbedindexError as error:
            return Turn(tuple(events), self._pool.crashes, embedindex.__version__, error)
        return Turn(tuple(events), self._pool.crashes, embedindex.__version__)

    def _fill(self) -> None:
        while self._waiting and self._pool.has_room:
            submit = self._waiting.popleft()
            self._pool.submit(submit.task, submit.path, submit.size)


def list_models() -> list[str]:
    """Return the names of the files in the models folder, below it."""
    folder = models_folder()
    return [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
        if not name.endswith((".lock", ".damaged", ".part"))
    ]


def pack_models(names: Sequence[str]) -> dict[str, bytes]:
    """Return files of the models folder by their names in it, for machines that have them not.

    Nothing is sent when they are more than 1 GiB: such machines fetch what they need themselves.
    """
    paths = {name: os.path.join(models_folder(), name) for name in names}
    if sum(map(os.path.getsize, paths.values())) > MAX_PARCEL_BYTES:
        return {}
    return {name: Path(path).read_bytes() for name, path in paths.items()}


def unpack_models(parcel: dict[str, bytes]) -> None:
    """Write the files of a parcel that are missing here into the models folder, each at once."""
    folder = models_folder()
    for name, data in parcel.items():
        path = os.path.join(folder, name)
        if os.path.exists(path):
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with renamed(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
