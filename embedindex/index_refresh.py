"""Writing the search index: from nothing by its plan, or what came and went since the file was written.

An exact index is written anew with every change: it is small. Lists are long: what came waits beside them, in the
database, where every search finds it, until it is enough to be worth writing the file; what went is skipped until then.
The centres are learnt again when windows that came lie farther from them than those they were learnt from, or when
another plan fits better.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedindex.errors import IndexDamagedError
from embedindex.index import add, budget_of, build_flat, is_view_of, rows_of
from embedindex.index_build import Progress, build_lists, fill
from embedindex.index_file import (
    SearchStep,
    Trailer,
    open_index,
    read_index_file,
    read_trailer,
    remove_leftover,
    write_index_file,
)
from embedindex.index_lists import ivf_of, list_sizes, lists_bytes
from embedindex.index_plan import Plan, make_plan
from embedindex.records import IndexModel
from embedindex.space import Space, learn_space
from embedindex.store import Store
from embedindex.writer import StoreWriter

if TYPE_CHECKING:
    import faiss

# A share of windows added and removed since the space was learnt (and an exact index built) after which both are made
# anew; of lists, the share removed.
REBUILD_SHARE = 0.1
# So many windows may wait beside lists: a search compares them in some milliseconds, a new process reads them in 0.1 s.
WAITING_WINDOWS = 10_000
# By how much of what it lacks to 1 the closeness of windows to their centres may fall before these are learnt again.
DRIFT = 0.15
DRIFT_WINDOWS = 1000  # fewer say nothing about drift
# Index files up to this length are read and checked by every scan, also by one that changes nothing.
CHECKED_AT_SCAN_BYTES = 2**30


@dataclass(frozen=True)
class _Content:
    """What goes into the file."""

    index: faiss.Index
    space: Space
    learnt_from: int
    drift: int = 0
    kind: str = "flat"
    steps: tuple[SearchStep, ...] = ()
    closeness: float = 0.0
    added: int = 0
    added_closeness: float = 0.0


def set_budget(store: StoreWriter, memory_bytes: int | None, recall: float | None) -> None:
    """Keep a budget of memory and a target of recall with the index; None leaves what is there."""
    with store.transaction():
        if memory_bytes is not None:
            store.put_setting("index_memory", memory_bytes)
        if recall is not None:
            store.put_setting("index_recall", recall)


def refresh_index(store: StoreWriter, *, rebuild: bool = False, progress: Progress | None = None) -> bool:
    """Bring the index file up to date with the database; return whether it had to be written.

    The file is made anew when there is none that fits, when it is damaged, when more than a tenth of the windows came
    or went since its space was learnt (of lists: when they drifted), or when `rebuild` says so. Otherwise what came is
    added and what went removed; a little beside lists is left for later, and found nevertheless.

    Args:
        store: the index.
        rebuild: make it anew in any case.
        progress: called with (what is being done, windows done, windows in all) while it is made anew.

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
    if trailer is not None and is_recent(store, trailer) and _is_whole(store.folder, trailer):
        return False
    plan = make_plan(store.sounding_windows(), model.identity.dimension, *budget_of(store))
    content = None if trailer is None else _caught_up(store, trailer, plan)
    if content is None:
        content = _built(store, model, plan, progress)
        store.set_space(content.space.kind, content.space.to_bytes(), content.learnt_from)
    _write(store, model, content, on_disk)
    return True


def is_recent(store: Store, trailer: Trailer) -> bool:
    """Return whether an index file is the database's present state, but for what may wait beside lists."""
    if trailer.generation == store.generation:
        return True
    if trailer.kind == "flat":
        return False
    went = sum(count for first, count in store.removed_since(trailer.generation) if first < trailer.next_window)
    return store.next_window - trailer.next_window <= WAITING_WINDOWS and went <= REBUILD_SHARE * trailer.windows


def _write(store: StoreWriter, model: IndexModel, content: _Content, on_disk: Trailer | None) -> None:
    generation = store.generation
    stamp = secrets.token_hex(8)
    # Both names hold until the next file: the disk may be full, or a crash may come, before this one is in its place.
    store.put_index_stamps([stamp] if on_disk is None else [stamp, on_disk.stamp])
    write_index_file(
        store.folder,
        content.index,
        Trailer(
            database_id=store.database_id,
            generation=generation,
            next_window=store.next_window,
            fingerprint=model.identity.fingerprint,
            stamp=stamp,
            space=content.space.to_bytes().hex(),
            learnt_from=content.learnt_from,
            drift=content.drift,
            windows=content.index.ntotal,
            kind=content.kind,
            steps=content.steps,
            closeness=content.closeness,
            added=content.added,
            added_closeness=content.added_closeness,
            sizes="" if content.kind == "flat" else list_sizes(content.index).astype("<u4").tobytes().hex(),
        ),
        0 if content.kind == "flat" else lists_bytes(content.index),
    )
    store.forget_removals(generation)


def _built(store: StoreWriter, model: IndexModel, plan: Plan, progress: Progress | None) -> _Content:
    """Return an index of all vectors, in a space learnt from them."""
    if plan.kind == "flat":
        index, space = build_flat(store, model.identity)
        return _Content(index, space, index.ntotal)
    if progress is not None:
        progress("Learning the space", 0, plan.windows)
    space = learn_space(model.identity, rows_of(store))
    built = build_lists(store, plan, space, progress)
    return _Content(
        built.index, space, built.index.ntotal, kind=plan.kind, steps=built.steps, closeness=built.closeness
    )


def _is_whole(folder: str, trailer: Trailer) -> bool:
    """Return whether an index file's bytes are the right ones; very long files and lists are left to `verify`."""
    if trailer.kind == "flat" and trailer.faiss_bytes > CHECKED_AT_SCAN_BYTES:
        return True
    try:
        return open_index(folder) is not None
    except IndexDamagedError:
        return False


def _caught_up(store: StoreWriter, trailer: Trailer, plan: Plan) -> _Content | None:
    """Return what is on disk with what came and went since; None when it is better made anew."""
    removed = [run for run in store.removed_since(trailer.generation) if run[0] < trailer.next_window]
    came = store.next_window - trailer.next_window
    went = sum(count for _, count in removed)
    drift = trailer.drift + came + went
    if plan.kind != trailer.kind or (plan.kind == "flat" and drift > REBUILD_SHARE * max(1, trailer.learnt_from)):
        return None
    try:
        found = read_index_file(store.folder, mapped=False)
    except IndexDamagedError:
        return None
    if found is None:
        return None
    index = found[0]
    if plan.kind != "flat" and plan.lists >= 2 * ivf_of(index).nlist:
        return None
    if removed:
        gone = np.concatenate([np.arange(first, first + count, dtype=np.int64) for first, count in removed])
        index.remove_ids(gone)  # type: ignore[arg-type]  # FAISS wraps it to take arrays
    space = Space.from_bytes(bytes.fromhex(trailer.space))
    batches = store.vector_batches(trailer.next_window)
    if plan.kind == "flat":
        add(index, space, batches)
        return _Content(index, space, trailer.learnt_from, drift)
    before = index.ntotal
    closeness = fill(index, space, batches)
    new = index.ntotal - before
    added = trailer.added + new
    added_closeness = (trailer.added * trailer.added_closeness + (new * closeness if new else 0.0)) / max(1, added)
    if added >= DRIFT_WINDOWS and trailer.closeness - added_closeness > DRIFT * (1 - trailer.closeness):
        return None
    return _Content(
        index, space, trailer.learnt_from, drift, trailer.kind, trailer.steps, trailer.closeness, added,
        added_closeness,
    )  # fmt: skip
