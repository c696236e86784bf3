"""The one door to the files of a library, on this machine or on a server: what is under a name, and its bytes.

Nothing here waits for a file of this machine, follows a pipe or trusts a name. Paths may be bytes.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable

from embedindex.errors import ServerAwayError, UnreadableFileError
from embedindex.remote import RemoteEntry, list_remote, open_remote, remote_stat
from embedindex.remote_paths import is_remote
from embedindex.remote_server import ServerSilentError
from embedindex.slow_answers import Asking

# (offset, bytes) of the containers of sound and films that have a signature worth the name.
_SIGNATURES = (
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"ID3"),
    (0, b".snd"),
    (0, b"caff"),
    (0, b"wvpk"),
    (0, b"TTA1"),
    (0, b"MAC "),
    (0, b"MPCK"),
    (0, b"MP+"),
    (0, b"tBaK"),
    (0, b"DSD "),
    (0, b"FRM8"),
    (0, b"#!AMR"),
    (0, b".RMF"),
    (0, b".ra\xfd"),
    (0, b"FLV\x01"),
    (0, b"Creative Voice File"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF: WMA
    (0, b"riff\x2e\x91\xcf\x11"),  # Wave64
    (0, b"\x7f\xfe\x80\x01"),  # DTS
    (4, b"ftyp"),
    (8, b"WAVE"),
    (8, b"AIFF"),
    (8, b"AIFC"),
    (8, b"AVI "),
)


def stat_path(path: str | bytes | os.PathLike[str]) -> os.stat_result:
    """Return the stat of a file or folder, links followed.

    Raises:
        OSError: the file system or the server refused it; `ServerSilentError` when that does not answer.
    """
    with Asking(os.fsencode(path)):
        return remote_stat(os.fsencode(path)) if is_remote(path) else os.stat(path)


def is_regular_file(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path leads to a regular file."""
    return _is_kind(path, stat.S_ISREG) if is_remote(path) else os.path.isfile(path)


def is_real_folder(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path leads to a folder, as opposed to an archive or a folder in one."""
    return _is_kind(path, stat.S_ISDIR) if is_remote(path) else os.path.isdir(path)


def _is_kind(path: str | bytes | os.PathLike[str], kind: Callable[[int], bool]) -> bool:
    try:
        return kind(stat_path(path).st_mode)
    except OSError:
        return False


def entries_of(folder: bytes) -> list[os.DirEntry[bytes]] | list[RemoteEntry]:
    """Return what is in a folder, by name.

    Raises:
        OSError: the file system or the server refused it.
    """
    with Asking(folder):
        if is_remote(folder):
            return list_remote(folder)
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)


def stat_entry(entry: os.DirEntry[bytes] | RemoteEntry) -> os.stat_result:
    """Return the stat of what a folder holds, links not followed.

    Raises:
        OSError: the file system or the server refused it.
    """
    with Asking(entry.path):
        return entry.stat(follow_symlinks=False)


def open_regular_file(path: str | bytes | os.PathLike[str]) -> io.RawIOBase:
    """Open a regular file for reading from any place, one of this machine without ever waiting for it.

    Raises:
        UnreadableFileError: it is missing, forbidden, a folder, a pipe, a device… A pipe would block for ever.
        AudioLimitError: it lies on a server, and is too long to be fetched.
    """
    if is_remote(path):
        try:
            return open_remote(os.fsencode(path))
        except OSError as error:
            raise unreadable(path, error) from error
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableFileError(path, f"no file can have that name ({error})") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise UnreadableFileError(path, f"it is {what}; give an audio file")
        return io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def unreadable(path: str | bytes | os.PathLike[str], error: OSError) -> UnreadableFileError:
    """Return the error to raise for a failed call to the operating system."""
    if isinstance(error, ServerSilentError):
        return ServerAwayError(path, f"{error.strerror}; try again when it does")
    why = (error.strerror or type(error).__name__).lower()
    return UnreadableFileError(
        path, f"cannot be read ({why}); check that the file is there, readable, and its disk well"
    )


def has_audio_signature(head: bytes) -> bool:
    """Return whether `head`, the first bytes of a file, open with the signature of an audio or film container."""
    return any(head.startswith(signature, offset) for offset, signature in _SIGNATURES)
