"""Is it the very sound, and where exactly in the file? Told by waveforms, where windows leave it open.

Music repeats itself, and vectors of a second or two hardly differ between two rounds of a pattern; the waveform does,
as soon as anything else sounds along. So the places of the best results that fit nearly best are listened to. A file
that holds the sound itself comes first, and its place is exact; where the sound is in none of them (they are only
alike, or it was played at another speed) all stays what it was.

Conventions: samples are (n,) float32 mono; times are seconds in the file; rows are those of a search, the best first.
Measured in docs/decisions/queries.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.correlation import listening_rate
from embedindex.errors import AudioError, QueryError
from embedindex.matching import Phase, Place, places
from embedindex.narrow import NarrowSpace
from embedindex.query import Part, Query, part_blocks
from embedindex.remote_paths import is_remote
from embedindex.space import Space
from embedindex.store import Store
from embedindex.whole import Row

# Results, and places, that score less than the best by more than this are not listened to, nor more of them than these.
# Descriptors alone tell more sounds apart than a network, and noise from its absence, too.
MARGIN = 0.05
MARGIN_OF_DESCRIPTORS = 0.15
MOST_FILES = 5
MOST_PLACES = 24
# When nothing was as much as related to the sound so far, it is in none of them.
RELATED = 0.3
ENOUGH_PLACES = 10
# Sounds longer than this lie where most of their windows say: so many do not fit two places by chance.
LONGEST_S = 30.0
# Places are right to a fraction of a hop; so much around them is listened to, in hops.
AROUND_HOPS = 0.5
# Waveforms that correlate less than this are not the same sound; from SURELY on no other is looked for.
LEAST_CORRELATION = 0.5
SURELY = 0.995
# Correlations within one part in a hundred are equal: what a tone's are a wave later.
EQUAL = 0.99
# Waveforms hardly ever lie sample upon sample: correlations in eighths of a sample are those of samples near by, with
# the weights of band-limited interpolation (a sinc in Hann's window).
_NEAR = 16
_DISTANCES = np.arange(-8, 9)[:, None] / 8 - np.arange(-_NEAR, _NEAR + 1)
_BETWEEN = np.sinc(_DISTANCES) * np.cos(np.pi * _DISTANCES / (2 * _NEAR + 4)) ** 2


@dataclass(frozen=True)
class Recognised:
    """The very sound: how well its waveform correlates with the file's, 0 to 1, and where it begins there."""

    correlation: float
    start_s: float


def recognised_first(
    store: Store, query: Query, phases: list[Phase], space: Space | NarrowSpace, usual_hop_s: float, rows: list[Row]
) -> list[Row]:
    """Return results with the file that holds the sound itself, where one does, in front and with its exact place.

    Args:
        store: the index.
        query: the sound; nothing is changed for one that is long, or cannot be read now.
        phases: its windows.
        space: what they are compared in.
        usual_hop_s: the index's.
        rows: the best results.
    """
    length_s, path = query.length_s, query.file or query.path
    if length_s is None or length_s > LONGEST_S or query.sources or is_remote(path):
        return rows
    heard: dict[int, Float32Array] = {}
    best, first = Recognised(0.0, 0.0), -1
    for listened, (place, number, hop_s) in enumerate(_places(store, phases, space, usual_hop_s, rows)):
        if best.correlation >= SURELY or (listened >= ENOUGH_PLACES and best.correlation < RELATED):
            break
        record = rows[number][1]
        rate = listening_rate(length_s, record.duration or length_s)
        try:
            if rate not in heard:
                heard[rate] = _samples(path, query.offset_s, length_s, rate)
        except (AudioError, QueryError):  # the sound itself is gone
            return rows
        try:
            found = _at(heard[rate], rate, record.path, place.start_s, AROUND_HOPS * hop_s)
        except (AudioError, QueryError):  # the file is gone, or ends before what its windows say
            continue
        if found.correlation > best.correlation:
            best, first = found, number
    if best.correlation < LEAST_CORRELATION:
        return rows
    score, record, *_ = rows[first]
    return [(score, record, best.start_s, best.start_s + length_s), *rows[:first], *rows[first + 1 :]]


def _places(
    store: Store, phases: list[Phase], space: Space | NarrowSpace, usual_hop_s: float, rows: list[Row]
) -> list[tuple[Place, int, float]]:
    """Return the places to listen to, the best first, each with the number of its row and the hop of its file."""
    found: list[tuple[Place, int, float]] = []
    descriptors = isinstance(space, Space) and space.kind == "standardised"
    margin = MARGIN_OF_DESCRIPTORS if descriptors else MARGIN
    for number, (score, record, *_) in enumerate(rows[:MOST_FILES]):
        if score < rows[0][0] - margin or not all(len(phase.starts_s) for phase in phases):
            break
        if not is_remote(record.path):
            theirs = space.apply(store.vectors_of(record))
            hop_s = record.hop_s or usual_hop_s
            fitting = places(phases, theirs, hop_s, AROUND_HOPS * hop_s, MOST_PLACES)
            found += [(place, number, hop_s) for place in fitting]
    found.sort(key=lambda one: -one[0].score)
    return [one for one in found[:MOST_PLACES] if one[0].score >= found[0][0].score - margin]


def _at(sound: Float32Array, rate: int, path: bytes, start_s: float, around_s: float) -> Recognised:
    """Return how well a sound, (n,) at a rate, agrees with a file where it does best around a place.

    Raises:
        AudioError: the file cannot be decoded.
        QueryError: it ends before the place.
    """
    first_s = start_s - around_s
    there = _samples(path, max(0.0, first_s), len(sound) / rate + 2 * around_s, rate)
    before = np.zeros(max(0, round(-first_s * rate)), np.float32)
    correlation, lag = fit(sound, np.concatenate((before, there)), round(around_s * rate))
    return Recognised(correlation, max(0.0, first_s + lag / rate))


def fit(sound: Float32Array, around: Float32Array, expected: int) -> tuple[float, int]:
    """Return how well a sound correlates with a longer one where it does best, 0 to 1; and where, in samples.

    Half of it is the correlation of their differences from sample to sample, so that neither a bass decides alone, nor
    what clipping adds to the highs. The sign does not matter; what hangs over the longer one's end counts as silence.
    Of places that fit equally well, as a tone has many, it is the one next to `expected`; the correlation is that of
    the best of them, between samples where it is best there.
    """
    own, other = (samples.astype(np.float64) for samples in (sound, around))
    other = np.pad(other, (0, max(0, len(own) - len(other))))
    differences = (np.diff(samples, prepend=0.0) for samples in (own, other))
    pair = (_correlations(own, other), _correlations(*differences))
    likeness = (np.abs(pair[0]) + np.abs(pair[1])) / 2
    best = int(likeness.argmax())
    between = sum(np.abs(_BETWEEN @ np.pad(one, _NEAR)[best : best + 2 * _NEAR + 1]) for one in pair) / 2
    equal = np.flatnonzero(likeness >= EQUAL * likeness[best])
    lag = int(equal[np.abs(equal - expected).argmin()])
    return min(1.0, float(np.max(between))), lag


def _correlations(own: Float64Array, other: Float64Array) -> Float64Array:
    """Return the correlation of a sound with a longer one, (n - m + 1,), at each place there."""
    size = 1 << (len(own) + len(other)).bit_length()
    products = np.fft.irfft(np.conj(np.fft.rfft(own, size)) * np.fft.rfft(other, size), size)
    sums = np.concatenate(([0.0], np.cumsum(np.square(other))))
    energy = (sums[len(own) :] - sums[: len(sums) - len(own)]) * np.square(own).sum()
    # Where there is next to nothing, next to nothing agrees by chance.
    least = max(float(np.finfo(np.float32).tiny), 1e-3 * float(energy.max()))
    return np.asarray(products[: len(energy)] / np.sqrt(np.maximum(energy, least)))


def _samples(path: bytes, start_s: float, length_s: float, rate: int) -> Float32Array:
    return np.concatenate(list(part_blocks(path, rate, Part(start_s, start_s + length_s))))
