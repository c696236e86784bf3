"""How alike files are where labels are judged: two views of each, its stretches and its summary.

Stretches (`embedindex.likeness`) hear what a file goes through, the summary how it sounds in all, how it starts and
what stands out. Each sees what the other misses: how a sound starts says which drum it is, how it goes on which music.
Summaries are standardised over the labelled files; a file's likeness to another is the weighted mean of both views'
cosines, weighted so that both spread equally, because a network's cosines all lie close together and those of
standardised descriptors do not (docs/decisions/genre.md).

Conventions: ``n`` files as a `FileSet`; likenesses are (n, m) float32 from -1 to 1, 1 for a file and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from embedindex.arrays import Float32Array, Int64Array
from embedindex.likeness import FileSet, blocks_of, likeness
from embedindex.space import Space

LIMIT = 3.0  # standard deviations, as in the space of an index
# Of many labelled files summaries are turned onto so many principal axes, learnt from some of them: six times as fast.
AXES = 256
AXES_FROM_FILES = 1000
# The spread of likenesses is measured on so many files.
SPREAD_FILES = 500
NO_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Views:
    """How two views of files are made and weighed.

    Attributes:
        mean: (columns,) of the summaries.
        scale: (columns,) one over their deviation; 0 where they do not vary.
        blocks: columns of the models that made the vectors, one after the other; they count equally.
        axes: (columns, AXES) onto which prepared summaries are turned; None for as they are.
        share: how much of the likeness is that of the stretches.
    """

    mean: Float32Array
    scale: Float32Array
    blocks: tuple[int, ...]
    axes: Float32Array | None
    share: float

    def likeness(self, queries: FileSet, files: FileSet) -> Float32Array:
        """Return (len(queries), len(files)) how alike they are."""
        return self.likeness_to(queries, files, self.summaries(files))

    def likeness_to(self, queries: FileSet, files: FileSet, summaries: Float32Array) -> Float32Array:
        """Return the same, where the summaries of `files` are prepared already."""
        result = likeness(queries, files)
        result *= np.float32(self.share)
        result += (np.float32(1.0 - self.share) * self.summaries(queries)) @ summaries.T
        return result

    def summaries(self, files: FileSet) -> Float32Array:
        """Return (n, columns or AXES) prepared summaries of length 1."""
        rows = np.clip((files.summaries - self.mean) * self.scale, -LIMIT, LIMIT)
        for low, high in pairwise(np.cumsum([0, *self.blocks])):
            rows[:, low:high] = _unit(rows[:, low:high])
        return _unit(rows if self.axes is None else rows @ self.axes)


def learn_views(files: FileSet, groups: Int64Array, space: Space, seed: int = 0) -> Views:
    """Return the views for judging by some files.

    Args:
        files: the labelled ones; their labels play no part.
        groups: (n,) files of one group do not tell how far likenesses spread.
        space: that of their index.
        seed: of what is drawn at random where there are many files.
    """
    random = np.random.default_rng(seed)
    mean, deviation = files.summaries.mean(axis=0), files.summaries.std(axis=0)
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1.0)
    scale = np.asarray(np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0), np.float32)
    blocks = tuple(3 * dimension for dimension in blocks_of(space)) or (len(mean),)
    views = Views(mean, scale, blocks, None, 1.0)
    if len(files) > AXES_FROM_FILES and len(mean) > AXES:
        drawn = np.sort(random.choice(len(files), AXES_FROM_FILES, replace=False))
        views = Views(mean, scale, blocks, _principal_axes(views.summaries(files.take(drawn))), 1.0)
    if len(files) > SPREAD_FILES:
        drawn = np.sort(random.choice(len(files), SPREAD_FILES, replace=False))
        files, groups = files.take(drawn), groups[drawn]
    rows = views.summaries(files)
    apart = groups[:, None] != groups[None, :]
    if not apart.any():
        apart = ~np.eye(len(files), dtype=bool)
    spreads = [float(np.std(table[apart])) for table in (likeness(files, files), rows @ rows.T)]
    share, _ = shares_of(spreads)
    return replace(views, share=share)


def shares_of(spreads: Sequence[float]) -> list[float]:
    """Return weights, adding up to 1, with which likenesses of these standard deviations spread equally.

    Those that do not spread at all tell nothing, and get no weight unless none does.
    """
    known = np.array(spreads) > NO_SPREAD
    weights = np.where(known, 1.0 / np.where(known, spreads, 1.0), 0.0) if known.any() else np.ones(len(spreads))
    return [float(weight) for weight in weights / weights.sum()]


def _principal_axes(rows: Float32Array) -> Float32Array:
    """Return (columns, AXES) the directions in which rows (n, columns) of length 1 differ most from zero."""
    _, _, turned = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(turned[:AXES].T, np.float32)


def _unit(rows: Float32Array) -> Float32Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
