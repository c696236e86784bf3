"""What an index keeps: exact paths, vectors under numbers that are never used twice, snapshots for readers."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.errors import IndexDamagedError, IndexNotFoundError
from embedindex.records import Label
from embedindex.store import Store, path_range
from embedindex.writer import StoreWriter
from tests.storing import ROOT, content, execute, open_filled, put, some_vectors, stat_of

HOSTILE_NAMES = [
    b"plain.wav",
    b"latin-\xe9.wav",  # not UTF-8
    b"\xff\xfe\x80.wav",
    b"two\nlines.wav",
    b"tab\tescape\x1b[31m.wav",
    b"quote'\"`;--.wav",
    "emoji 🥁 e\u0301.wav".encode(),
    "e-acute \u00e9.wav".encode(),  # another name than the decomposed one
    b"-rf *.wav",
    b" .wav",
    b"x" * 251 + b".wav",
]


def tables(index: str) -> sqlite3.Connection:
    return sqlite3.connect(os.path.join(index, "embedindex.db"), isolation_level=None)


def test_paths_come_back_byte_for_byte(index: str) -> None:
    with open_filled(index) as store:
        for number, name in enumerate(HOSTILE_NAMES):
            put(store, name, 2, number)
    with Store(index) as store:
        assert {record.path for record in store.files()} == {ROOT + b"/" + name for name in HOSTILE_NAMES}
        for number, name in enumerate(HOSTILE_NAMES):
            record = store.file_by_path(ROOT + b"/" + name)
            assert record is not None
            assert os.fsencode(record.text_path) == ROOT + b"/" + name
            np.testing.assert_array_equal(store.vectors_of(record), some_vectors(2, number))


def test_printable_copy_of_a_path_is_text_for_every_program(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"latin-\xe9.wav", 1)
    connection = tables(index)
    row = connection.execute("SELECT path, status, windows FROM library").fetchone()
    connection.close()
    assert row == ("/music/latin-\ufffd.wav", "ok", 1)


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name), unique=True, max_size=20))
@settings(max_examples=15)
def test_any_bytes_are_a_path(tmp_path_factory: pytest.TempPathFactory, names: list[bytes]) -> None:
    index = str(tmp_path_factory.mktemp("index"))
    with open_filled(index) as store:
        for name in names:
            put(store, name, 1)
        assert [record.path for record in store.files()] == sorted(ROOT + b"/" + name for name in names)


def test_everything_about_a_file_comes_back(index: str) -> None:
    vectors = some_vectors(70, 3, silent=2)
    with open_filled(index) as store:
        file_id = store.put_file(ROOT + b"/a.wav", 1, stat_of(4), content(vectors, b"h" * 16, note="cut short"))
    with Store(index) as store:
        record = store.file(file_id)
        np.testing.assert_array_equal(store.vectors_of(record), vectors)
    assert (record.size, record.mtime_ns, record.device, record.inode) == (1004, 1_500_000_000_000_000_005, 7, 104)
    assert (record.container, record.codec, record.sample_rate, record.channels) == ("WAV", "PCM_16", 8000, 1)
    assert (record.artist, record.album, record.title, record.genre, record.year) == (
        "Artist", "Album", "Title", "Genre", 1999,
    )  # fmt: skip
    assert (record.duration, record.peak, record.hop_s, record.n_windows, record.n_silent) == (35.0, 0.5, 0.5, 70, 2)
    assert (record.content_hash, record.note, record.status, record.root_id) == (b"h" * 16, "cut short", "ok", 1)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE models SET identity = 'no json'",
        "UPDATE models SET dimension = 0",
        "UPDATE models SET hop_s = 0",
        "UPDATE files SET size = 'big'",
        "UPDATE files SET size = 1.5",
        "UPDATE files SET duration = x'00'",
        "UPDATE files SET status = 'maybe'",
        "UPDATE files SET status = 'failed'",  # without saying why
        "UPDATE files SET first_window = NULL",  # yet ok
        "UPDATE files SET hop_s = NULL",
        "UPDATE files SET error_kind = 'io'",  # yet ok
        "UPDATE files SET content_hash = x'1234'",
        "UPDATE files SET n_silent = n_windows + 1",
        "UPDATE files SET root_id = 99",
        "INSERT INTO vectors VALUES (999, 99, 1, zeroblob(32))",
        "UPDATE vectors SET n_windows = 0",
        "UPDATE vectors SET data = x''",
        "UPDATE vectors SET data = substr(data, 2)",
        "INSERT INTO labels (file_id, key, value, source, confidence, added_at) SELECT 99, 'k', 'v', 's', 1.0, ''",
        "INSERT INTO labels (file_id, key, value, source, confidence, added_at) SELECT 1, 'k', 'v', 's', 1.5, ''",
        "INSERT INTO runs (started_at, version, roots, outcome) VALUES ('now', '1', 'no json', 'done')",
        "INSERT INTO runs (started_at, version, roots, outcome) VALUES ('now', '1', '[]', 'well')",
        "INSERT INTO settings VALUES ('a', NULL)",
        "DELETE FROM roots",
    ],
)
def test_tables_refuse_what_makes_no_sense(index: str, change: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 3)
    connection = tables(index)
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(change)
    connection.close()


def test_vectors_and_labels_go_with_their_file(index: str) -> None:
    with open_filled(index) as store:
        file_id = put(store, b"a.wav", 40)
        store.put_labels(file_id, [Label("genre", "rock", "me", 1.0)])
        store.forget_file(file_id)
        store.forget_file(file_id)  # already gone: nothing happens
    connection = tables(index)
    counts = "SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM vectors), (SELECT count(*) FROM labels)"
    assert connection.execute(counts).fetchone() == (0, 0, 0)
    connection.close()


def test_vectors_are_stored_in_rows_of_32_windows(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 5)
        put(store, b"b.wav", 70)
    connection = tables(index)
    rows = connection.execute("SELECT first_window, n_windows, length(data) FROM vectors ORDER BY 1").fetchall()
    connection.close()
    assert rows == [(0, 5, 160), (5, 32, 1024), (37, 32, 1024), (69, 6, 192)]


def reference_owners(store: Store, windows: list[int]) -> list[int]:
    owner = {}
    for record in store.files("status = 'ok'"):
        for offset in range(record.n_windows):
            owner[(record.first_window or 0) + offset] = record.id
    return [owner.get(window, -1) for window in windows]


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    forgotten=st.sets(st.integers(0, 7)),
    asked=st.lists(st.integers(-2, 80), max_size=30),
)
@settings(max_examples=25)
def test_owners_of_windows_are_those_found_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], forgotten: set[int], asked: list[int]
) -> None:
    with open_filled(str(tmp_path_factory.mktemp("index"))) as store:
        ids = [put(store, b"%d.wav" % number, count) for number, count in enumerate(counts)]
        for number in forgotten & set(range(len(ids))):
            store.forget_file(ids[number])
        asked.sort()  # ascending, and the same number may be asked for twice
        owners = store.owners_of_windows(np.array(asked, np.int64))
        assert owners.tolist() == reference_owners(store, asked)
        for owner in owners[owners >= 0]:
            assert store.file(owner).id == owner  # a NumPy number is as good as one of Python's


def test_paths_below_a_folder_are_its_own_and_no_namesakes(index: str) -> None:
    names = [b"a", b"a.wav", b"a/1", b"a/2/3", b"a/\xff\xff", b"a0", b"a-b/1", b"b"]
    with open_filled(index) as store:
        ids = {name: put(store, name, 1) for name in names}
        found = [path for _, path, _, _ in store.paths_below(ROOT + b"/a")]
        assert found == [ROOT + b"/" + name for name in (b"a", b"a/1", b"a/2/3", b"a/\xff\xff")]
        assert [row[0] for row in store.paths_below(ROOT + b"/a/")] == [ids[name] for name in names[2:5]]
        assert len(list(store.paths_below(b"/"))) == len(names)
        assert list(store.paths_below(b"/mus")) == []


def test_rows_can_be_left_unread_when_the_store_is_closed(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    troubles: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", troubles.append)  # Python prints a traceback there
    with open_filled(index) as store:
        for name in (b"a", b"b", b"c"):
            put(store, name, 1)
        files = store.files()
        next(files)
    files.close()  # type: ignore[attr-defined]  # as Python does when nobody wants the rest
    assert troubles == []


def test_paths_below_go_on_while_what_they_name_is_forgotten(index: str) -> None:
    with open_filled(index) as store, store.transaction():
        for number in range(2100):  # more than two pages
            store.put_failure(ROOT + b"/%04d" % number, 1, stat_of(), "damaged", "broken")
        seen = 0
        for file_id, _, _, _ in store.paths_below(ROOT):
            store.forget_file(file_id)
            seen += 1
        assert seen == 2100
        assert store.counts().files == 0


@pytest.mark.parametrize("folder", [b"/", b"/a", b"/a/"])
def test_path_range_holds_everything_below_and_not_the_folder(folder: bytes) -> None:
    low, high = path_range(folder)
    stem = folder.rstrip(b"/")
    assert low < stem + b"/\x01" < high
    assert low < stem + b"/\xff\xff" < high
    assert not low < stem + b"0" < high
    assert not low < stem < high


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("start", [0, 40, 1000])
def test_vector_batches_give_every_window_once_in_order(index: str, rows: int, start: int) -> None:
    with open_filled(index) as store:
        for number, count in enumerate((40, 1, 70, 33)):
            put(store, b"%d.wav" % number, count, number)
        store.forget_file(2)
        batches = list(store.vector_batches(start, rows))
        wanted = {
            (record.first_window or 0) + offset: vector
            for record in store.files()
            for offset, vector in enumerate(store.vectors_of(record))
            if (record.first_window or 0) + offset >= start
        }
    numbers = [int(number) for batch, _ in batches for number in batch]
    assert numbers == sorted(wanted)
    for batch, vectors in batches:
        assert vectors.dtype == np.float16
        np.testing.assert_array_equal(vectors, [wanted[int(number)] for number in batch])


def test_damaged_vectors_are_an_error_and_not_an_answer(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 4)
    execute(index, "UPDATE vectors SET data = substr(data, 1, 120)")  # 15 numbers a window instead of 16
    with Store(index) as store:
        record = store.file(1)
        with pytest.raises(
            IndexDamagedError, match=r"/music/a\.wav: its vectors are damaged; run `embedindex verify --repair`"
        ):
            store.vectors_of(record)
        with pytest.raises(IndexDamagedError, match=r"windows 0 to 3 are damaged; `embedindex verify`"):
            list(store.vector_batches())
        assert not store.has_whole_vectors(record)


def test_file_with_damaged_vectors_is_no_source_for_copies(index: str) -> None:
    with open_filled(index) as store:
        store.put_file(ROOT + b"/a.wav", 1, stat_of(), content(some_vectors(4, 1), b"h" * 16))
        store.put_file(ROOT + b"/b.wav", 1, stat_of(), content(some_vectors(4, 1), b"h" * 16))
    execute(index, "UPDATE vectors SET data = zeroblob(128) WHERE file_id = 1")
    with Store(index) as store:
        assert [record.id for record in store.whole_files(store.ids_by_content(b"h" * 16))] == [2]


def test_reader_in_a_snapshot_sees_one_state_while_the_writer_commits(index: str) -> None:
    with open_filled(index) as writer:
        put(writer, b"a.wav", 3)
        with Store(index) as reader:
            with reader.snapshot():
                before = reader.generation, reader.next_window, [record.path for record in reader.files()]
                put(writer, b"b.wav", 3)
                writer.forget_file(1)
                assert (reader.generation, reader.next_window, [r.path for r in reader.files()]) == before
            assert [record.path for record in reader.files()] == [ROOT + b"/b.wav"]
            assert reader.generation > before[0]


def test_readers_go_on_in_other_threads_while_the_writer_writes(index: str) -> None:
    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        with Store(index) as store:
            while not done.is_set():
                with store.snapshot():
                    windows = sum(len(numbers) for numbers, _ in store.vector_batches(rows=7))
                    if windows != sum(record.n_windows for record in store.files()):
                        problems.append(f"{windows} windows")

    with open_filled(index) as writer:
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(60):
            put(writer, b"%d.wav" % (number % 20), 10 + number % 50, number)
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []


def test_reader_never_writes_the_log_back(index: str) -> None:
    log = Path(index, "embedindex.db-wal")
    with open_filled(index) as writer:
        with Store(index) as held, held.snapshot():
            held.counts()
            for number in range(30):
                put(writer, b"%d.wav" % number, 200, number)
        size, database = log.stat().st_size, Path(index, "embedindex.db").read_bytes()
        assert size > 0
        with Store(index) as reader:
            assert reader.counts().ok == 30
            with pytest.raises(sqlite3.OperationalError):
                reader._connection.execute("DELETE FROM files")
            assert reader._connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert log.stat().st_size == size
        assert Path(index, "embedindex.db").read_bytes() == database


def test_snapshot_that_sqlite_ended_by_itself_hides_no_error(index: str) -> None:
    with open_filled(index):
        pass

    def fail_in_a_snapshot(store: Store) -> None:
        with store.snapshot():
            store._connection.execute("ROLLBACK")  # as SQLite does after an input/output error
            raise ZeroDivisionError

    with Store(index) as store, pytest.raises(ZeroDivisionError):
        fail_in_a_snapshot(store)


def test_counts_leave_out_what_is_missing(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 10, silent=2)
        gone = put(store, b"b.wav", 7)
        store.put_failure(ROOT + b"/c.wav", 1, stat_of(), "damaged", "broken")
        store.put_labels(gone, [Label("genre", "rock", "me", 1.0)])
        assert not store.has_missing()
        store.mark_missing([gone])
        counts = store.counts()
        assert store.has_missing()
    assert (counts.files, counts.ok, counts.failed, counts.missing) == (3, 1, 1, 1)
    assert (counts.windows, counts.silent_windows, counts.seconds, counts.labels) == (10, 2, 5.0, 1)


def test_what_is_not_there_is_said(index: str) -> None:
    with pytest.raises(IndexNotFoundError, match=r"there is no index here; make one with `embedindex scan FOLDER`"):
        Store(index)
    with open_filled(index) as store:
        with pytest.raises(KeyError):
            store.file(5)
        with pytest.raises(KeyError):
            store.setting("colour")
        assert store.file_by_path(b"/nowhere") is None
        assert store.file_state(b"/nowhere") is None
        assert store.space() is None
        assert store.last_scan() is None
        assert store.last_unseen() == []
        assert store.highest_window() == -1
        assert store.index_stamps == ()
        assert store.failure_by_content(b"h" * 16) is None


def test_files_are_found_by_content_inode_and_state(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 3, seed=5)
        store.put_failure(ROOT + b"/b.wav", 1, stat_of(6), "damaged", "broken", b"f" * 16)
        store.put_failure(ROOT + b"/c.wav", 1, stat_of(7), "io", "gone", b"i" * 16)
        assert [record.path for record in store.files_by_inode(7, 105)] == [ROOT + b"/a.wav"]
        assert store.files_by_inode(8, 105) == []
        assert store.file_state(ROOT + b"/b.wav") == (2, 1006, 1_500_000_000_000_000_007, "failed", None, "damaged", 7)
        assert store.failure_by_content(b"f" * 16) == ("damaged", "broken")
        assert store.failure_by_content(b"i" * 16) is None  # the disk's fault, not the content's
        assert store.ids_by_content(b"f" * 16) == []
        assert store.window_runs() == [(0, 3)]
        assert store.window_runs("duration > ?", [9.0]) == []


def test_an_index_without_a_model_reads_as_empty(index: str) -> None:
    with StoreWriter(index) as store:
        assert store.model() is None
        assert list(store.vector_batches()) == []
        assert store.counts().files == 0
