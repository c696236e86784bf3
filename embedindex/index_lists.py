"""Approximate search in big indexes: FAISS's inverted lists propose windows, stored vectors decide.

Vectors lie in lists around centres, as short codes; a search reads the lists nearest to a query, and what they propose
is ranked again by the float16 vectors in SQLite, so that scores are as exact as those of an exact index. How many lists
and candidates that takes was measured when the lists were made (`index_build`). The file is mapped: a search reads what
it needs, and checks each block of it against its hash before it is used. Conventions are those of `index`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Float32Array, Int64Array
from embedindex.index_blocks import CheckedBlocks
from embedindex.index_file import SearchStep
from embedindex.space import Space

if TYPE_CHECKING:
    import faiss

# Codes tell windows apart less well that are all far from the query, as those are which pass a filter.
FILTERED_CANDIDATES = 2
NEARLY_ALL = 0.95  # of the windows: just the query itself is left out
# So few windows are compared one by one, from the database: an answer from lists could miss some of them.
EXACT_WINDOWS = 20_000
EXACT_BATCH = 4096
ID_BYTES = 8

Fetch = Callable[[Int64Array], tuple[BoolArray, Float16Array]]


@dataclass(frozen=True)
class StoredWindows:
    """The windows of a database, to be compared one by one.

    Attributes:
        space: the space of the index.
        fetch: the stored vectors of window numbers, ascending: (which are there, (n, dimension) float16).
    """

    space: Space
    fetch: Fetch

    def search(self, queries: Float32Array, k: int, numbers: Int64Array) -> tuple[Float32Array, Int64Array]:
        """Return the nearest of some windows.

        Args:
            queries: (n, dimension) float32 unit rows of the space.
            k: how many for each.
            numbers: (m,) the windows that may be found, ascending.
        """
        scores = np.full((len(queries), k), -np.inf, np.float32)
        windows = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(numbers), EXACT_BATCH):
            batch = numbers[start : start + EXACT_BATCH]
            there, stored = self.fetch(batch)
            loud = np.flatnonzero(there & stored.any(axis=1))
            if len(loud):
                found = queries @ self.space.apply(stored[loud]).T
                scores, windows = merged(scores, windows, found, np.broadcast_to(batch[loud], found.shape))
        return scores, windows


@dataclass(frozen=True)
class Lists:
    """A FAISS index of inverted lists, with what a search of it needs.

    Attributes:
        index: as `index_build` makes it: an IVF index, below a rotation or not.
        stored: its vectors as the database has them.
        next_window: its window numbers are below it.
        steps: how much has to be read for how many results, ascending.
        blocks: the file's hashes; None when the index was not read from a file.
        offsets: (lists + 1,) where each list begins in the file; empty without a file.
        exact_windows: so few windows that may be found are compared one by one.
    """

    index: faiss.Index
    stored: StoredWindows
    next_window: int
    steps: tuple[SearchStep, ...]
    blocks: CheckedBlocks | None = None
    offsets: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    exact_windows: int = EXACT_WINDOWS

    def search(
        self, queries: Float32Array, k: int, allowed: BoolArray | None = None, *, roughly: bool = False
    ) -> tuple[Float32Array, Int64Array]:
        """Return the nearest windows of each query vector; see `IndexView.search`.

        Where it is asked roughly, the codes alone decide which windows are ranked: no more than are asked for.

        Raises:
            IndexDamagedError: a part of the file that this search needs is not what was written, or a stored vector is
                damaged.
        """
        share, factor = 1.0, 1
        if allowed is not None:
            allowed = allowed[: self.next_window]
            count = int(np.count_nonzero(allowed))
            if count <= max(self.exact_windows, k):
                return self.stored.search(queries, k, np.flatnonzero(allowed))
            share = count / len(allowed)
            factor = FILTERED_CANDIDATES if share < NEARLY_ALL else 1
        step = self.step_for(k)
        n_lists = ivf_of(self.index).nlist
        # Where few may be found, as many of them lie in more lists.
        probes = min(n_lists, int(np.ceil(step.probes / share)))
        wanted = min(k if roughly else factor * step.candidates, self.index.ntotal)
        while True:
            proposed = self.propose(queries, probes, wanted, allowed)
            if probes == n_lists or (proposed[:, -1] >= 0).all():
                break
            probes = min(n_lists, 4 * probes)
        return self._rank(queries, proposed, k)

    def step_for(self, k: int) -> SearchStep:
        """Return how much has to be read for `k` results: more than was measured grows in proportion."""
        for step in self.steps:
            if step.k >= k:
                return step
        last = self.steps[-1]
        factor = k / last.k
        return SearchStep(k, int(np.ceil(last.probes * factor)), int(np.ceil(last.candidates * factor)), last.recall)

    def propose(self, queries: Float32Array, probes: int, count: int, allowed: BoolArray | None = None) -> Int64Array:
        """Return (n, count) numbers of the windows whose codes are nearest, the nearest first, -1 behind the last."""
        import faiss

        ivf = ivf_of(self.index)
        probes = min(probes, ivf.nlist)
        rows = turned(self.index, queries)
        closeness, lists = ivf.quantizer.search(rows, probes)
        self._check(lists)
        if allowed is None:
            selector = None
        else:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        return preassigned(ivf, rows, count, lists, closeness, selector)

    def _check(self, lists: Int64Array) -> None:
        if self.blocks is not None:
            numbers = np.unique(lists[lists >= 0])
            self.blocks.check(self.offsets[numbers], self.offsets[numbers + 1])

    def _rank(self, queries: Float32Array, proposed: Int64Array, k: int) -> tuple[Float32Array, Int64Array]:
        """Return the `k` best of the proposed windows by their stored vectors."""
        numbers, where = np.unique(proposed, return_inverse=True)
        where = where.reshape(proposed.shape)
        known = int(numbers[0] < 0) if len(numbers) else 0
        there, stored = self.stored.fetch(numbers[known:])
        rows = self.stored.space.apply(stored)
        there = np.concatenate((np.zeros(known, bool), there))
        rows = np.concatenate((np.zeros((known, rows.shape[1]), np.float32), rows))
        scores = np.full((len(queries), k), -np.inf, np.float32)
        windows = np.full((len(queries), k), -1, np.int64)
        for place, (query, places) in enumerate(zip(queries, where, strict=True)):
            places = places[there[places]]
            found = rows[places] @ query
            order = np.lexsort((numbers[places], -found))[:k]
            scores[place, : len(order)], windows[place, : len(order)] = found[order], numbers[places[order]]
        return scores, windows


def merged(
    scores: Float32Array, windows: Int64Array, other_scores: Float32Array, other_windows: Int64Array
) -> tuple[Float32Array, Int64Array]:
    """Return the best of two sets of results, as many a row as the first has.

    Equal scores are ordered by window number, so that the same question has the same answer every time.
    """
    both = np.concatenate((scores, other_scores), 1)
    ids = np.concatenate((windows, other_windows), 1)
    order = np.lexsort((ids, -both), axis=1)[:, : scores.shape[1]]
    return np.take_along_axis(both, order, 1), np.take_along_axis(ids, order, 1)


def ivf_of(index: faiss.Index) -> Any:
    """Return the IVF index in an index, which may lie below a rotation."""
    import faiss

    return faiss.downcast_index(faiss.extract_index_ivf(index))


def turned(index: faiss.Index, rows: Float32Array) -> Float32Array:
    """Return unit rows as the IVF index in `index` has them: padded, and rotated where there is a rotation."""
    import faiss

    padded = np.zeros((len(rows), index.d), np.float32)
    padded[:, : rows.shape[1]] = rows
    whole: Any = faiss.downcast_index(index)
    if not isinstance(whole, faiss.IndexPreTransform):
        return padded
    chain: Any = whole.chain
    out: Float32Array = chain.at(0).apply(padded)
    return out


def preassigned(
    ivf: Any, rows: Float32Array, count: int, lists: Int64Array, closeness: Float32Array, selector: Any
) -> Int64Array:
    """Return (n, count) numbers of the nearest in the given lists, -1 behind the last."""
    import faiss

    distances = np.empty((len(rows), count), np.float32)
    numbers = np.empty((len(rows), count), np.int64)
    parameters: Any
    if isinstance(ivf, faiss.IndexIVFRaBitQ):
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.qb = ivf.qb
    else:
        parameters = faiss.SearchParametersIVF()
    parameters.nprobe = lists.shape[1]
    if selector is not None:
        parameters.sel = selector
    pointer = faiss.swig_ptr
    ivf.search_preassigned_c(
        len(rows), pointer(rows), count, pointer(lists), pointer(closeness), pointer(distances), pointer(numbers),
        False, parameters,
    )  # fmt: skip
    return numbers


def list_sizes(index: faiss.Index) -> Int64Array:
    """Return (lists,) how many windows each list holds."""
    ivf = ivf_of(index)
    return np.array([ivf.invlists.list_size(number) for number in range(ivf.nlist)], np.int64)


def list_offsets(index: faiss.Index, header_bytes: int, sizes: Int64Array) -> Int64Array:
    """Return (lists + 1,) where the lists begin in the file that FAISS wrote: their codes and numbers come last."""
    ends: Int64Array = header_bytes + np.cumsum(sizes * (ivf_of(index).code_size + ID_BYTES))
    return np.concatenate((np.array([header_bytes], np.int64), ends))


def lists_bytes(index: faiss.Index) -> int:
    """Return how many bytes of an index's file its lists are."""
    return int(index.ntotal * (ivf_of(index).code_size + ID_BYTES))
