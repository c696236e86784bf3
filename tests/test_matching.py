"""Laying a sound upon a file: in any order, in order, at another speed; each against a slow plain computation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float32Array, Float64Array
from embedindex.matching import Order, Phase, diagonal, lay, straight, warped

DIMENSION = 6
HOP_S = 0.5


def unit(rows: Float32Array) -> Float32Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def random_rows(seed: int, count: int, silent: float = 0.0) -> Float32Array:
    random = np.random.default_rng(seed)
    rows = unit(random.standard_normal((count, DIMENSION)).astype(np.float32) + 0.5)
    rows[random.random(count) < silent] = 0
    return rows


def starts(count: int, hop_s: float = HOP_S, first_s: float = 0.0) -> Float64Array:
    return np.asarray(first_s + hop_s * np.arange(count), np.float64)


def slow_diagonal(table: Float32Array, beyond: Float32Array, starts_s: Float64Array, hop_s: float) -> float:
    best = -np.inf
    for first in range(table.shape[1]):
        total = 0.0
        for row, start_s in enumerate(starts_s):
            column = first + int(np.rint((start_s - starts_s[0]) / hop_s))
            total += float(table[row, column] if column < table.shape[1] else beyond[row])
        best = max(best, total / len(table))
    return best


def slow_warp(table: Float32Array) -> float:
    """Return the mean of the best path, by trying all of them: none, one or two columns on, never none twice."""
    rows, columns = table.shape

    @cache
    def rest(row: int, column: int, stood: bool) -> float:
        here = float(table[row, column])
        if row == rows - 1:
            return here
        ways = [rest(row + 1, column + step, False) for step in (1, 2) if column + step < columns]
        if not stood:
            ways.append(rest(row + 1, column, True))
        return here + max(ways, default=-np.inf)

    return float(max(rest(0, column, False) for column in range(columns)) / rows)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 14), st.sampled_from([0.25, 0.5, 1.0, 0.37]))
def test_diagonal_is_the_best_place_in_order(seed: int, rows: int, columns: int, own_hop_s: float) -> None:
    table = random_rows(seed, rows) @ random_rows(seed + 1, columns, silent=0.2).T
    beyond = np.minimum(0, table.max(axis=1))
    starts_s = starts(rows, own_hop_s, 0.1)
    place = diagonal(table, beyond, starts_s, HOP_S)
    assert place.score == pytest.approx(slow_diagonal(table, beyond, starts_s, HOP_S), abs=1e-5)
    assert 0 <= place.first <= place.last < columns


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 12))
@settings(max_examples=60)
def test_warp_is_the_best_of_all_paths(seed: int, rows: int, columns: int) -> None:
    table = random_rows(seed, rows) @ random_rows(seed + 1, columns).T
    beyond = np.minimum(0, table.max(axis=1))
    place = warped(table, beyond, starts(rows), HOP_S)
    wanted = slow_warp(table)
    if np.isfinite(wanted):
        assert place.score == pytest.approx(wanted, abs=1e-5)
        assert (rows - 1) // 2 <= place.last - place.first <= 2 * (rows - 1)
    else:
        assert place.score == pytest.approx(slow_diagonal(table, beyond, starts(rows), HOP_S), abs=1e-5)


@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.integers(1, 14),
    st.sampled_from(["time", "warp"]),
    st.sampled_from([0.25, 0.5, 1.0]),
)
def test_no_order_scores_more_than_any_order(
    seed: int, rows: int, columns: int, order: Order, own_hop_s: float
) -> None:
    # The search looks for files by what they can score at most, which is what they score in any order.
    theirs = random_rows(seed + 1, columns, silent=0.3)
    theirs[0] = random_rows(seed + 2, 1)[0]
    phases = [Phase(random_rows(seed, rows), starts(rows, own_hop_s))]
    assert lay(phases, theirs, HOP_S, order).score <= lay(phases, theirs, HOP_S, "any").score + 1e-6


@pytest.mark.parametrize("order", ["any", "time", "warp"])
def test_a_sound_laid_upon_itself_scores_1_from_its_start(order: Order) -> None:
    rows = random_rows(3, 7)
    laid = lay([Phase(rows, starts(7), tail_s=1.0)], rows, HOP_S, order)
    assert laid.score == pytest.approx(1.0, abs=1e-6)
    if order != "any":
        assert laid.start_s == 0.0
        assert laid.end_s == pytest.approx(6 * HOP_S + 1.0)


def test_windows_in_a_row_score_more_than_the_same_windows_scattered() -> None:
    rows = random_rows(5, 4)
    filler = random_rows(6, 12)
    in_a_row = np.concatenate((filler[:5], rows, filler[5:]))
    scattered = np.concatenate(
        (filler[:3], rows[2:3], filler[3:5], rows[:1], filler[5:9], rows[3:], filler[9:], rows[1:2])
    )
    phases = [Phase(rows, starts(4))]
    whole, parts = (lay(phases, theirs, HOP_S, "time") for theirs in (in_a_row, scattered))
    assert lay(phases, scattered, HOP_S, "any").score == pytest.approx(1.0, abs=1e-6)
    assert whole.score == pytest.approx(1.0, abs=1e-6)
    assert whole.start_s == 5 * HOP_S
    assert parts.score < 0.95


def test_the_place_is_where_the_sound_begins_not_its_first_window() -> None:
    # Cut a quarter of a hop before a window of the file: its second starting point falls on that window.
    theirs = random_rows(7, 20)
    late = Phase(theirs[8:11], starts(3, first_s=0.125), tail_s=0.6)
    other = Phase(random_rows(8, 3), starts(3), tail_s=0.6)
    laid = lay([other, late], theirs, HOP_S, "time")
    assert laid.score == pytest.approx(1.0, abs=1e-6)
    assert laid.start_s == pytest.approx(8 * HOP_S - 0.125)
    assert laid.end_s == pytest.approx(10 * HOP_S + 0.6)
    assert laid.phase == 1


def test_of_windows_denser_than_the_file_s_those_count_that_fall_upon_its_windows() -> None:
    # The sound begins a quarter of a second before a window of the file: its second, fourth… windows fall upon windows.
    theirs = random_rows(14, 20)
    dense = random_rows(15, 6)
    dense[1::2] = theirs[5:8]
    laid = lay([Phase(dense, starts(6, 0.25), tail_s=0.25)], theirs, HOP_S, "time")
    table = dense @ theirs.T
    assert straight(table, np.zeros(6, np.float32), starts(6, 0.25), HOP_S).score == pytest.approx(1.0, abs=1e-6)
    assert laid.start_s == pytest.approx(5 * HOP_S - 0.25)
    assert laid.end_s == pytest.approx(5 * HOP_S - 0.25 + 1.5)
    assert laid.score == pytest.approx(table.max(axis=1).mean(), abs=1e-6)  # not more than in any order


@pytest.mark.parametrize("speed", ["twice", "half"])
def test_warp_finds_the_same_gesture_at_another_speed(speed: str) -> None:
    gesture = random_rows(9, 8)
    filler = random_rows(10, 6)
    played = gesture[::2] if speed == "twice" else np.repeat(gesture, 2, axis=0)
    theirs = np.concatenate((filler[:3], played, filler[3:]))
    query = [Phase(gesture, starts(8))]
    straight, warp = (lay(query, theirs, HOP_S, order) for order in ("time", "warp"))
    assert warp.score > straight.score + 0.1
    assert warp.start_s == pytest.approx(3 * HOP_S, abs=HOP_S)


@pytest.mark.parametrize(("own_hop_s", "hop_s"), [(0.25, 1.0), (1.0, 0.25)])
def test_warp_follows_a_query_whose_windows_lie_denser_or_thinner(own_hop_s: float, hop_s: float) -> None:
    corners = random_rows(11, 9)

    def at(times_s: Float64Array) -> Float32Array:
        """Return the windows of a sound that moves from corner to corner, one a second, at some times."""
        number = np.minimum(times_s.astype(np.int64), 7)
        share = (times_s - number)[:, None].astype(np.float32)
        return unit((1 - share) * corners[number] + share * corners[number + 1])

    theirs = at(np.arange(0, 8, hop_s))
    query = Phase(at(np.arange(2, 6, own_hop_s)), np.arange(0, 4, own_hop_s))
    laid = lay([query], theirs, hop_s, "warp")
    assert laid.score > 0.85
    assert laid.start_s == pytest.approx(2.0, abs=1.0)


def test_a_sound_longer_than_the_file_loses_what_lies_behind_its_end() -> None:
    rows = random_rows(12, 6)
    whole = lay([Phase(rows, starts(6))], rows, HOP_S, "time").score
    cut = lay([Phase(rows, starts(6))], rows[:3], HOP_S, "time").score
    assert cut < whole - 0.2
    assert np.isfinite(lay([Phase(rows, starts(6))], rows[:1], HOP_S, "warp").score)


def test_without_times_there_is_no_order() -> None:
    rows = random_rows(13, 4)
    laid = lay([Phase(rows[::-1], np.zeros(0))], rows, HOP_S, "time")
    assert laid.score == pytest.approx(1.0, abs=1e-6)
    assert (laid.start_s, laid.end_s) == (None, None)
