"""A sound → its harmonic part and its percussive part, which add up to it. Streams; memory does not grow with it.

Tones are lines along time in a spectrogram, hits are lines along frequency: a median along one keeps the one and drops
the other. D. Fitzgerald, "Harmonic/percussive separation using median filtering" (DAFx 2010), with his soft masks
(equation 6, p = 2); frames and medians have his lengths, in seconds and in Hz, at every rate.

Conventions: blocks are (n, channels) float32. All channels of a sound share one mask, so that its image stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.errors import DiskFullError, display_path
from embedindex.remix.recipe import Recipe
from embedindex.remix.tracks import Told, untold
from embedindex.sound_writing import sound_to
from embedindex.whole_files import unwritable

FRAME_S = 4096 / 44100
HOPS = 4  # a frame
MEDIAN = 17  # frames, and bins
REACH = MEDIAN // 2
BATCH = 64  # frames whose medians are taken at a time
BLOCK_S = 2.0
SPARE_BYTES = 64 * 2**20

Complex64Array = NDArray[np.complex64]


class Separator:
    """Separates a sound that comes in blocks; what it gives back comes later by a fraction of a second.

    Args:
        sample_rate: Hz.
        channels: how many.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._n_fft = 1 << max(5, round(np.log2(FRAME_S * sample_rate)))
        self._hop = self._n_fft // HOPS
        phase = np.arange(self._n_fft) / self._n_fft
        self._window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * phase)).astype(np.float32)
        self._samples = np.zeros((self._n_fft - self._hop, channels), np.float32)  # what the next frame begins with
        self._spectra = np.zeros((REACH, channels, self._n_fft // 2 + 1), np.complex64)  # neighbours still to come
        self._sum = np.zeros((self._n_fft, channels), np.float32)
        self._early = self._n_fft - self._hop  # samples to come out that lie before the sound
        self._own = np.zeros((0, channels), np.float32)

    def push(self, block: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Take the next samples; return (harmonic, percussive) (n, channels) of the next ones that are ready."""
        self._own = np.concatenate((self._own, block))
        harmonic = self._harmonic(block)[: len(self._own)]
        own, self._own = self._own[: len(harmonic)], self._own[len(harmonic) :]
        return harmonic, own - harmonic

    def finish(self) -> tuple[Float32Array, Float32Array]:
        """Return what is left of both parts."""
        left = len(self._own)
        rest = np.zeros((left + self._n_fft + (REACH + 1) * self._hop, self._own.shape[1]), np.float32)
        harmonic = self._harmonic(rest)[:left]
        return harmonic, self._own - harmonic

    def _harmonic(self, block: Float32Array) -> Float32Array:
        samples = np.concatenate((self._samples, block))
        count = max(0, 1 + (len(samples) - self._n_fft) // self._hop)
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(samples, self._n_fft, axis=0)[:: self._hop][:count]
            fresh = np.fft.rfft(frames * self._window).astype(np.complex64)
            self._spectra = np.concatenate((self._spectra, fresh))
        self._samples = samples[count * self._hop :]
        parts = [np.zeros((0, samples.shape[1]), np.float32)]
        while len(self._spectra) > 2 * REACH:
            batch = self._spectra[: BATCH + 2 * REACH]
            ready = len(batch) - 2 * REACH
            masked = batch[REACH : REACH + ready] * harmonic_mask(batch)[:, None]
            parts.append(self._overlapped(masked.astype(np.complex64)))
            self._spectra = self._spectra[ready:]
        made = np.concatenate(parts)
        early = min(self._early, len(made))
        self._early -= early
        return made[early:]

    def _overlapped(self, spectra: Complex64Array) -> Float32Array:
        frames = np.fft.irfft(spectra, self._n_fft).astype(np.float32) * (self._window * np.float32(2 / HOPS))
        count, hop = len(frames), self._hop
        total = np.pad(self._sum, ((0, count * hop), (0, 0)))
        for number, frame in enumerate(frames):
            total[number * hop : number * hop + self._n_fft] += frame.T
        self._sum = total[count * hop :]
        return total[: count * hop]


def harmonic_mask(spectra: Complex64Array) -> Float32Array:
    """Return the share of the harmonic part, (n - 2 REACH, bins), in all but the outer `REACH` of n frames.

    Args:
        spectra: (n, channels, bins).
    """
    magnitude = np.abs(spectra).mean(axis=1)
    views = np.lib.stride_tricks.sliding_window_view
    along_time = _middle(views(magnitude, MEDIAN, axis=0))
    inner = np.pad(magnitude[REACH : len(magnitude) - REACH], ((0, 0), (REACH, REACH)), mode="reflect")
    along_frequency = _middle(views(inner, MEDIAN, axis=1))
    harmonic, percussive = np.square(along_time), np.square(along_frequency)
    return np.asarray(harmonic / np.maximum(harmonic + percussive, np.float32(1e-30)), np.float32)


def _middle(windows: Float32Array) -> Float32Array:
    return np.asarray(np.partition(windows, REACH, axis=-1)[..., REACH], np.float32)


def separated(blocks: Iterable[Float32Array], sample_rate: int) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield (harmonic, percussive) of a sound that comes in blocks, each (n, channels); their sum is the sound."""
    separator: Separator | None = None
    for block in blocks:
        separator = separator or Separator(sample_rate, block.shape[1])
        yield separator.push(block)
    if separator is not None:
        yield separator.finish()


def write_parts(path: bytes, folder: str, told: Told = untold) -> tuple[bytes, bytes]:
    """Write the harmonic and the percussive part of a file into a folder; return their paths.

    Args:
        path: the file.
        folder: where to: 8 bytes a sample are needed.
        told: called with (seconds done, seconds in all).

    Raises:
        AudioError: it cannot be read.
        DiskFullError: there is no room.
    """
    paths = [os.path.join(folder, f"{name}.w64") for name in ("harmonic", "percussive")]
    with AudioReader(path, mono=False, block_s=BLOCK_S) as reader:
        facts = reader.facts
        needed = round(8 * (facts.duration_s or 0.0) * facts.sample_rate * facts.channels) + SPARE_BYTES
        if shutil.disk_usage(folder).free < needed:
            raise DiskFullError(
                f"{display_path(path)}: its two parts need {needed / 1e6:,.0f} MB in {display_path(folder)}; free some "
                "space there, or name another folder in TMPDIR"
            )
        try:
            with contextlib.ExitStack() as stack:
                files = [
                    stack.enter_context(sound_to(name, facts.sample_rate, facts.channels, "W64", "FLOAT"))
                    for name in paths
                ]
                for parts in separated(reader.blocks(), facts.sample_rate):
                    for file, part in zip(files, parts, strict=True):
                        file.write(part)
                    total_s = facts.duration_s or 0.0
                    told(round(min(total_s, reader.native_frames / facts.sample_rate)), round(total_s))
        except OSError as problem:
            raise unwritable(folder, problem, "name another folder in TMPDIR") from problem
    return os.fsencode(paths[0]), os.fsencode(paths[1])


@contextlib.contextmanager
def parts_at_hand(recipe: Recipe) -> Iterator[Recipe]:
    """Give a recipe with the parts of its seed at hand, where units are merged with them.

    Raises:
        AudioError: the seed cannot be read.
        DiskFullError: there is no room for the parts.
    """
    if not (recipe.output.split and recipe.morphed):
        yield recipe
        return
    with tempfile.TemporaryDirectory(prefix="embedindex-") as folder:
        yield replace(recipe, parts=write_parts(recipe.seed.path, folder))
