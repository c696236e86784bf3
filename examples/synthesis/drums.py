"""Drums: each function makes one hit, about ±1 and unmastered, from a generator, a sample rate and a few knobs."""

from __future__ import annotations

import numpy as np

from synthesis.dsp import (
    Rng,
    Signal,
    bandpass,
    convolve,
    cycles,
    drive,
    fall,
    filtered,
    highpass,
    lowpass,
    noise,
    pulse,
    room,
    sine,
    stereo,
    times,
    unit,
)

CYMBAL_HZ = (205.3, 304.4, 369.6, 522.7, 540.0, 800.0)  # the six oscillators of Roland's TR-808 cymbal circuit


def kick(
    rng: Rng, rate: int, pitch_hz: float = 50.0, decay_s: float = 0.6, punch: float = 4.0, grit: float = 1.5
) -> Signal:
    """Bass drum: a sine that falls from `pitch_hz * (1 + punch)` to `pitch_hz`, with a click, driven by `grit`."""
    t = times(decay_s * 1.1, rate)
    bend = punch * np.exp(-t / 0.022) + 0.25 * punch * np.exp(-t / 0.085)
    body = sine(cycles(pitch_hz * (1.0 + bend), t)) * fall(t, decay_s) ** 0.8
    click = filtered(noise(rng, t) * fall(t, 0.012), rate, highpass(1500.0), lowpass(7000.0))
    return drive(unit(body) + 0.12 * unit(click), grit)


def snare(
    rng: Rng, rate: int, pitch_hz: float = 185.0, decay_s: float = 0.22, wires: float = 0.8, tone: float = 0.6
) -> Signal:
    """Snare drum: two modes of the head and the rattle of the wires, whose share is `wires`."""
    t = times(decay_s * 1.6, rate)
    glide = 1.0 + 0.5 * np.exp(-t / 0.012)
    head = sine(cycles(pitch_hz * glide, t)) * fall(t, decay_s * 0.8)
    head += 0.6 * sine(cycles(pitch_hz * 1.78 * glide, t)) * fall(t, decay_s * 0.5)
    rattle = filtered(noise(rng, t), rate, highpass(1400.0), lowpass(11000.0)) * fall(t, decay_s * 1.3)
    snap = filtered(noise(rng, t), rate, bandpass(3200.0, 0.8)) * fall(t, 0.03)
    return drive(tone * unit(head) + wires * 0.8 * unit(rattle) + 0.5 * unit(snap), 1.4)


def hihat(rng: Rng, rate: int, decay_s: float = 0.06, brightness_hz: float = 7500.0, pitch: float = 1.0) -> Signal:
    """Hi-hat: six clashing pulses and noise, band-passed; a long decay is an open one."""
    t = times(decay_s * 1.5 + 0.03, rate)
    metal = sum((pulse(cycles(f * pitch * 1.6, t) + rng.random()) for f in CYMBAL_HZ), np.zeros_like(t))
    mix = unit(metal) + 0.35 * noise(rng, t)
    hit = filtered(mix, rate, highpass(brightness_hz, 1.1), highpass(brightness_hz * 0.7), lowpass(15000.0))
    return unit(hit * (0.7 * fall(t, decay_s) + 0.3 * fall(t, decay_s * 0.35)))


def clap(rng: Rng, rate: int, spread_s: float = 0.011, tone_hz: float = 1250.0, decay_s: float = 0.22) -> Signal:
    """Hand clap: four bursts in quick succession, the last one with the room after it."""
    t = times(decay_s * 1.5 + 4 * spread_s, rate)
    envelope = np.zeros_like(t)
    starts = np.arange(4) * spread_s + np.append(0.0, rng.uniform(-0.2, 0.2, 3) * spread_s)
    for number, start in enumerate(starts):
        since = t - start
        level = fall(np.maximum(since, 0.0), decay_s if number == 3 else spread_s * 2.2)
        envelope += np.where(since >= 0.0, level, 0.0)
    return unit(filtered(noise(rng, t) * envelope, rate, bandpass(tone_hz, 1.4), highpass(500.0), lowpass(9000.0)))


def tom(rng: Rng, rate: int, pitch_hz: float = 110.0, decay_s: float = 0.5) -> Signal:
    """Tom: three modes of a drum head (Bessel ratios) that sink a little, and the stick."""
    t = times(decay_s * 1.2, rate)
    phase = cycles(pitch_hz * (1.0 + 0.22 * np.exp(-t / 0.06)), t)
    body = sine(phase) * fall(t, decay_s)
    body += 0.35 * sine(1.593 * phase) * fall(t, decay_s * 0.45) + 0.2 * sine(2.136 * phase) * fall(t, decay_s * 0.3)
    stick = filtered(noise(rng, t) * fall(t, 0.03), rate, bandpass(pitch_hz * 9.0, 0.7))
    return drive(unit(body) + 0.25 * unit(stick), 1.2)


def cymbal(rng: Rng, rate: int, decay_s: float = 2.0, brightness_hz: float = 4500.0) -> Signal:
    """Crash cymbal: dense inharmonic partials over hissing noise, stereo, the treble dying first."""
    t = times(decay_s, rate)
    sides = []
    for _ in range(2):
        partials = np.zeros_like(t)
        for f in rng.uniform(900.0, 9500.0, 28):
            partials += sine(cycles(f, t) + rng.random()) * fall(t, decay_s * min(1.0, 2200.0 / f + 0.25))
        hiss = filtered(noise(rng, t), rate, highpass(brightness_hz), lowpass(15000.0))
        swish = hiss * (0.6 * fall(t, decay_s * 0.8) + 0.4 * fall(t, decay_s * 0.2))
        sides.append(filtered(0.5 * unit(partials) + unit(swish), rate, highpass(700.0)))
    return unit(np.stack(sides, axis=1) * np.minimum(t / 0.002, 1.0)[:, None])


def shaker(rng: Rng, rate: int, grains: int = 60, length_s: float = 0.14, tone_hz: float = 6500.0) -> Signal:
    """Shaker: many tiny grains, densest in the middle of the stroke."""
    t = times(length_s * 1.4, rate)
    strikes = np.zeros_like(t)
    at = np.clip(rng.normal(0.5, 0.18, grains), 0.02, 0.98) * length_s
    np.add.at(strikes, (at * rate).astype(np.int64), rng.uniform(0.2, 1.0, grains) * rng.choice([-1.0, 1.0], grains))
    hiss = noise(rng, t) * np.sin(np.pi * np.minimum(t / length_s, 1.0)) ** 2 * 0.15
    return unit(filtered(strikes + hiss, rate, bandpass(tone_hz, 1.2), highpass(2500.0)))


def rim(rng: Rng, rate: int, pitch_hz: float = 480.0, decay_s: float = 0.09) -> Signal:
    """Rim shot or wood block: two short, high modes."""
    t = times(decay_s * 1.6, rate)
    knock = sine(cycles(pitch_hz, t)) * fall(t, decay_s)
    knock += 0.8 * sine(cycles(pitch_hz * 3.47, t)) * fall(t, decay_s * 0.6)
    stick = filtered(noise(rng, t) * fall(t, 0.008), rate, highpass(2000.0), lowpass(9000.0))
    return drive(unit(knock) + 0.3 * unit(stick), 1.5)


def cowbell(rng: Rng, rate: int, pitch_hz: float = 540.0, decay_s: float = 0.35) -> Signal:
    """Cowbell: two pulses a flat fifth apart through a band-pass, as in the TR-808."""
    t = times(decay_s * 1.2, rate)
    pair = pulse(cycles(pitch_hz, t)) + pulse(cycles(pitch_hz * 1.4815, t) + rng.random())
    shape = 0.6 * fall(t, 0.05) + 0.4 * fall(t, decay_s)
    return unit(filtered(pair * shape, rate, bandpass(pitch_hz * 2.2, 1.2), highpass(400.0)))


def impact(rng: Rng, rate: int, pitch_hz: float = 42.0, decay_s: float = 2.5) -> Signal:
    """Film impact: a deep, distorted drum in a large, dark hall; stereo."""
    t = times(decay_s, rate)
    hit = kick(rng, rate, pitch_hz, min(decay_s, 1.2), punch=2.5, grit=3.0)
    crack = filtered(noise(rng, t) * fall(t, 0.25), rate, lowpass(2800.0), highpass(120.0))
    dry = 0.4 * unit(crack)
    dry[: min(hit.size, dry.size)] += hit[: dry.size]
    hall = unit(convolve(stereo(dry), room(rng, rate, decay_s, 2400.0))[: dry.shape[0]])
    ending: Signal = np.minimum((t[-1] - t) / 0.3, 1.0)[:, None]
    return unit(stereo(dry) + 0.8 * hall) * ending
