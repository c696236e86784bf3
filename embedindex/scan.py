"""The scan: crawl → compare → embed in worker processes → store → sweep what is gone → let the search index follow.

Only this process writes the index, one transaction a file, so that a scan can end at any instant and go on later. A
scan that finds nothing changed writes nothing. Paths are bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedindex.archive_store import forget_archives, remembered_listing
from embedindex.audio import MAX_DURATION_S
from embedindex.changes import IdSet, TodoList, is_wanted, looks_changed, may_be_forgotten
from embedindex.cores import count_processes
from embedindex.crawl import CrawlTrouble, Found, crawl, lies_in, outermost
from embedindex.errors import (
    ModelMismatchError,
    StoreError,
)
from embedindex.file_stat import file_stat
from embedindex.ignore import Selection
from embedindex.index_refresh import refresh_index
from embedindex.instruments import refresh_instruments
from embedindex.length_probe import LengthProbe
from embedindex.models import ModelIdentity, ModelRequest
from embedindex.process import Processing
from embedindex.progress import Report, ScanProgress, ScanSummary, never, silent
from embedindex.roots import refuse_unknown
from embedindex.scan_model import ModelQuestion
from embedindex.time_left import SoundLeft
from embedindex.worker import WorkerSetup
from embedindex.workers import STALL_S, Pool, WorkerPool
from embedindex.writer import StoreWriter

if TYPE_CHECKING:
    from embedindex.ray_pool import Cluster, RayPool

REPORT_EVERY_S = 0.1
MISSING_BATCH = 1000
# A scan of so many files, or bytes, takes long enough for a time left that is right from the start.
PROBE_FROM_FILES = 100
PROBE_FROM_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ScanOptions:
    """How to scan.

    Attributes:
        request: the model; None for the index's own, or for the one that `choose` names.
        choose: asked for a model when the index has none yet and the first file is to be embedded.
        hop_s: seconds between windows; None for the index's, or the model's default.
        workers: number of processes; 0 for one a core.
        niceness: how polite the workers are, 0 to 19.
        max_duration_s: longest file that is accepted.
        stall_s: seconds without a sign of life after which a file is given up.
        max_load: no further file is begun while the machine's load average is above this; None for no limit.
        limit: how many new or changed files to look at; None for all.
        since_ns: only files changed after this time (Unix, nanoseconds) are looked at; None for all.
        include: patterns (gitignore's) of the files that this run looks at; none for all.
        exclude: patterns of files and folders that this run does not look at, nor forgets.
        within: the files and folders below the roots that this run looks at, and no other; None for all. Other files
            are as if left out. What a link leads to may count twice, until a scan of everything.
        prune: forget what is missing, also where its disk is not mounted.
        durable: a power cut loses nothing (slower).
        device: what computes the model: ``auto``, ``cpu`` or ``cuda``.
        cluster: the machines that do the work, `workers` on each; None for this one.
    """

    request: ModelRequest | None = None
    choose: Callable[[], ModelRequest] | None = None
    hop_s: float | None = None
    workers: int = 0
    niceness: int = 5
    max_duration_s: float = MAX_DURATION_S
    stall_s: float = STALL_S
    max_load: float | None = None
    limit: int | None = None
    since_ns: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    within: tuple[bytes, ...] | None = None
    prune: bool = False
    durable: bool = False
    device: str = "cpu"
    cluster: Cluster | None = None


def scan(
    folder: str,
    roots: Sequence[str | bytes],
    options: ScanOptions | None = None,
    *,
    report: Report = silent,
    stop: Callable[[], bool] = never,
    pool: WorkerPool | None = None,
) -> ScanSummary:
    """Bring the index in `folder` up to date with the audio files in some folders (or single files).

    Args:
        folder: the index folder; made when absent.
        roots: what to scan.
        options: how; by default with the index's own model.
        report: called about ten times a second.
        stop: asked often; True ends the scan after the files in hand.
        pool: workers of the caller's, for the index's model, that go on living; None to start some and end them.

    Raises:
        PathNotFoundError: a root is not there and the index knows nothing of it.
        ModelMismatchError: the index was made with another model or hop than the options ask for.
        ModelError: the model cannot be used.
        StoreError: the index cannot be written; its subclasses say why.
        UsageError: an include or exclude pattern is none.
    """
    options = options or ScanOptions()
    Selection(options.include, options.exclude)  # refused before anything is made
    paths = outermost([os.fsencode(root) for root in roots])
    refuse_unknown(folder, paths)
    with StoreWriter(folder, durable=options.durable) as store:
        return _Scan(store, paths, options, report, stop, pool).run()


class _Scan:
    """One run. The methods are its stages, in order."""

    def __init__(
        self,
        store: StoreWriter,
        roots: list[bytes],
        options: ScanOptions,
        report: Report,
        stop: Callable[[], bool],
        pool: WorkerPool | None,
    ) -> None:
        self.store = store
        self.roots = roots
        self.options = options
        self.report = report
        self.stop = stop
        self.pool = pool
        self.summary = ScanSummary()
        self.trouble = CrawlTrouble()
        self.away: dict[bytes, str] = {}  # servers that fell silent, and what is known of that
        self.selection = Selection(options.include, options.exclude, options.within)
        self.seen = IdSet()
        self.root_ids: dict[bytes, int] = {}
        self.run_id: int | None = None
        self.reported = 0.0

    def run(self) -> ScanSummary:
        started = time.monotonic()
        outcome = "failed"
        try:
            question = self._model()
            with TodoList() as todo:
                self._compare(todo)
                if todo.files and not self.stop():
                    self._process(todo, question)
            if not self.stop():
                self._sweep()
                refresh_instruments(self.store, self.roots, self.trouble.maps, self._begin, self.stop)
            self._tell("index", 0, None, b"")
            refresh_index(self.store)
            self.summary.interrupted = self.stop()
            outcome = "interrupted" if self.summary.interrupted else "done"
        finally:
            self.summary.elapsed_s = time.monotonic() - started
            self.summary.unseen = [
                (os.fsdecode(path), reason) for path, reason in (*self.trouble.folders, *self.trouble.files)
            ]
            if self.run_id is not None:
                with contextlib.suppress(*([StoreError] if outcome == "failed" else [])):  # the first error counts
                    self.store.finish_run(self.run_id, outcome, self._summary_for_database())
        return self.summary

    def _summary_for_database(self) -> dict[str, Any]:
        data = self.summary.to_json()
        data["unseen"] = [
            (path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), reason)
            for path, reason in self.summary.unseen
        ]
        return data

    def _begin(self) -> None:
        """Note the run in the index, before its first change."""
        if self.run_id is None:
            self.run_id = self.store.start_run(self.roots)

    def _tell(
        self,
        stage: str,
        files: int,
        total: int | None,
        path: bytes,
        size: int = 0,
        total_size: int | None = None,
        sound: SoundLeft | None = None,
    ) -> None:
        now = time.monotonic()
        if now - self.reported >= REPORT_EVERY_S:
            self.reported = now
            done = self.summary
            counts = (files, total, size, total_size, done.audio_s, done.failed, path, done.windows)
            known = (None, None) if sound is None else (sound.share(), sound.left_s())
            self.report(ScanProgress(stage, *counts, *known))

    # -- the model -----------------------------------------------------------------------------------------------

    def _model(self) -> ModelQuestion:
        """Return which model the index has and which was asked for; loads only what must be."""
        question = ModelQuestion(self.store.folder, self.store.model(), self.options.request, self.options.hop_s)
        question.check()
        return question

    # -- compare -------------------------------------------------------------------------------------------------

    def _compare(self, todo: TodoList) -> None:
        """Look at every file's stat; put on the list what is new or looks changed."""
        devices = {path: (device, _device_of(path)) for _, path, device in self.store.roots()}
        renumbered: set[bytes] = set()
        listing = remembered_listing(self.store, self._begin)
        for found in crawl(self.roots, self.trouble, self.selection, listing):
            self.summary.found += 1
            self._tell("crawl", self.summary.found, None, found.path)
            if self.stop():
                return
            state = self.store.file_state(found.path)
            if state is None:
                self._add(todo, found, None)
                continue
            file_id, _, _, _, missing_since, _, device = state
            self.seen.add(file_id)
            stat = found.stat
            if looks_changed(found, state):
                self._add(todo, found, file_id)
            elif missing_since is not None:
                self._begin()
                self.store.touch_file(file_id, stat)
                self.summary.returned += 1
            else:
                self.summary.unchanged += 1
                if device != stat.device:
                    renumbered.update(
                        root for root, numbers in devices.items() if numbers == (device, stat.device)
                        and lies_in(found.path, root)
                    )  # fmt: skip
        for root in renumbered:
            old, new = devices[root]
            if old is not None and new is not None:
                self._begin()
                self.store.renumber_device(root, old, new)
                self.store.put_root(root, new)

    def _add(self, todo: TodoList, found: Found, known: int | None) -> None:
        """Put a file on the list, unless the options leave it for another time."""
        if is_wanted(found, todo.files, self.options.limit, self.options.since_ns):
            todo.add(found, known)
        else:
            self.summary.postponed += 1

    # -- process -------------------------------------------------------------------------------------------------

    def _process(self, todo: TodoList, question: ModelQuestion) -> None:
        """Hash, and where needed embed, every file on the list."""
        request, model = question.request(), question.known
        if request is None:
            if self.options.choose is None:
                raise ModelMismatchError("this index has no model yet; name one with --model")
            request = self.options.choose()
        # Loaded here before the workers load it: what is done once, at first use, is then done for them.
        cluster = self.options.cluster is not None
        request, loaded, hop_s, device = question.on_device(request, self.options.device, cluster=cluster)
        identity = loaded.identity
        if model is None:
            request = _settled(request, identity)
            model = self.store.use_model(identity, request, hop_s)
        else:
            question.require_same(identity, hop_s)
        self._begin()
        for root in self.roots:
            self.root_ids[root] = self.store.put_root(root, _device_of(root))
        with contextlib.ExitStack() as stack:
            pool: Pool | None = self.pool
            lengths: LengthProbe | None = None
            if pool is None:
                if todo.files >= PROBE_FROM_FILES or todo.bytes >= PROBE_FROM_BYTES:
                    lengths = LengthProbe(todo.sample.choose())
                    stack.callback(lengths.close)
                limits = (self.options.max_duration_s, self.options.niceness)
                setup = WorkerSetup(request, model.hop_s, *limits, device=device)
                pool = own = self._pool(setup, identity.fingerprint, todo.files)
                stack.enter_context(own)
            Processing(
                self.store,
                pool,
                todo,
                seen=self.seen,
                root_id=self.root_id,
                summary=self.summary,
                tell=lambda files, size, path, sound: self._tell(
                    "embed", files, todo.files, path, size, todo.bytes, sound
                ),
                stop=self.stop,
                max_load=self.options.max_load,
                lengths=lengths,
                away=self.away,
            ).run()
            self.trouble.folders += self.away.items()
            self.summary.crashes = pool.crashes

    def _pool(self, setup: WorkerSetup, fingerprint: str, files: int) -> RayPool | WorkerPool:
        options = self.options
        if options.cluster is not None:
            from embedindex.ray_pool import RayPool

            return RayPool(setup, options.workers, fingerprint, options.cluster, stall_s=options.stall_s)
        workers = min(count_processes(options.workers), files)
        return WorkerPool(setup, workers, fingerprint, stall_s=options.stall_s)

    def root_id(self, path: bytes) -> int:
        """Return the id of the root that a path lies in; files met through links count for the first root."""
        return next((self.root_ids[root] for root in self.roots if lies_in(path, root)), self.root_ids[self.roots[0]])

    # -- sweep ---------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Forget what was deleted, and mark as missing what is only out of sight."""
        for root, place in self._places():
            hidden: list[int] = []
            for file_id, path, device, missing_since in self.store.paths_below(place):
                if file_id in self.seen:
                    continue
                if self.selection.leaves_out_below(path, root):
                    self.summary.excluded += 1
                    continue
                self._tell("sweep", self.summary.forgotten + self.summary.missing, None, path)
                if self.options.prune or may_be_forgotten(path, device, root, self.trouble):
                    self._begin()
                    self.store.forget_file(file_id)
                    self.summary.forgotten += 1
                    continue
                self.summary.missing += 1
                if missing_since is None:
                    hidden.append(file_id)
                if len(hidden) >= MISSING_BATCH:
                    self._mark_missing(hidden)
                    hidden = []
            self._mark_missing(hidden)
            forget_archives(self.store, place, self._begin)

    def _places(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield what was looked at: a root, and the path that is it or lies in it."""
        for root in self.roots:
            if self.options.within is None:
                yield root, root
            else:
                yield from ((root, place) for place in self.options.within if lies_in(place, root))

    def _mark_missing(self, file_ids: list[int]) -> None:
        if file_ids:
            self._begin()
            self.store.mark_missing(file_ids)


def _settled(request: ModelRequest, identity: ModelIdentity) -> ModelRequest:
    """Return a request that names the precision it led to: what ``auto`` means may change, an index may not."""
    precision = identity.parameters.get("precision")
    return replace(request, precision=precision) if isinstance(precision, str) else request


def _device_of(path: bytes) -> int | None:
    try:
        return file_stat(path).device
    except OSError:
        return None
