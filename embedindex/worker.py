"""One worker process of a scan: receives paths, hashes and embeds them, reports. It never touches the index.

Protocol over one pipe, all messages tuples: the parent sends ``(path,)``; the worker answers ``("hashed", digest,
stat)``; the parent says True (embed) or False (drop); the worker sends ``("alive",)`` while it works and ends with
``("done", Embedded)``, ``("failed", Failed)`` or ``("dropped",)``. Before the first task it sends ``("ready",
fingerprint)``; ``("broken", error)`` says that the model cannot be used. A closed pipe ends the process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from embedindex.crawl import RECHECK, FileStat, file_stat
from embedindex.embed import FileEmbedding, embed_file, hash_content
from embedindex.errors import AudioError, EmbedindexError, ModelError, UnreadableFileError
from embedindex.models import Model, ModelRequest, load_model

ALIVE_EVERY_S = 1.0
# A file changed less than this before it was read may change again without its time stamp showing it: kernels stamp
# with the clock of the last tick, and file systems that keep whole seconds (FAT: two) show even less.
RACY_NS = 20_000_000
RACY_COARSE_NS = 2_000_000_000


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know at its start.

    Attributes:
        request: the model to load.
        hop_s: seconds between the starts of two windows.
        max_duration_s: longest sound that is accepted.
        niceness: added to the process's niceness (0 to 19).
        memory_bytes: limit of the process's own memory, 0 for none.
    """

    request: ModelRequest
    hop_s: float
    max_duration_s: float
    niceness: int = 5
    memory_bytes: int = 4 * 2**30


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


def _quieten() -> None:
    """Keep the remarks that libmpg123 writes about damaged files off the terminal; Python's own still go there."""
    null = os.open(os.devnull, os.O_WRONLY)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(null, 2)
    os.close(null)


def _limit_process(setup: WorkerSetup, parent: int) -> None:
    """Make the process polite and mortal: nice, bounded, without core dumps, gone when its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if setup.niceness and hasattr(os, "nice"):
        os.nice(setup.niceness)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if setup.memory_bytes and sys.platform == "linux":
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            limit = setup.memory_bytes if hard == resource.RLIM_INFINITY else min(setup.memory_bytes, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def work(connection: Connection, setup: WorkerSetup, parent: int) -> None:
    """Be a worker until the pipe closes; the target of the process."""
    _limit_process(setup, parent)
    _quieten()
    with contextlib.suppress(BrokenPipeError, EOFError, ConnectionResetError):  # the parent is gone: so are we
        try:
            model = load_model(setup.request)
        except EmbedindexError as error:
            connection.send(("broken", error))
            return
        connection.send(("ready", model.identity.fingerprint))
        while True:
            (path,) = connection.recv()
            send_message(connection, _one_file(path, connection, setup, model))


def send_message(connection: Connection, message: tuple[object, ...]) -> None:
    """Send a message whose arrays go as they lie in memory: `Connection.send` would copy them twice."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, 5, buffer_callback=buffers.append)
    connection.send(("large", data, len(buffers)))
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def receive_message(connection: Connection) -> tuple[Any, ...]:
    """Return the next message, whether it came from `send_message` or from `Connection.send`."""
    message: tuple[Any, ...] = connection.recv()
    if message[0] != "large":
        return message
    _, data, count = message
    whole: tuple[Any, ...] = pickle.loads(data, buffers=[connection.recv_bytes() for _ in range(count)])  # noqa: S301
    return whole


def _one_file(path: bytes, connection: Connection, setup: WorkerSetup, model: Model) -> tuple[object, ...]:
    alive = _heartbeat(connection)
    before: FileStat | None = None
    digest: bytes | None = None
    try:
        try:
            before = file_stat(path)
        except OSError as error:
            raise UnreadableFileError(path, f"cannot be read ({error.strerror or error})") from error
        read_at_ns = time.time_ns()
        digest = hash_content(path, alive)
        connection.send(("hashed", digest, trusted_stat(before, _stat_after(path, before), read_at_ns)))
        if not connection.recv():
            return ("dropped",)
        embedding = embed_file(
            path, model, setup.hop_s, content_hash=digest, max_duration_s=setup.max_duration_s, alive=alive
        )
        after = trusted_stat(before, _stat_after(path, before), read_at_ns)
        if after.mtime_ns == RECHECK and after.size != before.size:
            raise UnreadableFileError(path, "changed while it was read; the next scan will read it again")
        return ("done", Embedded(after, embedding))
    except AudioError as error:
        return ("failed", Failed(error.kind, error.reason, before, digest))
    except ModelError as error:
        return ("broken", error)
    except MemoryError:
        return ("failed", Failed("memory", "needs more memory than a worker may use", before, digest))
    except (BrokenPipeError, EOFError, ConnectionResetError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises is that file's error, not the scan's end
        reason = f"made the decoder fail in an unexpected way ({type(error).__name__}: {error})"
        return ("failed", Failed("unexpected", reason[:500], before, digest))


def _stat_after(path: bytes, before: FileStat) -> FileStat:
    try:
        return file_stat(path)
    except OSError:  # it went while it was read; the next scan will see
        return FileStat(before.size, RECHECK, before.device, before.inode)


def _heartbeat(connection: Connection) -> Callable[[], None]:
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= ALIVE_EVERY_S:
            last = now
            connection.send(("alive",))

    return alive
