"""Every stretch of some places in library files, compared with one unit of the seed at once.

Conventions: stretches start on frames of their file's track (see `frames`); costs are the weighted sum of `distances`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float16Array, Float32Array, Int64Array
from embedindex.errors import AudioError
from embedindex.file_stat import file_stat
from embedindex.records import FileRecord
from embedindex.remix.coarse import CoarseTrack, grow_frames
from embedindex.remix.frames import LEVEL, LOWEST_DB, WIDTH
from embedindex.remix.options import RemixOptions
from embedindex.remix.qualities import EDGE_WIDTH, Qualities, Scales, distances, measure
from embedindex.remix.seed import Seed
from embedindex.remix.tracks import TrackCache

STEP_FRAMES = 2
SILENT_DB = -60.0  # units below are silence; so are stretches
SHORTEST_SHARE = 0.2  # a file this much shorter than the unit still may take its place


@dataclass(frozen=True, eq=False)
class Candidates:
    """The stretches that may take one unit's place, the nearest first; none for a silent unit.

    An hour has ten thousand units with a hundred of these each: only what the path needs is kept of their qualities.

    Attributes:
        files: (k,) ids.
        starts: (k,) first frames in the file's track.
        lengths: (k,) frames there are, up to the unit's length.
        costs: (k,) float32 distances from the unit, weighted.
        similarity: (k,) cosine of the window's vector and the question's; that of its predecessor for a continuation.
        level: (k,) float32 dB.
        first: (k, EDGE_WIDTH) float16, the first frames, see `Qualities`.
        last: (k, EDGE_WIDTH) float16, the last frames.
    """

    files: Int64Array
    starts: Int64Array
    lengths: Int64Array
    costs: Float32Array
    similarity: Float32Array
    level: Float32Array
    first: Float16Array
    last: Float16Array

    def __len__(self) -> int:
        return len(self.files)

    def take(self, places: Int64Array) -> Candidates:
        """Return some of them."""
        return Candidates(*(getattr(self, name)[places] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Place:
    """Where in a file to look: stretches that start from frame `low` to `high`; and how similar its window is."""

    file: int
    low: int
    high: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Heard:
    """Stretches of some places.

    Attributes:
        measured: n of them.
        starts: (n,) first frames in the file's track.
        there: (n,) frames there are until the file ends, up to the length asked for.
        places: (n,) the number of the place that each lies in.
    """

    measured: Qualities
    starts: Int64Array
    there: Int64Array
    places: Int64Array


class Comparer:
    """Compares places with units.

    Args:
        files: the library's files by id.
        cache: their tracks.
        seed: the sound to remix.
        options: what counts how much.

    Attributes:
        unusable: files that could not be read, by id, and why.
    """

    def __init__(
        self,
        files: dict[int, FileRecord],
        cache: TrackCache,
        seed: Seed,
        options: RemixOptions,
    ) -> None:
        self._files, self._cache, self._seed, self._options = files, cache, seed, options
        self.unusable: dict[int, str] = {}
        self._checked: set[int] = set()

    def _small(self, file_id: int) -> CoarseTrack | None:
        """Return the small track of a file; None if it cannot be used."""
        if file_id in self.unusable:
            return None
        record = self._files[file_id]
        try:
            if file_id not in self._checked and file_stat(record.path).size != record.size:
                self.unusable[file_id] = "it has changed since the scan; run `embedindex scan` again"
                return None
            self._checked.add(file_id)
            return self._cache.small(record)
        except AudioError as error:
            self.unusable[file_id] = error.reason
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.unusable[file_id] = f"{reason}; run `embedindex scan` again"
        return None

    def stretches(self, unit: int, places: list[Place], scales: Scales) -> Candidates:
        """Return all stretches of some places that can be heard, compared with a unit."""
        length = int(self._seed.lengths[unit])
        heard = self.heard(places, length)
        loud = np.flatnonzero(heard.measured.level >= SILENT_DB)
        measured, there, own = heard.measured.take(loud), heard.there[loud], heard.places[loud]
        similarity = np.array([place.similarity for place in places], np.float32)[own]
        files = np.array([place.file for place in places], np.int64)[own]
        return Candidates(
            files=files,
            starts=heard.starts[loud],
            lengths=there,
            costs=self.cost(unit, measured, (there / length).astype(np.float32), similarity, scales),
            similarity=similarity,
            level=measured.level,
            first=measured.first.astype(np.float16),
            last=measured.last.astype(np.float16),
        )

    def heard(self, places: list[Place], length: int) -> Heard:
        """Return all stretches of `length` frames of some places, measured at once."""
        shortest = max(1, int(SHORTEST_SHARE * length))
        pieces: list[tuple[CoarseTrack, int, int]] = []
        rows: list[tuple[int, int, int, int, int]] = []  # place, its frames, stretches, first in the file, rows in all
        for number, place in enumerate(places):
            small = self._small(place.file)
            if small is None:
                continue
            low = min(max(0, place.low), small.frames)
            count = max(0, min(place.high + length, small.frames) - low)
            last = min(place.high - low, count - shortest)
            if count > 2:
                last = max(last, 0)  # a file much shorter than the unit: from its start, or not at all
            stretches = last // STEP_FRAMES + 1
            if stretches > 0 and count:
                pieces.append((small, low, low + count))
                last -= last % STEP_FRAMES
                rows.append((number, count, stretches, low, count + max(0, last + length - count) + 2))
        if not rows:
            nothing = np.zeros(0, np.int64)
            return Heard(measure(np.zeros((0, WIDTH), np.float32), nothing, length), nothing, nothing, nothing)
        table = np.array(rows, np.int64)
        numbers, counts, stretches, lows, sizes = table.T
        begins = np.cumsum(sizes) - sizes
        frames = np.zeros((int(sizes.sum()), WIDTH), np.float32)  # silence lies behind each piece
        frames[:, LEVEL] = LOWEST_DB
        frames[_runs(begins, counts)] = grow_frames(pieces)
        inside = _runs(np.zeros(len(rows), np.int64), stretches) * STEP_FRAMES
        own = np.repeat(np.arange(len(rows)), stretches)
        measured = measure(frames, inside + begins[own], length)
        return Heard(measured, inside + lows[own], np.minimum(counts[own] - inside, length), numbers[own])

    def cost(
        self, unit: int, measured: Qualities, share: Float32Array, similarity: Float32Array, scales: Scales
    ) -> Float32Array:
        """Return what each stretch costs in place of a unit; `share` is how much of its length there is."""
        weigh = self._options.weight
        own = self._seed.measured.take(np.array([unit]))
        apart = distances(own, measured, scales, self._seed.lowest_db)
        cost = sum((weigh(name) * values for name, values in apart.items()), np.zeros(len(measured), np.float32))
        cost = cost + weigh("embedding") * (1.0 - similarity) + weigh("duration") * (1.0 - share)
        return np.asarray(cost, np.float32)


def _runs(begins: Int64Array, counts: Int64Array) -> Int64Array:
    """Return ``begin, begin + 1, …``, `count` numbers each, one run after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts - begins, counts)


def apart(made: Candidates, order: Int64Array, gap: int, count: int) -> Int64Array:
    """Return the first `count` of `order` that do not start within `gap` frames of an earlier one in the same file."""
    kept: list[int] = []
    taken: dict[int, list[int]] = {}
    for place, file_id, start in zip(
        order.tolist(), made.files[order].tolist(), made.starts[order].tolist(), strict=True
    ):
        starts = taken.setdefault(file_id, [])
        if all(abs(start - other) > gap for other in starts):
            starts.append(start)
            kept.append(place)
            if len(kept) == count:
                break
    return np.array(kept, np.int64)


def none() -> Candidates:
    """Return no stretches."""
    nothing, zero = np.zeros(0, np.int64), np.zeros(0, np.float32)
    edges = np.zeros((0, EDGE_WIDTH), np.float16)
    return Candidates(nothing, nothing, nothing, zero, zero, zero, edges, edges)
