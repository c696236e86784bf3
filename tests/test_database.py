"""Opening databases that are old, new, foreign, damaged, locked, or on a medium that cannot be written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from embedindex import database
from embedindex.database import database_path, open_reader, open_writer, sqlite_errors
from embedindex.errors import (
    DiskFullError,
    IndexBusyError,
    IndexDamagedError,
    IndexNotFoundError,
    IndexReadOnlyError,
    IndexTooNewError,
    StoreError,
)
from embedindex.lock import take_lock
from embedindex.models import ModelRequest
from embedindex.models.base import Block, ModelIdentity
from embedindex.schema import APPLICATION_ID, SCHEMA_VERSION, migrations
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.processes import PATIENCE_S
from tests.storing import execute, open_filled, put

CHECKOUT = Path(__file__).parents[1]


def filled(index: str, files: int = 3) -> bytes:
    """Make an index with a few files; return the bytes of its database."""
    with open_filled(index) as store:
        for number in range(files):
            put(store, b"%d.wav" % number, 40, number)
    return Path(database_path(index)).read_bytes()


def write_database(index: str, data: bytes) -> None:
    Path(index).mkdir(exist_ok=True)
    Path(database_path(index)).write_bytes(data)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run some Python in a process of its own, with this checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def test_database_says_what_it_is(index: str) -> None:
    filled(index)
    connection = sqlite3.connect(database_path(index))
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    assert all("STRICT" in sql for name, sql in tables if not name.startswith(("_", "sqlite_")))
    assert len(migrations()._migrations) == SCHEMA_VERSION


def make_first_version(index: str) -> None:
    """Make an index of one labelled file as the first version of the schema had it."""
    from sqlite_utils import Database

    Path(index).mkdir()
    connection = sqlite3.connect(database_path(index), isolation_level=None)
    migrations().apply(Database(connection, strict=True), stop_before="002_tempo_and_key")
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.execute("INSERT INTO roots VALUES (1, X'2F61', '/a', 7, '2026-01-01')")
    connection.execute(
        "INSERT INTO files (id, path, path_text, root_id, status, size, mtime_ns, device, inode, first_window,"
        " n_windows, hop_s, scanned_at) VALUES (5, X'2F612F62', '/a/b', 1, 'ok', 1, 2, 7, 4, 0, 1, 0.5, '2026-01-01')"
    )
    connection.execute("INSERT INTO vectors VALUES (0, 5, 1, X'0102')")
    connection.execute("INSERT INTO labels VALUES (5, 'genre', 'dub', 'human', 1, '2026-01-01', NULL)")
    connection.close()


@pytest.mark.parametrize("opener", [open_reader, open_writer])
def test_index_of_the_first_version_migrates_and_loses_nothing(index: str, opener: Any) -> None:
    unchanged = ("SELECT * FROM roots", "SELECT * FROM vectors", "SELECT * FROM labels")
    make_first_version(index)
    connection = sqlite3.connect(database_path(index))
    before = [connection.execute(sql).fetchall() for sql in unchanged]
    columns = connection.execute("SELECT * FROM files").fetchall()
    connection.close()
    connection = opener(index)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    after = [connection.execute(sql).fetchall() for sql in unchanged]
    assert after == before
    (row,) = connection.execute("SELECT * FROM files").fetchall()
    assert row[: len(columns[0])] == columns[0]
    assert set(row[len(columns[0]) :]) == {None}
    assert connection.execute("SELECT path, instrument FROM library").fetchall() == [("/a/b", None)]
    connection.close()
    take_lock(index, 0.0).release()


def test_reader_of_an_earlier_version_leaves_it_alone_while_somebody_writes(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first_version(index)
    monkeypatch.setattr(database, "MIGRATION_WAIT_S", 0.0)
    lock = take_lock(index, 0.0)
    before = Path(database_path(index)).read_bytes()
    with pytest.raises(IndexBusyError):
        open_reader(index)
    assert Path(database_path(index)).read_bytes() == before
    lock.release()
    open_reader(index).close()


def test_reader_waits_while_another_process_migrates(index: str) -> None:
    make_first_version(index)
    lock = take_lock(index, 0.0)
    opened: list[int] = []

    def read() -> None:
        connection = open_reader(index)
        opened.extend(connection.execute("PRAGMA user_version").fetchone())
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    assert not opened
    open_writer(index).close()  # the lock stays held, as by a scan that goes on
    reader.join(PATIENCE_S)
    lock.release()
    assert opened == [SCHEMA_VERSION]


def test_two_indexes_have_different_names(tmp_path: Path) -> None:
    names = set()
    for number in range(2):
        with StoreWriter(str(tmp_path / str(number))) as store:
            names.add(store.database_id)
    assert len(names) == 2


def test_index_of_a_later_version_is_refused_untouched(index: str) -> None:
    filled(index)
    execute(index, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = Path(database_path(index)).read_bytes()
    for opener in (open_reader, open_writer):
        with pytest.raises(
            IndexTooNewError, match=r"made by a later version of embedindex .*nothing was changed. Update"
        ):
            opener(index)
    assert Path(database_path(index)).read_bytes() == before


@pytest.mark.parametrize("place", ["$.surround", "$.blocks[0].surround"])
def test_index_whose_model_only_a_later_version_understands_is_refused_untouched(index: str, place: str) -> None:
    with StoreWriter(index) as writer, writer.transaction():
        blocks = (Block(4, False, 0.5), Block(4, False, 0.5))
        writer.use_model(ModelIdentity("duet", 8000, 8000, 8, blocks=blocks), ModelRequest("duet"), 1.0)
    execute(index, f"UPDATE models SET identity = json_set(identity, '{place}', 'front')")  # noqa: S608
    before = Path(database_path(index)).read_bytes()
    with (
        Store(index) as store,
        pytest.raises(
            IndexTooNewError, match=r"embedindex\.db: made by a later version .*nothing was changed. Update embedindex"
        ),
    ):
        store.model()
    assert Path(database_path(index)).read_bytes() == before


@pytest.mark.parametrize("opener", [open_reader, open_writer])
def test_database_of_another_program_is_refused_untouched(index: str, opener: Any) -> None:
    Path(index).mkdir()
    execute(index, "CREATE TABLE recipes (name TEXT)")
    before = Path(database_path(index)).read_bytes()
    with pytest.raises(StoreError, match="this database is not an embedindex index; choose another folder"):
        opener(index)
    assert Path(database_path(index)).read_bytes() == before


@pytest.mark.parametrize("opener", [open_reader, open_writer])
def test_file_that_is_no_database_is_refused_untouched(index: str, opener: Any) -> None:
    text = b"Dear diary, today nothing was indexed.\n" * 100
    write_database(index, text)
    with pytest.raises(IndexDamagedError, match=r"embedindex\.db: the database is damaged .*scan into another with"):
        opener(index)
    assert Path(database_path(index)).read_bytes() == text


def test_empty_file_is_an_index_that_was_not_finished(index: str) -> None:
    write_database(index, b"")
    with pytest.raises(IndexNotFoundError, match="was not finished; run `embedindex scan FOLDER` once"):
        open_reader(index)
    filled(index)
    open_reader(index).close()


def test_crash_between_the_first_two_transactions_is_got_over(index: str) -> None:
    from sqlite_utils import Database

    Path(index).mkdir()
    connection = sqlite3.connect(database_path(index), isolation_level=None)
    migrations().ensure_migrations_table(Database(connection))  # as `apply` does first
    connection.close()
    with pytest.raises(IndexNotFoundError):
        open_reader(index)
    filled(index)
    with Store(index) as store:
        assert store.counts().ok == 3


@pytest.mark.parametrize("sync", range(1, 7))
def test_kill_while_the_database_is_made_leaves_something_to_go_on_with(index: str, sync: int) -> None:
    # The n-th statement that SQLite is given kills the process.
    code = """
import os, signal, sqlite3, sys
from embedindex import database
left = int(sys.argv[2])
class Deadly(sqlite3.Connection):
    def execute(self, *arguments):
        global left
        if arguments[0].startswith(("PRAGMA", "BEGIN", "CREATE TABLE vectors", "INSERT", "COMMIT", "create")):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments)
connect = sqlite3.connect
sqlite3.connect = lambda *a, **k: connect(*a, **{**k, "factory": Deadly})
os.makedirs(sys.argv[1], exist_ok=True)
database.open_writer(sys.argv[1])
"""
    died = run_python(code, index, str(3 * sync))
    assert died.returncode == -signal.SIGKILL, died.stderr
    filled(index)
    with Store(index) as store:
        assert verify(store).files == 3
        assert store.integrity_problems() == []


def read_all(index: str) -> None:
    with Store(index) as store:
        for record in store.files():
            store.vectors_of(record)
        list(store.vector_batches())
        if store.integrity_problems():
            raise IndexDamagedError("embedindex.db: the database is damaged, and SQLite's own check finds it")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_truncated_database_is_damaged_and_said_to_be(index: str, share: float) -> None:
    data = filled(index, 20)
    write_database(index, data[: int(len(data) * share)])
    with pytest.raises(IndexDamagedError, match=r"embedindex\.db: the database is damaged"):
        read_all(index)


def test_overwritten_page_is_found(index: str) -> None:
    data = filled(index, 20)
    for page in range(1, len(data) // 4096):
        damaged = bytearray(data)
        damaged[page * 4096 : (page + 1) * 4096] = bytes(4096)
        write_database(index, bytes(damaged))
        with pytest.raises(IndexDamagedError):
            read_all(index)


def test_index_locked_by_another_program_is_busy(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(index)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    other = sqlite3.connect(database_path(index), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with StoreWriter(index) as store:
        with pytest.raises(IndexBusyError, match="another program holds the index locked; try again") as caught:
            store.forget_file(1)
        with Store(index) as reader:
            assert reader.counts().ok == 3  # reading goes on
        other.execute("COMMIT")
        store.forget_file(1)  # and so does writing, afterwards
    other.close()
    assert caught.value.exit_status == 75


def test_index_locked_for_good_is_busy_for_readers_too(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(index)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    other = sqlite3.connect(database_path(index), isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(IndexBusyError):
        open_reader(index)
    other.close()
    open_reader(index).close()


@pytest.mark.parametrize("name", [b"\xff\xfe", "ü 🥁".encode(), b"50% ?#&.d", b"two\nlines"])
def test_index_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: bytes) -> None:
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    filled(folder)
    with Store(folder) as store:
        assert store.counts().ok == 3
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    assert {"embedindex.db", "writer.lock"} <= set(os.listdir(folder))


def test_folder_in_place_of_the_database_is_no_index(index: str) -> None:
    os.makedirs(database_path(index))
    with pytest.raises(IndexNotFoundError):
        open_reader(index)
    with pytest.raises(StoreError, match=r"embedindex\.db: cannot be opened; check the permissions"):
        open_writer(index)


def test_file_in_place_of_the_folder_is_said(index: str, tmp_path: Path) -> None:
    Path(index).write_text("in the way")
    for folder in (index, os.path.join(index, "deeper")):
        with pytest.raises(StoreError, match="a file is in the way; choose another folder with --index"):
            StoreWriter(folder)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        ("database or disk is full", DiskFullError, "no space left on the disk; what was done so far is kept"),
        ("attempt to write a readonly database", IndexReadOnlyError, "cannot be written; check the folder's perm"),
        ("database table is locked", IndexBusyError, "another program holds the index locked"),
        ("database disk image is malformed", IndexDamagedError, "the database is damaged"),
        ("file is not a database", IndexDamagedError, "the database is damaged"),
        ("disk I/O error", StoreError, "cannot be read or written there .*Check that it has space and is well"),
        ("unable to open database file", StoreError, "cannot be opened; check the permissions"),
        ("something else", StoreError, "something else"),
    ],
)
def test_errors_of_sqlite_are_told_by_their_text_where_they_have_no_name(
    error: str, kind: type[StoreError], text: str
) -> None:
    with pytest.raises(StoreError, match=rf"/i/embedindex\.db: .*{text}") as caught, sqlite_errors("/i"):
        raise sqlite3.OperationalError(error)  # as Python 3.10 raises it, without sqlite_errorname
    assert type(caught.value) is kind


def test_errors_of_others_pass(index: str) -> None:
    with pytest.raises(ZeroDivisionError), sqlite_errors(index):
        raise ZeroDivisionError


# -- media that cannot be written ------------------------------------------------------------------------------

READ = """
import sys
import threading
from embedindex.errors import EmbedindexError
from embedindex.store import Store
from embedindex.writer import StoreWriter
for opener in (Store, StoreWriter):
    try:
        with opener(sys.argv[1]) as store:
            with store.snapshot():
                print(opener.__name__, store.counts().ok, sum(len(n) for n, _ in store.vector_batches()))
    except EmbedindexError as error:
        print(type(error).__name__, error)
"""


def read_only(folder: str) -> subprocess.CompletedProcess[str]:
    """Run `READ` where the folder lies on a read-only file system; skip where none can be had."""
    inner = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99; exec "$2" -c "$3" "$1"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1) to mount a folder read-only")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inner, "sh", folder, sys.executable, READ],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this system does not let a test mount a folder read-only")
    return done


def test_index_on_a_read_only_disk_can_be_read_but_not_written(index: str) -> None:
    filled(index)
    done = read_only(index)
    lines = done.stdout.splitlines()
    assert lines[0] == "Store 3 120", done
    assert lines[1].startswith("IndexReadOnlyError")
    assert "read-only" in lines[1]
    assert "--index" in lines[1]


def test_index_of_an_earlier_version_on_a_read_only_disk_says_so(index: str) -> None:
    make_first_version(index)
    before = Path(database_path(index)).read_bytes()
    lines = read_only(index).stdout.splitlines()
    assert lines[0].startswith("IndexReadOnlyError"), lines
    assert "made by an earlier version" in lines[0]
    assert Path(database_path(index)).read_bytes() == before


def test_index_with_changes_in_its_log_is_not_read_without_them(index: str, tmp_path: Path) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 40)
        copy = str(tmp_path / "copy")  # as after a crash: the log was not written back
        shutil.copytree(index, copy)
    os.unlink(os.path.join(copy, "embedindex.db-shm"))
    assert os.path.getsize(os.path.join(copy, "embedindex.db-wal")) > 0
    lines = read_only(copy).stdout.splitlines()
    assert lines[0].startswith("IndexReadOnlyError"), lines
    assert "the last scan ended early" in lines[0]
    with Store(copy) as reader:  # where it can be written, all is there
        assert reader.counts().ok == 1


def test_folder_without_permission_to_write_can_be_read_but_not_written(index: str) -> None:
    filled(index)
    mode = os.stat(index).st_mode
    os.chmod(index, 0o500)
    try:
        if os.access(index, os.W_OK):
            pytest.skip("permissions do not bind this user")
        with Store(index) as store:
            assert store.counts().ok == 3
        with pytest.raises(IndexReadOnlyError, match=r"cannot be written; check the folder.s permissions"):
            StoreWriter(index)
    finally:
        os.chmod(index, mode)


# -- the lock --------------------------------------------------------------------------------------------------


def test_lock_is_waited_for_as_long_as_asked(index: str) -> None:
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        lock = take_lock(index, 0.0)
        held.set()
        enough.wait(PATIENCE_S)
        time.sleep(0.2)
        lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE_S)
    with pytest.raises(IndexBusyError, match="another embedindex is writing to this index; wait for it to finish"):
        take_lock(index, 0.1)
    enough.set()
    take_lock(index, PATIENCE_S).release()
    holder.join()


def test_lock_in_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="File name too long"):
        take_lock(str(tmp_path / ("x" * 300)), 0.0)


NO_ROOM = """
import subprocess, sys
from embedindex.errors import EmbedindexError
from embedindex.writer import StoreWriter
if subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[2], "tmpfs", sys.argv[1]], capture_output=True).returncode:
    sys.exit(99)
for folder in (sys.argv[1], sys.argv[1] + "/deeper"):
    try:
        StoreWriter(folder)
    except EmbedindexError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("size=1m,nr_inodes=1", "DiskFullError .*no space left on the disk; free some and run again"),
        ("size=1m,ro", "IndexReadOnlyError .*the disk is read-only; choose another folder with --index"),
    ],
)
def test_lock_on_a_disk_without_room_is_said(tmp_path: Path, options: str, wanted: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1) to mount a disk")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", NO_ROOM, str(tmp_path), options],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare"):
        pytest.skip("this system does not let a test mount a disk")
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done
    for line in lines:
        assert re.match(wanted, line), line


def test_lock_in_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    mode = os.stat(tmp_path).st_mode
    os.chmod(tmp_path, 0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("permissions do not bind this user")
        for folder in (tmp_path, tmp_path / "deeper"):
            with pytest.raises(IndexReadOnlyError, match=r"cannot be written \(Permission denied\); check its permiss"):
                take_lock(str(folder), 0.0)
    finally:
        os.chmod(tmp_path, mode)
