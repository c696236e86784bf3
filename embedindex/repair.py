"""Repair of a damaged database: what can be read goes into a new one, the damaged one is kept beside it.

Tables are read row by row in the order of their keys, stepping over keys whose pages cannot be read. Files whose
vectors are lost or not those that were written stay with their labels and are listened to again by the next scan.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import quote

from embedindex.database import database_path
from embedindex.errors import IndexDamagedError, IndexNotFoundError, display_path
from embedindex.file_stat import RECHECK
from embedindex.index_build import Progress
from embedindex.index_file import index_path
from embedindex.index_refresh import refresh_index
from embedindex.lock import take_lock
from embedindex.store import Store
from embedindex.verify import orphan_vectors
from embedindex.writer import StoreWriter

# Every table with an integer key to read it by, those first that others refer to. Settings and the log for the search
# index are made anew.
KEYS = {
    "models": "id",
    "spaces": "model_id",
    "roots": "id",
    "files": "id",
    "vectors": "first_window",
    "label_imports": "id",
    "labels": "file_id",
    "runs": "id",
    "analyses": "file_id",
}
LAST_KEY = 2**62
SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass
class Repair:
    """What a repair did.

    Attributes:
        kept: where the damaged database lies now.
        rows: rows taken over, by table.
        refused: rows that could be read and do not fit together with the others, by table.
        holes: places that could not be read, by table.
        again: files that are in the index and have to be listened to again.
        files: files with whole vectors.
    """

    kept: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    holes: dict[str, int] = field(default_factory=dict)
    again: int = 0
    files: int = 0

    @property
    def labels_lost(self) -> bool:
        """Whether labels may be lost."""
        return any(self.holes.get(table) or self.refused.get(table) for table in ("labels", "files"))


def repair(folder: str, progress: Progress | None = None) -> Repair:
    """Put all that can be read of a damaged database into a new one in its place.

    Args:
        folder: the index.
        progress: called with (what is being done, windows done, windows in all) while the search index is made anew.

    Raises:
        IndexNotFoundError: there is no database.
        IndexDamagedError: too little can be read of it; nothing was changed.
        IndexBusyError: another process is writing.
        StoreError: the new database cannot be written; the old one is as it was.
    """
    path = database_path(folder)
    if not os.path.isfile(path):
        raise IndexNotFoundError(f"{display_path(folder)}: there is no index here to repair")
    scratch = os.path.join(folder, "repair.tmp")
    lock = take_lock(folder, 0.0)
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        done = Repair()
        try:
            with StoreWriter(scratch) as store, _at_full_length(path):
                _take_over(path, store, done)
                _drop_damaged(store, done)
            done.kept = _swap(path, database_path(scratch))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        lock.release()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(index_path(folder))
    with StoreWriter(folder) as store:
        refresh_index(store, rebuild=True, progress=progress)
    return done


@contextlib.contextmanager
def _at_full_length(path: str) -> Iterator[None]:
    """Make a database that was cut short as long as its header says it is, for SQLite reads no shorter one at all.

    What is missing is zeros meanwhile. See "The Database Header", https://sqlite.org/fileformat.html.
    """
    with open(path, "rb") as file:
        header = file.read(100)
    page_bytes = int.from_bytes(header[16:18], "big")
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    counted = header[24:28] == header[92:96]  # else an old program wrote it, and not how long it is
    here, whole = os.path.getsize(path), int.from_bytes(header[28:32], "big") * page_bytes
    cut = header.startswith(SQLITE_MAGIC) and counted and page_bytes <= here < whole
    try:
        if cut:
            with contextlib.suppress(OSError):  # longer than a file can be: SQLite then says what it makes of it
                os.truncate(path, whole)
        yield
    finally:
        if cut:
            os.truncate(path, here)


def _take_over(path: str, store: StoreWriter, done: Repair) -> None:
    """Copy every row that can be read."""
    uri = f"file:{quote(os.fsencode(path))}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as damaged:
        for table, key in KEYS.items():
            new = [row[1] for row in store._rows(f"PRAGMA table_info({table})")]
            try:
                old = {row[1] for row in damaged.execute(f"PRAGMA table_info({table})")}
            except sqlite3.DatabaseError as error:
                raise IndexDamagedError(
                    f"{display_path(path)}: nothing can be read of it ({error}); it was left as it is. Put a backup in "
                    "its place, or scan into another index with --index DIR"
                ) from error
            columns = [column for column in new if column in old]
            if columns:
                with store.transaction():
                    _copy(damaged, store, table, key, columns, done)
            if table == "models" and store.model() is None:
                raise IndexDamagedError(
                    f"{display_path(path)}: which model it was made with cannot be read; it was left as it is. Put a "
                    "backup in its place, or scan into another index with --index DIR"
                )
        with store.transaction():
            following = store.highest_window() + 1
            store._do("UPDATE settings SET value = ? WHERE name = 'next_window'", (following,))
            store._do("UPDATE settings SET value = 1 WHERE name IN ('generation', 'removals_after')")


def _copy(
    damaged: sqlite3.Connection, store: StoreWriter, table: str, key: str, columns: list[str], done: Repair
) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own schema
    roots = {row[0] for row in store._rows("SELECT id FROM roots")}
    done.rows[table] = done.refused[table] = done.holes[table] = 0
    for row in _readable(damaged, table, key, names, done):
        if table == "files":
            path, text, root = (row[columns.index(name)] for name in ("path", "path_text", "root_id"))
            if not isinstance(path, bytes) or path.decode("utf-8", "replace") != text:  # a bit of it has changed
                done.refused[table] += 1
                continue
            if root not in roots:
                roots.add(root)
                _stand_in_root(store, root, os.path.dirname(path))
        try:
            store._connection.execute(insert, row)
            done.rows[table] += 1
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError):
            done.refused[table] += 1


def _stand_in_root(store: StoreWriter, root: object, folder: bytes) -> None:
    """Put a row in the place of a root's that is lost; the next scan adds the true one."""
    with contextlib.suppress(sqlite3.Error):
        store._connection.execute(
            "INSERT INTO roots (id, path, path_text, first_scan) VALUES (?, ?, ?, '')",
            (root, folder + b"/", folder.decode("utf-8", "replace")),
        )


def _readable(
    damaged: sqlite3.Connection, table: str, key: str, names: str, done: Repair
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a table that can be read, by key."""
    sql = f"SELECT {key}, {names} FROM {table} NOT INDEXED WHERE {key} >= ? ORDER BY {key}"  # noqa: S608
    position: int | None = -1
    while position is not None:
        last = position
        try:
            for found, *row in damaged.execute(sql, (position,)):
                if not isinstance(found, int) or found < last:
                    raise sqlite3.DatabaseError("keys out of order")
                last = found
                yield tuple(row)
        except sqlite3.DatabaseError:
            done.holes[table] += 1
            position = _behind(damaged, sql, last)
        else:
            return


def _behind(damaged: sqlite3.Connection, sql: str, last: int) -> int | None:
    """Return the lowest key above `last` from which on a row, or the table's end, can be read; None when none is."""

    def works(start: int) -> bool:
        try:
            row = damaged.execute(f"{sql} LIMIT 1", (start,)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return row is None or (isinstance(row[0], int) and row[0] >= start)

    step = 1
    while not works(last + step):
        step *= 2
        if last + step > LAST_KEY:
            return None
    low, high = last + step // 2, last + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def _drop_damaged(store: StoreWriter, done: Repair) -> None:
    """Make files without whole vectors ones that the next scan listens to, under the same id and with their labels."""
    ids = [row[0] for row in store._rows("SELECT id FROM files WHERE status = 'ok' ORDER BY id")]
    with store.transaction():
        for file_id in ids:
            if store.has_whole_vectors(store.file(file_id)):
                done.files += 1
                continue
            done.again += 1
            store._do("DELETE FROM vectors WHERE file_id = ?", (file_id,))
            store._do(
                "UPDATE files SET status = 'failed', error_kind = 'io', error_reason = 'its vectors were lost to damage"
                " of the index; the next scan listens to it again', mtime_ns = ?, first_window = NULL, n_windows = 0,"
                " n_silent = 0, hop_s = NULL, vectors_hash = NULL, content_hash = NULL WHERE id = ?",
                (RECHECK, file_id),
            )


def _swap(path: str, repaired: str) -> str:
    """Put the repaired database in the damaged one's place, which gets another name that is returned."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    kept = f"{path}.damaged-{stamp}"
    for ending in ("", "-wal"):
        if os.path.exists(path + ending):
            shutil.copy2(path + ending, kept + ending)
    # A log left beside another database would be replayed into it.
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ending)
    os.replace(repaired, path)
    return kept


def needs_repair(folder: str) -> bool:
    """Return whether the database is damaged, as opposed to the search index.

    Raises:
        StoreError: it cannot be looked at, for another reason than damage.
    """
    try:
        with Store(folder) as store:
            if store.integrity_problems() or orphan_vectors(store):
                return True
            return any(not store.has_whole_vectors(record) for record in store.files("status = 'ok'"))
    except IndexDamagedError:
        return True
