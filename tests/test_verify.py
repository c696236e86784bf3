"""Verify finds each kind of damage, names it, and what it says to do about it helps."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.index_file import index_path, read_index_file, read_trailer, write_index_file
from embedindex.index_refresh import refresh_index
from embedindex.store import Store
from embedindex.verify import Problem, verify
from embedindex.writer import StoreWriter
from tests.indexing import age, make_sound, run_scan
from tests.storing import PLAIN, STANDARDISED, execute, open_filled, put

DAMAGED = "its vectors are damaged"
REBUILD = "run `embedindex rebuild`"


@pytest.fixture
def filled(index: str) -> str:
    """An index of three files of 40 windows, with its search index."""
    with open_filled(index) as store:
        for number in range(3):
            put(store, b"%d.wav" % number, 40, number, silent=number)
        refresh_index(store)
    return index


def problems(index: str) -> list[Problem]:
    with Store(index) as store:
        return list(verify(store).problems)


def only(index: str) -> Problem:
    (problem,) = problems(index)
    return problem


@pytest.mark.parametrize("request_", [PLAIN, STANDARDISED], ids=["plain", "standardised"])
def test_whole_index_has_no_problems(index: str, request_: object) -> None:
    with open_filled(index, request_) as store:  # type: ignore[arg-type]
        for number in range(30):
            put(store, b"%d.wav" % number, 40 + number, number, silent=number % 3)
        refresh_index(store)
        store.forget_file(4)
        put(store, b"5.wav", 3)
        refresh_index(store)
    told: list[tuple[int, int]] = []
    with Store(index) as store:
        verdict = verify(store, lambda done, total: told.append((done, total)))
        windows = store.counts().windows
    assert verdict.problems == ()
    assert (verdict.files, verdict.windows) == (29, windows)
    assert told[-1] == (windows, windows)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_index_with_nothing_in_it_has_no_problems(index: str) -> None:
    with StoreWriter(index):
        pass
    assert problems(index) == []
    with open_filled(index):
        pass
    assert problems(index) == []


def flip(index: str, byte: int, bits: int) -> None:
    """Flip bits of one byte of the vectors of the second file."""
    sql = "SELECT data FROM vectors WHERE first_window = 40"
    with Store(index) as store:
        data = bytearray(store._rows(sql)[0][0])
    data[byte] ^= bits
    execute(index, "UPDATE vectors SET data = ? WHERE first_window = 40", bytes(data))


@pytest.mark.parametrize("byte", [1, 701, 1023])
def test_flipped_byte_in_a_vector_is_found_in_both(filled: str, byte: int) -> None:
    flip(filled, byte, 0x7F)  # sign and exponent: some become infinite
    database, index = problems(filled)
    assert (database.where, database.what) == ("database", f"/music/1.wav: {DAMAGED}")
    assert database.remedy == "run `embedindex verify --repair`, then scan again"
    assert index == Problem("index", "vectors between 0 and 117 differ from the database's", REBUILD)


def test_flipped_lowest_bit_is_found(filled: str) -> None:
    flip(filled, 100, 1)  # too little for a search to notice
    assert only(filled).what == f"/music/1.wav: {DAMAGED}"


def test_missing_vectors_are_found(filled: str) -> None:
    execute(filled, "DELETE FROM vectors WHERE first_window = 72")
    database, index = problems(filled)
    assert database.what == f"/music/1.wav: {DAMAGED}"
    assert index.what.startswith("the search index lacks windows from 0 on, or has others")


def test_missing_vectors_at_the_end_are_found(filled: str) -> None:
    execute(filled, "DELETE FROM vectors WHERE first_window = 112")
    database, index = problems(filled)
    assert database.what == f"/music/2.wav: {DAMAGED}"
    assert index == Problem("index", "the search index has 6 windows too many", REBUILD)


def test_wrong_number_of_windows_is_found(filled: str) -> None:
    execute(filled, "UPDATE files SET n_windows = 39 WHERE id = 1")
    orphan, database = problems(filled)
    assert orphan.what == "windows 32 to 39 belong to no file"
    assert database.what == f"/music/0.wav: {DAMAGED}"


def test_row_with_a_wrong_number_of_windows_is_found(filled: str) -> None:
    execute(filled, "UPDATE vectors SET n_windows = 16 WHERE first_window = 0")
    whats = [problem.what for problem in problems(filled)]
    assert whats[0] == f"/music/0.wav: {DAMAGED}"
    assert "the vectors of windows 0 to 15 are damaged" in whats[1]


def test_vectors_of_another_length_are_found(filled: str) -> None:
    execute(filled, "UPDATE vectors SET data = substr(data, 1, 960) WHERE first_window = 0")  # 15 numbers a window
    whats = [problem.what for problem in problems(filled)]
    assert whats[0] == f"/music/0.wav: {DAMAGED}"
    assert "the vectors of windows 0 to 31 are damaged" in whats[1]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vectors SET first_window = 500 WHERE first_window = 32",
        "UPDATE vectors SET first_window = 31 WHERE first_window = 32",
        "UPDATE vectors SET file_id = 2 WHERE first_window = 32",
        "UPDATE vectors SET file_id = 99 WHERE first_window = 32",
    ],
)
def test_vectors_in_the_wrong_place_are_found(filled: str, change: str) -> None:
    execute(filled, change)
    found = problems(filled)
    assert any(problem.what.endswith("belong to no file") and problem.where == "database" for problem in found)


def test_row_that_refers_to_nothing_is_found(filled: str) -> None:
    execute(filled, "UPDATE files SET root_id = 99 WHERE id = 1")
    assert only(filled).what == "a row of files refers to nothing"


def test_number_that_would_be_given_out_twice_is_found(filled: str) -> None:
    execute(filled, "UPDATE settings SET value = 100 WHERE name = 'next_window'")
    assert Problem(
        "database", "windows up to 119 are in use, but 100 is to be given out next", "scan into a new index"
    ) in problems(filled)


def test_index_of_a_table_that_does_not_fit_it_is_found(filled: str) -> None:
    connection = sqlite3.connect(os.path.join(filled, "embedindex.db"))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'content_hash', 'vectors_hash') WHERE name = 'files_by_content'"
    )
    connection.commit()
    connection.close()
    problem = problems(filled)[0]
    assert (problem.where, problem.what) == ("database", "row 1 missing from index files_by_content")
    assert "embedindex verify --repair" in problem.remedy


def test_index_file_that_is_not_there_is_found(filled: str) -> None:
    os.unlink(index_path(filled))
    assert only(filled) == Problem("index", "there is no search index on disk", REBUILD)


def test_index_file_that_is_damaged_is_found(filled: str) -> None:
    path = Path(index_path(filled))
    path.write_bytes(path.read_bytes()[:-1])
    assert "the search index is damaged (its end is missing)" in only(filled).what


def test_index_file_that_is_older_is_found(filled: str) -> None:
    with StoreWriter(filled) as store:
        put(store, b"new.wav", 3)
    assert only(filled) == Problem("index", "the search index is older than the database", REBUILD)


def test_index_file_of_another_index_is_found(filled: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    with open_filled(other) as store:
        for number in range(3):
            put(store, b"%d.wav" % number, 40, number, silent=number)
        refresh_index(store)
    shutil.copy(index_path(other), index_path(filled))
    assert only(filled) == Problem("index", "the search index belongs to another database", REBUILD)


def test_index_file_of_another_state_is_found(filled: str) -> None:
    older = Path(index_path(filled)).read_bytes()
    with StoreWriter(filled) as store:
        store.forget_file(1)
        refresh_index(store)
    Path(index_path(filled)).write_bytes(older)
    assert only(filled) == Problem("index", "the search index belongs to another state of the database", REBUILD)


@pytest.mark.parametrize("change", ["one less", "one more", "another vector", "another number"])
def test_index_file_with_other_windows_is_found(filled: str, change: str) -> None:
    found = read_index_file(filled, mapped=False)
    assert found is not None
    index, trailer = found
    if change != "one more":
        index.remove_ids(np.array([50], np.int64))  # type: ignore[arg-type]
    if change != "one less":
        vector = np.eye(1, 16, dtype=np.float32)
        index.add_with_ids(vector, np.array([50 if change == "another vector" else 39 + 79], np.int64))
    write_index_file(filled, index, replace(trailer, windows=index.ntotal))
    problem = only(filled)
    assert (problem.where, problem.remedy) == ("index", REBUILD)


@pytest.mark.parametrize("damage", ["gone", "cut", "older"])
def test_rebuild_helps(filled: str, damage: str) -> None:
    path = Path(index_path(filled))
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    with StoreWriter(filled) as store:
        if damage == "older":
            put(store, b"new.wav", 3)
        assert problems(filled)
        assert refresh_index(store, rebuild=True)
    assert problems(filled) == []


@pytest.mark.parametrize(
    "change",
    ["UPDATE vectors SET data = zeroblob(length(data))", "DELETE FROM vectors", "UPDATE vectors SET n_windows = 1"],
)
def test_touching_the_file_and_scanning_helps(index: str, library: Path, change: str) -> None:
    path = make_sound(library / "a.wav", 300)
    make_sound(library / "b.wav", 400)
    run_scan(index, library)
    with Store(index) as store:
        wanted = store.vectors_of(store.file(1))
    execute(index, f"{change} WHERE file_id = 1")
    assert problems(index)
    age(path, 5)
    run_scan(index, library)
    with Store(index) as store:
        np.testing.assert_array_equal(store.vectors_of(store.file(1)), wanted)
    assert problems(index) == []


def test_trailer_on_disk_is_that_of_the_last_refresh(filled: str) -> None:
    trailer = read_trailer(filled)
    assert trailer is not None
    with Store(filled) as store:
        assert trailer.generation == store.generation
        assert trailer.stamp == store.index_stamps[0]
