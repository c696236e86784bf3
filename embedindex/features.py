"""The classic descriptors of files as a row of numbers, in the layout of the field's tutorials, and a richer set.

Conventions: sounds are mono at 22,050 Hz, frames of 2048 samples every 512, as librosa's defaults have it; a column is
the mean over a file's (or a window's) frames, or their standard deviation where its name ends in ``_std``. Definitions
are in `embedindex.descriptors`. Chroma assumes concert pitch, where librosa estimates the tuning of each file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedindex import descriptors
from embedindex.arrays import Float32Array, Float64Array
from embedindex.audio import AudioReader
from embedindex.errors import UsageError

SAMPLE_RATE = 22_050
MFCCS = 20
# Longer sounds are described in parts of this length, whose frames are then averaged: memory stays bounded.
PART_S = 300.0
Kind = Literal["classic", "rich"]

# The columns of data.csv in the tutorials on genre recognition with GTZAN, in their order and under their names.
_CLASSIC = (
    "chroma_stft",
    "rmse",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    *(f"mfcc{number}" for number in range(1, MFCCS + 1)),
)
_MORE = (
    "flatness",
    "onset_strength",
    *(f"contrast{number}" for number in range(1, 8)),
    *(f"chroma{number}" for number in range(1, 13)),
    *(f"mfcc{number}_delta" for number in range(1, MFCCS + 1)),
)


@dataclass(frozen=True, eq=False)
class FeatureRow:
    """One row: from where to where in the file, in seconds, and the values of `columns`."""

    start_s: float
    end_s: float
    values: Float32Array


def columns(kind: Kind) -> tuple[str, ...]:
    """Return the names of the values: 26 classic ones, or those and more with their standard deviations."""
    if kind == "classic":
        return _CLASSIC
    names = _CLASSIC + _MORE
    return names + tuple(f"{name}_std" for name in names)


def features(
    path: str | bytes, kind: Kind = "classic", *, window_s: float | None = None, duration_s: float | None = None
) -> Iterator[FeatureRow]:
    """Yield one row for a file, or one for each of its windows.

    Args:
        path: an audio file.
        kind: ``"classic"`` or ``"rich"``.
        window_s: describe each stretch of so many seconds by itself; a last one shorter than half of it is left out.
        duration_s: only the first so many seconds, as tutorials take 30.

    Raises:
        UsageError: the window is shorter than a frame.
        AudioError: the file cannot be decoded.
    """
    part_s = window_s or PART_S
    if part_s * SAMPLE_RATE < descriptors.N_FFT:
        raise UsageError(f"--window {window_s:g}: give at least {descriptors.N_FFT / SAMPLE_RATE:.2f} seconds")
    sums = squares = np.zeros(0)
    frames, start_s = 0, 0.0
    with AudioReader(path, sample_rate=SAMPLE_RATE, block_s=part_s) as reader:
        for block in reader.blocks():
            kept = block if duration_s is None else block[: max(0, round((duration_s - start_s) * SAMPLE_RATE))]
            if not len(kept):
                break
            end_s = start_s + len(kept) / SAMPLE_RATE
            tail = start_s > 0 and len(kept) < (0.5 * part_s * SAMPLE_RATE if window_s else descriptors.N_FFT)
            if not tail:
                table = _frames(kept, kind).astype(np.float64)
                if window_s is not None:
                    yield FeatureRow(start_s, end_s, _row(table.sum(0), (table**2).sum(0), len(table), kind))
                else:
                    sums, squares = _sum(sums, table.sum(0)), _sum(squares, (table**2).sum(0))
                    frames += len(table)
            start_s = end_s
    if window_s is None and frames:
        yield FeatureRow(0.0, start_s, _row(sums, squares, frames, kind))


def _sum(total: Float64Array, more: Float64Array) -> Float64Array:
    return more if not len(total) else total + more


def _row(sums: Float64Array, squares: Float64Array, frames: int, kind: Kind) -> Float32Array:
    mean = sums / frames
    if kind == "classic":
        return np.asarray(mean, np.float32)
    deviation = np.sqrt(np.maximum(squares / frames - mean**2, 0.0))
    return np.asarray(np.concatenate((mean, deviation)), np.float32)


def _frames(sound: Float32Array, kind: Kind) -> Float32Array:
    """Return the descriptors of each frame, (frames, columns without the deviations)."""
    magnitudes = descriptors.magnitude(sound)
    power = magnitudes**2
    mel_db = descriptors.power_to_db(descriptors.mel_spectrogram(power, SAMPLE_RATE))
    chroma = descriptors.chroma(power, SAMPLE_RATE)
    centroids = descriptors.centroid_hz(magnitudes, SAMPLE_RATE)
    mfccs = descriptors.mfcc(mel_db, MFCCS)
    parts = [
        chroma.mean(axis=-1),
        descriptors.rms(sound),
        centroids,
        descriptors.bandwidth_hz(magnitudes, SAMPLE_RATE, centroids),
        descriptors.rolloff_hz(magnitudes, SAMPLE_RATE),
        descriptors.zero_crossing_rate(sound),
        *mfccs.T,
    ]
    if kind == "rich":
        width = min(9, len(mfccs) - 1 + len(mfccs) % 2)
        slopes = descriptors.delta(mfccs, width) if width >= 3 else np.zeros_like(mfccs)
        parts += [
            descriptors.flatness(power),
            descriptors.onset_strength(mel_db),
            *descriptors.contrast_db(magnitudes, SAMPLE_RATE).T,
            *chroma.T,
            *slopes.T,
        ]
    return np.asarray(np.stack(parts, axis=1), np.float32)
