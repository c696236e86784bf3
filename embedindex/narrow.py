"""Comparing sounds of which one holds nothing above some frequency, because of its low sample rate: by what lies below.

A copy at 8 kHz is like every sound without highs, and unlike its original. So what its descriptors say of frequencies
that it cannot hold, or of all frequencies together, is left out on both sides, and the form of its spectrum is taken
against the mean of the bands that are left. A network's numbers all depend on everything: they are left out, too.

Conventions: rows are (n, k) float32 of length 1 over the k dimensions that are left; rows of zeros stand for silence.
Measured in docs/decisions/queries.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float16Array, Float32Array, Int64Array
from embedindex.index import IndexView
from embedindex.models.base import ModelIdentity
from embedindex.models.fused import SECOND, SEPARATOR
from embedindex.models.spectral import FORMS, MEL_MAX_HZ, dimensions_below
from embedindex.query import Query
from embedindex.space import Space, sounding, unit_rows
from embedindex.store import Store

# Resamplers and encoders leave a sound as it was up to this share of half its sample rate.
WHOLE_SHARE = 0.9
# Share of the index's sounds that must hold more than a sound asked about for that to be left out.
MOST = 0.5


@dataclass(frozen=True, eq=False)
class NarrowSpace:
    """What is done to vectors before they are compared by what lies below a frequency.

    Attributes:
        dimension: length of the vectors of the index.
        columns: (k,) the numbers of those dimensions that are compared.
        forms: places among the `columns` that are levels against their own mean: one array for each spectrum.
        mean: (k,) float32 their means over the index.
        scale: (k,) float32 what they are multiplied by then.
        limit: products are cut off at ± this; None for no limit.
    """

    dimension: int
    columns: Int64Array
    forms: tuple[Int64Array, ...]
    mean: Float32Array
    scale: Float32Array
    limit: float | None

    def apply(self, vectors: Float16Array | Float32Array) -> Float32Array:
        """Return stored vectors (n, dimension) as rows (n, k)."""
        chosen = vectors[:, self.columns].astype(np.float32)
        rows = chosen - self.mean
        for form in self.forms:
            rows[:, form] -= rows[:, form].mean(axis=1, keepdims=True)
        rows *= self.scale
        if self.limit is not None:
            np.clip(rows, -self.limit, self.limit, out=rows)
        rows[~sounding(chosen)] = 0.0
        return unit_rows(rows)

    def proposals(self, rows: Float32Array) -> Float32Array:
        """Return (n, dimension) what to look for in an index that knows nothing of this, to find windows like `rows`.

        Their inner product with a vector in the index's own space is, but for the cut-off and that vector's length, the
        inner product of `rows` with that vector here.
        """
        wanted = rows.copy()
        inverse = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)
        for form in self.forms:
            level = (rows[:, form] * self.scale[form]).mean(axis=1, keepdims=True)
            wanted[:, form] -= level * inverse[form]
        everywhere = np.zeros((len(rows), self.dimension), np.float32)
        everywhere[:, self.columns] = wanted
        return unit_rows(everywhere)


def narrow_for(store: Store, view: IndexView, queries: Sequence[Query]) -> NarrowSpace | None:
    """Return what queries are compared in when one of them holds no highs; None where there is nothing to leave out.

    There is nothing to leave out where most sounds of the index hold no more than that either.
    """
    widths_hz = [query.bandwidth_hz for query in queries if query.bandwidth_hz is not None]
    narrow = narrow_space(view.model.identity, view.space, min(widths_hz)) if widths_hz else None
    if narrow is None:
        return None
    asked = "SELECT AVG(sample_rate > ?) FROM files WHERE status = 'ok'"
    (wider,) = store._row(asked, (2 * min(widths_hz),)) or (None,)
    return narrow if (wider or 0.0) > MOST else None


def narrow_space(identity: ModelIdentity, space: Space, bandwidth_hz: float) -> NarrowSpace | None:
    """Return the space to compare sounds in of which one may hold less than the descriptors hear.

    Args:
        identity: the index's model.
        space: the index's space.
        bandwidth_hz: half the sample rate of that sound.

    Returns:
        None when it holds enough, or nothing can be left out of the model's vectors.
    """
    edge_hz = WHOLE_SHARE * bandwidth_hz
    if edge_hz >= MEL_MAX_HZ or identity.name.rpartition(SEPARATOR)[2] != SECOND:
        return None
    descriptors = space.parts[-1].space if space.parts else space
    if descriptors.mean is None or descriptors.scale is None:
        return None
    groups = dimensions_below(edge_hz)
    numbers = np.concatenate(list(groups.values()))
    ends = np.cumsum([len(group) for group in groups.values()])
    places = dict(zip(groups, np.split(np.arange(len(numbers)), ends[:-1]), strict=True))
    return NarrowSpace(
        identity.dimension,
        identity.dimension - len(descriptors.mean) + numbers,
        tuple(places[name] for name in FORMS),
        descriptors.mean[numbers],
        descriptors.scale[numbers],
        descriptors.limit,
    )
