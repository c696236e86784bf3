"""OpenL3's three front ends: one-second windows in, the decibel spectrograms its network was given, out.

Conventions: windows are (n, 48000) at 48 kHz; spectrograms are (n, bins, frames) float32 in [-80, 0] dB, 0 dB being the
loudest cell of that window. "Decibels" are OpenL3's own: 10 (not 20) times log10 of a magnitude.

``kapre`` is the default of the official version 0.4 (frames not centred, samples rounded to float32), ``librosa`` its
other front end (mel frames centred, float64), ``original`` the one the published weights were trained with (version
0.3 and before: HTK mel bands of the power spectrum, then the square root). Sources: openl3/models.py and core.py of
0.4.2, kapre 0.1.4 and 0.3.5, librosa 0.9.2.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array
from embedindex.mel import bin_frequencies, hz_to_mel, mel_to_hz

SAMPLE_RATE = 48000
WINDOW_SAMPLES = 48000
HOP = 242
N_FFT = {"linear": 512, "mel128": 2048, "mel256": 2048}
N_MELS = {"mel128": 128, "mel256": 256}
# openl3/models.py:31-38 (kapre_v0_1_4_magnitude_to_decibel) and librosa.power_to_db as core.py:113 calls it.
AMIN = 1e-10
DYNAMIC_RANGE_DB = 80.0

# Up to this many multiplications OpenBLAS computes a product in the calling thread (GEMM_MULTITHREAD_THRESHOLD).
SMALL_PRODUCT = 1 << 18

FrontEnd = Literal["kapre", "librosa", "original"]
FRONT_ENDS: tuple[FrontEnd, ...] = ("kapre", "librosa", "original")
INPUT_REPRS = ("linear", "mel128", "mel256")
Real: TypeAlias = npt.NDArray[Any]  # float32 or float64


@dataclass(frozen=True)
class BandGroup:
    """Neighbouring mel bands, with the few bins that they are made of.

    Attributes:
        start: number of the first band.
        stop: number behind the last band.
        bins: which bins of the transform.
        weights: (stop - start, bins).
    """

    start: int
    stop: int
    bins: slice
    weights: Real


@dataclass(frozen=True)
class Geometry:
    """How one front end cuts a window into frames and weighs its bins.

    Attributes:
        n_fft: length of a frame and of its transform.
        frames: how many frames a window has.
        pad_before: zeros in front of the window; as many as needed stand behind it.
        squared: True when the mel bands are taken from the power spectrum, and the square root from them.
        dtype: precision of the samples, and of all arithmetic after the transform.
        taper: (n_fft,) periodic Hann window.
        bands: the mel filter bank in pieces, or none for the plain bins.
    """

    n_fft: int
    frames: int
    pad_before: int
    squared: bool
    dtype: type[Any]
    taper: Real
    bands: tuple[BandGroup, ...] = ()

    @property
    def bins(self) -> int:
        """Rows of a spectrogram."""
        return self.bands[-1].stop if self.bands else self.n_fft // 2 + 1


@lru_cache(maxsize=16)
def geometry(input_repr: str, front_end: FrontEnd) -> Geometry:
    """Return the geometry of `input_repr` (one of `INPUT_REPRS`) under `front_end`."""
    n_fft = N_FFT[input_repr]
    dtype: type[Any] = np.float64 if front_end == "librosa" else np.float32
    taper = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)
    if input_repr == "linear":  # no padding in any front end; what is left of the window after the last frame is unused
        return Geometry(n_fft, 1 + (WINDOW_SAMPLES - n_fft) // HOP, 0, False, dtype, taper)
    frames = -(-WINDOW_SAMPLES // HOP)
    bands = _grouped(mel_bank(N_MELS[input_repr], htk=front_end == "original").astype(dtype), frames)
    if front_end == "librosa":  # librosa.stft(center=True, pad_mode="constant")
        return Geometry(n_fft, 1 + WINDOW_SAMPLES // HOP, n_fft // 2, False, dtype, taper, bands)
    if front_end == "kapre":  # tf.signal.stft(pad_end=True): zeros behind only
        return Geometry(n_fft, frames, 0, False, dtype, taper, bands)
    missing = (frames - 1) * HOP + n_fft - WINDOW_SAMPLES  # TensorFlow's "same" padding of a strided convolution
    return Geometry(n_fft, frames, missing // 2, True, dtype, taper, bands)


def _grouped(bank: Real, frames: int) -> tuple[BandGroup, ...]:
    """Return the filter bank as groups of bands whose products BLAS does at once, without starting threads for them.

    Most of the bank is zeros: the groups are a tenth of the arithmetic.
    """
    filled = bank > 0
    first = np.where(filled.any(axis=1), filled.argmax(axis=1), bank.shape[1])
    last = np.where(filled.any(axis=1), bank.shape[1] - filled[:, ::-1].argmax(axis=1), 0)
    groups = []
    start = 0
    while start < len(bank):
        stop = start + 1
        low, high = int(first[start]), int(last[start])
        while stop < len(bank):
            wider = min(low, int(first[stop])), max(high, int(last[stop]))
            if (stop + 1 - start) * (wider[1] - wider[0]) * frames > SMALL_PRODUCT:
                break
            low, high = wider
            stop += 1
        bins = slice(low, high) if low < high else slice(0, 1)
        groups.append(BandGroup(start, stop, bins, np.ascontiguousarray(bank[start:stop, bins])))
        start = stop
    return tuple(groups)


@lru_cache(maxsize=4)
def mel_bank(n_mels: int, *, htk: bool) -> Float32Array:
    """Return librosa's mel filter bank for 48 kHz and 2048 points, (n_mels, 1025) float32, area-normalised.

    Slaney's mel scale, or HTK's (2595 log10(1 + f / 700)).
    """
    n_fft = N_FFT["mel256"]
    top = np.array([0.0, SAMPLE_RATE / 2.0])
    if htk:
        limits = 2595.0 * np.log10(1.0 + top / 700.0)
        edges = 700.0 * (10.0 ** (np.linspace(limits[0], limits[1], n_mels + 2) / 2595.0) - 1.0)
    else:
        limits = hz_to_mel(top)
        edges = mel_to_hz(np.linspace(limits[0], limits[1], n_mels + 2))
    lower, centre, upper = (part[:, None] for part in (edges[:-2], edges[1:-1], edges[2:]))
    bins = bin_frequencies(SAMPLE_RATE, n_fft)[None]
    triangles = np.maximum(0.0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    # librosa rounds the triangles to float32 before it scales them; so do we, to have its numbers to the last bit.
    bank = np.ascontiguousarray(triangles.astype(np.float32) * (2.0 / (upper - lower)), np.float32)
    bank.setflags(write=False)
    return bank


def spectrograms(
    windows: Real, input_repr: str, front_end: FrontEnd = "kapre", *, pool: ThreadPoolExecutor | None = None
) -> Float32Array:
    """Return the spectrograms of `windows`, (n, bins, frames) float32 in dB.

    Args:
        windows: (n, 48000) samples. ``kapre`` and ``original`` round them to float32, ``librosa`` takes float64.
        input_repr: ``"linear"``, ``"mel128"`` or ``"mel256"``.
        front_end: which of the three.
        pool: where given, the windows are shared among its threads.
    """
    shape = geometry(input_repr, front_end)
    out = np.empty((len(windows), shape.bins, shape.frames), np.float32)

    def fill(number: int) -> None:
        out[number] = _spectrogram(windows[number], shape)

    if pool is None or len(windows) < 2:
        for number in range(len(windows)):
            fill(number)
    else:
        list(pool.map(fill, range(len(windows))))
    return out


def _spectrogram(window: Real, shape: Geometry) -> Real:
    """Return the spectrogram of one window, (bins, frames) in the geometry's precision."""
    needed = (shape.frames - 1) * HOP + shape.n_fft
    padded = np.zeros(max(needed, shape.pad_before + WINDOW_SAMPLES), shape.dtype)
    padded[shape.pad_before : shape.pad_before + WINDOW_SAMPLES] = window
    frames = np.lib.stride_tricks.sliding_window_view(padded, shape.n_fft)[::HOP][: shape.frames]
    # In float64 for every front end: 80 dB of magnitude reach below float32's rounding, and NumPy is faster at it.
    spectrum = np.abs(np.fft.rfft(frames * shape.taper, axis=1)).astype(shape.dtype, copy=False)
    if not shape.bands:
        return _decibels(spectrum.T)
    if shape.squared:
        np.square(spectrum, out=spectrum)
    values = np.empty((shape.bins, shape.frames), shape.dtype)
    for group in shape.bands:
        np.matmul(group.weights, spectrum[:, group.bins].T, out=values[group.start : group.stop])
    return _decibels(np.sqrt(values, out=values) if shape.squared else values)


def _decibels(values: Real) -> Real:
    """Return OpenL3's decibels: 10 log10 of at least `AMIN`, less the maximum, at least -80. Silence becomes 0 dB.

    A NaN counts as `AMIN`, which is what the official graph makes of it.
    """
    levels = 10.0 * np.log10(np.fmax(values, values.dtype.type(AMIN)))
    levels -= levels.max()
    return np.asarray(np.maximum(levels, -DYNAMIC_RANGE_DB, out=levels))
