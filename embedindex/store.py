"""Reading an index: files, vectors, labels, the model. SQLite is the truth; this module never changes it.

Conventions: paths are bytes, times and lengths are seconds, vectors are float16 as the model returned them (an all-zero
row is a window of digital silence). A window is a 64-bit number; its file is the one whose run of windows holds it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from embedindex.arrays import Float16Array, Int64Array
from embedindex.crawl import SEPARATOR
from embedindex.database import REPAIR, database_path, open_reader, sqlite_errors, too_new
from embedindex.errors import IndexDamagedError, display_path
from embedindex.models.base import ModelIdentity
from embedindex.records import FILE_COLUMNS, Counts, FileRecord, IndexModel, Label, request_from_json, vectors_hash
from embedindex.schema import WINDOWS_PER_ROW


def path_range(folder: bytes) -> tuple[bytes, bytes]:
    """Return the bounds between which, both excluded, all paths below a folder sort."""
    stem = folder.rstrip(SEPARATOR)
    return stem + SEPARATOR, stem + bytes([SEPARATOR[0] + 1])


class Store:
    """An index, open for reading. Use as a context manager, or call `close`.

    Raises:
        IndexNotFoundError: from the constructor, when there is no index in the folder.
        StoreError: from any method, when the database cannot be read.
    """

    def __init__(self, folder: str, connection: sqlite3.Connection | None = None) -> None:
        self.folder = folder
        self._connection = open_reader(folder) if connection is None else connection
        self._known_dimension = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with sqlite_errors(self.folder):
            return self._connection.execute(sql, parameters).fetchall()

    def _stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with sqlite_errors(self.folder):
            yield from map(tuple, self._connection.execute(sql, parameters))  # a cursor itself would be closed, late

    def _row(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        rows = self._rows(sql, parameters)
        return rows[0] if rows else None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read inside see one and the same state, whatever a scan writes meanwhile."""
        with sqlite_errors(self.folder):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:  # SQLite ends it by itself after some errors
                self._rows("COMMIT")

    def setting(self, name: str) -> int | str:
        """Return one row of the table ``settings``."""
        row = self._row("SELECT value FROM settings WHERE name = ?", (name,))
        if row is None:
            raise KeyError(name)
        value: int | str = row[0]
        return value

    def optional_setting(self, name: str, default: float) -> float:
        """Return one row of the table ``settings``, or `default` when there is none."""
        row = self._row("SELECT value FROM settings WHERE name = ?", (name,))
        return default if row is None else float(row[0])

    @property
    def generation(self) -> int:
        """A number that grows with every change to the windows of the index."""
        return int(self.setting("generation"))

    @property
    def removals_after(self) -> int:
        """The generation from which on the log of removed windows is complete."""
        return int(self.setting("removals_after"))

    @property
    def next_window(self) -> int:
        """The first window number that no file has had yet."""
        return int(self.setting("next_window"))

    @property
    def database_id(self) -> str:
        """A random name given to the database when it was made."""
        return str(self.setting("database_id"))

    @property
    def index_stamps(self) -> tuple[str, ...]:
        """The random names of the index files that may be this database's: the newest and the one before."""
        row = self._row("SELECT value FROM settings WHERE name = 'index_stamps'")
        return () if row is None else tuple(str(row[0]).split())

    def model(self) -> IndexModel | None:
        """Return the model of the index, None before the first scan; of a later version: IndexTooNewError."""
        row = self._row("SELECT id, identity, request, hop_s FROM models ORDER BY id LIMIT 1")
        if row is None:
            return None
        try:
            identity = ModelIdentity.from_json(row[1])
        except TypeError as error:  # an argument that no class here takes
            raise too_new(
                database_path(self.folder), "its model is described by more than this program knows"
            ) from error
        return IndexModel(row[0], identity, request_from_json(row[2]), row[3])

    def space(self) -> bytes | None:
        """Return the learnt transform of the index, as `embedindex.space` wrote it."""
        row = self._row("SELECT data FROM spaces LIMIT 1")
        return None if row is None else row[0]

    # -- files ---------------------------------------------------------------------------------------------------

    def _records(self, rest: str, parameters: Sequence[Any] = ()) -> list[FileRecord]:
        return [FileRecord(*row) for row in self._rows(f"SELECT {FILE_COLUMNS} FROM files {rest}", parameters)]  # noqa: S608

    def files(self, where: str = "1", parameters: Sequence[Any] = ()) -> Iterator[FileRecord]:
        """Yield the files that an SQL condition of ours selects, by path. Streams; never give it a user's text."""
        sql = f"SELECT {FILE_COLUMNS} FROM files WHERE {where} ORDER BY path"  # noqa: S608
        for row in self._stream(sql, parameters):
            yield FileRecord(*row)

    def file(self, file_id: int) -> FileRecord:
        """Return one file by its id.

        Raises:
            KeyError: there is none.
        """
        found = self._records("WHERE id = ?", (int(file_id),))
        if not found:
            raise KeyError(file_id)
        return found[0]

    def file_by_path(self, path: bytes) -> FileRecord | None:
        """Return the file with exactly that path, or None."""
        found = self._records("WHERE path = ?", (path,))
        return found[0] if found else None

    def file_state(self, path: bytes) -> tuple[int, int, int, str, str | None, str | None, int] | None:
        """Return (id, size, mtime_ns, status, missing_since, error_kind, device): all that a rescan must compare."""
        row = self._row(
            "SELECT id, size, mtime_ns, status, missing_since, error_kind, device FROM files WHERE path = ?", (path,)
        )
        return None if row is None else (row[0], row[1], row[2], row[3], row[4], row[5], row[6])

    def paths_below(self, folder: bytes) -> Iterator[tuple[int, bytes, int, str | None]]:
        """Yield (id, path, device, missing_since) of the files in a folder and below it, or of that file, by path."""
        low, high = path_range(folder)
        own = self.file_by_path(folder)
        if own is not None:
            yield own.id, own.path, own.device, own.missing_since
        while True:  # page by page, so that what was yielded may be changed meanwhile
            rows = self._rows(
                "SELECT id, path, device, missing_since FROM files WHERE path > ? AND path < ?"
                " ORDER BY path LIMIT 1000",
                (low, high),
            )
            for row in rows:
                yield row[0], row[1], row[2], row[3]
            if not rows:
                return
            low = rows[-1][1]

    def failure_by_content(self, content_hash: bytes) -> tuple[str, str] | None:
        """Return (kind, reason) of a file with that content that could not be used, or None."""
        row = self._row(
            "SELECT error_kind, error_reason FROM files"
            " WHERE content_hash = ? AND status = 'failed' AND error_kind <> 'io' LIMIT 1",
            (content_hash,),
        )
        return None if row is None else (row[0], row[1])

    def ids_by_content(self, content_hash: bytes) -> list[int]:
        """Return the ids of the embedded files with that content, lowest first; their vectors may be damaged."""
        rows = self._rows("SELECT id FROM files WHERE content_hash = ? AND status = 'ok' ORDER BY id", (content_hash,))
        return [row[0] for row in rows]

    def whole_files(self, file_ids: Iterable[int]) -> Iterator[FileRecord]:
        """Yield those of some embedded files whose vectors are whole, one after the other.

        Files with damaged vectors are left out, so that a scan embeds them again and never copies the damage.
        """
        records = (self.file(file_id) for file_id in file_ids)
        return (record for record in records if self.has_whole_vectors(record))

    def files_by_inode(self, device: int, inode: int) -> list[FileRecord]:
        """Return the files last seen at that device and inode number."""
        return self._records("WHERE inode = ? AND device = ? ORDER BY id", (inode, device))

    def owners_of_windows(self, windows: Int64Array) -> Int64Array:
        """Return the file id of each window number, -1 where no file has it any more.

        Args:
            windows: (n,) int64, ascending.
        """
        owners = np.full(len(windows), -1, np.int64)
        position = 0
        while position < len(windows):
            window = int(windows[position])
            row = self._row(
                "SELECT id, first_window + n_windows FROM files WHERE first_window <= ? AND first_window IS NOT NULL"
                " ORDER BY first_window DESC LIMIT 1",
                (window,),
            )
            if row is None or row[1] <= window:
                position += 1
                continue
            after = int(np.searchsorted(windows, row[1]))
            owners[position:after] = row[0]
            position = after
        return owners

    def has_missing(self) -> bool:
        """Return whether any file is marked as missing."""
        return self._row("SELECT 1 FROM files WHERE missing_since IS NOT NULL LIMIT 1") is not None

    def counts(self) -> Counts:
        """Return how much the index holds."""
        row = self._row(
            "SELECT count(*), "
            "count(*) FILTER (WHERE status = 'ok' AND missing_since IS NULL), "
            "count(*) FILTER (WHERE status = 'failed' AND missing_since IS NULL), "
            "count(*) FILTER (WHERE missing_since IS NOT NULL), "
            "coalesce(sum(n_windows) FILTER (WHERE missing_since IS NULL), 0), "
            "coalesce(sum(n_silent) FILTER (WHERE missing_since IS NULL), 0), "
            "coalesce(sum(duration) FILTER (WHERE missing_since IS NULL AND status = 'ok'), 0.0), "
            "(SELECT count(*) FROM labels) FROM files"
        )
        if row is None:
            raise AssertionError("an aggregate returns a row")
        return Counts(*row)

    def sounding_windows(self) -> int:
        """Return how many windows are not digital silence, those of missing files too."""
        row = self._row("SELECT coalesce(sum(n_windows - n_silent), 0) FROM files")
        return 0 if row is None else int(row[0])

    def roots(self) -> list[tuple[int, bytes, int | None]]:
        """Return (id, path, device) of every scanned root."""
        return [(row[0], row[1], row[2]) for row in self._rows("SELECT id, path, device FROM roots ORDER BY id")]

    def last_scan(self) -> str | None:
        """Return when the last scan that changed something ended (ISO 8601, UTC), or began if it never ended."""
        row = self._row("SELECT coalesce(finished_at, started_at) FROM runs ORDER BY id DESC LIMIT 1")
        return None if row is None else row[0]

    def last_unseen(self) -> list[tuple[str, str]]:
        """Return (path, reason) of what that scan could not look at."""
        row = self._row("SELECT json_extract(summary, '$.unseen') FROM runs ORDER BY id DESC LIMIT 1")
        return [] if row is None or row[0] is None else [(path, reason) for path, reason in json.loads(row[0])]

    def labels_of(self, file_ids: Iterable[int]) -> dict[int, list[Label]]:
        """Return the labels of some files; files without labels are left out."""
        labels: dict[int, list[Label]] = {}
        for file_id in file_ids:
            rows = self._rows(
                "SELECT key, value, source, confidence FROM labels WHERE file_id = ?"
                " ORDER BY key, confidence DESC, value",
                (int(file_id),),
            )
            if rows:
                labels[file_id] = [Label(*row) for row in rows]
        return labels

    def window_runs(self, where: str = "1", parameters: Sequence[Any] = ()) -> list[tuple[int, int]]:
        """Return (first window, number of windows) of the embedded files that an SQL condition of ours selects."""
        rows = self._rows(
            f"SELECT first_window, n_windows FROM files WHERE first_window IS NOT NULL AND ({where}) "  # noqa: S608
            "ORDER BY first_window",
            parameters,
        )
        return [(row[0], row[1]) for row in rows]

    # -- checks ----------------------------------------------------------------------------------------------------

    def integrity_problems(self) -> list[str]:
        """Return what SQLite's own checks find wrong with the database."""
        found = [" ".join(str(row[0]).split()) for row in self._rows("PRAGMA integrity_check(20)") if row[0] != "ok"]
        return found + [f"a row of {row[0]} refers to nothing" for row in self._rows("PRAGMA foreign_key_check")]

    def highest_window(self) -> int:
        """Return the highest window number that a file or a removed one has, -1 when there is none."""
        row = self._row(
            "SELECT max(last) FROM (SELECT max(first_window + n_windows) - 1 AS last FROM files"
            " UNION ALL SELECT max(first_window + n_windows) - 1 FROM removed_windows)"
        )
        return -1 if row is None or row[0] is None else int(row[0])

    # -- vectors -------------------------------------------------------------------------------------------------

    def _dimension(self) -> int:
        """Return the width of the index's vectors, 0 while it has no model; asked for with every file."""
        if self._known_dimension:
            return self._known_dimension
        row = self._row("SELECT dimension FROM models ORDER BY id LIMIT 1")
        dimension = 0 if row is None else int(row[0])
        if not self._connection.in_transaction:  # a model once committed stays; one that was not may be rolled back
            self._known_dimension = dimension
        return dimension

    def vectors_of(self, record: FileRecord) -> Float16Array:
        """Return the vectors of one file, (n_windows, dimension) float16, in order of time.

        Raises:
            IndexDamagedError: there are more or fewer of them than there should be.
        """
        rows = self._rows("SELECT data FROM vectors WHERE file_id = ? ORDER BY first_window", (record.id,))
        data = b"".join(row[0] for row in rows)
        dimension = self._dimension()
        if len(data) != record.n_windows * dimension * 2:
            raise IndexDamagedError(f"{display_path(record.path)}: its vectors are damaged; {REPAIR}")
        return np.frombuffer(data, np.float16).reshape(record.n_windows, dimension)

    def has_whole_vectors(self, record: FileRecord) -> bool:
        """Return whether the stored vectors of an embedded file are those that were written, each in its place."""
        width, window = self._dimension() * 2, record.first_window
        sql = "SELECT first_window, n_windows, data FROM vectors WHERE file_id = ? ORDER BY first_window"
        rows = self._rows(sql, (record.id,))
        for first, count, data in rows:
            if first != window or len(data) != count * width:
                return False
            window = first + count
        whole = window == (record.first_window or 0) + record.n_windows
        return whole and vectors_hash(b"".join(data for _, _, data in rows)) == record.vectors_hash

    def vector_batches(self, from_window: int = 0, rows: int = 256) -> Iterator[tuple[Int64Array, Float16Array]]:
        """Yield (window numbers (n,) int64, vectors (n, dimension) float16) of all windows from a number on, in order.

        Args:
            from_window: the first window number wanted.
            rows: how many table rows (of up to 32 windows) go into a batch.

        Raises:
            IndexDamagedError: a row does not hold as many vectors as it says.
        """
        dimension = self._dimension()
        position = from_window
        while True:
            found = self._rows(
                "SELECT first_window, n_windows, data FROM vectors WHERE first_window >= ?"
                " ORDER BY first_window LIMIT ?",
                (position, rows),
            )
            if not found:
                return
            for first, count, data in found:
                if len(data) != count * dimension * 2:
                    raise IndexDamagedError(
                        f"{display_path(self.folder)}: the vectors of windows {first} to {first + count - 1} are "
                        "damaged; `embedindex verify` names the files"
                    )
            numbers = np.concatenate([np.arange(first, first + count, dtype=np.int64) for first, count, _ in found])
            vectors = np.frombuffer(b"".join(data for _, _, data in found), np.float16).reshape(-1, dimension)
            yield numbers, vectors
            position = found[-1][0] + 1

    def vector_rows(self, runs: str) -> Iterator[tuple[int, int, bytes]]:
        """Yield (first window, number, data) of the rows that hold windows of some runs, a JSON array of [from, to]."""
        yield from self._stream(
            "SELECT vectors.first_window, n_windows, data FROM json_each(?) CROSS JOIN vectors"
            " ON vectors.first_window BETWEEN json_extract(value, '$[0]') - ? AND json_extract(value, '$[1]')"
            " AND vectors.first_window + n_windows > json_extract(value, '$[0]')",
            (runs, WINDOWS_PER_ROW - 1),
        )

    def removed_since(self, generation: int) -> list[tuple[int, int]]:
        """Return (first window, number of windows) of what was removed after a generation."""
        rows = self._rows(
            "SELECT first_window, n_windows FROM removed_windows WHERE generation > ? ORDER BY first_window",
            (generation,),
        )
        return [(row[0], row[1]) for row in rows]
