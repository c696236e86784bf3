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
from embedindex.comparing import Compared
from embedindex.correlation import listening_rate
from embedindex.errors import AudioError, QueryError
from embedindex.matching import Phase, Place, places
from embedindex.query import Part, Query, part_blocks
from embedindex.remote_paths import is_remote
from embedindex.space import Space
from embedindex.store import Store
from embedindex.whitening import WhitenedSpace
from embedindex.whole import Row


@dataclass(frozen=True)
class Reach:
    """What is listened to.

    Attributes:
        margin: files and places whose scores are less than the best by no more than this…
        files: …at most so many files…
        places: …and places.
        enough: when nothing was as much as related to the sound in so many places, it is in none of them.
    """

    margin: float
    files: int
    places: int
    enough: int


# Descriptors alone tell more sounds apart than a network, and noise from its absence, too; whitened vectors more still,
# and are less sure of those that had noise in them.
USUAL = Reach(0.05, 5, 24, 10)
AMONG_DESCRIPTORS = Reach(0.15, 5, 24, 10)
WHITENED = Reach(0.2, 15, 96, 96)
RELATED = 0.3
# Sounds longer than this lie where most of their windows say: so many do not fit two places by chance.
LONGEST_S = 30.0
# Places are right to a fraction of a hop; so much around them is listened to, in hops.
AROUND_HOPS = 0.5
# Waveforms that correlate less than this are not the same sound; from SURELY on no other is looked for, from FOUND on
# not much further.
LEAST_CORRELATION = 0.5
SURELY = 0.995
FOUND = 0.9
# Correlations within one part in a hundred are equal: what a tone's are a wave later.
EQUAL = 0.99
# Places whose samples correlate by less than this share of the best are no better between samples.
NEARLY = 0.75
# Waveforms hardly ever lie sample upon sample: correlations in eighths of a sample are those of samples near by, with
# the weights of band-limited interpolation (a sinc in Hann's window).
_NEAR = 16
_DISTANCES = np.arange(-4, 5)[:, None] / 8 - np.arange(-_NEAR, _NEAR + 1)
_BETWEEN = np.sinc(_DISTANCES) * np.cos(np.pi * _DISTANCES / (2 * _NEAR + 4)) ** 2


@dataclass(frozen=True)
class _Listened:
    """A place that is listened to.

    Attributes:
        row: the number of its file's row.
        start_s: where in the file the sound would begin.
        around_s: and by how much that may be wrong.
        from_s: where the stretch of the file begins that is decoded for this place and those near it.
        to_s: where it ends.
    """

    row: int
    start_s: float
    around_s: float
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Recognised:
    """The very sound: how well its waveform correlates with the file's, 0 to 1, and where it begins there."""

    correlation: float
    start_s: float


def recognised_first(
    store: Store, query: Query, phases: list[Phase], space: Compared, usual_hop_s: float, rows: list[Row]
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
    stretches: dict[tuple[int, float], Float32Array | None] = {}
    best, first = Recognised(0.0, 0.0), -1
    reach = _reach(space)
    for listened, place in enumerate(_places(store, phases, space, usual_hop_s, rows, length_s)):
        if best.correlation >= SURELY or (listened >= reach.enough and best.correlation < RELATED):
            break
        if listened >= USUAL.places and best.correlation >= FOUND:
            break
        record = rows[place.row][1]
        rate = listening_rate(length_s, record.duration or length_s)
        try:
            if rate not in heard:
                heard[rate] = _samples(path, query.offset_s, length_s, rate)
        except (AudioError, QueryError):  # the sound itself is gone
            return rows
        if (place.row, place.from_s) not in stretches:
            stretches[place.row, place.from_s] = _stretch(record.path, place, rate)
        stretch = stretches[place.row, place.from_s]
        if stretch is None:
            continue
        found = _at(heard[rate], rate, stretch, place)
        if found.correlation > best.correlation:
            best, first = found, place.row
    if best.correlation < LEAST_CORRELATION:
        return rows
    score, record, *_ = rows[first]
    return [(score, record, best.start_s, best.start_s + length_s), *rows[:first], *rows[first + 1 :]]


def _places(
    store: Store, phases: list[Phase], space: Compared, usual_hop_s: float, rows: list[Row], length_s: float
) -> list[_Listened]:
    """Return the places to listen to, the best first."""
    found: list[tuple[Place, int, float]] = []
    reach = _reach(space)
    for number, (score, record, *_) in enumerate(rows[: reach.files]):
        if score < rows[0][0] - reach.margin or not all(len(phase.starts_s) for phase in phases):
            break
        if not is_remote(record.path):
            theirs = space.apply(store.vectors_of(record))
            around_s = AROUND_HOPS * (record.hop_s or usual_hop_s)
            fitting = places(phases, theirs, record.hop_s or usual_hop_s, around_s, reach.places)
            found += [(place, number, around_s) for place in fitting]
    found.sort(key=lambda one: -one[0].score)
    chosen = [one for one in found[: reach.places] if one[0].score >= found[0][0].score - reach.margin]
    # Those of a file that lie so near to each other that their surroundings meet are decoded at once.
    shared: dict[int, tuple[float, float]] = {}
    group: list[int] = []
    for place in sorted(range(len(chosen)), key=lambda place: (chosen[place][1], chosen[place][0].start_s)):
        around_s = chosen[place][2]
        begins_s, ends_s = chosen[place][0].start_s - around_s, chosen[place][0].start_s + length_s + around_s
        if not group or chosen[group[0]][1] != chosen[place][1] or shared[group[0]][1] < begins_s:
            group = []
        group.append(place)
        from_s = shared[group[0]][0] if len(group) > 1 else begins_s
        shared |= dict.fromkeys(group, (from_s, ends_s))
    return [_Listened(number, one.start_s, around_s, *shared[at]) for at, (one, number, around_s) in enumerate(chosen)]


def _reach(space: Compared) -> Reach:
    if isinstance(space, WhitenedSpace):
        return WHITENED
    return AMONG_DESCRIPTORS if isinstance(space, Space) and space.kind == "standardised" else USUAL


def _stretch(path: bytes, place: _Listened, rate: int) -> Float32Array | None:
    """Return a file around a place, at a rate; None when it is gone, or ends before what its windows say."""
    try:
        there = _samples(path, max(0.0, place.from_s), place.to_s - max(0.0, place.from_s), rate)
    except (AudioError, QueryError):
        return None
    return np.concatenate((np.zeros(max(0, round(-place.from_s * rate)), np.float32), there))


def _at(sound: Float32Array, rate: int, stretch: Float32Array, place: _Listened) -> Recognised:
    """Return how well a sound, (n,) at a rate, agrees with a file's stretch where it does best around a place."""
    begin = round((place.start_s - place.around_s - place.from_s) * rate)
    around = round(place.around_s * rate)
    correlation, lag = fit(sound, stretch[begin : begin + len(sound) + 2 * around], around)
    return Recognised(correlation, max(0.0, place.from_s + (begin + lag) / rate))


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
    # Highs lose much by half a sample: what is best between samples need not be at one.
    lags = np.flatnonzero(likeness >= NEARLY * likeness.max())
    near = np.arange(2 * _NEAR + 1)
    between = sum(np.abs(np.pad(one, _NEAR)[lags[:, None] + near] @ _BETWEEN.T) for one in pair) / 2
    inside = (lags >= _NEAR) & (lags < len(likeness) - _NEAR)  # next to the ends there is nothing to go by
    best = np.minimum(1.0, np.where(inside, np.max(between, axis=1), likeness[lags]))
    equal = lags[best >= EQUAL * best.max()]
    return float(best.max()), int(equal[np.abs(equal - expected).argmin()])


def _correlations(own: Float64Array, other: Float64Array) -> Float64Array:
    """Return the correlation of a sound with a longer one, (n - m + 1,), at each place there."""
    size = 1 << (len(other) - 1).bit_length()  # where the sound lies wholly inside, nothing wraps around
    products = np.fft.irfft(np.conj(np.fft.rfft(own, size)) * np.fft.rfft(other, size), size)
    sums = np.concatenate(([0.0], np.cumsum(np.square(other))))
    energy = (sums[len(own) :] - sums[: len(sums) - len(own)]) * np.square(own).sum()
    # Where there is next to nothing, next to nothing agrees by chance.
    least = max(float(np.finfo(np.float32).tiny), 1e-3 * float(energy.max()))
    return np.asarray(products[: len(energy)] / np.sqrt(np.maximum(energy, least)))


def _samples(path: bytes, start_s: float, length_s: float, rate: int) -> Float32Array:
    return np.concatenate(list(part_blocks(path, rate, Part(start_s, start_s + length_s))))
