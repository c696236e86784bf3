"""The space of an index: how stored vectors and queries become unit vectors whose inner product is the score.

Conventions: vectors are (n, d), one a row, float16 as stored or float32 as a model gives them; rows that come out are
float32 of length 1. A row of zeros marks digital silence: it teaches the space nothing and stays zero, so that it is
similar to nothing. A space is learnt once from an index's vectors and kept beside them. Vectors of two models at once
are treated block by block: the inner product is then the weighted mean of the blocks' cosines.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Float32Array, Float64Array
from embedindex.errors import IndexDamagedError, IndexTooNewError
from embedindex.models.base import Block, ModelIdentity

Kind = Literal["plain", "standardised", "blocks"]
KINDS = get_args(Kind)

# Standardised values beyond this many standard deviations are cut off: few descriptors have light tails, and without
# it one freak dimension decides a cosine (measured: docs/decisions/spectral-model.md).
SCORE_LIMIT = 3.0
# A dimension whose standard deviation is below this share of its magnitude (or of 1) is constant but for rounding.
CONSTANT = 1e-6

FORMAT = "embedindex-space"
FORMAT_VERSION = 2
BLOCKS_SINCE = 2  # spaces without blocks are written as version 1
HEADER_MAX_BYTES = 1000


@dataclass(frozen=True, eq=False)
class Part:
    """One block of a space: its `dimension` columns, the `space` they are compared in, and its `share` of the score."""

    dimension: int
    share: float
    space: Space


@dataclass(frozen=True, eq=False)
class Space:
    """What is done to vectors before they are compared.

    Attributes:
        kind: ``"plain"``: rows are only scaled to length 1. ``"standardised"``: each dimension is centred and scaled to
            standard deviation 1 over the index first. ``"blocks"``: each of `parts` by itself.
        mean: (d,) float32 subtracted from each row; None when plain.
        scale: (d,) float32 each centred row is multiplied by, 0 for a dimension that is constant; None when plain.
        limit: standardised values are cut off at ± this; None for no limit.
        parts: the blocks, from left to right; their shares add up to 1.
    """

    kind: Kind
    mean: Float32Array | None = None
    scale: Float32Array | None = None
    limit: float | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        given = self.mean is not None and self.scale is not None
        if given != (self.kind == "standardised") or (self.mean is None) != (self.scale is None):
            raise ValueError(f"a {self.kind} space with mean {self.mean} and scale {self.scale} makes no sense")
        if self.mean is not None and self.scale is not None and self.mean.shape != self.scale.shape:
            raise ValueError(f"mean {self.mean.shape} and scale {self.scale.shape} have different shapes")
        if bool(self.parts) != (self.kind == "blocks"):
            raise ValueError(f"a {self.kind} space with {len(self.parts)} parts makes no sense")
        if self.parts and not math.isclose(sum(part.share for part in self.parts), 1.0):
            raise ValueError(f"the shares of the parts add up to {sum(part.share for part in self.parts)}, not 1")

    @property
    def dimension(self) -> int:
        """Length of the vectors it takes; 0 for any."""
        if self.parts:
            return sum(part.dimension for part in self.parts)
        return 0 if self.mean is None else len(self.mean)

    def apply(self, vectors: Float16Array | Float32Array) -> Float32Array:
        """Return `vectors` (n, d) in this space: (n, d) float32 rows of length 1, new memory.

        A row of zeros stays zero, and so does one without a direction because it lies exactly on the mean. A block of
        which that is true is zeros, and its row shorter than 1 by its share.

        Raises:
            ValueError: `vectors` is not (n, d) with this space's d.
        """
        if vectors.ndim != 2 or vectors.shape[1] != (self.dimension or vectors.shape[1]):
            raise ValueError(f"vectors of shape {vectors.shape} are not (n, {self.dimension or 'd'})")
        if self.parts:
            edges = np.cumsum([0] + [part.dimension for part in self.parts])
            columns = [
                part.space.apply(vectors[:, low:high]) * np.float32(math.sqrt(part.share))
                for part, (low, high) in zip(self.parts, pairwise(edges), strict=True)
            ]
            return np.concatenate(columns, axis=1)
        rows = vectors.astype(np.float32)
        if self.mean is not None and self.scale is not None:
            silent = ~sounding(rows)
            rows = (rows - self.mean) * self.scale
            if self.limit is not None:
                np.clip(rows, -self.limit, self.limit, out=rows)
            rows[silent] = 0.0
        return unit_rows(rows)

    def to_bytes(self) -> bytes:
        """Return the space as a line of JSON and then its numbers.

        Of a standardised space these are mean and scale as raw little-endian float32; of one of blocks, the bytes of
        each part's space.
        """
        inner = [part.space.to_bytes() for part in self.parts]
        header: dict[str, Any] = {
            "format": FORMAT,
            "version": BLOCKS_SINCE if self.parts else 1,
            "kind": self.kind,
            "dimension": self.dimension,
            "limit": self.limit,
        }
        if self.parts:
            header["parts"] = [
                {"dimension": part.dimension, "share": part.share, "bytes": len(content)}
                for part, content in zip(self.parts, inner, strict=True)
            ]
        numbers = [values.astype("<f4").tobytes() for values in (self.mean, self.scale) if values is not None]
        return b"".join([json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n", *numbers, *inner])

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
        if header["kind"] == "blocks":
            return cls("blocks", parts=_read_parts(header["parts"], dimension, raw))
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
    sounds are there to learn from. Blocks are learnt each by itself.

    Raises:
        IndexDamagedError: a vector is not finite.
    """
    blocks = identity.blocks or (Block(identity.dimension, identity.standardise, 1.0),)
    edges = np.cumsum([0] + [block.dimension for block in blocks])
    moments = [_Moments(block.dimension) if block.standardise else None for block in blocks]
    if any(moments):
        for batch in batches:
            for one, (low, high) in zip(moments, pairwise(edges), strict=True):
                if one is not None:
                    one.add(batch[:, low:high])
    spaces = [_learnt(one) for one in moments]
    if not identity.blocks:
        return spaces[0]
    return Space(
        "blocks",
        parts=tuple(Part(block.dimension, block.share, space) for block, space in zip(blocks, spaces, strict=True)),
    )


class _Moments:
    """Mean and standard deviation of rows that come in batches.

    References:
        T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
        (1979): merging of counts, means and sums of squares.
    """

    def __init__(self, dimension: int) -> None:
        self._count = 0
        self.mean: Float64Array = np.zeros(dimension)
        self._squares: Float64Array = np.zeros(dimension)  # sums of squared distances from the mean

    def add(self, batch: Float16Array | Float32Array) -> None:
        """Take the rows that are not all zeros."""
        rows = batch[sounding(batch)].astype(np.float64)
        if not len(rows):
            return
        if not np.isfinite(rows).all():
            raise IndexDamagedError("the index holds a vector that is not finite; run `embedindex verify`")
        batch_mean = rows.mean(axis=0)
        difference = batch_mean - self.mean
        total = self._count + len(rows)
        self.mean = self.mean + difference * (len(rows) / total)
        spread = difference**2 * (self._count * len(rows) / total)
        self._squares = self._squares + ((rows - batch_mean) ** 2).sum(axis=0) + spread
        self._count = total

    @property
    def deviation(self) -> Float64Array:
        """(dimension,) standard deviations."""
        return np.asarray(np.sqrt(self._squares / max(self._count, 1)))


def _learnt(moments: _Moments | None) -> Space:
    """Return the space of one block, plain without moments."""
    if moments is None:
        return Space("plain")
    mean, deviation = moments.mean, moments.deviation
    varying = deviation > CONSTANT * np.maximum(np.abs(mean), 1.0)
    if not varying.any():
        return Space("plain")
    scale = np.where(varying, 1.0 / np.where(varying, deviation, 1.0), 0.0)
    return Space("standardised", mean.astype(np.float32), scale.astype(np.float32), SCORE_LIMIT)


def sounding(rows: Float16Array | Float32Array) -> BoolArray:
    """Return (n,) True where a row is not all zeros."""
    return np.asarray((rows != 0).any(axis=1), np.bool_)


def unit_rows(rows: Float32Array) -> Float32Array:
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
    if type(dimension) is not int or kind not in KINDS or (dimension > 0) != (kind != "plain"):
        return None
    if kind == "blocks" and not _are_parts(header.get("parts")):
        return None
    if limit is not None and not (type(limit) in (int, float) and 0 < limit < float("inf")):
        return None
    return header


def _are_parts(parts: object) -> bool:
    """Return whether the description of blocks has the types and ranges that `to_bytes` writes."""
    if not isinstance(parts, list) or not parts:
        return False
    for part in parts:
        if not isinstance(part, dict) or not all(type(part.get(key)) is int for key in ("dimension", "bytes")):
            return False
        if part["dimension"] <= 0 or part["bytes"] <= 0 or not 0 < _number(part.get("share")) <= 1:
            return False
    return math.isclose(sum(part["share"] for part in parts), 1.0)


def _number(value: object) -> float:
    return float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]


def _read_parts(described: list[dict[str, Any]], dimension: int, raw: bytes) -> tuple[Part, ...]:
    """Return the blocks whose spaces lie one after the other in `raw`."""
    edges = np.cumsum([0] + [part["bytes"] for part in described]).tolist()
    if edges[-1] != len(raw) or sum(part["dimension"] for part in described) != dimension:
        raise _damaged("its blocks do not add up")
    parts = []
    for part, (low, high) in zip(described, pairwise(edges), strict=True):
        space = Space.from_bytes(raw[low:high])
        if space.parts or space.dimension not in (0, part["dimension"]):
            raise _damaged("a block of it has another length")
        parts.append(Part(part["dimension"], part["share"], space))
    return tuple(parts)


def _damaged(reason: str) -> IndexDamagedError:
    """Return the error for bytes that are not a space."""
    return IndexDamagedError(f"the space kept in the index is damaged ({reason}); run `embedindex rebuild`")
