"""An index as a table: vectors with paths, times, labels and attributes, to NumPy's ``.npz`` or to Parquet.

One row a file (the mean of its sounding windows) or a window (silent ones left out). Rows are written as they are read:
memory does not grow with the index. The file appears when it is complete.

Conventions: times are seconds; vectors are as the model made them, not in the space of searches. In ``.npz``, arrays
with one entry a file carry names in the plural, and ``file`` leads from a window to its file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from embedindex.analysis_store import analysis_of
from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import EngineMissingError, IndexEmptyError, UsageError, display_path
from embedindex.filters import Filters, nothing_passes
from embedindex.records import FileRecord
from embedindex.search import By, labels_of
from embedindex.store import Store
from embedindex.whole_files import require_absent, whole_file

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["npz", "parquet"]
# Rows of a group in Parquet.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Exported:
    """How much was written."""

    files: int
    rows: int


def export(
    store: Store,
    target: str,
    *,
    to: Format | None = None,
    by: By = "file",
    filters: Filters | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write an index, or the files of it that pass the filters, to one file.

    Args:
        store: the index.
        target: where to; nothing must be there.
        to: ``"npz"`` or ``"parquet"``; None for what the name's ending says.
        by: a row for each ``"file"``, or for each ``"window"``.
        filters: which files.
        progress: called with (files written, files in all).

    Raises:
        UsageError: something is there already, it cannot be written, or the name says no format.
        DiskFullError: no space is left.
        EngineMissingError: Parquet is asked for and pyarrow is not installed.
        IndexEmptyError: no file of the index passes the filters.
    """
    format_ = to or format_of(target)
    require_absent(target)
    if format_ == "parquet":
        _require_pyarrow()
    with store.snapshot():
        table = _Table(store, by, filters or Filters(), progress)
        if not table.rows:
            raise IndexEmptyError(f"{display_path(store.folder)}: {nothing_passes(store, filters or Filters())}")
        with whole_file(target, replace=False) as temporary:
            (_write_parquet if format_ == "parquet" else _write_npz)(table, temporary)
    return Exported(table.files, table.rows)


def format_of(target: str) -> Format:
    """Return the format that the ending of a name asks for.

    Raises:
        UsageError: it asks for none.
    """
    ending = os.path.splitext(target)[1].lower()
    if ending == ".npz":
        return "npz"
    if ending in (".parquet", ".pq"):
        return "parquet"
    raise UsageError(f"{display_path(target)}: end the name in .npz or .parquet, or say --to npz or --to parquet")


class _Table:
    """The rows of an export, read as often as is asked."""

    def __init__(self, store: Store, by: By, filters: Filters, progress: Callable[[int, int], None] | None) -> None:
        self._store, self._progress = store, progress
        self.by = by
        where, values = filters.sql()
        self._where = f"status = 'ok' AND n_windows > n_silent AND {where}"
        self._values = values
        row = store._row(f"SELECT count(*), sum(n_windows - n_silent) FROM files WHERE {self._where}", values)  # noqa: S608
        self.files, windows = (0, 0) if row is None else (int(row[0]), int(row[1] or 0))
        self.rows = windows if by == "window" else self.files
        model = store.model()
        self.dimension = 0 if model is None else model.identity.dimension

    def records(self) -> Iterator[FileRecord]:
        """Yield the files, by path."""
        return self._store.files(self._where, self._values)

    def vectors(self) -> Iterator[tuple[FileRecord, Float32Array, Float64Array]]:
        """Yield each file with the vectors of its rows, (n, dimension), and where they start."""
        for number, record in enumerate(self.records(), 1):
            stored = self._store.vectors_of(record)
            loud = np.flatnonzero(stored.any(axis=1))
            starts_s = np.asarray(loud * (record.hop_s or 0.0), np.float64)
            rows = stored[loud].astype(np.float32)
            if self.by == "file":
                rows, starts_s = rows.mean(axis=0, keepdims=True), np.zeros(1)
            yield record, rows, starts_s
            if self._progress is not None:
                self._progress(number, self.files)

    def attributes(self, record: FileRecord) -> dict[str, Any]:
        """Return what is known of a file besides its vectors."""
        analysis = analysis_of(self._store, record)
        return {
            "path": record.text_path.encode("utf-8", "replace").decode(),
            "duration": record.duration,
            "sample_rate": record.sample_rate,
            "channels": record.channels,
            "bpm": analysis.bpm,
            "key": analysis.key,
            "artist": record.artist,
            "album": record.album,
            "title": record.title,
            "labels": labels_of(self._store, record),
        }


# -- npz ----------------------------------------------------------------------------------------------------------


def _write_npz(table: _Table, target: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with _array(archive, "vectors", "<f4", (table.rows, table.dimension)) as file:
            for _, rows, _ in table.vectors():
                file.write(rows.astype("<f4").tobytes())
        if table.by == "window":
            with _array(archive, "starts", "<f8", (table.rows,)) as file:
                for _, _, starts_s in table.vectors():
                    file.write(starts_s.astype("<f8").tobytes())
            with _array(archive, "file", "<i8", (table.rows,)) as file:
                for number, record in enumerate(table.records()):
                    file.write(np.full(record.n_windows - record.n_silent, number, "<i8").tobytes())
        for name, values in (
            ("paths", lambda known: known["path"]),
            ("keys", lambda known: known["key"] or ""),
            ("labels", lambda known: json.dumps(known["labels"], sort_keys=True, ensure_ascii=False)),
        ):
            _write_texts(archive, name, table, values)
        for name, column in (("durations", "duration"), ("sample_rates", "sample_rate"), ("bpms", "bpm")):
            with _array(archive, name, "<f8", (table.files,)) as file:
                for record in table.records():
                    known = table.attributes(record)[column]
                    file.write(np.array(np.nan if known is None else known, "<f8").tobytes())


def _write_texts(archive: zipfile.ZipFile, name: str, table: _Table, text_of: Callable[[dict[str, Any]], str]) -> None:
    """Write an array of text, whose width is that of the longest."""
    width = max(1, max((len(text_of(table.attributes(record))) for record in table.records()), default=1))
    with _array(archive, name, f"<U{width}", (table.files,)) as file:
        for record in table.records():
            file.write(np.array(text_of(table.attributes(record)), f"<U{width}").tobytes())


@contextlib.contextmanager
def _array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        yield file


# -- Parquet --------------------------------------------------------------------------------------------------------


def _require_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise EngineMissingError("Parquet needs pyarrow: pip install 'embedindex[parquet]'; or export to .npz")


def _write_parquet(table: _Table, target: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [
            ("path", text),
            ("start", number),
            ("duration", number),
            ("sample_rate", pa.int32()),
            ("channels", pa.int32()),
            ("bpm", number),
            ("key", text),
            ("artist", text),
            ("album", text),
            ("title", text),
            ("labels", pa.map_(text, pa.list_(text))),
            ("vector", pa.list_(pa.float32(), table.dimension)),
        ]
    )
    with pq.ParquetWriter(target, schema) as writer:
        known: list[dict[str, Any]] = []
        vectors: list[Float32Array] = []
        for record, rows, starts_s in table.vectors():
            own = table.attributes(record)
            own["labels"] = list(own["labels"].items())
            for first in range(0, len(rows), ROWS_AT_ONCE):
                part = rows[first : first + ROWS_AT_ONCE]
                vectors.append(part)
                known += [{**own, "start": float(start)} for start in starts_s[first : first + ROWS_AT_ONCE]]
                if len(known) >= ROWS_AT_ONCE:
                    writer.write_batch(_batch(schema, known, vectors))
                    known, vectors = [], []
        if known:
            writer.write_batch(_batch(schema, known, vectors))


def _batch(schema: pa.Schema, known: list[dict[str, Any]], vectors: list[Float32Array]) -> pa.RecordBatch:
    import pyarrow as pa

    flat = pa.array(np.concatenate(vectors).reshape(-1))
    columns = [pa.array([row[field.name] for row in known], field.type) for field in schema if field.name != "vector"]
    width = schema.field("vector").type.list_size
    return pa.record_batch([*columns, pa.FixedSizeListArray.from_arrays(flat, width)], schema=schema)
