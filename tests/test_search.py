"""Searching: every ranking is compared with a plain brute-force computation of the documented score.

The stores are written directly, with random vectors: what the model hears does not matter here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float16Array, Float64Array
from embedindex.audio import AudioFacts
from embedindex.embed import FileEmbedding
from embedindex.errors import IndexEmptyError, QueryError, UsageError
from embedindex.file_stat import FileStat
from embedindex.index import IndexView, load_view
from embedindex.index_refresh import refresh_index
from embedindex.models import ModelIdentity, ModelRequest
from embedindex.query import Query
from embedindex.records import Label
from embedindex.search import Filters, Hit, hit_to_json, search
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter
from tests.storing import execute

DIMENSION = 8
HOP_S = 0.5
WINDOW_S = 1.0
TAGS = Tags(None, None, None, None, None)


@dataclass
class Sound:
    """A file to be written: (n, DIMENSION) vectors."""

    path: str
    vectors: Float16Array
    labels: tuple[tuple[str, str], ...] = ()
    missing: bool = False
    sample_rate: int = 8000
    channels: int = 1
    heard: str = "2026-01-01T00:00:00+00:00"


def identity(standardise: bool) -> ModelIdentity:
    return ModelIdentity("random", 8000, 8000, DIMENSION, standardise=standardise)


@contextmanager
def opened(sounds: Sequence[Sound], *, standardise: bool = False) -> Iterator[tuple[Store, IndexView]]:
    """Give a store that holds some sounds, with its view."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder, sounds, standardise=standardise)
        with Store(folder) as store:
            yield store, load_view(store)


def write(folder: str, sounds: Sequence[Sound], *, standardise: bool = False) -> None:
    with StoreWriter(folder) as store:
        store.use_model(identity(standardise), ModelRequest("random"), HOP_S)
        root = store.put_root(b"/", 1)
        for number, sound in enumerate(sounds, 1):
            length = len(sound.vectors)
            content = FileEmbedding(
                content_hash=number.to_bytes(16, "big"),
                vectors=sound.vectors,
                silent=int((~sound.vectors.any(axis=1)).sum()),
                hop_s=HOP_S,
                facts=AudioFacts("wav", "pcm", sound.sample_rate, sound.channels, length * HOP_S, "test"),
                tags=TAGS,
                duration_s=length * HOP_S,
                peak=1.0,
            )
            stat = FileStat(1, 1, 1, number)
            file_id = store.put_file(os.fsencode(sound.path), root, stat, content)
            store.put_labels(file_id, [Label(key, value, "human", 1.0) for key, value in sound.labels])
            if sound.missing:
                store.mark_missing([file_id])
        refresh_index(store)
    for sound in sounds:
        execute(folder, "UPDATE files SET scanned_at = ? WHERE path = ?", sound.heard, os.fsencode(sound.path))


def query_of(store: Store, path: str) -> Query:
    """Return the query that a file of the store makes, as `QueryMaker` does it."""
    record = store.file_by_path(os.fsencode(path))
    assert record is not None
    vectors = store.vectors_of(record)
    return Query(record.path, (vectors[vectors.any(axis=1)],), record)


def outside(*phases: Float16Array) -> Query:
    return Query(b"/outside.wav", phases, None)


# -- the reference -------------------------------------------------------------------------------------------------


def reference_space(sounds: Sequence[Sound], standardise: bool) -> tuple[Float64Array, Float64Array]:
    """Return (mean, deviation) of all sounding windows in double precision; (0, 1) where nothing is standardised."""
    everything = np.concatenate([sound.vectors for sound in sounds]).astype(np.float64)
    everything = everything[everything.any(axis=1)]
    if not standardise:
        return np.zeros(DIMENSION), np.ones(DIMENSION)
    return everything.mean(axis=0), everything.std(axis=0)


def unit(vectors: Float16Array, space: tuple[Float64Array, Float64Array], standardise: bool) -> Float64Array:
    mean, deviation = space
    rows = (vectors.astype(np.float64) - mean) / deviation
    if standardise:
        rows = np.clip(rows, -3, 3)  # the documented limit
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    divided: Float64Array = rows / np.where(length > 0, length, 1)
    return divided


def brute_force(
    sounds: Sequence[Sound],
    queries: Sequence[Query],
    *,
    by: str,
    standardise: bool = False,
    unlike: Sequence[Query] = (),
    weight: float = 0.5,
) -> dict[tuple[str, int], float]:
    """Return {(path, best window): score}, or of every window, by the definition in docs/similar.md."""
    if unlike:
        liked = brute_force(sounds, queries, by=by, standardise=standardise)
        away = brute_force(sounds, unlike, by=by, standardise=standardise)
        of_file = {path: score for (path, _), score in away.items()}
        return {
            place: score - weight * (away[place] if by == "window" else of_file[place[0]])
            for place, score in liked.items()
        }
    space = reference_space(sounds, standardise)
    scores: dict[tuple[str, int], float] = {}
    for sound in sounds:
        loud = np.flatnonzero(sound.vectors.any(axis=1))
        if not len(loud):
            continue
        theirs = unit(sound.vectors[loud], space, standardise)
        of_queries = []
        of_windows = np.full(len(loud), -2.0)
        for query in queries:
            of_phases = []
            for phase in query.vectors:
                cosines = unit(phase, space, standardise) @ theirs.T
                of_phases.append((np.mean([max(row) for row in cosines]), cosines))
            score, cosines = max(of_phases, key=lambda pair: pair[0])
            of_queries.append(score)
            for _, table in of_phases if by == "window" else [(score, cosines)]:
                of_windows = np.maximum(of_windows, table.max(axis=0))
        if by == "file":
            scores[sound.path, int(loud[np.argmax(of_windows)])] = float(np.mean(of_queries))
        else:
            scores.update(
                {(sound.path, int(place)): float(score) for place, score in zip(loud, of_windows, strict=True)}
            )
    return scores


def assert_best(hits: list[Hit], wanted: dict[tuple[str, int], float], k: int, by: str, slack: float = 0.0) -> None:
    """Check that `hits` are the `k` best of `wanted`; where scores are equal any of them will do."""
    best = sorted(wanted.values(), reverse=True)[:k]
    assert len(hits) == len(best)
    np.testing.assert_allclose([hit.score for hit in hits], best, atol=3e-5)
    by_path = {path: score for (path, _), score in wanted.items()}
    for hit in hits:
        window = round(hit.start_s / HOP_S)
        score = wanted[hit.file.text_path, window] if by == "window" else by_path[hit.file.text_path]
        assert hit.score == pytest.approx(score, abs=3e-5)
        assert -1 - slack <= hit.score <= 1 + slack
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    places = [(hit.file.path, hit.start_s) for hit in hits]
    assert len(set(places)) == len(places)


def random_sounds(seed: int, files: int, longest: int) -> list[Sound]:
    """Return sounds whose windows drift slowly from a few common places, as those of real sounds do."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, DIMENSION))
    sounds = []
    for number in range(files):
        length = int(rng.integers(1, longest + 1))
        spread = rng.uniform(0.05, 1.0)
        vectors = centres[rng.integers(4)] + spread * rng.standard_normal((length, DIMENSION))
        vectors[rng.random(length) < 0.1] = 0
        labels = (("genre", str(rng.choice(["house", "drone"]))), ("kit", str(number % 3)))
        missing = bool(rng.random() < 0.1)
        facts = (
            int(rng.choice([8000, 44100, 48000])),
            int(rng.integers(1, 4)),
            f"2026-0{rng.integers(1, 4)}-01T00:00:00+00:00",
        )
        path = f"/lib/{'ab'[number % 2]}/{number:03d}.wav"
        sounds.append(Sound(path, vectors.astype(np.float16), labels, missing, *facts))
    return sounds


def random_query(seed: int, windows: int, phases: int) -> Query:
    rng = np.random.default_rng([seed, 1])
    return outside(*(rng.standard_normal((windows, DIMENSION)).astype(np.float16) for _ in range(phases)))


# -- rankings ------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    files=st.integers(1, 25),
    longest=st.sampled_from([1, 3, 40]),
    k=st.integers(1, 30),
    by=st.sampled_from(["file", "window"]),
    standardise=st.booleans(),
    windows=st.integers(1, 6),
    phases=st.integers(1, 4),
    queries=st.integers(1, 3),
)
def test_ranking_is_that_of_brute_force(
    seed: int, files: int, longest: int, k: int, by: str, standardise: bool, windows: int, phases: int, queries: int
) -> None:
    sounds = random_sounds(seed, files, longest)
    asked = [random_query(seed + number, windows, phases) for number in range(queries)]
    present = [sound for sound in sounds if not sound.missing]
    with opened(sounds, standardise=standardise) as (store, view):
        if view.windows == 0:
            return
        hits = search(store, view, asked, k=k, by="window" if by == "window" else "file")
    wanted = brute_force(sounds, asked, by=by, standardise=standardise and view.space.kind == "standardised")
    wanted = {place: score for place, score in wanted.items() if place[0] in {sound.path for sound in present}}
    assert_best(hits, wanted, k, by)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    by=st.sampled_from(["file", "window"]),
    genre=st.sampled_from([None, "house", "drone"]),
    kit=st.sampled_from([None, "1"]),
    path=st.sampled_from([None, "a/*", "/lib/b/*", "*1?.wav"]),
    shortest=st.sampled_from([None, 0.0, 2.0]),
    longest=st.sampled_from([None, 4.0]),
    rate=st.sampled_from([(None, None), (44100, 44100), (44100, None), (None, 47999)]),
    channels=st.sampled_from([(None, None), (2, None), (1, 2), (3, 3)]),
    since=st.sampled_from([None, "2026-02-01T00:00:00+00:00"]),
)
def test_filtered_ranking_is_that_of_brute_force_over_what_passes(
    seed: int,
    by: str,
    genre: str | None,
    kit: str | None,
    path: str | None,
    shortest: float | None,
    longest: float | None,
    rate: tuple[int | None, int | None],
    channels: tuple[int | None, int | None],
    since: str | None,
) -> None:
    sounds = random_sounds(seed, 20, 12)
    asked = [random_query(seed, 3, 2)]
    labels = [(key, value.upper()) for key, value in (("genre", genre), ("kit", kit)) if value is not None]
    filters = Filters(tuple(labels), path, shortest, longest, rate, channels, since)

    def passes(sound: Sound) -> bool:
        number = int(sound.path[-7:-4])
        length_s = len(sound.vectors) * HOP_S
        where = {None: True, "a/*": "/a/" in sound.path, "/lib/b/*": "/b/" in sound.path}
        return (
            not sound.missing
            and (genre is None or ("genre", genre) in sound.labels)
            and (kit is None or ("kit", kit) in sound.labels)
            and where.get(path, number // 10 == 1)
            and (shortest is None or length_s >= shortest)
            and (longest is None or length_s <= longest)
            and (rate[0] or 0) <= sound.sample_rate <= (rate[1] or 10**6)
            and (channels[0] or 0) <= sound.channels <= (channels[1] or 99)
            and (since is None or sound.heard >= since)
        )

    left = {sound.path for sound in sounds if passes(sound)}
    wanted = {place: score for place, score in brute_force(sounds, asked, by=by).items() if place[0] in left}
    with opened(sounds) as (store, view):
        if not left:
            with pytest.raises(QueryError, match="no sound in the index passes these filters"):
                search(store, view, asked, filters=filters)
            return
        hits = search(store, view, asked, k=7, by="window" if by == "window" else "file", filters=filters)
    assert_best(hits, wanted, 7, by)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    files=st.integers(1, 25),
    longest=st.sampled_from([1, 3, 40]),
    k=st.integers(1, 30),
    by=st.sampled_from(["file", "window"]),
    standardise=st.booleans(),
    unwanted=st.integers(1, 2),
    weight=st.sampled_from([0.1, 0.5, 2.0]),
)
def test_ranking_away_from_a_sound_is_that_of_brute_force(
    seed: int, files: int, longest: int, k: int, by: str, standardise: bool, unwanted: int, weight: float
) -> None:
    sounds = random_sounds(seed, files, longest)
    asked = [random_query(seed, 4, 2)]
    away = [random_query(seed + 1 + number, 3, 2) for number in range(unwanted)]
    present = {sound.path for sound in sounds if not sound.missing}
    with opened(sounds, standardise=standardise) as (store, view):
        if view.windows == 0:
            return
        kind = "window" if by == "window" else "file"
        hits = search(store, view, asked, k=k, by=kind, unlike=away, unlike_weight=weight)  # type: ignore[arg-type]
    standardised = standardise and view.space.kind == "standardised"
    wanted = brute_force(sounds, asked, by=by, standardise=standardised, unlike=away, weight=weight)
    assert_best(hits, {place: wanted[place] for place in wanted if place[0] in present}, k, by, slack=weight)


def test_what_is_like_the_unwanted_sound_is_found_even_behind_a_hundred_better_likenesses() -> None:
    """The best by likeness alone may all be what is unwanted."""
    rng = np.random.default_rng(9)
    near = rows([1, 0.3])[0] + 0.01 * rng.standard_normal((200, DIMENSION))
    sounds = [Sound(f"/near/{number:03d}.wav", near[number : number + 1].astype(np.float16)) for number in range(200)]
    sounds.append(Sound("/other.wav", rows([1, -1.0])))
    asked, away = [outside(rows([1]))], [outside(rows([0, 1]))]
    for by in ("file", "window"):
        with opened(sounds) as (store, view):
            (hit,) = search(store, view, asked, k=1, by=by, unlike=away, unlike_weight=1.0)
        assert hit.file.path == b"/other.wav"
        assert hit.score == pytest.approx(0.5**0.5 + 0.5**0.5, abs=1e-3)


@pytest.mark.parametrize("by", ["file", "window"])
def test_a_long_file_of_the_same_sound_does_not_hide_the_others(by: str) -> None:
    rng = np.random.default_rng(5)
    target = rng.standard_normal(DIMENSION)
    drones = [
        Sound(f"/drone{number}.wav", (target + 0.01 * rng.standard_normal((3000, DIMENSION))).astype(np.float16))
        for number in range(3)
    ]
    others = random_sounds(6, 40, 10)
    for sound in others:
        sound.missing = False
    query = outside(np.stack([target, target]).astype(np.float16))
    with opened([*drones, *others]) as (store, view):
        hits = search(store, view, [query], k=20, by="window" if by == "window" else "file")
        many = search(store, view, [query], k=1000)
    assert_best(hits, brute_force([*drones, *others], [query], by=by), 20, by)
    assert_best(many, brute_force([*drones, *others], [query], by="file"), 1000, "file")


@pytest.mark.parametrize("seed", range(4))
def test_file_that_is_second_best_everywhere_is_not_lost(seed: int) -> None:
    """Windows proposed for each part of a query may all lie in files that fit no other part."""
    rng = np.random.default_rng(seed)
    parts = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0][:4]
    one_sided = [
        Sound(f"/one/{number:03d}.wav", np.tile(parts[number % 4], (20, 1)).astype(np.float16)) for number in range(400)
    ]
    steady = np.tile(0.9 * parts + 0.4 * parts[::-1], (1, 1)).astype(np.float16)
    sounds = [*one_sided, Sound("/all.wav", steady)]
    query = outside(parts.astype(np.float16))
    with opened(sounds) as (store, view):
        hits = search(store, view, [query], k=5)
    assert hits[0].file.path == b"/all.wav"
    assert_best(hits, brute_force(sounds, [query], by="file"), 5, "file")


def test_best_of_many_windows_is_found_in_a_file_with_one(tmp_path: Path) -> None:
    """By window, a file counts by its best place, not by how many good ones it has."""
    rng = np.random.default_rng(3)
    parts = rng.standard_normal((12, DIMENSION))
    busy = [
        Sound(f"/busy/{number:03d}.wav", (parts + 0.3 * rng.standard_normal((12, DIMENSION))).astype(np.float16))
        for number in range(200)
    ]
    sounds = [*busy, Sound("/one.wav", parts[7:8].astype(np.float16))]
    query = outside(parts.astype(np.float16))
    with opened(sounds) as (store, view):
        hits = search(store, view, [query], k=3, by="window")
    assert (hits[0].file.path, hits[0].start_s) == (b"/one.wav", 0.0)
    assert_best(hits, brute_force(sounds, [query], by="window"), 3, "window")


# -- details -------------------------------------------------------------------------------------------------------


def sounds_of(**paths: Float16Array) -> list[Sound]:
    return [Sound(f"/{name}.wav", vectors) for name, vectors in paths.items()]


def rows(*rows: Sequence[float]) -> Float16Array:
    """Return short rows, padded with zeros to DIMENSION."""
    return np.array([[*row, *[0.0] * (DIMENSION - len(row))] for row in rows], np.float16)


def test_file_is_its_own_best_match_with_include_self_and_absent_without() -> None:
    sounds = random_sounds(11, 30, 20)
    sounds[7].missing = False
    with opened(sounds, standardise=True) as (store, view):
        query = query_of(store, sounds[7].path)
        with_self = search(store, view, [query], k=30, include_self=True)
        without = search(store, view, [query], k=30)
    assert with_self[0].file.text_path == sounds[7].path
    assert with_self[0].score == pytest.approx(1.0, abs=1e-6)
    assert [hit.file.path for hit in with_self[1:]] == [hit.file.path for hit in without][:29]


def test_query_comes_before_its_copies_with_include_self() -> None:
    vectors = random_sounds(1, 1, 9)[0].vectors
    with opened(sounds_of(a=vectors, b=vectors, c=vectors)) as (store, view):
        query = query_of(store, "/b.wav")
        assert [hit.file.path for hit in search(store, view, [query], include_self=True)] == [
            b"/b.wav",
            b"/a.wav",
            b"/c.wav",
        ]
        assert [hit.file.path for hit in search(store, view, [query])] == [b"/a.wav", b"/c.wav"]


def test_copies_are_ordered_by_path_and_windows_by_time() -> None:
    vectors = rows([1, 2], [3, 1])
    paths = ["/z.wav", "/m.wav", "/a.wav", "/k/b.wav"]
    with opened([Sound(path, vectors) for path in paths]) as (store, view):
        query = outside(vectors)
        files = search(store, view, [query], k=3)
        windows = search(store, view, [query], k=5, by="window")
    assert [hit.file.text_path for hit in files] == ["/a.wav", "/k/b.wav", "/m.wav"]
    assert [(hit.file.text_path, hit.start_s) for hit in windows] == [
        ("/a.wav", 0.0),
        ("/a.wav", 0.5),
        ("/k/b.wav", 0.0),
        ("/k/b.wav", 0.5),
        ("/m.wav", 0.0),
    ]


def test_start_and_end_are_those_of_the_best_window() -> None:
    with opened(sounds_of(a=rows([0, 1], [0, 1], [1, 0], [0, 1]))) as (store, view):
        (hit,) = search(store, view, [outside(rows([1, 0]))])
    assert (hit.start_s, hit.end_s, round(hit.score, 5)) == (1.0, 2.0, 1.0)


def test_end_is_not_beyond_the_end_of_the_file() -> None:
    with opened(sounds_of(a=rows([0, 1], [1, 0]))) as (store, view):  # 1 s long, windows at 0 and 0.5 s
        (hit,) = search(store, view, [outside(rows([1, 0]))])
    assert (hit.start_s, hit.end_s) == (0.5, 1.0)


def test_silent_windows_are_never_found() -> None:
    with opened(sounds_of(a=rows([0], [1, 0], [0]), silent=rows([0], [0]))) as (store, view):
        assert [(hit.file.path, hit.start_s) for hit in search(store, view, [outside(rows([1]))], by="window")] == [
            (b"/a.wav", 0.5)
        ]
        assert [hit.file.path for hit in search(store, view, [outside(rows([1]))])] == [b"/a.wav"]


def test_opposite_sound_scores_minus_one_and_no_less() -> None:
    vectors = np.random.default_rng(2).standard_normal((50, DIMENSION)).astype(np.float16)
    with opened([Sound(f"/{number}.wav", vectors[number : number + 1]) for number in range(50)]) as (store, view):
        for row in vectors[:10]:
            hits = search(store, view, [outside(-row[None])], k=50)
            assert min(hit.score for hit in hits) == pytest.approx(-1, abs=1e-6)
            assert all(-1 <= hit.score <= 1 for hit in hits)


def test_several_queries_ask_for_what_is_like_all_of_them() -> None:
    sounds = sounds_of(first=rows([1, 0]), second=rows([0, 1]), both=rows([1, 0], [0, 1]))
    asked = [outside(rows([1, 0])), outside(rows([0, 1]))]
    with opened(sounds) as (store, view):
        hits = search(store, view, asked)
    assert [(hit.file.path, round(hit.score, 5)) for hit in hits] == [
        (b"/both.wav", 1.0),
        (b"/first.wav", 0.5),
        (b"/second.wav", 0.5),
    ]


def test_hit_carries_the_labels_of_its_file() -> None:
    sound = Sound("/a.wav", rows([1]), (("genre", "house"), ("genre", "acid"), ("key", "Am")))
    with opened([sound]) as (store, view):
        (hit,) = search(store, view, [outside(rows([1]))])
    assert hit.labels == {"genre": ["acid", "house"], "key": ["Am"]}


def test_json_of_a_hit_has_the_promised_keys() -> None:
    with opened(sounds_of(a=rows([1], [0, 1]))) as (store, view):
        (hit,) = search(store, view, [outside(rows([1]))])
    assert hit_to_json(hit) == {
        "rank": 1,
        "path": "/a.wav",
        "score": 1.0,
        "start": 0.0,
        "end": 1.0,
        "duration": 1.0,
        "labels": {},
        "instrument": None,
    }


def test_undecodable_path_also_comes_as_base64() -> None:
    with opened([Sound(os.fsdecode(b"/\xff.wav"), rows([1]))]) as (store, view):
        (hit,) = search(store, view, [outside(rows([1]))])
    data = hit_to_json(hit)
    assert (data["path"], data["path_base64"]) == ("/\udcff.wav", "L/8ud2F2")


def test_search_sees_what_was_added_and_removed_after_the_index_was_written(tmp_path: Path) -> None:
    folder = str(tmp_path / "index")
    sounds = random_sounds(21, 30, 6)
    for sound in sounds:
        sound.missing = False
    write(folder, sounds[:20])
    with StoreWriter(folder) as writer:
        root = writer.put_root(b"/", 1)
        gone = writer.file_by_path(os.fsencode(sounds[3].path))
        assert gone is not None
        writer.forget_file(gone.id)
        for number, sound in zip(count(100), sounds[20:]):
            content = FileEmbedding(
                number.to_bytes(16, "big"), sound.vectors, 0, HOP_S,
                AudioFacts("wav", "pcm", 8000, 1, 1.0, "test"), TAGS, 1.0, 1.0,
            )  # fmt: skip
            writer.put_file(os.fsencode(sound.path), root, FileStat(1, 1, 1, number), content)
    left = [*sounds[:3], *sounds[4:]]
    query = random_query(1, 3, 1)
    with Store(folder) as store:
        hits = search(store, load_view(store), [query], k=50)
    assert_best(hits, brute_force(left, [query], by="file"), 50, "file")


def test_label_filter_takes_any_case_of_the_value_and_path_filter_takes_classes() -> None:
    sounds = [Sound(f"/lib/{name}.wav", rows([1, place]), (("genre", "House"),)) for place, name in enumerate("abc")]
    sounds[1].labels = ()

    def names(**filters: object) -> list[str]:
        with opened(sounds) as (store, view):
            hits = search(store, view, [outside(rows([1]))], filters=Filters(**filters))  # type: ignore[arg-type]
        return [Path(hit.file.text_path).stem for hit in hits]

    assert names(labels=(("genre", "hOUSE"),)) == ["a", "c"]
    assert names(path="lib/[ab].wav") == ["a", "b"]
    assert names(path="?.wav") == ["a", "b", "c"]


def test_filter_of_undecodable_bytes_finds_the_file() -> None:
    sounds = [Sound(os.fsdecode(b"/\xff/a.wav"), rows([1])), Sound("/b.wav", rows([1]))]
    with opened(sounds) as (store, view):
        (hit,) = search(store, view, [outside(rows([1]))], filters=Filters(path=os.fsdecode(b"\xff/*")))
    assert hit.file.path == b"/\xff/a.wav"


def test_wrong_questions_are_refused() -> None:
    with opened(sounds_of(a=rows([1]))) as (store, view):
        with pytest.raises(UsageError, match="-k of at least 1"):
            search(store, view, [outside(rows([1]))], k=0)
        with pytest.raises(UsageError, match="at least one sound"):
            search(store, view, [])
        with pytest.raises(UsageError, match="must be a number above 0, not 0"):
            search(store, view, [outside(rows([1]))], unlike=[outside(rows([2]))], unlike_weight=0)
        with pytest.raises(IndexEmptyError, match="fill it with `embedindex scan FOLDER`"):
            search(store, replace(view, windows=0), [outside(rows([1]))])
