"""Are two files the same waveform, whatever their level, encoding and start? Told from their first seconds.

Conventions: samples are (n,) float32 mono at `SAMPLE_RATE`; a correlation is that at the best lag, 0 to 1; the sign of
the waveform does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.query import Part, part_blocks

SAMPLE_RATE = 8_000
LISTEN_S = 10.0
MAX_LAG_S = 1.0
# Of the differences of samples, in which deep tones, which correlate easily, weigh little (docs/duplicates.md).
MIN_DETAIL = 0.55


@dataclass(frozen=True)
class Correlation:
    """How two waveforms correlate: as they are, and in the differences from sample to sample."""

    whole: float
    detail: float

    def same_recording(self, threshold: float) -> bool:
        """Return whether they are the same recording, given the least correlation that counts as that."""
        return self.whole >= threshold and self.detail >= MIN_DETAIL


def first_seconds(path: bytes) -> Float32Array:
    """Return (n,) the start of a file.

    Raises:
        AudioError: it cannot be decoded.
        QueryError: there is nothing in it.
    """
    return np.concatenate(list(part_blocks(path, SAMPLE_RATE, Part(0.0, LISTEN_S))))


def correlate(first: Float32Array, second: Float32Array) -> Correlation:
    """Return how two sounds correlate at the lag, up to `MAX_LAG_S` either way, at which they do most."""
    return Correlation(_highest(first, second), _highest(np.diff(first), np.diff(second)))


def _highest(first: Float32Array, second: Float32Array) -> float:
    energy = float(np.square(first, dtype=np.float64).sum() * np.square(second, dtype=np.float64).sum())
    if energy <= 0:
        return 0.0
    size = 1 << (len(first) + len(second)).bit_length()
    lags = np.fft.irfft(np.conj(np.fft.rfft(first, size)) * np.fft.rfft(second, size), size)
    most = min(round(MAX_LAG_S * SAMPLE_RATE), size // 2 - 1)
    highest = max(float(np.abs(lags[: most + 1]).max()), float(np.abs(lags[-most:]).max()) if most else 0.0)
    return min(1.0, highest / float(np.sqrt(energy)))
