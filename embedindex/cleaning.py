"""What a sound asked about may carry that its original in the library does not: silence in front, and steady noise.

Conventions: sounds are (n,) float32 mono; power spectrograms are (frames, bins). Pure numpy.

Steady noise (of a room, a tape, a converter) is taken away by spectral subtraction: M. Berouti, R. Schwartz,
J. Makhoul, "Enhancement of speech corrupted by acoustic noise" (1979), with one level of noise for all frequencies:
that of the quietest cells of the sound itself. A sound without noise has next to nothing there and loses next to
nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.descriptors import frame
from embedindex.mel import hann

# What lies this far below the peak at a sound's start is not the sound yet.
ONSET_DB = -60.0
N_FFT = 2048
HOP = N_FFT // 2  # Hann windows half a frame apart add up to 1
# Cells are averaged over so many frames and bins before the quietest are looked for.
SMOOTH_FRAMES = 3
SMOOTH_BINS = 9
# The level of noise is that which this share of the cells lies below, times how much of it is taken away: measured
# together on clips with white noise at 20 dB (docs/decisions/queries.md).
QUIET_SHARE = 0.3
SUBTRACTED = 1.5
# Bins above the last one this near to the strongest hold nothing: the sound was encoded, or resampled, without them.
BAND_DB = -90.0
# Noise this far below the sound changes no ranking.
LEAST_NOISE_DB = -45.0
# Between these levels it is noise that somebody would want away; louder, the noise may be the sound (rain, cymbals),
# softer, the sound's own background. Measured in docs/decisions/queries.md.
PLAIN_NOISE_DB = (-30.0, -12.0)
# A hit that dies away has no noise that is as loud at its end: measured there, too.
STEADY_DB = 10.0


def onset_sample(samples: Float32Array) -> int:
    """Return the number of samples before a sound begins: 0 also for one that is silent throughout."""
    magnitude = np.abs(samples)
    top = magnitude.max(initial=0.0)
    return int(np.argmax(magnitude >= top * 10 ** (ONSET_DB / 20))) if top > 0 else 0


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A sound less its steady noise.

    Attributes:
        samples: (n,) float32.
        noise_db: how loud the noise was, in dB of the sound's energy.
        change_db: by how much the quietest cells differ between the thirds of the sound.
    """

    samples: Float32Array
    noise_db: float
    change_db: float

    @property
    def plain(self) -> bool:
        """Whether it was noise beyond doubt: neither a faint background nor most of the sound, nor its decay."""
        return PLAIN_NOISE_DB[0] <= self.noise_db <= PLAIN_NOISE_DB[1] and self.change_db <= STEADY_DB


def without_noise(samples: Float32Array) -> Cleaned | None:
    """Return a sound, (n,) float32, less its steady noise; None when there is none to speak of, or too little sound."""
    if len(samples) < SMOOTH_FRAMES * N_FFT:
        return None
    padded = np.pad(samples, (HOP, HOP + -len(samples) % HOP))
    spectrum = np.fft.rfft(frame(padded, N_FFT, HOP, centred=False) * hann(N_FFT))
    power = np.abs(spectrum) ** 2
    smooth = _smooth(_smooth(power, SMOOTH_FRAMES, 0), SMOOTH_BINS, 1)
    middle = np.median(smooth, axis=0)
    if not middle.any():
        return None
    band = int(0.95 * (np.flatnonzero(middle > middle.max() * 10 ** (BAND_DB / 10))[-1] + 1))
    noise = float(np.quantile(smooth[:, : max(1, band)], QUIET_SHARE))
    share = max(noise * power[:, :band].size / float(power.sum()), float(np.finfo(np.float32).tiny))
    noise_db = 10 * math.log10(share)
    if noise_db < LEAST_NOISE_DB:
        return None
    gain = np.sqrt(np.maximum(0.0, 1.0 - SUBTRACTED * noise / np.maximum(power, np.finfo(np.float32).tiny)))
    frames = np.fft.irfft(spectrum * gain, N_FFT)
    cleaned = np.zeros(len(padded))
    for number, one in enumerate(frames):
        cleaned[number * HOP : number * HOP + N_FFT] += one
    levels = np.quantile(smooth[1:-1, : max(1, band)], QUIET_SHARE, axis=1)
    thirds = [float(np.median(part)) for part in np.array_split(levels, 3)]
    change_db = 10 * math.log10(max(thirds) / min(thirds)) if min(thirds) > 0 else math.inf
    return Cleaned(cleaned[HOP : HOP + len(samples)].astype(np.float32), noise_db, change_db)


def _smooth(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], width: int, axis: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return running means over `width` (odd) values of an axis, the edges repeated."""
    around = [(0, 0)] * values.ndim
    around[axis] = (width // 2, width // 2)
    view = np.lib.stride_tricks.sliding_window_view(np.pad(values, around, mode="edge"), width, axis=axis)
    return np.asarray(view.mean(axis=-1))
