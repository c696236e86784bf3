"""What the demo library holds: for each folder how many sounds, their genre, and how a new one is drawn at random.

The knobs of each class are drawn from ranges that keep it recognisable: no two kicks are alike, and each is a kick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from synthesis import drums, textures, tones, voices
from synthesis.dsp import Rng, Signal, hertz, reverb, unit

Maker = Callable[[Rng, int, float], Signal]  # of a generator, a rate in hertz, and a factor on long sounds' lengths

TRIADS = ((0, 3, 7), (0, 4, 7), (0, 3, 7, 10), (0, 4, 7, 11), (0, 5, 7), (0, 7, 12, 14))
SINGING = ("a", "e", "i", "o", "u")
TRACTS = ((1.0, 90.0, 150.0), (1.17, 170.0, 260.0), (1.35, 240.0, 340.0))  # size; lowest and highest pitch in hertz


@dataclass(frozen=True)
class Kind:
    """One class of sounds: `count` of them go to `folder`, named `name` and a number; a few get a `room`, in stereo."""

    folder: str
    name: str
    count: int
    genre: str
    make: Maker
    long: bool = False
    room_s: float = 0.0


def _note(rng: Rng, low: int, high: int) -> float:
    """Draw a tempered note, in hertz."""
    return hertz(int(rng.integers(low, high)))


def _chord(rng: Rng, low: int, high: int) -> list[float]:
    """Draw a chord, as MIDI notes."""
    root = int(rng.integers(low, high))
    return [float(root + step) for step in TRIADS[rng.integers(len(TRIADS))]]


def _kick(rng: Rng, rate: int, _: float) -> Signal:
    return drums.kick(rng, rate, rng.uniform(42, 62), rng.uniform(0.25, 0.8), rng.uniform(2, 5), rng.uniform(1, 3.5))


def _snare(rng: Rng, rate: int, _: float) -> Signal:
    pitch_hz, decay_s = rng.uniform(160, 240), rng.uniform(0.14, 0.32)
    return drums.snare(rng, rate, pitch_hz, decay_s, rng.uniform(0.6, 1.0), rng.uniform(0.4, 0.7))


def _hat(rng: Rng, rate: int, _: float) -> Signal:
    decay_s = rng.uniform(0.03, 0.1) if rng.random() < 0.7 else rng.uniform(0.25, 0.6)
    return drums.hihat(rng, rate, decay_s, rng.uniform(6500, 8500), rng.uniform(0.9, 1.2))


def _acid(rng: Rng, rate: int, _: float) -> Signal:
    length_s, cutoff_hz = rng.uniform(0.3, 1.2), rng.uniform(400, 1800)
    return tones.acid_bass(rng, rate, _note(rng, 31, 48), length_s, cutoff_hz, rng.uniform(3, 8))


def _fm_bass(rng: Rng, rate: int, _: float) -> Signal:
    ratio = float(rng.choice([0.5, 1.0, 2.0, 3.0]))
    return tones.fm_bass(rng, rate, _note(rng, 28, 43), rng.uniform(0.5, 1.6), rng.uniform(2, 6), ratio)


def _pluck(rng: Rng, rate: int, _: float) -> Signal:
    softness, position = rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.4)
    return tones.pluck(rng, rate, _note(rng, 40, 76), rng.uniform(1.2, 3.0), softness, position)


def _organ(rng: Rng, rate: int, _: float) -> Signal:
    drawbars = "".join(str(setting) for setting in rng.integers(0, 9, 9))
    return tones.organ(rng, rate, _chord(rng, 48, 66), rng.uniform(1.5, 4), "8" + drawbars[1:])


def _riser(rng: Rng, rate: int, scale: float) -> Signal:
    length_s, low_hz, high_hz = rng.uniform(3, 8) * scale, rng.uniform(120, 400), rng.uniform(5000, 10000)
    return textures.riser(rng, rate, length_s, low_hz, high_hz, float(rng.integers(2)))


def _sung(rng: Rng, rate: int, scale: float) -> Signal:
    size, low_hz, high_hz = TRACTS[rng.integers(3)]
    first, last = str(rng.choice(SINGING)), str(rng.choice(SINGING))
    return voices.sung(
        rng, rate, rng.uniform(low_hz, high_hz), rng.uniform(1.5, 4) * max(scale, 0.3), first, last, size
    )


def _speech(rng: Rng, rate: int, scale: float) -> Signal:
    size, low_hz, high_hz = TRACTS[rng.integers(3)]
    return voices.speech(rng, rate, rng.uniform(low_hz, high_hz), max(3, int(rng.integers(10, 28) * scale)), size)


def _whisper(rng: Rng, rate: int, scale: float) -> Signal:
    syllables = max(3, int(rng.integers(8, 20) * scale))
    return voices.speech(rng, rate, 120.0, syllables, TRACTS[rng.integers(3)][0], whispered=True)


def _choir(rng: Rng, rate: int, scale: float) -> Signal:
    chord = _chord(rng, 45, 60)
    return voices.choir(rng, rate, chord, rng.uniform(4, 7) * max(scale, 0.2), str(rng.choice(SINGING)))


KINDS = (
    Kind("drums/kicks", "kick", 18, "Drums", _kick),
    Kind("drums/snares", "snare", 18, "Drums", _snare, room_s=0.5),
    Kind("drums/hats", "hat", 18, "Drums", _hat),
    Kind(
        "drums/claps",
        "clap",
        12,
        "Drums",
        lambda g, r, _: drums.clap(g, r, g.uniform(0.008, 0.016), g.uniform(950, 1700), g.uniform(0.15, 0.35)),
        room_s=0.6,
    ),
    Kind(
        "drums/toms",
        "tom",
        12,
        "Drums",
        lambda g, r, _: drums.tom(g, r, g.uniform(70, 190), g.uniform(0.3, 0.8)),
        room_s=0.5,
    ),
    Kind("drums/rims", "rim", 10, "Drums", lambda g, r, _: drums.rim(g, r, g.uniform(380, 800), g.uniform(0.05, 0.14))),
    Kind(
        "drums/cymbals",
        "cymbal",
        8,
        "Drums",
        lambda g, r, _: drums.cymbal(g, r, g.uniform(1.2, 3), g.uniform(3500, 6000)),
    ),
    Kind(
        "drums/shakers",
        "shaker",
        10,
        "Drums",
        lambda g, r, _: drums.shaker(g, r, int(g.integers(30, 110)), g.uniform(0.08, 0.22), g.uniform(5000, 8000)),
    ),
    Kind(
        "drums/cowbells",
        "cowbell",
        6,
        "Drums",
        lambda g, r, _: drums.cowbell(g, r, g.uniform(460, 680), g.uniform(0.2, 0.5)),
    ),
    Kind(
        "basses/sub", "sub bass", 8, "Bass", lambda g, r, _: tones.sub_bass(g, r, _note(g, 28, 43), g.uniform(0.6, 2))
    ),
    Kind(
        "basses/reese",
        "reese",
        8,
        "Bass",
        lambda g, r, _: tones.reese_bass(g, r, _note(g, 28, 43), g.uniform(1.2, 3), g.uniform(0.005, 0.02)),
    ),
    Kind("basses/acid", "acid", 12, "Bass", _acid),
    Kind("basses/fm", "fm bass", 8, "Bass", _fm_bass),
    Kind(
        "pads/warm",
        "warm pad",
        8,
        "Pad",
        lambda g, r, s: tones.warm_pad(g, r, _chord(g, 45, 60), 6 * s, g.uniform(700, 2200)),
        True,
    ),
    Kind(
        "pads/glass",
        "glass pad",
        8,
        "Pad",
        lambda g, r, s: tones.glass_pad(g, r, _chord(g, 60, 74), 7 * s, g.random()),
        True,
    ),
    Kind(
        "pads/strings",
        "strings",
        8,
        "Pad",
        lambda g, r, s: tones.string_pad(g, r, _chord(g, 43, 60), 6 * s, g.random()),
        True,
    ),
    Kind("plucks/guitars", "pluck", 16, "Plucked", _pluck, room_s=0.8),
    Kind(
        "plucks/kalimbas",
        "kalimba",
        12,
        "Plucked",
        lambda g, r, _: tones.bar(g, r, _note(g, 57, 84), g.uniform(0.8, 2.2), g.uniform(0.2, 0.9)),
        room_s=0.8,
    ),
    Kind(
        "plucks/bells",
        "bell",
        10,
        "Bells",
        lambda g, r, _: tones.bell(g, r, _note(g, 60, 86), g.uniform(2, 4.5), g.random()),
    ),
    Kind(
        "keys/electric pianos",
        "electric piano",
        10,
        "Keys",
        lambda g, r, _: tones.electric_piano(g, r, _note(g, 45, 76), g.uniform(1.5, 3), g.uniform(0.2, 1)),
    ),
    Kind("keys/organs", "organ", 8, "Keys", _organ),
    Kind(
        "leads/saws", "saw lead", 8, "Lead", lambda g, r, _: tones.saw_lead(g, r, _note(g, 57, 78), g.uniform(0.6, 1.8))
    ),
    Kind(
        "leads/squares",
        "square lead",
        8,
        "Lead",
        lambda g, r, _: tones.square_lead(g, r, _note(g, 57, 81), g.uniform(0.4, 1.4), g.uniform(0.2, 0.5)),
    ),
    Kind(
        "leads/chips", "chip", 8, "Chiptune", lambda g, r, _: tones.chip(g, r, _chord(g, 60, 80), g.uniform(0.3, 1.0))
    ),
    Kind("noises/hiss", "hiss", 8, "Noise", lambda g, r, s: textures.hiss(g, r, 6 * s, g.uniform(-6, 0)), True),
    Kind("noises/dust", "dust", 6, "Noise", lambda g, r, s: textures.dust(g, r, 8 * s, g.uniform(8, 60)), True),
    Kind(
        "noises/hum",
        "hum",
        6,
        "Noise",
        lambda g, r, s: textures.hum(g, r, 5 * s, float(g.choice([50, 60])), g.random()),
        True,
    ),
    Kind("noises/risers", "riser", 8, "Effects", _riser, True),
    Kind("noises/static", "static", 6, "Noise", lambda g, r, s: textures.static(g, r, 5 * s, g.uniform(5, 14)), True),
    Kind(
        "noises/impacts",
        "impact",
        6,
        "Effects",
        lambda g, r, _: drums.impact(g, r, g.uniform(34, 55), g.uniform(1.8, 3.5)),
        True,
    ),
    Kind("voices/sung", "sung", 12, "Voice", _sung, room_s=1.2),
    Kind("voices/speech", "speech", 12, "Voice", _speech, room_s=0.5),
    Kind("voices/whispers", "whisper", 6, "Voice", _whisper),
    Kind("voices/choirs", "choir", 6, "Voice", _choir, True),
    Kind("places/rain", "rain", 5, "Field Recording", lambda g, r, s: textures.rain(g, r, 15 * s, g.random()), True),
    Kind(
        "places/wind",
        "wind",
        5,
        "Field Recording",
        lambda g, r, s: textures.wind(g, r, 16 * s, g.uniform(0.1, 0.9)),
        True,
    ),
    Kind("places/sea", "sea", 5, "Field Recording", lambda g, r, s: textures.sea(g, r, 16 * s, g.uniform(5, 9)), True),
    Kind(
        "places/streams",
        "stream",
        5,
        "Field Recording",
        lambda g, r, s: textures.stream(g, r, 15 * s, g.uniform(50, 150)),
        True,
    ),
    Kind("places/fires", "fire", 5, "Field Recording", lambda g, r, s: textures.fire(g, r, 15 * s, g.random()), True),
    Kind(
        "places/birds",
        "birds",
        5,
        "Field Recording",
        lambda g, r, s: textures.birds(g, r, 16 * s, int(g.integers(2, 6))),
        True,
    ),
    Kind(
        "places/crickets",
        "crickets",
        5,
        "Field Recording",
        lambda g, r, s: textures.crickets(g, r, 15 * s, int(g.integers(3, 7))),
        True,
    ),
    Kind(
        "places/thunder",
        "thunder",
        5,
        "Field Recording",
        lambda g, r, s: textures.thunder(g, r, 15 * s, g.random()),
        True,
    ),
)


def sound(kind: Kind, number: int, rng: Rng, rate: int, scale: float = 1.0) -> Signal:
    """Draw a new sound of a kind, unmastered; every third is put into the room of its kind, if it has one."""
    x = kind.make(rng, rate, scale)
    if kind.room_s and number % 3 == 2:
        return unit(reverb(x, rate, rng, kind.room_s, 0.25))
    return x
