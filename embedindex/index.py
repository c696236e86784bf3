"""The search index: a FAISS view of the vectors in SQLite, in the index's space, that catches up by itself.

Conventions: vectors are unit rows of the space, so that the inner product is cosine similarity; FAISS's ids are window
numbers; windows of digital silence (all-zero vectors) are not in it. A view is immutable: a scan that goes on meanwhile
makes a new one. What was added since the file was written is searched exactly, beside it; `index_refresh` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Float32Array, Int64Array
from embedindex.errors import IndexDamagedError, IndexEmptyError, display_path
from embedindex.index_file import Trailer, open_index
from embedindex.index_lists import Lists, StoredWindows, list_offsets, list_sizes, merged
from embedindex.index_plan import DEFAULT_MEMORY_BYTES, DEFAULT_RECALL, Plan, make_plan
from embedindex.models.base import ModelIdentity
from embedindex.records import IndexModel
from embedindex.space import Space, learn_space
from embedindex.store import Store
from embedindex.stored_vectors import vectors_of_windows

if TYPE_CHECKING:
    import faiss

# FAISS compares halves of floats with vector instructions only when rows are a multiple of this long: without, a search
# among vectors of 207 dimensions takes nine times as long.
FAISS_WIDTH = 16


@dataclass(frozen=True)
class IndexView:
    """A searchable state of an index.

    Attributes:
        space: the transform that queries have to go through.
        model: the model of the index.
        next_window: every window number is below it.
        windows: how many vectors can be found, or (beside lists, when some went) a few less.
        base: vectors from the file on disk, and what came after them.
        removed: (first window, number) runs of `base` that are gone.
        damage: what is wrong with the file on disk, which was not used then; None when nothing is.
        lists: the file on disk, when it is of a big index.
        unindexed: the windows of the database, when there is no file and they are too many for `base`.
    """

    space: Space
    model: IndexModel
    next_window: int
    windows: int
    base: tuple[faiss.Index, ...]
    removed: tuple[tuple[int, int], ...] = ()
    damage: str | None = None
    lists: Lists | None = None
    unindexed: StoredWindows | None = None

    def search(
        self, queries: Float32Array, k: int, allowed: BoolArray | None = None, *, roughly: bool = False
    ) -> tuple[Float32Array, Int64Array]:
        """Return the nearest windows of each query vector.

        Args:
            queries: (n, dimension) float32 unit rows of the space.
            k: how many windows for each.
            allowed: (next_window,) True for window numbers that may be found; None for all.
            roughly: whether near windows will do that are not the very nearest; of a big index these take less time.

        Returns:
            ((n, k) float32 cosine similarities, descending; (n, k) int64 window numbers, -1 where there are no more).

        Raises:
            IndexDamagedError: a part of a big index that this search needs is damaged.
        """
        import faiss

        scores = np.full((len(queries), k), -np.inf, np.float32)
        windows = np.full((len(queries), k), -1, np.int64)
        if self.removed:
            allowed = np.ones(self.next_window, bool) if allowed is None else allowed.copy()
            for first, count in self.removed:
                allowed[first : first + count] = False
        if self.lists is not None:
            scores, windows = self.lists.search(queries, k, allowed, roughly=roughly)
        if self.unindexed is not None:
            every = np.arange(self.next_window) if allowed is None else np.flatnonzero(allowed)
            scores, windows = self.unindexed.search(queries, k, every)
        parameters: Any = None
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        for part in self.base:
            if part.ntotal:
                found, numbers = part.search(padded(queries, part.d), k, params=parameters)
                found = np.where(numbers < 0, -np.inf, found).astype(np.float32)
                scores, windows = merged(scores, windows, found, numbers)
        return scores, windows


def new_flat(dimension: int, expected: int = 0) -> faiss.Index:
    """Return an empty index with room for the `expected` number of vectors: growing would copy them again and again."""
    import faiss

    width = -(-dimension // FAISS_WIDTH) * FAISS_WIDTH
    flat = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    codes: Any = flat.codes
    codes.resize(expected * flat.code_size)
    codes.resize(0)  # the room stays
    return faiss.IndexIDMap(flat)


def add(index: faiss.Index, space: Space, batches: Iterable[tuple[Int64Array, Float16Array]]) -> None:
    """Add vectors with their window numbers to an exact index, but for silence."""
    for numbers, vectors in batches:
        loud = np.flatnonzero(vectors.any(axis=1))
        if len(loud):
            index.add_with_ids(padded(space.apply(vectors[loud]), index.d), numbers[loud])


def padded(rows: Float32Array, width: int) -> Float32Array:
    """Return `rows` (n, d) as (n, `width`) contiguous, zeros behind: inner products stay what they are."""
    padded = np.zeros((len(rows), width), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded


def rows_of(store: Store) -> Iterator[Float16Array]:
    """Yield all stored vectors, (n, dimension) each."""
    for _, vectors in store.vector_batches():
        yield vectors


def _require_model(store: Store) -> IndexModel:
    model = store.model()
    if model is None:
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is nothing in this index yet; fill it with `embedindex scan FOLDER`"
        )
    return model


def build_flat(store: Store, identity: ModelIdentity, space: Space | None = None) -> tuple[faiss.Index, Space]:
    """Return an index of all vectors of the database, in `space` or in one learnt from them."""
    if space is None:
        space = learn_space(identity, rows_of(store))
    index = new_flat(identity.dimension, store.counts().windows)
    add(index, space, store.vector_batches())
    return index, space


def is_view_of(trailer: Trailer, store: Store, identity: ModelIdentity) -> bool:
    """Return whether an index file can be caught up with the database, as opposed to being one of another."""
    return (
        trailer.database_id == store.database_id
        and trailer.stamp in store.index_stamps
        and trailer.fingerprint == identity.fingerprint
        and store.removals_after <= trailer.generation <= store.generation
        and trailer.next_window <= store.next_window
    )


def load_view(store: Store) -> IndexView:
    """Return a searchable view of the database's present state; catches up in memory, writes nothing.

    The view of a big index reads the database with every search: it is of use as long as `store` is open.

    Raises:
        IndexEmptyError: there is nothing in the index.
        StoreError: the database cannot be read.
    """
    with store.snapshot():
        model = _require_model(store)
        dimension = model.identity.dimension
        damage = None
        try:
            found = open_index(store.folder)
        except IndexDamagedError as error:  # the database has everything
            found, damage = None, str(error)
        if found is None or not is_view_of(found[1], store, model.identity):
            return _view_of_database(store, model, damage)
        index, trailer, blocks = found
        space = Space.from_bytes(bytes.fromhex(trailer.space))
        lists = None
        if trailer.kind != "flat":
            sizes = np.frombuffer(bytes.fromhex(trailer.sizes), "<u4").astype(np.int64)
            offsets = list_offsets(index, trailer.header_bytes, sizes if len(sizes) else list_sizes(index))
            stored = stored_windows(store, space, dimension)
            lists = Lists(index, stored, trailer.next_window, trailer.steps, blocks, offsets)
        base = (index,) if lists is None else ()
        if trailer.generation == store.generation:
            return IndexView(space, model, store.next_window, index.ntotal, base, lists=lists)
        fresh = new_flat(dimension)
        add(fresh, space, store.vector_batches(trailer.next_window))
        removed = tuple(
            (first, count) for first, count in store.removed_since(trailer.generation) if first < trailer.next_window
        )
        # To count them takes longer than a search; silence among what went makes them a few more than this.
        windows = index.ntotal + fresh.ntotal - sum(count for _, count in removed)
        if windows <= 0 or lists is None:
            windows = store.sounding_windows()
        return IndexView(space, model, store.next_window, windows, (*base, fresh), removed, lists=lists)


def _view_of_database(store: Store, model: IndexModel, damage: str | None) -> IndexView:
    """Return a view without an index file; a database too big for an exact index is compared where it lies."""
    data = store.space()
    space = Space.from_bytes(data) if data else None
    windows = store.sounding_windows()
    dimension = model.identity.dimension
    if plan_for(store, dimension).kind == "flat":
        index, space = build_flat(store, model.identity, space)
        return IndexView(space, model, store.next_window, index.ntotal, (index,), damage=damage)
    if space is None:
        space = learn_space(model.identity, rows_of(store))
    stored = stored_windows(store, space, dimension)
    return IndexView(space, model, store.next_window, windows, (), damage=damage, unindexed=stored)


def stored_windows(store: Store, space: Space, dimension: int) -> StoredWindows:
    """Return the windows of a database, to be compared one by one."""
    return StoredWindows(space, lambda numbers: vectors_of_windows(store, numbers, dimension))


def plan_for(store: Store, dimension: int) -> Plan:
    """Return the plan for the windows of a database, with the budget that was chosen for it."""
    return make_plan(store.sounding_windows(), dimension, *budget_of(store))


def budget_of(store: Store) -> tuple[int, float]:
    """Return (bytes of memory, target of recall) that the index is to keep to."""
    return (
        int(store.optional_setting("index_memory", DEFAULT_MEMORY_BYTES)),
        float(store.optional_setting("index_recall", DEFAULT_RECALL)),
    )
