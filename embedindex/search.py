"""What sounds like this: ranking the files, or the windows, of an index by similarity to a query.

How a file's score is made: each window of the query is compared with every window of the file, by cosine similarity in
the index's space; the best one counts; the mean over the query's windows is the file's score. (For a query that was
embedded from several starting points, the best of them counts.) A file is thus found by any part that resembles the
query, a long file is not punished for being long, and a file compared with itself scores 1. FAISS proposes the files;
the scores are computed from the stored vectors. See docs/similar.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Int64Array
from embedindex.errors import IndexEmptyError, QueryError, UsageError, display_path
from embedindex.index import IndexView
from embedindex.query import Query
from embedindex.records import FileRecord
from embedindex.store import Store
from embedindex.windows import window_start_s

# So many windows FAISS proposes for each window of the query, and so many files are compared exactly, at the least.
PROPOSED_WINDOWS = 100
COMPARED_FILES = 50
By = Literal["file", "window"]


@dataclass(frozen=True)
class Filters:
    """Which files may be found.

    Attributes:
        labels: (key, value) pairs; a file must have each of them.
        path: glob over the whole path, or over its end from any folder on (``*`` also matches ``/``).
        min_duration_s: shortest file, seconds.
        max_duration_s: longest file, seconds.
    """

    labels: tuple[tuple[str, str], ...] = ()
    path: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None

    def sql(self, *, missing: bool = False) -> tuple[str, list[Any]]:
        """Return an SQL condition on the table ``files``, with its parameters; `missing` files too, or not."""
        terms = ["1" if missing else "missing_since IS NULL"]
        values: list[Any] = []
        for key, value in self.labels:
            terms.append(
                "EXISTS (SELECT 1 FROM labels WHERE labels.file_id = files.id AND key = ? AND value = ? COLLATE NOCASE)"
            )
            values += [key, value]
        if self.path is not None:
            pattern = self.path if self.path.startswith("/") else f"*/{self.path}"
            terms.append("path_text GLOB ?")
            values.append(pattern)
        if self.min_duration_s is not None:
            terms.append("duration >= ?")
            values.append(float(self.min_duration_s))
        if self.max_duration_s is not None:
            terms.append("duration <= ?")
            values.append(float(self.max_duration_s))
        return " AND ".join(terms), values


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: from 1.
        file: the file that was found.
        score: cosine similarity in the index's space, see the module's text.
        start_s: where its best matching window starts, in seconds.
        end_s: where that window ends (not beyond the file's end).
        labels: the file's labels, several values to a key.
    """

    rank: int
    file: FileRecord
    score: float
    start_s: float
    end_s: float
    labels: dict[str, list[str]]


def search(
    store: Store,
    view: IndexView,
    queries: Sequence[Query],
    *,
    k: int = 10,
    by: By = "file",
    filters: Filters | None = None,
    include_self: bool = False,
) -> list[Hit]:
    """Return the `k` files (or windows) most similar to some sounds, the most similar first.

    With several queries, a file's score is the mean of its scores for each.

    Args:
        store: the index.
        view: its search index.
        queries: one or more sounds.
        k: how many results.
        by: ``"file"``: each file once; ``"window"``: places in files, several to a file.
        filters: which files may be found.
        include_self: whether the queries themselves may be found.

    Raises:
        UsageError: `k` is less than 1, or there is no query.
        IndexEmptyError: there is nothing to find in the index.
        QueryError: the filters leave nothing to search.
    """
    if view.windows == 0:
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is no sound in this index yet; fill it with `embedindex scan FOLDER`"
        )
    if k < 1 or not queries:
        raise UsageError("give at least one sound to search for, and -k of at least 1")
    selves = () if include_self else tuple(query.record for query in queries if query.record is not None)
    allowed = _allowed(store, view, filters or Filters(), selves)
    vectors = [[view.space.apply(phase) for phase in query.vectors] for query in queries]
    candidates = _candidates(store, view, vectors, allowed, k)
    compared = [_compare(store, view, record, vectors, by, k) for record in candidates]
    rows = [row for found in compared for row in found]
    # Ties go by path and time, so that the same question has the same answer.
    rows.sort(key=lambda row: (-row[0], row[1].path, row[2]))
    window_s = view.model.identity.window_s
    hits = []
    for rank, (score, record, window) in enumerate(rows[:k], 1):
        start_s = window_start_s(window, record.hop_s or view.model.hop_s)
        end_s = min(start_s + window_s, max(start_s, record.duration or start_s + window_s))
        hits.append(Hit(rank, record, score, start_s, end_s, labels_of(store, record)))
    return hits


def labels_of(store: Store, record: FileRecord) -> dict[str, list[str]]:
    """Return a file's labels as {key: [values]}."""
    labels: dict[str, list[str]] = {}
    for label in store.labels_of([record.id]).get(record.id, []):
        values = labels.setdefault(label.key, [])
        if label.value not in values:
            values.append(label.value)
    return labels


def _allowed(store: Store, view: IndexView, filters: Filters, selves: tuple[FileRecord, ...]) -> BoolArray | None:
    """Return which window numbers may be found, (next_window,) bool, or None for all."""
    unfiltered = filters == Filters()
    if unfiltered and not selves and not store.has_missing():
        return None
    where, values = filters.sql()
    runs = np.array(store.window_runs(where, values), np.int64).reshape(-1, 2)
    steps = np.zeros(view.next_window + 1, np.int8)
    inside = runs[runs[:, 0] + runs[:, 1] <= view.next_window]  # a scan may have added files since the view was made
    np.add.at(steps, inside[:, 0], 1)
    np.add.at(steps, inside.sum(axis=1), -1)
    allowed = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
    for record in selves:
        if record.first_window is not None:
            allowed[record.first_window : record.first_window + record.n_windows] = False
    if not unfiltered and not allowed.any():
        raise QueryError("no sound in the index passes these filters; `embedindex list` shows what there is")
    return allowed


def _candidates(
    store: Store, view: IndexView, vectors: list[list[Float32Array]], allowed: BoolArray | None, k: int
) -> list[FileRecord]:
    """Return the files worth an exact comparison, by what FAISS finds for each window of the queries."""
    everything = np.concatenate([phase for phases in vectors for phase in phases])
    scores, windows = view.search(everything, max(PROPOSED_WINDOWS, 2 * k), allowed)
    hits = windows >= 0
    numbers, where = np.unique(windows[hits], return_inverse=True)
    owners = store.owners_of_windows(numbers)
    found = owners[where]
    query_rows = np.broadcast_to(np.arange(len(everything))[:, None], windows.shape)[hits]
    known = found >= 0
    return [
        store.file(file_id)
        for file_id in _best_files(found[known], query_rows[known], scores[hits][known], max(COMPARED_FILES, 2 * k))
    ]


def _best_files(files: Int64Array, rows: Int64Array, scores: Float32Array, count: int) -> list[int]:
    """Return the `count` files with the largest sums, over the query's windows, of their best proposed score.

    Args:
        files: (hits,) file id of each proposed window.
        rows: (hits,) which query window it was proposed for.
        scores: (hits,) its score.
        count: how many files.
    """
    order = np.lexsort((-scores, rows, files))
    first = np.ones(len(order), bool)
    first[1:] = (files[order][1:] != files[order][:-1]) | (rows[order][1:] != rows[order][:-1])
    best = order[first]
    ids, where = np.unique(files[best], return_inverse=True)
    totals = np.zeros(len(ids))
    np.add.at(totals, where, 1.0 + scores[best])  # from 0 to 2, so that a file gains by every window it is proposed for
    return [int(ids[place]) for place in np.lexsort((ids, -totals))[:count]]


def _compare(
    store: Store, view: IndexView, record: FileRecord, vectors: list[list[Float32Array]], by: By, k: int
) -> list[tuple[float, FileRecord, int]]:
    """Return (score, file, window of the file) for the file as a whole, or for its `k` best windows."""
    stored = store.vectors_of(record)
    loud = np.flatnonzero(stored.any(axis=1))
    if not len(loud):
        return []
    theirs = view.space.apply(stored[loud])
    total = 0.0
    best_windows = np.full(len(loud), -np.inf, np.float32)
    for phases in vectors:
        similarities = [phase @ theirs.T for phase in phases]
        means = [float(table.max(axis=1).mean()) for table in similarities]
        total += max(means)
        for table in similarities if by == "window" else [similarities[int(np.argmax(means))]]:
            np.maximum(best_windows, table.max(axis=0), out=best_windows)
    if by == "file":
        place = int(np.argmax(best_windows))
        return [(min(1.0, total / len(vectors)), record, int(loud[place]))]
    places = np.argsort(-best_windows, kind="stable")[:k]
    return [(min(1.0, float(best_windows[place])), record, int(loud[place])) for place in places]


def hit_to_json(hit: Hit) -> dict[str, Any]:
    """Return a hit as the command line's JSON has it; an undecodable path also comes as base64 of its bytes."""
    return {
        "rank": hit.rank,
        **path_to_json(hit.file.path),
        "score": round(hit.score, 6),
        "start": round(hit.start_s, 6),
        "end": round(hit.end_s, 6),
        "duration": None if hit.file.duration is None else round(hit.file.duration, 6),
        "labels": hit.labels,
    }


def path_to_json(path: bytes) -> dict[str, str]:
    """Return {"path": text}, and "path_base64" where the bytes are not UTF-8 (`path` then has surrogate escapes)."""
    text = os.fsdecode(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        import base64

        return {"path": text, "path_base64": base64.b64encode(path).decode("ascii")}
    return {"path": text}
