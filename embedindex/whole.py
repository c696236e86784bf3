"""Comparing sounds with files as wholes, from end to end and in both directions; and when that is what is asked.

Conventions: those of `embedindex.likeness`, which does the comparing; scores are from -1 to 1, 1 for a file and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from embedindex.arrays import BoolArray
from embedindex.errors import UsageError
from embedindex.index import IndexView
from embedindex.likeness import join, likeness, load_files, vectors_as_set
from embedindex.query import Query
from embedindex.records import FileRecord
from embedindex.store import Store

# Sounds of this length and more are compared with files as wholes, unless said otherwise.
WHOLE_FROM_S = 60.0
# So many windows FAISS proposes, at the most, for each stretch of a sound…
MAX_PROPOSED_WINDOWS = 2000
# … and so many of the files that they are of are compared.
WHOLE_COMPARED_FILES = 200

By = Literal["file", "window"]
Match = Literal["auto", "inside", "whole"]
Row = tuple[float, FileRecord, float, float]  # score, file, and the place's start and end in seconds


def way_to_match(
    queries: Sequence[Query], by: By, match: Match = "auto", warp: bool = False
) -> Literal["inside", "whole"]:
    """Return how queries are matched: sounds of a minute and more as wholes, others inside, unless `match` says it.

    Raises:
        UsageError: whole files have no places and no speed, and no order is asked for by window.
    """
    if by == "window" and (match == "whole" or warp):
        raise UsageError("places in files are found window by window; ask for --match whole or --warp by file")
    if match == "whole" and warp:
        raise UsageError("--warp follows a sound inside a file; leave out --match whole")
    if match != "auto":
        return match
    long = all(not query.sources and (query.length_s or 0.0) >= WHOLE_FROM_S for query in queries)
    return "whole" if long and by == "file" and not warp else "inside"


def whole_files(
    store: Store,
    view: IndexView,
    queries: Sequence[Query],
    unlike: Sequence[Query],
    weight: float,
    allowed: BoolArray | None,
) -> list[Row]:
    """Return rows for the files that are most like some sounds as wholes, at most `WHOLE_COMPARED_FILES`, in no order.

    FAISS proposes windows for each stretch of the sounds; of the files they are of, those with the highest cosines are
    compared. In an index of up to `MAX_PROPOSED_WINDOWS` windows these are all files, as long as they are not more.

    Args:
        store: the index.
        view: its search index.
        queries: the sounds to be like; a file's score is the mean of its likenesses to them.
        unlike: sounds to be unlike.
        weight: how much the likeness to those takes from the score.
        allowed: (next_window,) which windows may be found; None for all.
    """
    like = join([vectors_as_set(query.vectors[0], view.space) for query in queries])
    away = join([vectors_as_set(query.vectors[0], view.space) for query in unlike]) if unlike else None
    scores, windows = view.search(like.rows, min(MAX_PROPOSED_WINDOWS, view.windows), allowed)
    found = windows >= 0
    numbers, where = np.unique(windows[found], return_inverse=True)
    ids, place = np.unique(store.owners_of_windows(numbers)[where], return_inverse=True)
    best = np.full((len(ids), len(like.rows)), -1.0, np.float32)
    np.maximum.at(best, (place, np.nonzero(found)[0]), scores[found])
    order = np.argsort(-best.mean(axis=1), kind="stable")
    chosen = [store.file(int(file_id)) for file_id in ids[order] if file_id >= 0][:WHOLE_COMPARED_FILES]
    record_of = {record.id: record for record in chosen}
    rows: list[Row] = []
    for files in load_files(store, chosen, view.space):
        totals = likeness(like, files).mean(axis=0).clip(-1.0, 1.0)
        if away is not None:
            totals = totals - np.float32(weight) * likeness(away, files).mean(axis=0)
        for file_id, total in zip(files.ids, totals, strict=True):
            record = record_of[int(file_id)]
            rows.append((float(total), record, 0.0, record.duration or 0.0))
    return rows
