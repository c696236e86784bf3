"""Tempo and key of one sound, from librosa's onset strength and chroma.

Tempo: the period at which the onset strength, and its multiples by two, four and eight, agrees best with itself, near
120 beats a minute by preference; a loop, which ends where it begins, is taken to last 2, 4, 8… beats when that is as
near as the measurement. Key: the correlation of the mean chroma with the profiles of the 24 keys. Sounds without at
least `MIN_ONSETS` onsets in at least `MIN_TEMPO_S` seconds, one-shots above all, have no tempo; sounds without pitch no
key.

Conventions: samples are (n,) float32 mono at `SAMPLE_RATE`; tempo is beats a minute; keys are written as ``"F minor"``
with sharps. Confidence is 0 to 1, and no probability.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import EngineMissingError, UsageError

SAMPLE_RATE = 22_050
HOP_SAMPLES = 256
LISTEN_S = 120.0
MIN_TEMPO_S = 1.2
MIN_ONSETS = 3
MIN_BPM, MAX_BPM = 60.0, 200.0
USUAL_BPM, SPREAD_OCTAVES = 120.0, 0.9
# A loop lasts so many beats, and its length says so when that is no farther than this from what was measured.
LOOP_BEATS = (2, 4, 8, 16, 32, 64)
LOOP_MAX_S = 32.0
LOOP_TOLERANCE = 0.012
MIN_TEMPO_CONFIDENCE = 0.2
MIN_KEY_CONFIDENCE = 0.5
# C. Krumhansl, "Cognitive Foundations of Musical Pitch" (1990), probe-tone ratings, from the tonic up.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_KEY = re.compile(r"\s*([A-Ga-g])\s*(#|♯|b|♭|sharp|flat|)\s*[-_]?\s*(major|maj|minor|min|m|M|dur|moll|)\s*")


@dataclass(frozen=True)
class TempoKey:
    """What was found in a sound; None for what it has not."""

    bpm: float | None = None
    bpm_confidence: float | None = None
    key: str | None = None
    key_confidence: float | None = None


def require_librosa() -> None:
    """Raise when librosa is not installed.

    Raises:
        EngineMissingError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("librosa") is None:
        raise EngineMissingError("tempo and key need librosa; pip install 'embedindex[analyse]'")


def analyse(samples: Float32Array, *, tempo: bool = True, key: bool = True, whole: bool = True) -> TempoKey:
    """Return tempo and key of a sound.

    Args:
        samples: (n,) at `SAMPLE_RATE`.
        tempo: look for the tempo.
        key: look for the key.
        whole: the samples are all of the sound, so that their length means something.
    """
    bpm = estimate_tempo(samples, whole=whole) if tempo else (None, None)
    name = estimate_key(samples) if key else (None, None)
    return TempoKey(*bpm, *name)


def estimate_tempo(samples: Float32Array, *, whole: bool = True) -> tuple[float | None, float | None]:
    """Return (beats a minute, confidence), or (None, None) for what has no tempo.

    Args:
        samples: (n,) at `SAMPLE_RATE`.
        whole: the samples are all of the sound.
    """
    from librosa.onset import onset_detect, onset_strength

    length_s = len(samples) / SAMPLE_RATE
    if length_s < MIN_TEMPO_S or not np.abs(samples).max() > 0:
        return None, None
    strength = onset_strength(y=samples, sr=SAMPLE_RATE, hop_length=HOP_SAMPLES)
    onsets = onset_detect(onset_envelope=strength, sr=SAMPLE_RATE, hop_length=HOP_SAMPLES)
    if len(onsets) < MIN_ONSETS:
        return None, None
    agreement = _agreement(np.asarray(strength, np.float64))
    frames_s = HOP_SAMPLES / SAMPLE_RATE
    candidates = np.exp(np.linspace(np.log(MIN_BPM), np.log(MAX_BPM), 1200))
    lags = 60 / candidates / frames_s
    scores = np.zeros(len(candidates))
    weights = np.zeros(len(candidates))
    for multiple, weight in ((1, 1.0), (2, 1.0), (4, 1.0), (8, 0.5)):
        reached = lags * multiple < len(agreement) - 1
        scores[reached] += weight * np.interp(lags[reached] * multiple, np.arange(len(agreement)), agreement)
        weights[reached] += weight
    usable = weights > 0
    if not usable.any():
        return None, None
    scores = np.where(usable, scores / np.maximum(weights, 1), -1.0)
    preference = np.exp(-0.5 * np.square(np.log2(candidates / USUAL_BPM) / SPREAD_OCTAVES))
    best = int(np.argmax(scores * preference))
    confidence = float(np.clip(scores[best], 0, 1))
    if confidence < MIN_TEMPO_CONFIDENCE:
        return None, None
    bpm = float(candidates[best])
    if whole and length_s <= LOOP_MAX_S:
        bpm = _as_loop(bpm, length_s)
    return round(bpm, 2), round(confidence, 3)


def _agreement(strength: Float64Array) -> Float64Array:
    """Return (lags,) how onset strength correlates with itself so many frames later, whatever the overlap."""
    centred = strength - strength.mean()
    size = 1 << (2 * len(centred)).bit_length()
    inner = np.fft.irfft(np.square(np.abs(np.fft.rfft(centred, size))), size)[: len(centred)]
    own = max(float(inner[0]), 1e-12)
    overlap = np.maximum(len(centred) - np.arange(len(centred)), len(centred) / 4) / len(centred)
    return np.asarray(inner / own / overlap, np.float64)


def _as_loop(bpm: float, length_s: float) -> float:
    """Return the tempo at which the sound lasts a number of beats that loops last, when that is what was measured."""
    whole = min((60 * beats / length_s for beats in LOOP_BEATS), key=lambda tempo: abs(np.log(tempo / bpm)))
    return whole if abs(whole / bpm - 1) <= LOOP_TOLERANCE else bpm


def estimate_key(samples: Float32Array) -> tuple[str | None, float | None]:
    """Return (key, confidence), or (None, None) for what has no pitch, or no key.

    The confidence is the correlation of the chroma with the key's profile.

    Args:
        samples: (n,) at `SAMPLE_RATE`.
    """
    import librosa

    if len(samples) < SAMPLE_RATE // 4 or not np.abs(samples).max() > 0:
        return None, None
    if _is_noise(samples):
        return None, None
    chroma = librosa.feature.chroma_cqt(y=samples, sr=SAMPLE_RATE, hop_length=2048, n_octaves=6)
    mean = np.asarray(chroma.mean(axis=1), np.float64)
    if mean.std() < 1e-6:
        return None, None
    found = {
        (tonic, mode): float(np.corrcoef(mean, np.roll(profile, tonic))[0, 1])
        for tonic in range(12)
        for mode, profile in (("major", MAJOR), ("minor", MINOR))
    }
    (tonic, mode), confidence = max(found.items(), key=lambda item: item[1])
    if confidence < MIN_KEY_CONFIDENCE:
        return None, None
    return f"{PITCHES[tonic]} {mode}", round(confidence, 3)


def _is_noise(samples: Float32Array) -> bool:
    """Return whether a sound is noise: its spectrum, where it is loud, has no peaks."""
    import librosa

    flatness = librosa.feature.spectral_flatness(y=samples)
    loudness = librosa.feature.rms(y=samples)
    return bool(np.average(flatness[0], weights=loudness[0] + 1e-12) > 0.1)


def parse_key(text: str) -> str:
    """Return a key as it is stored: ``"F minor"`` for ``Fm``, ``F min``, ``f minor``; ``"A# minor"`` for ``Bbm``.

    Raises:
        UsageError: it is no key.
    """
    matched = _KEY.fullmatch(text)
    if not matched:
        raise UsageError(f"--key {text}: write a key, for example 'F minor', Fm, 'Bb major' or C#")
    letter, accidental, mode = matched.groups()
    step = {"#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1, "": 0}[accidental]
    mode = "minor" if mode in ("m", "min", "minor", "moll") else "major"
    return f"{PITCHES[(_NATURALS[letter.upper()] + step) % 12]} {mode}"
