"""Pieces of some minutes, built from the instruments: a palette of sounds is made once, then placed on a canvas.

Each piece takes a generator, a sample rate and `length_s`, and returns mastered stereo `(n, 2)`, its ends faded.
Whatever the length, a piece has a beginning, a middle and an end: sections are fractions of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from synthesis import drums, textures, tones, voices
from synthesis.dsp import (
    Rng,
    Signal,
    ducked,
    echoes,
    faded,
    filtered,
    hertz,
    highpass,
    lowpass,
    place,
    reverb,
    stereo,
    times,
    unit,
)

Piece = Callable[[Rng, int, float], Signal]

PENTATONIC = (0, 3, 5, 7, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)


def canvas(length_s: float, rate: int) -> Signal:
    """Return `length_s` of stereo silence."""
    return np.zeros((round(length_s * rate), 2))


def mastered(mix: Signal, rate: int, fade_s: float = 3.0) -> Signal:
    """Soften a mix's peaks to below 1 and fade its ends; done in place, since a mix is large, and returned."""
    level = 1.4 / max(float(np.max(np.abs(mix))), 1e-9)
    np.multiply(mix, level, out=mix)
    np.tanh(mix, out=mix)
    release = min(round(fade_s * rate), mix.shape[0] // 2)
    mix[:64] *= np.linspace(0.0, 1.0, 64)[:, None]
    mix[-release:] *= np.linspace(1.0, 0.0, release)[:, None]
    return mix


def wet(sound: Signal, rate: int, rng: Rng, decay_s: float = 2.5, share: float = 0.5) -> Signal:
    """Return a sound in a hall, with whatever is too deep for the mix removed, at a peak of 1."""
    return unit(faded(reverb(filtered(sound, rate, highpass(30.0)), rate, rng, decay_s, share), rate, 0.0005, 0.2))


def dry(sound: Signal, rate: int, position: float = 0.0) -> Signal:
    """Return a sound at a place between left and right, without clicks at its ends."""
    return stereo(faded(sound, rate, 0.0005, 0.005), position)


def bed(mix: Signal, rate: int, texture: Signal, gain: float, start_s: float = 0.0, end_s: float | None = None) -> None:
    """Lay a texture under a stretch of the canvas, again and again, crossfading where it repeats."""
    overlap_s = min(3.0, texture.shape[0] / rate / 3.0)
    loop = stereo(faded(texture, rate, overlap_s, overlap_s))
    step_s = loop.shape[0] / rate - overlap_s
    stop_s = mix.shape[0] / rate if end_s is None else end_s
    for at_s in np.arange(start_s, max(start_s + 0.01, stop_s - overlap_s), step_s):
        place(mix, rate, loop, float(at_s), gain)


def melody(rng: Rng, scale: Sequence[int], root: int, count: int, octaves: int = 2) -> list[int]:
    """Return a random walk over a scale as MIDI notes: mostly steps, a few leaps, within `octaves`."""
    notes = [root + 12 * octave + degree for octave in range(octaves) for degree in scale]
    at = np.cumsum(rng.choice([-2, -1, -1, 1, 1, 2, 3], count))
    folded = np.abs((at + len(notes)) % (2 * len(notes) - 2) - (len(notes) - 1))
    return [notes[int(step)] for step in folded]


def rising(at_s: float, length_s: float, start: float, end: float) -> float:
    """Return how far a section from `start` to `end` (fractions of the piece) has come at a time: 0 to 1."""
    return float(np.clip((at_s / length_s - start) / max(end - start, 1e-9), 0.0, 1.0))


def slow_weather(rng: Rng, rate: int, length_s: float) -> Signal:
    """Ambient: four chords that overlap for ever, far bells, a choir in the middle, wind throughout."""
    mix = canvas(length_s, rate)
    root = 45 + int(rng.integers(0, 5))
    chords = [
        [root + step for step in chord] for chord in ((0, 7, 12, 16), (-3, 4, 9, 16), (-7, 5, 9, 12), (-5, 2, 7, 14))
    ]
    warm = [wet(tones.warm_pad(rng, rate, chord, 11.0, rng.uniform(900.0, 1500.0)), rate, rng) for chord in chords]
    glass = [wet(tones.glass_pad(rng, rate, [n + 24 for n in chord[1:]], 8.0, 0.6), rate, rng) for chord in chords]
    singers = [
        wet(voices.choir(rng, rate, chord[1:], 7.0, str(rng.choice(["a", "o", "u"]))), rate, rng) for chord in chords
    ]
    bells = [wet(tones.bell(rng, rate, hertz(root + 24 + n), 4.0, 0.3), rate, rng, 4.0, 0.8) for n in (0, 4, 7, 9, 12)]
    for number, at_s in enumerate(np.arange(0.0, length_s, 8.0)):
        chord = number % 4
        place(mix, rate, warm[chord], at_s, 0.8)
        place(mix, rate, glass[chord], at_s + 3.0, 0.2 + 0.4 * rising(at_s, length_s, 0.1, 0.5))
        if 0.35 < at_s / length_s < 0.8:
            place(mix, rate, singers[chord], at_s + 1.0, 0.5)
    for at_s in np.cumsum(rng.exponential(4.5, int(length_s / 4.0) + 1)):
        place(mix, rate, bells[rng.integers(len(bells))], at_s, rng.uniform(0.08, 0.3))
    bed(mix, rate, textures.wind(rng, rate, 20.0, 0.3, 350.0), 0.25)
    return mastered(mix, rate, 8.0)


def night_train(rng: Rng, rate: int, length_s: float) -> Signal:
    """Techno at 128 beats a minute: kick, hats and clap enter one by one; acid, a ducking pad, a break, a drop."""
    mix = canvas(length_s, rate)
    beat_s = 60.0 / 128.0
    root = 33 + int(rng.integers(0, 6))
    kick = dry(drums.kick(rng, rate, hertz(root - 2), 0.35, 4.0, 2.2), rate)
    hats = [dry(drums.hihat(rng, rate, decay, 7500.0), rate, 0.2) for decay in (0.04, 0.05, 0.22)]
    clap = wet(drums.clap(rng, rate), rate, rng, 0.8, 0.3)
    notes = [root + 12 + int(rng.choice([0, 0, 0, 12, 3, 7, 10])) for _ in range(16)]
    rests = rng.random(16) < 0.25
    acid = [  # the filter opens over the piece: each note at four stages
        [dry(tones.acid_bass(rng, rate, hertz(n), 0.2, 300.0 * 2.0**stage, 5.0), rate) for stage in range(4)]
        for n in notes
    ]
    chord = [root + 24 + step for step in (0, 3, 7, 10)]
    t = times(8 * beat_s, rate)
    pump = ducked(t, np.arange(8, dtype=np.float64) * beat_s, 0.85, 0.3)[:, None]
    pads = [tones.warm_pad(rng, rate, [n + shift for n in chord], 8 * beat_s, 1800.0) for shift in (0, -2)]
    stab = echoes(
        np.pad(tones.saw_lead(rng, rate, hertz(chord[0]), 0.3), ((0, 4 * rate), (0, 0))), rate, beat_s * 0.75, 0.6, 0.5
    )
    bars = int(length_s / (4 * beat_s))
    for bar in range(bars):
        at_s, way = bar * 4 * beat_s, bar / bars
        in_break, groove = 0.5 <= way < 0.62, way > 0.06
        for step in range(16):
            step_s = at_s + step * beat_s / 4
            if step % 4 == 0 and not in_break:
                place(mix, rate, kick, step_s, 1.0)
            if way > 0.12 and step % 4 == 2:
                place(mix, rate, hats[2], step_s, 0.45)
            if way > 0.25 and not in_break:
                place(mix, rate, hats[step % 2], step_s, rng.uniform(0.12, 0.3))
            if way > 0.18 and step in (4, 12) and not in_break:
                place(mix, rate, clap, step_s, 0.5)
            if groove and way < 0.94 and not rests[step]:
                place(mix, rate, acid[step][min(3, int(4.4 * way))], step_s, 0.5)
        if way > 0.3 and bar % 2 == 0 and way < 0.9:
            pad = pads[bar // 2 % 2]
            place(mix, rate, pad if in_break else pad * pump, at_s, 0.45)
        if way > 0.4 and bar % 4 == 3:
            place(mix, rate, stab, at_s + 2.5 * beat_s, 0.3)
    rise_s = min(7.5, 0.1 * length_s)
    place(mix, rate, stereo(textures.riser(rng, rate, rise_s)), 0.62 * length_s - rise_s, 0.4)
    return mastered(mix, rate, 2.0)


def low_ground(rng: Rng, rate: int, length_s: float) -> Signal:
    """Drone: one bowed fifth that never stops, slow partials above it, impacts far away, a hum that grows."""
    mix = canvas(length_s, rate)
    root = 36 + int(rng.integers(0, 5))
    bowed = tones.string_pad(rng, rate, (root, root + 7, root + 12), 16.0, 0.9)
    bed(mix, rate, bowed, 0.5)
    bed(mix, rate, filtered(tones.reese_bass(rng, rate, hertz(root), 14.0, 0.004), rate, lowpass(400.0)), 0.35)
    high = [
        wet(tones.glass_pad(rng, rate, (root + 24 + n, root + 36 + n), 9.0, 0.3), rate, rng, 4.0) for n in (0, 2, 7)
    ]
    for number, at_s in enumerate(np.arange(4.0, length_s, 6.5)):
        place(mix, rate, high[number % 3], at_s, 0.15 + 0.35 * rising(at_s, length_s, 0.2, 0.7))
    blow = wet(drums.impact(rng, rate, hertz(root - 7), 3.0), rate, rng, 5.0, 0.9)
    for at_s in np.cumsum(rng.uniform(14.0, 26.0, int(length_s / 14.0) + 1)):
        place(mix, rate, blow, at_s, rng.uniform(0.3, 0.7))
    bed(mix, rate, textures.hum(rng, rate, 12.0, hertz(root) / 2.0, 0.4), 0.15, 0.4 * length_s, length_s)
    return mastered(mix, rate, 10.0)


def tape_garden(rng: Rng, rate: int, length_s: float) -> Signal:
    """Slow beat at 82 a minute: electric piano, round bass, lazy drums, dust; the drums rest in the middle."""
    mix = canvas(length_s, rate)
    beat_s = 60.0 / 82.0
    root = 48 + int(rng.integers(0, 6))
    chords = [
        [root + step for step in chord] for chord in ((2, 9, 12, 17), (7, 11, 14, 17), (0, 7, 11, 16), (-3, 4, 7, 12))
    ]
    keys = []
    for chord in chords:
        strummed = canvas(3.4 * beat_s, rate)
        for number, note in enumerate(chord):
            velocity = rng.uniform(0.4, 0.7)
            place(strummed, rate, tones.electric_piano(rng, rate, hertz(note), 3.2 * beat_s, velocity), 0.018 * number)
        keys.append(wet(strummed, rate, rng, 1.2, 0.2))
    basses = [dry(tones.sub_bass(rng, rate, hertz(chord[0] - 12), 1.2 * beat_s), rate) for chord in chords]
    kick = dry(drums.kick(rng, rate, 52.0, 0.3, 3.0, 1.6), rate)
    snare = wet(filtered(drums.snare(rng, rate, 190.0, 0.18), rate, lowpass(6000.0)), rate, rng, 0.6, 0.25)
    hat = dry(filtered(drums.hihat(rng, rate, 0.05), rate, lowpass(9000.0)), rate, 0.3)
    lead = {n: wet(tones.bar(rng, rate, hertz(n), 1.5, 0.4), rate, rng, 1.5, 0.3) for n in range(root, root + 40)}
    tune = iter(melody(rng, (0, 2, 4, 7, 9), root + 12, int(length_s / beat_s) * 2 + 8))
    bars = int(length_s / (4 * beat_s))
    for bar in range(bars):
        at_s, way = bar * 4 * beat_s, bar / bars
        place(mix, rate, keys[bar % 4], at_s, 0.7)
        if way > 0.08:
            for beat in (0.0, 2.5):
                place(mix, rate, basses[bar % 4], at_s + beat * beat_s, 0.6)
        if 0.12 < way < 0.48 or way > 0.58:
            for beat in (0.0, 1.75, 2.5):
                place(mix, rate, kick, at_s + (beat + rng.uniform(0.0, 0.02)) * beat_s, 0.9)
            for beat in (1.0, 3.0):
                place(mix, rate, snare, at_s + (beat + 0.03) * beat_s, 0.6)
            for half in range(8):
                swing = 0.12 if half % 2 else 0.0
                place(mix, rate, hat, at_s + (half / 2 + swing) * beat_s, rng.uniform(0.1, 0.3))
        if way > 0.3 and bar % 4 != 3:
            for beat in np.sort(rng.choice(8, 4, replace=False)) / 2.0:
                place(mix, rate, lead[next(tune)], at_s + beat * beat_s, rng.uniform(0.2, 0.35))
    bed(mix, rate, textures.dust(rng, rate, 12.0, 14.0), 0.08)
    return mastered(mix, rate, 4.0)


def rain_walk(rng: Rng, rate: int, length_s: float) -> Signal:
    """Collage: dawn birds, then rain and thunder, voices passing by, a fire indoors; plucked notes tie it together."""
    mix = canvas(length_s, rate)
    places = (
        (textures.birds(rng, rate, 18.0), 0.8, 0.0, 0.3),
        (textures.stream(rng, rate, 14.0), 0.4, 0.1, 0.4),
        (textures.rain(rng, rate, 16.0, 0.6), 0.45, 0.3, 0.75),
        (textures.thunder(rng, rate, 16.0, 0.6), 0.8, 0.4, 0.6),
        (textures.fire(rng, rate, 14.0), 0.6, 0.68, 1.0),
        (textures.wind(rng, rate, 16.0, 0.2), 0.3, 0.6, 1.0),
    )
    for texture, gain, start, end in places:
        bed(mix, rate, texture, gain, start * length_s, end * length_s)
    people = [
        wet(voices.speech(rng, rate, pitch, 14, size), rate, rng, 0.9, 0.3)
        for pitch, size in ((115.0, 1.0), (200.0, 1.17), (270.0, 1.35))
    ]
    for at_s in np.arange(0.35, 0.95, 0.09) * length_s:
        tilt = rng.uniform(0.3, 1.0, 2)
        place(mix, rate, people[rng.integers(3)], at_s, 0.35 * tilt)
    root = 50 + int(rng.integers(0, 5))
    strings = {
        n: wet(tones.pluck(rng, rate, hertz(root + n), 3.0, 0.6), rate, rng, 2.5, 0.4) for n in (0, 3, 5, 7, 10, 12, 15)
    }
    for at_s in np.cumsum(rng.exponential(3.5, int(length_s / 3.5) + 1)) + 2.0:
        place(mix, rate, strings[int(rng.choice(list(strings)))], at_s, rng.uniform(0.3, 0.7))
    return mastered(mix, rate, 5.0)


def pixel_run(rng: Rng, rate: int, length_s: float) -> Signal:
    """Game music at 150 beats a minute: hurried arpeggios, a pulse melody in two parts, drums of noise."""
    mix = canvas(length_s, rate)
    beat_s = 60.0 / 150.0
    root = 57 + int(rng.integers(0, 5))
    chords = [
        [root + step for step in chord] for chord in ((0, 3, 7, 12), (-4, 0, 3, 8), (3, 7, 10, 15), (-2, 2, 5, 10))
    ]
    arps = [dry(tones.chip(rng, rate, chord, 0.95 * beat_s), rate, -0.4) for chord in chords]
    basses = [dry(tones.square_lead(rng, rate, hertz(chord[0] - 24), 0.45 * beat_s), rate) for chord in chords]
    tune = melody(rng, PENTATONIC, root + 12, 32)
    lead = {n: dry(tones.square_lead(rng, rate, hertz(n), 0.9 * beat_s, 0.35), rate, 0.3) for n in set(tune)}
    kick = dry(drums.kick(rng, rate, 60.0, 0.15, 5.0, 3.0), rate)
    snare = dry(drums.snare(rng, rate, 220.0, 0.12, 1.0, 0.3), rate)
    held = rng.random(32) < 0.3
    bars = int(length_s / (4 * beat_s))
    for bar in range(bars):
        at_s, way, chord = bar * 4 * beat_s, bar / bars, bar // 2 % 4
        for beat in range(4):
            beat_s_in = at_s + beat * beat_s
            place(mix, rate, arps[chord], beat_s_in, 0.35)
            for half in (0.0, 0.5):
                place(mix, rate, basses[chord], beat_s_in + half * beat_s, 0.45)
            step = (bar * 4 + beat) % 32
            if way > 0.15 and not held[step] and not 0.5 < way < 0.6:
                place(mix, rate, lead[tune[step]], beat_s_in, 0.5)
            if way > 0.1:
                place(mix, rate, snare if beat % 2 else kick, beat_s_in, 0.6)
    return mastered(mix, rate, 2.0)


def porch(rng: Rng, rate: int, length_s: float) -> Signal:
    """Folk waltz: a picked guitar in D dorian, a kalimba that answers, crickets in the evening."""
    mix = canvas(length_s, rate)
    beat_s = 60.0 / 104.0
    root = 50
    chords = ((0, 7, 12, 15), (5, 12, 16, 21), (-2, 5, 10, 14), (0, 7, 12, 17))
    used = sorted({root + step for chord in chords for step in chord})
    guitar = {n: wet(tones.pluck(rng, rate, hertz(n), 2.4, 0.45, 0.18), rate, rng, 0.9, 0.15) for n in used}
    tune = melody(rng, DORIAN, root + 12, 24)
    thumbs = {n: wet(tones.bar(rng, rate, hertz(n), 1.4, 0.35), rate, rng, 1.2, 0.25) for n in set(tune)}
    bars = int(length_s / (3 * beat_s))
    for bar in range(bars):
        at_s, way, chord = bar * 3 * beat_s, bar / bars, chords[bar // 2 % 4]
        for step, string in enumerate((0, 2, 3, 1, 3, 2)):
            late_s = rng.uniform(0.0, 0.012)
            place(mix, rate, guitar[root + chord[string]], at_s + step * beat_s / 2 + late_s, rng.uniform(0.45, 0.7))
        if way > 0.15 and bar % 4 != 3:
            for beat in rng.choice(6, 3, replace=False) / 2.0:
                note = tune[(bar * 3 + int(beat)) % 24]
                place(mix, rate, thumbs[note], at_s + beat * beat_s, rng.uniform(0.25, 0.4))
    bed(mix, rate, textures.crickets(rng, rate, 14.0), 0.06)
    return mastered(mix, rate, 5.0)


PIECES: dict[str, tuple[str, Piece]] = {  # title: genre and maker
    "Night Train": ("Techno", night_train),
    "Pixel Run": ("Chiptune", pixel_run),
    "Tape Garden": ("Downtempo", tape_garden),
    "Slow Weather": ("Ambient", slow_weather),
    "Low Ground": ("Drone", low_ground),
    "Rain Walk": ("Field Recording", rain_walk),
    "Porch": ("Folk", porch),
}
