"""Two sounds merged into one: convolution, spectra, envelopes, grains. Pure functions of samples.

Conventions: sounds are (n, channels) float32 of equal length and rate: `own`, the seed's unit, and `other`, the sound
that takes its place. What comes out has the length of `own`, or that of a convolution in the modes `TAILED`; it has
`own`'s level, because convolution does anything to levels. `amount` 0 is `other` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import UsageError

N_FFT, HOP = 2048, 512
LIFTER_S = 0.0012  # quefrencies below are the envelope of a spectrum, those above its pitch
WHITENED = 0.7  # how much of an impulse response's own colour is taken away: else all convolution goes dark
FLOOR_DB = -60.0  # re its loudest: below, a spectrum or an envelope is not divided by
LONGEST_IR_S = 10.0
PARTITION = 1 << 17
GRAIN_S, GRAIN_STEP_S, SCATTER_S = 0.07, 0.0175, 0.12
FOLLOW_S = 0.01
MOST_GAIN = 16.0

TAILED = frozenset({"ir", "ir-reverse"})
TAILS = ("truncate", "overlap", "ring")


def morph(
    own: Float32Array, other: Float32Array, mode: str, amount: float, sample_rate: int, chance: int = 0
) -> Float32Array:
    """Return the two sounds merged.

    Args:
        own: (n, channels) the seed's unit.
        other: (n, channels) the sound that takes its place.
        mode: one of `MODES`.
        amount: 0 to 1.
        sample_rate: Hz.
        chance: seed of the scatter of grains.
    """
    if mode not in MODES:
        raise UsageError(f"--morph {mode}: choose one of {', '.join(MODES)}")
    a, b = own.astype(np.float64), other.astype(np.float64)
    if mode in SHAPED:
        made = SHAPED[mode](a, b, amount, sample_rate)
    else:
        made = grains(b, sample_rate, chance) if mode == "granular" else convolved(a, b, mode, sample_rate)
        plain = np.pad(b, ((0, len(made) - len(b)), (0, 0)))
        made = amount * _levelled(made, a) + (1 - amount) * _levelled(plain, a)
    return _levelled(made, a).astype(np.float32)


def _levelled(made: Float64Array, like: Float64Array) -> Float64Array:
    """Return `made` with the energy that `like` has, both over the length of `like`."""
    have = float(np.square(made[: len(like)]).sum())
    wanted = float(np.square(like).sum())
    return made * np.sqrt(wanted / have) if have > 0 else made


def convolve(signal: Float64Array, response: Float64Array) -> Float64Array:
    """Return the linear convolution (n + m - 1, channels), computed in partitions of bounded size."""
    length = len(signal) + len(response) - 1
    made = np.zeros((length, signal.shape[1]))
    step = max(1024, min(PARTITION, 1 << max(0, len(response) - 1).bit_length()))
    points = 1 << (step + len(response) - 2).bit_length() if step + len(response) > 2 else 1
    spectrum = np.fft.rfft(response, points, axis=0)
    for start in range(0, len(signal), step):
        piece = signal[start : start + step]
        part = np.fft.irfft(np.fft.rfft(piece, points, axis=0) * spectrum, points, axis=0)
        count = len(piece) + len(response) - 1
        made[start : start + count] += part[:count]
    return made


def convolved(a: Float64Array, b: Float64Array, mode: str, sample_rate: int) -> Float64Array:
    """Return one sound with the other as its room (``ir``: `a` through `b`; ``ir-reverse``: `b` through `a`)."""
    signal, response = (a, b) if mode == "ir" else (b, a)
    response = response[: round(LONGEST_IR_S * sample_rate)]
    return convolve(signal, whitened(response, sample_rate))


def whitened(response: Float64Array, sample_rate: int) -> Float64Array:
    """Return a sound with most of the colour of its spectrum taken away; its shape in time and its pitches stay."""
    points = 1 << (2 * len(response)).bit_length()
    spectrum = np.fft.rfft(response, points, axis=0)
    power = np.square(np.abs(spectrum)).mean(axis=1)
    width = max(1, round(points * 100.0 / sample_rate))  # smoothed over 100 Hz
    sums = np.concatenate(([0.0], np.cumsum(np.pad(power, width, mode="edge"))))
    smooth = np.sqrt((sums[2 * width + 1 :] - sums[: -2 * width - 1]) / (2 * width + 1))
    if smooth.max() <= 0:
        return response
    colour = np.maximum(smooth, smooth.max() * 10 ** (FLOOR_DB / 20))
    return np.asarray(np.fft.irfft(spectrum / colour[:, None] ** WHITENED, points, axis=0)[: len(response)], np.float64)


def geometric(a: Float64Array, b: Float64Array, amount: float, sample_rate: int) -> Float64Array:
    """Return the geometric mean of the two spectra over the whole unit, with the phases, hence the time, of `b`."""
    del sample_rate
    points = 1 << (2 * len(a)).bit_length()
    first, second = (np.fft.rfft(sound, points, axis=0) for sound in (a, b))
    share = amount / 2
    magnitude = np.maximum(np.abs(first), 1e-12) ** share * np.maximum(np.abs(second), 1e-12) ** (1 - share)
    made = np.fft.irfft(magnitude * np.exp(1j * np.angle(second)), points, axis=0)
    return np.asarray(made[: len(a)], np.float64)


def follow(a: Float64Array, b: Float64Array, amount: float, sample_rate: int) -> Float64Array:
    """Return `b` with the ups and downs of `a`."""
    ratio = _envelope(a, sample_rate) / _envelope(b, sample_rate)
    return b * np.minimum(ratio, MOST_GAIN)[:, None] ** amount


def _envelope(sound: Float64Array, sample_rate: int) -> Float64Array:
    """Return the level (n,) over `FOLLOW_S`, at least 60 dB below its maximum."""
    half = max(1, round(FOLLOW_S * sample_rate))
    shape = np.hanning(2 * half + 1)
    energy = np.square(sound).mean(axis=1)
    points = 1 << (len(energy) + len(shape)).bit_length()
    smooth = np.fft.irfft(np.fft.rfft(energy, points) * np.fft.rfft(shape / shape.sum(), points), points)
    level = np.sqrt(np.maximum(smooth[half : half + len(energy)], 0))
    return np.asarray(np.maximum(level, max(1e-9, level.max(initial=0) * 10 ** (FLOOR_DB / 20))), np.float64)


def spectral_envelope(a: Float64Array, b: Float64Array, amount: float, sample_rate: int) -> Float64Array:
    """Return `b` with the formants of `a`, moment by moment: a talking instrument, if `a` talks."""

    def change(first: Float64Array, second: Float64Array) -> Float64Array:
        ratio = np.exp(_log_envelope(first, sample_rate) - _log_envelope(second, sample_rate))
        return np.asarray(np.minimum(ratio, MOST_GAIN) ** amount, np.float64)

    return _through_frames(a, b, lambda first, second: second * change(np.abs(first), np.abs(second)))


def vocoder(a: Float64Array, b: Float64Array, amount: float, sample_rate: int) -> Float64Array:
    """Return the magnitudes of `a` with the phases of `b`, moment by moment."""
    del sample_rate

    def change(first: Any, second: Any) -> Any:
        magnitude = np.maximum(np.abs(first), 1e-9) ** amount * np.maximum(np.abs(second), 1e-9) ** (1 - amount)
        return magnitude * np.exp(1j * np.angle(second))

    return _through_frames(a, b, change)


def _log_envelope(magnitude: Float64Array, sample_rate: int) -> Float64Array:
    """Return the smooth part of log spectra (frames, bins) by cepstral liftering."""
    floor = np.maximum(magnitude.max(axis=1, keepdims=True) * 10 ** (FLOOR_DB / 20), 1e-6)
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, floor)), axis=1)
    keep = max(2, round(LIFTER_S * sample_rate))
    cepstrum[:, keep : cepstrum.shape[1] - keep + 1] = 0
    return np.asarray(np.fft.rfft(cepstrum, axis=1).real, np.float64)


def _through_frames(a: Float64Array, b: Float64Array, change: Callable[[Any, Any], Any]) -> Float64Array:
    """Return what comes of changing the short-time spectra of `b` by those of `a` (Hann twice, overlap-add)."""
    made = np.zeros_like(b)
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT))
    for channel in range(b.shape[1]):
        padded = [np.pad(sound[:, channel], (N_FFT, 2 * N_FFT)) for sound in (a, b)]
        first, second = (
            np.fft.rfft(np.lib.stride_tricks.sliding_window_view(sound, N_FFT)[::HOP] * window) for sound in padded
        )
        frames = np.fft.irfft(change(first, second), N_FFT, axis=1) * window
        total = np.zeros(len(padded[0]))
        for number, frame in enumerate(frames):
            total[number * HOP : number * HOP + N_FFT] += frame
        made[:, channel] = total[N_FFT : N_FFT + len(b)] * (2 * HOP / N_FFT)
    return made


def grains(b: Float64Array, sample_rate: int, chance: int) -> Float64Array:
    """Return `b` as a cloud of grains: 70 ms each, four at a time, each taken from up to 120 ms before or after."""
    rng = np.random.default_rng(chance)
    length, step = round(GRAIN_S * sample_rate), max(1, round(GRAIN_STEP_S * sample_rate))
    window = np.hanning(length + 2)[1:-1][:, None]
    made = np.zeros((len(b) + length, b.shape[1]))
    for start in range(-length // 2, len(b), step):
        place = start + round(rng.uniform(-SCATTER_S, SCATTER_S) * sample_rate)
        place = int(np.clip(place, 0, max(0, len(b) - length)))
        grain = b[place : place + length]
        begin = max(0, start)
        made[begin : begin + len(grain)] += grain * window[: len(grain)]
    return made[: len(b)]


SHAPED: dict[str, Callable[[Float64Array, Float64Array, float, int], Float64Array]] = {
    "geomean": geometric,
    "envelope": follow,
    "spectral-envelope": spectral_envelope,
    "vocoder": vocoder,
}
MODES = ("none", "ir", "ir-reverse", *SHAPED, "granular")
