"""The units of a seed in the order in which they sound: once through, cut short, or over and over.

Conventions: a step is one unit's turn; its bounds are output frames, the first 0, the last the output's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.errors import UsageError
from embedindex.remix.align import MARGIN_S
from embedindex.remix.candidates import Pool
from embedindex.remix.seed import Seed, cut_pieces
from embedindex.remix.spans import with_channels
from embedindex.remix.units import SHORTEST_S

LONGEST_OUTPUT_S = 24 * 3600.0


@dataclass(frozen=True)
class Sequence:
    """Steps.

    Attributes:
        units: which unit each step stands for.
        bounds: where the steps begin and the last one ends, one more than there are steps.
        origins: the output frame at which the seed would have each step, were it played once from 0.
        sample_rate: of the output, Hz.
    """

    units: tuple[int, ...]
    bounds: tuple[int, ...]
    origins: tuple[int, ...]
    sample_rate: int

    def frames(self, step: int) -> int:
        """Return the length of a step."""
        return self.bounds[step + 1] - self.bounds[step]


def sequence(seed: Seed, sample_rate: int, length_s: float | None = None) -> Sequence:
    """Return a seed's units once through, or for `length_s`: cut short, or from the beginning again and again.

    Raises:
        UsageError: the length is not above 0 or beyond 24 hours.
    """
    edges = [unit.start * sample_rate // seed.sample_rate for unit in seed.units]
    edges.append(seed.frames * sample_rate // seed.sample_rate)
    if length_s is None:
        return Sequence(tuple(range(len(seed.units))), tuple(edges), tuple(edges[:-1]), sample_rate)
    if not 0 < length_s <= LONGEST_OUTPUT_S:
        raise UsageError(f"--length {length_s:g} s: give a length above 0 and up to 24:00:00")
    wanted = max(1, round(length_s * sample_rate))
    units: list[int] = []
    bounds = [0]
    while bounds[-1] < wanted:
        unit = len(units) % len(seed.units)
        units.append(unit)
        bounds.append(bounds[-1] + edges[unit + 1] - edges[unit])
    if len(bounds) > 2 and wanted - bounds[-2] < SHORTEST_S * sample_rate:  # no stump: the one before lasts longer
        units.pop()
        bounds.pop()
    bounds[-1] = wanted
    return Sequence(tuple(units), tuple(bounds), tuple(edges[unit] for unit in units), sample_rate)


def parse_length(text: str) -> float:
    """Return the seconds of ``90``, ``1:30``, ``1:30:00``, ``90s``, ``45m``, ``2h`` or ``1h30m``.

    Raises:
        UsageError: it is none of these.
    """
    named = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text)
    parts = [part or "0" for part in named.groups()] if named and text else text.split(":")
    total = 0.0
    try:
        for part in parts:
            total = 60 * total + float(part)
    except ValueError:
        total = -1.0
    if not 0 < total <= LONGEST_OUTPUT_S or len(parts) > 3:
        raise UsageError(
            f"--length {text}: write seconds, minutes:seconds or hours, for example 10:00 or 2h, up to 24:00:00"
        )
    return total


def in_sequence(pool: Pool, steps: Sequence) -> Pool:
    """Return a pool whose units are the steps."""
    if steps.units == tuple(range(len(pool.lengths))):
        return pool
    order = np.array(steps.units)
    return replace(
        pool,
        units=pool.units.take(order),
        lengths=pool.lengths[order],
        silent=pool.silent[order],
        candidates=pool.candidates.in_order(steps.units),
    )


def step_sounds(seed: Seed, steps: Sequence, channels: int) -> Iterator[Float32Array]:
    """Yield, for each step, the seed around it: `MARGIN_S` before it, and no more behind it; zeros beyond its ends."""
    margin = round(MARGIN_S * steps.sample_rate)
    number = 0
    while number < len(steps.units):
        last = number + 1
        while last < len(steps.units) and steps.units[last] > steps.units[last - 1]:
            last += 1
        firsts = [max(0, steps.origins[step] - margin) for step in range(number, last)]
        ends = [steps.origins[step] + steps.frames(step) for step in range(number, last)]
        wanted = [(first, end - first) for first, end in zip(firsts, ends, strict=True)]
        with AudioReader(seed.sound, sample_rate=steps.sample_rate, mono=False) as reader:
            blocks = (with_channels(block, channels) for block in reader.blocks())
            for step, piece in zip(range(number, last), cut_pieces(blocks, wanted), strict=True):
                first, length = wanted[step - number]
                before = margin - (steps.origins[step] - first)
                yield np.pad(piece.reshape(-1, channels), ((before, length - len(piece)), (0, 0)))
        number = last
