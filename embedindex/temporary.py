"""Nameless temporary files, and parts of files as files of their own.

A temporary file has no name, so that nothing is left of it when its process ends, however it ends.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from typing import Any, Protocol, runtime_checkable


class Temporary(io.FileIO):
    """A temporary file without a name, closed when nothing refers to it."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as made:
            super().__init__(os.dup(made.fileno()), "r+")

    def __del__(self) -> None:
        self.close()


def write_all(target: io.FileIO, data: bytes) -> None:
    """Write bytes at a file's position, all of them.

    Raises:
        OSError: there is no room.
    """
    written = 0
    while written < len(data):
        written += target.write(memoryview(data)[written:]) or 0


@runtime_checkable
class InParts(Protocol):
    """A file that gives its parts without a position."""

    def part(self, place: int, size: int) -> bytes:
        """Return bytes from a place; fewer where it pleases, none behind the end only."""
        ...


class Stretch(io.RawIOBase):
    """A part of a file, as a file of its own; several may read from one at a time.

    Args:
        file: the whole file; a descriptor, or a stretch itself.
        start: where the part begins.
        size: how long it is; what lies behind the file's end is missing.
        owned: whether the file is closed with it.
    """

    def __init__(self, file: io.RawIOBase, start: int, size: int, *, owned: bool) -> None:
        self._file, self._start, self._size, self._owned = file, start, size, owned
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position; one behind the end is allowed."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer from the position on, as far as there is something."""
        data = self.part(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def part(self, place: int, size: int) -> bytes:
        """Return bytes from a place, fewer at the end; the position stays."""
        return read_at(self._file, self._start + place, min(size, max(0, self._size - place)))

    def close(self) -> None:
        """Close the whole file, too, where it is owned."""
        if self._owned:
            self._file.close()
        super().close()


def read_at(file: io.RawIOBase, place: int, size: int) -> bytes:
    """Return bytes from a place of a file, fewer at its end."""
    if hasattr(os, "pread") and isinstance(file, io.FileIO):  # Windows has none
        return os.pread(file.fileno(), size, place)
    if isinstance(file, InParts):
        return file.part(place, size)
    file.seek(place)
    return file.read(size) or b""
