"""The centres of many lists, and the way to the nearest of them: FAISS's k-means and FAISS's lists, in two levels.

Plain k-means compares every vector with every centre, so that ten thousand centres take longest of all that building
an index does. Here sounds are first parted around the root of that number of centres, each part then has its own, and
one round over all of them mends what the borders between parts cut. The same way, by the parts, leads to a vector's
centre. Conventions: rows are (n, d) float32 of length 1, nearness is the inner product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Int64Array
from embedindex.index_plan import PARTS_PROBED, POLISHING_ROUNDS, TRAINING_ROUNDS, TWO_LEVELS_FROM

TRAINING_A_PART = 256
BATCH = 8192


def learn_centres(rows: Float32Array, count: int, seed: int) -> Float32Array:
    """Return `count` centres of rows, (count, d) float32 of length 1; there are at least as many rows."""
    if count < TWO_LEVELS_FROM:
        return _k_means(rows, count, seed, TRAINING_ROUNDS)
    parts = round(count**0.5)
    tops = _k_means(rows, parts, seed, TRAINING_ROUNDS, TRAINING_A_PART)
    import faiss

    own = faiss.knn(rows, tops, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
    sizes = np.bincount(own, minlength=parts)
    shares = np.diff(np.cumsum(sizes) * count // len(rows), prepend=0)  # in proportion, never more than there are rows
    members = np.split(np.argsort(own, kind="stable"), np.cumsum(sizes)[:-1])
    centres = np.concatenate(
        [
            _k_means(rows[member], int(share), seed, TRAINING_ROUNDS)
            for member, share in zip(members, shares, strict=True)
            if share
        ]
    )
    for _ in range(POLISHING_ROUNDS):
        centres = _round(rows, centres, seed)
    return centres


def _round(rows: Float32Array, centres: Float32Array, seed: int) -> Float32Array:
    """Return centres moved to the middle of the rows that are nearest to each, as a round of k-means does it."""
    finder = CentreFinder.of(centres, seed)
    sums = np.zeros_like(centres)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        nearest = finder.nearest(batch)[1]
        order = np.argsort(nearest, kind="stable")
        firsts = np.flatnonzero(np.diff(nearest[order], prepend=-1))
        sums[nearest[order][firsts]] += np.add.reduceat(batch[order], firsts, axis=0)
    moved = np.where(sums.any(axis=1, keepdims=True), sums, centres)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def _k_means(rows: Float32Array, count: int, seed: int, rounds: int, most: int = 2**31 - 1) -> Float32Array:
    """Return (count, d) centres of length 1, learnt from at most `most` rows a centre."""
    import faiss

    means = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=rounds,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=min(most, max(1, len(rows))),
    )
    means.train(rows)
    return np.asarray(means.centroids, np.float32)


@dataclass(frozen=True)
class CentreFinder:
    """Finds the nearest centre of many vectors: nearly always the nearest, in far less time than comparing with all.

    Attributes:
        tops: (parts, d) what stands for the centres of each part.
        parts: the centres of each part, (n, d).
        numbers: their numbers.
        probed: how many parts are looked through.
    """

    tops: Float32Array
    parts: tuple[Float32Array, ...]
    numbers: tuple[Int64Array, ...]
    probed: int

    @classmethod
    def of(cls, centres: Float32Array, seed: int) -> CentreFinder:
        """Return one for some centres, (count, d) float32 of length 1."""
        if len(centres) < TWO_LEVELS_FROM:
            return cls(centres[:1], (centres,), (np.arange(len(centres)),), 1)
        tops = _k_means(centres, round(len(centres) ** 0.5), seed, TRAINING_ROUNDS)
        own = (centres @ tops.T).argmax(axis=1)
        numbers = tuple(np.flatnonzero(own == part) for part in np.unique(own))
        return cls(tops[np.unique(own)], tuple(centres[part] for part in numbers), numbers, PARTS_PROBED)

    def nearest(self, rows: Float32Array) -> tuple[Float32Array, Int64Array]:
        """Return ((n,) inner products with the nearest centre, (n,) its number)."""
        probed = min(self.probed, len(self.parts))
        near = np.argpartition(rows @ -self.tops.T, probed - 1, axis=1)[:, :probed].reshape(-1)
        counts = np.bincount(near, minlength=len(self.parts))
        askers = np.split(np.argsort(near, kind="stable") // probed, np.cumsum(counts)[:-1])
        closeness = np.full(len(rows), -np.inf, np.float32)
        chosen = np.zeros(len(rows), np.int64)
        for asking, part, numbers in zip(askers, self.parts, self.numbers, strict=True):
            scores = rows[asking] @ part.T
            best = scores.argmax(axis=1)
            score = np.take_along_axis(scores, best[:, None], 1)[:, 0]
            nearer = score > closeness[asking]
            closeness[asking[nearer]] = score[nearer]
            chosen[asking[nearer]] = numbers[best[nearer]]
        return closeness, chosen
