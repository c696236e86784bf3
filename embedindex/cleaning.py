"""What a sound asked about may carry that its original in the library does not: silence in front, and steady noise.

Conventions: sounds are (n,) float32 mono; power spectrograms are (frames, bins). Pure numpy.

Steady noise (of a room, a tape, a converter) is taken away by subtraction (M. Berouti, R. Schwartz, J. Makhoul,
"Enhancement of speech corrupted by acoustic noise", 1979), or more evenly, so that what is left of it does not sing
(Y. Ephraim, D. Malah, "Speech enhancement using a minimum mean-square error log-spectral amplitude estimator", 1985):
networks hear that better, descriptors the other (docs/decisions/queries.md). Either way with one level of noise for all
frequencies: that of the quietest cells of the sound itself. A sound without noise has next to nothing there and loses
next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.descriptors import frame
from embedindex.mel import hann

# What lies this far below the peak at a sound's start is not the sound yet.
ONSET_DB = -60.0
N_FFT = 2048
HOP = N_FFT // 2  # Hann windows half a frame apart add up to 1
# Cells are averaged over so many frames and bins before the quietest are looked for.
SMOOTH_FRAMES = 3
SMOOTH_BINS = 9
# The level of noise is that which this share of the cells lies below, times how much of it is subtracted: measured
# together on clips with white noise at 20 dB (docs/decisions/queries.md).
QUIET_SHARE = 0.3
SUBTRACTED = 1.5
# Share of the last frame in what is thought to be the ratio of sound and noise (the alpha of the paper); the least
# ratio; and the least that is left of anything.
REMEMBERED = 0.98
LEAST_RATIO_DB = -25.0
LEAST_GAIN_DB = -25.0
# Bins above the last one this near to the strongest hold nothing: the sound was encoded, or resampled, without them.
BAND_DB = -90.0
# Noise this far below the sound changes no ranking.
LEAST_NOISE_DB = -45.0
# Between these levels it is noise that somebody would want away; louder, the noise may be the sound (rain, cymbals),
# softer, the sound's own background. Measured in docs/decisions/queries.md.
PLAIN_NOISE_DB = (-30.0, -12.0)
# A hit that dies away has no noise that is as loud at its end: measured there, too.
STEADY_DB = 15.0


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


def without_noise(samples: Float32Array, *, evenly: bool = False) -> Cleaned | None:
    """Return a sound, (n,) float32, less its steady noise; None when there is none to speak of, or too little sound.

    Args:
        samples: the sound.
        evenly: as a network hears it better, by Ephraim and Malah's estimate instead of subtraction.
    """
    if len(samples) < SMOOTH_FRAMES * N_FFT:
        return None
    padded = np.pad(samples, (HOP, HOP + -len(samples) % HOP))
    before, after = (np.sqrt(hann(N_FFT)),) * 2 if evenly else (hann(N_FFT), np.ones(N_FFT))
    spectrum = np.fft.rfft(frame(padded, N_FFT, HOP, centred=False) * before)
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
    ratios = np.maximum(power, np.finfo(np.float32).tiny) / noise
    gains = _estimated(ratios) if evenly else np.sqrt(np.maximum(0.0, 1.0 - SUBTRACTED / ratios))
    frames = np.fft.irfft(spectrum * gains, N_FFT) * after
    cleaned = np.zeros(len(padded))
    for number, one in enumerate(frames):
        cleaned[number * HOP : number * HOP + N_FFT] += one
    levels = np.quantile(smooth[1:-1, : max(1, band)], QUIET_SHARE, axis=1)
    thirds = [float(np.median(part)) for part in np.array_split(levels, 3)]
    change_db = 10 * math.log10(max(thirds) / min(thirds)) if min(thirds) > 0 else math.inf
    return Cleaned(cleaned[HOP : HOP + len(samples)].astype(np.float32), noise_db, change_db)


def _estimated(ratios: Float64Array) -> Float64Array:
    """Return (frames, bins) what each cell is multiplied by, given (frames, bins) the ratios of power and noise.

    The ratio of sound and noise before the noise came in is guessed from the last frame's result and from this frame
    ("decision-directed"); the gain is the paper's equation 20.
    """
    gains = np.empty_like(ratios)
    before = np.maximum(ratios[0] - 1.0, 0.0)
    for number, ratio in enumerate(ratios):
        clean = REMEMBERED * before + (1 - REMEMBERED) * np.maximum(ratio - 1.0, 0.0)
        share = 1.0 - 1.0 / (1.0 + np.maximum(clean, 10 ** (LEAST_RATIO_DB / 10)))
        before = np.square(share) * ratio
        gains[number] = share * np.exp(exponential_integral(share * ratio) / 2)
    return np.clip(gains, 10 ** (LEAST_GAIN_DB / 20), 1.0)


def exponential_integral(values: Float64Array) -> Float64Array:
    """Return the integral of exp(-t) / t from each value, above 0, to infinity, to 1 part in 10,000.

    M. Abramowitz, I. Stegun, "Handbook of mathematical functions" (1964), 5.1.53 and 5.1.54.
    """
    near, far = np.clip(values, np.finfo(np.float32).tiny, 1.0), np.maximum(values, 1.0)
    below = np.polyval((0.00107857, -0.00976004, 0.05519968, -0.24991055, 0.99999193, -0.57721566), near) - np.log(near)
    above = (np.square(far) + 2.334733 * far + 0.250621) / (np.square(far) + 3.330657 * far + 1.681534)
    return np.where(values <= 1.0, below, above * np.exp(-far) / far)


def _smooth(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], width: int, axis: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return running means over `width` (odd) values of an axis, the edges repeated."""
    around = [(0, 0)] * values.ndim
    around[axis] = (width // 2, width // 2)
    view = np.lib.stride_tricks.sliding_window_view(np.pad(values, around, mode="edge"), width, axis=axis)
    return np.asarray(view.mean(axis=-1))
