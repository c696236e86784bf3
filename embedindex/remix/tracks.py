"""Small tracks of library files: made in threads when first asked for, kept beside the index, and told by the region.

Conventions: a region is a stretch of a file's track, in frames from the file's start (see `frames`). Nothing else is
known of a file while choosing, so that what was kept from before makes no difference to what is chosen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

from embedindex.audio import AudioReader
from embedindex.errors import AudioError
from embedindex.file_stat import file_stat
from embedindex.records import FileRecord
from embedindex.remix.coarse import CoarseStore, CoarseTrack, grow, shrink
from embedindex.remix.frames import RATE, Track, describe_blocks
from embedindex.remix.threads import threads_for

LIMIT_BYTES = 64 * 2**20  # what is beyond is read again from where it is kept
BATCH = 256
BLOCK_S = 5.0  # of sound described at a time: what a thread holds of a long file

Told = Callable[[int, int], None]


def untold(done: int, total: int) -> None:
    """Report nothing."""
    del done, total


Stages = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much
LISTENING = "Listening to files for the first time"


def stages_untold(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class TrackCache:
    """The tracks of files.

    Args:
        kept: where they are kept.
        limit_bytes: how much to keep in memory.
    """

    def __init__(self, kept: CoarseStore, limit_bytes: int = LIMIT_BYTES) -> None:
        self._kept, self._limit, self._bytes = kept, limit_bytes, 0
        self._recent: OrderedDict[bytes, CoarseTrack] = OrderedDict()
        self._failed: dict[bytes, AudioError] = {}

    def coarse(self, record: FileRecord, first: int, last: int) -> tuple[int, Track]:
        """Return (first frame, track) for the frames `first` up to `last` of a file, told from its small track.

        Raises:
            AudioError: the file cannot be read.
        """
        return grow(self.small(record), first, last)

    def small(self, record: FileRecord) -> CoarseTrack:
        """Return the small track of a file.

        Raises:
            AudioError: the file cannot be read.
        """
        key = _key(record)
        if key in self._failed:
            raise self._failed[key]
        small = self._known(key)
        if small is None:
            small = describe_file(record.path)
            self._put(key, small)
        return small

    def fill(self, records: Iterable[FileRecord], told: Told = untold) -> None:
        """Make the tracks of those files that have none yet, several at a time; what fails is told by `coarse`.

        Args:
            records: files.
            told: called with (files done, files in all) after each one.
        """
        missing = {_key(record): record for record in records if not self._is_known(_key(record))}
        missing = {key: record for key, record in missing.items() if key not in self._failed and _is_there(record)}
        with ThreadPoolExecutor(threads_for(len(missing))) as threads:
            waiting = {threads.submit(describe_file, record.path): key for key, record in missing.items()}
            try:
                for done, future in enumerate(as_completed(waiting), 1):
                    try:
                        self._put(waiting[future], future.result())
                    except AudioError as error:
                        self._failed[waiting[future]] = error
                    told(done, len(waiting))
            finally:
                for future in waiting:
                    future.cancel()

    def fill_all(self, records: Iterable[FileRecord], total: int, told: Told = untold) -> None:
        """Make the tracks of very many files, `total` of them; what was made is kept when it is interrupted."""
        batches = iter(records)
        seen = 0
        while batch := list(islice(batches, BATCH)):
            before = seen
            self.fill(batch, lambda done, _, before=before: told(before + done, total))  # type: ignore[misc]
            seen += len(batch)
            told(seen, total)

    def _is_known(self, key: bytes) -> bool:
        return key in self._recent or self._kept.has(key)

    def _known(self, key: bytes) -> CoarseTrack | None:
        found = self._recent.get(key)
        if found is not None:
            self._recent.move_to_end(key)
            return found
        found = self._kept.get(key)
        if found is not None:
            self._remember(key, found)
        return found

    def _put(self, key: bytes, track: CoarseTrack) -> None:
        self._kept.put(key, track)
        self._remember(key, track)

    def _remember(self, key: bytes, track: CoarseTrack) -> None:
        self._recent[key] = track
        self._bytes += track.cells.nbytes
        while self._bytes > self._limit and len(self._recent) > 1:
            self._bytes -= self._recent.popitem(last=False)[1].cells.nbytes


def _key(record: FileRecord) -> bytes:
    return record.content_hash or record.path


def _is_there(record: FileRecord) -> bool:
    """Return whether a file still is what was scanned, as far as its length tells."""
    try:
        return file_stat(record.path).size == record.size
    except OSError:
        return False


def describe_file(path: bytes) -> CoarseTrack:
    """Return the small track of a file.

    Raises:
        AudioError: the file cannot be read.
    """
    with AudioReader(path, sample_rate=RATE, block_s=BLOCK_S) as reader:
        return shrink(describe_blocks(reader.blocks()))
