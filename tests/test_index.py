"""The search index gives the answers of a plain comparison with every vector in SQLite, whatever happened before."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.errors import IndexDamagedError, IndexEmptyError
from embedindex.index import IndexView, load_view
from embedindex.index_file import index_path, read_index_file, read_trailer, write_index_file
from embedindex.index_refresh import refresh_index
from embedindex.models import ModelRequest
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.processes import wait_until
from tests.storing import (
    DIMENSION,
    PLAIN,
    ROOT,
    STANDARDISED,
    all_vectors,
    execute,
    identity_of,
    open_filled,
    put,
    some_vectors,
    stat_of,
)

REQUESTS = pytest.mark.parametrize("request_", [PLAIN, STANDARDISED], ids=["plain", "standardised"])
TOLERANCE = 1e-3  # the index keeps float16


def reference_space(rows: Any, learnt_from: Any) -> Any:
    """Standardise, limit and scale to length 1, one step after the other in float64."""
    rows, learnt_from = rows.astype(np.float64), learnt_from.astype(np.float64)
    rows = np.clip((rows - learnt_from.mean(0)) / learnt_from.std(0), -3, 3)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def assert_answers_like_brute_force(store: Store, view: IndexView, *, learnt_from: Any = None) -> None:
    """Compare searches, of everything and of a part, with cosine similarities computed one by one."""
    numbers, rows = all_vectors(store)
    ids = np.array(numbers, np.int64)
    queries = some_vectors(6, 99)
    if view.space.kind == "standardised":
        basis = rows if learnt_from is None else learnt_from
        wanted = reference_space(queries, basis) @ reference_space(rows, basis).T
    else:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        asked = queries.astype(np.float32)
        wanted = (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ units.T
    part = np.random.default_rng(1).random(view.next_window) < 0.3
    for allowed, seen in ((None, np.ones(len(ids), bool)), (part, part[ids]), (np.zeros_like(part), part[ids] & False)):
        before = None if allowed is None else allowed.copy()
        scores, found = view.search(view.space.apply(queries), 10, allowed)
        assert allowed is None or (allowed == before).all()
        held = min(10, int(seen.sum()))
        assert (found[:, held:] == -1).all()
        assert (scores[:, :-1] >= scores[:, 1:]).all()
        for row in range(len(queries)):
            places = np.searchsorted(ids, found[row, :held])
            assert (ids[places] == found[row, :held]).all()
            assert seen[places].all()
            assert len(set(places)) == held
            np.testing.assert_allclose(scores[row, :held], wanted[row, places], atol=TOLERANCE)
            best = np.sort(wanted[row, seen])[::-1][:held]
            np.testing.assert_allclose(scores[row, :held], best, atol=TOLERANCE)


@pytest.fixture
def filled(index: str) -> Iterator[StoreWriter]:
    """An index of 300 windows in 10 files, some silent, with its search index."""
    with open_filled(index) as store:
        fill(store)
        yield store


def fill(store: StoreWriter) -> None:
    for number in range(10):
        put(store, b"%d.wav" % number, 30, number, silent=number % 4)
    assert refresh_index(store)


def trailer_of(store: Store) -> Any:
    trailer = read_trailer(store.folder)
    assert trailer is not None
    return trailer


@REQUESTS
def test_answers_are_those_of_brute_force(index: str, request_: ModelRequest) -> None:
    with open_filled(index, request_) as store:
        fill(store)
        view = load_view(store)
        assert view.windows == 300 - sum(number % 4 for number in range(10))
        assert view.damage is None
        assert_answers_like_brute_force(store, view)


@REQUESTS
def test_answers_follow_what_came_changed_and_went(index: str, request_: ModelRequest) -> None:
    with open_filled(index, request_) as store:
        fill(store)
        _, learnt_from = all_vectors(store)
        put(store, b"new.wav", 9, 50, silent=1)
        put(store, b"3.wav", 5, 51)
        store.forget_file(5)
        with Store(index) as reader:  # the file on disk is older now
            view = load_view(reader)
            assert len(view.base) == 2
            assert_answers_like_brute_force(reader, view, learnt_from=learnt_from)
            numbers, _ = all_vectors(reader)
            assert view.windows == len(numbers)
        assert refresh_index(store)
        view = load_view(store)
        assert len(view.base) == 1
        assert_answers_like_brute_force(store, view)
        assert verify(store).problems == ()


STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 5), st.integers(1, 40), st.integers(0, 3)),
    st.tuples(st.just("forget"), st.integers(0, 5), st.just(0), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 5), st.just(0), st.just(0)),
    st.tuples(st.just("refresh"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("rebuild"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("lose"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("keep"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("restore"), st.just(0), st.just(0), st.just(0)),
)


@given(st.lists(STEP, max_size=14))
@settings(max_examples=15)
def test_answers_are_right_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    index = str(tmp_path_factory.mktemp("index"))
    kept = index + ".kept"
    with open_filled(index) as store:
        put(store, b"0.wav", 200, 1000)  # so that a few windows more are no reason to make all anew
        refresh_index(store)
        for seed, (what, number, windows, silent) in enumerate(steps):
            path = ROOT + b"/%d.wav" % number
            if what == "put":
                put(store, b"%d.wav" % number, windows, seed, min(silent, windows))
            elif what == "forget":
                found = store.file_by_path(path)
                store.forget_file(found.id if found else -1)
            elif what == "fail":
                store.put_failure(path, 1, stat_of(), "damaged", "broken")
            elif what in ("refresh", "rebuild"):
                refresh_index(store, rebuild=what == "rebuild")
            elif what == "lose":
                Path(index_path(index)).unlink(missing_ok=True)
            elif what == "keep":
                if os.path.exists(index_path(index)):
                    shutil.copy(index_path(index), kept)
            elif os.path.exists(kept):  # an older file comes back, from a backup
                shutil.copy(kept, index_path(index))
        view = load_view(store)
        assert_answers_like_brute_force(store, view)
        refresh_index(store)
        assert verify(store).problems == ()
        assert_answers_like_brute_force(store, load_view(store))
        assert not refresh_index(store)


def test_refresh_with_nothing_new_writes_nothing(filled: StoreWriter) -> None:
    before = os.stat(index_path(filled.folder)).st_mtime_ns, filled._connection.total_changes
    assert not refresh_index(filled)
    assert (os.stat(index_path(filled.folder)).st_mtime_ns, filled._connection.total_changes) == before


def test_small_changes_are_added_and_a_tenth_makes_all_anew(filled: StoreWriter) -> None:
    start = trailer_of(filled)
    put(filled, b"new.wav", 20, 50)
    refresh_index(filled)
    added = trailer_of(filled)
    assert (added.learnt_from, added.windows, added.drift) == (start.windows, start.windows + 20, 20)
    assert added.space == start.space
    put(filled, b"newer.wav", 20, 51)
    refresh_index(filled)
    assert (trailer_of(filled).learnt_from, trailer_of(filled).drift) == (start.windows + 40, 0)


def test_changes_that_even_out_add_up(index: str) -> None:
    with open_filled(index, STANDARDISED) as store:
        fill(store)
        first = trailer_of(store)
        for round_ in range(6):  # one small file in place of another, again and again
            put(store, b"small.wav", 5, 60 + round_)
            refresh_index(store)
        last = trailer_of(store)
    assert last.learnt_from != first.learnt_from
    assert last.space != first.space


def test_removals_are_purged_once_the_file_has_followed(filled: StoreWriter) -> None:
    filled.forget_file(1)
    assert filled.removed_since(0)
    refresh_index(filled)
    assert filled.removed_since(0) == []
    assert filled.removals_after == trailer_of(filled).generation == filled.generation


def test_older_file_from_a_backup_is_not_trusted_once_removals_were_purged(filled: StoreWriter) -> None:
    old = Path(index_path(filled.folder)).read_bytes()
    filled.forget_file(2)
    refresh_index(filled)
    Path(index_path(filled.folder)).write_bytes(old)
    view = load_view(filled)
    assert len(view.base) == 1
    assert not view.removed
    assert_answers_like_brute_force(filled, view)
    assert refresh_index(filled)
    assert verify(filled).problems == ()


def test_older_database_from_a_backup_does_not_trust_the_newer_file(index: str, tmp_path: Path) -> None:
    with open_filled(index) as store:
        fill(store)
    shutil.copy(os.path.join(index, "embedindex.db"), tmp_path / "old.db")
    with StoreWriter(index) as store:
        put(store, b"lost.wav", 4, 70)
        refresh_index(store)
    shutil.copy(tmp_path / "old.db", os.path.join(index, "embedindex.db"))
    for name in ("embedindex.db-wal", "embedindex.db-shm"):
        Path(index, name).unlink(missing_ok=True)
    with StoreWriter(index) as store:  # the same numbers, given to other windows
        put(store, b"a.wav", 4, 71)
        put(store, b"b.wav", 4, 72)
        assert store.generation >= trailer_of(store).generation
        assert verify(store).problems[0].what == "the search index belongs to another state of the database"
        assert_answers_like_brute_force(store, load_view(store))
        refresh_index(store)
        assert_answers_like_brute_force(store, load_view(store))
        assert verify(store).problems == ()


@pytest.mark.parametrize(
    "change",
    [
        {"database_id": "0" * 32},
        {"fingerprint": "0" * 64},
        {"stamp": "0" * 16},
        {"generation": 10**9},
        {"next_window": 10**9},
    ],
)
def test_file_of_something_else_is_ignored_and_made_again(filled: StoreWriter, change: dict[str, Any]) -> None:
    with open_filled(filled.folder + "-other") as other:  # its vectors would be wrong answers
        for number in range(10):
            put(other, b"%d.wav" % number, 30, 500 + number)
        refresh_index(other)
        found = read_index_file(other.folder, mapped=False)
    assert found is not None
    whole = replace(trailer_of(filled), windows=found[0].ntotal, **change)
    write_index_file(filled.folder, found[0], whole)
    view = load_view(filled)
    assert view.damage is None
    assert len(view.base) == 1
    assert_answers_like_brute_force(filled, view)
    assert refresh_index(filled)
    assert verify(filled).problems == ()


def test_file_of_another_index_is_ignored(filled: StoreWriter) -> None:
    with open_filled(filled.folder + "-other") as other:
        for number in range(10):
            put(other, b"%d.wav" % number, 30, 500 + number)
        refresh_index(other)
    shutil.copy(index_path(filled.folder + "-other"), index_path(filled.folder))
    assert_answers_like_brute_force(filled, load_view(filled))


def test_damaged_file_is_named_and_the_database_answers(filled: StoreWriter) -> None:
    path = Path(index_path(filled.folder))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    view = load_view(filled)
    assert view.damage is not None
    assert "windows.faiss: the search index is damaged" in view.damage
    assert_answers_like_brute_force(filled, view)
    assert refresh_index(filled)
    assert load_view(filled).damage is None


def test_file_damaged_before_a_small_change_is_made_anew(filled: StoreWriter) -> None:
    path = Path(index_path(filled.folder))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    put(filled, b"new.wav", 3, 50)
    assert refresh_index(filled)
    assert verify(filled).problems == ()


def test_leftover_of_a_crash_is_removed_by_the_next_scan(filled: StoreWriter) -> None:
    leftover = Path(index_path(filled.folder) + ".part")
    leftover.write_bytes(b"half an index")
    assert load_view(filled).damage is None
    assert not refresh_index(filled)
    assert not leftover.exists()


def test_silence_is_never_found(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"silent.wav", 5, 1, silent=5)
        put(store, b"half.wav", 6, 2, silent=3)
        refresh_index(store)
        view = load_view(store)
        _, found = view.search(view.space.apply(some_vectors(2, 3)), 20)
        assert set(found.ravel().tolist()) == {-1, 5, 6, 7}


def test_long_silence_that_went_hides_nothing(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"loud.wav", 4, 1)
        put(store, b"silent.wav", 50, 2, silent=50)
        refresh_index(store)
        store.forget_file(2)
        view = load_view(store)
        assert view.windows == 4
        _, found = view.search(view.space.apply(some_vectors(1, 3)), 4)
        assert set(found[0].tolist()) == {0, 1, 2, 3}


def test_index_of_nothing_but_silence_finds_nothing(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"silent.wav", 5, 1, silent=5)
        refresh_index(store)
        view = load_view(store)
        assert view.windows == 0
        scores, found = view.search(view.space.apply(some_vectors(2, 3)), 3)
        assert (found == -1).all()
        assert np.isneginf(scores).all()
        assert verify(store).problems == ()


def test_empty_index_is_said_to_be_empty(index: str) -> None:
    with StoreWriter(index) as store:
        assert not refresh_index(store)
        with pytest.raises(IndexEmptyError, match="there is nothing in this index yet; fill it with `embedindex scan"):
            load_view(store)


@REQUESTS
def test_index_without_a_file_is_searched_in_the_space_that_was_learnt(index: str, request_: ModelRequest) -> None:
    with open_filled(index, request_) as store:
        fill(store)
        _, learnt_from = all_vectors(store)
        wanted = load_view(store).space.to_bytes()
        put(store, b"new.wav", 10, 50)
        os.unlink(index_path(index))
        view = load_view(store)
        assert view.space.to_bytes() == wanted
        assert_answers_like_brute_force(store, view, learnt_from=learnt_from)


def test_equal_scores_are_ordered_by_window_number(index: str) -> None:
    with open_filled(index) as store:
        for number in range(4):
            put(store, b"%d.wav" % number, 3, 7)  # the same vectors each time
        refresh_index(store)
        put(store, b"4.wav", 3, 7)
        view = load_view(store)
        _, found = view.search(view.space.apply(some_vectors(3, 7)), 5)
    assert found.tolist() == [[row + 3 * number for number in range(5)] for row in range(3)]


def test_more_results_than_windows_are_filled_up(filled: StoreWriter) -> None:
    view = load_view(filled)
    scores, found = view.search(view.space.apply(some_vectors(1, 3)), 1000)
    assert found.shape == scores.shape == (1, 1000)
    assert (found[0, view.windows :] == -1).all()
    assert len(set(found[0, : view.windows].tolist())) == view.windows


def test_model_is_the_one_of_the_index(filled: StoreWriter) -> None:
    assert load_view(filled).model.identity == identity_of(PLAIN)


@pytest.mark.parametrize("name", [b"\xff\xfe", "ü 🥁".encode(), b"two\nlines"])
def test_index_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: bytes) -> None:
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    with open_filled(folder) as store:
        fill(store)
        put(store, b"new.wav", 3, 50)
        refresh_index(store)  # adds to what it read
        assert trailer_of(store).drift == 3
        view = load_view(store)
        assert view.damage is None
        assert_answers_like_brute_force(store, view)
        assert verify(store).problems == ()


def test_readers_answer_rightly_while_the_file_is_replaced(index: str) -> None:
    query = some_vectors(1, 1000)
    done = threading.Event()
    states: dict[int, list[int]] = {}  # next window number → the windows that can be found then
    answers: list[tuple[int, list[int], str | None]] = []

    def read() -> None:
        while not done.is_set():
            with Store(index) as store:
                view = load_view(store)
                _, found = view.search(view.space.apply(query), 1000)
                answers.append((view.next_window, np.sort(found[found >= 0]).tolist(), view.damage))

    with open_filled(index) as writer:
        fill(writer)
        states[writer.next_window] = all_vectors(writer)[0]
        thread = threading.Thread(target=read)
        thread.start()
        try:
            for number in range(40):
                put(writer, b"%d.wav" % (number % 12), 5 + number % 30, 200 + number)
                states[writer.next_window] = sorted(all_vectors(writer)[0])
                refresh_index(writer, rebuild=number % 3 == 0)
                if number % 8 == 0:  # however seldom the machine lets the reader read, it sees some of the states
                    wait_until(lambda: answers and answers[-1][0] == writer.next_window)
        finally:
            done.set()
            thread.join()
    assert len({next_window for next_window, _, _ in answers}) > 3
    for next_window, found, damage in answers:
        assert damage is None
        assert found == sorted(states[next_window])


def test_damaged_vectors_stop_the_index_with_a_word(index: str) -> None:
    with open_filled(index) as store:
        fill(store)
    execute(index, "UPDATE vectors SET n_windows = 15 WHERE first_window = 0")
    os.unlink(index_path(index))
    with Store(index) as store, pytest.raises(IndexDamagedError, match="the vectors of windows 0 to 14 are damaged"):
        load_view(store)


def test_dimension_is_the_model_s(filled: StoreWriter) -> None:
    assert load_view(filled).base[0].d == DIMENSION
