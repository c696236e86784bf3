"""What is compared: the qualities of a stretch of a track, of many stretches at once, and the distances between them.

Conventions: stretches are (first frame, number of frames) of a track; a stretch is told in `QUARTERS` equal parts, so
that its shape in time counts. Distances are near 0 for the same sound and about 1 for two taken at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float16Array, Float32Array, Float64Array, Int64Array
from embedindex.remix.frames import (
    BRIGHTNESS,
    CEPSTRA,
    FLUX,
    LEVEL,
    LOWEST_DB,
    NOISINESS,
    PITCH,
    VOICING,
)

QUARTERS = 4
ATTACK_BINS = 8
STRONG_FLUX = 20.0
EDGE_FRAMES = 3
EDGE_WIDTH = 16  # cepstra, level, pitch, voicing
SHAPE_RANGE_DB = 24.0
GAIN_LIMIT_DB = 12.0
# A gain makes up for a difference of level, up to its limit. What lies beyond stays to be heard: every 1.5 dB of it,
# from a little before the limit on, because tracks tell levels to a few dB only, counts like 12 dB of the others.
GAIN_SURE_DB, BEYOND_DB = 9.0, 1.5
PART_LOWEST_DB = -48.0  # a part of a seed may be far softer than any sound of the library


@dataclass(frozen=True, eq=False)
class Qualities:
    """n stretches.

    Attributes:
        timbre: (n, QUARTERS, 13) mean cepstra of each part.
        levels: (n, QUARTERS) dB, mean power of each part.
        level: (n,) dB of the whole.
        brightness: (n,) octaves re 1 kHz, loud frames counting for more.
        noisiness: (n,) dB.
        pitch: (n,) semitones.
        voicing: (n,) 0 to 1.
        attacks: (n, ATTACK_BINS) 0 to 1, the strongest onset in each part.
        first: (n, EDGE_WIDTH) the first frames.
        last: (n, EDGE_WIDTH) the last frames.
    """

    timbre: Float32Array
    levels: Float32Array
    level: Float32Array
    brightness: Float32Array
    noisiness: Float32Array
    pitch: Float32Array
    voicing: Float32Array
    attacks: Float32Array
    first: Float32Array
    last: Float32Array

    def take(self, places: Int64Array) -> Qualities:
        """Return some of the stretches."""
        return Qualities(*(getattr(self, name)[places] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.level)


def join_qualities(parts: list[Qualities]) -> Qualities:
    """Return the stretches of all parts, one after the other."""
    return Qualities(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Qualities.__dataclass_fields__)
    )


def measure(frames: Float32Array, starts: Int64Array, length: int) -> Qualities:
    """Return the qualities of the stretches of `length` frames that begin at `starts`.

    Args:
        frames: (n, WIDTH) of a track; beyond its end there is silence, of no colour of its own.
        starts: (m,) int64, at least 0.
        length: frames of each stretch, at least 1.
    """
    length = max(1, length)
    count = len(frames)
    power = 10.0 ** (frames[:, LEVEL].astype(np.float64) / 10)
    weight = np.sqrt(power)  # colours of loud frames count for more, by amplitude
    columns = np.concatenate(
        (
            power[:, None],
            weight[:, None],
            weight[:, None] * frames[:, CEPSTRA],
            weight[:, None] * frames[:, [BRIGHTNESS, NOISINESS]],
            (weight * frames[:, VOICING])[:, None],
            (weight * frames[:, VOICING] * frames[:, PITCH])[:, None],
        ),
        axis=1,
    )
    sums = np.concatenate((np.zeros((1, columns.shape[1])), np.cumsum(columns, axis=0)))
    edges = starts[:, None] + np.round(np.linspace(0, length, QUARTERS + 1)).astype(np.int64)
    inside = sums[np.minimum(edges, count)]
    whole = inside[:, -1] - inside[:, 0]
    if length >= QUARTERS:
        parts, steps = np.diff(inside, axis=1), np.diff(edges, axis=1).astype(np.float64)
    else:  # too short to have parts
        parts, steps = np.repeat(whole[:, None], QUARTERS, axis=1), np.full((len(starts), QUARTERS), float(length))
    total = np.maximum(whole[:, 1], 1e-12)
    mean_timbre = whole[:, 2:15] / total[:, None]
    heavy = parts[:, :, 1:2]
    timbre = np.where(heavy > 1e-9, parts[:, :, 2:15] / np.maximum(heavy, 1e-9), mean_timbre[:, None])
    voiced = np.maximum(whole[:, 17], 1e-12)
    return Qualities(
        timbre=timbre.astype(np.float32),
        levels=_db(parts[:, :, 0] / np.maximum(steps, 1)),
        level=_db(whole[:, 0] / length),
        brightness=(whole[:, 15] / total).astype(np.float32),
        noisiness=(whole[:, 16] / total).astype(np.float32),
        pitch=(whole[:, 18] / voiced).astype(np.float32),
        voicing=np.clip(whole[:, 17] / total, 0, 1).astype(np.float32),
        attacks=_attacks(frames, starts, length),
        first=_edges(frames, starts, length),
        last=_edges(frames, starts + max(0, length - EDGE_FRAMES), length),
    )


def _db(power: Float64Array) -> Float32Array:
    level: Float32Array = np.maximum(10 * np.log10(np.maximum(power, 1e-30)), LOWEST_DB).astype(np.float32)
    return level


def _attacks(frames: Float32Array, starts: Int64Array, length: int) -> Float32Array:
    """Return the strongest rise in each of `ATTACK_BINS` parts of each stretch."""
    edges = np.round(np.linspace(0, length, ATTACK_BINS + 1)).astype(np.int64)
    width = max(1, int(np.diff(edges).max()))
    flux = np.minimum(frames[:, FLUX] / np.float32(STRONG_FLUX), np.float32(1))
    padded = np.concatenate((flux, np.zeros(length + width, np.float32)))
    highest = np.lib.stride_tricks.sliding_window_view(padded, width).max(axis=1)
    places = np.minimum(starts[:, None] + edges[:-1], len(highest) - 1)
    return np.asarray(highest[places], np.float32)


def _edges(frames: Float32Array, starts: Int64Array, length: int) -> Float32Array:
    """Return the mean of `EDGE_FRAMES` frames from each start on."""
    made = np.zeros((len(starts), EDGE_WIDTH), np.float32)
    steps = np.arange(min(EDGE_FRAMES, length))
    places = np.minimum(starts[:, None] + steps, max(0, len(frames) - 1))
    if not len(frames):
        made[:, 13] = LOWEST_DB
        return made
    chosen = frames[places]
    made[:, :13] = chosen[:, :, CEPSTRA].mean(axis=1)
    made[:, 13] = chosen[:, :, LEVEL].mean(axis=1)
    made[:, 14] = chosen[:, :, PITCH].mean(axis=1)
    made[:, 15] = chosen[:, :, VOICING].mean(axis=1)
    beyond = starts >= len(frames)
    made[beyond, 13], made[beyond, 15] = LOWEST_DB, 0.0
    return made


@dataclass(frozen=True, eq=False)
class Scales:
    """What counts as a usual difference, learnt from the seed and what was found for it: (13,) cepstra."""

    timbre: Float32Array


def learn_scales(qualities: Qualities) -> Scales:
    """Return the spread of the stretches' timbres."""
    spread = qualities.timbre.reshape(-1, qualities.timbre.shape[-1]).std(axis=0) * np.sqrt(2.0)
    return Scales(np.maximum(spread, 0.25).astype(np.float32))


def distances(
    unit: Qualities, others: Qualities, scales: Scales, lowest_db: float = -GAIN_LIMIT_DB
) -> dict[str, Float32Array]:
    """Return how far stretches are from one: (n,) for each quality.

    Args:
        unit: the one.
        others: the stretches.
        scales: usual differences.
        lowest_db: how far a stretch may be turned down.
    """
    gap = (others.timbre - unit.timbre) / scales.timbre
    loud = 10.0 ** (np.maximum(unit.levels - unit.levels.max(), -SHAPE_RANGE_DB) / 40.0)
    share = loud / loud.sum(axis=1, keepdims=True)
    timbre = np.sqrt((np.square(gap).mean(axis=2) * share).sum(axis=1))
    own = np.maximum(unit.levels - unit.level[:, None], -SHAPE_RANGE_DB)
    theirs = np.maximum(others.levels - others.level[:, None], -SHAPE_RANGE_DB)
    attack = np.abs(others.attacks - unit.attacks)
    gain = unit.level - others.level
    spared = GAIN_LIMIT_DB - GAIN_SURE_DB
    beyond = np.clip(np.maximum(gain - GAIN_SURE_DB, lowest_db + spared - gain), 0, 2 * GAIN_LIMIT_DB)
    sure = np.minimum(unit.voicing, others.voicing)
    return {
        "timbre": timbre,
        "shape": np.abs(own - theirs).mean(axis=1) / 6.0,
        "attack": (attack.sum(axis=1) + attack[:, 0]) / (0.5 * (ATTACK_BINS + 1)),
        "loudness": np.minimum(np.abs(gain), 2 * GAIN_LIMIT_DB) / GAIN_LIMIT_DB + beyond / BEYOND_DB,
        "pitch": sure * np.minimum(np.abs(others.pitch - unit.pitch), 12.0) / 6.0,
        "brightness": np.abs(others.brightness - unit.brightness),
        "noisiness": np.abs(others.noisiness - unit.noisiness) / 10.0,
    }


def edge_rows(edges: Float16Array, gains_db: Float32Array) -> Float32Array:
    """Return edges as they will sound: with the gain that brings their stretch to its unit's level."""
    raised = edges.astype(np.float32)
    raised[:, 13] += gains_db
    return raised


def join_distances(last: Float32Array, first: Float32Array, scales: Scales) -> Float32Array:
    """Return how rough each join is, (m, n), of m ends (m, EDGE_WIDTH) with n beginnings (n, EDGE_WIDTH)."""
    a, b = last[:, :13] / scales.timbre, first[:, :13] / scales.timbre
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    timbre = np.sqrt(np.maximum(squared, 0) / 13)
    level = np.minimum(np.abs(last[:, 13][:, None] - first[:, 13]), 2 * GAIN_LIMIT_DB) / GAIN_LIMIT_DB
    sure = np.minimum(last[:, 15][:, None], first[:, 15])
    pitch = sure * np.minimum(np.abs(last[:, 14][:, None] - first[:, 14]), 12.0) / 6.0
    rough: Float32Array = (timbre + 0.5 * level + 0.3 * pitch).astype(np.float32)
    return rough
