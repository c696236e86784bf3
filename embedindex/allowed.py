"""Which windows a search may find: those of the files that pass its filters, but for the sounds that are asked for."""

from __future__ import annotations

import numpy as np

from embedindex.arrays import BoolArray
from embedindex.errors import QueryError
from embedindex.filters import Filters, nothing_passes
from embedindex.index import IndexView
from embedindex.records import FileRecord
from embedindex.store import Store

# So many runs of windows are marked one by one, more in one pass over all window numbers.
FEW_RUNS = 2000


def allowed_windows(
    store: Store, view: IndexView, filters: Filters, selves: tuple[FileRecord, ...]
) -> BoolArray | None:
    """Return which window numbers may be found, (next_window,) bool, or None for all."""
    unfiltered = filters == Filters()
    if unfiltered and not store.has_missing():
        if not selves:
            return None
        allowed = np.ones(view.next_window, bool)  # a number that no window has any more finds nothing
    else:
        allowed = passing_windows(store, view, filters)
    for record in selves:
        if record.first_window is not None:
            allowed[record.first_window : record.first_window + record.n_windows] = False
    if not unfiltered and not allowed.any():
        raise QueryError(nothing_passes(store, filters))
    return allowed


def passing_windows(store: Store, view: IndexView, filters: Filters) -> BoolArray:
    """Return (next_window,) whether each window number belongs to a file that passes the filters."""
    where, values = filters.sql()
    runs = np.array(store.window_runs(where, values), np.int64).reshape(-1, 2)
    runs = runs[runs.sum(axis=1) <= view.next_window]  # a scan may have added files since the view was made
    allowed = np.zeros(view.next_window, bool)
    if len(runs) <= FEW_RUNS:
        for first, count in runs.tolist():
            allowed[first : first + count] = True
        return allowed
    steps = np.zeros(view.next_window + 1, np.int8)
    np.add.at(steps, runs[:, 0], 1)
    np.add.at(steps, runs.sum(axis=1), -1)
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
