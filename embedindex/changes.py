"""What a scan has to do: the files on disk compared with the index, and what became of those that are not there.

Nothing here grows with the library beyond one bit a file: the list of work is kept in a private temporary database.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Optional, TypeAlias

from embedindex.archives import archive_of, is_in_archive
from embedindex.crawl import CrawlTrouble, Found, lies_in
from embedindex.errors import AudioError
from embedindex.file_stat import FileStat, file_stat
from embedindex.length_probe import Sample
from embedindex.opening import stat_path
from embedindex.records import FileRecord
from embedindex.remote_paths import is_remote

# (id, size, mtime_ns, status, missing_since, error_kind, device), as `Store.file_state` gives it.
FileState: TypeAlias = tuple[int, int, int, str, Optional[str], Optional[str], int]  # noqa: UP045 - evaluated on 3.10


@dataclass(frozen=True)
class Todo:
    """One file to look at.

    Attributes:
        number: its place in the list.
        path: the file.
        stat: what the crawl saw of it.
        known: the id under which the index knows the path, or None.
    """

    number: int
    path: bytes
    stat: FileStat
    known: int | None


class TodoList:
    """Files to look at, in an order that shows something of every folder early: first files first."""

    def __init__(self) -> None:
        # An empty name is SQLite's for a private database that spills to disk and vanishes when closed.
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(
            "CREATE TABLE todo (number INTEGER PRIMARY KEY, rank INTEGER, path BLOB, size INTEGER, mtime_ns INTEGER,"
            " device INTEGER, inode INTEGER, known INTEGER)"
        )
        self._connection.execute("BEGIN")
        self.files = 0
        self.bytes = 0
        self.sample = Sample()

    def __enter__(self) -> TodoList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, found: Found, known: int | None) -> None:
        """Add a file."""
        stat = found.stat
        self._connection.execute(
            "INSERT INTO todo (rank, path, size, mtime_ns, device, inode, known) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (found.rank, found.path, stat.size, stat.mtime_ns, stat.device, stat.inode, known),
        )
        self.files += 1
        self.bytes += stat.size
        self.sample.add(found.path, stat.size)

    def __iter__(self) -> Iterator[Todo]:
        rows = self._connection.execute(
            "SELECT number, path, size, mtime_ns, device, inode, known FROM todo ORDER BY rank, number"
        )
        for number, path, size, mtime_ns, device, inode, known in rows:
            yield Todo(number, path, FileStat(size, mtime_ns, device, inode), known)


class IdSet:
    """A set of row ids, one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Put an id in."""
        byte = number >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 4096 - len(self._bits)))
        self._bits[byte] |= 1 << (number & 7)

    def discard(self, number: int) -> None:
        """Take an id out."""
        if number in self:
            self._bits[number >> 3] &= ~(1 << (number & 7))

    def __contains__(self, number: int) -> bool:
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & (1 << (number & 7)))


def looks_changed(found: Found, state: FileState) -> bool:
    """Return whether a file that the index knows has to be looked at again.

    Its size or time of change differ, or it could not be read before and may be now.
    """
    _, size, mtime_ns, status, _, error_kind, _ = state
    if (size, mtime_ns) != (found.stat.size, found.stat.mtime_ns):
        return True
    if status != "failed" or error_kind != "io":
        return False
    return is_remote(found.path) or os.access(archive_of(found.path) or found.path, os.R_OK)


def is_wanted(found: Found, files: int, limit: int | None, since_ns: int | None) -> bool:
    """Return whether a new or changed file goes on a list of so many files, or is left for another time.

    Args:
        found: the file.
        files: how many files are on the list.
        limit: how many may be; None for any number.
        since_ns: only files changed after this time (Unix, nanoseconds) are wanted; None for all.
    """
    changed_ns = max(found.stat.mtime_ns, found.archive_ns)
    return (limit is None or files < limit) and (since_ns is None or changed_ns > since_ns)


def is_gone(path: bytes) -> bool:
    """Return whether there is nothing of that name; a name that cannot be looked at is not gone."""
    if is_remote(path):
        return _is_gone_from_server(path)
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        try:
            return not is_in_archive(path)
        except AudioError:  # its archive is there, and cannot be read
            return False
    except OSError:
        return False
    return False


def _is_gone_from_server(path: bytes) -> bool:
    """Return whether a server says that there is nothing of that name; one that says nothing has everything."""
    try:
        stat_path(path)
    except FileNotFoundError:
        try:
            return not is_in_archive(path)
        except AudioError:
            return False
    except OSError:
        return False
    return False


def disk_is_there(path: bytes, device: int) -> bool:
    """Return whether the disk that held a file is still mounted where the file was.

    The nearest folder above it that exists must lie on the device that the file was on: an unmounted disk leaves its
    mount point behind, which lies on another.
    """
    folder = os.path.dirname(path)
    while True:
        try:
            return file_stat(folder).device == device
        except (FileNotFoundError, NotADirectoryError):
            above = os.path.dirname(folder)
            if above == folder:
                return False
            folder = above
        except OSError:
            return False


def was_moved(record: FileRecord) -> bool:
    """Return whether a file of the index is gone from its place for good, so that its content elsewhere is a move."""
    return is_gone(record.path) and disk_is_there(record.path, record.device)


def may_be_forgotten(path: bytes, device: int, root: bytes, trouble: CrawlTrouble) -> bool:
    """Return whether a file that a crawl did not meet was deleted, as opposed to out of sight.

    Out of sight: its folder, or one above it, could not be listed; its archive cannot be read; the root is empty; its
    disk is not mounted. Of what lies on a server, the server is asked file by file.
    """
    if any(lies_in(path, folder) for folder, _ in trouble.folders):
        return False
    if is_remote(path):
        return is_gone(path)
    if any(path == file for file, _ in trouble.files):
        return False
    return not _is_empty(root) and disk_is_there(path, device) and not _is_in_damaged_archive(path)


def _is_in_damaged_archive(path: bytes) -> bool:
    try:
        is_in_archive(path)
    except AudioError:
        return True
    return False


def _is_empty(root: bytes) -> bool:
    try:
        with os.scandir(root) as listing:
            return next(listing, None) is None
    except NotADirectoryError:
        return False
    except OSError:
        return True
