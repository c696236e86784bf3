"""The index from Python: scan, ask what is similar, label, read files and vectors. Offered as ``embedindex.Index``.

Conventions: as everywhere: paths are bytes in records, times are seconds, vectors are float16 as the model made them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import numpy as np

from embedindex.analysis_store import analysis_of
from embedindex.arrays import Float16Array, Float32Array
from embedindex.crawl import absolute_path
from embedindex.errors import PathNotFoundError, display_path
from embedindex.export import Exported, export
from embedindex.filters import Filters
from embedindex.index import IndexView, load_view
from embedindex.label_store import set_labels
from embedindex.labels import clean_key, clean_value
from embedindex.locations import index_folder
from embedindex.models import parse_request
from embedindex.models.auto import choose_model
from embedindex.near_duplicates import Group, find_duplicates
from embedindex.progress import Report, ScanSummary, silent
from embedindex.query import Part, QueryMaker
from embedindex.records import FileRecord
from embedindex.scan import ScanOptions, scan
from embedindex.search import UNLIKE_WEIGHT, By, Hit, Match, labels_of, search
from embedindex.store import Store
from embedindex.tempo_key import TempoKey
from embedindex.writer import StoreWriter

Sound = str | bytes | os.PathLike[str]
File = FileRecord | Sound


class Index:
    """An index. Use as a context manager, or call `close`. Sees what others' scans add when opened anew."""

    def __init__(self, store: Store, view: IndexView) -> None:
        self._store = store
        self._view = view
        self._maker = QueryMaker(store, view.model)

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None = None) -> Index:
        """Return the index in a folder; None for ``$EMBEDINDEX_INDEX``, else the user's data folder.

        Raises:
            StoreError: there is no index, nothing in it, or it cannot be read.
        """
        store = Store(index_folder(folder))
        try:
            return cls(store, load_view(store))
        except BaseException:
            store.close()
            raise

    @classmethod
    def make(
        cls,
        folder: str | os.PathLike[str] | None,
        *paths: Sound,
        model: str | None = None,
        workers: int = 0,
        report: Report = silent,
    ) -> Index:
        """Return the index in a folder after a scan of some folders or files; the index is made when there is none.

        Scans start processes: call it below ``if __name__ == "__main__":`` in a script.

        Args:
            folder: as in `open`.
            paths: what to scan.
            model: as ``--model`` names it; None for the index's own, or for a new index the best that can be had.
            workers: how many processes; 0 for one a core.
            report: called now and then with where the scan is.

        Raises:
            EmbedindexError: what the scan raises.
        """
        _scan(index_folder(folder), paths, model, workers, report)
        return cls.open(folder)

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def similar(
        self,
        *sounds: Sound,
        part: tuple[float, float | None] | None = None,
        unlike: Sequence[Sound] = (),
        unlike_weight: float = UNLIKE_WEIGHT,
        k: int = 10,
        by: By = "file",
        filters: Filters | None = None,
        include_self: bool = False,
        match: Match = "auto",
        warp: bool = False,
    ) -> list[Hit]:
        """Return the `k` files (or places in files) that are most like some sounds; see `embedindex.search.search`.

        Args:
            sounds: files or folders, in the index or not.
            part: (start, end) in seconds of each file that is meant; None for all of it.
            unlike: sounds to stay away from.
            unlike_weight: by how much.
            k: how many results.
            by: ``"file"`` or ``"window"``.
            filters: which files may be found.
            include_self: let the sounds themselves be found.
            match: ``"inside"``: find the sounds in files; ``"whole"``: compare them with whole files; ``"auto"``: the
                latter for sounds of a minute and more.
            warp: inside, also at another speed.

        Raises:
            EmbedindexError: the question makes no sense, or a sound cannot be used.
        """
        meant = Part() if part is None else Part(*part)
        return search(
            self._store,
            self._view,
            [self._maker.from_path(os.fspath(sound), meant) for sound in sounds],
            k=k,
            by=by,
            filters=filters,
            include_self=include_self,
            unlike=[self._maker.from_path(os.fspath(sound)) for sound in unlike],
            unlike_weight=unlike_weight,
            match=match,
            warp=warp,
        )

    def scan(self, *paths: Sound, workers: int = 0, report: Report = silent) -> ScanSummary:
        """Bring the index up to date with some folders or files, those it was made of when none are named.

        Raises:
            EmbedindexError: what the scan raises.
        """
        folders = paths or tuple(path for _, path, _ in self._store.roots())
        summary = _scan(self._store.folder, folders, None, workers, report)
        self._view = load_view(self._store)
        return summary

    def label(self, files: File | Iterable[File], *, add: bool = False, **labels: str | Sequence[str]) -> int:
        """Give files labels, ``index.label("kick.wav", genre="house", mood=["dark", "dry"])``; return how many.

        Args:
            files: one file of the index or several.
            add: keep the other values that they have for these keys.
            labels: a value, or several, for each key.

        Raises:
            PathNotFoundError: the index has no such file.
            UsageError: a key or a value cannot be one.
            IndexBusyError: another process is writing to the index.
        """
        several = [files] if isinstance(files, (FileRecord, str, bytes, os.PathLike)) else list(files)
        ids = [self._record(file).id for file in several]
        pairs = [
            (clean_key(key), clean_value(value))
            for key, values in labels.items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        with StoreWriter(self._store.folder) as writer:
            return set_labels(writer, ids, pairs, add=add)

    def labels(self, file: File) -> dict[str, list[str]]:
        """Return a file's labels, several values to a key.

        Raises:
            PathNotFoundError: the index has no such file.
        """
        return labels_of(self._store, self._record(file))

    def tempo_key(self, file: File) -> TempoKey:
        """Return tempo and key of a file, as `embedindex analyse` found them; nothing where it has not been there.

        Raises:
            PathNotFoundError: the index has no such file.
        """
        return analysis_of(self._store, self._record(file))

    def matrix(self, filters: Filters | None = None) -> tuple[list[FileRecord], Float32Array]:
        """Return the files with sound in them and, row by row, the means of their windows, (n, dimension) float32."""
        records = [record for record in self.files(filters) if record.n_windows > record.n_silent]
        means = np.zeros((len(records), self._view.model.identity.dimension), np.float32)
        for row, record in enumerate(records):
            vectors = self._store.vectors_of(record)
            means[row] = vectors[vectors.any(axis=1)].mean(axis=0, dtype=np.float32)
        return records, means

    def export(self, target: str | os.PathLike[str], *, by: By = "file", filters: Filters | None = None) -> Exported:
        """Write vectors, paths, times, labels and attributes to ``.npz`` or ``.parquet``; see docs/export.md.

        Raises:
            EmbedindexError: what `embedindex.export.export` raises.
        """
        return export(self._store, os.fspath(target), by=by, filters=filters)

    def duplicates(self, filters: Filters | None = None) -> list[Group]:
        """Return the groups of files that are the same recording, the best of each first; see docs/duplicates.md."""
        return find_duplicates(self._store, self._view, filters=filters)

    def files(self, filters: Filters | None = None) -> Iterator[FileRecord]:
        """Yield the files that can be searched, by path."""
        where, values = (filters or Filters()).sql()
        return self._store.files(f"status = 'ok' AND {where}", values)

    def vectors(self, file: File) -> Float16Array:
        """Return the vectors of a file of the index, (n_windows, dimension) float16; rows of zeros are silence.

        Raises:
            PathNotFoundError: the index has no such file.
        """
        return self._store.vectors_of(self._record(file))

    def _record(self, file: File) -> FileRecord:
        if isinstance(file, FileRecord):
            return file
        path = absolute_path(os.fsencode(file))
        record = self._store.file_by_path(path)
        if record is None or record.status != "ok":
            raise PathNotFoundError(f"{display_path(path)}: is not in the index; add it with `embedindex scan`")
        return record


def _scan(folder: str, paths: Sequence[Sound], model: str | None, workers: int, report: Report) -> ScanSummary:
    options = ScanOptions(
        request=None if model is None else parse_request(model), choose=lambda: choose_model()[0], workers=workers
    )
    return scan(folder, [os.fsencode(path) for path in paths], options, report=report)
