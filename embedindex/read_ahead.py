"""The inside of a worker process: one thread reads files to their windows, ahead of the one that asks the model.

Decoders, resampling and the network let go of the interpreter while they work, so that a slow disk is not waited for.
Windows of short sounds go into the model together where it is none the worse for it (`mixes_sounds`). What is being
worked on stands in a piece of shared memory, `AtWork`, where the parent finds it after a crash or a hang.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import Array, c_int64
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from typing import TYPE_CHECKING

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.embed import BATCH_WINDOWS, FileWindows, VectorRows, WindowBatch
from embedindex.errors import AudioError, ModelError
from embedindex.models import Model
from embedindex.models.base import mixes_sounds

if TYPE_CHECKING:
    from embedindex.file_stat import FileStat

# Windows that may wait for the model: 26 MB of the longest ones there are (aisfx).
WAITING_WINDOWS = 64
NOTHING = -1


class AtWork:
    """Which tasks a worker is at, in memory that outlives it: one being read, and those in the model.

    Args:
        memory: as `shared` makes it.
    """

    def __init__(self, memory: Array[c_int64]) -> None:
        self._memory = memory

    @staticmethod
    def shared() -> Array[c_int64]:
        """Return memory to hand to a process at its start."""
        memory = RawArray(c_int64, 2 + WAITING_WINDOWS)
        memory[0] = NOTHING
        return memory

    @contextmanager
    def reading(self, task: int) -> Iterator[None]:
        """Say that a task's file is being read."""
        self._memory[0] = task
        try:
            yield
        finally:
            self._memory[0] = NOTHING

    @contextmanager
    def embedding(self, tasks: list[int]) -> Iterator[None]:
        """Say that windows of some tasks are in the model."""
        for place, task in enumerate(tasks, 2):
            self._memory[place] = task
        self._memory[1] = len(tasks)
        try:
            yield
        finally:
            self._memory[1] = 0

    def in_model(self) -> bool:
        """Return whether windows are in the model."""
        return self._memory[1] > 0

    def tasks(self) -> set[int]:
        """Return the tasks that the worker is, or was last, at."""
        reading, count, *tasks = self._memory[:]
        return {reading, *tasks[:count]} - {NOTHING}


@dataclass(frozen=True)
class Windows:
    """Windows of a task's file."""

    task: int
    batch: WindowBatch


@dataclass(frozen=True)
class End:
    """All windows of a task's file were read.

    Attributes:
        task: the task.
        sound: the file.
        content_hash: of its bytes.
        stat: to remember it by.
    """

    task: int
    sound: FileWindows
    content_hash: bytes
    stat: FileStat


@dataclass(frozen=True)
class Broke:
    """A task's file cannot be used, or is not wanted: the message to the parent."""

    task: int
    message: tuple[object, ...]


Item = Windows | End | Broke


class Waiting:
    """What was read and is not embedded yet, bounded by its windows."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(WAITING_WINDOWS)

    def put(self, item: Item | None) -> None:
        """Append an item, None for the end of all work; waits until there is room."""
        if isinstance(item, Windows):
            for _ in range(len(item.batch.sounding)):
                self._room.acquire()
        self._items.put(item)

    def get(self, most: int) -> list[Item | None]:
        """Return items of about `most` windows: waits for the first, takes the others if they are there."""
        items = [self._items.get()]
        windows = 0
        while True:
            item = items[-1]
            if isinstance(item, Windows):
                windows += len(item.batch.sounding)
            if item is None or windows >= most:
                break
            try:
                items.append(self._items.get_nowait())
            except queue.Empty:
                break
        if windows:
            self._room.release(windows)
        return items


class Embedder:
    """Turns what `Waiting` holds into messages to the parent.

    Args:
        model: the model.
        at_work: told what is in the model.
        paths: the file of each task in hand; those of finished ones are taken out.
        done: called with a file whose vectors are all there.
        failed: called with a task whose windows led to an error.
        send: sends the message of a `Broke`.
        alive: called after every call of the model.
    """

    def __init__(
        self,
        model: Model,
        at_work: AtWork,
        paths: dict[int, bytes],
        *,
        done: Callable[[End, VectorRows], None],
        failed: Callable[[int, Exception], None],
        send: Callable[[tuple[object, ...]], None],
        alive: Callable[[], None],
    ) -> None:
        self._model = model
        self._at_work = at_work
        self._paths = paths
        self._done = done
        self._failed = failed
        self._send = send
        self._alive = alive
        self._rows: dict[int, VectorRows] = {}
        self._lost: set[int] = set()  # tasks that failed here and are still being read
        self._most = BATCH_WINDOWS if mixes_sounds(model) else 1

    def run(self, waiting: Waiting) -> None:
        """Work until the end.

        Raises:
            ModelError: the model cannot be used.
        """
        while True:
            items = waiting.get(self._most)
            self._embed([item for item in items if isinstance(item, Windows)])
            for item in items:
                if item is None:
                    return
                if not isinstance(item, Windows):
                    self._finish(item)

    def _embed(self, items: list[Windows]) -> None:
        """Add the vectors of some windows to their files' rows; one file that the model fails on fails alone."""
        items = [item for item in items if item.task not in self._lost]
        if not items:
            return
        try:
            vectors = self._vectors(items)
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised is that file's error, not the scan's end
            if len(items) == 1:
                self._lose(items[0].task, error)
                return
            for item in items:
                self._embed([item])
            return
        self._alive()
        first = 0
        for item in items:
            count = len(item.batch.sounding)
            rows = self._rows.get(item.task)
            if rows is None:
                rows = self._rows[item.task] = VectorRows(self._paths[item.task], self._model.identity)
            try:
                rows.add(item.batch.loud, vectors[first : first + count] if count else None)
            except AudioError as error:
                self._lose(item.task, error)
            first += count

    def _vectors(self, items: list[Windows]) -> Float32Array:
        """Return the vectors of all sounding windows of some items, (k, dimension) float32."""
        sounding = [item.batch.sounding for item in items if len(item.batch.sounding)]
        if not sounding:
            return np.zeros((0, self._model.identity.dimension), np.float32)
        with self._at_work.embedding(list(dict.fromkeys(item.task for item in items))):
            return self._model.embed(sounding[0] if len(sounding) == 1 else np.concatenate(sounding))

    def _lose(self, task: int, error: Exception) -> None:
        self._rows.pop(task, None)
        self._lost.add(task)
        self._failed(task, error)

    def _finish(self, item: End | Broke) -> None:
        rows = self._rows.pop(item.task, None)
        path = self._paths.pop(item.task)
        if item.task in self._lost:
            self._lost.discard(item.task)
        elif isinstance(item, Broke):
            self._send(item.message)
        else:
            self._done(item, rows or VectorRows(path, self._model.identity))


def put_file(waiting: Waiting, at_work: AtWork, task: int, batches: Iterable[WindowBatch]) -> None:
    """Read a file's windows and put them where the model's thread finds them."""
    position = iter(batches)
    while True:
        with at_work.reading(task):
            batch = next(position, None)
        if batch is None:
            return
        waiting.put(Windows(task, batch))
