"""The figures of an evaluation against scikit-learn, or against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex import metrics


def one_hot(classes: list[int], count: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.eye(count, dtype=bool)[classes]


def test_accuracy_counts_any_label_of_a_file_and_never_no_answer() -> None:
    truth = np.array([[True, False, True], [False, True, False], [False, True, False]])
    assert metrics.accuracy(truth, np.array([2, 1, -1])) == pytest.approx(2 / 3)


def test_macro_f1_and_confusion_are_those_of_scikit_learn() -> None:
    reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the independent reference")
    random = np.random.default_rng(1)
    is_class, taken_for = random.integers(0, 5, 200), random.integers(0, 4, 200)
    table = metrics.confusion(one_hot(list(is_class), 6), taken_for)
    expected = reference.confusion_matrix(is_class, taken_for, labels=range(6))
    np.testing.assert_array_equal(table, expected)
    assert metrics.macro_f1(table) == pytest.approx(
        reference.f1_score(is_class, taken_for, average="macro", labels=range(5), zero_division=0)
    )


def test_file_with_two_labels_is_right_by_one_or_shares_its_mistake() -> None:
    truth = np.array([[True, True, False], [True, True, False]])
    table = metrics.confusion(truth, np.array([1, 2]))
    np.testing.assert_array_equal(table, [[0, 0, 0.5], [0, 1, 0.5], [0, 0, 0]])


def test_average_precision_is_that_of_scikit_learn() -> None:
    reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the independent reference")
    random = np.random.default_rng(2)
    scores, relevant = random.random((20, 50)), random.random((20, 50)) < 0.2
    order = np.argsort(-scores, axis=1)
    found = metrics.average_precision(np.take_along_axis(relevant, order, axis=1))
    expected = [reference.average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert metrics.average_precision(np.zeros((1, 4), bool)) == 0


def test_precision_at_ten_counts_the_first_ten() -> None:
    relevant = np.zeros((1, 30), bool)
    relevant[0, [0, 3, 9, 10, 29]] = True
    assert metrics.precision_at(relevant, 10) == pytest.approx(0.3)


def test_rankings_leave_out_what_is_not_allowed() -> None:
    likenesses = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.5], [0.2, 0.5, 1.0]], np.float32)
    truth = one_hot([0, 0, 0], 2)
    relevant, ranked = metrics.rankings(likenesses, truth, ~np.eye(3, dtype=bool))
    np.testing.assert_array_equal(ranked[:, 0], [1, 0, 1])
    np.testing.assert_array_equal(relevant, [[True, True, False]] * 3)


def test_calibration_error_of_a_worked_example() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    hit = np.array([True, True, True, False, True, False])
    # Four files at 0.95 of which 0.75 are right, two at 0.55 of which 0.5 are.
    assert metrics.expected_calibration_error(confidence, hit) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)
    assert [part.files for part in metrics.reliability(confidence, hit)] == [2, 4]


def test_confidence_of_one_falls_into_the_last_bin() -> None:
    (part,) = metrics.reliability(np.array([1.0, 1.0]), np.array([True, True]))
    assert (part.low, part.high, part.accuracy) == (0.9, 1.0, 1.0)


def test_files_that_are_right_or_wrong_together_make_more_calibration_noise() -> None:
    """Forty groups of 25 files, of which .9 or .3 are right where .6 is said: the mean of 40 independent errors."""
    random = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), 25)
    hit = random.random(1000) < np.where(groups % 2, 0.9, 0.3)
    told = np.full(1000, 0.6)
    within = (0.9 * 0.1 + 0.3 * 0.7) / 2
    expected = np.sqrt(2 / np.pi * (0.3**2 + within / 25) / 40)
    assert metrics.calibration_noise_of_groups(told, hit, groups) == pytest.approx(expected, rel=0.2)
    assert metrics.calibration_noise(told) < expected / 2
    alone = metrics.calibration_noise_of_groups(told, hit, np.arange(1000))
    assert alone == pytest.approx(np.sqrt(2 / np.pi * 0.24 / 1000), rel=0.2)


def test_calibration_noise_shrinks_with_the_number_of_files() -> None:
    few, many = np.full(50, 0.6), np.full(5000, 0.6)
    # One bin: the mean of |share - 0.6| is sqrt(2/pi) standard errors.
    assert metrics.calibration_noise(few) == pytest.approx(np.sqrt(2 / np.pi * 0.24 / 50), rel=0.15)
    assert metrics.calibration_noise(many) < 0.01


def test_accuracy_rises_when_only_the_surest_count() -> None:
    confidence, hit = np.array([0.9, 0.8, 0.7, 0.6, 0.1]), np.array([True, True, True, True, False])
    assert metrics.accuracy_at_coverage(confidence, hit, 0.8) == 1.0
    assert metrics.accuracy_at_coverage(confidence, hit, 1.0) == pytest.approx(0.8)


def test_hubness_is_the_skewness_of_how_often_files_are_neighbours() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is the independent reference")
    random = np.random.default_rng(3)
    neighbours = np.minimum(random.geometric(0.1, (200, 10)), 199)
    counts = np.bincount(neighbours.ravel(), minlength=200)
    assert metrics.hubness(neighbours, 200) == pytest.approx(stats.skew(counts))
    assert metrics.hubness(np.arange(10).reshape(10, 1), 10) == 0.0
