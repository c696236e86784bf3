"""Which windows of the index to look into for each unit of a seed: the nearest to its two questions.

Conventions: windows are window numbers of the index; units are numbers of the seed's units; a similarity is the cosine
of a window's vector and a question's. Units are asked for some at a time, so that memory does not grow with the seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from embedindex.allowed import passing_windows
from embedindex.arrays import BoolArray, Float16Array, Float32Array, Int64Array
from embedindex.errors import QueryError
from embedindex.filters import Filters
from embedindex.index import IndexView
from embedindex.records import FileRecord
from embedindex.remix.options import RemixOptions
from embedindex.remix.seed import Seed
from embedindex.store import Store

PROPOSED = 128  # windows a question; a unit asks two
PROPOSED_FAR = 256  # … where the least alike of them are wanted
COMPARED = 64  # windows a unit whose stretches are compared
UNITS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Proposal:
    """The windows to look into for one unit, the nearest first.

    Attributes:
        windows: (k,) numbers, k at most `COMPARED`.
        files: (k,) ids.
        similarity: (k,) float32.
    """

    windows: Int64Array
    files: Int64Array
    similarity: Float32Array

    def __len__(self) -> int:
        return len(self.windows)


NOTHING = Proposal(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def allowed_windows(store: Store, view: IndexView, options: RemixOptions) -> BoolArray | None:
    """Return which window numbers pass `include` and `exclude`, (next_window,) bool; None for all.

    Raises:
        QueryError: none does.
    """
    if not options.include and not options.exclude and not store.has_missing():
        return None
    allowed = np.zeros(view.next_window, bool)
    for item in options.include or ("*",):
        allowed |= _passing(store, view, item)
    for item in options.exclude:
        allowed &= ~_passing(store, view, item)
    if not allowed.any():
        raise QueryError("no sound in the index passes --include and --exclude; `embedindex list` shows what there is")
    return allowed


def _passing(store: Store, view: IndexView, item: str) -> BoolArray:
    key, equals, label = item.partition("=")
    filters = Filters(labels=((key, label),)) if equals else Filters(path=None if item == "*" else item)
    return passing_windows(store, view, filters)


class Proposer:
    """Asks the index about the units of one seed.

    Args:
        store: the index.
        view: its search index.
        seed: the sound to remix.
        asked: two vectors of each unit, (n, dimension) float16 each, see `seed.questions`; zeros ask for nothing.
        options: how to choose.

    Attributes:
        files: all files that were proposed so far, by id.

    Raises:
        QueryError: nothing passes the filters.
    """

    def __init__(
        self,
        store: Store,
        view: IndexView,
        seed: Seed,
        asked: tuple[Float16Array, Float16Array],
        options: RemixOptions,
    ) -> None:
        self._store, self._view, self._asked, self._far = store, view, asked, options.far
        self._allowed = allowed_windows(store, view, options)
        self._left_out: list[tuple[int, int]] = []
        self.files: dict[int, FileRecord] = {}
        if not options.allow_self:
            own = store.file_by_path(seed.path)
            same = list(store.files("content_hash = ? AND first_window IS NOT NULL", (seed.content_hash,)))
            self.leave_out([*same, *([own] if own is not None else [])])

    def leave_out(self, records: Iterable[FileRecord]) -> None:
        """Propose none of these files any more."""
        runs = [(record.first_window, record.n_windows) for record in records if record.first_window is not None]
        self._left_out = sorted({*self._left_out, *((first or 0, count) for first, count in runs)})

    def propose(self, units: Int64Array) -> list[Proposal]:
        """Return the windows for some units; where too few are left of the nearest, those farther away come in."""
        made: list[Proposal] = []
        for first in range(0, len(units), UNITS_AT_ONCE):
            some = units[first : first + UNITS_AT_ONCE]
            found = self._nearest(some, self._allowed)
            if self._left_out:
                lacking = [place for place, unit in enumerate(found) if len(unit[0]) < COMPARED]
                if lacking:
                    for place, again in zip(lacking, self._nearest(some[lacking], self._usable()), strict=True):
                        found[place] = again
            made += self._with_files(found)
        return made

    def _usable(self) -> BoolArray:
        usable = np.ones(self._view.next_window, bool) if self._allowed is None else self._allowed.copy()
        for first, count in self._left_out:
            usable[first : first + count] = False
        return usable

    def _nearest(self, units: Int64Array, allowed: BoolArray | None) -> list[tuple[Int64Array, Float32Array]]:
        """Return (windows, similarities) of each unit, without what is left out, best of each question first."""
        k = min(PROPOSED_FAR if self._far else PROPOSED, max(1, self._view.windows))
        scores = np.full((len(units), 2, k), -np.inf, np.float32)
        windows = np.full((len(units), 2, k), -1, np.int64)
        asked = np.stack([vectors[units] for vectors in self._asked], axis=1)
        sounding = asked.any(axis=2)
        if sounding.any():
            rows = self._view.space.apply(asked[sounding])
            scores[sounding], windows[sounding] = self._view.search(rows, k, allowed, roughly=True)
        if self._left_out:
            firsts = np.array([first for first, _ in self._left_out])
            ends = firsts + np.array([count for _, count in self._left_out])
            run = np.searchsorted(firsts, windows, "right") - 1
            scores[(run >= 0) & (windows < ends[run])] = -np.inf
        ranks = np.tile(np.arange(k)[::-1] if self._far else np.arange(k), 2)
        return [_best(row.ravel(), numbers.ravel(), ranks) for row, numbers in zip(scores, windows, strict=True)]

    def _with_files(self, found: list[tuple[Int64Array, Float32Array]]) -> list[Proposal]:
        numbers, where = np.unique(np.concatenate([windows for windows, _ in found]), return_inverse=True)
        owners = self._store.owners_of_windows(numbers)
        new = [int(file_id) for file_id in np.unique(owners) if file_id >= 0 and int(file_id) not in self.files]
        records = self._store.files("id IN (SELECT value FROM json_each(?))", (json.dumps(new),))
        self.files.update((record.id, record) for record in records)
        made, position = [], 0
        for windows, similarity in found:
            files = owners[where[position : position + len(windows)]]
            position += len(windows)
            there = np.flatnonzero(files >= 0)  # the others went since the view was made
            made.append(Proposal(windows[there], files[there], similarity[there]))
        return made


def _best(scores: Float32Array, windows: Int64Array, ranks: Int64Array) -> tuple[Int64Array, Float32Array]:
    """Return the `COMPARED` windows of least rank, each once; equal ranks go by number."""
    usable = np.flatnonzero((windows >= 0) & np.isfinite(scores))
    order = usable[np.lexsort((windows[usable], ranks[usable]))]
    _, first = np.unique(windows[order], return_index=True)
    order = order[np.sort(first)][:COMPARED]
    return windows[order], scores[order]
