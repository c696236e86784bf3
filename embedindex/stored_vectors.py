"""Vectors of any windows out of the database, many at a time: for re-ranking, for exact answers, for samples."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Int64Array
from embedindex.errors import IndexDamagedError, display_path
from embedindex.schema import WINDOWS_PER_ROW
from embedindex.store import Store

SAMPLED_A_ROW = 4
SAMPLED_ROWS_AT_ONCE = 512


def vectors_of_windows(store: Store, numbers: Int64Array, dimension: int) -> tuple[BoolArray, Float16Array]:
    """Return ((n,) whether a window is still there, (n, dimension) float16 vectors, zeros where it is not).

    One query for all, in the order of the database's pages.

    Args:
        store: the index.
        numbers: (n,) int64, ascending, none twice.
        dimension: of the index's model.

    Raises:
        IndexDamagedError: a row does not hold as many vectors as it says.
    """
    there = np.zeros(len(numbers), bool)
    vectors = np.zeros((len(numbers), dimension), np.float16)
    if not len(numbers):
        return there, vectors
    # No row is longer than this, so that none is met by two runs which lie further apart.
    ends = np.flatnonzero(np.diff(numbers) > WINDOWS_PER_ROW)
    firsts = numbers[np.concatenate(([0], ends + 1))]
    lasts = numbers[np.concatenate((ends, [len(numbers) - 1]))]
    runs = json.dumps(np.stack((firsts, lasts), 1).tolist())
    wanted, width = numbers.tolist(), 2 * dimension
    places: list[int] = []
    parts: list[bytes] = []  # cut out as bytes: numpy takes longer for so little at a time
    for first, count, data in store.vector_rows(runs):
        if len(data) != count * width:
            raise IndexDamagedError(
                f"{display_path(store.folder)}: the vectors of windows {first} to {first + count - 1} are damaged; "
                "`embedindex verify` names the files"
            )
        place = bisect_left(wanted, first)
        while place < len(wanted) and wanted[place] < first + count:
            begin = (wanted[place] - first) * width
            parts.append(data[begin : begin + width])
            places.append(place)
            place += 1
    there[places] = True
    vectors[places] = np.frombuffer(b"".join(parts), np.float16).reshape(len(places), dimension)
    return there, vectors


def sample_windows(
    store: Store, count: int, dimension: int, seed: int, a_row: int = SAMPLED_A_ROW
) -> Iterator[tuple[Int64Array, Float16Array]]:
    """Yield (numbers, vectors) of about `count` windows that are not silent, drawn evenly over the index.

    A few, `a_row`, are taken from each row of the database that is read: one a row would read thirty times as much.
    """
    random = np.random.default_rng(seed)
    next_window = store.next_window
    drawn = 0
    places = np.sort(random.integers(0, max(1, next_window), 2 * -(-count // a_row) + a_row))
    for part in np.array_split(random.permutation(places), -(-len(places) // SAMPLED_ROWS_AT_ONCE)):
        wanted = np.unique(part[:, None] + np.arange(a_row) * (WINDOWS_PER_ROW // a_row))
        there, vectors = vectors_of_windows(store, wanted[wanted < next_window], dimension)
        loud = np.flatnonzero(there & vectors.any(axis=1))[: count - drawn]
        drawn += len(loud)
        if len(loud):
            yield wanted[loud], vectors[loud]
        if drawn >= count:
            return
