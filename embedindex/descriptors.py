"""The classic descriptors of audio, frame by frame, for many sounds of equal length at once. Pure numpy.

Conventions: definitions, defaults and scalings are librosa's (0.10 and later), because its numbers are what people
compare with; only the axes differ: frames come before bins, (…, frames, bins), where librosa has (…, bins, frames).
Sounds are (…, samples) float32; leading axes are a batch whose members never influence one another (librosa's decibel
floor looks at all channels together). Frames are centred: frame ``i`` is around sample ``i * hop``, with zeros beyond
the ends; a sound of ``s`` samples has ``1 + s // hop`` frames. With ``centred=False`` (librosa's ``center=False``)
frame ``i`` starts at ``i * hop`` and only complete frames are taken. Results are float32 and finite for finite input.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.mel import bin_frequencies, chroma_bank, dct_basis, hann, mel_bank

N_FFT = 2048
HOP = 512
POWER_FLOOR = 1e-10  # librosa's `amin` of power_to_db, and of flatness
DYNAMIC_RANGE_DB = 80.0  # librosa's `top_db`
ZERO_CROSSING_FLOOR = 1e-10  # librosa's `threshold` of zero_crossings: samples this near to 0 count as 0
TINY = float(np.finfo(np.float32).tiny)
ROLLOFF_BLOCK = 32  # bins summed at once


def frame(sounds: Float32Array, length: int = N_FFT, hop: int = HOP, centred: bool = True) -> Float32Array:
    """Return a view of `sounds` (…, samples) as frames (…, frames, length), read-only.

    Args:
        sounds: (…, samples) float32.
        length: samples in a frame.
        hop: samples between the starts of two frames.
        centred: zeros before and after the sound, so that frame ``i`` is centred on sample ``i * hop``.
    """
    if centred:
        sounds = np.pad(sounds, [(0, 0)] * (sounds.ndim - 1) + [(length // 2, length // 2)])
    return np.lib.stride_tricks.sliding_window_view(sounds, length, axis=-1)[..., ::hop, :]


def magnitude(sounds: Float32Array, n_fft: int = N_FFT, hop: int = HOP, centred: bool = True) -> Float32Array:
    """Return the magnitude spectrogram |STFT|, (…, frames, n_fft // 2 + 1), through a periodic Hann window."""
    spectrum: Float32Array = np.abs(np.fft.rfft(frame(sounds, n_fft, hop, centred) * hann(n_fft)))
    return spectrum


def mel_spectrogram(
    power: Float32Array, sample_rate: int, n_mels: int = 128, f_min: float = 0.0, f_max: float | None = None
) -> Float32Array:
    """Return the mel spectrogram (…, frames, n_mels) of a power spectrogram (…, frames, bins)."""
    return power @ mel_bank(sample_rate, _n_fft(power), n_mels, f_min, f_max)


def power_to_db(power: Float32Array, range_db: float | None = DYNAMIC_RANGE_DB, axes: int = 2) -> Float32Array:
    """Return `power` in dB re 1, not below `POWER_FLOOR` and not more than `range_db` below each sound's maximum.

    Args:
        power: (…, frames, bands), or (…, bands) with ``axes=1``.
        range_db: None for no limit.
        axes: how many of the last axes are one sound.
    """
    level: Float32Array = np.float32(10.0) * np.log10(np.maximum(power, np.float32(POWER_FLOOR)))
    if range_db is None:
        return level
    lowest = level.max(axis=tuple(range(-axes, 0)), keepdims=True) - np.float32(range_db)
    limited: Float32Array = np.maximum(level, lowest)
    return limited


def mfcc(log_mel_db: Float32Array, count: int = 20) -> Float32Array:
    """Return mel-frequency cepstral coefficients (…, frames, count): the orthonormal DCT-II of `power_to_db` mels."""
    return log_mel_db @ dct_basis(log_mel_db.shape[-1], count)


def delta(features: Float32Array, width: int = 9, order: int = 1) -> Float32Array:
    """Return local derivatives along the frames (…, frames, n): Savitzky-Golay of degree = `order` over `width` frames.

    The first and the last ``width // 2`` frames take the derivative of the polynomial through the outermost `width`
    frames, which is that of the nearest complete frame.

    Raises:
        ValueError: fewer frames than `width`, an even `width`, or an order other than 1 or 2.
    """
    frames = features.shape[-2]
    if width % 2 == 0 or width < 3 or order not in (1, 2):
        raise ValueError(f"width {width} must be odd and at least 3, order {order} must be 1 or 2")
    if frames < width:
        raise ValueError(f"{frames} frames are fewer than the {width} that a derivative is taken over")
    offset = np.arange(width) - width // 2
    # Least squares: the slope is <x, t>/<t, t>; twice the quadratic term uses t² made orthogonal to the constant.
    basis = offset.astype(np.float64) if order == 1 else offset**2 - np.mean(offset**2)
    kernel = (order * basis / np.sum(basis**2)).astype(np.float32)
    count = frames - width + 1
    inner = np.zeros((*features.shape[:-2], count, features.shape[-1]), np.float32)
    for step, weight in enumerate(kernel):
        if weight:
            inner += weight * features[..., step : step + count, :]
    padding = [(0, 0)] * (features.ndim - 2) + [(width // 2, width // 2), (0, 0)]
    return np.pad(inner, padding, mode="edge")


def chroma(power: Float32Array, sample_rate: int, tuning: float = 0.0) -> Float32Array:
    """Return pitch-class energies (…, frames, 12) from C, scaled to a maximum of 1 in each frame (0 in silence).

    librosa's `chroma_stft` estimates `tuning` from the sound unless it is given; here it is always given (0 = A4 at
    440 Hz), because an estimate from one second jumps between neighbours and would be compared as if it were sound.
    """
    energy = power @ chroma_bank(sample_rate, _n_fft(power), 12, tuning)
    top = energy.max(axis=-1, keepdims=True)
    return energy / _positive(top)


def rms(sounds: Float32Array, length: int = N_FFT, hop: int = HOP, centred: bool = True) -> Float32Array:
    """Return the root mean square of each frame, (…, frames)."""
    frames = frame(sounds, length, hop, centred)
    level: Float32Array = np.sqrt(np.einsum("...i,...i->...", frames, frames) / np.float32(length))
    return level


def zero_crossing_rate(sounds: Float32Array, length: int = N_FFT, hop: int = HOP) -> Float32Array:
    """Return the share of samples (…, frames) whose sign differs from the sample before it; 0 counts as positive."""
    half = length // 2
    negative = np.pad(sounds < -ZERO_CROSSING_FLOOR, [(0, 0)] * (sounds.ndim - 1) + [(half, half)], mode="edge")
    before = np.zeros(negative.shape, np.int32)  # crossings up to and including each sample
    np.cumsum(negative[..., 1:] != negative[..., :-1], axis=-1, dtype=np.int32, out=before[..., 1:])
    starts = np.arange(1 + sounds.shape[-1] // hop) * hop
    return ((before[..., starts + length - 1] - before[..., starts]) / np.float32(length)).astype(np.float32)


def centroid_hz(magnitudes: Float32Array, sample_rate: int) -> Float32Array:
    """Return the mean frequency (…, frames) in Hz, weighted by magnitude; 0 in silence."""
    frequencies = bin_frequencies(sample_rate, _n_fft(magnitudes)).astype(np.float32)
    centre: Float32Array = (magnitudes @ frequencies) / _positive(magnitudes.sum(axis=-1))
    return centre


def bandwidth_hz(magnitudes: Float32Array, sample_rate: int, centroids: Float32Array) -> Float32Array:
    """Return the standard deviation of frequency (…, frames) in Hz around `centroids`, weighted by magnitude."""
    frequencies = bin_frequencies(sample_rate, _n_fft(magnitudes)).astype(np.float32)
    squared = (frequencies - centroids[..., None]) ** 2
    variance = np.einsum("...i,...i->...", magnitudes, squared) / _positive(magnitudes.sum(axis=-1))
    spread: Float32Array = np.sqrt(variance)
    return spread


def rolloff_hz(magnitudes: Float32Array, sample_rate: int, share: float = 0.85) -> Float32Array:
    """Return the lowest bin's frequency (…, frames) in Hz below and at which `share` of the magnitudes lies."""
    bins = magnitudes.shape[-1]
    # Summed by blocks first, then bin by bin inside one block only: a running sum cannot use vector instructions.
    upto = np.cumsum(np.add.reduceat(magnitudes, np.arange(0, bins, ROLLOFF_BLOCK), axis=-1), axis=-1)
    wanted = np.float32(share) * upto[..., -1:]
    block = np.argmax(upto >= wanted, axis=-1)[..., None]
    before = np.where(block > 0, np.take_along_axis(upto, np.maximum(block - 1, 0), -1), np.float32(0.0))
    inside = np.minimum(block * ROLLOFF_BLOCK + np.arange(ROLLOFF_BLOCK), bins - 1)
    missing = before + np.cumsum(np.take_along_axis(magnitudes, inside, -1), axis=-1) < wanted
    index = np.take_along_axis(inside, np.minimum(missing.sum(axis=-1, keepdims=True), ROLLOFF_BLOCK - 1), -1)[..., 0]
    limit: Float32Array = bin_frequencies(sample_rate, _n_fft(magnitudes)).astype(np.float32)[index]
    return limit


def flatness(power: Float32Array) -> Float32Array:
    """Return geometric / arithmetic mean of the power spectrum (…, frames): 1 for white noise, near 0 for a tone."""
    floored = np.maximum(power, np.float32(POWER_FLOOR))
    return np.asarray(np.exp(np.mean(np.log(floored), axis=-1)) / np.mean(floored, axis=-1), np.float32)


def contrast_db(
    magnitudes: Float32Array,
    sample_rate: int,
    n_bands: int = 6,
    f_min: float = 200.0,
    quantile: float = 0.02,
) -> Float32Array:
    """Return peaks over valleys in dB (…, frames, n_bands + 1) of octave bands; the first lies below `f_min`.

    D.-N. Jiang et al., "Music type classification by spectral contrast feature" (ICME 2002): the mean of the largest
    `quantile` of a band's magnitudes over that of the smallest (at least one each), as ``power_to_db`` of magnitudes.

    Raises:
        ValueError: the bands reach beyond half the sample rate.
    """
    edges_hz = np.concatenate(([0.0], f_min * 2.0 ** np.arange(n_bands + 1)))
    if edges_hz[-2] >= sample_rate / 2:
        raise ValueError(f"{n_bands} octaves from {f_min} Hz do not fit below half of {sample_rate} Hz")
    frequencies = bin_frequencies(sample_rate, _n_fft(magnitudes))
    peaks, valleys = [], []
    for band, (low, high) in enumerate(pairwise(edges_hz)):
        inside = np.flatnonzero((frequencies >= low) & (frequencies <= high))
        first = int(inside[0]) - (1 if band else 0)  # the reference lends each band its lower neighbour
        last = len(frequencies) if band == n_bands else int(inside[-1]) + 1
        size = max(int(np.rint(quantile * (last - first))), 1)
        if band < n_bands:
            last -= 1  # … and takes the upper bin away again after counting it
        # Sorting all: numpy does it with vector instructions, ten times as fast as a partition at two places.
        ordered = np.sort(magnitudes[..., first:last], axis=-1)
        valleys.append(ordered[..., :size].mean(axis=-1))
        peaks.append(ordered[..., -size:].mean(axis=-1))
    return power_to_db(np.stack(peaks, axis=-1)) - power_to_db(np.stack(valleys, axis=-1))


def onset_strength(log_mel_db: Float32Array, n_fft: int = N_FFT, hop: int = HOP) -> Float32Array:
    """Return spectral flux (…, frames): the mean rise in dB over mel bands since the frame before, delayed to centre.

    S. Böck and G. Widmer, "Maximum filter vibrato suppression for onset detection" (DAFx 2013), without the filter,
    as librosa's `onset_strength` does by default. The delay of ``n_fft // (2 * hop)`` frames makes up for centring.
    """
    rise = np.asarray(np.maximum(np.float32(0.0), np.diff(log_mel_db, axis=-2)).mean(axis=-1), np.float32)
    delay = 1 + n_fft // (2 * hop)
    padded = np.pad(rise, [(0, 0)] * (rise.ndim - 1) + [(delay, 0)])
    return padded[..., : log_mel_db.shape[-2]]


def _n_fft(spectrogram: Float32Array) -> int:
    """Return the transform length that gave a spectrogram (…, frames, bins)."""
    bins: int = spectrogram.shape[-1]
    return 2 * (bins - 1)


def _positive(total: Float32Array) -> Float32Array:
    """Return divisors: `total` where it is a normal number, else 1 (as librosa's `normalize` leaves silence alone)."""
    return np.where(total < TINY, np.float32(1.0), total).astype(np.float32, copy=False)
