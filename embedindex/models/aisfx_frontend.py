"""aisfx's front end: samples → log-mel spectrograms, as its paper's Essentia recipe computes them.

Conventions: windows are (n, WINDOW_SAMPLES) float32 at 44.1 kHz; spectrograms are (n, MEL_BINS, EMB_BLOCK_LENGTH)
float32, rows = bands. Constants carry the names they have in aisfx/inference.py and aisfx/preprocessing.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from embedindex.arrays import Float32Array, Float64Array, Int64Array
from embedindex.models.aisfx_checkpoint import EMB_BLOCK_LENGTH, MEL_BINS

SAMPLE_RATE = 44_100
SPEC_BLOCK_LENGTH = 2048
SPEC_HOP_LENGTH = 1024
F_MIN_HZ = 0.0
F_MAX_HZ = 22_050.0
# The largest value of log10(10000 x + 1) over the paper's data sets, by which spectrograms are divided.
NORM_MAX = 9.457798957824707
LOG_SCALE = 10_000.0

# Frames that lie inside the window: nothing is padded, so a window's vector does not depend on where a file was cut.
# Blocks of 100 frames of a whole file, as the paper cuts them, are such windows.
WINDOW_SAMPLES = (EMB_BLOCK_LENGTH - 1) * SPEC_HOP_LENGTH + SPEC_BLOCK_LENGTH


def spectrograms(windows: Float32Array) -> Float32Array:
    """Return the spectrograms (n, 96, 100) float32 of windows (n, 103,424) float32."""
    frames = np.lib.stride_tricks.sliding_window_view(windows, SPEC_BLOCK_LENGTH, axis=1)[:, ::SPEC_HOP_LENGTH]
    made = np.empty((len(windows), MEL_BINS, EMB_BLOCK_LENGTH), np.float32)
    for number, window_frames in enumerate(frames):  # one window at a time stays in the processor's cache
        spectrum = np.fft.rfft(window_frames * _hann())
        power = np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)
        made[number] = (np.log10(LOG_SCALE * mel_bands(power) + 1.0) / NORM_MAX).T
    return made


def mel_bands(power: Float32Array) -> Float32Array:
    """Return the bands (frames, 96) float32 of power spectra (frames, 1025): triangles linear in mel, each of sum 1.

    Essentia's MelBands with ``warpingFormula=htkMel``, ``weighting=warping``, ``normalize=unit_sum``. A bin lies on the
    rising side of one triangle and the falling side of the one before, so two sums over the bins between two corners
    make all bands: a tenth of the work of a matrix product, and no thread is woken for it.
    """
    corners = _corners()
    rising = np.add.reduceat(power * corners.rising, corners.starts, axis=1)
    falling = np.add.reduceat(power * corners.falling, corners.starts, axis=1)
    return np.asarray((rising[:, :-1] + falling[:, 1:]) / corners.sums, np.float32)


@dataclass(frozen=True)
class _Corners:
    """The triangles' corners.

    Attributes:
        starts: first bin of each of the 97 stretches between two corners.
        rising: (1025,) weight of each bin on the triangle that rises there.
        falling: (1025,) weight of each bin on the triangle that falls there.
        sums: (96,) sum of each triangle's weights.
    """

    starts: Int64Array
    rising: Float32Array
    falling: Float32Array
    sums: Float32Array


@lru_cache(maxsize=1)
def _corners() -> _Corners:
    limits = _htk_mel(np.array([F_MIN_HZ, F_MAX_HZ]))
    edges = np.linspace(limits[0], limits[1], MEL_BINS + 2)
    bins = _htk_mel(np.arange(SPEC_BLOCK_LENGTH // 2 + 1, dtype=np.float64) * (SAMPLE_RATE / SPEC_BLOCK_LENGTH))
    # Corners are 26 Hz apart or more and bins 21.5 Hz, so no stretch is empty. The last bin ends the last stretch.
    starts = np.searchsorted(bins, edges[:-1])
    stretch = np.searchsorted(starts, np.arange(len(bins)), side="right") - 1
    rising = (bins - edges[stretch]) / (edges[stretch + 1] - edges[stretch])
    falling = 1.0 - rising
    sums = np.add.reduceat(rising, starts)[:-1] + np.add.reduceat(falling, starts)[1:]
    return _Corners(starts.astype(np.int64), _frozen(rising), _frozen(falling), _frozen(sums))


@lru_cache(maxsize=1)
def _hann() -> Float32Array:
    """Return Essentia's Hann window, symmetric, not normalised: (2048,) float32."""
    return _frozen(np.hanning(SPEC_BLOCK_LENGTH))


def _htk_mel(frequency_hz: Float64Array) -> Float64Array:
    """Return frequencies on the mel scale of the HTK book (equation 5.13)."""
    return np.asarray(2595.0 * np.log10(1.0 + frequency_hz / 700.0), np.float64)


def _frozen(values: Float64Array) -> Float32Array:
    """Return `values` as float32 that nobody can change, because every caller shares it."""
    narrow = np.ascontiguousarray(values, np.float32)
    narrow.setflags(write=False)
    return narrow
