"""How good predictions and neighbourhoods are: the usual figures, in plain NumPy.

Conventions: ``n`` files, ``C`` classes. `truth` is (n, C) bool, a row may have several True (several labels); `scores`
is (n, C) float, larger is likelier; a ranking is the order of the other files, nearest first. Every figure is a share
from 0 to 1, but for hubness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array

ECE_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Files whose confidence lies in one tenth: how sure they were on average, and how many were right."""

    low: float
    high: float
    files: int
    confidence: float
    accuracy: float


def accuracy(truth: BoolArray, chosen: Int64Array) -> float:
    """Return the share of files whose chosen class is one of theirs.

    Args:
        truth: (n, C) bool.
        chosen: (n,) class numbers; -1 is always wrong.
    """
    return float(correct(truth, chosen).mean()) if len(chosen) else 0.0


def correct(truth: BoolArray, chosen: Int64Array) -> BoolArray:
    """Return (n,) whether the chosen class is one of the file's."""
    hit = truth[np.arange(len(chosen)), np.maximum(chosen, 0)]
    return np.asarray(hit & (chosen >= 0), np.bool_)


def confusion(truth: BoolArray, chosen: Int64Array) -> Float64Array:
    """Return the confusion matrix (C, C): rows are what files are, columns what they were taken for.

    A file with several labels counts once: where it was taken for one of them it is right, otherwise its row is shared
    evenly among its labels. Rows of files for which nothing was chosen (-1) are left out.
    """
    classes = truth.shape[1]
    table = np.zeros((classes, classes))
    hit = correct(truth, chosen)
    share = truth / np.maximum(truth.sum(axis=1, keepdims=True), 1)
    for number in np.flatnonzero(chosen >= 0):
        if hit[number]:
            table[chosen[number], chosen[number]] += 1.0
        else:
            table[:, chosen[number]] += share[number]
    return table


def macro_f1(table: Float64Array) -> float:
    """Return the mean over classes of the harmonic mean of precision and recall, from a confusion matrix (C, C).

    Classes that neither occur nor were chosen are left out, as in scikit-learn.
    """
    hits = np.diag(table)
    sizes = table.sum(axis=0) + table.sum(axis=1)
    present = sizes > 0
    return float((2.0 * hits[present] / sizes[present]).mean()) if present.any() else 0.0


def average_precision(relevant: BoolArray) -> Float64Array:
    """Return the average precision of rankings: the mean, over the relevant places, of the precision up to there.

    Args:
        relevant: (n, m) bool, in the order of the ranking.

    Returns:
        (n,) float64; 0 where nothing is relevant.
    """
    found = np.cumsum(relevant, axis=1)
    precision = found / np.arange(1, relevant.shape[1] + 1)
    total = relevant.sum(axis=1)
    return np.asarray((precision * relevant).sum(axis=1) / np.maximum(total, 1), np.float64)


def precision_at(relevant: BoolArray, k: int = 10) -> Float64Array:
    """Return (n,) the share of relevant files among the first `k` of rankings (n, m)."""
    first = relevant[:, :k]
    return np.asarray(first.sum(axis=1) / max(1, first.shape[1]), np.float64)


def reliability(confidence: Float64Array, hit: BoolArray, bins: int = ECE_BINS) -> list[ReliabilityBin]:
    """Return the filled bins of a reliability diagram: equal steps of confidence, (n,) confidences and hits."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            number / bins,
            (number + 1) / bins,
            int((place == number).sum()),
            float(confidence[place == number].mean()),
            float(hit[place == number].mean()),
        )
        for number in range(bins)
        if (place == number).any()
    ]


def expected_calibration_error(confidence: Float64Array, hit: BoolArray, bins: int = ECE_BINS) -> float:
    """Return the mean distance between confidence and accuracy over bins, weighted by their numbers of files.

    References:
        M. Naeini, G. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (2015).
    """
    parts = reliability(confidence, hit, bins)
    return sum(part.files * abs(part.confidence - part.accuracy) for part in parts) / max(1, len(hit))


def calibration_noise(confidence: Float64Array, bins: int = ECE_BINS, draws: int = 200, seed: int = 0) -> float:
    """Return the calibration error that perfect confidences would show by chance, with so many files.

    With 150 files that is about 0.06, with 5,000 about 0.01: an error below it says nothing.
    """
    random = np.random.default_rng(seed)
    errors = [
        expected_calibration_error(confidence, random.random(len(confidence)) < confidence, bins) for _ in range(draws)
    ]
    return float(np.mean(errors))


def calibration_noise_of_groups(
    confidence: Float64Array, hit: BoolArray, groups: Int64Array, bins: int = ECE_BINS, draws: int = 200, seed: int = 0
) -> float:
    """Return the calibration error that confidences right on average would show by chance, with so few groups.

    Files of one group are right or wrong together. In every group confidence errs by as much as it does, but in either
    direction with equal chance: an error below what that gives says nothing.

    Args:
        confidence: (n,).
        hit: (n,) whether they were right.
        groups: (n,) which files share their luck.
        bins: of confidence.
        draws: so many times.
        seed: of the directions.

    References:
        A. C. Cameron, J. Gelbach, D. Miller, "Bootstrap-based improvements for inference with clustered errors",
        Review of Economics and Statistics 90 (2008): the wild cluster bootstrap, with Rademacher's weights.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    numbers, group = np.unique(groups, return_inverse=True)
    apart = np.zeros((bins, len(numbers)))
    np.add.at(apart, (place, group), hit - confidence)
    directions = np.random.default_rng(seed).choice((-1.0, 1.0), (len(numbers), draws))
    return float(np.abs(apart @ directions).sum(axis=0).mean() / max(1, len(hit)))


def accuracy_at_coverage(confidence: Float64Array, hit: BoolArray, coverage: float) -> float:
    """Return the accuracy among the surest share `coverage` of the files."""
    count = max(1, round(coverage * len(hit)))
    surest = np.argsort(-confidence, kind="stable")[:count]
    return float(hit[surest].mean()) if len(hit) else 0.0


def hubness(neighbours: Int64Array, files: int) -> float:
    """Return how much a few files are among everybody's nearest: the skewness of how often each file is one.

    Around 0 to 1 is healthy; beyond about 2 a handful of files turns up everywhere.

    Args:
        neighbours: (n, k) numbers of the k nearest files of each.
        files: how many files there are.

    References:
        M. Radovanović, A. Nanopoulos, M. Ivanović, "Hubs in space", JMLR 11 (2010), section 2: S of N_k.
    """
    counts = np.bincount(neighbours[neighbours >= 0].ravel(), minlength=files).astype(np.float64)
    deviation = counts.std()
    return float((((counts - counts.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0


def rankings(similarities: Float32Array, truth: BoolArray, allowed: BoolArray) -> tuple[BoolArray, Int64Array]:
    """Return (n, n) which files share a label with each file, nearest first, and the files' numbers in that order.

    Args:
        similarities: (n, n) float32 of files with one another.
        truth: (n, C) bool.
        allowed: (n, n) which files may be found; the others come last and count as not relevant.
    """
    ranked = np.argsort(np.where(allowed, -similarities, np.inf), axis=1, kind="stable")
    shared = (truth.astype(np.float32) @ truth.T.astype(np.float32)) > 0
    return np.take_along_axis(shared & allowed, ranked, axis=1), ranked
