"""Searching inside files, at another speed, and for whole files: against brute force; and what goes together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float16Array
from embedindex.errors import UsageError
from embedindex.explanation import explain
from embedindex.query import Query
from embedindex.search import search, way_to_match
from tests.test_matching import slow_diagonal, slow_warp, starts
from tests.test_search import DIMENSION, HOP_S, Sound, opened, random_sounds, reference_space, unit


def timed(seed: int, windows: int, phases: int, hop_s: float = HOP_S) -> Query:
    """Return a query with times: random vectors, each phase a little later than the one before."""
    random = np.random.default_rng([seed, 2])
    vectors = [random.standard_normal((windows, DIMENSION)).astype(np.float16) for _ in range(phases)]
    starts_s = tuple(starts(windows, hop_s, 0.1 * number) for number in range(phases))
    return Query(b"/outside.wav", tuple(vectors), None, starts_s, length_s=windows * hop_s)


def slow_inside(sounds: Sequence[Sound], query: Query, *, standardise: bool, warp: bool) -> dict[str, float]:
    """Return {path: score} by the definition in docs/similar.md."""
    space = reference_space(sounds, standardise)
    scores: dict[str, float] = {}
    for sound in sounds:
        loud = sound.vectors.any(axis=1)
        if sound.missing or not loud.any():
            continue
        theirs = unit(sound.vectors, space, standardise)
        theirs[~loud] = 0
        of_phases = []
        for rows, starts_s in zip(query.vectors, query.starts_s, strict=True):
            table = unit(rows, space, standardise) @ theirs.T
            best = table[:, loud].max(axis=1)
            beyond, single = np.minimum(0, best).astype(np.float32), table.astype(np.float32)
            ordered = slow_warp(single) if warp else -np.inf
            if not np.isfinite(ordered):
                ordered = slow_diagonal(single, beyond, starts_s, HOP_S)
            of_phases.append((best.mean() + min(best.mean(), ordered)) / 2)
        scores[sound.path] = max(of_phases)
    return scores


def slow_whole(sounds: Sequence[Sound], query: Float16Array) -> dict[str, float]:
    """Return {path: score} of sounds of up to 16 windows, each of which is then a stretch of its own."""
    plain = reference_space(sounds, False)
    own = unit(query, plain, False)
    scores: dict[str, float] = {}
    for sound in sounds:
        loud = sound.vectors[sound.vectors.any(axis=1)]
        if not sound.missing and len(loud):
            table = own @ unit(loud, plain, False).T
            scores[sound.path] = (table.max(axis=1).mean() + table.max(axis=0).mean()) / 2
    return scores


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    files=st.integers(1, 20),
    longest=st.sampled_from([1, 3, 12]),
    k=st.integers(1, 12),
    standardise=st.booleans(),
    windows=st.integers(1, 6),
    phases=st.integers(1, 3),
    warp=st.booleans(),
)
def test_ranking_inside_files_is_that_of_brute_force(
    seed: int, files: int, longest: int, k: int, standardise: bool, windows: int, phases: int, warp: bool
) -> None:
    sounds = random_sounds(seed, files, longest)
    query = timed(seed, windows, phases)
    with opened(sounds, standardise=standardise) as (store, view):
        if view.windows == 0:
            return
        hits = search(store, view, [query], k=k, match="inside", warp=warp)
        reasons = [explain(store, view, hit, [query], match="inside", warp=warp)[0] for hit in hits]
        standardised = standardise and view.space.kind == "standardised"
    wanted = slow_inside(sounds, query, standardise=standardised, warp=warp)
    np.testing.assert_allclose([hit.score for hit in hits], sorted(wanted.values(), reverse=True)[:k], atol=5e-5)
    for hit, reason in zip(hits, reasons, strict=True):
        assert hit.score == pytest.approx(wanted[hit.file.text_path], abs=5e-5)
        assert reason.score == pytest.approx(hit.score, abs=1e-5)
        assert 0 <= hit.start_s <= hit.end_s <= (hit.file.duration or 0)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), files=st.integers(1, 20), k=st.integers(1, 12), windows=st.integers(1, 8))
def test_ranking_of_whole_files_is_that_of_brute_force(seed: int, files: int, k: int, windows: int) -> None:
    sounds = random_sounds(seed, files, 12)
    query = timed(seed, windows, 2)
    with opened(sounds) as (store, view):
        if view.windows == 0:
            return
        hits = search(store, view, [query], k=k, match="whole")
        reasons = [explain(store, view, hit, [query], match="whole")[0] for hit in hits]
    wanted = slow_whole(sounds, query.vectors[0])
    np.testing.assert_allclose([hit.score for hit in hits], sorted(wanted.values(), reverse=True)[:k], atol=5e-5)
    for hit, reason in zip(hits, reasons, strict=True):
        assert hit.score == pytest.approx(wanted[hit.file.text_path], abs=5e-5)
        assert reason.score == pytest.approx(hit.score, abs=1e-5)
        assert (hit.start_s, hit.end_s) == (0.0, hit.file.duration)


def test_away_from_a_sound_goes_with_both_ways() -> None:
    sounds = random_sounds(5, 12, 6)
    like, away = timed(5, 4, 1), timed(6, 4, 1)
    with opened(sounds) as (store, view):
        inside = search(store, view, [like], k=20, unlike=[away], unlike_weight=0.7, match="inside")
        whole = search(store, view, [like], k=20, unlike=[away], unlike_weight=0.7, match="whole")
    one, other = (slow_inside(sounds, query, standardise=False, warp=False) for query in (like, away))
    assert {hit.file.text_path: hit.score for hit in inside} == pytest.approx(
        {path: one[path] - 0.7 * other[path] for path in one}, abs=5e-5
    )
    one, other = (slow_whole(sounds, query.vectors[0]) for query in (like, away))
    assert {hit.file.text_path: hit.score for hit in whole} == pytest.approx(
        {path: one[path] - 0.7 * other[path] for path in one}, abs=5e-5
    )


def test_a_clip_is_found_inside_a_long_file_and_a_long_file_by_its_like() -> None:
    random = np.random.default_rng(4)
    track = random.standard_normal((60, DIMENSION)).astype(np.float16)
    relative = (track + 0.3 * random.standard_normal(track.shape)).astype(np.float16)
    sounds = [
        Sound(
            "/lib/holds-the-clip.wav",
            np.concatenate((random.standard_normal((50, DIMENSION)), track[20:26])).astype(np.float16),
        ),
        Sound("/lib/relative.wav", relative),
    ]
    clip = Query(b"/clip.wav", (track[20:26],), None, (starts(6),), length_s=3.0)
    whole = Query(b"/track.wav", (track,), None, (starts(60),), length_s=60.0)
    with opened(sounds) as (store, view):
        first = search(store, view, [clip])[0]
        assert first.file.text_path == "/lib/holds-the-clip.wav"
        assert first.score == pytest.approx(1.0, abs=1e-3)
        assert first.start_s == 50 * HOP_S
        assert first.end_s == pytest.approx(50 * HOP_S + 3.0)
        assert search(store, view, [whole])[0].file.text_path == "/lib/relative.wav"


def test_length_chooses_the_way_unless_it_is_said() -> None:
    short, long = timed(1, 3, 1), timed(1, 120, 1)
    folder = Query(b"/folder", long.vectors, None, long.starts_s, sources=(b"/folder/a",) * 120, length_s=None)
    assert way_to_match([short], "file") == "inside"
    assert way_to_match([long], "file") == "whole"
    assert way_to_match([short, long], "file") == "inside"
    assert way_to_match([folder], "file") == "inside"
    assert way_to_match([long], "window") == "inside"
    assert way_to_match([long], "file", warp=True) == "inside"
    assert way_to_match([long], "file", "inside") == "inside"
    assert way_to_match([short], "file", "whole") == "whole"


def test_what_does_not_go_together_is_refused() -> None:
    short = timed(1, 3, 1)
    with pytest.raises(UsageError, match="window by window"):
        way_to_match([short], "window", "whole")
    with pytest.raises(UsageError, match="window by window"):
        way_to_match([short], "window", warp=True)
    with pytest.raises(UsageError, match="leave out --match whole"):
        way_to_match([short], "file", "whole", warp=True)
