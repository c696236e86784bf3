"""What sounds like this: ranking the files, or the windows, of an index by similarity to a query.

Two ways to match. *Inside*: is the query in the file? Each window of the query is compared with every window of the
file, by cosine similarity in the index's space; half of the score is the mean of the best ones, wherever they are, the
other half the mean where the query's windows lie one after the other in the file (`embedindex.matching`). A file is
thus found by any part that resembles the query, and a long one is not punished for being long. *Whole*: are the two
alike from end to end, in both directions (`embedindex.whole`)? Either way a file compared with itself scores 1. FAISS
proposes the files; the scores are computed from the stored vectors. See docs/similar.md.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedindex.allowed import allowed_windows
from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.comparing import Compared, space_for
from embedindex.errors import IndexEmptyError, UsageError, display_path
from embedindex.filters import Filters
from embedindex.index import IndexView
from embedindex.matching import Order, Phase, lay
from embedindex.query import Query
from embedindex.recognise import USUAL, recognised_first
from embedindex.records import FileRecord
from embedindex.space import Space
from embedindex.store import Store
from embedindex.whitening import WhitenedSpace
from embedindex.whole import MAX_PROPOSED_WINDOWS, By, Match, Row, way_to_match, whole_files
from embedindex.windows import window_start_s

# So many windows FAISS proposes for each window of the query, and so many files are compared exactly, at the least.
PROPOSED_WINDOWS = 100
COMPARED_FILES = 50
# Where a search is cheap (query windows × windows of the index), it goes on until no other file can be among the best.
CHEAP_SEARCH = 500_000
CHEAP_COMPARED_FILES = 500
# Whitening a window costs more than comparing it; in a big index so many proposals hold what can be found, in a fifth
# of the time that all take (docs/decisions/queries.md).
WHITENED_FILES = 100
WHITENED_WINDOWS = 400
# FAISS keeps vectors as float16: a score it proposes differs by less than this from the exact one.
PROPOSAL_ERROR = 2e-3
# Scores that agree in so many digits are equal: the rest depends on the order in which a machine adds.
SCORE_DIGITS = 6
# How much the likeness to an unwanted sound takes from a score, unless said otherwise.
UNLIKE_WEIGHT = 0.5
__all__ = [
    "UNLIKE_WEIGHT",
    "By",
    "Filters",
    "Hit",
    "Match",
    "hit_to_json",
    "in_space",
    "labels_of",
    "path_to_json",
    "search",
    "way_to_match",
]


@dataclass(frozen=True)
class _Question:
    """What is asked.

    Attributes:
        like: the phases of each of the sounds to be like.
        unlike: those of the sounds to be unlike.
        weight: how much a file's score for those takes from its score; 0 when there are none.
        order: whether the order of a sound's windows counts.
        space: what all of them, and the files, are compared in.
    """

    like: list[list[Phase]]
    unlike: list[list[Phase]]
    weight: float
    order: Order
    space: Compared

    @property
    def guessed(self) -> bool:
        """Whether the index, which compares in a space of its own, only guesses at scores."""
        return not isinstance(self.space, Space)

    @property
    def rows(self) -> Float32Array:
        """All windows of all phases of the sounds to be like, (n, dimension), as the index is asked for them."""
        rows = np.concatenate([phase.rows for phases in self.like for phase in phases])
        return rows if isinstance(self.space, Space) else self.space.proposals(rows)


@dataclass(frozen=True)
class Found:
    """The group that a result stands for: its name, None for a file by itself, and how many of its files were found."""

    name: str | None
    files: int


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: from 1.
        file: the file that was found.
        score: cosine similarity in the index's space, less what likeness to unwanted sounds takes from it.
        start_s: where the query begins in it, or (by window, or for several queries) its best matching window, seconds.
        end_s: where that place ends (not beyond the file's end).
        labels: the file's labels, several values to a key.
        group: what it stands for, where results are grouped (see `embedindex.grouping`).
    """

    rank: int
    file: FileRecord
    score: float
    start_s: float
    end_s: float
    labels: dict[str, list[str]]
    group: Found | None = None


def search(
    store: Store,
    view: IndexView,
    queries: Sequence[Query],
    *,
    k: int = 10,
    by: By = "file",
    filters: Filters | None = None,
    include_self: bool = False,
    unlike: Sequence[Query] = (),
    unlike_weight: float = UNLIKE_WEIGHT,
    match: Match = "auto",
    warp: bool = False,
) -> list[Hit]:
    """Return the `k` files (or windows) most similar to some sounds, the most similar first.

    With several queries, a file's score is the mean of its scores for each; a window's is the best of them. With
    `unlike`, the same score for those sounds, times `unlike_weight`, is subtracted.

    Args:
        store: the index.
        view: its search index.
        queries: one or more sounds.
        k: how many results.
        by: ``"file"``: each file once; ``"window"``: places in files, several to a file.
        filters: which files may be found.
        include_self: whether the queries themselves (and the unwanted sounds) may be found.
        unlike: sounds to stay away from.
        unlike_weight: by how much, above 0.
        match: ``"inside"``: find the queries in files; ``"whole"``: compare them with whole files; ``"auto"``: what
            `way_to_match` says.
        warp: inside, a query also matches at any speed from half to twice its own.

    Raises:
        UsageError: `k` is less than 1, there is no query, the weight is not above 0, or `match`, `warp` and `by` do not
            go together.
        IndexEmptyError: there is nothing to find in the index.
        QueryError: the filters leave nothing to search.
    """
    if view.windows == 0:
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is no sound in this index yet; fill it with `embedindex scan FOLDER`"
        )
    if k < 1 or not queries:
        raise UsageError("give at least one sound to search for, and -k of at least 1")
    if not 0 < unlike_weight < float("inf"):
        raise UsageError(f"the weight of unwanted sounds must be a number above 0, not {unlike_weight:g}")
    way = way_to_match(queries, by, match, warp)
    # Of so many files the waveforms are listened to, where that can tell one sound from its likes.
    heard = USUAL.files if (way, by, len(queries), len(unlike), warp) == ("inside", "file", 1, 0, False) else 0
    selves = tuple(record for query in (*queries, *unlike) for record in query.records)
    with store.snapshot():  # a scan may go on meanwhile
        allowed = allowed_windows(store, view, filters or Filters(), () if include_self else selves)
        weight = unlike_weight if unlike else 0.0
        if way == "whole":
            rows = whole_files(store, view, queries, unlike, weight, allowed)
        else:
            order: Order = "any" if by == "window" else "warp" if warp else "time"
            space = space_for(store, view, (*queries, *unlike))
            like, away = (in_space(view, sounds, space) for sounds in (queries, unlike))
            question = _Question(like, away, weight, order, space)
            rows = (_best_windows if by == "window" else _best_files)(store, view, question, allowed, max(k, heard))
        # Of equals the query itself comes first, then they go by path and time: the same question, the same answer.
        own = {record.id for record in selves}
        rows.sort(key=lambda row: (-round(row[0], SCORE_DIGITS), row[1].id not in own, row[1].path, row[2]))
        if heard:
            rows = recognised_first(store, queries[0], like[0], space, view.model.hop_s, rows)
        hits = []
        for rank, (score, record, start_s, end_s) in enumerate(rows[:k], 1):
            end_s = min(end_s, max(start_s, record.duration or end_s))
            hits.append(Hit(rank, record, score, start_s, end_s, labels_of(store, record)))
    return hits


def in_space(view: IndexView, queries: Sequence[Query], space: Compared) -> list[list[Phase]]:
    """Return the phases of queries in a space; the windows of a folder have no order."""
    window_s = view.model.identity.window_s
    asked = []
    for query in queries:
        phases = []
        for number, vectors in enumerate(query.vectors):
            starts_s = query.starts_s[number] if query.starts_s and not query.sources else np.zeros(0)
            tail_s = window_s
            if len(starts_s) and query.length_s is not None:
                tail_s = min(window_s, max(0.0, query.offset_s + query.length_s - float(starts_s[-1])))
            phases.append(Phase(space.apply(vectors), starts_s - query.offset_s, tail_s))
        asked.append(phases)
    return asked


def labels_of(store: Store, record: FileRecord) -> dict[str, list[str]]:
    """Return a file's labels as {key: [values]}."""
    labels: dict[str, list[str]] = {}
    for label in store.labels_of([record.id]).get(record.id, []):
        values = labels.setdefault(label.key, [])
        if label.value not in values:
            values.append(label.value)
    return labels


def _best_windows(store: Store, view: IndexView, question: _Question, allowed: BoolArray | None, k: int) -> list[Row]:
    """Return at least the `k` best windows, in no order: those of the files whose windows FAISS finds first."""
    everything = question.rows
    proposed, compared = PROPOSED_WINDOWS, COMPARED_FILES + k
    if question.unlike or question.guessed:  # what is found first may be what is unwanted, or not the best
        proposed, files = _where_guessed(question, len(everything) * view.windows <= CHEAP_SEARCH)
        compared = files + k
    depth = min(max(proposed, 2 * k), view.windows)
    scores, windows = view.search(everything, depth, allowed)
    found = windows >= 0
    numbers, where = np.unique(windows[found], return_inverse=True)
    best = np.full(len(numbers), -np.inf, np.float32)
    np.maximum.at(best, where, scores[found])
    order = np.argsort(-best, kind="stable")
    if question.unlike or question.guessed:
        owners = store.owners_of_windows(numbers)[order]
        found_in = list(dict.fromkeys(owners[owners >= 0].tolist()))[:compared]
    else:
        found_in = sorted(set(store.owners_of_windows(np.sort(numbers[order[:compared]])).tolist()) - {-1})
    return [row for file_id in found_in for row in _compare(store, view, store.file(file_id), question, "window", k)]


def _best_files(store: Store, view: IndexView, question: _Question, allowed: BoolArray | None, k: int) -> list[Row]:
    """Return at least the `k` best files, in no order; fewer only when there are fewer.

    The threshold algorithm (R. Fagin, A. Lotem, M. Naor, "Optimal aggregation algorithms for middleware", 2003): FAISS
    proposes windows for each window of the query, which bounds the score that any file can have; files are compared
    exactly from the highest bound down, until the next bound is below the k-th score. Files that were compared are
    left out of the next round of proposals, so that one long file cannot hide all others. In a big index one round has
    to do, as long as it gives `k` files. Unwanted sounds can add at most their weight to a bound (a cosine of -1). In a
    space that is not the index's own there are no bounds: as many files are compared as may be.
    """
    everything = question.rows
    cheap = len(everything) * view.windows <= CHEAP_SEARCH
    least, most = PROPOSED_WINDOWS, CHEAP_COMPARED_FILES if cheap or question.unlike else COMPARED_FILES
    if question.guessed:
        least, most = _where_guessed(question, cheap)
    most = max(most, 2 * k)
    depth = min(max(least, min(2 * k, MAX_PROPOSED_WINDOWS)), view.windows)
    left = np.ones(view.next_window, bool) if allowed is None else allowed.copy()
    rows: list[Row] = []
    best: list[float] = []  # the k best scores so far, a heap
    worst = -np.inf  # the least of them, less what a proposal may be wrong by; -inf as long as there are not k
    while True:
        scores, windows = view.search(everything, depth, left if rows else allowed)
        files, bounds, unseen = _bounds(store, question.like, scores, windows)
        for place in np.lexsort((files, -bounds)):
            if bounds[place] + question.weight < worst or (len(rows) >= most and len(best) == k):
                break
            record = store.file(int(files[place]))
            compared = _compare(store, view, record, question, "file", k)
            rows += compared
            for score, *_ in compared:
                heapq.heappush(best, score)
                if len(best) > k:
                    heapq.heappop(best)
            worst = best[0] - PROPOSAL_ERROR if len(best) == k and not question.guessed else -np.inf
            if record.first_window is not None:
                left[record.first_window : record.first_window + record.n_windows] = False
        enough = len(best) == k and (not cheap or len(rows) >= most)
        if enough or not len(files) or unseen + question.weight < worst:
            return rows


def _where_guessed(question: _Question, cheap: bool) -> tuple[int, int]:
    """Return how many windows are proposed for each of the query, and files compared, where proposals are guesses."""
    if isinstance(question.space, WhitenedSpace):
        return MAX_PROPOSED_WINDOWS if cheap else WHITENED_WINDOWS, WHITENED_FILES
    return MAX_PROPOSED_WINDOWS, CHEAP_COMPARED_FILES


def _bounds(
    store: Store, like: list[list[Phase]], scores: Float32Array, windows: Int64Array
) -> tuple[Int64Array, Float64Array, float]:
    """Return what the scores of files can be at most, given the windows that FAISS proposes.

    Args:
        store: the index.
        like: the queries' phases; N rows in all.
        scores: (N, depth) of the proposed windows, descending.
        windows: (N, depth) their numbers, -1 where there are no more.

    Returns:
        ((files,) ids; (files,) their greatest possible scores; the greatest possible score of any other file).
    """
    found = windows >= 0
    numbers, where = np.unique(windows[found], return_inverse=True)
    owners = store.owners_of_windows(numbers)[where]
    rows = np.nonzero(found)[0][owners >= 0]
    similarity = scores[found][owners >= 0].astype(np.float64)
    owners = owners[owners >= 0]
    # What was not proposed for a row is at most as similar as the last that was; nothing is left without a last.
    floor = np.where(found.all(axis=1), scores[:, -1], -1.0).astype(np.float64)
    order = np.lexsort((-similarity, rows, owners))
    first = np.ones(len(order), bool)
    first[1:] = (owners[order][1:] != owners[order][:-1]) | (rows[order][1:] != rows[order][:-1])
    best = order[first]
    ids, place = np.unique(owners[best], return_inverse=True)
    lengths = [len(phase.rows) for phases in like for phase in phases]
    phase_of_row = np.repeat(np.arange(len(lengths)), lengths)
    means = np.zeros((len(ids) + 1, len(lengths)))  # the last line is for all other files
    means += np.bincount(phase_of_row, floor)
    np.add.at(means, (place, phase_of_row[rows[best]]), similarity[best] - floor[rows[best]])
    means /= lengths
    ends = np.cumsum([len(phases) for phases in like])
    totals = np.sum([part.max(axis=1) for part in np.split(means, ends[:-1], axis=1)], axis=0) / len(like)
    return ids, totals[:-1], float(totals[-1]) if found.all() else -np.inf


def _compare(store: Store, view: IndexView, record: FileRecord, question: _Question, by: By, k: int) -> list[Row]:
    """Return the row for the file as a whole, or those for its `k` best windows."""
    theirs = question.space.apply(store.vectors_of(record))
    loud = np.asarray(theirs.any(axis=1))
    if not loud.any():
        return []
    hop_s, window_s = record.hop_s or view.model.hop_s, view.model.identity.window_s
    if by == "file":
        laid = [lay(phases, theirs, hop_s, question.order) for phases in question.like]
        score = float(np.mean([one.score for one in laid]))
        if question.unlike:
            away = [lay(phases, theirs, hop_s, question.order).score for phases in question.unlike]
            score -= question.weight * max(-1.0, min(1.0, float(np.mean(away))))
        else:
            score = max(-1.0, min(1.0, score))  # rounding may have left a cosine's range
        if len(laid) == 1 and laid[0].start_s is not None and laid[0].end_s is not None:
            return [(score, record, laid[0].start_s, laid[0].end_s)]
        chosen = [[phases[one.phase]] for phases, one in zip(question.like, laid, strict=True)]
        start_s = window_start_s(int(np.argmax(_of_windows(chosen, theirs))), hop_s)
        return [(score, record, start_s, start_s + window_s)]
    of_windows = _of_windows(question.like, theirs)
    if question.unlike:
        of_windows = of_windows - np.float32(question.weight) * _of_windows(question.unlike, theirs)
    of_windows = np.where(loud, of_windows, -np.inf)
    places = [int(place) for place in np.argsort(-of_windows, kind="stable")[:k] if loud[place]]
    starts_s = [window_start_s(place, hop_s) for place in places]
    return [
        (float(of_windows[place]), record, start_s, start_s + window_s)
        for place, start_s in zip(places, starts_s, strict=True)
    ]


def _of_windows(sounds: list[list[Phase]], theirs: Float32Array) -> Float32Array:
    """Return (m,) the best cosine of each window of a file, (m, dimension), with any window of some sounds."""
    rows = np.concatenate([phase.rows for phases in sounds for phase in phases])
    return np.asarray(np.minimum((rows @ theirs.T).max(axis=0), np.float32(1)), np.float32)


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
        "instrument": hit.file.instrument,
        **({} if hit.group is None else {"group": {"name": hit.group.name, "files": hit.group.files}}),
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
