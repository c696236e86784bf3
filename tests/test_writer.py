"""What the writer does to an index: replaces, moves, copies, forgets, and logs what the search index has to follow."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.errors import IndexBusyError, IndexDamagedError, ModelMismatchError, StoreError
from embedindex.models import ModelRequest
from embedindex.records import FileRecord, Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.storing import DIMENSION, PLAIN, ROOT, content, execute, identity_of, open_filled, put, some_vectors, stat_of


def record_of(store: Store, name: bytes) -> FileRecord:
    found = store.file_by_path(ROOT + b"/" + name)
    assert found is not None
    return found


def removed(store: Store) -> set[int]:
    return {first + offset for first, count in store.removed_since(0) for offset in range(count)}


def windows_of(record: FileRecord) -> set[int]:
    assert record.first_window is not None
    return set(range(record.first_window, record.first_window + record.n_windows))


def test_new_content_replaces_the_old_under_the_same_id_with_new_numbers(index: str) -> None:
    with open_filled(index) as store:
        first = put(store, b"a.wav", 40, seed=1)
        store.put_labels(first, [Label("genre", "rock", "me", 1.0)])
        old = windows_of(store.file(first))
        assert put(store, b"a.wav", 3, seed=2) == first
        record = store.file(first)
        assert (record.n_windows, record.size) == (3, 1002)
        assert not old & windows_of(record)
        assert removed(store) == old
        np.testing.assert_array_equal(store.vectors_of(record), some_vectors(3, 2))
        assert store.labels_of([first]) == {first: [Label("genre", "rock", "me", 1.0)]}
        assert store.counts().files == 1


def test_file_that_comes_back_is_no_longer_missing_or_failed(index: str) -> None:
    with open_filled(index) as store:
        file_id = store.put_failure(ROOT + b"/a.wav", 1, stat_of(), "io", "bad disk")
        store.mark_missing([file_id])
        put(store, b"a.wav", 2)
        record = store.file(file_id)
    assert (record.status, record.missing_since, record.error_kind, record.error_reason) == ("ok", None, None, None)


def test_file_that_fails_loses_its_vectors_but_keeps_its_labels(index: str) -> None:
    with open_filled(index) as store:
        file_id = put(store, b"a.wav", 40)
        store.put_labels(file_id, [Label("genre", "rock", "me", 1.0)])
        generation, old = store.generation, windows_of(store.file(file_id))
        assert store.put_failure(ROOT + b"/a.wav", 1, stat_of(9), "damaged", "cut\udcff", b"c" * 16) == file_id
        record = store.file(file_id)
        assert (record.status, record.error_kind, record.error_reason) == ("failed", "damaged", "cut?")
        assert (record.first_window, record.n_windows, record.duration, record.size) == (None, 0, None, 1009)
        assert store.vectors_of(record).shape == (0, DIMENSION)
        assert removed(store) == old
        assert store.generation > generation
        assert store.labels_of([file_id])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 3), st.integers(1, 40)),
            st.tuples(st.just("fail"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("forget"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("purge"), st.just(0), st.just(0)),
            st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        ),
        max_size=15,
    )
)
@settings(max_examples=25)
def test_window_numbers_are_never_used_twice_and_every_removal_is_logged(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    index = str(tmp_path_factory.mktemp("index"))
    store = open_filled(index)
    ever: set[int] = set()
    now: dict[bytes, set[int]] = {}
    purged: set[int] = set()
    try:
        for seed, (what, number, windows) in enumerate(steps):
            name, before = b"%d.wav" % number, store.generation
            if what == "put":
                put(store, name, windows, seed)
                now[name] = windows_of(record_of(store, name))
                assert not now[name] & ever
                ever |= now[name]
                assert store.generation > before
            elif what == "fail":
                store.put_failure(ROOT + b"/" + name, 1, stat_of(), "damaged", "broken")
                now.pop(name, None)
            elif what == "forget":
                found = store.file_by_path(ROOT + b"/" + name)
                store.forget_file(found.id if found else -1)
                now.pop(name, None)
            elif what == "purge":
                purged |= removed(store)
                store.forget_removals(store.generation)
                assert removed(store) == set()
            else:
                store.close()
                store = StoreWriter(index)
            held = set().union(*now.values()) if now else set()
            assert removed(store) | purged == ever - held
            assert store.next_window == len(ever)
            assert store.highest_window() < store.next_window
    finally:
        store.close()


def test_moved_file_keeps_id_vectors_and_labels_and_pushes_out_who_was_there(index: str) -> None:
    with open_filled(index) as store:
        moved, there = put(store, b"a.wav", 5, seed=1), put(store, b"b.wav", 7, seed=2)
        store.put_labels(moved, [Label("genre", "rock", "me", 1.0)])
        store.mark_missing([moved])
        pushed_out, generation = windows_of(store.file(there)), store.generation
        store.move_file(store.file(moved), ROOT + b"/b.wav", 1, stat_of(3))
        record = record_of(store, b"b.wav")
        assert (record.id, record.missing_since, record.inode, record.mtime_ns) == (
            moved,
            None,
            103,
            stat_of(3).mtime_ns,
        )
        np.testing.assert_array_equal(store.vectors_of(record), some_vectors(5, 1))
        assert store.labels_of([moved])
        assert store.file_by_path(ROOT + b"/a.wav") is None
        assert removed(store) == pushed_out
        assert store.generation > generation
        store.move_file(record, ROOT + b"/b.wav", 1, stat_of(4))  # to where it is
        assert record_of(store, b"b.wav").id == moved


def test_copy_has_the_vectors_under_numbers_of_its_own(index: str) -> None:
    with open_filled(index) as store:
        source = store.file(put(store, b"a.wav", 70, silent=3))
        copy = store.file(store.copy_file(source, ROOT + b"/b.wav", 1, stat_of(3)))
        np.testing.assert_array_equal(store.vectors_of(copy), store.vectors_of(source))
        assert not windows_of(copy) & windows_of(source)
    own = {"id", "path", "mtime_ns", "inode", "size", "first_window", "scanned_at"}
    same = {name for name in vars(copy) if getattr(copy, name) == getattr(source, name)}
    assert set(vars(copy)) - own <= same


def test_damaged_vectors_are_not_copied(index: str) -> None:
    with open_filled(index) as store:
        source = store.file(put(store, b"a.wav", 4))
        store._do("UPDATE vectors SET data = substr(data, 1, 120)")
        with pytest.raises(IndexDamagedError):
            store.copy_file(source, ROOT + b"/b.wav", 1, stat_of(3))
        assert store.counts().files == 1


def test_missing_since_is_when_it_was_first_missed(index: str) -> None:
    with open_filled(index) as store:
        file_id = put(store, b"a.wav", 5)
        store._do("UPDATE files SET missing_since = '2020-01-01T00:00:00+00:00'")
        store.mark_missing([file_id])
        assert store.file(file_id).missing_since == "2020-01-01T00:00:00+00:00"
        assert store.file(file_id).shown_status == "missing"
        assert len(store.vectors_of(store.file(file_id))) == 5
        store.touch_file(file_id, stat_of(8))
        record = store.file(file_id)
        assert (record.missing_since, record.size, record.inode) == (None, 1008, 108)
        assert removed(store) == set()


def test_purged_removals_are_gone_up_to_that_generation_only(index: str) -> None:
    with open_filled(index) as store:
        for number in range(2):
            store.forget_file(put(store, b"%d.wav" % number, 2))
            if number == 0:
                between = store.generation
        store.forget_removals(np.int64(between))  # type: ignore[arg-type]  # must not become bytes
        assert store.removals_after == between
        assert removed(store) == {2, 3}
        assert store.removed_since(store.generation) == []
        before = store._connection.total_changes
        store.forget_removals(between)  # nothing to do: nothing is written
        assert store._connection.total_changes == before


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5), np.bool_(True)])
def test_numpy_numbers_never_become_bytes(index: str, value: Any) -> None:
    with open_filled(index) as store:
        for changes in ({"peak": value}, {"duration_s": value}, {"hop_s": np.float32(0.5)}, {"silent": np.int64(1)}):
            store.put_file(ROOT + b"/a.wav", 1, stat_of(), content(some_vectors(3, 1), **changes))
        facts = replace(content(some_vectors(3, 1)).facts, sample_rate=value)
        with pytest.raises(StoreError, match="cannot store"):
            store.put_file(ROOT + b"/b.wav", 1, stat_of(), content(some_vectors(3, 1), facts=facts))
        store.put_labels(1, [Label("genre", "rock", "me", np.float32(0.5))])  # type: ignore[arg-type]
        assert store.labels_of([np.int64(1)])[np.int64(1)][0].confidence == 0.5  # type: ignore[list-item,index]
        types = store._rows("SELECT DISTINCT typeof(value) FROM settings ORDER BY 1")
        assert types == [("integer",), ("text",)]


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((2, DIMENSION), np.float32),
        np.ones((2, DIMENSION - 1), np.float16),
        np.ones((0, DIMENSION), np.float16),
    ],
)
def test_vectors_that_do_not_fit_the_index_are_refused(index: str, vectors: Any) -> None:
    with open_filled(index) as store:
        with pytest.raises(ValueError, match="do not fit this index"):
            store.put_file(ROOT + b"/a.wav", 1, stat_of(), content(vectors))
        assert store.counts().files == 0


def test_vectors_that_lie_scattered_in_memory_are_stored_in_order(index: str) -> None:
    wide = some_vectors(80, 1)
    with open_filled(index) as store:
        store.put_file(ROOT + b"/a.wav", 1, stat_of(), content(wide[::2]))
        np.testing.assert_array_equal(store.vectors_of(store.file(1)), wide[::2])


def test_transaction_is_all_or_nothing(index: str) -> None:
    def fail_half_way(store: StoreWriter) -> None:
        with store.transaction():
            put(store, b"b.wav", 40)
            store.forget_file(1)
            raise ZeroDivisionError

    with open_filled(index) as store:
        put(store, b"a.wav", 3)
        before = store.generation, store.next_window
        with pytest.raises(ZeroDivisionError):
            fail_half_way(store)
        assert (store.generation, store.next_window) == before
        assert [record.path for record in store.files()] == [ROOT + b"/a.wav"]
        put(store, b"b.wav", 3)  # goes on
        with Store(index) as reader:
            assert reader.counts().ok == 2


def test_model_is_kept_and_another_is_refused(index: str) -> None:
    request = ModelRequest("tiny", (("version", "3"),), weights="/w", precision="int8", engine="onnxruntime")
    with StoreWriter(index) as store:
        model = store.use_model(identity_of(PLAIN), request, 0.5)
        assert store.use_model(identity_of(PLAIN), PLAIN, 0.5) == model
        with pytest.raises(ModelMismatchError, match=r"hop 0\.5 s\), not with tiny .*hop 0\.25 s"):
            store.use_model(identity_of(PLAIN), PLAIN, 0.25)
        with pytest.raises(ModelMismatchError, match=r"version=1.*not with .*version=2"):
            store.use_model(identity_of(ModelRequest("tiny", (("version", "2"),))), PLAIN, 0.5)
    with Store(index) as reader:
        assert reader.model() == model
        assert (model.identity, model.request, model.hop_s) == (identity_of(PLAIN), request, 0.5)


def test_space_is_replaced_and_not_added(index: str) -> None:
    with open_filled(index) as store:
        store.set_space("plain", b"one", 1)
        store.set_space("standardised", b"two", 2)
        assert store.space() == b"two"
        assert store._rows("SELECT kind, data, windows FROM spaces") == [("standardised", b"two", 2)]


def test_root_is_kept_once_with_its_device_up_to_date(index: str) -> None:
    with open_filled(index) as store:
        assert store.put_root(ROOT, 7) == 1
        assert store.put_root(ROOT, None) == 1  # its disk is away
        assert store.roots() == [(1, ROOT, 7)]
        assert store.put_root(ROOT, 8) == 1
        assert store.put_root(b"/\xff", None) == 2
        assert store.roots() == [(1, ROOT, 8), (2, b"/\xff", None)]


def test_device_is_renumbered_below_the_folder_only(index: str) -> None:
    with open_filled(index) as store:
        for name in (b"a/1.wav", b"a2/1.wav"):
            put(store, name, 1)
        store.renumber_device(ROOT + b"/a", 7, 9)
        store.renumber_device(ROOT + b"/a2", 8, 9)  # another device than they have
        assert [record.device for record in store.files()] == [9, 7]


def test_runs_are_noted_with_how_they_ended(index: str) -> None:
    with open_filled(index) as store:
        run = store.start_run([ROOT, b"/\xff"])
        assert store._rows("SELECT outcome, finished_at FROM runs") == [("running", None)]
        assert store.last_scan() is not None
        store.finish_run(run, "done", {"unseen": [("/music/a", "no permission")], "added": 1})
        assert store.last_unseen() == [("/music/a", "no permission")]
        ((roots, outcome, finished),) = store._rows("SELECT roots, outcome, finished_at FROM runs")
        assert (json.loads(roots)[0], outcome) == ("/music", "done")
        assert store.last_scan() == finished


def test_label_said_twice_is_there_once_with_the_new_confidence(index: str) -> None:
    with open_filled(index) as store:
        file_id = put(store, b"a.wav", 1)
        store.put_labels(file_id, [Label("genre", "rock", "me", 0.5), Label("genre", "rock", "knn", 0.1)])
        store.put_labels(file_id, [Label("genre", "rock", "me", 0.75), Label("genre", "pop", "me", 1.0)])
        assert store.labels_of([file_id, 99]) == {
            file_id: [
                Label("genre", "pop", "me", 1.0),
                Label("genre", "rock", "me", 0.75),
                Label("genre", "rock", "knn", 0.1),
            ]
        }


def test_second_writer_is_refused_and_the_lock_goes_with_the_first(index: str) -> None:
    with open_filled(index), pytest.raises(IndexBusyError, match="another embedindex is writing") as caught:
        StoreWriter(index)
    assert caught.value.exit_status == 75
    StoreWriter(index).close()


def test_lock_is_let_go_when_the_database_cannot_be_opened(index: str, tmp_path: Path) -> None:
    Path(index).mkdir()
    Path(index, "embedindex.db").write_bytes(b"this is no database, whatever its name says" * 100)
    for _ in range(2):  # the second one would be refused as busy
        with pytest.raises(IndexDamagedError):
            StoreWriter(index)


@pytest.mark.parametrize("durable", [False, True])
def test_writer_uses_a_log_and_syncs_as_asked(index: str, durable: bool) -> None:
    with StoreWriter(index, durable=durable) as store:
        assert store._row("PRAGMA journal_mode") == ("wal",)
        assert store._row("PRAGMA synchronous") == (2 if durable else 1,)
        assert store._row("PRAGMA foreign_keys") == (1,)


def test_foreign_keys_hold_for_the_writer(index: str) -> None:
    with open_filled(index) as store, pytest.raises(StoreError, match="FOREIGN KEY"):
        store.put_file(ROOT + b"/a.wav", 99, stat_of(), content(some_vectors(1, 1)))


def test_damage_behind_the_back_does_not_stop_the_replacing_of_a_file(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 40, seed=1)
    execute(index, "DELETE FROM vectors WHERE first_window = 32")
    with StoreWriter(index) as store:
        put(store, b"a.wav", 40, seed=2)
        assert store.has_whole_vectors(store.file(1))


def test_sqlite_is_new_enough_for_strict_tables() -> None:
    assert sqlite3.sqlite_version_info >= (3, 37)
