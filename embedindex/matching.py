"""How a sound asked about is laid upon a file: in any order, in its own order, or in its own order at another speed.

Conventions: a table is (n, m) float32, the cosines of n windows of a query, in the order of time, with all m windows of
a file, of which the silent ones have cosine 0. Scores are means over the query's windows, so that a sound laid upon
itself scores 1. No order can score more than no order at all (`unordered`): the search relies on it.

Reference: M. Müller, "Fundamentals of Music Processing" (2015), chapter 7: diagonal matching and subsequence dynamic
time warping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array

Order = Literal["any", "time", "warp"]

# Share of a score that asks for the query's order; the rest takes the best match of each window wherever it is.
ORDER_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Phase:
    """A sound asked about, cut into windows from one starting point, in the space of an index.

    Attributes:
        rows: (n, dimension) float32 unit rows, none of them silent.
        starts_s: (n,) where they start in the sound, seconds, ascending; empty where they have no order.
        tail_s: how much sound the last of them holds, seconds.
    """

    rows: Float32Array
    starts_s: Float64Array
    tail_s: float = 0.0

    @property
    def length_s(self) -> float:
        """Where the sound ends, seconds from its beginning."""
        return (float(self.starts_s[-1]) if len(self.starts_s) else 0.0) + self.tail_s


@dataclass(frozen=True)
class Laid:
    """How well a sound lies upon a file.

    Attributes:
        score: from -1 to 1.
        start_s: where in the file the sound's beginning lies, seconds (0 at the least); None where order was not asked.
        end_s: where its end lies there; None likewise.
        phase: the number of the sound's phase that lies best.
    """

    score: float
    start_s: float | None
    end_s: float | None
    phase: int


@dataclass(frozen=True)
class InOrder:
    """The best place for a query's windows in their order.

    Attributes:
        score: mean cosine of the windows that count.
        first: the window of the file that the first of these lies on.
        last: the one that the last of them lies on.
        row: the number of the first of these among the query's windows.
    """

    score: float
    first: int
    last: int
    row: int = 0


@dataclass(frozen=True)
class Place:
    """A place of a file on which a sound may lie: the mean cosine there, and where the sound would begin, seconds."""

    score: float
    start_s: float


def unordered(table: Float32Array, loud: BoolArray) -> float:
    """Return the mean over rows of the highest cosine with a window that is not silent."""
    return float(table[:, loud].max(axis=1).mean())


def lay(phases: list[Phase], theirs: Float32Array, hop_s: float, order: Order) -> Laid:
    """Return how well a sound lies upon a file: the best of its phases.

    Args:
        phases: the sound.
        theirs: (m, dimension) float32 all windows of the file, rows of zeros for silence; one of them at least is not.
        hop_s: seconds between them.
        order: ``"any"``: each window matches wherever it does best. ``"time"``: that, and as much for lying in order at
            the sound's own speed. ``"warp"``: likewise at any speed from half to twice its own.
    """
    loud = np.asarray(theirs.any(axis=1))
    best = Laid(-np.inf, None, None, 0)
    for number, phase in enumerate(phases):
        table = phase.rows @ theirs.T
        score = unordered(table, loud)
        start_s: float | None = None
        end_s: float | None = None
        if order != "any" and len(phase.starts_s):
            if (1 - ORDER_SHARE) * score + ORDER_SHARE * score <= best.score:
                continue
            beyond = np.minimum(0.0, table[:, loud].max(axis=1))
            place = (warped if order == "warp" else straight)(table, beyond, phase.starts_s, hop_s)
            # Some of the windows may do better than all of them, and silence, 0, better than a bad match.
            score = (1 - ORDER_SHARE) * score + ORDER_SHARE * min(score, place.score)
            begins_s = place.first * hop_s - float(phase.starts_s[place.row])
            start_s = max(0.0, begins_s)
            end_s = place.last * hop_s + phase.tail_s if order == "warp" else begins_s + phase.length_s
        if score > best.score:
            best = Laid(score, start_s, end_s, number)
    return best


def straight(table: Float32Array, beyond: Float32Array, starts_s: Float64Array, hop_s: float) -> InOrder:
    """Return the best place for a query at its own speed.

    Where its windows lie denser than those of the file, only those count that are a whole number of the file's hops
    apart, by turns those from the first, the second… on: the others would fall between the file's windows.

    Args:
        table: (n, m) cosines.
        beyond: (n,) what a row scores that lies behind the file's end.
        starts_s: (n,) the rows' starts, seconds.
        hop_s: seconds between the columns.
    """
    every = _rows_to_a_column(starts_s, hop_s)
    combs = [
        diagonal(table[row::every], beyond[row::every], starts_s[row::every], hop_s)
        for row in range(min(every, len(table)))
    ]
    row = max(range(len(combs)), key=lambda number: combs[number].score)
    return replace(combs[row], row=row)


def diagonal(table: Float32Array, beyond: Float32Array, starts_s: Float64Array, hop_s: float) -> InOrder:
    """Return the best place for all windows of a query at its own speed; arguments as for `straight`."""
    means = _diagonals(table, beyond, starts_s, hop_s)
    first = int(np.argmax(means))
    length = round((float(starts_s[-1]) - float(starts_s[0])) / hop_s)
    return InOrder(float(means[first]), first, min(table.shape[1] - 1, first + length))


def _diagonals(table: Float32Array, beyond: Float32Array, starts_s: Float64Array, hop_s: float) -> Float64Array:
    """Return (m,) the mean cosine of a query's windows when the first of them lies upon each window of the file."""
    offsets = np.rint((starts_s - starts_s[0]) / hop_s).astype(np.int64)
    columns = table.shape[1]
    total = np.zeros(columns)
    for row, offset in enumerate(offsets):
        inside = max(0, columns - int(offset))
        total[:inside] += table[row, columns - inside :]
        total[inside:] += beyond[row]
    return np.asarray(total / len(table))


def places(phases: list[Phase], theirs: Float32Array, hop_s: float, apart_s: float, most: int) -> list[Place]:
    """Return where a sound lies best upon a file at its own speed, the best place first.

    Args:
        phases: the sound; its windows have times.
        theirs: (m, dimension) float32 all windows of the file, rows of zeros for silence; one of them at least is not.
        hop_s: seconds between them.
        apart_s: of places nearer to each other than this only the best is given.
        most: how many.
    """
    loud = np.asarray(theirs.any(axis=1))
    scores: list[Float64Array] = []
    starts_s: list[Float64Array] = []
    for phase in phases:
        table = phase.rows @ theirs.T
        beyond = np.minimum(0.0, table[:, loud].max(axis=1))
        every = _rows_to_a_column(phase.starts_s, hop_s)
        for row in range(min(every, len(table))):
            own_s = phase.starts_s[row::every]
            scores.append(_diagonals(table[row::every], beyond[row::every], own_s, hop_s))
            starts_s.append(np.arange(len(theirs)) * hop_s - own_s[0])
    score, start_s = np.concatenate(scores), np.concatenate(starts_s)
    found: list[Place] = []
    while len(found) < most and np.isfinite(score).any():
        best = int(np.argmax(score))
        found.append(Place(float(score[best]), float(start_s[best])))
        score = np.where(np.abs(start_s - start_s[best]) < apart_s, -np.inf, score)
    return found


def _rows_to_a_column(starts_s: Float64Array, hop_s: float) -> int:
    """Return how many windows of a query that starts at `starts_s` come to a hop of the file, 1 at the least."""
    own_s = float(np.median(np.diff(starts_s))) if len(starts_s) > 1 else hop_s
    return max(1, round(hop_s / own_s))


def warped(table: Float32Array, beyond: Float32Array, starts_s: Float64Array, hop_s: float) -> InOrder:
    """Return the best place for a query at half to twice its own speed.

    Subsequence dynamic time warping: from one window of the query to the next, the file advances by none, one or two
    windows, and never by none twice in a row. Where the windows of one lie denser than those of the other, every other
    (third…) of them is taken, from each starting point.

    Args:
        table: (n, m) cosines.
        beyond: (n,) what a row scores that lies behind the end of a file that is too short for any path.
        starts_s: (n,) the rows' starts, seconds.
        hop_s: seconds between the columns.
    """
    own_s = float(np.median(np.diff(starts_s))) if len(starts_s) > 1 else hop_s
    every_row, every_column = max(1, round(hop_s / own_s)), max(1, round(own_s / hop_s))
    best = InOrder(-np.inf, 0, 0)
    for row in range(min(every_row, len(table))):
        part = table[row::every_row]
        paths = [_subsequence(part[:, column::every_column]) for column in range(min(every_column, table.shape[1]))]
        column = max(range(len(paths)), key=lambda number: paths[number][0])
        score, first, last = paths[column]
        if score > best.score:
            best = InOrder(score, column + first * every_column, column + last * every_column, row)
    # Without a path, the file is less than half as long as the query.
    return best if np.isfinite(best.score) else straight(table, beyond, starts_s, hop_s)


def _subsequence(table: Float32Array) -> tuple[float, int, int]:
    """Return (mean cosine, first column, last column) of the best path through all rows of a table (n, m)."""
    rows, columns = table.shape
    start = np.arange(columns, dtype=np.int64)
    # Sums of cosines of the best paths that end in each column: after a step forward, and after standing still.
    moved, moved_from = table[0].astype(np.float64), start
    stood, stood_from = np.full(columns, -np.inf), start
    for row in range(1, rows):
        reached, reached_from = _better(moved, moved_from, stood, stood_from)
        one, one_from = _shifted(reached, reached_from, 1)
        two, two_from = _shifted(reached, reached_from, 2)
        stood, stood_from = moved + table[row], moved_from
        ahead, moved_from = _better(one, one_from, two, two_from)
        moved = ahead + table[row]
    total, origin = _better(moved, moved_from, stood, stood_from)
    last = int(np.argmax(total))
    return float(total[last] / rows), int(origin[last]), last


def _better(
    one: Float64Array, one_from: Int64Array, other: Float64Array, other_from: Int64Array
) -> tuple[Float64Array, Int64Array]:
    """Return the greater of two sums for each column, with its origin."""
    first = one >= other
    return np.where(first, one, other), np.where(first, one_from, other_from)


def _shifted(sums: Float64Array, origins: Int64Array, by: int) -> tuple[Float64Array, Int64Array]:
    """Return sums and origins moved `by` columns on; nothing comes into the first ones."""
    moved, moved_from = np.full(len(sums), -np.inf), np.zeros(len(sums), np.int64)
    if by < len(sums):
        moved[by:], moved_from[by:] = sums[:-by], origins[:-by]
    return moved, moved_from
