"""The centres of lists: what two levels learn and find is nearly what comparing everything with everything does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedindex import index_centres
from embedindex.index_centres import CentreFinder, learn_centres

DIMENSION = 24


def clustered(count: int, seed: int, clusters: int = 60, spread: float = 0.3) -> Any:
    """Return unit rows around some middles, which are the same for every seed."""
    middles = np.random.default_rng(1).standard_normal((clusters, DIMENSION))
    random = np.random.default_rng(seed)
    rows = middles[random.integers(0, clusters, count)] + spread * random.standard_normal((count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_centres, "TWO_LEVELS_FROM", 50)


def closeness(rows: Any, centres: Any) -> float:
    return float((rows @ centres.T).max(axis=1).mean())


@pytest.mark.parametrize("count", [49, 50, 120, 400])
def test_centres_are_as_many_as_wanted_and_of_length_one(two_levels: None, count: int) -> None:
    centres = learn_centres(clustered(4000, 2), count, 7)
    assert centres.shape == (count, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)


def test_centres_of_two_levels_lie_as_near_to_new_sounds_as_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, new = clustered(6000, 2), clustered(2000, 3)
    plain = closeness(new, learn_centres(rows, 120, 7))
    monkeypatch.setattr(index_centres, "TWO_LEVELS_FROM", 50)
    assert closeness(new, learn_centres(rows, 120, 7)) > plain - 0.1 * (1 - plain)
    # Around the sixty middles themselves they would be this near.
    assert closeness(new, clustered(60, 1, spread=0)) < plain + 0.05


def test_a_round_of_k_means_moves_each_centre_to_the_middle_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(3000, 2)
    centres = learn_centres(rows, 30, 7)
    own = (rows @ centres.T).argmax(axis=1)
    middles = np.stack([rows[own == number].sum(axis=0) for number in range(30)])
    moved = index_centres._round(rows, np.concatenate((centres, -centres[:1])), 7)  # nothing lies at the last one
    np.testing.assert_allclose(moved[:30], middles / np.linalg.norm(middles, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(moved[30], -centres[0])


def test_same_rows_give_the_same_centres(two_levels: None) -> None:
    rows = clustered(3000, 2)
    np.testing.assert_array_equal(learn_centres(rows, 100, 7), learn_centres(rows, 100, 7))


def test_nearest_centre_is_the_nearest_of_all_while_they_are_few() -> None:
    rows, centres = clustered(500, 4), clustered(200, 5)
    near, numbers = CentreFinder.of(centres, 7).nearest(rows)
    np.testing.assert_array_equal(numbers, (rows @ centres.T).argmax(axis=1))
    np.testing.assert_allclose(near, (rows @ centres.T).max(axis=1), atol=1e-6)


def test_nearest_centre_by_parts_is_nearly_always_the_nearest_of_all(two_levels: None) -> None:
    centres = clustered(900, 5)
    finder = CentreFinder.of(centres, 7)
    assert len(finder.parts) == 30
    assert sorted(np.concatenate(finder.numbers).tolist()) == list(range(900))
    for rows in (clustered(3000, 4), clustered(1, 4), clustered(40, 4, clusters=1)):
        near, numbers = finder.nearest(rows)
        np.testing.assert_allclose(near, (rows * centres[numbers]).sum(axis=1), atol=1e-6)
        assert (numbers == (rows @ centres.T).argmax(axis=1)).mean() > 0.95
        assert (near > (rows @ centres.T).max(axis=1) - 0.1).all()
