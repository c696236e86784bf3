"""The search index: a FAISS view of the vectors in SQLite, in the index's space, that catches up by itself.

Conventions: vectors are unit rows of the space, so that the inner product is cosine similarity; FAISS's ids are window
numbers; windows of digital silence (all-zero vectors) are not in it. A view is immutable: a scan that goes on meanwhile
makes a new one.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Float32Array, Int64Array
from embedindex.errors import IndexDamagedError, IndexEmptyError, display_path
from embedindex.index_file import Trailer, read_index_file, read_trailer, remove_leftover, write_index_file
from embedindex.models.base import ModelIdentity
from embedindex.records import IndexModel
from embedindex.space import Space, learn_space
from embedindex.store import Store
from embedindex.writer import StoreWriter

if TYPE_CHECKING:
    import faiss

# A share of windows added and removed since the space was learnt (and the index built) after which both are made anew.
REBUILD_SHARE = 0.1
# FAISS compares halves of floats with vector instructions only when rows are a multiple of this long: without, a search
# among vectors of 207 dimensions takes nine times as long.
FAISS_WIDTH = 16
# Index files up to this length are read and checked by every scan, also by one that changes nothing.
CHECKED_AT_SCAN_BYTES = 2**30


@dataclass(frozen=True)
class IndexView:
    """A searchable state of an index.

    Attributes:
        space: the transform that queries have to go through.
        model: the model of the index.
        next_window: every window number is below it.
        windows: how many vectors can be found.
        base: vectors from the file on disk, and what came after them.
        removed: (first window, number) runs of `base` that are gone.
        damage: what is wrong with the file on disk, which was not used then; None when nothing is.
    """

    space: Space
    model: IndexModel
    next_window: int
    windows: int
    base: tuple[faiss.Index, ...]
    removed: tuple[tuple[int, int], ...] = ()
    damage: str | None = None

    def search(
        self, queries: Float32Array, k: int, allowed: BoolArray | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Return the nearest windows of each query vector.

        Args:
            queries: (n, dimension) float32 unit rows of the space.
            k: how many windows for each.
            allowed: (next_window,) True for window numbers that may be found; None for all.

        Returns:
            ((n, k) float32 cosine similarities, descending; (n, k) int64 window numbers, -1 where there are no more).
        """
        import faiss

        scores = np.full((len(queries), k), -np.inf, np.float32)
        windows = np.full((len(queries), k), -1, np.int64)
        if self.removed:
            allowed = np.ones(self.next_window, bool) if allowed is None else allowed.copy()
            for first, count in self.removed:
                allowed[first : first + count] = False
        parameters: Any = None
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        for part in self.base:
            if part.ntotal:
                found, numbers = part.search(_padded(queries, part.d), k, params=parameters)
                found = np.where(numbers < 0, -np.inf, found).astype(np.float32)
                both, ids = np.concatenate((scores, found), 1), np.concatenate((windows, numbers), 1)
                # Equal scores are ordered by window number, so that the same question has the same answer every time.
                order = np.lexsort((ids, -both), axis=1)[:, :k]
                scores, windows = np.take_along_axis(both, order, 1), np.take_along_axis(ids, order, 1)
        return scores, windows


def _new_faiss(dimension: int, expected: int = 0) -> faiss.Index:
    """Return an empty index with room for the `expected` number of vectors: growing would copy them again and again."""
    import faiss

    width = -(-dimension // FAISS_WIDTH) * FAISS_WIDTH
    flat = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    codes: Any = flat.codes
    codes.resize(expected * flat.code_size)
    codes.resize(0)  # the room stays
    return faiss.IndexIDMap(flat)


def _add(index: faiss.Index, space: Space, batches: Iterable[tuple[Int64Array, Float16Array]]) -> None:
    for numbers, vectors in batches:
        loud = np.flatnonzero(vectors.any(axis=1))
        if len(loud):
            index.add_with_ids(_padded(space.apply(vectors[loud]), index.d), numbers[loud])


def _padded(rows: Float32Array, width: int) -> Float32Array:
    """Return `rows` (n, d) as (n, `width`) contiguous, zeros behind: inner products stay what they are."""
    padded = np.zeros((len(rows), width), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded


def _rows(store: Store) -> Iterator[Float16Array]:
    for _, vectors in store.vector_batches():
        yield vectors


def _require_model(store: Store) -> IndexModel:
    model = store.model()
    if model is None:
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is nothing in this index yet; fill it with `embedindex scan FOLDER`"
        )
    return model


def _build(store: Store, identity: ModelIdentity, space: Space | None = None) -> tuple[faiss.Index, Space]:
    """Return an index of all vectors of the database, in `space` or in one learnt from them."""
    if space is None:
        space = learn_space(identity, _rows(store))
    index = _new_faiss(identity.dimension, store.counts().windows)
    _add(index, space, store.vector_batches())
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

    Raises:
        IndexEmptyError: there is nothing in the index.
        StoreError: the database cannot be read.
    """
    with store.snapshot():
        model = _require_model(store)
        damage = None
        try:
            found = read_index_file(store.folder)
        except IndexDamagedError as error:  # the database has everything
            found, damage = None, str(error)
        if found is None or not is_view_of(found[1], store, model.identity):
            data = store.space()
            index, space = _build(store, model.identity, Space.from_bytes(data) if data else None)
            return IndexView(space, model, store.next_window, index.ntotal, (index,), damage=damage)
        base, trailer = found
        space = Space.from_bytes(bytes.fromhex(trailer.space))
        if trailer.generation == store.generation:
            return IndexView(space, model, store.next_window, base.ntotal, (base,))
        fresh = _new_faiss(model.identity.dimension)
        _add(fresh, space, store.vector_batches(trailer.next_window))
        removed = tuple(
            (first, count) for first, count in store.removed_since(trailer.generation) if first < trailer.next_window
        )
        return IndexView(space, model, store.next_window, store.sounding_windows(), (base, fresh), removed)


def refresh_index(store: StoreWriter, *, rebuild: bool = False) -> bool:
    """Bring the index file up to date with the database; return whether it had to be written.

    The file is made anew when there is none that fits, when it is damaged, when more than a tenth of the windows came
    or went since its space was learnt, or when `rebuild` says so. Otherwise what came is added and what went removed.

    Raises:
        DiskFullError: no space is left; the file that was there stays and is caught up with by every search.
    """
    model = store.model()
    if model is None:
        return False
    remove_leftover(store.folder)
    on_disk = None
    with contextlib.suppress(IndexDamagedError):
        on_disk = read_trailer(store.folder)
    if on_disk is not None and not is_view_of(on_disk, store, model.identity):
        on_disk = None
    trailer = None if rebuild else on_disk
    if trailer is not None and trailer.generation == store.generation and _is_whole(store.folder, trailer):
        return False
    index: faiss.Index | None = None
    learnt_from = drift = 0
    space: Space
    if trailer is not None:
        caught_up = _caught_up(store, trailer)
        if caught_up is not None:
            index, space, drift = caught_up
            learnt_from = trailer.learnt_from
    if index is None:
        index, space = _build(store, model.identity)
        learnt_from = index.ntotal
        store.set_space(space.kind, space.to_bytes(), learnt_from)
    generation = store.generation
    stamp = secrets.token_hex(8)
    # Both names hold until the next file: the disk may be full, or a crash may come, before this one is in its place.
    store.put_index_stamps([stamp] if on_disk is None else [stamp, on_disk.stamp])
    write_index_file(
        store.folder,
        index,
        Trailer(
            database_id=store.database_id,
            generation=generation,
            next_window=store.next_window,
            fingerprint=model.identity.fingerprint,
            stamp=stamp,
            space=space.to_bytes().hex(),
            learnt_from=learnt_from,
            drift=drift,
            windows=index.ntotal,
        ),
    )
    store.forget_removals(generation)
    return True


def _is_whole(folder: str, trailer: Trailer) -> bool:
    """Return whether an index file's bytes are the right ones; very long files are left to `verify`."""
    if trailer.faiss_bytes > CHECKED_AT_SCAN_BYTES:
        return True
    try:
        return read_index_file(folder) is not None
    except IndexDamagedError:
        return False


def _caught_up(store: StoreWriter, trailer: Trailer) -> tuple[faiss.Index, Space, int] | None:
    """Return the index on disk with what came and went since, and its drift; None when it is better made anew."""
    removed = [run for run in store.removed_since(trailer.generation) if run[0] < trailer.next_window]
    came = store.next_window - trailer.next_window
    went = sum(count for _, count in removed)
    drift = trailer.drift + came + went
    if drift > REBUILD_SHARE * max(1, trailer.learnt_from):
        return None
    try:
        found = read_index_file(store.folder, mapped=False)
    except IndexDamagedError:
        return None
    if found is None:
        return None
    index = found[0]
    if removed:
        gone = np.concatenate([np.arange(first, first + count, dtype=np.int64) for first, count in removed])
        index.remove_ids(gone)  # type: ignore[arg-type]  # FAISS wraps it to take arrays
    space = Space.from_bytes(bytes.fromhex(trailer.space))
    _add(index, space, store.vector_batches(trailer.next_window))
    return index, space, drift
