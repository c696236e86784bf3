"""Talking to a server through the library fsspec: how long it may take, what is tried again, and what errors mean.

Conventions: whatever a protocol's library raises comes out as one of a few errors of the system: `FileNotFoundError`
and `PermissionError` are the server's own word, `ServerSilentError` says that it does not answer, which tells nothing
of what is on it. Any other `OSError` is about one file. Nothing here writes to a server.
"""

from __future__ import annotations

import atexit
import errno
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from embedindex.errors import EmbedindexError, RemoteError, UsageError, display_path
from embedindex.remote_paths import WEB, server_of, split_remote

# How long one question may take; a listing may be of a million names.
CALL_S = 12.0
LIST_S = 300.0
# A server that answered before is waited for; one that never did, hardly.
PATIENCE_VARIABLE = "EMBEDINDEX_PATIENCE"
PATIENCE_S = 120.0
FIRST_PATIENCE_S = 2.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# What fails so often while the server answers is the file's own trouble.
TRIES = 3
# How long a server that was given up is not asked again.
AWAY_S = 30.0

_SFTP = {"known_hosts": (), "keepalive_interval": 10, "login_timeout": 10}  # sshfs would trust any host
_WEB = {"encoded": True}
# What libraries are told where the user's own fsspec configuration says nothing else.
_OPTIONS: dict[bytes, dict[str, Any]] = {
    b"s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}},
    b"sftp": _SFTP,
    b"ssh": _SFTP,
    b"smb": {"share_access": "rwd", "timeout": 10, "register_session_retries": 0},
    b"http": _WEB,
    b"https": _WEB,
}
_EXTRAS = {b"s3": "s3", b"s3a": "s3", b"sftp": "sftp", b"ssh": "sftp", b"smb": "smb"}
# What libraries call a refusal, where they do not say it in the system's words.
_REFUSALS = frozenset(
    (
        "AccessDenied",
        "HostKeyNotVerifiable",
        "LogonFailure",
        "NoCredentialsError",
        "PartialCredentialsError",
        "PermissionDenied",
        "ProfileNotFound",
        "SFTPPermissionDenied",
        "SMBAuthenticationError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    )
)

T = TypeVar("T")


class ServerSilentError(ConnectionError):
    """A server does not answer, or no sense is to be made of what it says. `strerror` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EHOSTUNREACH, f"its server does not answer: {reason}")


_alive: Callable[[], None] = lambda: None  # noqa: E731 - replaced as a whole
_servers: dict[bytes, Server] = {}
_making = threading.Lock()


def while_waiting(alive: Callable[[], None]) -> None:
    """Have `alive` called about every second while this process waits for a server."""
    global _alive
    _alive = alive


def server(path: bytes) -> Server:
    """Return the server that a path lies on; nothing is asked of it yet."""
    name = server_of(path)
    with _making:
        if name not in _servers:
            _servers[name] = Server(name)
        return _servers[name]


class Server:
    """One server, or bucket.

    Args:
        name: its URL, ``scheme://host``.
    """

    def __init__(self, name: bytes) -> None:
        self.name = name
        self._scheme = split_remote(name)[0]
        self._opened: tuple[Any, str] | None = None
        self._has_answered = False
        self._away: tuple[float, ServerSilentError] | None = None

    def ask(self, path: bytes, question: Callable[[Any, str], T], seconds: float | None = None) -> T:
        """Return the answer to a question about a path; asks again, after longer and longer pauses.

        Args:
            path: what it is about.
            question: is given the fsspec file system, and the path as that has it.
            seconds: how long an answer may take; None for `CALL_S`.

        Raises:
            FileNotFoundError: the server says that there is nothing of that name.
            PermissionError: it refuses.
            ServerSilentError: it does not answer.
            OSError: it answers, but not about this path.
            RemoteError: what talks to it is not installed.
        """
        if self._away is not None and time.monotonic() < self._away[0]:
            raise self._away[1]
        if self._opened is None:
            _load_library(self._scheme, self.name)
        started, pause_s, tries = time.monotonic(), FIRST_PAUSE_S, 0
        while True:
            try:
                answer = _within(CALL_S if seconds is None else seconds, lambda: question(*self._files(path)))
            except EmbedindexError:
                raise
            except Exception as error:  # libraries raise what they like
                real = _real_error(error, self._scheme)
                plain = _in_the_systems_words(real)
                if plain is not None:
                    self._answered()
                    raise plain from error
                reason = _reason(real)
            else:
                self._answered()
                return answer
            tries += 1
            self._opened = None  # its connection may be dead
            if tries == TRIES and self._answers():
                raise OSError(errno.EIO, f"failed {TRIES} times: {reason}")
            waited_s = time.monotonic() - started
            if waited_s + pause_s > (patience_s() if self._has_answered else FIRST_PATIENCE_S):
                away = ServerSilentError(reason)
                self._away = (time.monotonic() + AWAY_S, away)
                raise away
            _pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _answered(self) -> None:
        self._has_answered, self._away = True, None

    def _answers(self) -> bool:
        """Return whether the server says anything at all, be it that there is nothing."""
        try:
            _within(CALL_S, lambda: _info(*self._files(self.name)))
        except Exception as error:  # noqa: BLE001 - as in `ask`
            return _in_the_systems_words(_real_error(error, self._scheme)) is not None
        return True

    def _files(self, path: bytes) -> tuple[Any, str]:
        """Return (fsspec's file system of the server, a path as that has it). Connects where that is to be done."""
        if self._opened is None:
            self._opened = _open_file_system(self._scheme, self.name)
        files, top = self._opened
        if self._scheme in WEB:
            return files, os.fsdecode(path)
        return files, top.rstrip("/") + os.fsdecode(path[len(self.name) :]) or "/"


def _info(files: Any, inner: str) -> object:
    return files.info(inner)


def patience_s() -> float:
    """Return how many seconds a server that went away is waited for."""
    try:
        return float(os.environ.get(PATIENCE_VARIABLE, PATIENCE_S))
    except ValueError:
        raise UsageError(f"{PATIENCE_VARIABLE} must be a number of seconds, for example 120") from None


def _load_library(scheme: bytes, name: bytes) -> None:
    """Import what talks to a kind of server: that may take a while, and is not the server's fault.

    Raises:
        RemoteError: it is not installed, or there is none.
    """
    shown, extra, protocol = display_path(name), _EXTRAS.get(scheme), scheme.decode()
    try:
        import fsspec

        if extra == "sftp":
            import sshfs  # noqa: F401 - fsspec's own SFTP would trust any host
        fsspec.get_filesystem_class(protocol)
        if extra == "smb":  # it would say good-bye at the end, to a server that may be gone
            import smbclient

            atexit.unregister(smbclient.reset_connection_cache)
    except ImportError as error:
        missing = "pip install fsspec" if error.name == "fsspec" else str(error)
        how = f"pip install 'embedindex[{extra}]'" if extra else missing
        raise RemoteError(f"{shown}: what reads from there is not installed; {how}") from error
    except ValueError as error:
        raise RemoteError(f"{shown}: nothing here knows {protocol}://; use s3, sftp, smb or http") from error


def _open_file_system(scheme: bytes, name: bytes) -> tuple[Any, str]:
    import fsspec
    from fsspec.config import conf

    options = {**_OPTIONS.get(scheme, {}), **conf.get(scheme.decode(), {}), "skip_instance_cache": True}
    files, top = fsspec.core.url_to_fs(os.fsdecode(name) + "/", **options)
    return files, str(top)


def _within(seconds: float, action: Callable[[], T]) -> T:
    """Return what an action returns, or raise what it raises; not all libraries have time limits of their own.

    Raises:
        TimeoutError: it did not end in time. Its thread is left behind.
    """
    ended: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def act() -> None:
        try:
            ended.put((True, action()))
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            ended.put((False, error))

    threading.Thread(target=act, name="server", daemon=True).start()
    ends = time.monotonic() + seconds
    while True:
        try:
            done, outcome = ended.get(timeout=max(0.0, min(1.0, ends - time.monotonic())))
        except queue.Empty:
            _alive()
            if time.monotonic() >= ends:
                raise TimeoutError(f"no answer within {seconds:g} seconds") from None
            continue
        if not done:
            raise outcome
        answer: T = outcome
        return answer


def _pause(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        _alive()


def _real_error(error: BaseException, scheme: bytes) -> BaseException:
    """Return what went wrong: of web servers, fsspec says of everything that there is no such file."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None and scheme in WEB:
        return error.__cause__
    return error


def _in_the_systems_words(error: BaseException) -> OSError | None:
    """Return a server's own word about a path as an error of the system; None where it is no such word."""
    kind, status, number = type(error).__name__, getattr(error, "status", None), getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError) or number == errno.ENOENT or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if isinstance(error, NotADirectoryError):
        return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if (
        isinstance(error, PermissionError)
        or number in (errno.EACCES, errno.EPERM)
        or status in (401, 403, 407)
        or kind in _REFUSALS
    ):
        return PermissionError(errno.EACCES, f"the server refuses access: {_reason(error)}")
    return None


def _reason(error: BaseException) -> str:
    """Return the first line of what a library says, at most 200 characters."""
    text = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0]
    return display_path(text[:200]) or type(error).__name__
