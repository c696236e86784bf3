"""What might take a unit's place: windows that the index finds, narrowed to the stretch in them that fits best.

A window of the index is a second long, a unit may be a quarter of one: which windows are near says little about which
quarter is. So the index proposes windows, and every stretch inside them is compared with the unit itself.

Conventions: stretches start on frames of their file's track (see `frames`); costs are the weighted sum of `distances`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Int64Array
from embedindex.errors import QueryError, display_path
from embedindex.index import IndexView
from embedindex.models.base import Model
from embedindex.records import FileRecord
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.options import RemixOptions
from embedindex.remix.proposals import Proposal, Proposer
from embedindex.remix.qualities import Qualities, Scales, join_qualities, learn_scales
from embedindex.remix.seed import Seed, questions
from embedindex.remix.shelf import Shelf
from embedindex.remix.stretches import SILENT_DB, Candidates, Comparer, Place, apart, none
from embedindex.remix.tracks import Told, TrackCache, untold
from embedindex.store import Store
from embedindex.windows import window_start_s

KEPT = 96  # stretches a unit that the path may take
LEARNT_FROM = 256  # units, evenly spaced, whose windows say what a usual difference is
LEARNT_WINDOWS = 6  # of each, about
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
        copies: files that hold the seed's recording, which are left out.
    """

    units: Qualities
    lengths: Int64Array
    silent: BoolArray
    candidates: Shelf
    files: dict[int, FileRecord]
    scales: Scales
    notes: tuple[str, ...]
    copies: tuple[FileRecord, ...] = ()


def none_readable(notes: list[str]) -> QueryError:
    """Return the error for a library of which nothing can be read; `notes` say of each file why."""
    why = f" ({notes[-1].rsplit('; ', 1)[0]})" if notes else ""
    return QueryError(f"none of the sounds that would fit can be read any more{why}; run `embedindex scan` again")


class Finder:
    """Finds candidates for the units of one seed.

    Args:
        store: the index.
        view: its search index.
        seed: the sound to remix.
        options: how to choose.
        cache: tracks of library files.
        told: called with (done, in all) while files are described that never were.
        excluded: files that must not be used.
    """

    def __init__(
        self,
        store: Store,
        view: IndexView,
        seed: Seed,
        options: RemixOptions,
        cache: TrackCache,
        told: Told = untold,
        excluded: tuple[FileRecord, ...] = (),
    ) -> None:
        self._cache, self._told, self._excluded = cache, told, excluded
        self._store, self._view, self._seed, self._options = store, view, seed, options
        self._notes: list[str] = []
        self._silent = np.asarray(seed.measured.level < SILENT_DB, bool)

    def pool(self, model: Model) -> Pool:
        """Return the candidates for every unit.

        Raises:
            QueryError: nothing passes the filters, or nothing but the seed itself does.
        """
        seed, silent = self._seed, self._silent
        asked = questions(seed, model)
        for vectors in asked:
            vectors[silent] = 0  # silence asks for nothing
        proposer = Proposer(self._store, self._view, seed, asked, self._options)
        proposer.leave_out(self._excluded)
        self._files = proposer.files
        self._comparer = Comparer(self._files, self._cache, seed, self._options)
        proposed = proposer.propose(np.arange(len(seed.lengths)))
        if not any(map(len, proposed)) and not silent.all():
            raise QueryError(
                f"{display_path(seed.path)}: there is nothing in the index to remix it with, apart from itself; "
                "scan more sounds, or let it be used with --allow-self"
            )
        scales, found = self._searched(proposed)
        copies = [] if self._options.allow_self else self._copies(found)
        if copies:
            proposer.leave_out(self._files[file_id] for file_id in copies)
            again = np.array([unit for unit, one in enumerate(proposed) if np.isin(one.files, copies).any()])
            for unit, other in zip(again.tolist(), proposer.propose(again), strict=True):
                proposed[unit] = other
            scales, found = self._searched(proposed)
        for file_id, reason in sorted(self._comparer.unusable.items()):
            self._notes.append(f"{display_path(self._files[file_id].path)}: left out: {reason}")
        if not any(map(len, found)) and not silent.all():
            raise none_readable(self._notes)
        left_out = tuple(self._files[file_id] for file_id in copies)
        notes = tuple(self._notes)
        return Pool(seed.measured, seed.lengths, silent, found, self._files, scales, notes, left_out)

    def _searched(self, proposed: list[Proposal]) -> tuple[Scales, Shelf]:
        """Return the usual differences, and the candidates of each unit."""
        wanted = np.unique(np.concatenate([one.files for one in proposed])).tolist()
        self._cache.fill((self._files[file_id] for file_id in wanted), self._told)
        scales = self._learn(proposed)
        found, before = Shelf(), none()
        for unit, one in enumerate(proposed):
            before = none() if self._silent[unit] else self._candidates(unit, one, scales, before)
            found.append(before)
        return scales, found

    def _copies(self, found: Shelf) -> list[int]:
        """Return the files that are the seed's recording though not its bytes."""
        pairs: dict[int, set[tuple[int, int]]] = {}
        for unit, candidates in enumerate(found):
            for place in np.flatnonzero(candidates.costs <= COPY_COST).tolist():
                offset = int(candidates.starts[place] - self._seed.starts[unit])
                pairs.setdefault(int(candidates.files[place]), set()).add((offset, unit))
        least = max(COPY_UNITS, COPY_SHARE * sum(1 for candidates in found if len(candidates)))
        copies = [file_id for file_id in sorted(pairs) if _most_agreeing(pairs[file_id], least) >= least]
        for file_id in copies:
            path = display_path(self._files[file_id].path)
            self._notes.append(f"{path}: left out: it is a copy of the seed (--allow-self lets it in)")
        return copies

    def _learn(self, proposed: list[Proposal]) -> Scales:
        """Learn usual differences from the units and from the beginnings of a few windows found for each."""
        sounding = np.flatnonzero(~self._silent)
        parts = [self._seed.measured.take(sounding) if len(sounding) else self._seed.measured]
        for unit in sounding[:: -(-len(sounding) // LEARNT_FROM)] if len(sounding) else ():
            one, length = proposed[unit], int(self._seed.lengths[unit])
            places = []
            for number in range(0, len(one), max(1, len(one) // LEARNT_WINDOWS)):
                start = self._window_frame(int(one.files[number]), int(one.windows[number]))
                places.append(Place(int(one.files[number]), start, start, 0.0))
            parts.append(self._comparer.heard(places, length).measured)
        return learn_scales(join_qualities(parts))

    def _window_frame(self, file_id: int, window: int) -> int:
        record = self._files[file_id]
        number = window - (record.first_window or 0)
        return round(window_start_s(number, record.hop_s or self._view.model.hop_s) * FRAMES_PER_S)

    def _candidates(self, unit: int, one: Proposal, scales: Scales, before: Candidates) -> Candidates:
        """Return the candidates of a unit: stretches of windows, and what follows on candidates of the one before."""
        length = int(self._seed.lengths[unit])
        sign = -1 if self._options.far else 1
        places = [
            Place(file_id, *self._starts_within(file_id, window, length), cosine)
            for file_id, window, cosine in zip(
                one.files.tolist(), one.windows.tolist(), one.similarity.tolist(), strict=True
            )
        ]
        if len(before):
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
        step = int(self._seed.lengths[unit - 1])
        whole = before.lengths == step
        nearest = np.argsort(np.where(whole, before.costs, np.inf), kind="stable")[:CONTINUED]
        return [
            Place(int(before.files[i]), start, start, float(before.similarity[i]))
            for i in nearest
            if whole[i]
            for start in [int(before.starts[i]) + step]
        ]


def _most_agreeing(pairs: set[tuple[int, int]], least: float) -> int:
    """Return how many units lie equally far from their place, to `COPY_FRAMES`; 0 if they are fewer than `least`."""
    if len(pairs) < least:
        return 0
    offsets, units = np.array(sorted(pairs)).T
    starts = np.unique(offsets)
    lows = np.searchsorted(offsets, starts - COPY_FRAMES)
    highs = np.searchsorted(offsets, starts + COPY_FRAMES, "right")
    many = np.flatnonzero(highs - lows >= least)
    return max((len(np.unique(units[lows[i] : highs[i]])) for i in many), default=0)
