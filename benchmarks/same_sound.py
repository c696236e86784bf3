"""Is it the very same sound, but for its level? Told from samples alone, for benchmarks to count hits by.

Libraries hold one recording under several names (softer layers of a drum that are the harder one turned down), and
music holds the same samples several times over. A search that gives another of them than was meant is not wrong to
anyone's ear, and nothing in the sound tells them apart. Nothing of embedindex but its decoders is used here.

Conventions: samples are (n, channels) float32 at the rate of the file, of two files at the lower of both; times are
seconds. A correlation is that of the waveforms, normalised, without sign, at the best lag to a sixteenth of a sample:
1 when one is the other times a number, `SAME` when a five-hundredth of the energy (-27 dB) is something else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.audio import AudioReader, probe

SAME = 0.999
# A place is the same when the very samples are no farther from it than this, as the right place may be.
WITHIN_S = 1.0
FRACTION = 16
# Lags to either side of the best one from which those between samples are made.
AROUND = 64
_OFFSETS = np.arange(-AROUND, AROUND + 1)
_DISTANCES = np.arange(-FRACTION, FRACTION + 1)[:, None] / FRACTION - _OFFSETS
_KERNEL = np.sinc(_DISTANCES) * np.cos(np.pi * _DISTANCES / (2 * AROUND + 4)) ** 2  # Hann's window


def same_recording(first: bytes, second: bytes) -> float:
    """Return the correlation of two whole files; what one has beyond the other counts against it."""
    rate = min(probe(first).sample_rate, probe(second).sample_rate)
    ours, theirs = _alike_channels(read(first, rate), read(second, rate))
    padded = np.pad(theirs, ((len(ours), len(ours)), (0, 0)))
    products, energy = _products(ours, padded)
    return _greatest(products, np.full(len(products), np.sqrt(energy * _energy(theirs))))


def holds(path: bytes, start_s: float, of: bytes, from_s: float, length_s: float) -> float:
    """Return the correlation of a part of a file with what another (or the same) file has around a place.

    Args:
        path: the file that may hold it.
        start_s: where it is said to.
        of: the file that the part is of.
        from_s: where the part begins there.
        length_s: how long it is.
    """
    rate = min(probe(path).sample_rate, probe(of).sample_rate)
    first_s = max(0.0, start_s - WITHIN_S)
    own = read(of, rate, from_s, length_s)
    own, there = _alike_channels(own, read(path, rate, first_s, start_s - first_s + length_s + WITHIN_S))
    if len(there) < len(own):
        return 0.0
    products, energy = _products(own, there)
    sums = np.concatenate(([0.0], np.cumsum(np.square(there, dtype=np.float64).sum(axis=1))))
    local = sums[len(own) :] - sums[: len(sums) - len(own)]
    # Next to nothing agrees by chance with next to nothing.
    return _greatest(products, np.sqrt(energy * np.maximum(local, 1e-3 * max(float(local.max()), 1e-12))))


def read(path: bytes, rate: int, start_s: float = 0.0, length_s: float | None = None) -> Float32Array:
    """Return (n, channels) of a file, or of a part of it, at a rate."""
    left = None if length_s is None else round(length_s * rate)
    parts: list[Float32Array] = []
    with AudioReader(path, sample_rate=rate, mono=False, start_s=start_s) as reader:
        for block in _up_to(reader.blocks(), left):
            parts.append(block.reshape(len(block), -1))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _up_to(blocks: Iterator[Float32Array], left: int | None) -> Iterator[Float32Array]:
    for block in blocks:
        wanted = block if left is None else block[:left]
        yield wanted
        if left is not None:
            left -= len(wanted)
            if not left:
                return


def _alike_channels(first: Float32Array, second: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return two sounds as they are, or mixed down when one has more channels than the other."""
    if first.shape[1] == second.shape[1]:
        return first, second
    return first.mean(axis=1, keepdims=True), second.mean(axis=1, keepdims=True)


def _products(own: Float32Array, other: Float32Array) -> tuple[Float64Array, float]:
    """Return ((m - n + 1,) inner products of a sound with a longer one at each place there; the sound's energy)."""
    size = 1 << (len(own) + len(other)).bit_length()
    spectra = (np.fft.rfft(samples, size, axis=0) for samples in (own, other))
    cross = np.conj(next(spectra)) * next(spectra)
    products = np.fft.irfft(cross.sum(axis=1), size)[: len(other) - len(own) + 1]
    return np.asarray(products, np.float64), _energy(own)


def _energy(samples: Float32Array) -> float:
    return float(np.square(samples, dtype=np.float64).sum())


def _greatest(products: Float64Array, norms: Float64Array) -> float:
    """Return the greatest correlation, also between samples: products of band-limited sounds are band-limited."""
    likeness = np.abs(products) / np.maximum(norms, 1e-12)
    best = int(likeness.argmax())
    around = np.pad(products, AROUND)[best : best + 2 * AROUND + 1]
    between = np.abs(_KERNEL @ around) / max(float(norms[best]), 1e-12)
    return min(1.0, float(between.max()))
