"""Pieces of audio files at an output rate, exact to the sample, with the real sound on both sides.

Conventions: positions in a file are frames at its own rate; what comes out is (n, channels) float32 at the output rate,
mono or stereo, zeros where the file has no more. Output frame 0 lies exactly on the file's frame that was asked for:
where rates differ, decoding begins a whole number of common periods earlier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader

SETTLE_FRAMES = 2048  # what a resampler hears before the first frame that counts
BLOCK_S = 2.0
END_FADE_S = 0.005  # a file that stops in full sound is faded out this quickly
SILENT_END = 1e-3
HALF_POWER = math.sqrt(0.5)
# Shares of (left, right) of ITU-R BS.775: front, centre, surround; the effects channel (E) is left out.
MIX_DOWN = {
    "L": (1.0, 0.0),
    "R": (0.0, 1.0),
    "C": (HALF_POWER, HALF_POWER),
    "E": (0.0, 0.0),
    "l": (HALF_POWER, 0.0),
    "r": (0.0, HALF_POWER),
}


class SpanReader:
    """A piece of a file, read from front to back.

    Args:
        path: the file.
        start: frame of the file, at its own rate, on which output frame `lead` lies.
        lead: output frames wanted before it.
        frames: output frames wanted in all.
        sample_rate: of the output, Hz.
        channels: of the output, 1 or 2.

    Raises:
        AudioError: from the constructor and from `read`, when the file cannot be decoded.
    """

    def __init__(self, path: bytes, start: int, lead: int, frames: int, sample_rate: int, channels: int) -> None:
        with AudioReader(path) as probe:
            self.native_rate = probe.facts.sample_rate
        common = math.gcd(self.native_rate, sample_rate)
        native_step, step = self.native_rate // common, sample_rate // common
        settle = 0 if self.native_rate == sample_rate else SETTLE_FRAMES
        wanted = -(-(lead + settle * sample_rate // self.native_rate) // step)  # common periods before `start`
        periods = min(wanted, start // native_step)
        self._skip = max(0, periods * step - lead)
        self._zeros = max(0, lead - periods * step)
        self._left = frames
        self._tail = max(1, round(END_FADE_S * sample_rate))
        self._channels = channels
        self._reader = AudioReader(
            path,
            sample_rate=sample_rate,
            mono=False,
            block_s=BLOCK_S,
            start_s=(start - periods * native_step) / self.native_rate,
        )
        self._blocks: Iterator[Float32Array] = self._reader.blocks()
        self._kept = np.zeros((self._zeros, channels), np.float32)
        self._ended = False

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read(self, frames: int) -> Float32Array:
        """Return the next `frames` frames, (frames, channels)."""
        self._fill(frames + self._tail)
        taken = self._kept[:frames]
        self._kept = self._kept[frames:]
        self._left -= frames
        if len(taken) < frames:
            taken = np.pad(taken, ((0, frames - len(taken)), (0, 0)))
        return taken

    def _fill(self, frames: int) -> None:
        while len(self._kept) < frames and not self._ended:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                if len(self._kept) < self._left:
                    self._kept = _faded_out(self._kept, self._tail)
                return
            fresh = with_channels(block, self._channels)[self._skip :]
            self._skip = max(0, self._skip - len(block))
            self._kept = np.concatenate((self._kept, fresh))


def read_span(
    path: bytes, start: int, lead: int, frames: int, sample_rate: int, channels: int
) -> tuple[Float32Array, int]:
    """Return `frames` output frames of a file, the one numbered `lead` lying on its frame `start`; and its own rate.

    Raises:
        AudioError: the file cannot be decoded.
    """
    reader = SpanReader(path, start, lead, frames, sample_rate, channels)
    try:
        return reader.read(frames), reader.native_rate
    finally:
        reader.close()


def with_channels(samples: Float32Array, channels: int) -> Float32Array:
    """Return (n, any) samples with 1 or 2 channels: mono doubled, surround mixed down as ITU-R BS.775 has it."""
    have = samples.shape[1]
    if have == channels:
        return samples
    if channels == 1:
        return np.asarray(samples.mean(axis=1, keepdims=True), np.float32)
    if have == 1:
        return np.repeat(samples, 2, axis=1)
    roles = "LR" + {3: "C", 4: "lr", 5: "Clr"}.get(have, "CE" + "lr" * have)[: have - 2]
    matrix = np.array([MIX_DOWN[role] for role in roles], np.float32)
    return np.asarray(samples @ matrix, np.float32)


def _faded_out(samples: Float32Array, tail: int) -> Float32Array:
    """Return samples that end in silence: where they stop in full sound, the last ones are faded."""
    if not len(samples) or np.abs(samples[-1]).max() <= SILENT_END:
        return samples
    length = min(tail, len(samples))
    fade = 0.5 + 0.5 * np.cos(np.pi * (np.arange(length) + 1) / length)
    faded = samples.copy()
    faded[-length:] *= fade[:, None].astype(np.float32)
    return faded
