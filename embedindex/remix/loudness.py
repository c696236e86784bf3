"""Loudness and true peak after ITU-R BS.1770-5, for whole sounds and for units too short for its gate. Pure numpy.

Conventions: samples are (n, channels) float32 or float64, mono or stereo (both channels count alike); levels are LUFS,
or dBTP for true peaks. The K-weighting filters are applied by their impulse response, which has died away to below
-140 dB after `RESPONSE_S`: that makes them a convolution, for which numpy has an FFT.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from embedindex.arrays import Float32Array, Float64Array

AnySamples = Float32Array | Float64Array

# The analogue prototypes behind the coefficients that BS.1770 tables for 48 kHz, for any rate by bilinear transform;
# after B. De Man, "Evaluation of implementations of the EBU R128 loudness measurement" (AES 145, 2018).
SHELF_HZ, SHELF_DB, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
SHELF_POWER = 0.4996667741545416
HIGH_PASS_HZ, HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773

RESPONSE_S = 0.18
OFFSET_LUFS = -0.691  # BS.1770, equation 2
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
STEP_S = 0.1  # gating blocks are four steps long and start at every step
SILENT_LUFS = -120.0  # what silence reads: a number that can be compared

OVERSAMPLING = 4
OVERSAMPLING_TAPS = 48  # a phase; BS.1770 Annex 2 has 12
CHUNK = 1 << 16


def k_weighting(sample_rate: int) -> tuple[tuple[Float64Array, Float64Array], tuple[Float64Array, Float64Array]]:
    """Return (numerator, denominator) of the shelf and of the high-pass, three float64 coefficients each."""
    k = np.tan(np.pi * SHELF_HZ / sample_rate)
    high = 10.0 ** (SHELF_DB / 20.0)
    band = high**SHELF_POWER
    scale = 1.0 + k / SHELF_Q + k * k
    shelf = (
        np.array([high + band * k / SHELF_Q + k * k, 2.0 * (k * k - high), high - band * k / SHELF_Q + k * k]) / scale,
        np.array([scale, 2.0 * (k * k - 1.0), 1.0 - k / SHELF_Q + k * k]) / scale,
    )
    k = np.tan(np.pi * HIGH_PASS_HZ / sample_rate)
    scale = 1.0 + k / HIGH_PASS_Q + k * k
    high_pass = (
        np.array([1.0, -2.0, 1.0]),
        np.array([scale, 2.0 * (k * k - 1.0), 1.0 - k / HIGH_PASS_Q + k * k]) / scale,
    )
    return shelf, high_pass


def _response(sample_rate: int, points: int) -> np.ndarray[tuple[int], np.dtype[np.complex128]]:
    z = np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points)
    response = np.ones(len(z), np.complex128)
    for numerator, denominator in k_weighting(sample_rate):
        response *= np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z)
    return response


@lru_cache(maxsize=8)
def k_weighting_power(sample_rate: int, n_fft: int) -> Float64Array:
    """Return the power gain of K-weighting at the bins of an `n_fft`-point transform, (n_fft // 2 + 1,) float64."""
    return np.asarray(np.abs(_response(sample_rate, n_fft)) ** 2, np.float64)


@lru_cache(maxsize=8)
def _impulse_response(sample_rate: int) -> Float64Array:
    length = round(RESPONSE_S * sample_rate)
    points = 1 << (4 * length).bit_length()
    return np.asarray(np.fft.irfft(_response(sample_rate, points), points)[:length], np.float64)


class KFilter:
    """K-weighting of a sound that comes in blocks.

    Args:
        sample_rate: Hz.
        channels: how many.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        taps = _impulse_response(sample_rate)
        self._points = 1 << (len(taps) + CHUNK // 4).bit_length()
        self._step = self._points - len(taps) + 1
        self._taps = np.fft.rfft(taps, self._points)[:, None]
        self._past: Float64Array = np.zeros((len(taps) - 1, channels))

    def apply(self, block: AnySamples) -> Float64Array:
        """Return the next samples (n, channels), weighted."""
        parts = [np.zeros((0, self._past.shape[1]))]
        for start in range(0, len(block), self._step):
            piece: Float64Array = np.concatenate((self._past, block[start : start + self._step]))
            spectrum = np.fft.rfft(piece, self._points, axis=0) * self._taps
            parts.append(np.fft.irfft(spectrum, self._points, axis=0)[len(self._past) : len(piece)])
            self._past = piece[len(piece) - len(self._past) :]
        return np.concatenate(parts)


class LoudnessMeter:
    """Integrated, gated loudness of a sound that comes in blocks.

    Args:
        sample_rate: Hz.
        channels: 1 or 2.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._filter = KFilter(sample_rate, channels)
        self._step = round(STEP_S * sample_rate)
        self._energies: list[Float64Array] = []
        self._kept = np.zeros(0)
        self._total = 0.0
        self._samples = 0

    def add(self, block: AnySamples) -> None:
        """Listen to the next samples (n, channels)."""
        energy: Float64Array = np.square(self._filter.apply(block)).sum(axis=1)
        self._total += float(energy.sum())
        self._samples += len(energy)
        kept: Float64Array = np.concatenate((self._kept, energy))
        whole = len(kept) - len(kept) % self._step
        self._energies.append(kept[:whole].reshape(-1, self._step).mean(axis=1))
        self._kept = kept[whole:]

    def integrated(self) -> float:
        """Return the loudness so far in LUFS; ungated where there is less than a gating block; silence is -120."""
        steps = np.concatenate(self._energies) if self._energies else np.zeros(0)
        if len(steps) < 4:
            return to_lufs(self._total / max(1, self._samples))
        blocks = np.convolve(steps, np.full(4, 0.25), "valid")
        loud = blocks[_lufs(blocks) >= ABSOLUTE_GATE_LUFS]
        if not len(loud):
            return SILENT_LUFS
        gate = to_lufs(float(loud.mean())) + RELATIVE_GATE_LU
        return to_lufs(float(loud[_lufs(loud) >= gate].mean()))


def _lufs(energy: Float64Array) -> Float64Array:
    return OFFSET_LUFS + 10.0 * np.log10(np.maximum(energy, 1e-30))


def to_lufs(energy: float) -> float:
    """Return a K-weighted mean square, summed over channels, as LUFS, at least `SILENT_LUFS`."""
    return max(SILENT_LUFS, OFFSET_LUFS + 10.0 * float(np.log10(max(energy, 1e-30))))


def integrated_lufs(samples: AnySamples, sample_rate: int) -> float:
    """Return the integrated loudness of (n, channels) samples in LUFS."""
    meter = LoudnessMeter(sample_rate, samples.shape[1])
    meter.add(samples)
    return meter.integrated()


def unit_lufs(samples: AnySamples, sample_rate: int, start: int = 0, end: int | None = None) -> float:
    """Return the ungated loudness of ``samples[start:end]``; what comes before `start` only settles the filter."""
    weighted = KFilter(sample_rate, samples.shape[1]).apply(samples[:end])[start:]
    return to_lufs(float(np.square(weighted).sum() / max(1, len(weighted))))


@lru_cache(maxsize=1)
def _oversampler() -> Float64Array:
    """Return (phases, taps) of a Kaiser-windowed sinc that interpolates 4 times; phase 0 is the samples themselves."""
    offsets = np.arange(OVERSAMPLING_TAPS) - (OVERSAMPLING_TAPS // 2 - 1)
    window_length = OVERSAMPLING_TAPS * OVERSAMPLING + 1
    window = np.kaiser(window_length, 8.0)
    phases = []
    for phase in range(1, OVERSAMPLING):
        at = phase / OVERSAMPLING - offsets
        places = np.round((at / OVERSAMPLING_TAPS + 0.5) * (window_length - 1)).astype(int)
        taps = np.sinc(at) * window[np.clip(places, 0, window_length - 1)]
        phases.append(taps / taps.sum())
    return np.asarray(phases, np.float64)


def peak_envelope(samples: AnySamples) -> Float64Array:
    """Return, for each sample of (n, channels), the largest magnitude from it up to the next one, between them too.

    Zeros are taken to lie beyond the ends. (n,) float64.
    """
    peaks: Float64Array = np.abs(samples).max(axis=1, initial=0.0).astype(np.float64)
    if not len(samples):
        return peaks
    taps: Float64Array = _oversampler()
    points = 1 << 13
    step = points - OVERSAMPLING_TAPS + 1
    # Filtering is correlation with the taps: output n takes the samples from n - 23 to n + 24.
    filters = np.fft.rfft(taps[:, ::-1], points, axis=1)
    before = OVERSAMPLING_TAPS // 2 - 1
    for channel in range(samples.shape[1]):
        padded = np.pad(samples[:, channel].astype(np.float64), (before, OVERSAMPLING_TAPS))
        for start in range(0, len(samples), step):
            spectrum = np.fft.rfft(padded[start : start + points], points)
            found = np.fft.irfft(spectrum * filters, points, axis=1)[:, OVERSAMPLING_TAPS - 1 :]
            most = np.abs(found).max(axis=0)
            piece = peaks[start : start + step]
            np.maximum(piece, most[: len(piece)], out=piece)
    return np.asarray(peaks, np.float64)


def to_dbtp(peak: float) -> float:
    """Return a magnitude as dB re full scale, at least -200."""
    return 20.0 * float(np.log10(max(peak, 1e-10)))


def true_peak_db(samples: AnySamples) -> float:
    """Return the true peak of (n, channels) samples in dBTP, 4 times oversampled."""
    return to_dbtp(float(peak_envelope(samples).max(initial=0.0)))
