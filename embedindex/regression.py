"""Ridge regression on likenesses: what all labelled files together, weighed against one another, say about a file.

Neighbours look at the nearest files only; regression also learns which likenesses mean nothing, because files of every
label have them. The kernel is the likenesses less what all files have in common. How common a label is says nothing:
shares of the labels are subtracted, and rare labels count for more, by the square root of how rare they are. Files of
one source (folder, album, artist) say much the same: what they teach about a label counts for less, by the square root
of how many they are. What is
said of a labelled file without its own group needs no learning anew: it follows from the inverse that is there already.
Nothing of the own group is in it, not even how common its labels are: left in, these would tell what the file is not.

Conventions: ``m`` labelled files, ``C`` classes; likenesses are (m, m) float32, `truth` is (m, C) bool, `groups` and
`sources` are (m,) int64, `trust` is (m,) float64 with a mean of 1: how much each file's labels count.

References:
    C. Saunders, A. Gammerman, V. Vovk, "Ridge regression learning algorithm in dual variables" (1998).
    S. An, W. Liu, S. Venkatesh, "Fast cross-validation algorithms for least squares support vector machine and kernel
    ridge regression", Pattern Recognition 40 (2007): equation 17, a whole group left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array

RIDGES = (0.3, 1.0, 3.0, 10.0)  # ascending; a file's likeness to itself is 1
# Which ridge does best is asked of so many files; of 3,000 that leaves one great matrix to invert instead of four.
RIDGE_FILES = 1000
# Likenesses are no true kernel: the more files, the further below 0 is the least eigenvalue. A ridge must outweigh it
# by so much that this share of it would do, and else is made so many times greater.
OUTWEIGHED, STEP = 0.9, 3.0


@dataclass(frozen=True, eq=False)
class Regression:
    """What was learnt.

    Attributes:
        coefficients: (m, C) what each labelled file is worth.
        offset: (C,) scores are likenesses (n, m) times the coefficients, plus this.
        left_out: (m, C) the scores of the labelled files, learnt without their own group.
    """

    coefficients: Float64Array
    offset: Float64Array
    left_out: Float64Array

    def scores(self, likenesses: Float32Array) -> Float64Array:
        """Return (n, C) what is said about files by their likenesses (n, m) to the labelled ones."""
        return np.asarray(likenesses @ self.coefficients.astype(np.float32) + self.offset, np.float64)


def learn_regression(likenesses: Float32Array, truth: BoolArray, groups: Int64Array) -> Regression:
    """Return the regression whose ridge does best for files of groups that were left out; a group is a source."""
    shares, (kernel, common) = _shares(truth), _centred(likenesses)
    trust = trust_of(truth, groups)
    mean = trust @ shares / trust.sum()
    some = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), RIDGE_FILES)).round().astype(np.int64))
    asked = kernel[np.ix_(some, some)]
    told = shares[some], groups[some], trust[some]
    ridges = _usable(RIDGES, asked, trust[some])
    errors = [_left_out(_inverse(asked, ridge, trust[some]), *told)[1] for ridge in ridges]
    (ridge,) = _usable([ridges[int(np.argmin(errors))]], kernel, trust)
    inverse = _inverse(kernel, ridge, trust)
    left_out, _ = _left_out(inverse, shares, groups, trust)
    coefficients = inverse @ (shares - mean) * _weights(mean, len(shares))
    coefficients = coefficients - coefficients.mean(axis=0)
    return Regression(coefficients, -common @ coefficients, left_out)


def cross_scores(
    likenesses: Float32Array,
    truth: BoolArray,
    groups: Int64Array,
    parts: Sequence[Int64Array],
    sources: Int64Array | None = None,
) -> list[tuple[Float64Array, Float64Array]]:
    """Return for each of several parts of the files what teaches a voter about it, and what it is told.

    Args:
        likenesses: (m, m).
        truth: (m, C).
        groups: (m,).
        parts: numbers of the files of each part, whole groups.
        sources: (m,); None: the groups.

    Returns:
        For each part (scores of the files outside of it, each without its own group and without the part; scores of
        the files inside, each without its own group). The ridge is that which does best outside.
    """
    shares, (kernel, _) = _shares(truth), _centred(likenesses)
    trust = trust_of(truth, groups if sources is None else sources)
    best = [np.inf] * len(parts)
    found: list[tuple[Float64Array, Float64Array]] = [(shares[:0], shares[:0])] * len(parts)
    for ridge in _usable(RIDGES, kernel, trust):
        inverse = _inverse(kernel, ridge, trust)
        whole, _ = _left_out(inverse, shares, groups, trust)
        for number, inside in enumerate(parts):
            outside = np.setdiff1d(np.arange(len(groups)), inside)
            told = shares[outside], groups[outside], trust[outside]
            said, error = _left_out(_without(inverse, inside, outside), *told)
            if error < best[number]:
                best[number], found[number] = error, (said, whole[inside])
    return found


def trust_of(truth: BoolArray, sources: Int64Array) -> Float64Array:
    """Return (m,) one by the square root of how many files of its source have a file's label, with a mean of 1."""
    _, place = np.unique(sources, return_inverse=True)
    counts = np.zeros((int(place.max(initial=-1)) + 1, truth.shape[1]))
    np.add.at(counts, place, truth)
    alike = np.where(truth, counts[place], 0.0).sum(axis=1) / np.maximum(truth.sum(axis=1), 1)
    trust = 1.0 / np.sqrt(np.maximum(alike, 1.0))
    return np.asarray(trust / trust.mean() if len(trust) else trust, np.float64)


def _shares(truth: BoolArray) -> Float64Array:
    """Return (m, C) how much of each file every class has; a row adds up to 1."""
    return np.asarray(truth / np.maximum(truth.sum(axis=1, keepdims=True), 1), np.float64)


def _weights(mean: Float64Array, files: int) -> Float64Array:
    """Return the weights (…, C) of classes by their mean shares (…, C) of so many files."""
    return np.asarray(1.0 / np.sqrt(np.maximum(mean * mean.shape[-1], 1.0 / max(1, files))), np.float64)


def _centred(likenesses: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Return (likenesses (m, m) without what all files have in common, the mean (m,) of every column before)."""
    kernel = likenesses.astype(np.float64)
    kernel = (kernel + kernel.T) / 2
    common = kernel.mean(axis=0)
    return kernel - common - common[:, None] + common.mean(), common


def _usable(ridges: Sequence[float], kernel: Float64Array, trust: Float64Array) -> list[float]:
    """Return those of some ridges that outweigh what is negative in the likenesses, or a greater one that does."""

    def outweighs(ridge: float) -> bool:
        try:
            np.linalg.cholesky(kernel + np.diag(OUTWEIGHED * ridge / trust))
        except np.linalg.LinAlgError:  # how it tells that a matrix is not positive definite
            return False
        return True

    greater = max(ridges)
    for number, ridge in enumerate(ridges):
        if outweighs(ridge):  # and so do all that are greater
            return list(ridges[number:])
    enough = np.abs(kernel).sum(axis=1).max(initial=0.0) * trust.max(initial=1.0) / OUTWEIGHED  # by Gershgorin's discs
    while greater < enough and not outweighs(greater):
        greater *= STEP
    return [greater]


def _inverse(kernel: Float64Array, ridge: float, trust: Float64Array) -> Float64Array:
    return np.asarray(np.linalg.inv(kernel + np.diag(ridge / trust)), np.float64)


def _without(inverse: Float64Array, gone: Int64Array, kept: Int64Array) -> Float64Array:
    """Return the inverse of the matrix that lacks the rows and columns `gone`, by the inverse of the whole."""
    if not len(kept):
        return inverse[:0, :0]
    across = inverse[np.ix_(kept, gone)]
    return np.asarray(
        inverse[np.ix_(kept, kept)] - across @ np.linalg.solve(inverse[np.ix_(gone, gone)], across.T), np.float64
    )


def _left_out(
    inverse: Float64Array, shares: Float64Array, groups: Int64Array, trust: Float64Array
) -> tuple[Float64Array, float]:
    """Return ((m, C) the scores of files by a regression learnt without their own group, their mean squared error).

    What is said is linear in what was taught, so that shares and a constant are left out side by side, and the means
    of the shares, which are others for every group, are subtracted from what was said.
    """
    if not len(shares):
        return shares, 0.0
    taught = np.concatenate([shares, np.ones((len(shares), 1))], axis=1)
    coefficients, weighed = inverse @ taught, shares * trust[:, None]
    total, all_trust = weighed.sum(axis=0), trust.sum()
    # Most often a group is one file; these are done all at once.
    said = taught - coefficients / np.diag(inverse)[:, None]
    # Where nobody else is left, the difference above is only rounding.
    mean = (total - weighed) / np.maximum(all_trust - trust, 1e-6 * all_trust)[:, None]
    numbers, counts = np.unique(groups, return_counts=True)
    for number in numbers[counts > 1]:
        own = np.flatnonzero(groups == number)
        said[own] = taught[own] - np.linalg.solve(inverse[np.ix_(own, own)], coefficients[own])
        mean[own] = (total - weighed[own].sum(axis=0)) / max(all_trust - trust[own].sum(), 1e-6 * all_trust)
    weights = _weights(mean, len(shares))
    scores = (said[:, :-1] - said[:, -1:] * mean) * weights
    errors = ((scores - (shares - mean) * weights) ** 2).mean(axis=1)
    return scores, float(errors @ trust / all_trust)
