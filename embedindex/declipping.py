"""A sound that was turned up beyond full scale, its peaks cut off → the same with peaks put back.

Clipped samples are known: many lie at the very extreme, in runs, where a sound that was not clipped has ever fewer the
nearer it comes to its extreme. Over each run a cubic is laid that goes on with the slopes at both of its ends; nothing
else is touched. That gives back the level of the peaks and takes away most of the harmonics that cutting them adds.
Measured against sparse declipping and plain comparison in docs/decisions/queries.md.

Conventions: samples are (n, channels) float32 at the file's own rate, as they were decoded: any resampling or lossy
encoding after the clipping hides it.

Reference: P. Záviška, P. Rajmic, A. Ozerov, L. Rencker, "A survey and an extensive evaluation of popular audio
declipping methods" (2021).
"""

from __future__ import annotations

import numpy as np

from embedindex.arrays import Float32Array, Float64Array, Int64Array

# Samples so near to the extreme lie at it: rounding to 16 bits, and dither.
AT_EXTREME = 2e-4
# So many of them in a row are a run; shorter ones occur in any sound.
LEAST_RUN = 3
# Clipped sounds have more samples in runs than within this share below the extreme. (A sine that is not clipped: a
# tenth as many.)
BELOW_EXTREME = 0.05
# A sine that was turned up by 6 dB is two thirds clipped. What is at its extremes for longer is a square wave.
MOST_CLIPPED = 0.75
# Peaks that are put back by less than this (1 dB) make no difference to how a sound compares.
LEAST_GAIN = 10 ** (1 / 20)


def without_clipping(samples: Float32Array) -> Float32Array | None:
    """Return a sound's mono mix, (n,) float32, with the peaks of every channel put back; None when none is clipped."""
    repaired = [_repaired(channel.astype(np.float64)) for channel in samples.T]
    if all(channel is None for channel in repaired):
        return None
    pairs = zip(samples.T, repaired, strict=True)
    return np.asarray(np.mean([own if new is None else new for own, new in pairs], axis=0), np.float32)


def _repaired(channel: Float64Array) -> Float64Array | None:
    """Return one channel, (n,), with its peaks put back; None when it is not clipped."""
    repaired = channel
    clipped = 0
    for sign in (1.0, -1.0):
        starts, ends = clipped_runs(sign * channel)
        clipped += int((ends - starts).sum())
        repaired = sign * _bridged(sign * repaired, starts, ends)
    if not 0 < clipped <= MOST_CLIPPED * len(channel):
        return None
    return repaired if np.abs(repaired).max() >= LEAST_GAIN * np.abs(channel).max() else None


def clipped_runs(channel: Float64Array) -> tuple[Int64Array, Int64Array]:
    """Return (starts, ends) of the runs of samples that were cut off at the upper extreme; empty when none were."""
    top = float(channel.max(initial=0.0))
    at = np.concatenate(([False], channel >= top * (1 - AT_EXTREME), [False]))
    edges = np.flatnonzero(at[1:] != at[:-1])
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= LEAST_RUN
    starts, ends = starts[long], ends[long]
    below = np.count_nonzero(channel >= top * (1 - BELOW_EXTREME)) - np.count_nonzero(at)
    if top <= 0 or (ends - starts).sum() <= below:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return starts.astype(np.int64), ends.astype(np.int64)


def _bridged(channel: Float64Array, starts: Int64Array, ends: Int64Array) -> Float64Array:
    """Return a channel with a cubic (of Hermite's form) over each run, never below what was there.

    A run at the beginning or the end of the sound has a slope on one side only and stays.
    """
    inside = (starts >= 2) & (ends <= len(channel) - 2)
    starts, ends = starts[inside], ends[inside]
    spans = ends - starts + 1  # from the last sample before the run to the first behind it
    run = np.repeat(np.arange(len(starts)), ends - starts)
    place = np.arange(len(run)) - np.repeat(np.cumsum(ends - starts) - (ends - starts), ends - starts)
    t = (place + 1) / spans[run]
    before, after = channel[starts - 1], channel[ends]
    rise = (before - channel[starts - 2]) * spans
    fall = (channel[ends + 1] - after) * spans
    cubic = (
        (2 * t**3 - 3 * t**2 + 1) * before[run]
        + (t**3 - 2 * t**2 + t) * rise[run]
        + (3 * t**2 - 2 * t**3) * after[run]
        + (t**3 - t**2) * fall[run]
    )
    bridged = channel.copy()
    rows = starts[run] + place
    bridged[rows] = np.maximum(cubic, channel[rows])
    return bridged
