"""Samples → windows: how many there are, where they start, and how the last ones are filled.

Conventions: starts are multiples of the hop, so a window's time follows from its number (`window_start_s`); nothing is
stored for it. Lengths are in samples unless a name ends in ``_s`` (seconds).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.models.base import Filling

# A window starts wherever at least this share of a window of sound is left. Windows at the end, which hold little but
# the decay of a sound, are what finds a clip that was cut into its decay.
MIN_LEFT = 0.1

# Sounds up to this many windows long have their windows twice as dense: a hit lasts less than a window, so that the
# place of the few windows it has decides whether it is found. Measured in docs/decisions/windows.md.
SHORT_WINDOWS = 4
SHORT_DENSITY = 2


def count_windows(samples: int, window: int, hop: int) -> int:
    """Return how many windows a sound of `samples` samples has: at least 1 when it is not empty, else 0.

    The last ones may reach beyond the end; a window counts when at least `MIN_LEFT` of it is sound.
    """
    if samples <= 0:
        return 0
    left = max(1, int(MIN_LEFT * window))
    return 1 + max(0, samples - left) // hop


def dense_hop(samples: int, window: int, hop: int) -> int:
    """Return the hop for a sound of `samples` samples, where `hop` is that for long ones."""
    return hop if samples > SHORT_WINDOWS * window else max(1, hop // SHORT_DENSITY)


def window_start_s(number: int, hop_s: float) -> float:
    """Return the start, in seconds, of window `number` (from 0)."""
    return number * hop_s


def fill(samples: Float32Array, window: int, filling: Filling) -> Float32Array:
    """Return `samples` (1-D, 1 to `window` of them) made `window` long: zeros behind, or repeated from its start."""
    if len(samples) >= window:
        return samples[:window]
    if filling == "tile" and len(samples):
        return np.resize(samples, window)
    filled = np.zeros(window, np.float32)
    filled[: len(samples)] = samples
    return filled


def cut_windows(
    blocks: Iterable[Float32Array], window: int, hop: int, filling: Filling, batch: int = 16
) -> Iterator[Float32Array]:
    """Yield batches (1…`batch`, `window`) float32 of the windows of a sound that comes as consecutive 1-D blocks.

    Memory is bounded by a block plus a batch. The number of windows in all equals `count_windows` of the total length.
    """
    kept = np.zeros(0, np.float32)  # samples from the next window's start on
    skip = 0  # samples to drop before the next window starts (hop longer than window)
    total = 0
    made = 0
    pending: list[Float32Array] = []
    for block in blocks:
        total += len(block)
        dropped = min(skip, len(block))
        skip -= dropped
        kept = np.concatenate((kept, block[dropped:]))
        position = 0
        while len(kept) - position >= window:
            pending.append(kept[position : position + window])
            made += 1
            position += hop
            if len(pending) == batch:
                yield np.stack(pending)
                pending = []
            if position > len(kept):
                skip = position - len(kept)
                position = len(kept)
        kept = kept[position:]
    for number in range(count_windows(total, window, hop) - made):
        pending.append(fill(kept[number * hop :], window, filling))
        if len(pending) == batch:
            yield np.stack(pending)
            pending = []
    if pending:
        yield np.stack(pending)
