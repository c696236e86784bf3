"""Opening the SQLite database of an index, for reading or as its one writer, and putting SQLite's errors into words.

Only the writer checkpoints (readers never do): two connections that write and checkpoint at the same instant can lose
pages in SQLite before 3.51.3. Readers open the file read-only, and as immutable where the medium cannot be written.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from embedindex.errors import (
    DiskFullError,
    IndexBusyError,
    IndexDamagedError,
    IndexNotFoundError,
    IndexReadOnlyError,
    IndexTooNewError,
    StoreError,
    display_path,
)
from embedindex.lock import take_lock
from embedindex.schema import APPLICATION_ID, SCHEMA_VERSION, migrations

DATABASE_NAME = "embedindex.db"
BUSY_TIMEOUT_MS = 30_000
REPAIR = "run `embedindex verify --repair`, then scan again"
MIGRATION_WAIT_S, MIGRATION_POLL_S = 60.0, 0.05  # while another process migrates the index
# The write-ahead log is cut back to this size at a checkpoint; it only grows beyond it under a long-lived reader.
WAL_LIMIT_BYTES = 64 * 2**20


def database_path(folder: str) -> str:
    """Return the path of the database in an index folder."""
    return os.path.join(folder, DATABASE_NAME)


@contextmanager
def sqlite_errors(folder: str) -> Iterator[None]:
    """Turn SQLite's exceptions into embedindex's, with what to do about them."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        where = display_path(database_path(folder))
        name = getattr(error, "sqlite_errorname", "") or ""  # Python ≥ 3.11
        text = str(error)
        if name.startswith("SQLITE_FULL") or "disk is full" in text:
            raise DiskFullError(
                f"{where}: no space left on the disk; what was done so far is kept. Free some space and run again"
            ) from error
        if name.startswith("SQLITE_READONLY") or "readonly database" in text:
            raise IndexReadOnlyError(f"{where}: the index cannot be written; check the folder's permissions") from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "is locked" in text:
            raise IndexBusyError(
                f"{where}: another program holds the index locked; try again when it is done"
            ) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in text or "not a database" in text:
            raise IndexDamagedError(
                f"{where}: the database is damaged ({text}); run `embedindex verify --repair`, put a backup of "
                "the folder in its place, or scan into another with --index DIR"
            ) from error
        if name.startswith("SQLITE_IOERR") or "disk I/O error" in text:
            raise StoreError(
                f"{where}: the disk cannot be read or written there ({text}); what was done so far is kept. Check that "
                "it has space and is well, then run again"
            ) from error
        if name.startswith("SQLITE_CANTOPEN") or "unable to open" in text:
            raise StoreError(f"{where}: cannot be opened; check the permissions of the folder and its files") from error
        raise StoreError(f"{where}: {text}") from error


def _uri(path: str, mode: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{mode}"


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _check_kind(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema version; refuse databases that are not ours or are newer than this program."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        # The list of migrations comes first, in a transaction of its own: a crash may have left it alone in there.
        tables = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE tbl_name <> '_sqlite_migrations'"
        ).fetchone()[0]
        if tables:
            raise StoreError(f"{display_path(path)}: this database is not an embedindex index; choose another folder")
    if version > SCHEMA_VERSION:
        raise too_new(path, f"schema {version}, this program knows {SCHEMA_VERSION}")
    return version


def too_new(path: str, what: str) -> IndexTooNewError:
    """Return the error for the database of a later version, which something of it shows."""
    return IndexTooNewError(
        f"{display_path(path)}: made by a later version of embedindex ({what}); nothing was changed. Update "
        "embedindex, or choose another --index"
    )


def _connect(path: str, mode: str) -> tuple[sqlite3.Connection, int]:
    """Return a connection that does not write, and the schema version it found."""
    connection = sqlite3.connect(_uri(path, mode), uri=True, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
        return connection, _check_kind(connection, path)
    except BaseException:
        connection.close()
        raise


def _refuse_unmerged_log(path: str) -> None:
    """Raise when changes wait in the write-ahead log, which an immutable database is read without."""
    try:
        waiting = os.path.getsize(path + "-wal")
    except OSError:
        return
    if waiting:
        raise IndexReadOnlyError(
            f"{display_path(path)}: the last scan ended early and the folder cannot be written, so that its changes "
            "cannot be read; run `embedindex info` once where the folder can be written"
        )


def open_reader(folder: str) -> sqlite3.Connection:
    """Return a read-only connection to the index in `folder`; an index of an earlier version is migrated first.

    Raises:
        IndexBusyError: it is of an earlier version, and another process is writing to it.
        IndexReadOnlyError: it is of an earlier version, or was left unfinished, and the folder cannot be written.
        IndexNotFoundError: there is no index there.
        IndexTooNewError: a later version made it.
        StoreError: its subclasses say what else is wrong.
    """
    path = database_path(folder)
    if not os.path.isfile(path):
        raise IndexNotFoundError(
            f"{display_path(folder)}: there is no index here; make one with `embedindex scan FOLDER`"
        )
    connection, version = _connect_reader(folder, path)
    gives_up = time.monotonic() + MIGRATION_WAIT_S
    while 0 < version < SCHEMA_VERSION:
        connection.close()
        _bring_up_to_date(folder, may_wait=time.monotonic() < gives_up)
        connection, version = _connect_reader(folder, path)
    if version < SCHEMA_VERSION:
        connection.close()
        raise IndexNotFoundError(
            f"{display_path(folder)}: the index was not finished; run `embedindex scan FOLDER` once"
        )
    return connection


def _connect_reader(folder: str, path: str) -> tuple[sqlite3.Connection, int]:
    with sqlite_errors(folder):
        try:
            connection, version = _connect(path, "mode=ro")
        except sqlite3.OperationalError as error:
            # A write-ahead log needs a shared-memory file beside it, which a read-only medium cannot have.
            if "is locked" in str(error) or os.access(folder, os.W_OK):
                raise
            _refuse_unmerged_log(path)
            connection, version = _connect(path, "immutable=1")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection, version


def _bring_up_to_date(folder: str, *, may_wait: bool) -> None:
    """Migrate an index of an earlier version, as a scan would; or wait a moment while another process does."""
    try:
        lock = take_lock(folder, wait_s=0.0)
    except IndexBusyError:
        if not may_wait:
            raise
        time.sleep(MIGRATION_POLL_S)
        return
    except IndexReadOnlyError as error:
        raise IndexReadOnlyError(
            f"{display_path(folder)}: made by an earlier version of embedindex and cannot be brought up to date, as "
            "the folder cannot be written; run `embedindex info` once where it can"
        ) from error
    try:
        open_writer(folder).close()
    finally:
        lock.release()


def open_writer(folder: str, *, durable: bool = False) -> sqlite3.Connection:
    """Return the writing connection; makes the folder, the database and missing migrations. The caller holds the lock.

    Args:
        folder: the index folder.
        durable: sync at every commit (`synchronous=FULL`): a power cut loses nothing, at the price of speed.

    Raises:
        IndexTooNewError: a later version made it; it is left untouched.
        StoreError: its subclasses say what else is wrong.
    """
    path = database_path(folder)
    with sqlite_errors(folder):
        connection = sqlite3.connect(_uri(path, "mode=rwc"), uri=True, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection)
            version = _check_kind(connection, path)
            if version < SCHEMA_VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                _migrate(connection)
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreError(
                    f"{display_path(path)}: this disk cannot hold the database's write-ahead log (it offers {mode!r}); "
                    "put the index on a local disk with --index"
                )
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        except BaseException:
            connection.close()
            raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database

    database = Database(connection, strict=True)
    migrations().apply(database)
