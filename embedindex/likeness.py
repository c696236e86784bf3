"""How alike two files are as wholes: the similarity that labels, evaluation and duplicates are judged by.

A file is heard as up to `MAX_STRETCHES` stretches of equal length, each the mean of its windows in the index's space,
scaled to length 1. Two files' likeness is the mean of both directions: how well each stretch of the one is matched by
its best match in the other, and the other way round. For files of one window that is their cosine similarity. It does
better than one mean for the whole file on most collections (docs/decisions/genre.md).

Conventions: stretches are rows, (rows, dimension) float32; file ``i`` of a set owns the rows ``starts[i]`` up to
``starts[i + 1]``. Silent windows are left out; a file of silence has no stretches and is in no set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from embedindex.arrays import Float16Array, Float32Array, Int64Array
from embedindex.errors import IndexEmptyError, display_path
from embedindex.records import FileRecord
from embedindex.space import Space, learn_space
from embedindex.store import Store

MAX_STRETCHES = 16
# Products of two rows that a comparison of everything may cost; beyond it files are cut into fewer stretches. About
# 20 s on two cores at 512 dimensions.
MAX_PRODUCTS = 1.5e9
_FILES_AT_ONCE = 512
_BLOCK_CELLS = 1 << 24


@dataclass(frozen=True, eq=False)
class FileSet:
    """Some files as stretches.

    Attributes:
        ids: (n,) int64, the files' ids in the database.
        rows: (rows, dimension) float32 of length 1.
        starts: (n + 1,) int64.
        summaries: (n, 3 * dimension) float32, see `summary_row`.
    """

    ids: Int64Array
    rows: Float32Array
    starts: Int64Array
    summaries: Float32Array

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, first: int, after: int) -> FileSet:
        """Return the files number `first` up to `after`."""
        low, high = self.starts[first], self.starts[after]
        starts = self.starts[first : after + 1] - low
        return FileSet(self.ids[first:after], self.rows[low:high], starts, self.summaries[first:after])

    def take(self, numbers: Int64Array) -> FileSet:
        """Return the files with these numbers, in this order."""
        counts = np.diff(self.starts)[numbers]
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        rows = np.arange(starts[-1]) + np.repeat(self.starts[numbers] - starts[:-1], counts)
        return FileSet(self.ids[numbers], self.rows[rows], starts, self.summaries[numbers])


def stretches_for(windows_a: float, windows_b: float, files_a: int, files_b: int) -> int:
    """Return into how many stretches files may be cut so that comparing two sets costs at most `MAX_PRODUCTS`.

    Args:
        windows_a: mean windows of a file of the first set.
        windows_b: of the second.
        files_a: files in the first set.
        files_b: files in the second.
    """
    for stretches in range(MAX_STRETCHES, 1, -1):
        if files_a * min(windows_a, stretches) * files_b * min(windows_b, stretches) <= MAX_PRODUCTS:
            return stretches
    return 1


def stretch_rows(vectors: Float32Array, stretches: int) -> Float32Array:
    """Return the means of up to `stretches` runs of rows (windows, dimension) of about equal length, of length 1."""
    count = min(stretches, len(vectors))
    if count == len(vectors):
        return vectors
    if count == 1:
        sums = vectors.sum(axis=0, keepdims=True)
    else:
        edges = np.linspace(0, len(vectors), count + 1).round().astype(np.int64)
        sums = np.add.reduceat(vectors, edges[:-1], axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(lengths, 1e-12), np.float32)


def load_files(
    store: Store, records: Iterable[FileRecord], space: Space, stretches: int = MAX_STRETCHES
) -> Iterator[FileSet]:
    """Yield the embedded files among `records` as sets of up to 512, without those that are silent throughout."""
    iterator = iter(record for record in records if record.status == "ok")
    model = store.model()
    while chunk := list(islice(iterator, _FILES_AT_ONCE)):
        if model is None:
            return
        ids, parts = [], []
        for record in chunk:
            stored = _vectors(store, record, model.identity.dimension)
            loud = stored[stored.any(axis=1)]
            if len(loud):
                ids.append(record.id)
                parts.append(loud)
        if parts:
            yield _cut(np.array(ids, np.int64), parts, space, stretches)


def _vectors(store: Store, record: FileRecord, dimension: int) -> Float16Array:
    """Return (windows, dimension) of one file by its run of window numbers: 5 times as fast as asking for the model."""
    first = record.first_window or 0
    rows = store._rows(
        "SELECT data FROM vectors WHERE first_window >= ? AND first_window < ? ORDER BY first_window",
        (first, first + record.n_windows),
    )
    return np.frombuffer(b"".join(row[0] for row in rows), np.float16).reshape(-1, dimension)


def _cut(ids: Int64Array, parts: Sequence[Float16Array], space: Space, stretches: int) -> FileSet:
    """Return files, each given as its (windows, dimension) loud vectors, as a set."""
    edges = np.cumsum([0] + [len(part) for part in parts])
    together = space.apply(np.concatenate(parts))
    rows = [stretch_rows(together[low:high], stretches) for low, high in pairwise(edges)]
    starts = np.cumsum([0] + [len(row) for row in rows]).astype(np.int64)
    return FileSet(ids, np.concatenate(rows), starts, np.stack([summary_row(part, blocks_of(space)) for part in parts]))


def blocks_of(space: Space) -> tuple[int, ...]:
    """Return the dimensions of the parts of a vector that two models made; () where one model made the whole."""
    return tuple(part.dimension for part in space.parts)


def summary_row(vectors: Float16Array, blocks: tuple[int, ...] = ()) -> Float32Array:
    """Return (3 * dimension,) float32 of a sound's (windows, dimension) stored vectors, silent ones left out.

    Of each dimension the mean, the first window's and the greatest value: how it sounds in all, how it starts, what
    stands out. Of vectors of several `blocks` (see `blocks_of`) these three of the first block come first.
    """
    loud = vectors.astype(np.float32)
    edges = np.cumsum([0, *(blocks or (loud.shape[1],))])
    three = (loud.mean(axis=0), loud[0], loud.max(axis=0))
    return np.concatenate([row[low:high] for low, high in pairwise(edges) for row in three])


def vectors_as_set(vectors: Float16Array, space: Space, stretches: int = MAX_STRETCHES) -> FileSet:
    """Return one sound, (windows, dimension) without silence, as a set of one file with the id -1."""
    return sounds_as_set([vectors], space, stretches)


def sounds_as_set(sounds: Sequence[Float16Array], space: Space, stretches: int = MAX_STRETCHES) -> FileSet:
    """Return sounds, each (windows, dimension) without silence, as a set of files with the id -1."""
    return _cut(np.full(len(sounds), -1, np.int64), sounds, space, stretches)


def join(sets: Sequence[FileSet]) -> FileSet:
    """Return several sets as one; there must be at least one."""
    counts = np.concatenate([np.diff(one.starts) for one in sets])
    return FileSet(
        np.concatenate([one.ids for one in sets]),
        np.concatenate([one.rows for one in sets]),
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        np.concatenate([one.summaries for one in sets]),
    )


def likeness(queries: FileSet, files: FileSet) -> Float32Array:
    """Return (len(queries), len(files)) float32, from -1 to 1; 1 for a file and itself."""
    result = np.empty((len(queries), len(files)), np.float32)
    rows = max(1, _BLOCK_CELLS // max(1, len(files.rows)))
    first = 0
    while first < len(queries):
        after = max(first + 1, int(np.searchsorted(queries.starts, queries.starts[first] + rows, "right")) - 1)
        after = min(after, len(queries))
        result[first:after] = _likeness_of(queries.part(first, after), files)
        first = after
    return result


def _likeness_of(queries: FileSet, files: FileSet) -> Float32Array:
    products = queries.rows @ files.rows.T
    single_queries, single_files = len(queries) == len(queries.rows), len(files) == len(files.rows)
    if single_queries and single_files:
        return products
    there = products if single_files else np.maximum.reduceat(products, files.starts[:-1], axis=1)
    back = products if single_queries else np.maximum.reduceat(products, queries.starts[:-1], axis=0)
    if not single_queries:
        there = np.add.reduceat(there, queries.starts[:-1], axis=0) / np.diff(queries.starts)[:, None]
    if not single_files:
        back = np.add.reduceat(back, files.starts[:-1], axis=1) / np.diff(files.starts)[None, :]
    return np.asarray((there + back) * np.float32(0.5), np.float32)


def space_of(store: Store) -> Space:
    """Return the space that the index's vectors are compared in; learnt now where no scan has kept one.

    Raises:
        IndexEmptyError: there is nothing in the index.
    """
    model = store.model()
    if model is None:
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is nothing in this index yet; fill it with `embedindex scan FOLDER`"
        )
    data = store.space()
    return Space.from_bytes(data) if data else learn_space(model.identity, (rows for _, rows in store.vector_batches()))
