"""The space of an index: how stored vectors and queries become unit vectors whose inner product is the score.

Conventions: vectors are (n, d), one a row, float16 as stored or float32 as a model gives them; rows that come out are
float32 of length 1. A row of zeros marks digital silence: it teaches the space nothing and stays zero, so that it is
similar to nothing. A space is learnt once from an index's vectors and kept beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Float32Array, Float64Array
from embedindex.errors import IndexDamagedError, IndexTooNewError
from embedindex.models.base import ModelIdentity

Kind = Literal["plain", "standardised"]

# Standardised values beyond this many standard deviations are cut off: few descriptors have light tails, and without
# it one freak dimension decides a cosine (measured: docs/decisions/spectral-model.md).
SCORE_LIMIT = 3.0
# A dimension whose standard deviation is below this share of its magnitude (or of 1) is constant but for rounding.
CONSTANT = 1e-6

FORMAT = "embedindex-space"
FORMAT_VERSION = 1
HEADER_MAX_BYTES = 1000


@dataclass(frozen=True, eq=False)
class Space:
    """What is done to vectors before they are compared.

    Attributes:
        kind: ``"plain"``: rows are only scaled to length 1. ``"standardised"``: each dimension is centred and scaled to
            standard deviation 1 over the index first.
        mean: (d,) float32 subtracted from each row; None when plain.
        scale: (d,) float32 each centred row is multiplied by, 0 for a dimension that is constant; None when plain.
        limit: standardised values are cut off at ± this; None for no limit.
    """

    kind: Kind
    mean: Float32Array | None = None
    scale: Float32Array | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        given = self.mean is not None and self.scale is not None
        if given != (self.kind == "standardised") or (self.mean is None) != (self.scale is None):
            raise ValueError(f"a {self.kind} space with mean {self.mean} and scale {self.scale} makes no sense")
        if self.mean is not None and self.scale is not None and self.mean.shape != self.scale.shape:
            raise ValueError(f"mean {self.mean.shape} and scale {self.scale.shape} have different shapes")

    def apply(self, vectors: Float16Array | Float32Array) -> Float32Array:
        """Return `vectors` (n, d) in this space: (n, d) float32 rows of length 1, new memory.

        A row of zeros stays zero, and so does one without a direction because it lies exactly on the mean.

        Raises:
            ValueError: `vectors` is not (n, d) with this space's d.
        """
        if vectors.ndim != 2 or (self.mean is not None and vectors.shape[1] != len(self.mean)):
            expected = "d" if self.mean is None else len(self.mean)
            raise ValueError(f"vectors of shape {vectors.shape} are not (n, {expected})")
        rows = vectors.astype(np.float32)
        if self.mean is not None and self.scale is not None:
            sounding = _sounding(rows)
            rows = (rows - self.mean) * self.scale
            if self.limit is not None:
                np.clip(rows, -self.limit, self.limit, out=rows)
            rows[~sounding] = 0.0
        return _unit(rows)

    def to_bytes(self) -> bytes:
        """Return the space as a line of JSON and then, unless plain, mean and scale as raw little-endian float32."""
        dimension = 0 if self.mean is None else len(self.mean)
        header: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "kind": self.kind,
            "dimension": dimension,
            "limit": self.limit,
        }
        parts = [json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n"]
        parts += [values.astype("<f4").tobytes() for values in (self.mean, self.scale) if values is not None]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, content: bytes) -> Space:
        """Return the space that `to_bytes` wrote.

        Raises:
            IndexDamagedError: `content` is anything else.
            IndexTooNewError: `content` was written by a later version of embedindex.
        """
        line, newline, raw = content.partition(b"\n")
        header = _read_header(line) if newline and len(line) <= HEADER_MAX_BYTES else None
        if header is None:
            raise _damaged("it does not start with its header")
        if header["version"] > FORMAT_VERSION:
            raise IndexTooNewError(
                f"the space of the index has format {header['version']}, this embedindex reads up to {FORMAT_VERSION}; "
                "upgrade embedindex"
            )
        dimension = header["dimension"]
        if len(raw) != 2 * 4 * dimension:
            raise _damaged(f"{len(raw)} bytes of numbers, {8 * dimension} expected")
        if header["kind"] == "plain":
            return cls("plain")
        numbers = np.frombuffer(raw, "<f4").astype(np.float32)
        if not np.isfinite(numbers).all():
            raise _damaged("it holds numbers that are not finite")
        return cls("standardised", numbers[:dimension], numbers[dimension:], header["limit"])

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ between spaces that differ."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]


def learn_space(identity: ModelIdentity, batches: Iterable[Float16Array | Float32Array]) -> Space:
    """Return the space for an index of the model `identity` that holds the vectors `batches`, each (n, d).

    One pass in float64; neither the order of the batches nor where they are split matters beyond float error. A plain
    space comes back, and `batches` is not read, when the model asks for none; and also when fewer than two different
    sounds are there to learn from.

    Raises:
        IndexDamagedError: a vector is not finite.

    References:
        T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
        (1979): merging of counts, means and sums of squares.
    """
    if not identity.standardise:
        return Space("plain")
    count = 0
    mean: Float64Array = np.zeros(identity.dimension)
    squares: Float64Array = np.zeros(identity.dimension)  # sums of squared distances from the mean
    for batch in batches:
        rows = batch[_sounding(batch)].astype(np.float64)
        if not len(rows):
            continue
        if not np.isfinite(rows).all():
            raise IndexDamagedError("the index holds a vector that is not finite; run `embedindex verify`")
        batch_mean = rows.mean(axis=0)
        difference = batch_mean - mean
        total = count + len(rows)
        mean = mean + difference * (len(rows) / total)
        squares += ((rows - batch_mean) ** 2).sum(axis=0) + difference**2 * (count * len(rows) / total)
        count = total
    deviation = np.sqrt(squares / max(count, 1))
    varying = deviation > CONSTANT * np.maximum(np.abs(mean), 1.0)
    if not varying.any():
        return Space("plain")
    scale = np.where(varying, 1.0 / np.where(varying, deviation, 1.0), 0.0)
    return Space("standardised", mean.astype(np.float32), scale.astype(np.float32), SCORE_LIMIT)


def _sounding(rows: Float16Array | Float32Array) -> BoolArray:
    """Return (n,) True where a row is not all zeros."""
    return np.asarray((rows != 0).any(axis=1), np.bool_)


def _unit(rows: Float32Array) -> Float32Array:
    """Return `rows` (n, d) scaled to length 1, rows of zeros unchanged; by way of the maximum, so nothing overflows."""
    if not rows.size:
        return rows
    top = np.abs(rows).max(axis=1, keepdims=True)
    shrunk = rows / np.where(top > 0, top, 1.0).astype(np.float32)
    length = np.linalg.norm(shrunk, axis=1, keepdims=True)
    return np.asarray(shrunk / np.where(length > 0, length, 1.0), np.float32)


def _read_header(line: bytes) -> dict[str, Any] | None:
    """Return the header in `line` if it is one, with values of the types and ranges that `to_bytes` writes."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    version, dimension, limit = header.get("version"), header.get("dimension"), header.get("limit")
    if type(version) is not int or version < 1:
        return None
    if version > FORMAT_VERSION:
        return header  # its other fields may mean something else
    kind = header.get("kind")
    if type(dimension) is not int or kind not in ("plain", "standardised") or (dimension > 0) != (kind != "plain"):
        return None
    if limit is not None and not (type(limit) in (int, float) and 0 < limit < float("inf")):
        return None
    return header


def _damaged(reason: str) -> IndexDamagedError:
    """Return the error for bytes that are not a space."""
    return IndexDamagedError(f"the space kept in the index is damaged ({reason}); run `embedindex rebuild`")
