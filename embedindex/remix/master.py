"""Sound → a finished file: offset removed, brought to a loudness, kept below a true-peak ceiling, written whole or not.

Conventions: blocks are (n, channels) float32. The sound goes to a temporary file beside the output first, because its
loudness is known only at its end; memory does not grow with its length.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import UsageError, display_path
from embedindex.remix.loudness import (
    OVERSAMPLING_TAPS,
    SILENT_LUFS,
    LoudnessMeter,
    peak_envelope,
    to_dbtp,
)
from embedindex.remix.recipe import Output
from embedindex.remix.tracks import Stages, stages_untold
from embedindex.sound_writing import sound_to
from embedindex.whole_files import whole_file

BLOCK_FRAMES = 1 << 16
SMOOTH_S = 0.02  # a limiter's gain takes so long to come down and to go up
OFFSET = 1e-3  # -60 dBFS
OFFSET_LEFT = 0.9 * OFFSET  # and no more may be left in the finished file
MARGIN_DB = 0.02
PASSES = 7
SHORT_LU = 0.25  # so much loudness may be missing after the limiter; else it is made up for …
MAKE_UP_DB = 8.0  # … by at most so much
RF64_FROM_BYTES = 4_000_000_000
FORMATS = {".wav": "WAV", ".flac": "FLAC"}


@dataclass(frozen=True)
class Written:
    """What a finished file measures.

    Attributes:
        lufs: integrated loudness.
        true_peak_db: dBTP, 4 times oversampled.
        gain_db: what the whole was raised by.
        limited_db: the most that the limiter took off, 0 when it had nothing to do.
        offset: what was subtracted from each channel first, because it was no sound, or because the limiter made it.
        mean: what is left of it in each channel.
    """

    lufs: float
    true_peak_db: float
    gain_db: float
    limited_db: float
    offset: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()


def check_target(path: str, bits: str) -> None:
    """Make sure that a file can be written there, before anything is computed for it.

    Raises:
        UsageError: the suffix or number of bits is none we write, or the folder is not there.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise UsageError(f"{display_path(path)}: choose a name that ends in .wav or .flac")
    if bits not in ("24", "float") or (bits == "float" and suffix == ".flac"):
        raise UsageError(f"--bits {bits}: choose 24, or float (32 bits, WAV only)")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"{display_path(folder)}: there is no such folder; make it first")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{display_path(folder)}: cannot be written to; choose another place with -o")


def write_master(
    path: str, blocks: Iterator[Float32Array], output: Output, bits: str = "24", told: Stages = stages_untold
) -> Written:
    """Write a sound to `path`, which appears only when it is whole.

    Args:
        path: a name that ends in .wav or .flac.
        blocks: the sound, ``output.frames`` frames in all.
        output: rate, channels, loudness and ceiling.
        bits: ``"24"`` or ``"float"``.
        told: called with what is being done, and how many seconds of sound are done.

    Raises:
        UsageError: see `check_target`.
        DiskFullError: no space is left for it.
    """
    check_target(path, bits)
    kind = FORMATS[os.path.splitext(path)[1].lower()]
    folder = os.path.dirname(os.path.abspath(path))
    with (
        whole_file(path, "choose another place with -o") as temporary,
        tempfile.TemporaryFile(dir=folder, prefix=".embedindex-") as raw,
    ):
        lufs, offset = _spool(raw, blocks, output, told)
        gain_db = 0.0
        if output.lufs is not None and min(lufs, output.lufs) > SILENT_LUFS:
            gain_db = output.lufs - lufs
        return _fitted(temporary, kind, raw, output, bits, offset, gain_db, told)


def _fitted(
    partial: str,
    kind: str,
    raw: IO[bytes],
    output: Output,
    bits: str,
    offset: Float64Array,
    gain_db: float,
    told: Stages,
) -> Written:
    """Write, and write again where the limiter took too much loudness away, let a peak through or made an offset.

    It makes one of sounds whose peaks are higher on one side.
    """
    ceiling_db = output.true_peak_db - MARGIN_DB
    most_db = gain_db + MAKE_UP_DB
    written = _write(partial, kind, raw, output, bits, offset, gain_db, ceiling_db, told)
    for attempt in range(PASSES):
        excess_db = written.true_peak_db - output.true_peak_db
        short_lu = output.lufs - written.lufs if output.lufs is not None and written.limited_db > 0 else 0.0
        louder = short_lu > SHORT_LU and gain_db < most_db and attempt < PASSES - 2
        leans = max(map(abs, written.mean)) > OFFSET_LEFT and attempt < PASSES - 2
        if excess_db <= 0 and not louder and not leans:
            break
        if leans:
            offset = offset + np.array(written.mean) / 10.0 ** (gain_db / 20.0)
        if excess_db > 0:
            ceiling_db -= excess_db + MARGIN_DB
        if louder:
            gain_db = min(most_db, gain_db + 1.3 * short_lu)
        written = _write(partial, kind, raw, output, bits, offset, gain_db, ceiling_db, told)
    return written


def _spool(raw: IO[bytes], blocks: Iterator[Float32Array], output: Output, told: Stages) -> tuple[float, Float64Array]:
    """Write the samples as they come; return their loudness and the mean of each channel where it is worth removing."""
    meter = LoudnessMeter(output.sample_rate, output.channels)
    total: Float64Array = np.zeros(output.channels)
    frames = 0
    for block in blocks:
        meter.add(block)
        total += block.sum(axis=0, dtype=np.float64)
        frames += len(block)
        raw.write(np.ascontiguousarray(block, np.float32).tobytes())
        told("Rendering, seconds of sound", frames // output.sample_rate, output.frames // output.sample_rate)
    if frames != output.frames:
        raise AssertionError(f"{frames} frames were rendered where {output.frames} were due")
    mean = total / max(1, frames)
    return meter.integrated(), np.where(np.abs(mean) > OFFSET / 4, mean, 0.0)


def _write(
    partial: str,
    kind: str,
    raw: IO[bytes],
    output: Output,
    bits: str,
    offset: Float64Array,
    gain_db: float,
    ceiling_db: float,
    told: Stages,
) -> Written:
    width = 3 if bits == "24" else 4
    if kind == "WAV" and output.frames * output.channels * width > RF64_FROM_BYTES:
        kind = "RF64"
    meter = LoudnessMeter(output.sample_rate, output.channels)
    limited, peak, position = 1.0, 0.0, 0
    edge = np.zeros((0, output.channels), np.float32)
    total: Float64Array = np.zeros(output.channels)
    subtype = "PCM_24" if bits == "24" else "FLOAT"
    with sound_to(partial, output.sample_rate, output.channels, kind, subtype, _forget_time) as sound:
        for block, least in _limited(raw, output, offset, 10.0 ** (gain_db / 20.0), 10.0 ** (ceiling_db / 20.0)):
            kept = _quantised(block) if bits == "24" else block
            meter.add(kept)
            position += len(kept)
            total += kept.sum(axis=0, dtype=np.float64)
            # Peaks between samples need both neighbours: those at the end of a block are left to the next one.
            together = np.concatenate((edge, kept))
            last = len(together) - (0 if position == output.frames else OVERSAMPLING_TAPS)
            first = max(0, len(edge) - OVERSAMPLING_TAPS)
            peak = max(peak, float(peak_envelope(together)[first:last].max(initial=0.0)))
            edge = together[-2 * OVERSAMPLING_TAPS :]
            limited = min(limited, least)
            sound.write(kept)
            told("Writing, seconds of sound", position // output.sample_rate, output.frames // output.sample_rate)
    return Written(
        meter.integrated(),
        to_dbtp(peak),
        gain_db,
        -20.0 * float(np.log10(limited)),
        tuple(offset.tolist()),
        tuple((total / max(1, position)).tolist()),
    )


def _quantised(block: Float32Array) -> Float32Array:
    """Return samples as 24 bits hold them; libsndfile then stores exactly these."""
    steps = np.clip(np.round(block.astype(np.float64) * 2**23), -(2**23), 2**23 - 1)
    return np.asarray(steps / 2**23, np.float32)


def _forget_time(file: IO[bytes]) -> None:
    """Zero the time of writing that libsndfile puts into the PEAK chunk of float WAVs: equal sounds are equal files."""
    file.seek(0)
    head = file.read(512)
    place = head.find(b"PEAK")
    if place >= 0:
        file.seek(place + 12)
        file.write(bytes(4))


def _limited(
    raw: IO[bytes], output: Output, offset: Float64Array, gain: float, ceiling: float
) -> Iterator[tuple[Float32Array, float]]:
    """Yield blocks of the spooled sound, raised and limited, and the least gain of the limiter in each."""
    half = round(SMOOTH_S * output.sample_rate)
    margin = 2 * half + OVERSAMPLING_TAPS
    shape = np.hanning(2 * half + 3)[1:-1]
    shape /= shape.sum()
    for start in range(0, output.frames, BLOCK_FRAMES):
        end = min(output.frames, start + BLOCK_FRAMES)
        first, last = max(0, start - margin), min(output.frames, end + margin)
        samples = (_read(raw, output, first, last) - offset) * gain
        peaks = peak_envelope(samples)
        inside = samples[start - first : end - first]
        if peaks.max(initial=0.0) <= ceiling:
            yield inside.astype(np.float32), 1.0
            continue
        wanted = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-12))
        least = np.pad(smallest_nearby(wanted, half), half, mode="edge")
        curve = _convolved(least, shape)[start - first : end - first]
        curve = np.minimum(curve, 1.0)
        yield (inside * curve[:, None]).astype(np.float32), float(curve.min())


def _convolved(values: Float64Array, kernel: Float64Array) -> Float64Array:
    points = 1 << (len(values) + len(kernel)).bit_length()
    both = np.fft.irfft(np.fft.rfft(values, points) * np.fft.rfft(kernel, points), points)
    return both[len(kernel) - 1 : len(values)]


def smallest_nearby(values: Float64Array, half: int) -> Float64Array:
    """Return the smallest value within `half` places of each, by doubling: n log(half) steps."""
    width = 2 * half + 1
    padded = np.pad(values, half, mode="edge")
    reach = 1
    while 2 * reach <= width:
        padded = np.minimum(padded[:-reach], padded[reach:])
        reach *= 2
    left = width - reach
    return np.minimum(padded[: len(padded) - left], padded[left:]) if left else padded


def _read(raw: IO[bytes], output: Output, first: int, last: int) -> Float64Array:
    size = 4 * output.channels
    raw.seek(first * size)
    data = raw.read((last - first) * size)
    return np.frombuffer(data, np.float32).reshape(-1, output.channels).astype(np.float64)
