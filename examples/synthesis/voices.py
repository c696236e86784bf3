"""Voices: a buzzing source through moving resonances, the way Klatt's synthesiser speaks (JASA 67, 1980).

Nothing here is a language: syllables are random. Sounds come at about ±1, unmastered; choirs are stereo, the rest mono.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthesis.dsp import (
    Response,
    Rng,
    Signal,
    Spectrum,
    bandpass,
    cycles,
    drift,
    drive,
    filtered,
    hertz,
    highpass,
    lowpass,
    moving,
    noise,
    saw,
    sine,
    stereo,
    swell,
    times,
    unit,
)

# first three formants of men's vowels, in hertz: Peterson and Barney, JASA 24, 1952, table II
VOWELS = {
    "i": (270.0, 2290.0, 3010.0),
    "e": (530.0, 1840.0, 2480.0),
    "ae": (660.0, 1720.0, 2410.0),
    "a": (730.0, 1090.0, 2440.0),
    "o": (570.0, 840.0, 2410.0),
    "u": (300.0, 870.0, 2240.0),
    "er": (490.0, 1350.0, 1690.0),
}
HIGHER_FORMANTS_HZ = (3500.0, 4500.0)
BANDWIDTHS_HZ = (60.0, 90.0, 130.0, 200.0, 250.0)  # near the defaults of Klatt's table I
FRICATIVES_HZ = (1500.0, 2600.0, 4200.0, 6500.0)  # h, sh, s dark, s bright


def formants(vowel: str, size: float) -> Signal:
    """Return the five formants `(5,)` in hertz; `size` is 1 for a man's tract, 1.17 a woman's, 1.35 a child's."""
    return np.array(VOWELS[vowel] + HIGHER_FORMANTS_HZ) * size


def tract(track_hz: Signal, rate: int) -> Response:
    """Return the cascade of resonators: `track_hz` is `(5,)` for a still vowel or `(frames, 5)` for a moving one."""
    tops = np.minimum(track_hz, 0.45 * rate)

    def response(f: Signal) -> Spectrum:
        out: Spectrum = np.ones((1, f.size), dtype=np.complex128)
        for number, width in enumerate(BANDWIDTHS_HZ):
            centre = tops[..., number, None]
            out = out * lowpass(centre, centre / width)(f)
        return out[0] if track_hz.ndim == 1 else out

    return response


def sung(
    rng: Rng,
    rate: int,
    pitch_hz: float = 180.0,
    length_s: float = 2.5,
    first: str = "a",
    last: str = "a",
    size: float = 1.0,
) -> Signal:
    """One sung note that may glide from a `first` vowel to a `last`, with vibrato, jitter and breath."""
    t = times(length_s, rate)
    vibrato = 1.0 + 0.011 * np.clip((t - 0.35) / 0.5, 0.0, 1.0) * sine(cycles(rng.uniform(5.0, 6.2), t) + rng.random())
    scoop = 1.0 - 0.06 * np.exp(-t / 0.06)
    source = saw(cycles(pitch_hz * vibrato * scoop * (1.0 + 0.004 * drift(rng, t, 25.0)), t)) + 0.04 * noise(rng, t)
    way = np.clip((t / t[-1] - 0.3) / 0.4, 0.0, 1.0)[:, None]
    track = formants(first, size) * (1.0 - way) + formants(last, size) * way
    voice = moving(source, rate, lambda f, at: tract(track[at], rate)(f))
    return unit(filtered(voice, rate, highpass(80.0)) * swell(t, 0.07, 0.25))


def speech(
    rng: Rng, rate: int, pitch_hz: float = 120.0, syllables: int = 12, size: float = 1.0, whispered: bool = False
) -> Signal:
    """Babble with the rhythm of speech: random consonants and vowels, a falling melody, pauses; or whispered."""
    lengths = rng.uniform(0.12, 0.26, syllables) + np.where(rng.random(syllables) < 0.13, 0.3, 0.0)
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) + 0.05
    t = times(float(np.sum(lengths)) + 0.3, rate)
    names = rng.choice(list(VOWELS), syllables)
    targets = np.array([formants(str(name), size) for name in names])
    knots = (starts[:, None] + np.array([0.0, 0.05, 0.11])).ravel()
    closed = np.concatenate([[250.0, 1500.0, 2500.0], HIGHER_FORMANTS_HZ]) * size
    shapes = np.stack([0.6 * closed + 0.4 * targets, targets, targets], axis=1).reshape(-1, targets.shape[1])
    opened = np.stack([np.zeros(syllables), rng.uniform(0.7, 1.0, syllables), rng.uniform(0.6, 1.0, syllables)], axis=1)
    ends = starts + np.minimum(lengths - 0.01, 0.24)
    level = np.interp(t, np.sort(np.append(knots, ends)), _with_silences(knots, ends, opened.ravel()))
    track = np.stack([np.interp(t, knots, shapes[:, k]) for k in range(targets.shape[1])], axis=1)
    melody = pitch_hz * (1.15 - 0.35 * t / t[-1]) * (1.0 + 0.1 * drift(rng, t, 3.0) + 0.006 * drift(rng, t, 40.0))
    source = 0.5 * noise(rng, t, -3.0) if whispered else saw(cycles(melody, t)) + 0.03 * noise(rng, t)
    voice = moving(source * level, rate, lambda f, at: tract(track[at], rate)(f))
    hisses = fricatives(rng, t, rate, starts, size)
    return drive(unit(filtered(voice, rate, highpass(80.0))) + 0.22 * hisses, 1.3) * swell(t, 0.005, 0.08)


def _with_silences(knots_s: Signal, ends_s: Signal, levels: Signal) -> Signal:
    """Return the levels at the sorted union of `knots_s` (their `levels`) and `ends_s` (silence)."""
    order = np.argsort(np.append(knots_s, ends_s), kind="stable")
    return np.append(levels, np.zeros_like(ends_s))[order]


def fricatives(rng: Rng, t: Signal, rate: int, starts_s: Signal, size: float) -> Signal:
    """Return the hiss of the consonants that begin some of the syllables, at about ±1."""
    out = np.zeros_like(t)
    kinds = rng.integers(-2, len(FRICATIVES_HZ), starts_s.size)  # a negative one has no hiss
    for kind, centre in enumerate(FRICATIVES_HZ):
        gate = np.zeros_like(t)
        for start in starts_s[kinds == kind]:
            gate += np.exp(-(((t - start) / rng.uniform(0.012, 0.04)) ** 2))
        if np.any(kinds == kind):
            out += filtered(noise(rng, t) * gate, rate, bandpass(min(centre * size, 0.4 * rate), 1.6))
    return unit(out)


def choir(
    rng: Rng, rate: int, notes: Sequence[float] = (48, 55, 60, 64), length_s: float = 6.0, vowel: str = "a"
) -> Signal:
    """Chord on one vowel, three singers a note from left to right, each with a tract and a vibrato of their own."""
    t = times(length_s, rate)
    out = np.zeros((t.size, 2))
    for note in notes:
        for position in (-0.7, 0.0, 0.7):
            tune = 1.0 + rng.uniform(-0.004, 0.004) + 0.003 * drift(rng, t, 6.0)
            vibrato = 1.0 + 0.008 * sine(cycles(rng.uniform(4.8, 6.2), t) + rng.random())
            source = saw(cycles(hertz(note) * tune * vibrato, t) + rng.random()) + 0.05 * noise(rng, t)
            size = (1.0 if note < 57 else 1.15) * rng.uniform(0.97, 1.03)
            singer = filtered(source, rate, tract(formants(vowel, size), rate))
            out += stereo(unit(singer), position + rng.uniform(-0.2, 0.2))
    softened = filtered(out, rate, highpass(90.0), lowpass(5500.0))
    return unit(softened * swell(t, length_s * 0.15, length_s * 0.3)[:, None])
