"""The candidates of all units of a seed, laid away: in memory while they are few, those of a long seed in a file.

An hour has ten thousand units with a hundred candidates each. What looks for a path needs those of two units at a time.

Conventions: the file is a temporary one (`TMPDIR`) that has no name and goes with the last shelf that reads it.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from embedindex.errors import DiskFullError, display_path
from embedindex.remix.qualities import EDGE_WIDTH
from embedindex.remix.stretches import Candidates

IN_MEMORY_BYTES = 16 * 2**20  # about seven minutes of units of a quarter of a second
ROW = np.dtype(
    [
        ("files", "<i8"),
        ("starts", "<i8"),
        ("lengths", "<i8"),
        ("costs", "<f4"),
        ("similarity", "<f4"),
        ("level", "<f4"),
        ("first", "<f2", EDGE_WIDTH),
        ("last", "<f2", EDGE_WIDTH),
    ]
)


class _Pages:
    """Bytes that are written once, at the end, and read anywhere, by any thread."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - closed when nobody reads it
        self._length = 0
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def write(self, data: bytes) -> int:
        """Return where they begin."""
        with self._lock:
            begin = self._length
            try:
                self._file.seek(begin)
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                raise DiskFullError(
                    f"{display_path(tempfile.gettempdir())}: what may sound in a long remix cannot be laid away there "
                    f"({(error.strerror or str(error)).lower()}); free some space, or name another folder in TMPDIR"
                ) from error
            self._length += len(data)
        return begin

    def read(self, begin: int, length: int) -> bytes:
        """Return what was written there."""
        with self._lock:
            self._file.seek(begin)
            return self._file.read(length)


class Shelf:
    """The candidates of units, by the units' numbers.

    Args:
        pages: what other shelves have been laid on; None for new ones.
        places: (begin, count) of each unit's rows there.
    """

    def __init__(self, pages: _Pages | None = None, places: Iterable[tuple[int, int]] = ()) -> None:
        self._pages = pages or _Pages()
        self._places = list(places)

    def append(self, found: Candidates) -> None:
        """Lay away the next unit's.

        Raises:
            DiskFullError: there is no room for them.
        """
        self._places.append(self._written(found))

    def _written(self, found: Candidates) -> tuple[int, int]:
        rows = np.zeros(len(found), ROW)
        for name in ROW.names or ():
            rows[name] = getattr(found, name)
        return self._pages.write(rows.tobytes()), len(found)

    def in_order(self, units: Iterable[int]) -> Shelf:
        """Return the same candidates as those of other units, some of them perhaps more than once."""
        return Shelf(self._pages, (self._places[unit] for unit in units))

    def changed(self, changes: Mapping[int, Candidates]) -> Shelf:
        """Return a shelf on which some units have other candidates."""
        other = Shelf(self._pages, self._places)
        for unit, found in changes.items():
            other._places[unit] = self._written(found)
        return other

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, unit: int) -> Candidates:
        begin, count = self._places[unit]
        rows = np.frombuffer(self._pages.read(begin, count * ROW.itemsize), ROW)
        return Candidates(*(np.ascontiguousarray(rows[name]) for name in Candidates.__dataclass_fields__))

    def __iter__(self) -> Iterator[Candidates]:
        return (self[unit] for unit in range(len(self)))
