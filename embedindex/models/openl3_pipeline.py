"""A whole sound → OpenL3 embedding and timestamps, with the centring, padding, hop and rounding of the official 0.4.2.

Conventions: samples are (n,) or (n, channels), any real type, not scaled (integers keep their magnitude, as in the
official code); lengths are in samples at 48 kHz unless a name ends in ``_s``. Source: openl3/core.py of 0.4.2, lines
17-99 and 287. Its bugs are not imitated: strided views are read correctly, and what it answers with a bare ValueError
or ZeroDivisionError is a UsageError here. Resampling is soxr's, not resampy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import UsageError
from embedindex.models.openl3_frontend import SAMPLE_RATE, WINDOW_SAMPLES

DEFAULT_HOP_S = 0.1
# Silence put in front when centring, so that the first window's middle is the first sample (core.py:17-19).
CENTRE_SAMPLES = WINDOW_SAMPLES // 2
# More channels than any recording has: the array is (channels, n), which the official code would average over time.
MAX_CHANNELS = 64
# Of soxr's the nearest to resampy's kaiser_best by embedding (docs/decisions/openl3-resampling.md).
RESAMPLING_QUALITY = "HQ"

Samples = npt.NDArray[Any]


class WindowModel(Protocol):
    """What `embed_audio` needs of a model."""

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, dimension) float32 for windows (n, 48000)."""
        ...


def embed_audio(
    samples: Samples,
    sample_rate: float,
    model: WindowModel,
    *,
    center: bool = True,
    hop_s: float = DEFAULT_HOP_S,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Float32Array, Float64Array]:
    """Return what ``openl3.get_audio_embedding`` returns for a sound.

    Args:
        samples: (n,) or (n, channels); channels are averaged.
        sample_rate: Hz of `samples`; other rates than 48000 are resampled.
        model: an OpenL3 model, loaded.
        center: silence of half a window goes in front, so that timestamps are the middles of the windows.
        hop_s: seconds between two windows; the hop in samples is truncated, the timestamps are not.
        batch: windows handed to the model at once.
        progress: called with (windows done, windows in all) after each batch.

    Returns:
        (embedding (windows, dimension) float32, timestamps (windows,) float64 in seconds).

    Raises:
        UsageError: no samples, more than two dimensions, a rate or hop that is not positive, or a hop below one sample.
    """
    hop = hop_samples(hop_s)
    prepared = pad_audio(to_mono_48k(samples, sample_rate), hop, center=center)
    windows = np.lib.stride_tricks.sliding_window_view(prepared, WINDOW_SAMPLES)[::hop]
    parts = []
    for start in range(0, len(windows), max(1, batch)):
        parts.append(model.embed(windows[start : start + max(1, batch)]))
        if progress is not None:
            progress(min(start + batch, len(windows)), len(windows))
    return np.concatenate(parts), np.arange(len(windows), dtype=np.float64) * np.float64(hop_s)


def hop_samples(hop_s: float) -> int:
    """Return the hop in samples, truncated in floating point as in core.py:79 (0.29 s gives 13919, not 13920).

    Raises:
        UsageError: the hop is not a positive number, or shorter than a sample.
    """
    if not np.isfinite(hop_s) or hop_s <= 0:
        raise UsageError(f"the hop size must be a positive number of seconds, not {hop_s}")
    hop = int(hop_s * SAMPLE_RATE)
    if hop < 1:
        raise UsageError(f"a hop of {hop_s} s is shorter than one sample at 48 kHz; the shortest is 2.1e-5")
    return hop


def count_windows(length: int, hop: int, *, center: bool) -> int:
    """Return how many windows a sound of `length` samples at 48 kHz has (core.py:90-93)."""
    length += CENTRE_SAMPLES if center else 0
    return 1 if length <= WINDOW_SAMPLES else 1 + -(-(length - WINDOW_SAMPLES) // hop)


def to_mono_48k(samples: Samples, sample_rate: float) -> Samples:
    """Return `samples` as one channel at 48 kHz, floating point; the average of the channels comes before resampling.

    Raises:
        UsageError: no samples, more than two dimensions, or a rate that is not positive.
    """
    if samples.size == 0:
        raise UsageError("the sound has no samples")
    if samples.ndim > 2:
        raise UsageError(f"samples must be (n,) or (n, channels), not {samples.ndim}-dimensional")
    if not np.isfinite(sample_rate) or sample_rate <= 0:
        raise UsageError(f"the sample rate must be a positive number of Hz, not {sample_rate}")
    if samples.ndim == 2:
        if samples.shape[1] > MAX_CHANNELS:
            raise UsageError(f"samples of shape {samples.shape} have too many channels; give (n, channels)")
        one = samples.shape[1] == 1
        samples = samples[:, 0] if one else np.asarray(np.mean(samples, axis=1, dtype=np.float64))
    if not np.issubdtype(samples.dtype, np.floating):
        samples = samples.astype(np.float64)
    return samples if sample_rate == SAMPLE_RATE else _resample(samples, sample_rate)


def pad_audio(samples: Samples, hop: int, *, center: bool) -> Samples:
    """Return `samples` with the zeros in front and behind that make all of them part of a window."""
    front = CENTRE_SAMPLES if center else 0
    needed = (count_windows(len(samples), hop, center=center) - 1) * hop + WINDOW_SAMPLES
    return np.pad(samples, (front, max(0, needed - front - len(samples))))


def _resample(samples: Samples, sample_rate: float) -> Samples:
    """Return `samples` at 48 kHz, float64, of the length the official code has: n * 48000 / rate, truncated.

    In float64 because the decibels reach so far down that rounding to float32 here moves an embedding (by 0.13 of 15).
    """
    import soxr

    length = int(len(samples) * (SAMPLE_RATE / sample_rate))
    if length < 1:
        raise UsageError(f"{len(samples)} samples at {sample_rate} Hz are less than one at 48 kHz")
    resampled = soxr.resample(samples.astype(np.float64), sample_rate, SAMPLE_RATE, quality=RESAMPLING_QUALITY)
    return np.pad(resampled, (0, max(0, length - len(resampled))))[:length]
