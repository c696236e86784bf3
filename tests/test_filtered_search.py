"""Filtered search is brute force over the files that pass: every filter, every kind of search index.

One library in three indexes, exact and of lists; some files wait beside the lists, some are gone. The reference is
plain Python over what was written, and NumPy over the vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedindex.analysis_store import Wanted, put_analysis
from embedindex.errors import QueryError
from embedindex.filters import Filters
from embedindex.index import IndexView, load_view
from embedindex.index_file import read_trailer
from embedindex.index_refresh import refresh_index, set_budget
from embedindex.models import ModelRequest
from embedindex.query import Query
from embedindex.records import Label
from embedindex.search import search
from embedindex.store import Store
from embedindex.tempo_key import TempoKey
from embedindex.writer import StoreWriter
from tests.storing import content, stat_of
from tests.test_search import DIMENSION, HOP_S, Sound, assert_best, brute_force, identity, random_query

KINDS = {"flat": 10**9, "sq8": 75_000, "rabitq": 1}
FILES = 200
WAITING = 8
RATES, CHANNELS, BPM, KEYS = (8000, 44_100, 48_000), (1, 2, 6), (None, 60.0, 90.0, 121.0, 180.0), (None, "F minor", "C")
HEARD = tuple(f"2026-0{month}-01T00:00:00+00:00" for month in (1, 2, 3))
LABELS = tuple(("genre", value) for value in ("house", "drone", "Füsion")) + tuple(("kit", str(n)) for n in range(40))


@dataclass
class Heard(Sound):
    """A sound with all that can be filtered by."""

    bpm: float | None = None
    key: str | None = None
    instrument: str | None = None

    @property
    def length_s(self) -> float:
        return len(self.vectors) * HOP_S


@cache
def library() -> list[Heard]:
    """Return sounds around a few common places, with facts drawn at random."""
    random = np.random.default_rng(11)
    centres = 1 + random.standard_normal((12, DIMENSION))
    sounds = []
    for number in range(FILES):
        length = int(random.integers(1, 40))
        vectors = centres[random.integers(12)] + random.uniform(0.1, 0.8) * random.standard_normal((length, DIMENSION))
        vectors[random.random(length) < 0.05] = 0
        folder = f"/lib/{'ab[c'[number % 4]}" if number % 3 else f"/lib/deep/{number % 5}"
        sounds.append(
            Heard(
                f"{folder}/{number:03d}.{('wav', 'mp3')[number % 2]}",
                vectors.astype(np.float16),
                (LABELS[random.integers(3)], LABELS[3 + random.integers(40)]),
                bool(random.random() < 0.1),
                int(random.choice(RATES)),
                int(random.choice(CHANNELS)),
                str(random.choice(HEARD)),
                BPM[random.integers(len(BPM))],
                KEYS[random.integers(len(KEYS))],
                None if number % 4 else f"/lib/deep/{number % 16:02d}/piano{number % 3}",
            )
        )
    return sounds


def write(folder: str, budget: int) -> None:
    sounds = library()
    with StoreWriter(folder) as store:
        set_budget(store, budget, 0.95)
        store.use_model(identity(False), ModelRequest("random"), HOP_S)
        root = store.put_root(b"/", 1)
        with store.transaction():
            gone = store.put_file(b"/gone.wav", root, stat_of(999), content(sounds[0].vectors))
            put(store, root, 0, sounds[:-WAITING])
        refresh_index(store)
        with store.transaction():
            store.forget_file(gone)
            put(store, root, FILES - WAITING, sounds[-WAITING:])
        refresh_index(store)


def put(store: StoreWriter, root: int, first: int, sounds: list[Heard]) -> None:
    for number, sound in enumerate(sounds, first):
        facts = replace(content(sound.vectors).facts, sample_rate=sound.sample_rate, channels=sound.channels)
        content_hash = number.to_bytes(16, "big")
        heard = content(sound.vectors, content_hash, facts=facts, duration_s=sound.length_s, hop_s=HOP_S)
        file_id = store.put_file(os.fsencode(sound.path), root, stat_of(number), heard)
        store.put_labels(file_id, [Label(key, value, "human", 1.0) for key, value in sound.labels])
        put_analysis(store, content_hash, Wanted(), TempoKey(sound.bpm, 1.0, sound.key, 1.0))
        changes = (sound.heard, sound.instrument, file_id)
        store._do("UPDATE files SET scanned_at = ?, instrument = ? WHERE id = ?", changes)
        if sound.missing:
            store.mark_missing([file_id])


@pytest.fixture(scope="module", params=list(KINDS))
def opened(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    """The library in an index of one kind, with its view."""
    folder = str(tmp_path_factory.mktemp(request.param))
    write(folder, KINDS[request.param])
    trailer = read_trailer(folder)
    assert trailer is not None
    assert trailer.kind == request.param
    with Store(folder) as store:
        yield store, load_view(store)


def any_of(*values: Any) -> Any:
    return st.sampled_from((None, None, *values))


FILTERS = st.builds(
    Filters,
    labels=st.lists(st.sampled_from(LABELS), max_size=2, unique=True).map(tuple),
    path=any_of("*", "a/*", "/lib/b/*", "*.mp3", "0?[1-3].wav", "[[]c/*", "deep/[0-2]/*", "/LIB/*", "01*"),
    min_duration_s=any_of(0.0, 1.0, 5.0, 19.5),
    max_duration_s=any_of(0.5, 4.0, 10.0),
    sample_rate=st.tuples(any_of(8000, 44_100), any_of(44_100, 47_999)),
    channels=st.tuples(any_of(2, 3), any_of(1, 2)),
    added_since=any_of(*HEARD, "2027-01-01T00:00:00+00:00"),
    bpm=any_of((59.0, 61.0), (120.0, 122.0), (90.0, 90.0), (70.0, 100.0)),
    key=any_of("F minor", "C", "B"),
    instrument=any_of("piano1", "/lib/deep/0*", "*/piano?", "no such"),
)


def matches(path: str, pattern: str) -> bool:
    """Return whether a glob covers a path, or its end from a folder on; SQLite's globs are those of fnmatch here."""
    return fnmatchcase(path, pattern if pattern.startswith("/") else f"*/{pattern}")


def passes(sound: Heard, wanted: Filters) -> bool:
    """Return whether a file may be found, by what docs/similar.md says of each option."""
    low, high = wanted.bpm or (0.0, 0.0)
    return (
        not sound.missing
        and all(label in sound.labels for label in wanted.labels)
        and (wanted.path is None or matches(sound.path, wanted.path))
        and (wanted.min_duration_s is None or sound.length_s >= wanted.min_duration_s)
        and (wanted.max_duration_s is None or sound.length_s <= wanted.max_duration_s)
        and (wanted.sample_rate[0] or 0) <= sound.sample_rate <= (wanted.sample_rate[1] or 10**6)
        and (wanted.channels[0] or 0) <= sound.channels <= (wanted.channels[1] or 99)
        and (wanted.added_since is None or sound.heard >= wanted.added_since)
        and (wanted.bpm is None or any(low <= (sound.bpm or 0) * factor <= high for factor in (0.5, 1, 2)))
        and (wanted.key is None or sound.key == wanted.key)
        and (
            wanted.instrument is None or (sound.instrument is not None and matches(sound.instrument, wanted.instrument))
        )
    )


def wanted_of(wanted: Filters, asked: list[Query], by: str) -> dict[tuple[str, int], float] | None:
    """Return the score of every file (or window) that may be found; None when no file passes."""
    left = [sound for sound in library() if passes(sound, wanted)]
    return brute_force(left, asked, by=by) if left else None


@settings(max_examples=40)
@given(
    wanted=FILTERS, seed=st.integers(0, 10**6), by=st.sampled_from(["file", "window"]), k=st.sampled_from([1, 7, 60])
)
@example(wanted=Filters(), seed=0, by="file", k=10)
@example(wanted=Filters(bpm=(59.0, 61.0)), seed=1, by="file", k=60)
def test_search_with_any_filters_is_brute_force_over_what_passes(
    opened: tuple[Store, IndexView], wanted: Filters, seed: int, by: Any, k: int
) -> None:
    store, view = opened
    asked = [random_query(seed, 2, 1)]
    best = wanted_of(wanted, asked, by)
    if best is None:
        with pytest.raises(QueryError, match="no sound in the index passes these filters"):
            search(store, view, asked, filters=wanted, k=k, by=by)
    elif wanted != Filters() or view.lists is None:  # without a filter, lists may miss one
        assert_best(search(store, view, asked, filters=wanted, k=k, by=by), best, k, by)


@settings(max_examples=40)
@given(wanted=FILTERS, seed=st.integers(0, 10**6), k=st.sampled_from([1, 7, 60]))
def test_where_too_many_pass_to_be_compared_one_by_one_results_still_pass_and_are_as_many_as_there_are(
    opened: tuple[Store, IndexView], wanted: Filters, seed: int, k: int
) -> None:
    store, view = opened
    if view.lists is not None:
        view = replace(view, lists=replace(view.lists, exact_windows=10))
    asked = [random_query(seed, 2, 1)]
    best = wanted_of(wanted, asked, "window")
    if best is None:
        return
    hits = search(store, view, asked, filters=wanted, k=k, by="window")
    assert len(hits) == min(k, len(best))
    for hit in hits:
        assert hit.score == pytest.approx(best[hit.file.text_path, round(hit.start_s / HOP_S)], abs=3e-5)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), run=st.booleans(), k=st.sampled_from([1, 10, 200]))
def test_windows_that_may_be_found_are_compared_exactly_whatever_their_share(
    opened: tuple[Store, IndexView], seed: int, share: float, run: bool, k: int
) -> None:
    store, view = opened
    random = np.random.default_rng(seed)
    allowed = np.zeros(view.next_window, bool)
    count = round(view.next_window ** (1 - share))  # from all of them to one, evenly on a logarithmic scale
    start = int(random.integers(view.next_window - count + 1))
    allowed[np.arange(start, start + count) if run else random.permutation(view.next_window)[:count]] = True
    rows = random.standard_normal((3, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found, windows = view.search(rows, k, allowed)
    stored = list(store.vector_batches())
    numbers = np.concatenate([pair[0] for pair in stored])
    vectors = np.concatenate([pair[1] for pair in stored]).astype(np.float32)
    there = vectors.any(axis=1) & allowed[numbers]
    units = vectors[there] / np.linalg.norm(vectors[there], axis=1, keepdims=True)
    for scores, places, cosines in zip(found, windows, rows @ units.T, strict=True):
        held = min(k, len(cosines))
        assert (places[held:] == -1).all()
        assert set(places[:held].tolist()) <= set(numbers[there].tolist())
        np.testing.assert_allclose(scores[:held], np.sort(cosines)[::-1][:held], atol=2e-3)
