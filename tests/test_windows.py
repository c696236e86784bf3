"""Windows against a plain reference: the whole sound in one list, one window after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedindex.models.base import Filling
from embedindex.windows import count_windows, cut_windows, dense_hop, fill, window_start_s

FILLINGS = st.sampled_from(["zero", "tile"])


def reference(samples: list[float], window: int, hop: int, filling: Filling) -> list[list[float]]:
    """Windows start at every multiple of the hop where a tenth of a window (or the first sample) is left."""
    windows = []
    start = 0
    while start == 0 or len(samples) - start >= max(1, window // 10):
        held = samples[start : start + window]
        if not held:
            break
        if filling == "tile":
            windows.append([held[number % len(held)] for number in range(window)])
        else:
            windows.append(held + [0.0] * (window - len(held)))
        start += hop
    return windows


@given(
    length=st.integers(0, 200),
    window=st.integers(1, 45),
    hop=st.integers(1, 60),  # also longer than a window
    filling=FILLINGS,
    cuts=st.lists(st.integers(0, 200), max_size=12),
    batch=st.integers(1, 5),
)
def test_windows_are_those_of_the_whole_sound_however_it_comes(
    length: int, window: int, hop: int, filling: Filling, cuts: list[int], batch: int
) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)
    edges = [0, *sorted(cut for cut in cuts if cut <= length), length]
    blocks = [samples[low:high] for low, high in pairwise(edges)]
    batches = list(cut_windows(blocks, window, hop, filling, batch))
    wanted = reference(samples.tolist(), window, hop, filling)
    assert [row for part in batches for row in part.tolist()] == wanted
    assert count_windows(length, window, hop) == len(wanted)
    assert all(part.dtype == np.float32 for part in batches)
    assert [len(part) for part in batches[:-1]] == [batch] * (len(batches) - 1)


@given(length=st.integers(1, 50), window=st.integers(1, 50), filling=FILLINGS)
def test_short_sounds_are_filled(length: int, window: int, filling: Filling) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)
    before = samples.copy()
    filled = fill(samples, window, filling)
    assert len(filled) == window
    behind = 0.0 if filling == "zero" else None
    assert filled.tolist() == [
        float(1 + number % length) if number < length or behind is None else behind for number in range(window)
    ]
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("filling", ["zero", "tile"])
def test_nothing_filled_is_silence(filling: Filling) -> None:
    assert fill(np.zeros(0, np.float32), 4, filling).tolist() == [0.0] * 4
    assert list(cut_windows([], 4, 2, filling)) == []
    assert list(cut_windows([np.zeros(0, np.float32)], 4, 2, filling)) == []


def test_what_was_yielded_is_not_changed_afterwards() -> None:
    samples = np.arange(64, dtype=np.float32)
    kept = list(cut_windows([samples[:30], samples[30:]], 8, 4, "zero", batch=2))
    copies = [part.copy() for part in cut_windows([samples], 8, 4, "zero", batch=2)]
    assert len(kept) == len(copies)
    for part, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@given(samples=st.integers(1, 10**9), window=st.integers(10, 10**5), hop=st.integers(1, 10**5))
def test_every_sample_up_to_a_tenth_of_a_window_from_the_end_is_heard(samples: int, window: int, hop: int) -> None:
    number = count_windows(samples, window, hop)
    last = (number - 1) * hop
    assert last < samples  # no window without sound
    assert samples - (last + hop) < max(1, window // 10)  # and one more would hold next to none


@pytest.mark.parametrize(("samples", "wanted"), [(1, 500), (4000, 500), (4001, 1000)])
def test_sounds_of_up_to_four_windows_have_theirs_twice_as_dense(samples: int, wanted: int) -> None:
    assert dense_hop(samples, 1000, 1000) == wanted


def test_dense_hop_is_never_zero() -> None:
    assert dense_hop(1, 1000, 1) == 1


def test_start_of_a_window_is_its_number_times_the_hop() -> None:
    assert [window_start_s(number, 0.25) for number in (0, 1, 7)] == [0.0, 0.25, 1.75]
