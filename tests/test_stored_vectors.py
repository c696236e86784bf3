"""Vectors of any windows come out of the database as they went in, and what is gone or damaged is said to be so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.errors import IndexDamagedError
from embedindex.store import Store
from embedindex.stored_vectors import sample_windows, vectors_of_windows
from tests.storing import DIMENSION, execute, open_filled, put

LENGTHS = (1, 31, 32, 33, 70, 5, 64, 2)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of files of all lengths around that of a row, one of them forgotten."""
    folder = str(tmp_path_factory.mktemp("index"))
    with open_filled(folder) as store:
        for number, length in enumerate(LENGTHS):
            put(store, b"%d.wav" % number, length, number)
        store.forget_file(5)
    return folder


@given(st.sets(st.integers(0, sum(LENGTHS) + 5)))
@settings(max_examples=60)
def test_vectors_of_any_windows_are_those_of_their_files(filled: str, wanted: set[int]) -> None:
    with Store(filled) as store:
        known = {}
        for record in store.files("status = 'ok'"):
            for offset, vector in enumerate(store.vectors_of(record)):
                known[(record.first_window or 0) + offset] = vector
        numbers = np.array(sorted(wanted), np.int64)
        there, vectors = vectors_of_windows(store, numbers, DIMENSION)
        assert there.tolist() == [number in known for number in numbers.tolist()]
        for number, found in zip(numbers.tolist(), vectors, strict=True):
            np.testing.assert_array_equal(found, known.get(number, np.zeros(DIMENSION, np.float16)))


def test_damaged_row_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(tmp_path_factory.mktemp("index"))
    with open_filled(folder) as store:
        put(store, b"a.wav", 20)
    execute(folder, "UPDATE vectors SET n_windows = 10")
    with Store(folder) as reader, pytest.raises(IndexDamagedError, match="the vectors of windows 0 to 9 are damaged"):
        vectors_of_windows(reader, np.array([3]), DIMENSION)


def test_sample_is_drawn_from_everywhere_without_repeats_within_a_batch(filled: str) -> None:
    with Store(filled) as store:
        drawn = np.concatenate([numbers for numbers, _ in sample_windows(store, 150, DIMENSION, 1)])
        again = np.concatenate([numbers for numbers, _ in sample_windows(store, 150, DIMENSION, 1)])
    assert np.array_equal(drawn, again)
    assert 30 < len(drawn) <= 150
    assert drawn.min() < 40
    assert drawn.max() > sum(LENGTHS) - 80
