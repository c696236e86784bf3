"""Two views of a file where labels are judged: what each is, how they are weighed, and how many files are handled."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.evaluate import fused
from embedindex.likeness import FileSet, likeness, summary_row, vectors_as_set
from embedindex.space import Part, Space
from embedindex.views import AXES, AXES_FROM_FILES, learn_views, shares_of
from embedindex.voting import K_GAIN, choose_voter, gather_evidence, learn_voter


def made(files: int, dimension: int, kinds: int = 4, seed: int = 0) -> FileSet:
    """Return files of two windows, noisy copies of some kinds."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((kinds, dimension))[np.arange(files) % kinds]
    windows = (centres[:, None] + 0.7 * random.standard_normal((files, 2, dimension))).astype(np.float16)
    rows = windows.reshape(-1, dimension).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    starts = np.arange(files + 1, dtype=np.int64) * 2
    return FileSet(np.arange(files), rows, starts, np.stack([summary_row(pair) for pair in windows]))


def cosines(rows: Float32Array) -> Float32Array:
    long = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(long @ long.T, np.float32)


def test_summary_is_mean_first_and_greatest_of_the_windows() -> None:
    vectors = np.array([[1, 4], [3, 2]], np.float16)
    assert summary_row(vectors).tolist() == [2, 3, 1, 4, 3, 4]
    assert vectors_as_set(vectors, Space("plain")).summaries.tolist() == [[2, 3, 1, 4, 3, 4]]


def test_likeness_is_the_mean_of_stretches_and_standardised_summaries_that_spread_equally() -> None:
    files, groups = made(40, 6), np.arange(40) // 4
    found = learn_views(files, groups, Space("plain")).likeness(files, files)
    given = files.summaries
    standardised = np.clip((given - given.mean(axis=0)) / given.std(axis=0), -3, 3)
    tables = likeness(files, files), cosines(standardised)
    apart = groups[:, None] != groups[None, :]
    spreads = [table[apart].std() for table in tables]
    expected = (tables[0] / spreads[0] + tables[1] / spreads[1]) / (1 / spreads[0] + 1 / spreads[1])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)


def test_summaries_of_two_models_count_equally_however_long_they_are() -> None:
    vectors = np.array([[1, 4, 9], [3, 2, 5]], np.float16)
    assert summary_row(vectors, (1, 2)).tolist() == [2, 1, 3, 3, 7, 4, 9, 4, 9]
    files, groups = made(40, 6), np.arange(40) // 4
    space = Space("blocks", parts=(Part(2, 0.7, Space("plain")), Part(4, 0.3, Space("plain"))))
    rows = learn_views(files, groups, space).summaries(files)
    given = files.summaries
    standardised = np.clip((given - given.mean(axis=0)) / given.std(axis=0), -3, 3)
    expected = (cosines(standardised[:, :6]) + cosines(standardised[:, 6:])) / 2
    np.testing.assert_allclose(rows @ rows.T, expected, atol=1e-5)


def test_what_does_not_spread_gets_no_weight() -> None:
    assert shares_of([0.1, 0.3]) == pytest.approx([0.75, 0.25])
    assert shares_of([0.0, 0.3]) == pytest.approx([0, 1])
    assert shares_of([0.0, 0.0]) == pytest.approx([0.5, 0.5])


def test_of_many_files_the_summaries_are_short_and_say_nearly_the_same() -> None:
    files = made(AXES_FROM_FILES + 200, 120, kinds=30)
    groups = np.arange(len(files)) // 10
    short = learn_views(files, groups, Space("plain"))
    rows = short.summaries(files)
    assert rows.shape == (len(files), AXES)
    whole = np.clip((files.summaries - short.mean) * short.scale, -3, 3)
    assert np.corrcoef((rows @ rows.T).ravel(), cosines(whole).ravel())[0, 1] > 0.97


def test_fusion_of_models_gives_none_more_weight_for_spreading_more() -> None:
    random = np.random.default_rng(2)
    one, other = (random.standard_normal((30, 30)).astype(np.float32) for _ in range(2))
    groups = np.arange(30) // 3
    np.testing.assert_allclose(
        np.corrcoef(fused([one, other], groups).ravel(), fused([one, 0.1 * other + 5], groups).ravel())[0, 1], 1
    )


def test_number_of_neighbours_is_the_usual_one_unless_another_is_clearly_better() -> None:
    random = np.random.default_rng(3)
    number = np.arange(300) % 3
    truth, groups = np.eye(3, dtype=bool)[number], np.arange(300) // 6
    noise = random.standard_normal((300, 300)).astype(np.float32)
    nothing, zeros = np.zeros(truth.shape), np.zeros(300, np.float32)  # from the regression, and for hubs
    alone, many = np.arange(300), (1, 3, 5, 10, 20)
    assert choose_voter(noise, zeros, truth, groups, many, nothing, alone).k == 5
    assert (
        choose_voter(noise, zeros, truth, groups, many, nothing).k == 20
    )  # of folders, of which files are one witness
    # Half of each class says a little about the others, the other half the contrary: the 20 nearest are heard best.
    telling = (number[:, None] == number[None, :]) * np.where(np.arange(300)[None, :] % 6 < 3, 0.5, -0.5)
    faint, ks = (noise + telling).astype(np.float32), (1, 20)
    evidence = gather_evidence(faint, truth, nothing, ks, groups[:, None] != groups[None, :])
    found = [learn_voter(one, truth, groups, k) for one, k in zip(evidence, ks, strict=True)]
    assert found[1].log_likelihood > found[0].log_likelihood + K_GAIN
    assert choose_voter(faint, zeros, truth, groups, ks, nothing, alone).k == 20
