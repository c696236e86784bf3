"""Big indexes: what lists propose and stored vectors rank is what a comparison with every vector would find."""

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

from embedindex import index_blocks, index_refresh
from embedindex.errors import IndexDamagedError
from embedindex.index import IndexView, load_view
from embedindex.index_file import index_path, read_trailer
from embedindex.index_plan import make_plan
from embedindex.index_refresh import refresh_index, set_budget
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.processes import wait_until
from tests.storing import DIMENSION, STANDARDISED, all_vectors, content, open_filled, stat_of

FILES = 120
WINDOWS = 20  # a file
BUDGET = {"sq8": 70_000, "rabitq": 1}


def around(centre: int, windows: int, seed: int) -> Any:
    """Return windows around one of 30 centres, float16."""
    middle = np.random.default_rng(5000 + centre).normal(0.5, 1.0, DIMENSION)
    return (middle + 0.5 * np.random.default_rng(seed).normal(size=(windows, DIMENSION))).astype(np.float16)


def put_around(store: StoreWriter, name: bytes, centre: int, windows: int = WINDOWS, seed: int = 0) -> int:
    return store.put_file(b"/music/" + name, 1, stat_of(seed), content(around(centre, windows, seed)))


def fill(store: StoreWriter, kind: str = "rabitq") -> None:
    set_budget(store, BUDGET[kind], 0.95)
    with store.transaction():
        for number in range(FILES):
            put_around(store, b"%03d.wav" % number, number % 30, seed=number)
    assert refresh_index(store)
    assert trailer_of(store).kind == kind


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Indexes of 2,400 windows in lists, by kind; to be copied."""
    folders = {}
    for kind in BUDGET:
        folders[kind] = str(tmp_path_factory.mktemp(kind))
        with open_filled(folders[kind]) as store:
            fill(store, kind)
    return folders


@pytest.fixture(params=["sq8", "rabitq"])
def filled(request: pytest.FixtureRequest, made: dict[str, str], index: str) -> Iterator[StoreWriter]:
    """An index of 2,400 windows in lists."""
    shutil.copytree(made[request.param], index)
    with StoreWriter(index) as store:
        yield store


@pytest.fixture
def bits(made: dict[str, str], index: str) -> Iterator[StoreWriter]:
    """The one with a bit a dimension."""
    shutil.copytree(made["rabitq"], index)
    with StoreWriter(index) as store:
        yield store


def trailer_of(store: Store) -> Any:
    trailer = read_trailer(store.folder)
    assert trailer is not None
    return trailer


def view_of(store: Store, exact_windows: int = 50) -> IndexView:
    """Return a view that compares so few windows one by one, so that lists are searched."""
    view = load_view(store)
    assert view.lists is not None
    return replace(view, lists=replace(view.lists, exact_windows=exact_windows))


def queries(count: int = 30) -> Any:
    rows = np.concatenate([around(number % 30, 1, 9000 + number) for number in range(count)]).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(store: Store, asked: Any, allowed: Any = None) -> tuple[Any, Any]:
    """Return (numbers of the windows that may be found, (n, m) cosines)."""
    numbers, rows = all_vectors(store)
    ids = np.array(numbers, np.int64)
    seen = np.ones(len(ids), bool) if allowed is None else allowed[ids]
    units = rows[seen] / np.linalg.norm(rows[seen], axis=1, keepdims=True)
    return ids[seen], asked @ units.T


def recall(store: Store, view: IndexView, k: int, allowed: Any = None) -> float:
    """Return the share of the `k` nearest that is found, after seeing that what is found is right."""
    asked = queries()
    ids, cosines = brute_force(store, asked, allowed)
    scores, found = view.search(asked, k, allowed)
    held = min(k, len(ids))
    assert (found[:, held:] == -1).all()
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    hits = 0
    for row in range(len(asked)):
        places = np.searchsorted(ids, found[row, :held])
        assert (ids[places] == found[row, :held]).all()
        assert len(set(places.tolist())) == held
        np.testing.assert_allclose(scores[row, :held], cosines[row, places], atol=1e-3 if view.base else 1e-5)
        least = np.sort(cosines[row])[::-1][:held].min() if held else 0
        hits += int((cosines[row, places] >= least - 1e-6).sum())
    return hits / (held * len(asked)) if held else 1.0


def test_lists_find_what_was_asked_for(filled: StoreWriter) -> None:
    view = view_of(filled)
    assert view.windows == FILES * WINDOWS
    for k in (1, 10, 100):
        assert recall(filled, view, k) >= 0.9


def test_a_rough_search_ranks_only_as_many_windows_as_it_returns(filled: StoreWriter) -> None:
    """Their scores are exact all the same, and they pass the filter; they are near, if not the very nearest."""
    asked, allowed = queries(), np.random.default_rng(3).random(FILES * WINDOWS) < 0.7
    view, ranked = view_of(filled), []
    assert view.lists is not None
    fetch = view.lists.stored.fetch

    def counted(numbers: Any) -> Any:
        ranked.append(len(numbers))
        return fetch(numbers)

    counting = replace(view.lists, stored=replace(view.lists.stored, fetch=counted))
    view = replace(view, lists=counting)
    ids, cosines = brute_force(filled, asked, allowed)
    for query, exact in zip(asked, cosines, strict=True):
        ranked.clear()
        scores, windows = view.search(query[None], 20, allowed, roughly=True)
        assert max(ranked) <= 20
        assert allowed[windows[0]].all()
        np.testing.assert_allclose(scores[0], exact[np.searchsorted(ids, windows[0])], atol=1e-5)
        assert (np.diff(scores[0]) <= 0).all()
        assert scores[0].mean() > np.quantile(exact, 0.95)


def test_results_may_be_as_many_as_there_are_windows(filled: StoreWriter) -> None:
    assert recall(filled, view_of(filled), 3000) == 1.0


@pytest.mark.parametrize("files", [0, 1, 2, 3, 10, 40, 90, 120])
def test_filtered_search_is_brute_force_over_what_passes(filled: StoreWriter, files: int) -> None:
    random = np.random.default_rng(files)
    for chosen in (random.permutation(FILES)[:files], np.arange(files)):  # anywhere, and of some centres alone
        allowed = np.zeros(FILES * WINDOWS, bool)
        for file in chosen:
            allowed[file * WINDOWS : (file + 1) * WINDOWS] = True
        before = allowed.copy()
        assert recall(filled, view_of(filled), 10, allowed) >= (1.0 if files * WINDOWS <= 50 else 0.9)
        assert recall(filled, load_view(filled), 10, allowed) == 1.0  # few enough to be compared
        assert (allowed == before).all()


def test_what_is_found_lies_in_far_lists_when_only_they_pass(filled: StoreWriter) -> None:
    allowed = np.zeros(FILES * WINDOWS, bool)
    for file in range(7, FILES, 30):  # one centre of thirty
        allowed[file * WINDOWS : (file + 1) * WINDOWS] = True
    assert recall(filled, view_of(filled), 10, allowed) >= 0.9


def test_additions_are_found_at_once_and_the_file_is_left_alone(filled: StoreWriter) -> None:
    before = Path(index_path(filled.folder)).read_bytes()
    for number in range(5):
        put_around(filled, b"new%d.wav" % number, 40 + number, seed=700 + number)
        assert not refresh_index(filled)
        asked = around(40 + number, WINDOWS, 700 + number).astype(np.float32)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
        _, found = load_view(filled).search(asked, 1)
        assert found[:, 0].tolist() == list(range(filled.next_window - WINDOWS, filled.next_window))
    filled.forget_file(3)
    put_around(filled, b"004.wav", 2, seed=900)  # changed
    assert not refresh_index(filled)
    assert recall(filled, view_of(filled), 10) >= 0.9
    assert Path(index_path(filled.folder)).read_bytes() == before
    assert verify(filled).problems == ()


def test_enough_additions_are_written_into_the_lists(filled: StoreWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_refresh, "WAITING_WINDOWS", 50)
    first = trailer_of(filled)
    filled.forget_file(9)
    for number in range(3):
        put_around(filled, b"new%d.wav" % number, number, seed=700 + number)
    assert refresh_index(filled)
    last = trailer_of(filled)
    assert (last.generation, last.windows, last.added) == (filled.generation, first.windows + 40, 60)
    assert last.learnt_from == first.learnt_from
    view = load_view(filled)
    assert not view.base
    assert recall(filled, view_of(filled), 10) >= 0.9
    assert verify(filled).problems == ()
    assert not refresh_index(filled)


def test_centres_are_learnt_again_when_sounds_of_another_kind_came(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_refresh, "DRIFT_WINDOWS", 100)
    monkeypatch.setattr(index_refresh, "WAITING_WINDOWS", 50)
    with open_filled(index) as store:
        fill(store)
        for centre, again in ((12, False), (77, True)):  # around a centre that was there, and around a new one
            learnt = trailer_of(store).learnt_from
            for number in range(6):
                put_around(store, b"%d-%d.wav" % (centre, number), centre, seed=centre + number)
            assert refresh_index(store)
            assert (trailer_of(store).learnt_from > learnt) == again
            assert recall(store, view_of(store), 10) >= 0.9


def test_standardised_space_is_that_of_the_lists(index: str) -> None:
    with open_filled(index, STANDARDISED) as store:
        fill(store)
        numbers, rows = all_vectors(store)
        space = load_view(store).space
        assert space.kind == "standardised"
        asked = space.apply(around(3, 5, 1).astype(np.float16))
        _, found = view_of(store).search(asked, 10)
        best = np.argsort(-(asked @ space.apply(rows.astype(np.float16)).T), axis=1)[:, :10]
        wanted = np.array(numbers)[best]
        assert np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]) >= 9
        assert verify(store).problems == ()


def test_silence_is_not_in_the_lists(index: str) -> None:
    with open_filled(index) as store:
        store.put_file(b"/music/silent.wav", 1, stat_of(), content(np.zeros((30, DIMENSION), np.float16)))
        fill(store)
        _, found = view_of(store).search(queries(3), 2500)
        assert sorted(set(found.ravel().tolist()) - {-1}) == list(range(30, 30 + FILES * WINDOWS))
        assert verify(store).problems == ()


def test_damage_in_a_list_is_never_an_answer(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_blocks, "BLOCK_BYTES", 512)  # so that so small an index has many
    with open_filled(index) as store:
        fill(store)
        path = Path(index_path(index))
        data = path.read_bytes()
        trailer = trailer_of(store)
        wanted = load_view(store).search(queries(), 10)
        for place in np.linspace(trailer.header_bytes + 512, trailer.faiss_bytes - 1, 12).astype(int).tolist():
            path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
            view = load_view(store)
            assert view.damage is None
            with pytest.raises(IndexDamagedError, match=r"the search index is damaged .*embedindex rebuild"):
                view.search(queries(), 2000)  # asks for every list
            try:
                found = view.search(queries(), 10)
            except IndexDamagedError:
                continue
            np.testing.assert_array_equal(found[1], wanted[1])
        assert "not those that were written" in verify(store).problems[0].what


def test_damage_before_the_lists_is_named_and_the_database_answers(bits: StoreWriter) -> None:
    path = Path(index_path(bits.folder))
    data = path.read_bytes()
    for place in range(0, trailer_of(bits).header_bytes, 197):
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        view = load_view(bits)
        assert view.damage is not None
        assert view.lists is None
    assert recall(bits, view, 10) == 1.0
    assert refresh_index(bits)
    assert verify(bits).problems == ()


def test_index_without_a_file_is_compared_where_it_lies(filled: StoreWriter) -> None:
    os.unlink(index_path(filled.folder))
    view = load_view(filled)
    assert view.base == ()  # the database may be too big for memory
    assert recall(filled, view, 10) == 1.0
    allowed = np.zeros(filled.next_window, bool)
    allowed[100:140] = True
    assert recall(filled, view, 10, allowed) == 1.0


def test_verify_finds_other_windows_and_other_vectors(filled: StoreWriter) -> None:
    assert verify(filled).problems == ()
    filled._do("UPDATE vectors SET data = zeroblob(length(data)) WHERE first_window = 40")
    whats = [problem.what for problem in verify(filled).problems]
    assert any("the search index lacks windows from" in what for what in whats)
    filled._do("UPDATE vectors SET data = (SELECT data FROM vectors WHERE first_window = 60)")
    whats = [problem.what for problem in verify(filled).problems]
    assert any("differ from the database's" in what for what in whats)


def test_same_database_gives_the_same_answers_again(filled: StoreWriter) -> None:
    before = load_view(filled).search(queries(), 10)
    steps = trailer_of(filled).steps
    assert refresh_index(filled, rebuild=True)
    assert trailer_of(filled).steps == steps
    after = load_view(filled).search(queries(), 10)
    np.testing.assert_array_equal(before[1], after[1])


def test_expected_length_is_that_of_the_file(filled: StoreWriter) -> None:
    trailer = trailer_of(filled)
    plan = make_plan(FILES * WINDOWS, DIMENSION, BUDGET[trailer.kind])
    assert trailer.faiss_bytes == pytest.approx(plan.file_bytes, rel=0.05)


def test_measured_recall_of_each_step_reaches_the_target(filled: StoreWriter) -> None:
    steps = trailer_of(filled).steps
    assert [step.k for step in steps] == [10, 100]
    assert all(step.recall >= 0.95 for step in steps)


def test_readers_answer_rightly_while_lists_are_replaced(bits: StoreWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_refresh, "WAITING_WINDOWS", 30)
    done = threading.Event()
    answers: list[tuple[int, set[int], str | None]] = []
    states: dict[int, set[int]] = {}

    def read() -> None:
        while not done.is_set():
            with Store(bits.folder) as store:
                view = load_view(store)
                _, found = view.search(queries(1), 4000)
                answers.append((view.next_window, set(found[0].tolist()) - {-1}, view.damage))

    with bits as writer:
        states[writer.next_window] = set(all_vectors(writer)[0])
        thread = threading.Thread(target=read)
        thread.start()
        try:
            wait_until(lambda: answers)
            for number in range(8):
                put_around(writer, b"%03d.wav" % number, number, seed=number + 500)
                states[writer.next_window] = set(all_vectors(writer)[0])
                refresh_index(writer)
        finally:
            done.set()
            thread.join()
    for next_window, found, damage in answers:
        assert damage is None
        assert found <= states[next_window]
        # What the database lost between the making of a view and the search cannot be ranked any more.
        assert found >= states[next_window] & states[max(states)]


def test_budget_is_kept_for_later_scans(index: str) -> None:
    with open_filled(index) as store:
        fill(store, "sq8")
    with StoreWriter(index) as store:
        assert refresh_index(store, rebuild=True)
        assert trailer_of(store).kind == "sq8"
        set_budget(store, BUDGET["rabitq"], None)
        assert refresh_index(store, rebuild=True)
        assert trailer_of(store).kind == "rabitq"
