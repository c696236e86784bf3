"""What queries and files are compared in, inside files: the index's space, or what of it tells such sounds apart."""

from __future__ import annotations

from collections.abc import Sequence

from embedindex.index import IndexView
from embedindex.narrow import NarrowSpace, narrow_for
from embedindex.query import Query
from embedindex.space import Space
from embedindex.store import Store
from embedindex.whitening import WhitenedSpace, whitened_for

Compared = Space | NarrowSpace | WhitenedSpace


def space_for(store: Store, view: IndexView, queries: Sequence[Query]) -> Compared:
    """Return what queries are compared in: not the index's space when one holds no highs, or held plain noise.

    Raises:
        IndexDamagedError: vectors of the index cannot be read.
    """
    return narrow_for(store, view, queries) or whitened_for(store, view, queries) or view.space
