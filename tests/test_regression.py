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


def trust_in(truth: BoolArray, sources: Int64Array) -> Float64Array:
    """Return (60,) how much the labels of files count: less, the more files their source has with such a label."""
    counts = [
        np.mean([(truth[sources == source, label]).sum() for label in np.flatnonzero(row)])
        for row, source in zip(truth, sources, strict=True)
    ]
    return np.asarray(np.power(counts, -0.5) / np.power(counts, -0.5).mean(), np.float64)


def targets(shares: Float64Array, trust: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return (the means of the shares (n, 3) of some files, the weights that rare classes have)."""
    mean = np.average(shares, axis=0, weights=trust)
    return mean, np.sqrt(1 / np.maximum(3 * mean, 1 / len(shares)))


def centred(likenesses: Float32Array) -> Float64Array:
    """Return the likenesses (60, 60) as scikit-learn centres them."""
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="scikit-learn is the independent reference")
    return np.asarray(preprocessing.KernelCenterer().fit_transform(likenesses.astype(np.float64)), np.float64)


def learnt_anew(
    kernel: Float64Array,
    shares: Float64Array,
    groups: Int64Array,
    trust: Float64Array,
    teachers: Int64Array,
    ridge: float,
) -> tuple[Float64Array, Float64Array]:
    """Return (60, 3) what scikit-learn says of every file, learnt without the file's group, and what it should."""
    ridges = pytest.importorskip("sklearn.kernel_ridge", reason="scikit-learn is the independent reference")
    said, wanted = np.empty(shares.shape), np.empty(shares.shape)
    for group in np.unique(groups):
        own, others = np.flatnonzero(groups == group), teachers[groups[teachers] != group]
        mean, weight = targets(shares[others], trust[others])
        model = ridges.KernelRidge(alpha=ridge, kernel="precomputed")
        model.fit(kernel[np.ix_(others, others)], (shares[others] - mean) * weight, sample_weight=trust[others])
        said[own], wanted[own] = model.predict(kernel[np.ix_(own, others)]), (shares[own] - mean) * weight
    return said, wanted


def best(
    kernel: Float64Array, shares: Float64Array, groups: Int64Array, trust: Float64Array, teachers: Int64Array
) -> tuple[float, Float64Array]:
    """Return (ridge, what is said of every file) of the ridge with the least error on the teachers."""
    errors = {}
    for ridge in RIDGES:
        said, wanted = learnt_anew(kernel, shares, groups, trust, teachers, ridge)
        errors[ridge] = float(np.average(((said - wanted)[teachers] ** 2).mean(axis=1), weights=trust[teachers]))
    chosen = min(RIDGES, key=lambda ridge: errors[ridge])
    return chosen, learnt_anew(kernel, shares, groups, trust, teachers, chosen)[0]


def test_scores_without_the_own_group_are_those_of_learning_anew(made: Files) -> None:
    likenesses, truth, groups = made
    kernel, shares, trust = centred(likenesses), truth / truth.sum(axis=1, keepdims=True), trust_in(truth, groups)
    _, expected = best(kernel, shares, groups, trust, np.arange(60))
    np.testing.assert_allclose(learn_regression(likenesses, truth, groups).left_out, expected, atol=1e-4)


def test_ridge_is_asked_of_some_files_spread_over_all(made: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    likenesses, truth, groups = made
    some = np.array([0, 15, 30, 44, 59])
    monkeypatch.setattr("embedindex.regression.RIDGE_FILES", len(some))
    kernel, shares, trust = centred(likenesses), truth / truth.sum(axis=1, keepdims=True), trust_in(truth, groups)
    chosen, _ = best(kernel[np.ix_(some, some)], shares[some], groups[some], trust[some], np.arange(len(some)))
    expected, _ = learnt_anew(kernel, shares, groups, trust, np.arange(60), chosen)
    np.testing.assert_allclose(learn_regression(likenesses, truth, groups).left_out, expected, atol=1e-4)


def test_other_files_are_judged_by_all_that_were_learnt_from(made: Files) -> None:
    """Likenesses to labelled files lie higher throughout than those that were learnt from: that says nothing."""
    likenesses, truth, groups = made
    kernel, shares, trust = centred(likenesses), truth / truth.sum(axis=1, keepdims=True), trust_in(truth, groups)
    chosen, _ = best(kernel, shares, groups, trust, np.arange(60))
    mean, weight = targets(shares, trust)
    expected = kernel @ np.linalg.solve(kernel + np.diag(chosen / trust), (shares - mean) * weight)
    learnt = learn_regression(likenesses, truth, groups)
    np.testing.assert_allclose(learnt.scores(likenesses), expected, atol=1e-4)
    np.testing.assert_allclose(learnt.scores(likenesses + 0.5), expected, atol=1e-4)


def test_voters_are_taught_without_the_part_that_they_judge(made: Files) -> None:
    likenesses, truth, groups = made
    kernel, shares, trust = centred(likenesses), truth / truth.sum(axis=1, keepdims=True), trust_in(truth, groups)
    parts = [np.flatnonzero(groups % 3 == part) for part in range(3)]
    for inside, (taught, told) in zip(parts, cross_scores(likenesses, truth, groups, parts), strict=True):
        outside = np.setdiff1d(np.arange(60), inside)
        chosen, expected = best(kernel, shares, groups, trust, outside)
        np.testing.assert_allclose(taught, expected[outside], atol=1e-4)
        whole, _ = learnt_anew(kernel, shares, groups, trust, np.arange(60), chosen)
        np.testing.assert_allclose(told, whole[inside], atol=1e-4)


def test_ridge_outweighs_what_makes_likenesses_no_true_kernel(made: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """One eigenvalue of -2: with a ridge near 2 nothing would be left of that direction but noise, without end."""
    likenesses, truth, groups = made
    direction = np.linalg.svd(centred(likenesses))[0][:, -2]  # of nothing that the files have in common
    bent = (likenesses - 2.0 * np.outer(direction, direction)).astype(np.float32)
    assert np.linalg.eigvalsh(centred(bent))[0] == pytest.approx(-2, abs=0.1)
    kernel, shares, trust = centred(bent), truth / truth.sum(axis=1, keepdims=True), trust_in(truth, groups)
    monkeypatch.setattr("embedindex.regression.RIDGES", (1.0, 2.0))
    expected, _ = learnt_anew(kernel, shares, groups, trust, np.arange(60), 6.0)
    np.testing.assert_allclose(learn_regression(bent, truth, groups).left_out, expected, atol=1e-4)
    parts = [np.flatnonzero(groups % 2 == part) for part in range(2)]
    for inside, (_, told) in zip(parts, cross_scores(bent, truth, groups, parts), strict=True):
        np.testing.assert_allclose(told, expected[inside], atol=1e-4)
    # Of the few files that are asked the small one seems to do.
    monkeypatch.setattr("embedindex.regression.RIDGES", (1.0,))
    monkeypatch.setattr("embedindex.regression.RIDGE_FILES", 5)
    expected, _ = learnt_anew(kernel, shares, groups, trust, np.arange(60), 3.0)
    np.testing.assert_allclose(learn_regression(bent, truth, groups).left_out, expected, atol=1e-4)


def test_files_that_are_each_a_source_are_trusted_alike(made: Files) -> None:
    likenesses, truth, groups = made
    parts = [np.flatnonzero(groups % 2 == part) for part in range(2)]
    (taught, _), _ = cross_scores(likenesses, truth, groups, parts, np.arange(60))
    kernel, shares, outside = centred(likenesses), truth / truth.sum(axis=1, keepdims=True), parts[1]
    _, expected = best(kernel, shares, groups, np.ones(60), outside)
    np.testing.assert_allclose(taught, expected[outside], atol=1e-4)


def test_how_common_labels_are_elsewhere_says_nothing() -> None:
    """Two makers of two kits each: without a kit, its maker's label is the rarer one, and must not be known by that."""
    random = np.random.default_rng(5)
    rows = random.standard_normal((400, 200))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = np.arange(400) // 100
    truth = np.eye(2, dtype=bool)[groups % 2]
    said = learn_regression((rows @ rows.T).astype(np.float32), truth, groups).left_out
    assert (said.argmax(axis=1) == groups % 2).mean() == pytest.approx(0.5, abs=0.1)
