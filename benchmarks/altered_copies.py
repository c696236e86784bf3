"""Altered copies of sounds, the same recording in another form; for `duplicates.py`.

Four forms: ``mp3`` at a low bit rate; ``soft`` 12 dB softer, as Ogg Vorbis; ``late`` 0.02 to 0.3 s of silence first, as
Ogg Vorbis; ``eq`` +3 dB in the bass and −3 dB in the treble (shelves of the first order), as Ogg Vorbis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from embedindex.arrays import Float32Array

KINDS = ("mp3", "soft", "late", "eq")
SUFFIXES = {".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3", ".au"}
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
CUTS_S = (10.0, 50.0, 90.0)
CUT_LENGTH_S = 20.0


def sounds_below(folder: Path) -> list[Path]:
    """Return the sounds in a folder and below it, by path; of files with the same bytes the first."""
    first: dict[bytes, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            first.setdefault(path.read_bytes(), path)
    return sorted(first.values())


def gather(folder: Path, to: Path, *, cut: bool = False) -> list[Path]:
    """Write the sounds of a folder as FLAC into another, in three cuts each when asked to; return what was written.

    What cannot be read, or is silent, is left out.
    """
    to.mkdir(parents=True, exist_ok=True)
    written = []
    for number, path in enumerate(sounds_below(folder)):
        try:
            samples, rate = sf.read(path, dtype="float32", always_2d=True)
        except sf.LibsndfileError:
            continue
        starts_s = CUTS_S if cut else (0.0,)
        for start_s in starts_s:
            start = round(start_s * rate)
            part = samples[start : start + round(CUT_LENGTH_S * rate)] if cut else samples
            if len(part) < 64 or not np.abs(part).max() > 1e-3:
                continue
            name = to / f"{number:04d}-{path.stem[:60]}{f'@{start_s:g}' if cut else ''}.flac"
            if not name.exists():
                sf.write(name, np.clip(part[:, :2], -1, 1), rate, subtype="PCM_16")
            written.append(name)
    return written


def copy_altered(path: Path, kind: str, to: Path, rng: np.random.Generator) -> Path:
    """Write one altered copy of a sound; return it."""
    target = to / f"{path.stem}.{kind}.{'mp3' if kind == 'mp3' else 'ogg'}"
    if target.exists():
        return target
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    if kind == "mp3":
        if rate not in MP3_RATES:
            samples, rate = soxr.resample(samples, rate, 44100), 44100
        # libsndfile maps 0…1 to the bit rates of the format from the highest to the lowest
        sf.write(target, samples, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.8,
                 bitrate_mode="CONSTANT")  # fmt: skip
        return target
    if kind == "soft":
        samples = samples * np.float32(10 ** (-12 / 20))
    elif kind == "late":
        silence = np.zeros((round(rng.uniform(0.02, 0.3) * rate), samples.shape[1]), np.float32)
        samples = np.concatenate([silence, samples])
    else:
        samples = equalise(samples, rate)
    sf.write(target, np.clip(samples, -1, 1), rate, format="OGG", subtype="VORBIS")
    return target


def equalise(samples: Float32Array, rate: int) -> Float32Array:
    """Return +3 dB below 200 Hz and −3 dB above 4 kHz, (n, channels), by causal shelves of the first order."""
    size = len(samples) + rate // 4
    at = 1j * np.fft.rfftfreq(size, 1 / rate)[:, None]
    more, less = 10 ** (3 / 20), 10 ** (-3 / 20)
    response = (at / 200 + more) / (at / 200 + 1) * (1 + less * at / 4000) / (1 + at / 4000)
    shaped = np.fft.irfft(np.fft.rfft(samples, size, axis=0) * response, size, axis=0)[: len(samples)]
    return np.asarray(shaped, np.float32)


def make_copies(originals: Sequence[Path], to: Path, seed: int = 0) -> dict[Path, tuple[Path, str]]:
    """Write all copies of some sounds; return {copy: (original, kind)}."""
    to.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    return {copy_altered(path, kind, to, rng): (path, kind) for path in originals for kind in KINDS}
