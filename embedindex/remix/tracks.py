"""Tracks of library files: small ones of all, exact ones of short files; made when first asked for, and kept.

Conventions: a region is a stretch of a file's track, in frames from the file's start (see `frames`). Files up to
`EXACT_UP_TO_S` have exact tracks, kept in memory as long as there is room; of longer ones only the small track is used,
always, so that what was kept from before makes no difference to what is chosen.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from embedindex.audio import AudioReader
from embedindex.records import FileRecord
from embedindex.remix.coarse import CoarseStore, CoarseTrack, grow, shrink
from embedindex.remix.frames import RATE, Track, describe_blocks

EXACT_UP_TO_S = 60.0
LIMIT_BYTES = 512 * 2**20

Kept = TypeVar("Kept")


class TrackCache:
    """The tracks of files.

    Args:
        kept: where small tracks are kept.
        limit_bytes: how much to keep in memory of each kind.
    """

    def __init__(self, kept: CoarseStore, limit_bytes: int = LIMIT_BYTES) -> None:
        self._kept = kept
        self._exact: _Recent[Track] = _Recent(limit_bytes)
        self._coarse: _Recent[CoarseTrack] = _Recent(limit_bytes)

    def coarse(self, record: FileRecord, first: int, last: int) -> tuple[int, Track]:
        """Return (first frame, track) for the frames `first` up to `last` of a file, told from its small track.

        Raises:
            AudioError: the file cannot be read.
        """
        key = record.content_hash or record.path
        small = self._coarse.get(key) or self._kept.get(key)
        if small is None:
            small = shrink(self._described(record))
            self._kept.put(key, small)
        self._coarse.put(key, small, small.cells.nbytes)
        return grow(small, first, last)

    def exact(self, record: FileRecord) -> Track | None:
        """Return the exact track of a whole file; None if it is too long to have one.

        Raises:
            AudioError: the file cannot be read.
        """
        return self._described(record) if (record.duration or 0.0) <= EXACT_UP_TO_S else None

    def _described(self, record: FileRecord) -> Track:
        key = record.content_hash or record.path
        found = self._exact.get(key)
        if found is None:
            found = describe_file(record.path)
            self._exact.put(key, found, found.frames.nbytes + found.fine_db.nbytes)
        return found


class _Recent(Generic[Kept]):
    """What was used last, up to so many bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bytes = limit_bytes, 0
        self._items: OrderedDict[bytes, tuple[Kept, int]] = OrderedDict()

    def get(self, key: bytes) -> Kept | None:
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: bytes, item: Kept, size: int) -> None:
        if key in self._items:
            return
        self._items[key] = (item, size)
        self._bytes += size
        while self._bytes > self._limit and len(self._items) > 1:
            _, (_, old) = self._items.popitem(last=False)
            self._bytes -= old


def describe_file(path: bytes) -> Track:
    """Return the exact track of a file.

    Raises:
        AudioError: the file cannot be read.
    """
    with AudioReader(path, sample_rate=RATE) as reader:
        return describe_blocks(reader.blocks())
