"""Filter banks and bases of the spectral descriptors: mel bands, pitch classes, the cosine basis of cepstra.

Conventions: everything is built once per setting, cached and read-only. A bank is (bins, bands) float32, so that
``power @ bank`` maps (…, frames, bins) to (…, frames, bands); bin ``k`` of an `n_fft`-point transform is at
``k * sample_rate / n_fft`` Hz. The numbers are those of librosa 0.10 and later (Slaney's mel scale, area-normalised).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from embedindex.arrays import Float32Array, Float64Array

# M. Slaney, Auditory Toolbox (1998): linear below 1 kHz (3 mels per 200 Hz), then 27 mels for a factor of 6.4.
SLANEY_HZ_PER_MEL = 200.0 / 3.0
SLANEY_BREAK_HZ = 1000.0
SLANEY_BREAK_MEL = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL
SLANEY_LOG_STEP = np.log(6.4) / 27.0

A4_HZ = 440.0


def hz_to_mel(frequency_hz: Float64Array) -> Float64Array:
    """Return frequencies (Hz, any shape) on Slaney's mel scale."""
    linear = frequency_hz / SLANEY_HZ_PER_MEL
    logarithmic = SLANEY_BREAK_MEL + np.log(np.maximum(frequency_hz, 1.0) / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    return np.asarray(np.where(frequency_hz >= SLANEY_BREAK_HZ, logarithmic, linear), np.float64)


def mel_to_hz(mel: Float64Array) -> Float64Array:
    """Return the frequencies (Hz) of values on Slaney's mel scale; the inverse of `hz_to_mel`."""
    above = SLANEY_BREAK_HZ * np.exp(SLANEY_LOG_STEP * (np.maximum(mel, SLANEY_BREAK_MEL) - SLANEY_BREAK_MEL))
    return np.asarray(np.where(mel >= SLANEY_BREAK_MEL, above, mel * SLANEY_HZ_PER_MEL), np.float64)


def bin_frequencies(sample_rate: int, n_fft: int) -> Float64Array:
    """Return the centre frequency (Hz) of each of the ``n_fft // 2 + 1`` bins."""
    return np.arange(n_fft // 2 + 1, dtype=np.float64) * (sample_rate / n_fft)


@lru_cache(maxsize=16)
def mel_bank(
    sample_rate: int, n_fft: int, n_mels: int = 128, f_min: float = 0.0, f_max: float | None = None
) -> Float32Array:
    """Return the mel filter bank, (bins, n_mels) float32.

    Triangles between points equally spaced in mels from `f_min` to `f_max` (default: half the rate), linear in Hz,
    each scaled by 2 / its width in Hz (the "slaney" norm).
    """
    top = sample_rate / 2.0 if f_max is None else f_max
    limits = hz_to_mel(np.array([f_min, top]))
    edges = mel_to_hz(np.linspace(limits[0], limits[1], n_mels + 2))
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    bins = bin_frequencies(sample_rate, n_fft)[:, None]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return _frozen(triangles * (2.0 / (upper - lower)))


@lru_cache(maxsize=16)
def chroma_bank(sample_rate: int, n_fft: int, n_chroma: int = 12, tuning: float = 0.0) -> Float32Array:
    """Return the pitch-class bank, (bins, n_chroma) float32, class 0 = C.

    After D. Ellis, "Chroma feature analysis and synthesis" (2007): each bin is spread over the pitch circle by a
    Gaussian as wide as the bin itself (at least one class), scaled to length 1, and weighted by a Gaussian over
    octaves, centred five octaves above 27.5 Hz, two octaves wide.

    Args:
        sample_rate: Hz.
        n_fft: length of the transform.
        n_chroma: pitch classes in an octave.
        tuning: deviation from A4 = 440 Hz, in pitch classes.
    """
    a4_hz = A4_HZ * 2.0 ** (tuning / n_chroma)
    octave = np.empty(n_fft)
    octave[1:] = np.log2(np.arange(1, n_fft) * (sample_rate / n_fft) / (a4_hz / 16.0))
    octave[0] = octave[1] - 1.5  # the reference's stand-in: 0 Hz has no octave
    position = n_chroma * octave
    width = np.append(np.maximum(np.diff(position), 1.0), 1.0)
    half = np.round(n_chroma / 2.0)
    distance = np.remainder(position[:, None] - np.arange(n_chroma) + half + 10 * n_chroma, n_chroma) - half
    bank = np.exp(-0.5 * (2.0 * distance / width[:, None]) ** 2)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    bank *= np.exp(-0.5 * ((octave - 5.0) / 2.0) ** 2)[:, None]
    bank = np.roll(bank, -3 * (n_chroma // 12), axis=1)  # from A first to C first
    return _frozen(bank[: n_fft // 2 + 1])


@lru_cache(maxsize=16)
def dct_basis(n_inputs: int, n_outputs: int) -> Float32Array:
    """Return the orthonormal DCT-II as a matrix, (n_inputs, n_outputs) float32: ``x @ basis`` transforms `x`."""
    angles = np.outer(np.arange(n_inputs) + 0.5, np.arange(n_outputs)) * (np.pi / n_inputs)
    basis = np.cos(angles) * np.sqrt(2.0 / n_inputs)
    basis[:, 0] = np.sqrt(1.0 / n_inputs)
    return _frozen(basis)


@lru_cache(maxsize=16)
def hann(length: int) -> Float32Array:
    """Return the periodic Hann window, (length,) float32."""
    return _frozen(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length))


def _frozen(values: Float64Array) -> Float32Array:
    """Return `values` as float32 that nobody can change, because every caller shares it."""
    narrow = np.ascontiguousarray(values, np.float32)
    narrow.setflags(write=False)
    return narrow
