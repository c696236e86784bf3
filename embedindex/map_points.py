"""The points of a map: files or windows of an index, with what the map says about each.

Conventions: times are seconds; a file's point is the mean of its sounding windows in the index's space.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np

from embedindex.analysis_store import analysis_of
from embedindex.arrays import Float32Array
from embedindex.errors import IndexEmptyError, display_path
from embedindex.filters import Filters, nothing_passes
from embedindex.index import IndexView
from embedindex.records import FileRecord
from embedindex.search import By, labels_of
from embedindex.store import Store

# A page with more points than this is slow to draw and to read.
MAX_POINTS = 20_000
# So many values have a colour of their own; the rest share one.
MAX_COLOURS = 12
OTHER = "other"
NONE = "none"


@dataclass(frozen=True)
class Point:
    """One point.

    Attributes:
        path: the file.
        start_s: where the window starts, 0 for a whole file.
        duration_s: how long the file is.
        group: what it is coloured by.
        labels: what the map shows of it, ``"genre=drone"``.
    """

    path: bytes
    start_s: float
    duration_s: float
    group: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Points:
    """Points with their vectors, (n, dimension) unit rows, and how many there would be without a limit."""

    points: tuple[Point, ...]
    vectors: Float32Array
    available: int


def gather_points(
    store: Store,
    view: IndexView,
    *,
    by: By = "file",
    colour: str = "folder",
    filters: Filters | None = None,
    most: int = MAX_POINTS,
) -> Points:
    """Return the points of a map; of too many, so many evenly spread over the library by path and time.

    Args:
        store: the index.
        view: its search index.
        by: a point for each file, or for each window.
        colour: ``"folder"``, ``"key"`` (of `embedindex.tempo_key`), or the key of a label.
        filters: which files.
        most: at most so many points.

    Raises:
        IndexEmptyError: no file passes the filters.
    """
    where, values = (filters or Filters()).sql()
    condition = f"status = 'ok' AND n_windows > n_silent AND {where}"
    points: list[Point] = []
    rows: list[Float32Array] = []
    with store.snapshot():
        sizes = [
            record.n_windows - record.n_silent if by == "window" else 1 for record in store.files(condition, values)
        ]
        available = sum(sizes)
        if not available:
            raise IndexEmptyError(f"{display_path(store.folder)}: {nothing_passes(store, filters or Filters())}")
        count = min(available, most)
        chosen = np.unique(np.linspace(0, available - 1, count).round().astype(np.int64))
        first = 0
        for record, size in zip(store.files(condition, values), sizes, strict=True):
            own = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + size)] - first
            first += size
            if not len(own):
                continue
            stored = store.vectors_of(record)
            loud = np.flatnonzero(stored.any(axis=1))
            unit = view.space.apply(stored[loud])
            labels = labels_of(store, record)
            group = _group(store, record, labels, colour)
            texts = tuple(f"{key}={value}" for key, those in labels.items() for value in those)
            starts_s = loud[own] * (record.hop_s or 0.0) if by == "window" else np.zeros(1)
            rows.append(unit[own] if by == "window" else _mean(unit))
            points += [
                Point(record.path, round(float(start), 3), record.duration or 0.0, group, texts) for start in starts_s
            ]
    return Points(tuple(points), np.concatenate(rows), available)


def _mean(unit: Float32Array) -> Float32Array:
    mean = unit.mean(axis=0, keepdims=True)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length > 0 else mean, np.float32)


def _group(store: Store, record: FileRecord, labels: dict[str, list[str]], colour: str) -> str:
    if colour == "folder":
        return display_path(os.path.basename(os.path.dirname(record.path)) or b"/")
    if colour == "key" and "key" not in labels:
        return analysis_of(store, record).key or NONE
    return labels.get(colour, [NONE])[0]


def colour_groups(points: Points) -> list[str]:
    """Return the values that have a colour, the most frequent first; `OTHER` and `NONE`, where there are such, last."""
    counts = Counter(point.group for point in points.points if point.group != NONE)
    frequent = sorted(counts, key=lambda group: (-counts[group], group))
    named = frequent[:MAX_COLOURS]
    if len(frequent) > MAX_COLOURS:
        named.append(OTHER)
    if any(point.group == NONE for point in points.points):
        named.append(NONE)
    return named


def colour_numbers(points: Points, groups: list[str]) -> list[int]:
    """Return the number in `groups` of each point's colour."""
    place = {group: number for number, group in enumerate(groups)}
    return [place.get(point.group, place.get(OTHER, 0)) for point in points.points]
