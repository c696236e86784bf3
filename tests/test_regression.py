"""Regression on likenesses, compared with scikit-learn's, learnt anew without every group."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.regression import RIDGES, cross_scores, learn_regression

Files = tuple[Float32Array, BoolArray, Int64Array]


@pytest.fixture
def made() -> Files:
    """Likenesses, classes and groups of sixty files: one in five has two classes, groups have one file or several."""
    random = np.random.default_rng(4)
    number = random.integers(0, 3, 60)
    rows = np.eye(3)[number] + 0.7 * random.standard_normal((60, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = np.eye(3, dtype=bool)[number]
    truth[::5, 0] = True
    groups = np.where(np.arange(60) < 40, np.arange(60) // 7, np.arange(60))
    return (rows @ rows.T).astype(np.float32), truth, np.unique(groups, return_inverse=True)[1].astype(np.int64)


def learnt_anew(
    likenesses: Float32Array, wanted: Float64Array, groups: Int64Array, teachers: Int64Array, ridge: float
) -> Float64Array:
    """Return (60, 3) what scikit-learn says of every file, learnt from `teachers` without the file's group."""
    ridges = pytest.importorskip("sklearn.kernel_ridge", reason="scikit-learn is the independent reference")
    said = np.empty(wanted.shape)
    for group in np.unique(groups):
        own, others = np.flatnonzero(groups == group), teachers[groups[teachers] != group]
        model = ridges.KernelRidge(alpha=ridge, kernel="precomputed")
        model.fit(likenesses[np.ix_(others, others)].astype(np.float64), wanted[others])
        said[own] = model.predict(likenesses[np.ix_(own, others)].astype(np.float64))
    return said


def best(
    likenesses: Float32Array, wanted: Float64Array, groups: Int64Array, teachers: Int64Array
) -> tuple[float, Float64Array]:
    """Return (ridge, what is said of every file) of the ridge with the least error on the teachers."""
    tried = {ridge: learnt_anew(likenesses, wanted, groups, teachers, ridge) for ridge in RIDGES}
    chosen = min(RIDGES, key=lambda ridge: float(((tried[ridge] - wanted)[teachers] ** 2).mean()))
    return chosen, tried[chosen]


def test_scores_without_the_own_group_are_those_of_learning_anew(made: Files) -> None:
    likenesses, truth, groups = made
    wanted, everybody = truth / truth.sum(axis=1, keepdims=True) - 1 / 3, np.arange(60)
    chosen, expected = best(likenesses, wanted, groups, everybody)
    learnt = learn_regression(likenesses, truth, groups)
    np.testing.assert_allclose(learnt.left_out, expected, atol=1e-4)
    kernel = likenesses.astype(np.float64) + chosen * np.eye(60)
    np.testing.assert_allclose(kernel @ learnt.coefficients, wanted, atol=1e-4)


def test_voters_are_taught_without_the_part_that_they_judge(made: Files) -> None:
    likenesses, truth, groups = made
    wanted = truth / truth.sum(axis=1, keepdims=True) - 1 / 3
    parts = [np.flatnonzero(groups % 3 == part) for part in range(3)]
    for inside, (taught, told) in zip(parts, cross_scores(likenesses, truth, groups, parts), strict=True):
        outside = np.setdiff1d(np.arange(60), inside)
        chosen, expected = best(likenesses, wanted, groups, outside)
        np.testing.assert_allclose(taught, expected[outside], atol=1e-4)
        whole = learnt_anew(likenesses, wanted, groups, np.arange(60), chosen)
        np.testing.assert_allclose(told, whole[inside], atol=1e-4)
