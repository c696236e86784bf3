"""How much a sound changes its colour at each moment: Foote's novelty. Pure numpy.

J. Foote, "Automatic audio segmentation using a measure of audio novelty" (ICME 2000): a checkerboard kernel slides
along the diagonal of the matrix of all similarities; only the band that it covers is ever computed.
"""

from __future__ import annotations

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.remix.frames import BRIGHTNESS, CEPSTRA, FRAMES_PER_S, LEVEL, NOISINESS, Track

CELL_FRAMES = 11  # 128 ms: frames whose mean is one cell
CELL_S = CELL_FRAMES / FRAMES_PER_S
HALF_CELLS = 16  # the kernel looks two seconds back and two ahead
_CELLS_AT_ONCE = 512


def cells(track: Track) -> Float64Array:
    """Return (n, 16) timbre, level, brightness and noisiness of each 128 ms, each standardised over the sound."""
    count = len(track.frames) // CELL_FRAMES
    columns = np.r_[np.arange(CEPSTRA.start, CEPSTRA.stop), LEVEL, BRIGHTNESS, NOISINESS]
    rows = track.frames[: count * CELL_FRAMES, columns].astype(np.float64)
    means = rows.reshape(count, CELL_FRAMES, len(columns)).mean(axis=1)
    if not count:
        return np.asarray(means, np.float64)
    return np.asarray((means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1.0), np.float64)


def checkerboard(half: int) -> Float64Array:
    """Return the kernel (2 half, 2 half): 1 within either side, -1 across, falling off from its middle (Gaussian)."""
    place = np.arange(-half, half) + 0.5
    taper = np.exp(-4.0 * (place / half) ** 2)
    sign = np.sign(place)
    return np.asarray(np.outer(sign * taper, sign * taper), np.float64)


def novelty(rows: Float64Array, half: int = HALF_CELLS) -> Float32Array:
    """Return the novelty (n + 1,) before each row, and behind the last; 0 at both ends, never below 0.

    Args:
        rows: (n, columns); similarity is the cosine of two rows.
        half: rows to look back and ahead; beyond the ends lies nothing.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.pad(rows / np.maximum(lengths, 1e-9), ((half, half), (0, 0)))
    kernel = checkerboard(half)
    curve = np.zeros(len(rows) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(unit, 2 * half, axis=0)  # (n + 1, columns, 2 half)
    for first in range(0, len(curve), _CELLS_AT_ONCE):
        part = windows[first : first + _CELLS_AT_ONCE]
        similar = np.matmul(part.transpose(0, 2, 1), part)
        curve[first : first + len(part)] = np.einsum("nij,ij->n", similar, kernel)
    # Where the kernel hangs over an end, one of its halves sees nothing, and all would be new.
    inside = np.minimum(np.arange(len(curve)), np.arange(len(curve))[::-1]) / half
    return np.asarray(np.maximum(curve, 0.0) * np.minimum(inside, 1.0), np.float32)
