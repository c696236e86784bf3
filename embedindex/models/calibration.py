"""Synthetic sounds of the kinds that libraries hold, to find the ranges of a network's activations and to judge it.

Conventions: windows are (n, samples) float32 with peaks at or below 1, the same for the same seed on every machine (up
to rounding). Kinds take turns, so any run of `len(KINDS)` windows holds one of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from embedindex.arrays import Float32Array, Float64Array

Generator = np.random.Generator
Sound = Callable[[int, int, Generator], Float64Array]


def synthesise_windows(count: int, samples: int, sample_rate: int, seed: int) -> Float32Array:
    """Return `count` windows of `samples` at `sample_rate`, each with its own generator derived from `seed`.

    Some are faded, cut short (the rest is silence), low-passed as lossy files are, or repeated like a tiled one-shot.
    """
    windows = np.zeros((count, samples), np.float32)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        sound = KINDS[number % len(KINDS)](samples, sample_rate, random)
        sound = _treat(sound, sample_rate, random)
        peak = np.abs(sound).max()
        level_db = random.choice([0.0, 0.0, 0.0, -6.0, -20.0])
        windows[number] = sound * (10 ** (level_db / 20) / peak if peak > 0 else 0.0)
    return windows


def _treat(sound: Float64Array, sample_rate: int, random: Generator) -> Float64Array:
    length = len(sound)
    treatment = random.integers(6)
    if treatment == 0:  # a one-shot, zeros behind it
        kept = int(length * random.uniform(0.05, 0.7))
        return np.concatenate([sound[:kept] * np.linspace(1, 0, kept), np.zeros(length - kept)])
    if treatment == 1:  # a one-shot, tiled
        kept = int(length * random.uniform(0.05, 0.5))
        return np.asarray(np.resize(sound[:kept] * np.linspace(1, 0, kept), length))
    if treatment == 2:  # lossy compression and resampling leave the top empty
        return _band(sound, sample_rate, 0.0, float(random.choice([4000.0, 8000.0, 11025.0, 16000.0, 20000.0])))
    if treatment == 3:  # the start of the sound lies inside the window
        start = int(length * random.uniform(0.1, 0.8))
        return np.concatenate([np.zeros(start), sound[: length - start]])
    return sound


def _times(samples: int, sample_rate: int) -> Float64Array:
    return np.arange(samples) / sample_rate


def _band(sound: Float64Array, sample_rate: int, low_hz: float, high_hz: float) -> Float64Array:
    """Return `sound` with what lies outside low_hz…high_hz removed."""
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / sample_rate)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(sound)))


def _coloured(samples: int, random: Generator, slope: float) -> Float64Array:
    """Return noise whose amplitude spectrum falls as frequency to the power of -`slope`."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    return np.asarray(noise / np.abs(noise).max())


def _decay(times: Float64Array, start_s: float, half_life_s: float) -> Float64Array:
    since = times - start_s
    return np.where(since >= 0, 0.5 ** (np.maximum(since, 0) / half_life_s), 0.0)


def _noise(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    noise = _coloured(samples, random, float(random.choice([0.0, 0.5, 1.0, 1.5])))
    if random.random() < 0.5:
        low = 10 ** random.uniform(1.5, 3.7)
        noise = _band(noise, sample_rate, low, low * random.uniform(1.5, 8))
    times = _times(samples, sample_rate)
    return noise * (1 + random.uniform(0, 1) * np.sin(2 * np.pi * random.uniform(0.5, 12) * times))


def _hit(times: Float64Array, start_s: float, sample_rate: int, random: Generator) -> Float64Array:
    """Return one drum: a kick, a snare, a hat or a tom."""
    kind = random.integers(4)
    body = _decay(times, start_s, random.uniform(0.03, 0.15))
    since = np.maximum(times - start_s, 0)
    noise = random.standard_normal(len(times))
    if kind == 0:
        base, drop = random.uniform(40, 70), random.uniform(80, 250)
        return body * np.sin(2 * np.pi * (base * since + drop * 0.03 * (1 - np.exp(-since / 0.03))))
    if kind == 1:
        return body * (0.6 * noise + np.sin(2 * np.pi * random.uniform(150, 250) * since))
    if kind == 2:
        return 0.5 * _decay(times, start_s, random.uniform(0.01, 0.08)) * _band(noise, sample_rate, 5000.0, 24000.0)
    return body * (np.sin(2 * np.pi * random.uniform(80, 400) * since) + 0.05 * noise)


def _drum(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    return _hit(_times(samples, sample_rate), 0.0, sample_rate, random)


def _beat(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    times = _times(samples, sample_rate)
    step = random.uniform(0.08, 0.25)
    starts = np.arange(random.uniform(0, step), times[-1], step)
    hits = [_hit(times, start, sample_rate, random) * random.uniform(0.2, 1) for start in starts]
    return np.asarray(np.sum(hits, axis=0))


def _tone(times: Float64Array, pitch_hz: float, sample_rate: int, random: Generator) -> Float64Array:
    """Return a harmonic tone: plucked, bowed or organ-like, with vibrato, its partials falling by some power."""
    vibrato = random.choice([0.0, 0.0, 0.004]) * np.sin(2 * np.pi * random.uniform(4, 7) * times) / 5.5
    slope = random.uniform(0.5, 2.5)
    stretch = random.choice([0.0, 0.0, 3e-4])
    half_life = random.choice([0.05, 0.2, 1.0, 50.0])
    tone = np.zeros(len(times))
    for partial in range(1, min(40, int(sample_rate / 2 / pitch_hz)) + 1):
        frequency = pitch_hz * partial * np.sqrt(1 + stretch * partial**2)
        if frequency < sample_rate / 2:
            envelope = 0.5 ** (times * partial**0.5 / half_life)
            phase = 2 * np.pi * (frequency * (times + vibrato / pitch_hz * 5) + random.random())
            tone += partial**-slope * envelope * np.sin(phase)
    return tone


def _chord(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    times = _times(samples, sample_rate)
    root = 55.0 * 2 ** (random.integers(0, 48) / 12)
    steps = [[0], [0, 7], [0, 4, 7], [0, 3, 7, 10], [0, 5, 7], [0, 12]][random.integers(6)]
    tones = [_tone(times, root * 2 ** (step / 12), sample_rate, random) for step in steps]
    return np.asarray(np.sum(tones, axis=0))


def _melody(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    notes = int(random.integers(2, 8))
    bounds = np.linspace(0, samples, notes + 1).astype(int)
    parts = []
    for start, end in itertools.pairwise(bounds):
        times = _times(end - start, sample_rate)
        fade = np.minimum(1, np.minimum(times, times[-1] - times) / 0.005)
        parts.append(fade * _tone(times, 110.0 * 2 ** (random.integers(0, 36) / 12), sample_rate, random))
    return np.concatenate(parts)


def _speech(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    """Return something like speech: a buzz or breath through moving formants, in syllables."""
    times = _times(samples, sample_rate)
    pitch = random.uniform(80, 260) * (1 + 0.1 * np.sin(2 * np.pi * random.uniform(0.5, 3) * times))
    phase = np.cumsum(pitch) / sample_rate
    buzz = np.diff(np.floor(phase), prepend=0.0) + 0.003 * random.standard_normal(samples)
    breath = 0.1 * random.standard_normal(samples)
    syllables = int(random.integers(2, 7))
    bounds = np.linspace(0, samples, syllables + 1).astype(int)
    out = np.zeros(samples)
    frequency = np.fft.rfftfreq(samples, 1 / sample_rate)
    for start, end in itertools.pairwise(bounds):
        voiced = random.random() < 0.75
        formants = random.uniform([250, 800, 1800], [900, 2300, 3200]) if voiced else random.uniform(3000, 8000, 1)
        gain = sum(1 / (1 + ((frequency - formant) / random.uniform(60, 400)) ** 2) for formant in formants)
        mask = np.zeros(samples)
        mask[start:end] = np.hanning(end - start)
        out += np.fft.irfft(np.fft.rfft((buzz if voiced else breath) * mask) * gain, samples)
    return out


def _sweep(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    times = _times(samples, sample_rate)
    low, high = sorted(10 ** random.uniform(1.5, 4.3, 2))
    frequency = low * (high / low) ** (times / times[-1])
    return np.sin(2 * np.pi * np.cumsum(frequency[:: random.choice([1, -1])]) / sample_rate)


def _mix(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    """Return music: a beat, a chord and a bass under a little noise."""
    out = np.zeros(samples)
    for sound, gain in ((_beat, 1.0), (_chord, 0.6), (_melody, 0.5), (_noise, 0.05)):
        layer = sound(samples, sample_rate, random)
        out += gain * random.uniform(0, 1) * layer / max(np.abs(layer).max(), 1e-9)
    return out


def _texture(samples: int, sample_rate: int, random: Generator) -> Float64Array:
    """Return grains: clicks, drops and crackle over a bed of noise."""
    out = 0.02 * _noise(samples, sample_rate, random)
    for start in random.integers(0, samples - 400, int(random.integers(3, 120))):
        times = _times(400, sample_rate)
        out[start : start + 400] += (
            random.uniform(0.1, 1) * np.exp(-times * 900) * np.sin(2 * np.pi * random.uniform(300, 9000) * times)
        )
    return out


KINDS: tuple[Sound, ...] = (_drum, _chord, _noise, _speech, _beat, _mix, _melody, _texture, _sweep)
