"""Why a file has the score it has: which window of the query matched which place of the file, with what cosine.

Conventions: times are seconds; scores are made anew from the stored vectors, as `embedindex.search` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedindex.comparing import Compared, space_for
from embedindex.index import IndexView
from embedindex.likeness import likeness, vectors_as_set
from embedindex.matching import Order, lay
from embedindex.query import Query
from embedindex.search import By, Hit, Match, in_space, path_to_json, way_to_match
from embedindex.store import Store


@dataclass(frozen=True)
class Pair:
    """A window of the query and its best match in the file.

    Attributes:
        source: the file that the query's window is of.
        query_start_s: where it starts there.
        start_s: where the file's window starts.
        cosine: how alike they are.
    """

    source: bytes
    query_start_s: float
    start_s: float
    cosine: float


@dataclass(frozen=True)
class Explanation:
    """What one query adds to a score.

    Attributes:
        query: its path.
        unlike: whether it is subtracted.
        score: the file's (or place's) score for it alone.
        windows: how many windows of the query that is the mean of (the highest of, by window).
        pairs: the best matches, the best first.
    """

    query: bytes
    unlike: bool
    score: float
    windows: int
    pairs: tuple[Pair, ...]


def explain(
    store: Store,
    view: IndexView,
    hit: Hit,
    queries: Sequence[Query],
    unlike: Sequence[Query] = (),
    *,
    by: By = "file",
    match: Match = "auto",
    warp: bool = False,
    most: int = 3,
    space: Compared | None = None,
) -> list[Explanation]:
    """Return how the score of a hit comes about, query by query, with at most so many pairs for each.

    Of several hits of one search `space` is best given, as `space_for` says: to find out what it is may take a while.
    """
    hop_s = hit.file.hop_s or view.model.hop_s
    stored = store.vectors_of(hit.file)
    places = np.flatnonzero(stored.any(axis=1))
    if by == "window":
        places = np.array([round(hit.start_s / hop_s)])
    way = way_to_match(queries, by, match, warp)
    order: Order = "warp" if warp else "time"
    asked = [*((query, False) for query in queries), *((query, True) for query in unlike)]
    if way == "whole":
        space = view.space
    elif space is None:
        space = space_for(store, view, [query for query, _ in asked])
    everything = space.apply(stored)
    theirs = everything[places]
    explained = []
    for (query, away), phases in zip(asked, in_space(view, [query for query, _ in asked], space), strict=True):
        tables = [phase.rows @ theirs.T for phase in phases]
        if by == "window":
            number = int(np.argmax([table.max() for table in tables]))
            score = float(tables[number].max())
        elif way == "whole":
            number = 0
            own, file = (vectors_as_set(one, view.space) for one in (query.vectors[0], stored[places]))
            score = float(likeness(own, file)[0, 0])
        else:
            laid = lay(phases, everything, hop_s, order)
            number, score = laid.phase, laid.score
        best = tables[number].max(axis=1)
        rows = np.argsort(-best, kind="stable")[: 1 if by == "window" else most]
        pairs = tuple(
            Pair(
                query.sources[row] if query.sources else query.path,
                float(query.starts_s[number][row]),
                float(places[int(np.argmax(tables[number][row]))] * hop_s),
                min(1.0, float(best[row])),
            )
            for row in rows
        )
        windows = sum(map(len, tables)) if by == "window" else len(best)
        explained.append(Explanation(query.path, away, max(-1.0, min(1.0, score)), windows, pairs))
    return explained


def explanation_to_json(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as ``similar --verbose --json`` has it."""
    return {
        "query": path_to_json(explanation.query)["path"],
        "unlike": explanation.unlike,
        "score": round(explanation.score, 6),
        "windows": explanation.windows,
        "pairs": [
            {
                **path_to_json(pair.source),
                "query_start": round(pair.query_start_s, 6),
                "start": round(pair.start_s, 6),
                "cosine": round(pair.cosine, 6),
            }
            for pair in explanation.pairs
        ],
    }
