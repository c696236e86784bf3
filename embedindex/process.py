"""The middle of a scan: hash, and where needed embed, the files on a list, and write each into the store.

A file whose content the index knows already is moved or copied there instead of being decoded; two files with the same
content in hand at once are decoded once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from embedindex.changes import IdSet, Todo, TodoList, is_gone, was_moved
from embedindex.errors import ServerAwayError, display_path
from embedindex.file_stat import FileStat
from embedindex.length_probe import LengthProbe
from embedindex.progress import ScanSummary
from embedindex.records import FileRecord
from embedindex.remote_paths import is_remote, server_of
from embedindex.time_left import SoundLeft
from embedindex.worker import Embedded, Failed
from embedindex.workers import Finished, Hashed, Pool
from embedindex.writer import StoreWriter

WAIT_S = 0.25
MOVES_AT_ONCE = 1000
# What comes within this time is written in one transaction: a crash costs no more than that.
TOGETHER_S = 0.2
log = logging.getLogger(__name__)


class Processing:
    """The loop between the list of work, the workers and the store.

    Args:
        store: the index.
        pool: the workers.
        todo: the files to look at.
        seen: ids of files that are where the index says; what is written here is added.
        root_id: gives the id of the root that a path lies in.
        summary: is filled in.
        tell: called often with (files done, bytes done, a path in hand, what is known of the sound left, None while
            that is being found out).
        stop: asked often; True ends the work after the files in hand.
        max_load: no further file is begun while the load average is above this and another is in hand.
        lengths: looks into some of the files for their length; None to learn it as files are done.
        away: is filled with servers that do not answer any more, and why; their files are left for another time.
    """

    def __init__(
        self,
        store: StoreWriter,
        pool: Pool,
        todo: TodoList,
        *,
        seen: IdSet,
        root_id: Callable[[bytes], int],
        summary: ScanSummary,
        tell: Callable[[int, int, bytes, SoundLeft | None], None],
        stop: Callable[[], bool],
        max_load: float | None = None,
        lengths: LengthProbe | None = None,
        away: dict[bytes, str] | None = None,
    ) -> None:
        self.store = store
        self.pool = pool
        self.todo = iter(todo)
        self.sound = SoundLeft(todo.sample.sizes())
        self.lengths = lengths
        self.seen = seen
        self.root_id = root_id
        self.summary = summary
        self.tell = tell
        self.stop = stop
        self.max_load = max_load
        self.away = {} if away is None else away
        self.files_done = 0
        self.bytes_done = 0
        self.in_hand: dict[int, Todo] = {}
        self.hashes: dict[int, Hashed] = {}  # of tasks that are being embedded
        self.dropped: set[int] = set()  # tasks that need not be embedded, and are not over yet
        self.leader: dict[bytes, int] = {}  # content hash → the task that embeds it
        self.followers: dict[int, list[tuple[Todo, FileStat]]] = {}  # that task → files with the same content

    def run(self) -> None:
        """Work until the list is at its end, or `stop` says so and the files in hand are done."""
        try:
            self._run()
        except BaseException:
            self.pool.abandon()  # it may be the caller's, who goes on with it
            raise

    def _run(self) -> None:
        more = True
        while more or self.pool.busy:
            if self.stop():
                more = False
            more = more and self._submit()
            more = self._handle(more)
            working = self.pool.in_hand()
            self.tell(self.files_done, self.bytes_done, working[0] if working else b"", self._sound())

    def _sound(self) -> SoundLeft | None:
        """Return what is known of the sound left, None before it is anything to go by."""
        if self.lengths is not None:
            for length in self.lengths.poll():
                self.sound.learn(length.path, length.size, length.duration_s)
            if not self.lengths.done:
                return None
        return self.sound

    def _handle(self, more: bool) -> bool:
        """Write what happened, all that comes within a moment together; return whether there is more on the list."""
        with contextlib.ExitStack() as together:
            ends = time.monotonic() + TOGETHER_S
            wait_s = WAIT_S if self.pool.busy else 0.0
            heard = True
            while heard and time.monotonic() < ends:
                heard = False
                for event in self.pool.events(wait_s):
                    if wait_s:
                        together.enter_context(self.store.transaction())
                        wait_s = 0.0
                    heard = True
                    # The worker gets its next file before this one is written: it need not wait for the disk.
                    if isinstance(event, Finished):
                        more = more and not self.stop() and self._submit()
                        self._finished(self.in_hand.pop(event.task), event.result)
                    else:
                        self._hashed(self.in_hand[event.task], event)
        return more

    def _submit(self) -> bool:
        """Fill the free workers; return False when the list is at its end.

        Renamed files that come one after the other are written together, some at a time, so that a scan of a renamed
        folder can be watched and stopped.
        """
        moves = 0
        with contextlib.ExitStack() as together:
            while moves < MOVES_AT_ONCE and self.pool.has_room and not self._machine_is_busy():
                item = next(self.todo, None)
                if item is None:
                    return False
                if self.away and is_remote(item.path) and server_of(item.path) in self.away:
                    self._leave(item)
                    continue
                renamed = self._renamed(item) if item.known is None else None
                if renamed is None:
                    self.in_hand[item.number] = item
                    log.info("reading %s", display_path(item.path))
                    self.pool.submit(item.number, item.path, item.stat.size)
                    continue
                if not moves:
                    together.enter_context(self.store.transaction())
                self._move(item, renamed, item.stat)
                moves += 1
        return True

    def _machine_is_busy(self) -> bool:
        """Return whether to wait before another file is begun, as `make -l` does: one may always be in hand."""
        return self.max_load is not None and self.pool.busy > 0 and os.getloadavg()[0] > self.max_load

    def _renamed(self, item: Todo) -> FileRecord | None:
        """Recognise a renamed file by inode, size and time without reading it."""
        stat = item.stat
        if not stat.inode or stat.mtime_ns % 1_000_000_000 == 0:  # whole seconds are shared by whole archives
            return None
        for record in self.store.files_by_inode(stat.device, stat.inode):
            # On a server, the number stands for the content, and what is renamed there may get another time.
            same_time = record.mtime_ns == stat.mtime_ns or is_remote(item.path)
            same = record.size == stat.size and same_time
            if same and record.id not in self.seen and is_gone(record.path):
                return record
        return None

    def _move(self, item: Todo, record: FileRecord, stat: FileStat) -> None:
        self.store.move_file(record, item.path, self.root_id(item.path), stat)
        self.seen.add(record.id)
        self.summary.moved += 1
        self._count(item)

    def _count(self, item: Todo, duration_s: float | None = None) -> None:
        self.sound.done(item.path, item.stat.size, duration_s)
        self.files_done += 1
        self.bytes_done += item.stat.size

    def _hashed(self, item: Todo, event: Hashed) -> None:
        """Decide, from a file's content hash, whether it has to be embedded."""
        if item.number in self.dropped:  # its worker died before it heard so
            self.pool.answer(item.number, embed=False)
            return
        # Files that were only given ahead are left for the next scan.
        embed = not self.stop() and not self._known_content(item, event.digest, event.stat)
        if embed:
            leader = self.leader.setdefault(event.digest, item.number)
            if leader != item.number:
                self.followers.setdefault(leader, []).append((item, event.stat))
                embed = False
        if embed:
            self.hashes[item.number] = event
        else:
            self.dropped.add(item.number)
        self.pool.answer(item.number, embed=embed)

    def _known_content(self, item: Todo, digest: bytes, stat: FileStat) -> bool:
        """Write a file whose content the index knows already; return False when it does not."""
        ids = self.store.ids_by_content(digest)  # one by one: packs hold a sound a thousand times
        if item.known in ids and any(self.store.whole_files([item.known])):
            self.store.touch_file(item.known, stat)
            self.summary.touched += 1
            self._count(item)
            return True
        for record in self.store.whole_files(one for one in ids if one not in self.seen):
            if was_moved(record):
                self._move(item, record, stat)
                return True
        for record in self.store.whole_files(ids):
            self._added(item, self.store.copy_file(record, item.path, self.root_id(item.path), stat))
            self.summary.copied += 1
            return True
        failure = self.store.failure_by_content(digest)
        if failure is not None:
            self._failed(item, Failed(*failure, stat, digest))
            return True
        return False

    def _finished(self, item: Todo, result: Embedded | Failed | None) -> None:
        if result is None or item.number in self.dropped:  # it is written, or waits for its twin
            self.dropped.discard(item.number)
            return
        followers = self.followers.pop(item.number, [])
        hashed = self.hashes.pop(item.number, None)
        if hashed is not None:
            self.leader.pop(hashed.digest, None)
        if isinstance(result, Failed):
            if hashed is not None:  # a worker that died could not say it again
                result = replace(result, stat=hashed.stat, content_hash=hashed.digest)
            self._failed(item, result)
            for follower, stat in followers:
                self._failed(follower, Failed(result.kind, result.reason, stat, result.content_hash))
            return
        embedding = result.embedding
        file_id = self.store.put_file(item.path, self.root_id(item.path), result.stat, embedding)
        self._added(item, file_id, embedding.duration_s)
        log.info("heard %s: %d windows", display_path(item.path), len(embedding.vectors))
        self.summary.windows += len(embedding.vectors)
        self.summary.silent_windows += embedding.silent
        self.summary.audio_s += embedding.duration_s
        for follower, stat in followers:
            record = self.store.file(file_id)
            copy = self.store.copy_file(record, follower.path, self.root_id(follower.path), stat)
            self._added(follower, copy)
            self.summary.copied += 1

    def _added(self, item: Todo, file_id: int, duration_s: float | None = None) -> None:
        self.seen.add(file_id)
        if item.known is None:
            self.summary.added += 1
        else:
            self.summary.changed += 1
        self._count(item, duration_s)

    def _leave(self, item: Todo) -> None:
        """Leave a file as it is, for another scan: its server does not answer."""
        self._count(item)
        self.summary.postponed += 1

    def _failed(self, item: Todo, failure: Failed) -> None:
        if failure.kind == ServerAwayError.kind:
            log.warning("left for later: %s: %s", display_path(item.path), failure.reason)
            self.away.setdefault(server_of(item.path), failure.reason)
            self._leave(item)
            return
        self._count(item)
        log.warning("cannot use %s (%s): %s", display_path(item.path), failure.kind, failure.reason)
        if failure.kind == "io" and is_gone(item.path):
            if item.known is not None:  # it went while the scan ran: the sweep will see to it
                self.seen.discard(item.known)
            return
        stat = failure.stat or item.stat
        file_id = self.store.put_failure(
            item.path, self.root_id(item.path), stat, failure.kind, failure.reason, failure.content_hash
        )
        self.seen.add(file_id)
        self.summary.failures[failure.kind] = self.summary.failures.get(failure.kind, 0) + 1
        self.summary.failed += 1
