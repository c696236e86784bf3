"""How far to bend a piece of a file so that it fits: its length the unit's, its pitch the unit's pitch.

A piece has a length of its own where the file ends, or where something new begins in it: stretched to the length of the
unit, it is neither cut nor does the beginning of the next sound get in. A sound that just goes on fits as it is.

Conventions: sounds are (n, channels) float32 at the output rate, from the start of the unit or piece on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.remix.attacks import onsets_s
from embedindex.remix.bending import PLAIN, Bend
from embedindex.remix.frames import LEVEL, PITCH, RATE, VOICING, describe

NEAR_S = 0.012  # lengths that differ by less are the same
SPARED_S = 0.001  # a piece is over so long before what begins in it
IN_TUNE = 0.05  # semitones
LONGEST_S = 60.0  # longer units stay as they are
# A pitch is sure where so much of a sound, by amplitude, has one, so much of which lies so near (semitones) its middle.
VOICED, STEADY, NEAR_MIDDLE = 0.6, 0.7, 0.7
PERIODS_S = 0.05  # a pitch is measured over so many periods


@dataclass(frozen=True)
class Limits:
    """How far a piece may be bent: `stretch` by this share, up and down by so many `semitones`; 0 for not at all."""

    stretch: float = 0.0
    semitones: float = 0.0

    @property
    def none(self) -> bool:
        """Whether everything stays as it is."""
        return self.stretch <= 0.0 and self.semitones <= 0.0


UNBENT = Limits()


@dataclass(frozen=True)
class Fit:
    """How a piece is bent, and whether the limits kept it from reaching the unit's end, or its pitch."""

    bend: Bend = PLAIN
    short: bool = False
    off_pitch: bool = False


AS_IT_IS = Fit()


def fit(unit: Float32Array, piece: Float32Array, there: int, sample_rate: int, limits: Limits, beyond: int = 0) -> Fit:
    """Return how to bend a piece so that it takes a unit's place.

    Args:
        unit: the seed's unit, all of it.
        piece: the file from the piece's start on, as far as it might be compressed into the unit.
        there: frames of it until the file ends.
        sample_rate: Hz.
        limits: how far.
        beyond: frames that it sounds on for after the unit's end, while the next one is faded in.
    """
    frames = len(unit) + beyond
    if limits.none or frames > LONGEST_S * sample_rate:
        return AS_IT_IS
    own = own_length(piece, there, frames, sample_rate, limits.stretch) if limits.stretch > 0 else frames
    wanted = frames / own
    stretch = min(wanted, 1.0 + limits.stretch)
    wish = _interval(unit, piece[:own], sample_rate) if limits.semitones > 0 else 0.0
    semitones = float(np.clip(wish, -limits.semitones, limits.semitones))
    return Fit(Bend(round(stretch, 6), round(semitones, 3)), short=stretch < wanted, off_pitch=semitones != wish)


def own_length(piece: Float32Array, there: int, frames: int, sample_rate: int, share: float) -> int:
    """Return the length that a piece has by itself, in frames, if stretching by at most `share` can make it `frames`.

    That is where the file ends, or the attack comes that is nearest to `frames`; `frames` if there is neither. Of a
    file that ends far too early, that end.
    """
    near = round(NEAR_S * sample_rate)
    if there < frames - near:
        ends = [max(1, there)]
    else:
        shortest, longest = frames / (1.0 + share), frames / (1.0 - share)
        track = describe(_resampled(piece, sample_rate))
        attacks = (onsets_s(track) - SPARED_S) * sample_rate
        ends = [round(attack) for attack in attacks.tolist() if shortest <= attack <= min(longest, there)]
    own = min(ends, key=lambda end: abs(np.log(end / frames)), default=frames)
    return frames if abs(own - frames) <= near else own


def _interval(unit: Float32Array, piece: Float32Array, sample_rate: int) -> float:
    """Return by how many semitones a piece has to rise to have the unit's pitch, in its own octave; 0 if unsure."""
    wanted, have = steady_pitch(unit, sample_rate), steady_pitch(piece, sample_rate)
    if wanted is None or have is None:
        return 0.0
    interval = wanted - have
    interval -= 12.0 * round(interval / 12.0)
    return interval if abs(interval) > IN_TUNE else 0.0


def steady_pitch(samples: Float32Array, sample_rate: int) -> float | None:
    """Return the pitch of a sound in semitones (MIDI number), from 55 to 1100 Hz; None unless it has one throughout."""
    mono = _resampled(samples, sample_rate)
    frames = describe(mono).frames
    weight = 10.0 ** (frames[:, LEVEL].astype(np.float64) / 20.0)
    voiced = weight * frames[:, VOICING]
    if voiced.sum() <= VOICED * weight.sum():
        return None
    pitch = frames[:, PITCH].astype(np.float64)
    order = np.argsort(pitch)
    middle = pitch[order][np.searchsorted(np.cumsum(voiced[order]), voiced.sum() / 2)]
    if voiced[np.abs(pitch - middle) <= NEAR_MIDDLE].sum() < STEADY * voiced.sum():
        return None
    period = RATE / (440.0 * 2.0 ** ((middle - 69.0) / 12.0))
    return 69.0 + 12.0 * float(np.log2(RATE / _exact_period(mono, period) / 440.0))


def _exact_period(mono: Float32Array, period: float) -> float:
    """Return a period in samples, found again at a multiple of it: a tenth of a sample there is little."""
    times = max(1, min(8, int(PERIODS_S * RATE / period), int(len(mono) / 4 / period)))
    points = 1 << (2 * len(mono)).bit_length()
    correlation: Float64Array = np.fft.irfft(np.abs(np.fft.rfft(mono.astype(np.float64), points)) ** 2, points)
    low, high = max(1, round((times - 0.4) * period)), round((times + 0.4) * period)
    best = low + int(np.argmax(correlation[low : high + 1]))
    left, mid, right = correlation[best - 1 : best + 2]
    bend = left - 2 * mid + right
    return float(best + (0.5 * (left - right) / bend if bend < 0 else 0.0)) / times


def _resampled(samples: Float32Array, sample_rate: int) -> Float32Array:
    import soxr

    return np.asarray(soxr.resample(samples.mean(axis=1), sample_rate, RATE), np.float32)
