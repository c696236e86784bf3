"""Two sounds, one faded into the other. Pure numpy."""

from __future__ import annotations

import numpy as np

from embedindex.arrays import Float32Array, Float64Array


def faded(old: Float32Array, new: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Return two sounds (n, channels), one faded out and one in, with the power they have together kept constant.

    For sounds that are the same, amplitudes must add up to 1; for sounds that have nothing in common, powers must. In
    between the law follows the correlation of the two over the fade; where they oppose each other, it is taken as 0,
    because making up for what cancels would be heard as a jump.
    """
    length = len(old)
    rise: Float64Array = 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)
    energy = float(np.square(old, dtype=np.float64).sum() * np.square(new, dtype=np.float64).sum())
    alike = float((old.astype(np.float64) * new).sum()) / np.sqrt(energy) if energy > 0 else 0.0
    alike = min(1.0, max(0.0, alike))
    power = (1 - rise) ** 2 + rise**2 + 2 * alike * rise * (1 - rise)
    weights = np.stack(((1 - rise), rise)) / np.sqrt(power)
    return old * weights[0][:, None], new * weights[1][:, None]
