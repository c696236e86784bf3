"""The best way through the candidates: beam search over target costs, join costs and what was played before.

What was played before decides what may come, so the best path is no shortest path: a beam of `BEAM` partial paths, each
with its own memory, is led through the units. Rules (no repeats, shares of files and folders) are broken only where
no candidate keeps them; each breach costs more than any sound could be worth, so there are as few as possible.

Conventions: files are ids; stretches are frames of the file's track.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int16Array, Int64Array
from embedindex.remix.candidates import Pool
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.options import RemixOptions
from embedindex.remix.qualities import GAIN_LIMIT_DB, edge_rows, join_distances
from embedindex.remix.stretches import Candidates

BEAM = 64
JOIN_WEIGHT = 2.4  # at continuity 1, relative to the target cost
REPEAT_COST, QUOTA_COST = 2000.0, 1000.0
# Choices are moved by up to 12 ms when their attacks are brought into line, see `align`; two may move apart.
GUARD_FRAMES = 3
PLAYED_BEFORE = 0.1  # at novelty 1: cost of each earlier unit from the same file, up to PLAYED_MOST
PLAYED_MOST = 3
# Chance moves costs by this share of what lies between the best candidate and the middle one: the first part at any
# temperature at all, so that two numbers for chance never give nearly the same remix; the second for each degree.
CHANCE_LEAST, CHANCE_MORE = 0.2, 0.25
# What another layer or variation plays costs so much at the same moment, and at any other, up to HEARD_MOST times. They
# are to differ at every moment; to forbid every sound that was heard anywhere would leave the worse ones for the later.
HEARD_NOW, HEARD, HEARD_MOST = 1.0, 0.2, 3

Taken = dict[int, list[tuple[int, int, float, float]]]  # by file: first frame, end, and the seconds at which it sounds


@dataclass(frozen=True, eq=False)
class Path:
    """A choice for each unit.

    Attributes:
        places: (n,) which candidate of each unit, -1 for silence.
        target: (n,) distances from the units.
        join: (n,) roughness of the join with the unit before.
        follows: (n,) whether it goes on where the one before ended.
        repeats: how many units repeat a stretch within the no-repeat window.
        over_quota: how many exceed the share of a file or folder.
    """

    places: Int64Array
    target: Float32Array
    join: Float32Array
    follows: BoolArray
    repeats: int
    over_quota: int


@dataclass(frozen=True, eq=False)
class _Groups:
    """Files and folders as numbers: a file's place among `ids`, and behind these the folders."""

    ids: Int64Array
    folders: Int64Array
    count: int

    def of(self, files: Int64Array) -> Int64Array:
        """Return (n, 2) numbers of some files and of their folders."""
        places = np.searchsorted(self.ids, files)
        return np.stack((places, self.folders[places]), axis=1)


@dataclass(frozen=True, eq=False)
class _Beam:
    """Partial paths, b of them: costs (b,), and what each remembers.

    Paths differ in their last units only: what all of them played before is counted once, so that it does not matter
    how many files there are.
    """

    costs: Float64Array
    recent: Int64Array  # (b, no_repeat, 3): file, start, end; -1 where nothing
    common: Int64Array  # (groups,): units that all paths have from each file and folder
    own: Int64Array  # (b, units, 2): file and folder of the units since

    def played(self, groups: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return (b, k) units that each path has from the files and from the folders of `groups` (k, 2)."""
        files, folders = (self.common[groups[:, kind]] + self._since(groups[:, kind], kind) for kind in (0, 1))
        return files, folders

    def _since(self, groups: Int64Array, kind: int) -> Int64Array:
        return np.asarray((self.own[:, :, kind, None] == groups).sum(axis=1))


def find_path(pool: Pool, options: RemixOptions, times_s: Float64Array, taken: Taken | None = None) -> Path:
    """Return the path of least cost that the beam finds.

    Args:
        pool: candidates.
        options: how to choose.
        times_s: (n,) time of each unit, for options that change.
        taken: what other layers and variations play.
    """
    rng = np.random.default_rng(options.chance)
    groups = _groups(pool)
    most = _shares(pool, options, groups)
    nothing = np.zeros((1, 0, 2), np.int64)
    recent = np.full((1, max(0, options.no_repeat), 3), -1)
    beam = _Beam(np.zeros(1), recent, np.zeros(groups.count, np.int64), nothing)
    back: list[tuple[Int16Array, Int16Array]] = []
    before: tuple[int, Int64Array] | None = None  # unit, and place of each path of the beam in it
    for unit, found in enumerate(pool.candidates):
        if not len(found):
            back.append(_small(np.arange(len(beam.costs)), np.full(len(beam.costs), -1)))
            before = None
            continue
        own = _own_costs(pool, unit, options, float(times_s[unit]), rng)
        from_s, to_s = float(times_s[unit]), float(times_s[unit] + pool.lengths[unit] / FRAMES_PER_S)
        cost = beam.costs[:, None] + own + _heard_before(found, from_s, to_s, taken or {})
        if before is not None:
            rough, _ = joins(pool, before[0], unit)
            cost += JOIN_WEIGHT * options.continuity.at(float(times_s[unit])) * rough[before[1]]
        cost += REPEAT_COST * _repeats(beam.recent, found, pool.lengths[unit])
        group = groups.of(found.files)
        files, folders = beam.played(group)
        cost += QUOTA_COST * ((files >= most[group[:, 0]]) | (folders >= most[group[:, 1]]))
        cost += PLAYED_BEFORE * options.novelty.at(float(times_s[unit])) * np.minimum(files, PLAYED_MOST)
        order = np.argsort(cost, axis=None, kind="stable")[:BEAM]
        parents, places = np.unravel_index(order, cost.shape)
        back.append(_small(parents, places))
        beam = _next(beam, cost.ravel()[order], parents, places, found, group, pool.lengths[unit])
        before = (unit, places)
    return _told(pool, _walk_back(back), most, groups, options)


def _small(parents: Int64Array, places: Int64Array) -> tuple[Int16Array, Int16Array]:
    return parents.astype(np.int16), places.astype(np.int16)


def _shares(pool: Pool, options: RemixOptions, groups: _Groups) -> Int64Array:
    """Return how many units may come from each file and each folder."""
    sounding = max(1, int((~pool.silent).sum()))
    most = np.full(groups.count, max(1, int(options.max_per_folder * sounding)))
    most[: len(groups.ids)] = max(1, int(options.max_per_file * sounding))
    return most


def joins(pool: Pool, left: int, right: int) -> tuple[Float32Array, BoolArray]:
    """Return (m, n) roughness of joining each candidate of one unit to each of the next, and whether it follows."""
    a, b = pool.candidates[left], pool.candidates[right]
    last = edge_rows(a.last, _gains(pool, left))
    first = edge_rows(b.first, _gains(pool, right))
    rough = join_distances(last, first, pool.scales)
    ends = a.starts + pool.lengths[left]
    follows = (a.files[:, None] == b.files) & (ends[:, None] == b.starts) & (a.lengths == pool.lengths[left])[:, None]
    return np.where(follows, np.float32(0), rough), follows


def _gains(pool: Pool, unit: int) -> Float32Array:
    gains: Float32Array = np.clip(pool.units.level[unit] - pool.candidates[unit].level, -GAIN_LIMIT_DB, GAIN_LIMIT_DB)
    return gains


def _own_costs(pool: Pool, unit: int, options: RemixOptions, time_s: float, rng: np.random.Generator) -> Float64Array:
    """Return what each candidate costs by itself: its distance, with what `match` forgives and `temperature` adds."""
    costs = pool.candidates[unit].costs.astype(np.float64)
    if options.far:
        costs = costs.max() - costs
    best = float(costs.min())
    spread = float(np.median(costs)) - best
    forgiven = (1.0 - options.match.at(time_s)) * spread
    costs = best + np.maximum(costs - best - forgiven, 0.0) + 0.1 * np.minimum(costs - best, forgiven)
    temperature = options.temperature.at(time_s)
    chance = rng.gumbel(size=len(costs))  # drawn in any case, so that one unit's temperature moves no other
    if temperature > 0:
        costs = costs - (CHANCE_LEAST + CHANCE_MORE * temperature) * spread * chance
    return costs


def _heard_before(found: Candidates, from_s: float, to_s: float, taken: Taken) -> Float64Array:
    """Return what each candidate costs because other layers or variations play it: most at the same moment."""
    cost = np.zeros(len(found))
    for file_id in np.unique(found.files).tolist() if taken else ():
        spans = np.array(taken.get(file_id, ()), np.float64).reshape(-1, 4)
        if len(spans):
            own = np.flatnonzero(found.files == file_id)
            starts, ends = found.starts[own, None], (found.starts + found.lengths)[own, None]
            same = (starts < spans[:, 1]) & (spans[:, 0] < ends)
            now = (same & (spans[:, 2] < to_s) & (from_s < spans[:, 3])).any(axis=1)
            cost[own] = np.where(now, HEARD_NOW, HEARD * np.minimum(same.sum(axis=1), HEARD_MOST))
    return cost


def _repeats(recent: Int64Array, found: Candidates, length: int) -> BoolArray:
    """Return (b, k): whether a candidate overlaps what a path played lately."""
    if not recent.shape[1]:
        return np.zeros((len(recent), len(found)), bool)
    same = recent[:, :, 0, None] == found.files
    starts, ends = found.starts, found.starts + length
    # What goes on exactly where something ended does not overlap it; what merely comes near may, once it is moved.
    follows = recent[:, :, 2, None] == starts
    overlaps = (recent[:, :, 1, None] < ends + GUARD_FRAMES) & (starts < recent[:, :, 2, None] + GUARD_FRAMES)
    return np.asarray((same & overlaps & ~follows).any(axis=1), bool)


def _next(
    beam: _Beam,
    costs: Float64Array,
    parents: Int64Array,
    places: Int64Array,
    found: Candidates,
    group: Int64Array,
    length: int,
) -> _Beam:
    recent = beam.recent[parents]
    if recent.shape[1]:
        recent = np.roll(recent, -1, axis=1)
        recent[:, -1] = np.stack((found.files[places], found.starts[places], found.starts[places] + length), axis=1)
    own = np.concatenate((beam.own[parents], group[places][:, None]), axis=1)
    alike = (own == own[:1]).all(axis=(0, 2))
    shared = own.shape[1] if alike.all() else int(np.argmin(alike))
    common = beam.common
    if shared:
        common = common.copy()
        np.add.at(common, own[0, :shared].ravel(), 1)
    return _Beam(costs, recent, common, own[:, shared:])


def _groups(pool: Pool) -> _Groups:
    ids = np.unique(np.concatenate([np.unique(found.files) for found in pool.candidates]))
    names = [os.path.dirname(pool.files[file_id].path) for file_id in ids.tolist()]
    numbers = {name: len(ids) + number for number, name in enumerate(sorted(set(names)))}
    return _Groups(ids, np.array([numbers[name] for name in names], np.int64), len(ids) + len(numbers))


def _walk_back(back: list[tuple[Int16Array, Int16Array]]) -> Int64Array:
    places = np.full(len(back), -1, np.int64)
    row = 0
    for unit in range(len(back) - 1, -1, -1):
        parents, chosen = back[unit]
        places[unit] = chosen[row]
        row = int(parents[row])
    return places


def _told(
    pool: Pool,
    places: Int64Array,
    most: Int64Array,
    groups: _Groups,
    options: RemixOptions,
) -> Path:
    """Return a path with its costs and its breaches of the rules."""
    count = len(places)
    target, join = np.zeros(count, np.float32), np.zeros(count, np.float32)
    follows = np.zeros(count, bool)
    played = np.zeros(len(most), np.int64)
    recent = np.full((1, max(0, options.no_repeat), 3), -1)
    repeats = over = 0
    for unit, place in enumerate(places.tolist()):
        if place < 0:
            continue
        found = pool.candidates[unit].take(np.array([place]))
        target[unit] = found.costs[0]
        if unit and places[unit - 1] >= 0:
            rough, goes_on = joins(pool, unit - 1, unit)
            join[unit], follows[unit] = rough[places[unit - 1], place], goes_on[places[unit - 1], place]
        repeats += int(_repeats(recent, found, int(pool.lengths[unit]))[0, 0])
        if recent.shape[1]:
            start = int(found.starts[0])
            recent = np.roll(recent, -1, axis=1)
            recent[0, -1] = (int(found.files[0]), start, start + int(pool.lengths[unit]))
        group = groups.of(found.files)[0]
        over += int((played[group] >= most[group]).any())
        played[group] += 1
    return Path(places, target, join, follows, repeats, over)
