"""From a choice to a sample-exact event: attacks in line with the seed's, levels matched, fades that spare attacks.

Conventions: sounds are (n, channels) float32 at the output rate; shifts are output frames, positive for later in the
source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.remix.bending import read_bent
from embedindex.remix.fitting import AS_IT_IS, UNBENT, Fit, Limits, fit
from embedindex.remix.loudness import SILENT_LUFS, unit_lufs
from embedindex.remix.qualities import GAIN_LIMIT_DB
from embedindex.remix.spans import read_span

MARGIN_S = 0.12  # heard before and after a unit
# How far a start is moved to fit: a little more than half a step of the grid it was found on, and for attacks more; the
# second numbers are for files whose tracks are known in cells of 93 ms only.
SHIFT_S = (0.014, 0.1)
ATTACK_SHIFT_S = (0.03, 0.06)
COMPARED_S = 0.5
ALIKE = 0.6  # waveforms that correlate by so much are the same sound: they are laid on one another exactly
FADE_S, FADE_SHARE = 0.030, 0.25
ATTACK_WITHIN_S = 0.03
ATTACK_RISE_DB = 9.0
SPARED_S = 0.001  # a fade is over this long before an attack
ATTACK_BEFORE_STEPS = 6  # ms before a unit's end from which on an attack may begin that its fade has to be over before
ATTACK_LEVEL_DB = -55.0


@dataclass(frozen=True, eq=False)
class Placed:
    """A stretch of a file, made exact.

    Attributes:
        start: first frame, at the file's own rate.
        native_rate: of the file, Hz.
        gain_db: what brings it to the seed's unit's loudness, within limits.
        clamped: whether that was not enough.
        lead: output frames that a fade may reach into it.
        tail: output frames that a fade may reach beyond its end.
        there: output frames until the file ends, at most the unit's length and margin.
        fit: how it is bent.
    """

    start: int
    native_rate: int
    gain_db: float
    clamped: bool
    lead: int
    tail: int
    there: int
    fit: Fit = AS_IT_IS


def place(
    path: bytes,
    start_s: float,
    unit: Float32Array,
    lead: int,
    frames: int,
    sample_rate: int,
    attack_s: float | None,
    exact_start: int | None = None,
    *,
    roughly: bool = False,
    lowest_db: float = -GAIN_LIMIT_DB,
    limits: Limits = UNBENT,
) -> Placed:
    """Return where a stretch of a file takes a unit's place.

    Args:
        path: the file.
        start_s: about where it starts, seconds.
        unit: the seed around the unit, (lead + frames, channels); the unit starts at `lead`.
        lead: frames of `unit` before the unit.
        frames: length of the unit.
        sample_rate: of the output, Hz.
        attack_s: where the unit's attack is, None if it has none.
        exact_start: the file's frame to start at, when it is known already.
        roughly: whether `start_s` is known to half a cell of a small track only.
        lowest_db: how far it may be turned down.
        limits: how far it may be bent to fit.

    Raises:
        AudioError: the file cannot be read.
    """
    channels = unit.shape[1]
    margin = round(MARGIN_S * sample_rate)
    reach = math.ceil(frames / (1.0 - limits.stretch))  # a piece that long can be compressed into it
    length = margin + reach + margin
    native_start = exact_start
    if native_start is None:
        from embedindex.audio import probe

        native_start = max(0, round(start_s * probe(path).sample_rate))
    found, native_rate = read_span(path, native_start, margin, length, sample_rate, channels)
    shift = 0
    if exact_start is None:
        shift = find_shift(unit[lead:], found, margin, sample_rate, attack_s, roughly=roughly)
        moved = max(0, native_start + round(shift * native_rate / sample_rate))
        shift = round((moved - native_start) * sample_rate / native_rate)
        native_start = moved
    first = margin + shift
    there = _last_heard(found) - first
    beyond = fade_frames(frames, frames, sample_rate) // 2
    fitted = fit(unit[lead:], found[first:], there, sample_rate, limits, beyond)
    if not fitted.bend.plain:
        first, bend = margin, fitted.bend
        found = read_bent(path, native_start, margin, margin + frames + margin, sample_rate, channels, bend)
        there = min(_last_heard(found) - first, round(there * bend.stretch))
    sounding = min(frames, max(1, there))
    wanted = unit_lufs(unit, sample_rate, lead, lead + sounding)
    have = unit_lufs(found[: first + frames], sample_rate, first, first + sounding)
    gain_db = wanted - have if min(wanted, have) > SILENT_LUFS else 0.0
    limited = float(np.clip(gain_db, lowest_db, GAIN_LIMIT_DB))
    return Placed(
        start=native_start,
        native_rate=native_rate,
        gain_db=limited,
        clamped=limited != gain_db,
        lead=attack_free_frames(found[first:], sample_rate),
        tail=tail_frames(found, first + frames, sample_rate),
        there=there,
        fit=fitted,
    )


def _last_heard(samples: Float32Array) -> int:
    """Return how many frames there are up to the last one that is not silent."""
    return int(np.flatnonzero(np.abs(samples).max(axis=1) > 0)[-1]) + 1 if samples.any() else 0


def find_shift(
    unit: Float32Array,
    found: Float32Array,
    margin: int,
    sample_rate: int,
    attack_s: float | None,
    *,
    roughly: bool = False,
) -> int:
    """Return by how many frames to move the start in `found` so that it falls in line with `unit`.

    The same sound is laid on itself to the sample; of others, the attacks fall together.
    """
    length = min(len(unit), round(COMPARED_S * sample_rate), len(found) - 2 * margin)
    reach = round(SHIFT_S[roughly] * sample_rate)
    own = unit[:length].mean(axis=1).astype(np.float64)
    theirs = found[margin - reach : margin + length + reach].mean(axis=1).astype(np.float64)
    points = 1 << (len(theirs) + length).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(theirs, points) * np.conj(np.fft.rfft(own, points)), points)[: 2 * reach + 1]
    energy = np.concatenate(([0.0], np.cumsum(theirs**2)))
    norms = np.sqrt(np.maximum((energy[length:] - energy[:-length])[: 2 * reach + 1] * float(own @ own), 1e-20))
    alike = correlation / norms
    best = int(np.argmax(alike))
    if alike[best] >= ALIKE:
        return best - reach
    return _attack_shift(unit, found, margin, sample_rate, ATTACK_SHIFT_S[roughly]) if attack_s is not None else 0


def _attack_shift(unit: Float32Array, found: Float32Array, margin: int, sample_rate: int, reach_s: float) -> int:
    """Return the shift that lays the rises of level at the beginnings of two sounds on one another."""
    step = max(1, sample_rate // 1000)
    reach = round(reach_s * sample_rate / step)
    own = np.maximum(np.diff(envelope_db(unit[: 80 * step], step)), 0)
    first = margin // step - reach
    theirs = np.maximum(np.diff(envelope_db(found[(first * step) : (first + 80 + 2 * reach) * step], step)), 0)
    if theirs.max(initial=0) < ATTACK_RISE_DB / 3 or own.max(initial=0) <= 0:
        return 0
    smooth = np.hanning(7)[1:-1]
    own, theirs = np.convolve(own, smooth, "same"), np.convolve(theirs, smooth, "same")
    match = np.correlate(theirs, own, "valid")[: 2 * reach + 1]
    # Of equal matches the nearest: a shift of 30 ms has to be worth a tenth.
    match = match * (1 - 0.1 * np.abs(np.arange(len(match)) - reach) / reach)
    return (int(np.argmax(match)) - reach) * step


def envelope_db(samples: Float32Array, step: int) -> Float32Array:
    """Return the level of every `step` frames of (n, channels) in dB, from -70 up."""
    whole = len(samples) - len(samples) % step
    energy = np.square(samples[:whole]).mean(axis=1).reshape(-1, step).mean(axis=1)
    level: Float32Array = np.maximum(10 * np.log10(np.maximum(energy, 1e-12)), -70.0)
    return level


def attack_free_frames(samples: Float32Array, sample_rate: int) -> int:
    """Return how many frames a fade may take at the start of a sound before its attack; 15 ms if there is none."""
    step = max(1, sample_rate // 1000)
    level = envelope_db(samples[: round(ATTACK_WITHIN_S * sample_rate)], step)
    half = round(FADE_S / 2 * sample_rate)
    if len(level) < 4:
        return half
    rise = level[3:] - level[:-3]
    strong = np.flatnonzero(rise >= ATTACK_RISE_DB)
    if not len(strong):
        return half
    return int(np.clip(round((strong[0] + 3) * step - SPARED_S * sample_rate), 0, half))


def tail_frames(samples: Float32Array, end: int, sample_rate: int) -> int:
    """Return how many frames a fade may take behind the end of a sound before its next attack; 15 ms if there is none.

    What begins there, the next hit of a loop, would be heard as a click: its first moment, and no more.
    """
    step = max(1, sample_rate // 1000)
    half = round(FADE_S / 2 * sample_rate)
    before = min(end, ATTACK_BEFORE_STEPS * step)
    level = envelope_db(samples[end - before : end + half + 3 * step], step)
    rise = np.where(level[3:] >= ATTACK_LEVEL_DB, level[3:] - level[:-3], 0.0)
    strong = np.flatnonzero(rise >= ATTACK_RISE_DB)
    if not len(strong):
        return half
    return int(np.clip(round(strong[0] * step - before - SPARED_S * sample_rate), 0, half))


def fade_frames(frames_before: int, frames: int, sample_rate: int) -> int:
    """Return the length of a crossfade between two units: 30 ms, or a quarter of the shorter one."""
    return int(min(FADE_S * sample_rate, FADE_SHARE * min(frames_before, frames)))
