"""Ridge regression on likenesses: what all labelled files together, weighed against one another, say about a file.

Neighbours look at the nearest files only; regression also learns which likenesses mean nothing, because files of every
label have them. The likenesses are the kernel. What it says of a labelled file without the file's own group needs no
learning anew: it follows from the inverse that is there already.

Conventions: ``m`` labelled files, ``C`` classes; likenesses are (m, m) float32, `truth` is (m, C) bool, `groups` are
(m,) int64.

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

RIDGES = (0.3, 1.0, 3.0, 10.0)  # a file's likeness to itself is 1


@dataclass(frozen=True, eq=False)
class Regression:
    """What was learnt.

    Attributes:
        coefficients: (m, C) what each labelled file is worth; scores are likenesses (n, m) times these.
        left_out: (m, C) the scores of the labelled files, learnt without their own group.
    """

    coefficients: Float64Array
    left_out: Float64Array


def learn_regression(likenesses: Float32Array, truth: BoolArray, groups: Int64Array) -> Regression:
    """Return the regression whose ridge does best for files of groups that were left out."""
    wanted, best, found = _targets(truth), np.inf, None
    for ridge in RIDGES:
        inverse = _inverse(likenesses, ridge)
        said = _left_out(inverse, wanted, groups)
        error = float(((said - wanted) ** 2).mean())
        if found is None or error < best:
            best, found = error, Regression(inverse @ wanted, said)
    if found is None:
        raise ValueError("there is no ridge to choose from")
    return found


def cross_scores(
    likenesses: Float32Array, truth: BoolArray, groups: Int64Array, parts: Sequence[Int64Array]
) -> list[tuple[Float64Array, Float64Array]]:
    """Return for each of several parts of the files what teaches a voter about it, and what it is told.

    Args:
        likenesses: (m, m).
        truth: (m, C).
        groups: (m,).
        parts: numbers of the files of each part, whole groups.

    Returns:
        For each part (scores of the files outside of it, each without its own group and without the part; scores of
        the files inside, each without its own group). The ridge is that which does best outside.
    """
    wanted = _targets(truth)
    best = [np.inf] * len(parts)
    found: list[tuple[Float64Array, Float64Array]] = [(wanted[:0], wanted[:0])] * len(parts)
    for ridge in RIDGES:
        inverse = _inverse(likenesses, ridge)
        whole = _left_out(inverse, wanted, groups)
        for number, inside in enumerate(parts):
            outside = np.setdiff1d(np.arange(len(groups)), inside)
            said = _left_out(_without(inverse, inside, outside), wanted[outside], groups[outside])
            error = float(((said - wanted[outside]) ** 2).mean()) if len(outside) else 0.0
            if error < best[number]:
                best[number], found[number] = error, (said, whole[inside])
    return found


def _targets(truth: BoolArray) -> Float64Array:
    """Return (m, C): a file's classes share 1, and all of them together add up to 0."""
    return np.asarray(truth / np.maximum(truth.sum(axis=1, keepdims=True), 1) - 1.0 / truth.shape[1], np.float64)


def _inverse(likenesses: Float32Array, ridge: float) -> Float64Array:
    kernel = likenesses.astype(np.float64)
    return np.asarray(np.linalg.inv((kernel + kernel.T) / 2 + ridge * np.eye(len(kernel))), np.float64)


def _without(inverse: Float64Array, gone: Int64Array, kept: Int64Array) -> Float64Array:
    """Return the inverse of the matrix that lacks the rows and columns `gone`, by the inverse of the whole."""
    if not len(kept):
        return inverse[:0, :0]
    across = inverse[np.ix_(kept, gone)]
    return np.asarray(
        inverse[np.ix_(kept, kept)] - across @ np.linalg.solve(inverse[np.ix_(gone, gone)], across.T), np.float64
    )


def _left_out(inverse: Float64Array, wanted: Float64Array, groups: Int64Array) -> Float64Array:
    """Return (m, C) the scores of files by a regression learnt without their own group."""
    coefficients = inverse @ wanted
    # Most often a group is one file; these are done all at once.
    said = wanted - coefficients / np.diag(inverse)[:, None]
    numbers, counts = np.unique(groups, return_counts=True)
    for number in numbers[counts > 1]:
        own = np.flatnonzero(groups == number)
        said[own] = wanted[own] - np.linalg.solve(inverse[np.ix_(own, own)], coefficients[own])
    return said
