"""Every stretch of some places in library files, compared with one unit of the seed at once.

Conventions: stretches start on frames of their file's track (see `frames`); costs are the weighted sum of `distances`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Int64Array
from embedindex.crawl import file_stat
from embedindex.errors import AudioError
from embedindex.records import FileRecord
from embedindex.remix.frames import LEVEL, LOWEST_DB, WIDTH, Track
from embedindex.remix.options import RemixOptions
from embedindex.remix.qualities import Qualities, Scales, distances, measure
from embedindex.remix.tracks import TrackCache

STEP_FRAMES = 2
SILENT_DB = -60.0  # units below are silence; so are stretches
SHORTEST_SHARE = 0.2  # a file this much shorter than the unit still may take its place


@dataclass(frozen=True, eq=False)
class Candidates:
    """The stretches that may take one unit's place, the nearest first; none for a silent unit.

    Attributes:
        files: (k,) ids.
        starts: (k,) first frames in the file's track.
        lengths: (k,) frames there are, up to the unit's length.
        costs: (k,) float32 distances from the unit, weighted.
        similarity: (k,) cosine of the window's vector and the question's; that of its predecessor for a continuation.
        qualities: of the stretches.
    """

    files: Int64Array
    starts: Int64Array
    lengths: Int64Array
    costs: Float32Array
    similarity: Float32Array
    qualities: Qualities

    def __len__(self) -> int:
        return len(self.files)

    def take(self, places: Int64Array) -> Candidates:
        """Return some of them."""
        return Candidates(
            self.files[places],
            self.starts[places],
            self.lengths[places],
            self.costs[places],
            self.similarity[places],
            self.qualities.take(places),
        )


@dataclass(frozen=True)
class Place:
    """Where in a file to look: stretches that start from frame `low` to `high`; and how similar its window is."""

    file: int
    low: int
    high: int
    similarity: float


class Comparer:
    """Compares places with units.

    Args:
        files: the library's files by id.
        cache: their tracks.
        units: the seed's units, measured.
        lengths: (n,) frames of each unit.
        options: what counts how much.

    Attributes:
        unusable: files that could not be read, by id, and why.
    """

    def __init__(
        self,
        files: dict[int, FileRecord],
        cache: TrackCache,
        units: Qualities,
        lengths: Int64Array,
        options: RemixOptions,
    ) -> None:
        self._files, self._cache, self._units, self._lengths, self._options = files, cache, units, lengths, options
        self.unusable: dict[int, str] = {}
        self._checked: set[int] = set()

    def region(self, file_id: int, first: int, last: int) -> tuple[int, Track] | None:
        """Return (first frame, track) around a stretch of a file; None if it cannot be used."""
        if file_id in self.unusable:
            return None
        record = self._files[file_id]
        try:
            if file_id not in self._checked and file_stat(record.path).size != record.size:
                self.unusable[file_id] = "it has changed since the scan; run `embedindex scan` again"
                return None
            self._checked.add(file_id)
            return self._cache.coarse(record, first, last)
        except AudioError as error:
            self.unusable[file_id] = error.reason
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.unusable[file_id] = f"{reason}; run `embedindex scan` again"
        return None

    def stretches(self, unit: int, places: list[Place], scales: Scales) -> Candidates:
        """Return all stretches of some places that can be heard, compared with a unit."""
        length = int(self._lengths[unit])
        shortest = max(1, int(SHORTEST_SHARE * length))
        rows: list[Float32Array] = []
        found: list[tuple[Int64Array, Int64Array, int, int]] = []  # starts here, in the file, frames there, place
        position = 0
        for number, place in enumerate(places):
            region = self.region(place.file, place.low, place.high + length)
            if region is None:
                continue
            offset, track = region
            first = max(0, place.low - offset)
            frames = track.frames[first : max(first, place.high - offset) + length]
            last = min(place.high - offset - first, len(frames) - shortest)
            if len(frames) > 2:
                last = max(last, 0)  # a file much shorter than the unit: from its start, or not at all
            starts = np.arange(0, last + 1, STEP_FRAMES, dtype=np.int64)
            if len(starts):
                silence = np.zeros((max(0, int(starts[-1]) + length - len(frames)) + 2, WIDTH), np.float32)
                silence[:, LEVEL] = LOWEST_DB
                rows += [frames, silence]
                found.append((starts + position, starts + first + offset, len(frames), number))
                position += len(frames) + len(silence)
        if not found:
            return none()
        starts = np.concatenate([here for here, _, _, _ in found])
        numbers = np.concatenate([np.full(len(here), number) for here, _, _, number in found])
        there = np.concatenate([count - (here - here[0]) for here, _, count, _ in found])
        inside = np.concatenate([in_file for _, in_file, _, _ in found])
        measured = measure(np.concatenate(rows), starts, length)
        loud = np.flatnonzero(measured.level >= SILENT_DB)
        numbers, there, measured = numbers[loud], np.minimum(there[loud], length), measured.take(loud)
        similarity = np.array([place.similarity for place in places], np.float32)[numbers]
        costs = self.cost(unit, measured, (there / length).astype(np.float32), similarity, scales)
        files = np.array([place.file for place in places], np.int64)[numbers]
        return Candidates(files, inside[loud], there, costs, similarity, measured)

    def cost(
        self, unit: int, measured: Qualities, share: Float32Array, similarity: Float32Array, scales: Scales
    ) -> Float32Array:
        """Return what each stretch costs in place of a unit; `share` is how much of its length there is."""
        weigh = self._options.weight
        apart = distances(self._units.take(np.array([unit])), measured, scales)
        cost = sum((weigh(name) * values for name, values in apart.items()), np.zeros(len(measured), np.float32))
        cost = cost + weigh("embedding") * (1.0 - similarity) + weigh("duration") * (1.0 - share)
        return np.asarray(cost, np.float32)


def apart(made: Candidates, order: Int64Array, gap: int, count: int) -> Int64Array:
    """Return the first `count` of `order` that do not start within `gap` frames of an earlier one in the same file."""
    kept: list[int] = []
    taken: dict[int, list[int]] = {}
    for place in order.tolist():
        starts = taken.setdefault(int(made.files[place]), [])
        start = int(made.starts[place])
        if all(abs(start - other) > gap for other in starts):
            starts.append(start)
            kept.append(place)
            if len(kept) == count:
                break
    return np.array(kept, np.int64)


def none() -> Candidates:
    """Return no stretches."""
    nothing = np.zeros(0, np.int64)
    zero = np.zeros(0, np.float32)
    measured = measure(np.zeros((0, WIDTH), np.float32), nothing, 1)
    return Candidates(nothing, nothing, nothing, zero, zero, measured)
