"""Comparing a sound that had noise in it by what tells this index's windows apart: a network's numbers, whitened.

A network hears what is left of noise, and of highs that an encoder took, before it hears the sound: in much the same
few directions in which all windows of an index differ most. Vectors are taken against the index's mean, and what is
common in them is divided by how common it is (Mahalanobis' distance, as a cosine), so that what little is peculiar to
one window decides. That is for finding the very sound again; for what sounds alike it is not better
(docs/decisions/queries.md).

Conventions: rows are (n, dimension) float32 of length 1; rows of zeros stand for silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embedindex.arrays import Float16Array, Float32Array
from embedindex.index import IndexView
from embedindex.query import Query
from embedindex.space import sounding, unit_rows
from embedindex.store import Store

# Mean and covariance are those of so many windows, in so many runs over the whole index.
WINDOWS = 4096
RUNS = 64
# Of fewer windows than this share of the dimension nothing is learnt.
LEAST_WINDOWS = 0.5
# So much of the mean variance is added to that of each direction: those in which windows hardly differ are rounding.
SHRINKAGE = 0.1


@dataclass(frozen=True, eq=False)
class WhitenedSpace:
    """What is done to vectors before they are compared.

    Attributes:
        mean: (d,) float32 of the index's rows.
        covariance: (d, d) float64 of them, with `SHRINKAGE`.
    """

    mean: Float32Array
    covariance: np.ndarray[tuple[int, ...], np.dtype[np.float64]]

    @cached_property
    def _whitening(self) -> Float32Array:
        """(d, d): rows times this have the same variance in all directions."""
        return np.asarray(np.linalg.inv(np.linalg.cholesky(self.covariance)).T, np.float32)

    def apply(self, vectors: Float16Array | Float32Array) -> Float32Array:
        """Return stored vectors (n, d) as rows (n, d)."""
        centred = unit_rows(vectors.astype(np.float32)) - self.mean
        rows = np.asarray(centred @ self._whitening, np.float32)
        rows[~sounding(vectors)] = 0.0
        return unit_rows(rows)

    def proposals(self, rows: Float32Array) -> Float32Array:
        """Return (n, d) what to look for in an index that knows nothing of this, to find windows like `rows`.

        Their inner product with a plain row is, but for a constant and the length of that row here, the inner product
        of `rows` with that row here.
        """
        return unit_rows(rows @ self._whitening.T)


def whitened_for(store: Store, view: IndexView, queries: Sequence[Query]) -> WhitenedSpace | None:
    """Return what queries are compared in when noise was taken from one of them.

    Returns:
        None where there was no noise, the index's space is not that of a network alone, or too little is in it.

    Raises:
        IndexDamagedError: vectors of the index cannot be read.
    """
    if view.space.kind != "plain" or not any(query.noisy for query in queries):
        return None
    vectors = _some_windows(store, view.next_window)
    rows = unit_rows(vectors[sounding(vectors)].astype(np.float32))
    dimension = view.model.identity.dimension
    if len(rows) < max(2, LEAST_WINDOWS * dimension):
        return None
    mean = rows.mean(axis=0)
    centred = rows - mean
    covariance = (centred.T @ centred / len(rows)).astype(np.float64)
    variance = float(np.trace(covariance)) / dimension
    if not variance > np.finfo(np.float32).eps:
        return None
    return WhitenedSpace(mean, covariance + SHRINKAGE * variance * np.eye(dimension))


def _some_windows(store: Store, next_window: int) -> Float16Array:
    """Return about `WINDOWS` windows, (n, dimension), in runs that are spread evenly over the index; all of few."""
    found: list[Float16Array] = []
    reached = 0
    for start in np.linspace(0, next_window, RUNS, endpoint=False).astype(int):
        run = 0
        for numbers, vectors in store.vector_batches(max(reached, int(start)), rows=2):
            found.append(vectors)
            run += len(vectors)
            reached = int(numbers[-1]) + 1
            if run >= WINDOWS // RUNS:
                break
    return np.concatenate(found)
