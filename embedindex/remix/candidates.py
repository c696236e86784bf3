"""What might take a unit's place: windows that the index finds, narrowed to the stretch in them that fits best.

A window of the index is a second long, a unit may be a quarter of one: which windows are near says little about which
quarter is. So the index proposes windows, and every stretch inside them is compared with the unit itself.

Conventions: stretches start on frames of their file's track (see `frames`); costs are the weighted sum of `distances`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Int64Array
from embedindex.errors import QueryError, display_path
from embedindex.index import IndexView
from embedindex.models.base import Model
from embedindex.records import FileRecord
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.options import RemixOptions
from embedindex.remix.qualities import Qualities, Scales, join_qualities, learn_scales, measure
from embedindex.remix.seed import Seed, questions, unit_times_s
from embedindex.remix.stretches import SILENT_DB, Candidates, Comparer, Place, apart, none
from embedindex.remix.tracks import Told, TrackCache, untold
from embedindex.search import Filters
from embedindex.store import Store
from embedindex.windows import window_start_s

PROPOSED = 256  # windows a question
COMPARED = 64  # windows a unit whose stretches are compared
KEPT = 96  # stretches a unit that the path may take
CONTINUED = 24  # of the unit before, so many are followed further in their file
# A file in which so many of the units have a near stretch, all of them equally far from their own place, is the same
# recording as the seed: on another album, in another format, at another level.
COPY_SHARE, COPY_UNITS = 0.4, 4
COPY_COST = 0.8
COPY_FRAMES = 3


@dataclass(frozen=True, eq=False)
class Pool:
    """All that selection works with.

    Attributes:
        units: the seed's units, measured, n of them.
        lengths: (n,) frames of each.
        silent: (n,) whether it is silence.
        candidates: for each unit.
        files: by id.
        scales: usual differences.
        notes: what a person should know.
    """

    units: Qualities
    lengths: Int64Array
    silent: BoolArray
    candidates: tuple[Candidates, ...]
    files: dict[int, FileRecord]
    scales: Scales
    notes: tuple[str, ...]


def allowed_windows(store: Store, view: IndexView, options: RemixOptions) -> BoolArray | None:
    """Return which window numbers pass `include` and `exclude`, (next_window,) bool; None for all.

    Raises:
        QueryError: none does.
    """
    allowed = np.zeros(view.next_window, bool)
    for item in options.include or ("*",):
        _mark(store, allowed, item, True)
    for item in options.exclude:
        _mark(store, allowed, item, False)
    if not allowed.any():
        raise QueryError("no sound in the index passes --include and --exclude; `embedindex list` shows what there is")
    return None if allowed.all() else allowed


def _mark(store: Store, allowed: BoolArray, item: str, value: bool) -> None:
    key, equals, label = item.partition("=")
    filters = Filters(labels=((key, label),)) if equals else Filters(path=None if item == "*" else item)
    for first, count in store.window_runs(*filters.sql()):
        allowed[first : first + count] = value


class Finder:
    """Finds candidates for the units of one seed.

    Args:
        store: the index.
        view: its search index.
        seed: the sound to remix.
        options: how to choose.
        cache: tracks of library files.
        told: called with (done, in all) while files are described that never were.
    """

    def __init__(
        self,
        store: Store,
        view: IndexView,
        seed: Seed,
        options: RemixOptions,
        cache: TrackCache,
        told: Told = untold,
    ) -> None:
        self._cache, self._told = cache, told
        self._store, self._view, self._seed, self._options = store, view, seed, options
        self._files: dict[int, FileRecord] = {}
        self._notes: list[str] = []
        times = unit_times_s(seed)
        self._starts = np.round(times[:, 0] * FRAMES_PER_S).astype(np.int64)
        ends = np.round(times[:, 1] * FRAMES_PER_S).astype(np.int64)
        self._lengths = np.maximum(1, ends - self._starts)
        self._units = join_qualities(
            [
                measure(seed.track.frames, np.array([start]), int(length))
                for start, length in zip(self._starts, self._lengths, strict=True)
            ]
        )
        self._comparer = Comparer(self._files, cache, self._units, self._lengths, options)

    def pool(self, model: Model) -> Pool:
        """Return the candidates for every unit.

        Raises:
            QueryError: nothing passes the filters, or nothing but the seed itself does.
        """
        silent = np.asarray(self._units.level < SILENT_DB, bool)
        scores, windows = self._proposed(model)
        owners = self._owners(windows)
        usable = (owners >= 0) & np.isfinite(scores)
        if not self._options.allow_self:
            for file_id, record in self._files.items():
                if record.path == self._seed.path or record.content_hash == self._seed.content_hash:
                    usable &= owners != file_id
        scores = np.where(usable, scores, -np.inf).astype(np.float32)
        if not usable.any() and not silent.all():
            raise QueryError(
                f"{display_path(self._seed.path)}: there is nothing in the index to remix it with, apart from itself; "
                "scan more sounds, or let it be used with --allow-self"
            )
        scales, found = self._searched(scores, windows, owners, silent)
        copies = [] if self._options.allow_self else self._copies(found)
        if copies:
            usable &= ~np.isin(owners, copies)
            scores = np.where(usable, scores, -np.inf).astype(np.float32)
            scales, found = self._searched(scores, windows, owners, silent)
        for file_id, reason in sorted(self._comparer.unusable.items()):
            self._notes.append(f"{display_path(self._files[file_id].path)}: left out: {reason}")
        if not any(map(len, found)) and not silent.all():
            raise QueryError("none of the sounds that would fit can be read any more; run `embedindex scan` again")
        return Pool(self._units, self._lengths, silent, tuple(found), self._files, scales, tuple(self._notes))

    def _searched(
        self, scores: Float32Array, windows: Int64Array, owners: Int64Array, silent: BoolArray
    ) -> tuple[Scales, list[Candidates]]:
        """Return the usual differences, and the candidates of each unit."""
        chosen = [self._nearest(unit, scores, windows, owners) for unit in range(len(self._lengths))]
        wanted = sorted({int(i) for unit, (ids, _, _) in enumerate(chosen) if not silent[unit] for i in ids})
        self._cache.fill((self._files[file_id] for file_id in wanted), self._told)
        scales = self._learn(chosen, silent)
        found: list[Candidates] = []
        for unit, (ids, wins, sims) in enumerate(chosen):
            before = found[-1] if found and len(found[-1]) else None
            found.append(self._candidates(unit, ids, wins, sims, scales, before) if not silent[unit] else none())
        return scales, found

    def _proposed(self, model: Model) -> tuple[Float32Array, Int64Array]:
        """Return ((n, 2k) cosines, (n, 2k) window numbers) by both questions of every unit."""
        allowed = allowed_windows(self._store, self._view, self._options)
        k = min(PROPOSED, max(1, self._view.windows))
        parts = []
        for vectors in questions(self._seed, model):
            asked = self._view.space.apply(vectors.astype(np.float16))
            sounding = asked.any(axis=1)
            scores = np.full((len(asked), k), -np.inf, np.float32)
            windows = np.full((len(asked), k), -1, np.int64)
            if sounding.any():
                scores[sounding], windows[sounding] = self._view.search(asked[sounding], k, allowed)
            parts.append((scores, windows))
        return np.concatenate([part[0] for part in parts], 1), np.concatenate([part[1] for part in parts], 1)

    def _owners(self, windows: Int64Array) -> Int64Array:
        numbers, where = np.unique(windows[windows >= 0], return_inverse=True)
        owners = np.full(windows.shape, -1, np.int64)
        ids = self._store.owners_of_windows(numbers)
        for file_id in np.unique(ids[ids >= 0]):
            record = self._store.file(int(file_id))
            if record.missing_since is None:
                self._files[int(file_id)] = record
            else:
                ids[ids == file_id] = -1
        owners[windows >= 0] = ids[where]
        return owners

    def _copies(self, found: list[Candidates]) -> list[int]:
        """Return the files that are the seed's recording though not its bytes."""
        offsets: dict[int, list[tuple[int, int]]] = {}
        for unit, candidates in enumerate(found):
            for place in np.flatnonzero(candidates.costs <= COPY_COST).tolist():
                offset = int(candidates.starts[place] - self._starts[unit])
                offsets.setdefault(int(candidates.files[place]), []).append((offset, unit))
        most = max(COPY_UNITS, COPY_SHARE * sum(1 for candidates in found if len(candidates)))
        copies = []
        for file_id, pairs in sorted(offsets.items()):
            agreeing = max(
                len({unit for other, unit in pairs if abs(other - offset) <= COPY_FRAMES}) for offset, _ in pairs
            )
            if agreeing >= most:
                copies.append(file_id)
                path = display_path(self._files[file_id].path)
                self._notes.append(f"{path}: left out: it is a copy of the seed (--allow-self lets it in)")
        return copies

    def _nearest(
        self, unit: int, scores: Float32Array, windows: Int64Array, owners: Int64Array
    ) -> tuple[Int64Array, Int64Array, Float32Array]:
        """Return (files, windows, cosines) of the `COMPARED` windows to look into, best of each question first."""
        half = scores.shape[1] // 2
        ranks = np.tile(np.arange(half), 2)
        usable = np.isfinite(scores[unit])
        if self._options.far:
            ranks = half - 1 - ranks
        order = np.lexsort((windows[unit], ranks, ~usable))
        order = order[usable[order]]
        _, first = np.unique(windows[unit][order], return_index=True)
        order = order[np.sort(first)][:COMPARED]
        return owners[unit][order], windows[unit][order], scores[unit][order]

    def _learn(self, chosen: list[tuple[Int64Array, Int64Array, Float32Array]], silent: BoolArray) -> Scales:
        """Learn usual differences from the units and from the middle of a few windows found for each."""
        parts = [self._units.take(np.flatnonzero(~silent))] if not silent.all() else [self._units]
        for unit, (ids, wins, _) in enumerate(chosen):
            if silent[unit]:
                continue
            length = int(self._lengths[unit])
            for place in range(0, len(ids), max(1, len(ids) // 6)):
                start = self._window_frame(int(ids[place]), int(wins[place]))
                found = self._comparer.region(int(ids[place]), start, start + length)
                if found is not None:
                    first, track = found
                    parts.append(measure(track.frames, np.array([max(0, start - first)]), length))
        return learn_scales(join_qualities(parts))

    def _window_frame(self, file_id: int, window: int) -> int:
        record = self._files[file_id]
        number = window - (record.first_window or 0)
        return round(window_start_s(number, record.hop_s or self._view.model.hop_s) * FRAMES_PER_S)

    def _candidates(
        self,
        unit: int,
        ids: Int64Array,
        windows: Int64Array,
        similarity: Float32Array,
        scales: Scales,
        before: Candidates | None,
    ) -> Candidates:
        """Return the candidates of a unit: stretches of windows, and what follows on candidates of the one before."""
        length = int(self._lengths[unit])
        sign = -1 if self._options.far else 1
        places = [
            Place(file_id, *self._starts_within(file_id, window, length), cosine)
            for file_id, window, cosine in zip(ids.tolist(), windows.tolist(), similarity.tolist(), strict=True)
        ]
        if before is not None:
            places += self._following(before, unit)
        found = self._comparer.stretches(unit, places, scales)
        ranked = np.lexsort((found.starts, found.files, sign * found.costs))
        return found.take(apart(found, ranked, max(1, length // 4), KEPT))

    def _starts_within(self, file_id: int, window: int, length: int) -> tuple[int, int]:
        """Return the first and last frame at which a stretch of `length` frames of a window may start."""
        start = self._window_frame(file_id, window)
        spare = round(self._view.model.identity.window_s * FRAMES_PER_S) - length
        return (start, start + spare) if spare > 0 else (start + spare // 2 - 20, start + spare // 2 + 20)

    def _following(self, before: Candidates, unit: int) -> list[Place]:
        step = int(self._lengths[unit - 1])
        whole = before.lengths == step
        nearest = np.argsort(np.where(whole, before.costs, np.inf), kind="stable")[:CONTINUED]
        return [
            Place(int(before.files[i]), start, start, float(before.similarity[i]))
            for i in nearest
            if whole[i]
            for start in [int(before.starts[i]) + step]
        ]
