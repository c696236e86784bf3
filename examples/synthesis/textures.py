"""Noises and places: hiss, hum, dust and static; rain, wind, sea, fire and animals, as if recorded outdoors.

Each function returns a whole texture of `length_s` seconds at about ±1, unmastered; noises are mono, places stereo.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthesis.dsp import (
    Rng,
    Signal,
    amplitude,
    bandpass,
    cycles,
    drift,
    drive,
    fall,
    filtered,
    highpass,
    lowpass,
    moving,
    noise,
    place,
    reverb,
    sine,
    stereo,
    swell,
    times,
    unit,
)


def impulses(rng: Rng, t: Signal, per_second: float) -> Signal:
    """Return single-sample clicks at random moments (a Poisson process), most of them faint, as drops are."""
    out = np.zeros_like(t)
    number = rng.poisson(per_second * t[-1])
    levels = rng.exponential(0.3, number) * rng.choice([-1.0, 1.0], number)
    np.add.at(out, rng.integers(0, t.size, number), levels)
    return out


def sides(make: Callable[[], Signal]) -> Signal:
    """Make a mono sound twice, independently, as the left and the right of a wide one."""
    return np.stack([make(), make()], axis=1)


def hiss(rng: Rng, rate: int, length_s: float = 6.0, slope_db_per_octave: float = 0.0) -> Signal:
    """Steady noise of a colour (0 white, -3 pink, -6 brown), its level breathing a little."""
    t = times(length_s, rate)
    return unit(noise(rng, t, slope_db_per_octave) * (1.0 + 0.1 * drift(rng, t, 0.5)) * swell(t, 0.1, 0.3))


def dust(rng: Rng, rate: int, length_s: float = 6.0, per_second: float = 25.0, tone_hz: float = 2500.0) -> Signal:
    """Record surface: ticks and pops over a faint rumble that turns 33⅓ times a minute."""
    t = times(length_s, rate)
    ticks = filtered(impulses(rng, t, per_second), rate, bandpass(tone_hz, 0.7))
    pops = filtered(impulses(rng, t, per_second / 12.0), rate, bandpass(700.0, 0.9))
    turn = 1.0 + 0.3 * sine(cycles(100.0 / 3.0 / 60.0, t) + rng.random())
    rumble = filtered(noise(rng, t, -3.0), rate, lowpass(160.0))
    return drive(unit(ticks) + 0.7 * unit(pops) + 0.05 * rumble * turn + 0.01 * noise(rng, t), 1.6)


def hum(rng: Rng, rate: int, length_s: float = 5.0, mains_hz: float = 50.0, buzz: float = 0.5) -> Signal:
    """Mains hum: a transformer's even harmonics, then a bad cable's odd ones as `buzz` rises, and some hiss."""
    t = times(length_s, rate)
    phase = cycles(mains_hz * (1.0 + 0.0006 * drift(rng, t, 0.5)), t)
    out = np.zeros_like(t)
    for harmonic in range(1, 25):
        share = 1.0 if harmonic % 2 == 0 or harmonic == 1 else buzz
        out += share * harmonic ** (-1.6 + buzz) * rng.uniform(0.5, 1.0) * sine(harmonic * phase + rng.random())
    return unit(unit(out) + 0.015 * noise(rng, t)) * swell(t, 0.03, 0.1)


def riser(
    rng: Rng, rate: int, length_s: float = 5.0, low_hz: float = 200.0, high_hz: float = 9000.0, up: float = 1.0
) -> Signal:
    """Sweep of resonant noise that climbs towards its end, or falls from its start where `up` is 0."""
    t = times(length_s, rate)
    way = t / t[-1] if up else 1.0 - t / t[-1]
    centre = low_hz * (high_hz / low_hz) ** (way**1.4)
    swept = moving(noise(rng, t), rate, lambda f, at: bandpass(centre[at][:, None], 3.0)(f))
    return unit(unit(swept) * (0.08 + 0.92 * way**1.5)) * swell(t, 0.02, 0.08)


def static(
    rng: Rng, rate: int, length_s: float = 4.0, steps_per_second: float = 9.0, crush_hz: float = 3000.0
) -> Signal:
    """Broken radio: held random values at a changing rate, chopped between stations and bursts of noise."""
    t = times(length_s, rate)
    clock = np.cumsum(np.broadcast_to(crush_hz * 2.0 ** (2.0 * drift(rng, t, steps_per_second / 2)) / rate, t.shape))
    held = rng.uniform(-1.0, 1.0, int(clock[-1]) + 2)[clock.astype(np.int64)]
    whistle = sine(cycles(crush_hz * (0.5 + 0.4 * drift(rng, t, 2.0)), t))
    gates = rng.random((2, int(length_s * steps_per_second) + 2))[:, (t * steps_per_second).astype(np.int64)]
    chopped = np.where(gates[0] > 0.45, held, 0.15 * noise(rng, t)) + 0.4 * whistle * (gates[1] > 0.7)
    return drive(filtered(chopped, rate, highpass(300.0), lowpass(0.36 * rate)), 1.3)


def rain(rng: Rng, rate: int, length_s: float = 18.0, heaviness: float = 0.5) -> Signal:
    """Rain: a wash of far drops, and near ones that tick and plop on leaves and stone."""
    t = times(length_s, rate)
    gust = 1.0 + 0.25 * drift(rng, t, 0.3)

    def side() -> Signal:
        wash = filtered(noise(rng, t, -1.5), rate, highpass(700.0), lowpass(0.36 * rate)) * gust
        ticks = filtered(impulses(rng, t, 60.0 + 500.0 * heaviness), rate, bandpass(5200.0, 1.0))
        plops = filtered(impulses(rng, t, 12.0 + 40.0 * heaviness), rate, bandpass(1300.0, 5.0))
        return (0.12 + 0.2 * heaviness) * wash + 0.6 * unit(ticks) + 0.4 * unit(plops)

    return drive(sides(side), 0.9)


def wind(rng: Rng, rate: int, length_s: float = 18.0, strength: float = 0.5, pitch_hz: float = 420.0) -> Signal:
    """Wind: brown noise in gusts, whistling around an edge when it is strong."""
    t = times(length_s, rate)
    gust = np.clip(0.5 + 0.5 * drift(rng, t, 0.35) + 0.15 * drift(rng, t, 1.7), 0.05, None)

    def side() -> Signal:
        centre = pitch_hz * (0.6 + 0.9 * gust) * (1.0 + 0.05 * drift(rng, t, 2.5))
        q = 1.2 + 9.0 * strength
        whistle = moving(noise(rng, t), rate, lambda f, at: bandpass(centre[at][:, None], q)(f))
        body = filtered(noise(rng, t, -6.0), rate, highpass(50.0), lowpass(900.0))
        return (0.5 * body + (0.8 + 1.5 * strength) * whistle * gust) * gust

    return unit(sides(side))


def sea(rng: Rng, rate: int, length_s: float = 24.0, period_s: float = 7.0) -> Signal:
    """Surf: waves that rise in darkness, break bright and drain away over pebbles."""
    t = times(length_s, rate)
    phase = cycles(1.0 / (period_s * (1.0 + 0.25 * drift(rng, t, 0.12))), t) + rng.random()

    def side() -> Signal:
        way = (phase + rng.uniform(-0.04, 0.04)) % 1.0
        height = np.where(way < 0.35, (way / 0.35) ** 2.5, np.exp(-(way - 0.35) / 0.22))
        cutoff = 350.0 + 6500.0 * height**1.5
        surf = moving(noise(rng, t, -3.0), rate, lambda f, at: lowpass(cutoff[at][:, None], 0.6)(f))
        pebbles = filtered(impulses(rng, t, 400.0), rate, bandpass(3800.0, 1.5))
        draining: Signal = 0.5 * unit(pebbles) * height**2 * (way > 0.4)
        return surf * (0.15 + 0.85 * height) + draining

    return unit(filtered(sides(side), rate, highpass(45.0)))


def bubble(rng: Rng, rate: int, radius_mm: float) -> Signal:
    """Ring of one rising bubble: pitch 3/r hertz (Minnaert, 1933), damping after van den Doel (2005), r in metres."""
    pitch_hz = 3000.0 / radius_mm
    damping = 0.13 * 1000.0 / radius_mm + 0.0072 * (radius_mm / 1000.0) ** -1.5
    t = times(min(5.0 / damping, 0.25), rate)
    rise = 1.0 + rng.uniform(0.0, 0.15) * damping * t
    ringing: Signal = sine(cycles(pitch_hz * rise, t)) * np.exp(-damping * t)
    return ringing * swell(t, 0.0005, 0.002) * rng.uniform(0.15, 1.0)


def stream(rng: Rng, rate: int, length_s: float = 16.0, per_second: float = 90.0, size_mm: float = 3.0) -> Signal:
    """Brook: bubbles of all sizes, thrown at random from 60 that were made once, over a faint rush."""
    t = times(length_s, rate)
    sizes = np.clip(size_mm * np.exp(rng.normal(0.0, 0.45, 60)), 0.8, 12.0)
    bubbles = [stereo(bubble(rng, rate, float(size)), rng.uniform(-1.0, 1.0)) for size in sizes]
    out = np.zeros((t.size, 2))
    for at_s in rng.uniform(0.0, length_s, rng.poisson(per_second * length_s)):
        place(out, rate, bubbles[rng.integers(60)], at_s, rng.uniform(0.2, 1.0))
    rush = sides(lambda: filtered(noise(rng, t, -3.0), rate, bandpass(900.0, 0.5)))
    return drive(unit(out) * 1.2 + 0.12 * rush, 1.2)


def fire(rng: Rng, rate: int, length_s: float = 15.0, crackle: float = 0.5) -> Signal:
    """Fire: snaps in clusters over the breath of the flames."""
    t = times(length_s, rate)
    busy = np.clip(0.5 + 0.8 * drift(rng, t, 1.3), 0.03, None)

    def side() -> Signal:
        snaps = filtered(impulses(rng, t, 15.0 + 60.0 * crackle) * busy, rate, bandpass(3300.0, 0.9), highpass(900.0))
        thuds = filtered(impulses(rng, t, 4.0) * busy, rate, bandpass(420.0, 2.0))
        flames = filtered(noise(rng, t, -6.0), rate, highpass(60.0), lowpass(650.0)) * (1.0 + 0.5 * drift(rng, t, 5.0))
        return unit(snaps) + 0.4 * unit(thuds) + 0.06 * flames

    return drive(sides(side), 1.5)


def chirp(rng: Rng, rate: int, pitch_hz: float) -> Signal:
    """One note of a bird: a whistle on a random curve, sometimes trilled."""
    t = times(rng.uniform(0.05, 0.28), rate)
    way = t / t[-1]
    bend = rng.uniform(-0.35, 0.35) * way + rng.uniform(-0.25, 0.25) * np.sin(np.pi * way)
    trill = rng.choice([0.0, 0.0, 0.08]) * sine(cycles(rng.uniform(18.0, 45.0), t))
    phase = cycles(pitch_hz * (1.0 + bend + trill), t)
    whistle: Signal = (sine(phase) + 0.12 * sine(2.0 * phase)) * np.sin(np.pi * way) ** 0.8
    return whistle


def birds(rng: Rng, rate: int, length_s: float = 18.0, singers: int = 4) -> Signal:
    """Dawn chorus: each bird has a place, a pitch, and a phrase of its own that it repeats with changes; quiet air."""
    out = np.zeros((times(length_s, rate).size, 2))
    for _ in range(singers):
        position, level = rng.uniform(-0.9, 0.9), amplitude(rng.uniform(-14.0, 0.0))
        pitch_hz = rng.uniform(1900.0, 5200.0)
        phrase = [chirp(rng, rate, pitch_hz * rng.uniform(0.8, 1.25)) for _ in range(rng.integers(2, 7))]
        at_s = rng.uniform(0.2, 2.5)
        while at_s < length_s - 1.0:
            for note in phrase[: rng.integers(1, len(phrase) + 1)]:
                place(out, rate, stereo(note, position), at_s, level * rng.uniform(0.7, 1.0))
                at_s += note.size / rate + rng.uniform(0.02, 0.12)
            at_s += rng.exponential(1.6) + 0.5
    t = times(length_s, rate)
    woods = unit(reverb(unit(out), rate, rng, 1.4, 0.35, 5000.0)[: t.size])
    air = sides(lambda: filtered(noise(rng, t, -3.0), rate, highpass(150.0), lowpass(2500.0)))
    return unit(woods + 0.015 * air)


def crickets(rng: Rng, rate: int, length_s: float = 16.0, singers: int = 5) -> Signal:
    """Summer night: crickets, each a high tone gated into trains of three or four pulses."""
    t = times(length_s, rate)
    out = np.zeros((t.size, 2))
    for _ in range(singers):
        chirps_hz, pulses = rng.uniform(1.4, 3.2), int(rng.integers(3, 5))
        way = (cycles(chirps_hz * (1.0 + 0.03 * drift(rng, t, 0.4)), t) + rng.random()) % 1.0
        within = way / 0.5 * pulses
        gate = np.where(way < 0.5, np.sin(np.pi * (within % 1.0)) ** 2, 0.0)
        tone = sine(cycles(rng.uniform(3800.0, 5200.0) * (1.0 + 0.002 * drift(rng, t, 3.0)), t))
        out += stereo(tone * gate * amplitude(rng.uniform(-16.0, 0.0)), rng.uniform(-1.0, 1.0))
    night = sides(lambda: noise(rng, t, -4.5))
    return unit(unit(out) + 0.02 * night) * swell(t, 0.3, 0.5)[:, None]


def thunder(rng: Rng, rate: int, length_s: float = 16.0, distance: float = 0.5) -> Signal:
    """Thunder: a crack when near, then a long roll whose treble is lost with `distance` (0..1), over far rain."""
    t = times(length_s, rate)
    strikes = np.zeros_like(t)
    for at_s in np.append(0.4, 0.4 + rng.uniform(0.0, 0.45 * length_s, 7)):
        since = np.maximum(t - at_s, 0.0)
        strikes += rng.uniform(0.3, 1.0) * np.minimum(since / 0.06, 1.0) * fall(since, rng.uniform(0.3, 0.6) * length_s)

    def side() -> Signal:
        rumble = filtered(noise(rng, t, -6.0), rate, highpass(28.0), lowpass(420.0 - 300.0 * distance))
        crack = filtered(noise(rng, t), rate, bandpass(1800.0, 0.5)) * fall(np.maximum(t - 0.4, 0.0), 0.9) * (t > 0.4)
        far_rain = filtered(noise(rng, t, -1.5), rate, highpass(900.0))
        return unit(rumble * strikes) + 0.6 * (1.0 - distance) ** 2 * unit(crack) + 0.015 * far_rain

    return drive(sides(side), 1.4)
