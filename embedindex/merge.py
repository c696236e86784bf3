"""Uniting indexes that were made apart: on laptops, on machines without a network, one disk after the other.

The vectors are taken as they are: no sound is read, and the files themselves need not be within reach. Everything is
found again by path and by content, so that a merge that ended early is gone on with by doing it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embedindex.analysis_store import copy_analyses
from embedindex.copies import stored_content
from embedindex.errors import IndexDamagedError, IndexEmptyError, ModelMismatchError, UsageError, display_path
from embedindex.file_stat import FileStat, file_stat
from embedindex.index_refresh import refresh_index
from embedindex.label_store import FileLabel, add_import, has_given
from embedindex.labels import is_predicted
from embedindex.models import same_space
from embedindex.path_map import PathMap
from embedindex.progress import never
from embedindex.records import FileRecord, IndexModel, vectors_hash
from embedindex.remote_paths import is_remote
from embedindex.store import Store
from embedindex.writer import StoreWriter, describe_model

ELSEWHERE = -1  # device number of a file that this machine has never seen
FILES_PER_TRANSACTION = 200

MergeReport = Callable[[int, int, bytes], None]


def _silent(_done: int, _total: int, _path: bytes) -> None:
    """Report nothing: the default of `report`."""


@dataclass
class MergeSummary:
    """What became of the files of one index that was merged into another.

    Attributes:
        source: its folder.
        added: files that are new.
        known: files that were there with the same content.
        united: files whose content was there under a path of another machine; that one got their labels.
        replaced: files that were there with an older content.
        kept: files that were there with a newer content, or that only this index could read.
        damaged: files left out, as their vectors are not what was written.
        labels: labels that were new.
        interrupted: it was stopped before its end.
    """

    source: str
    added: int = 0
    known: int = 0
    united: int = 0
    replaced: int = 0
    kept: int = 0
    damaged: int = 0
    labels: int = 0
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as a dictionary for JSON."""
        return asdict(self)


def merge(
    folder: str,
    sources: Sequence[str],
    path_map: PathMap | None = None,
    *,
    report: MergeReport = _silent,
    stop: Callable[[], bool] = never,
) -> list[MergeSummary]:
    """Take everything that some indexes hold into the one in `folder`, which is made when absent.

    A file is the same where path (after mapping) and content are; content that is there already under a path that the
    merged index does not have is the same sound on another machine, and is not taken twice. Where one path has two
    contents, the one scanned later stays. Labels are added; predicted ones never stand beside given ones.

    Args:
        folder: the index that takes them in.
        sources: folders of the others, which are only read.
        path_map: what their paths are here.
        report: called with (files looked at, files in all, path).
        stop: asked before every file; True ends the merge there, and doing it again goes on.

    Raises:
        UsageError: an index is to be merged into itself.
        IndexNotFoundError: there is no index in a folder.
        IndexEmptyError: nothing was ever scanned into one.
        ModelMismatchError: the vectors of two of them cannot be compared.
        StoreError: an index cannot be read or written.
    """
    for name in sources:
        if os.path.realpath(name) == os.path.realpath(folder):
            raise UsageError(f"{display_path(name)}: an index cannot be merged into itself; name another --index")
    _require_one_model(folder, sources)
    summaries = []
    with StoreWriter(folder) as store:
        for name in sources:
            with Store(name) as source, source.snapshot():
                summary = _Merge(store, source, path_map or PathMap(), report, stop).run()
            summaries.append(summary)
            if summary.interrupted:
                break
        refresh_index(store)
    return summaries


def _require_one_model(folder: str, sources: Sequence[str]) -> None:
    """Refuse indexes whose vectors cannot be compared, before anything is written."""
    first: tuple[str, IndexModel] | None = None
    if os.path.isdir(folder) and os.listdir(folder):
        with Store(folder) as store:
            model = store.model()
            first = (folder, model) if model else None
    for name in sources:
        with Store(name) as source:
            model = source.model()
        if model is None:
            raise IndexEmptyError(f"{display_path(name)}: there is nothing in this index; leave it out")
        if first is None:
            first = (name, model)
        known = first[1]
        if known.hop_s != model.hop_s or not same_space(known.identity, model.identity):
            raise ModelMismatchError(
                f"{display_path(name)}: made with {describe_model(model.identity, model.hop_s)}, but "
                f"{display_path(first[0])} with {describe_model(known.identity, known.hop_s)}; their vectors cannot be "
                "compared. Scan one of the two again with the other's model; nothing was changed"
            )


class _Merge:
    def __init__(
        self, store: StoreWriter, source: Store, path_map: PathMap, report: MergeReport, stop: Callable[[], bool]
    ) -> None:
        self.store = store
        self.source = source
        self.path_map = path_map
        self.report = report
        self.stop = stop
        self.summary = MergeSummary(source.folder)
        self.roots: dict[int, int] = {}

    def run(self) -> MergeSummary:
        """Take the files, then their labels."""
        model = self.source.model()
        if self.store.model() is None and model is not None:
            self.store.use_model(model.identity, model.request, model.hop_s)
        roots = {root_id: self.path_map.apply(path) for root_id, path, _ in self.source.roots()}
        self.roots = {root_id: self.store.put_root(path, _device_of(path)) for root_id, path in roots.items()}
        run_id = self.store.start_run(roots.values())
        outcome = "failed"
        try:
            self._take_files()
            if not self.summary.interrupted:
                _, self.summary.labels = add_import(self.store, "merge", self.source.folder, self._labels())
                copy_analyses(self.source, self.store)
            outcome = "interrupted" if self.summary.interrupted else "done"
        finally:
            self.store.finish_run(run_id, outcome, {"merged": display_path(self.source.folder)})
        return self.summary

    def _take_files(self) -> None:
        total = self.source.counts().files
        done = 0
        records = self.source.files()
        while not self.summary.interrupted:
            with self.store.transaction():
                for record in records:
                    done += 1
                    self._take(record, self.path_map.apply(record.path))
                    self.report(done, total, record.path)
                    self.summary.interrupted = self.stop()
                    if self.summary.interrupted or done % FILES_PER_TRANSACTION == 0:
                        break
                else:
                    return

    def _take(self, record: FileRecord, path: bytes) -> None:
        there = self.store.file_by_path(path)
        if there is not None and _same_content(there, record):
            self.summary.known += 1
        elif there is not None and _stays(there, record):
            self.summary.kept += 1
        elif there is None and self._twin(record) is not None:
            self.summary.united += 1
        elif self._write(record, path):
            self.summary.added += there is None
            self.summary.replaced += there is not None

    def _write(self, record: FileRecord, path: bytes) -> bool:
        """Write a file of the source under its path here; return False when its vectors are damaged."""
        stat = _stat_here(record, path)
        root_id = self.roots[record.root_id]
        if record.status == "failed":
            kind, reason = record.error_kind or "", record.error_reason or ""
            self.store.put_failure(path, root_id, stat, kind, reason, record.content_hash)
            return True
        try:
            content = stored_content(self.source, record)
            whole = vectors_hash(content.vectors.tobytes()) == record.vectors_hash
        except IndexDamagedError:
            whole = False
        if not whole:
            self.summary.damaged += 1
            return False
        file_id = self.store.put_file(path, root_id, stat, content)
        if record.missing_since is not None and stat.device == ELSEWHERE:
            self.store.mark_missing([file_id])
        return True

    def _twin(self, record: FileRecord) -> FileRecord | None:
        """Return the file here with the same content under a path that is no path of the source."""
        if record.content_hash is None or record.status != "ok":
            return None
        here = self.store.ids_by_content(record.content_hash)
        theirs = self.source.ids_by_content(record.content_hash) if here else ()
        own = {self.path_map.apply(self.source.file(one).path) for one in theirs}
        return next((one for one in self.store.whole_files(here) if one.path not in own), None)

    def _labels(self) -> Iterator[FileLabel]:
        """Yield the source's labels for the files here that its own have become."""
        for record in self.source.files("EXISTS (SELECT 1 FROM labels WHERE file_id = files.id)"):
            here = self.store.file_by_path(self.path_map.apply(record.path)) or self._twin(record)
            if here is None:  # left out, as it is damaged
                continue
            for label in self.source.labels_of([record.id]).get(record.id, []):
                if not (is_predicted(label.source) and has_given(self.store, here.id, label.key)):
                    yield FileLabel(here.id, label)


def _same_content(one: FileRecord, other: FileRecord) -> bool:
    """Return whether two entries of a path say the same; files that could not be read at all count as the same."""
    return one.status == other.status and one.content_hash == other.content_hash


def _stays(there: FileRecord, record: FileRecord) -> bool:
    """Return whether what is known of a path is better than what another index says: readable, then later."""
    if there.status != record.status and (record.status == "failed" or there.content_hash == record.content_hash):
        return record.status == "failed"
    return record.scanned_at <= there.scanned_at


def _stat_here(record: FileRecord, path: bytes) -> FileStat:
    """Return the stat to remember a file by: where this machine has it, the next scan compares it as any other."""
    if is_remote(path):  # the same from all machines
        return FileStat(record.size, record.mtime_ns, record.device, record.inode)
    try:
        here = file_stat(path)
    except OSError:
        return FileStat(record.size, record.mtime_ns, ELSEWHERE, 0)
    return FileStat(record.size, record.mtime_ns, here.device, here.inode)


def _device_of(path: bytes) -> int | None:
    try:
        return file_stat(path).device
    except OSError:
        return None
