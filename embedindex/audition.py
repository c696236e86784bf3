"""Places in sound files → one WAV file to listen to: one after the other, faded and equally loud.

Conventions: samples are (n, 2) float32 at the rate of the new file, full scale ±1; times are seconds. Memory holds one
place at a time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import AudioError, QueryError, UsageError, display_path
from embedindex.query import Part, part_blocks
from embedindex.sound_writing import sound_to
from embedindex.whole_files import require_absent, whole_file

SAMPLE_RATES = (44_100, 48_000)
BITS = (16, 24)
MAX_LENGTH_S = 60.0
FADE_IN_S = 0.005
FADE_OUT_S = 0.05
GAP_S = 0.3
# The loudest stretch of so many seconds of each place gets this level, as long as no peak goes beyond the other.
LEVEL_OVER_S = 0.4
LEVEL_DB = -20.0
PEAK_DB = -1.0


@dataclass(frozen=True)
class Place:
    """A stretch of a sound file, seconds."""

    path: bytes
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Format:
    """What the new file is like: Hz and bits a sample."""

    sample_rate: int = 44_100
    bits: int = 16

    def __post_init__(self) -> None:
        if self.sample_rate not in SAMPLE_RATES or self.bits not in BITS:
            raise UsageError(
                f"an audition of {self.bits} bits at {self.sample_rate} Hz: choose 16 or 24 bits, 44100 or 48000 Hz"
            )


def place_of(path: bytes, start_s: float, length_s: float, duration_s: float | None) -> Place:
    """Return a stretch of at most `length_s` that holds a place; near the end of a file it begins earlier."""
    if duration_s is not None:
        start_s = max(0.0, min(start_s, duration_s - length_s))
    return Place(path, start_s, start_s + length_s)


def require_new(target: str) -> None:
    """Check that a file can be made.

    Raises:
        UsageError: something is there already, or the name says that it is no WAV file.
    """
    if os.path.splitext(target)[1].lower() != ".wav":
        raise UsageError(f"{display_path(target)}: a WAV file is written; choose a name that ends in .wav")
    require_absent(target)


def write_audition(target: str, places: Sequence[Place], format_: Format = Format()) -> list[str]:
    """Write a WAV file of some places of sound files, in their order; return what had to be left out, and why.

    Raises:
        UsageError: the file is there already, or cannot be made.
        DiskFullError: no space is left.
        QueryError: none of the places could be read.
    """
    require_new(target)
    rate = format_.sample_rate
    left_out: list[str] = []
    with whole_file(target, replace=False) as temporary:
        with sound_to(temporary, rate, 2, "WAV", f"PCM_{format_.bits}") as file:
            for place in places:
                try:
                    samples = _stereo(place, rate)
                except (AudioError, QueryError) as error:
                    left_out.append(str(error))
                    continue
                if file.tell():
                    file.write(np.zeros((round(GAP_S * rate), 2), np.float32))
                file.write(faded(levelled(samples, rate), rate))
            written = file.tell()
        if not written:
            raise QueryError(f"{display_path(target)}: nothing to write: {'; '.join(left_out) or 'there is no sound'}")
    return left_out


def _stereo(place: Place, rate: int) -> Float32Array:
    """Return (n, 2): a mono sound on both sides, the mean of more than two channels on both."""
    samples = np.concatenate(list(part_blocks(place.path, rate, Part(place.start_s, place.end_s), mono=False)))
    if samples.shape[1] != 2:
        samples = np.repeat(samples.mean(axis=1, keepdims=True), 2, axis=1)
    return samples


def levelled(samples: Float32Array, rate: int) -> Float32Array:
    """Return `samples` (n, 2) as loud as all others: see `LEVEL_DB`. Silence stays silence."""
    power = np.square(samples, dtype=np.float64).mean(axis=1)
    over = min(len(power), round(LEVEL_OVER_S * rate))
    sums = np.cumsum(np.concatenate([[0.0], power]))
    loudest = float(np.sqrt(max(0.0, float((sums[over:] - sums[:-over]).max())) / over))
    peak = float(np.abs(samples).max())
    if loudest <= 0 or peak <= 0:
        return samples
    gain = min(10 ** (LEVEL_DB / 20) / loudest, 10 ** (PEAK_DB / 20) / peak)
    return np.asarray(samples * gain, np.float32)


def faded(samples: Float32Array, rate: int) -> Float32Array:
    """Return `samples` (n, 2) with a short fade at both ends."""
    rising, falling = (min(len(samples) // 2, round(length_s * rate)) for length_s in (FADE_IN_S, FADE_OUT_S))
    curve = np.ones((len(samples), 1), np.float32)
    curve[:rising, 0] = np.arange(rising) / max(1, rising)
    curve[len(samples) - falling :, 0] = np.arange(falling)[::-1] / max(1, falling)
    return np.asarray(samples * curve, np.float32)
