"""Is a sound anything like what is labelled? Where it is not, a judge has nothing to say about it.

The vectors of learnt models share a large common part: two sounds that have nothing in common still have a cosine of
0.8. So what the labelled files have in common is subtracted first, except in a standardised space, which is centred
already. A sound's familiarity is then its best cosine with any of the labelled files that are nearest to it. It is
unknown when it is less familiar than nearly all labelled files are, judged by files of other groups.

Conventions: a file is one row here, the mean of its stretches; (n, dimension) float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Int64Array
from embedindex.likeness import FileSet

# This share of the labelled files would be called unknown themselves.
FAR_SHARE = 0.05
# As familiar as this is never unknown: where labelled files are near copies of one another, all else seems far.
ALWAYS_FAMILIAR = 0.75
CANDIDATES = 10


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What is familiar.

    Attributes:
        centre: (dimension,) what the labelled files have in common; zeros in a standardised space.
        rows: (m, dimension) the labelled files, centred, of length 1.
        far: less than this is unknown.
    """

    centre: Float32Array
    rows: Float32Array
    far: float

    def of(self, files: FileSet, alike: Float32Array) -> Float32Array:
        """Return (n,) how familiar files are.

        Args:
            files: n files.
            alike: (n, m) their likeness to the labelled files, -inf for those that do not count.
        """
        return _best(_centred(file_rows(files), self.centre), self.rows, alike)


def file_rows(files: FileSet) -> Float32Array:
    """Return (n, dimension) the mean of each file's stretches."""
    sums = np.add.reduceat(files.rows, files.starts[:-1], axis=0)
    return np.asarray(sums / np.diff(files.starts)[:, None], np.float32)


def _centred(rows: Float32Array, centre: Float32Array) -> Float32Array:
    moved = rows - centre
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), np.float32)


def _best(queries: Float32Array, rows: Float32Array, alike: Float32Array) -> Float32Array:
    count = min(CANDIDATES, alike.shape[1])
    others = alike.shape[1] - count
    nearest = np.argpartition(alike, others, axis=1)[:, others:]
    cosines = np.einsum("nd,nkd->nk", queries, rows[nearest])
    counts = np.isfinite(np.take_along_axis(alike, nearest, axis=1))
    return np.asarray(np.where(counts, cosines, -1.0).max(axis=1), np.float32)


def learn_familiarity(
    files: FileSet, sample: Int64Array, alike: Float32Array, groups: Int64Array, *, centre: bool
) -> Familiarity:
    """Return what is familiar to someone who knows some files.

    Args:
        files: m labelled files.
        sample: (s,) numbers of those that the limit is learnt from.
        alike: (s, s) their likeness to one another.
        groups: (s,) their groups; files of the own group do not count.
        centre: subtract what the files have in common.
    """
    rows = file_rows(files)
    common = rows.mean(axis=0) if centre else np.zeros(rows.shape[1], np.float32)
    centred = _centred(rows, common)
    others = np.where(groups[:, None] != groups[None, :], alike, np.float32(-np.inf))
    found = _best(centred[sample], centred[sample], others)
    return Familiarity(common, centred, min(float(np.quantile(found, FAR_SHARE)), ALWAYS_FAMILIAR))
