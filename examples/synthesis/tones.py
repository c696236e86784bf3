"""Pitched instruments: each function plays one note (or chord) and returns it at about ±1, unmastered.

`pitch_hz` is the note; `length_s` the whole sound with its release. Basses, plucks and keys are mono, pads stereo.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthesis.dsp import (
    Rng,
    Signal,
    Spectrum,
    bandpass,
    cycles,
    drift,
    drive,
    fall,
    filtered,
    hertz,
    highpass,
    lowpass,
    moving,
    noise,
    pulse,
    saw,
    sine,
    stereo,
    string,
    swell,
    times,
    unit,
)

# a church bell's hum, prime, tierce, quint, nominal and above
BELL_RATIOS = (0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166, 5.433)
BAR_RATIOS = (1.0, 2.756, 5.404, 8.933)  # a free bar: kalimba, vibraphone, glockenspiel
DRAWBARS = (0.5, 1.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)  # Hammond's nine drawbars, in multiples of the note


def opening(x: Signal, rate: int, cutoff_hz: Signal, q: float = 0.9) -> Signal:
    """Pass a mono signal through a low-pass whose cut-off follows a curve, a value a sample."""
    return moving(x, rate, lambda f, at: lowpass(cutoff_hz[at][:, None], q)(f))


def sub_bass(rng: Rng, rate: int, pitch_hz: float = 55.0, length_s: float = 1.2, warmth: float = 1.5) -> Signal:
    """Sine bass with a little drive."""
    t = times(length_s, rate)
    tone = sine(cycles(pitch_hz * (1.0 + 0.4 * np.exp(-t / 0.01)), t))
    tone += 0.15 * sine(cycles(2.0 * pitch_hz, t) + rng.random())
    return drive(tone * swell(t, 0.006, 0.18) * fall(t, length_s * 3.0), warmth)


def reese_bass(rng: Rng, rate: int, pitch_hz: float = 55.0, length_s: float = 2.0, detune: float = 0.012) -> Signal:
    """Detuned saws that beat against each other under a slowly moving low-pass."""
    t = times(length_s, rate)
    voices = np.zeros_like(t)
    for offset in (-1.0, 0.0, 0.8):
        voices += saw(cycles(pitch_hz * (1.0 + offset * detune), t) + rng.random())
    cutoff = 500.0 + 380.0 * drift(rng, t, 1.5) + 6.0 * pitch_hz
    body = opening(voices, rate, cutoff, 1.2)
    return drive(unit(body) * swell(t, 0.01, 0.12), 2.0)


def acid_bass(
    rng: Rng, rate: int, pitch_hz: float = 65.4, length_s: float = 0.5, cutoff_hz: float = 900.0, q: float = 5.0
) -> Signal:
    """Saw through a resonant low-pass that snaps shut: the silver box."""
    t = times(length_s, rate)
    sweep = pitch_hz * 1.5 + cutoff_hz * (2.2 * np.exp(-t / 0.09) + 0.25)
    voice = opening(saw(cycles(pitch_hz, t) + rng.random()), rate, sweep, q)
    return drive(unit(voice) * swell(t, 0.003, 0.06) * fall(t, length_s * 2.5), 2.2)


def fm_bass(
    rng: Rng, rate: int, pitch_hz: float = 55.0, length_s: float = 0.9, index: float = 4.0, ratio: float = 1.0
) -> Signal:
    """Two-operator FM bass (Chowning, 1973), bright at its start."""
    t = times(length_s, rate)
    depth = index * (np.exp(-t / 0.12) + 0.12)
    tone = np.sin(2 * np.pi * cycles(pitch_hz, t) + depth * sine(cycles(pitch_hz * ratio, t) + 0.05 * rng.random()))
    return drive(tone * swell(t, 0.004, 0.1) * fall(t, length_s * 2.0), 1.3)


def warm_pad(
    rng: Rng, rate: int, notes: Sequence[float] = (57, 60, 64, 69), length_s: float = 5.0, cutoff_hz: float = 1400.0
) -> Signal:
    """Chord of five detuned saws a note, spread from left to right, under a breathing low-pass."""
    t = times(length_s, rate)
    sides = np.zeros((2, t.size))
    for note in notes:
        for position in np.linspace(-1.0, 1.0, 5):
            wobble = 1.0 + 0.0012 * drift(rng, t, 0.8) + position * 0.0035
            voice = saw(cycles(hertz(note) * wobble, t) + rng.random())
            sides += np.array([[0.6 - 0.4 * position], [0.6 + 0.4 * position]]) * voice
    breath = cutoff_hz * (1.0 + 0.35 * drift(rng, t, 0.4)) * (0.45 + 0.55 * swell(t, length_s * 0.4, length_s * 0.4))
    shaped = np.stack([opening(side, rate, breath) for side in sides], axis=1)
    return unit(filtered(shaped, rate, highpass(90.0)) * swell(t, length_s * 0.25, length_s * 0.35)[:, None])


def glass_pad(
    rng: Rng, rate: int, notes: Sequence[float] = (69, 76, 81), length_s: float = 5.0, shimmer: float = 0.5
) -> Signal:
    """Pure partials that swell one by one, each somewhere else in the room."""
    t = times(length_s, rate)
    out = np.zeros((t.size, 2))
    partials = ((1.0, 1.0), (2.0, 0.4), (3.0, 0.25), (5.01, 0.12 * (1 + shimmer)), (8.02, 0.1 * shimmer))
    for note in notes:
        for partial, level in partials:
            voice = sine(cycles(hertz(note) * partial * (1.0 + 0.0008 * drift(rng, t, 0.6)), t) + rng.random())
            pulse_like = 0.55 + 0.45 * drift(rng, t, 0.7 + 0.2 * partial)
            out += stereo(voice * pulse_like * level, rng.uniform(-0.9, 0.9))
    return unit(out * swell(t, length_s * 0.3, length_s * 0.4)[:, None])


def string_pad(
    rng: Rng, rate: int, notes: Sequence[float] = (45, 57, 64), length_s: float = 5.0, bow: float = 0.5
) -> Signal:
    """Bowed ensemble: saws with vibrato and bow noise through the resonances of wooden bodies."""
    t = times(length_s, rate)
    out = np.zeros((t.size, 2))
    for note in notes:
        for position in (-0.8, -0.25, 0.3, 0.85):
            speed = rng.uniform(4.8, 5.8)
            vibrato = 1.0 + 0.0035 * np.minimum(t / 0.8, 1.0) * sine(cycles(speed, t) + rng.random())
            tune = 1.0 + rng.uniform(-0.0025, 0.0025)
            voice = saw(cycles(hertz(note) * tune * vibrato, t) + rng.random()) + bow * 0.12 * noise(rng, t)
            out += stereo(voice, position)
    modes = ((280.0, 0.5), (460.0, 0.7), (1100.0, 0.5), (2600.0, 0.5))

    def wood(f: Signal) -> Spectrum:
        return lowpass(3200.0)(f) * highpass(110.0)(f) + sum(gain * bandpass(hz, 3.0)(f) for hz, gain in modes)

    return unit(filtered(out, rate, wood, lowpass(6500.0)) * swell(t, length_s * 0.15, length_s * 0.25)[:, None])


def bell(rng: Rng, rate: int, pitch_hz: float = 440.0, decay_s: float = 3.0, hardness: float = 0.5) -> Signal:
    """Cast bell: the partials of a church bell, each split in two that beat; stereo."""
    t = times(decay_s, rate)
    out = np.zeros((t.size, 2))
    for ratio in BELL_RATIOS:
        if pitch_hz * ratio > min(16000.0, 0.45 * rate):
            continue
        level = ratio**-0.6 * (0.35 + hardness * min(ratio, 3.0) / 3.0)
        pair = sine(cycles(pitch_hz * ratio, t) + rng.random()) + 0.7 * sine(cycles(pitch_hz * ratio * 1.0011, t))
        out += stereo(level * pair * fall(t, decay_s * min(1.4, 1.3 * ratio**-0.7)), rng.uniform(-0.6, 0.6))
    return unit(out * (np.minimum(t / 0.002, 1.0) * swell(t, 0.0, 0.15))[:, None])


def bar(rng: Rng, rate: int, pitch_hz: float = 440.0, decay_s: float = 1.2, mallet: float = 0.5) -> Signal:
    """Struck bar: kalimba or vibraphone, softer or harder with `mallet` (0..1)."""
    t = times(decay_s, rate)
    out = np.zeros_like(t)
    for number, ratio in enumerate(BAR_RATIOS):
        if pitch_hz * ratio < min(16000.0, 0.45 * rate):
            out += (mallet * 0.7) ** number * sine(cycles(pitch_hz * ratio, t)) * fall(t, decay_s / (1 + 2.5 * number))
    thumb = filtered(noise(rng, t) * fall(t, 0.02), rate, bandpass(900.0 + 2500.0 * mallet, 0.8))
    attack: Signal = np.minimum(t / 0.0015, 1.0)
    return unit(out + 0.15 * mallet * unit(thumb)) * attack * swell(t, 0.0, 0.1)


def pluck(
    rng: Rng, rate: int, pitch_hz: float = 220.0, decay_s: float = 2.0, softness: float = 0.5, position: float = 0.2
) -> Signal:
    """Plucked string, at a `position` along its length (0..0.5), damped by `softness`, in a small wooden body."""
    t = times(decay_s, rate)
    burst = np.where(t < 1.0 / pitch_hz, noise(rng, t), 0.0)
    comb = 1.0 / pitch_hz * position
    loop = filtered(
        burst,
        rate,
        lowpass(min(1500.0 + 7000.0 * (1.0 - softness), 0.4 * rate), 0.6),
        lambda f: 1.0 - 0.9 * np.exp(-2j * np.pi * f * comb),
        string(pitch_hz, decay_s * 1.2, softness),
        lambda f: 1.0 + 0.5 * bandpass(210.0, 2.0)(f) + 0.3 * bandpass(430.0, 3.0)(f),
        highpass(min(60.0, pitch_hz / 2)),
        tail_s=decay_s * 1.5,
    )
    return unit(loop) * swell(t, 0.0005, 0.2)


def electric_piano(
    rng: Rng, rate: int, pitch_hz: float = 261.6, length_s: float = 2.0, velocity: float = 0.6
) -> Signal:
    """Electric piano: a tine rung by FM over a round tone, with tremolo from side to side."""
    t = times(length_s, rate)
    phase = cycles(pitch_hz, t)
    strike = sine(14.0 * phase if pitch_hz < 500.0 else 7.0 * phase)  # lower for high notes, which would alias
    tine = np.sin(2 * np.pi * phase + 1.6 * velocity * fall(t, 0.5) * strike)
    tone = np.sin(2 * np.pi * phase + 1.2 * velocity * fall(t, 1.8) * sine(phase + 0.01 * rng.random()))
    mono = (0.35 * tine + tone) * fall(t, length_s * 1.6) * swell(t, 0.002, 0.12)
    sway = 0.3 * sine(cycles(4.6, t) + rng.random())
    return unit(np.stack([mono * (1.0 + sway), mono * (1.0 - sway)], axis=1))


def organ(
    rng: Rng, rate: int, notes: Sequence[float] = (57, 60, 64), length_s: float = 2.5, bars: str = "888600004"
) -> Signal:
    """Drawbar organ with key click and a slow rotating speaker; `bars` are the nine settings, 0..8."""
    t = times(length_s, rate)
    spin = sine(cycles(0.9 + 5.2 * np.clip(t / length_s, 0.0, 1.0), t) + rng.random())
    out = np.zeros_like(t)
    for note in notes:
        for multiple, setting in zip(DRAWBARS, bars, strict=True):
            phase = cycles(hertz(note) * multiple * (1.0 + 0.0015 * spin), t)
            out += int(setting) / 8.0 * sine(phase + rng.random())
    click = filtered(noise(rng, t) * fall(t, 0.012), rate, bandpass(2200.0, 1.0))
    mono = drive(0.9 * unit(out) * swell(t, 0.004, 0.05) + 0.08 * unit(click), 1.6)
    return unit(np.stack([mono * (1.0 + 0.25 * spin), mono * (1.0 - 0.25 * spin)], axis=1))


def saw_lead(rng: Rng, rate: int, pitch_hz: float = 440.0, length_s: float = 1.2, glide_from: float = 0.75) -> Signal:
    """Seven detuned saws that glide into their note and settle into a vibrato; stereo."""
    t = times(length_s, rate)
    glide = 1.0 + (glide_from - 1.0) * np.exp(-t / 0.035)
    vibrato = 1.0 + 0.006 * np.clip((t - 0.3) / 0.4, 0.0, 1.0) * sine(cycles(5.4, t))
    out = np.zeros((t.size, 2))
    for position in np.linspace(-1.0, 1.0, 7):
        phase = cycles(pitch_hz * (1.0 + 0.006 * position) * glide * vibrato, t) + rng.random()
        out += stereo(saw(phase), 0.8 * position)
    bright = filtered(out, rate, lowpass(min(7000.0, 10.0 * pitch_hz + 1500.0)), highpass(pitch_hz * 0.6))
    return unit(bright * swell(t, 0.008, 0.15)[:, None])


def square_lead(rng: Rng, rate: int, pitch_hz: float = 440.0, length_s: float = 0.9, width: float = 0.5) -> Signal:
    """Pulse lead with a slowly changing width, vibrato and a plucky low-pass."""
    t = times(length_s, rate)
    vibrato = 1.0 + 0.005 * np.clip((t - 0.2) / 0.3, 0.0, 1.0) * sine(cycles(5.8, t) + rng.random())
    tone = pulse(cycles(pitch_hz * vibrato, t), width + 0.12 * sine(cycles(1.3, t) + rng.random()))
    sweep = np.minimum(pitch_hz * (2.5 + 7.0 * np.exp(-t / 0.25)), 0.4 * rate)
    return unit(opening(tone, rate, sweep, 1.5) * swell(t, 0.004, 0.08) * fall(t, length_s * 3.0))


def chip(
    rng: Rng, rate: int, notes: Sequence[float] = (69, 72, 76), length_s: float = 0.6, width: float = 0.25
) -> Signal:
    """Game-console arpeggio: one pulse voice hurries through a chord, 50 notes a second as the consoles did."""
    t = times(length_s, rate)
    step = (t * 50.0).astype(np.int64) % len(notes)
    frequency = np.array([hertz(note) for note in notes])[step]
    tone = pulse(cycles(frequency, t) + rng.random(), width)
    soft = filtered(tone, rate, lowpass(min(12000.0, 0.4 * rate)))
    return unit(soft) * swell(t, 0.002, 0.05) * fall(t, length_s * 2.0)
