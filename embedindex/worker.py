"""One worker process of a scan: receives paths, hashes and embeds them, reports. It never touches the index.

Protocol over one pipe, all messages tuples. The parent sends ``(task, path)``, some of them ahead; the worker answers
``("hashed", [(task, digest, stat), …])``, several small files together; the parent says True (embed) or False (drop) of
each in turn. The worker sends ``("alive",)`` while it works and ends a task with ``("done", task, Embedded)``,
``("failed", task, Failed)`` or ``("dropped", task)``. Before the first it sends ``("ready", fingerprint)``;
``("broken", error)`` says that the model cannot be used. A closed pipe ends the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from ctypes import Array, c_int64
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import numpy as np

from embedindex.archives import archive_of
from embedindex.child_process import limit_process
from embedindex.embed import FileEmbedding, FileWindows, VectorRows, hash_content
from embedindex.errors import AudioError, EmbedindexError, ModelError, UnreadableFileError
from embedindex.file_stat import RECHECK, FileStat, file_stat
from embedindex.messages import GONE, send_message
from embedindex.models import Model, ModelRequest, load_model
from embedindex.models.base import TwoStepModel
from embedindex.models.remote import ANSWER_S, RemoteModel
from embedindex.opening import unreadable
from embedindex.quiet import quieten_libraries
from embedindex.read_ahead import AtWork, Broke, Embedder, End, Item, Waiting, put_file
from embedindex.remote import KEPT_BY_WORKER_BYTES, has_content_tag, keep
from embedindex.remote_paths import is_remote
from embedindex.remote_server import ServerSilentError, while_waiting

ALIVE_EVERY_S = 1.0
# A file changed less than this before it was read may change again without its time stamp showing it: kernels stamp
# with the clock of the last tick, and file systems that keep whole seconds (FAT: two) show even less.
RACY_NS = 20_000_000
RACY_COARSE_NS = 2_000_000_000
# Files that are here are hashed together up to so many bytes: what to do with them is asked once.
TOGETHER_BYTES = 2**20


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know at its start.

    Attributes:
        request: the model to load.
        hop_s: seconds between the starts of two windows.
        max_duration_s: longest sound that is accepted.
        niceness: added to the process's niceness (0 to 19).
        memory_bytes: limit of the process's own memory, 0 for none.
        device: what computes the model's network, as `models.devices.find_devices` understands it.
        answer_s: seconds after which a device that does not answer is given up.
    """

    request: ModelRequest
    hop_s: float
    max_duration_s: float
    niceness: int = 5
    memory_bytes: int = 4 * 2**30
    device: str = "cpu"
    answer_s: float = ANSWER_S


@dataclass(frozen=True)
class Embedded:
    """A file's vectors, and the stat to remember it by."""

    stat: FileStat
    embedding: FileEmbedding


@dataclass(frozen=True)
class Failed:
    """Why a file has no vectors. `stat` and `content_hash` are None where it did not get so far."""

    kind: str
    reason: str
    stat: FileStat | None = None
    content_hash: bytes | None = None


@dataclass(frozen=True)
class _Known:
    """A file of which the content hash is known: `before` is its stat before it was read, at `read_at_ns`."""

    task: int
    path: bytes
    before: FileStat
    read_at_ns: int
    digest: bytes
    stat: FileStat


def _read_at_ns(path: bytes) -> int:
    """Return the clock for `trusted_stat`; after all times where a file's time holds its CRC-32 or ETag."""
    tells = archive_of(path) is not None or (is_remote(path) and has_content_tag(path))
    return 2**63 - 1 if tells else time.time_ns()


def trusted_stat(before: FileStat, after: FileStat, read_at_ns: int) -> FileStat:
    """Return the stat to remember a file by, with `RECHECK` as its time when its bytes may be newer than what was read.

    Args:
        before: stat before its bytes were read.
        after: stat after.
        read_at_ns: the clock (Unix time, nanoseconds) when reading began.
    """
    margin = RACY_COARSE_NS if before.mtime_ns % 1_000_000_000 == 0 else RACY_NS
    racy = before.mtime_ns > read_at_ns - margin
    if racy or (before.size, before.mtime_ns) != (after.size, after.mtime_ns):
        return FileStat(after.size, RECHECK, after.device, after.inode)
    return after


def work(
    connection: Connection, setup: WorkerSetup, parent: int, memory: Array[c_int64], server: str | None = None
) -> None:
    """Be a worker until the pipe closes; the target of the process. `server` computes the model's network, if any."""
    limit_process(parent, setup.niceness, setup.memory_bytes)
    quieten_libraries()
    with contextlib.suppress(*GONE):  # the parent is gone: so are we
        try:
            model = load_model(setup.request)
            if server is not None:
                model = RemoteModel(cast("TwoStepModel", model), server, answer_s=setup.answer_s)
            else:
                _begin(model)
        except EmbedindexError as error:
            connection.send(("broken", error))
            return
        connection.send(("ready", model.identity.fingerprint))
        try:
            _Worker(connection, setup, model, AtWork(memory)).run()
        except ModelError as error:
            connection.send(("broken", error))


def _begin(model: Model) -> None:
    """Have a model make all that it needs; for a moment, some take twice the memory, which no sound shares yet."""
    tone = 0.1 * np.sin(0.1 * np.arange(model.identity.window_samples, dtype=np.float32))
    model.embed(np.asarray(tone[None], np.float32))


class _Pipe:
    """The worker's end of the pipe, for its two threads: one receives, both send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._tasks: deque[tuple[int, bytes]] = deque()
        self._answers: deque[bool] = deque()
        self._last = time.monotonic()

    def send(self, message: tuple[object, ...]) -> None:
        with self._sending:
            send_message(self._connection, message)

    def alive(self) -> None:
        """Say now and then that work goes on."""
        now = time.monotonic()
        if now - self._last >= ALIVE_EVERY_S:
            self._last = now
            self.send(("alive",))

    def task(self) -> tuple[int, bytes]:
        """Return the next task; waits for one."""
        while not self._tasks:
            self._receive()
        return self._tasks.popleft()

    def has_task(self) -> bool:
        """Return whether a task is here."""
        while not self._tasks and self._connection.poll():
            self._receive()
        return bool(self._tasks)

    def answer(self) -> bool:
        """Return the parent's answer to the first hash that has none yet; waits for it."""
        while not self._answers:
            self._receive()
        return self._answers.popleft()

    def _receive(self) -> None:
        message = self._connection.recv()
        if isinstance(message, bool):
            self._answers.append(message)
        else:
            self._tasks.append(message)


class _Worker:
    """The two threads: this one asks the model, the other reads ahead."""

    def __init__(self, connection: Connection, setup: WorkerSetup, model: Model, at_work: AtWork) -> None:
        self._pipe = _Pipe(connection)
        self._setup = setup
        self._model = model
        self._at_work = at_work
        self._waiting = Waiting()
        self._paths: dict[int, bytes] = {}

    def run(self) -> None:
        """Work until the pipe closes."""
        while_waiting(self._pipe.alive)
        keep(KEPT_BY_WORKER_BYTES)
        threading.Thread(target=self._read_ahead, name="read-ahead", daemon=True).start()
        Embedder(
            self._model,
            self._at_work,
            self._paths,
            done=lambda end, rows: self._pipe.send(("done", end.task, _done(end, rows))),
            failed=lambda task, error: self._pipe.send(("failed", task, _failure(error))),
            send=self._pipe.send,
            alive=self._pipe.alive,
        ).run(self._waiting)

    def _read_ahead(self) -> None:
        try:
            while True:
                files = self._next_files()
                self._pipe.send(("hashed", [(file.task, file.digest, file.stat) for file in files]))
                for file in files:
                    self._waiting.put(self._one_file(file))
        except GONE:
            self._waiting.put(None)

    def _next_files(self) -> list[_Known]:
        """Hash the next file, waiting for one, and with it those that are here while they are small together."""
        files: list[_Known] = []
        size = 0
        while not files or (size < TOGETHER_BYTES and self._pipe.has_task()):
            task, path = self._pipe.task()
            self._paths[task] = path
            file = self._hashed(task, path)
            if isinstance(file, Broke):
                self._waiting.put(file)
                continue
            files.append(file)
            size += file.before.size
        return files

    def _hashed(self, task: int, path: bytes) -> _Known | Broke:
        before: FileStat | None = None
        try:
            with self._at_work.reading(task):
                try:
                    before = file_stat(path)
                except ServerSilentError as error:
                    raise unreadable(path, error) from error
                except OSError as error:
                    raise UnreadableFileError(path, f"cannot be read ({error.strerror or error})") from error
                read_at_ns = _read_at_ns(path)
                digest = hash_content(path, self._pipe.alive)
                stat = trusted_stat(before, _stat_after(path, before), read_at_ns)
        except GONE:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised is that file's error, not the scan's end
            return Broke(task, ("failed", task, _failure(error, before)))
        return _Known(task, path, before, read_at_ns, digest, stat)

    def _one_file(self, file: _Known) -> Item:
        """Put a file's windows, if it is wanted, where the model's thread finds them."""
        if not self._pipe.answer():
            return Broke(file.task, ("dropped", file.task))
        path, before = file.path, file.before
        try:
            identity = self._model.identity
            sound = FileWindows(path, identity, self._setup.hop_s, self._setup.max_duration_s, self._pipe.alive)
            put_file(self._waiting, self._at_work, file.task, sound.batches())
            after = trusted_stat(before, _stat_after(path, before), file.read_at_ns)
            if after.mtime_ns == RECHECK and after.size != before.size:
                raise UnreadableFileError(path, "changed while it was read; the next scan will read it again")
            return End(file.task, sound, file.digest, after)
        except GONE:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is that file's error, not the scan's end
            return Broke(file.task, ("failed", file.task, _failure(error, before, file.digest)))


def _done(end: End, rows: VectorRows) -> Embedded:
    return Embedded(end.stat, end.sound.embedding(end.content_hash, rows))


def _failure(error: Exception, stat: FileStat | None = None, digest: bytes | None = None) -> Failed:
    """Return what to say of a file that led to an error."""
    if isinstance(error, AudioError):
        return Failed(error.kind, error.reason, stat, digest)
    if isinstance(error, MemoryError):
        return Failed("memory", "needs more memory than a worker may use", stat, digest)
    reason = f"made the decoder fail in an unexpected way ({type(error).__name__}: {error})"
    return Failed("unexpected", reason[:500], stat, digest)


def _stat_after(path: bytes, before: FileStat) -> FileStat:
    try:
        return file_stat(path)
    except OSError:  # it went while it was read; the next scan will see
        return FileStat(before.size, RECHECK, before.device, before.inode)
