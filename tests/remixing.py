"""Shared by the tests of remixing: libraries of real files, and remixes of them through the library's own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import read_audio
from embedindex.index import load_view
from embedindex.models import ModelRequest
from embedindex.query import QueryMaker
from embedindex.remix.compose import Composer, Sound
from embedindex.remix.options import RemixOptions
from embedindex.remix.recipe import Recipe
from embedindex.store import Store
from tests.indexing import run_scan, write_samples
from tests.sounds import drum_hit, noise

RATE = 22050
SPECTRAL = ModelRequest("spectral")


def scan_spectral(index: str, library: Path) -> None:
    """Scan with the built-in model."""
    run_scan(index, library, request=SPECTRAL)


def compose(index: str, seed: Path, options: RemixOptions | None = None, sound: Sound | None = None) -> Composer:
    """Return the composer for a seed; it needs the index no longer once it is made."""
    store = Store(index)
    view = load_view(store)
    maker = QueryMaker(store, view.model)
    return Composer(store, view, maker.model, str(seed), options or RemixOptions(), sound or Sound())


def remix(index: str, seed: Path, options: RemixOptions | None = None, sound: Sound | None = None) -> Recipe:
    """Return the recipe of a remix."""
    return compose(index, seed, options, sound).recipe()


def texture(duration_s: float, seed: int, sample_rate: int = RATE) -> Float32Array:
    """Return a sound that changes all the time: notes of random pitch, length, colour and level, and some noise."""
    rng = np.random.default_rng(seed)
    samples = noise(duration_s, sample_rate, seed, 0.01).astype(np.float64)
    position = 0.0
    while position < duration_s - 0.1:
        length_s = min(rng.uniform(0.2, 0.7), duration_s - position)
        count = round(length_s * sample_rate)
        start = round(position * sample_rate)
        count = min(count, len(samples) - start)
        time_s = np.arange(count) / sample_rate
        pitch_hz = 110 * 2 ** (rng.integers(0, 30) / 12)
        note = sum(
            rng.uniform(0.1, 1) / harmonic * np.sin(2 * np.pi * harmonic * pitch_hz * time_s)
            for harmonic in range(1, 7)
        )
        envelope = np.exp(-time_s * rng.uniform(1, 9)) * np.minimum(1, time_s / rng.uniform(0.002, 0.05))
        samples[start : start + count] += 0.12 * note * envelope
        position += length_s
    scaled: Float32Array = (0.5 * samples / np.abs(samples).max()).astype(np.float32)
    return scaled


def beat(duration_s: float, seed: int, sample_rate: int = RATE) -> tuple[Float32Array, list[float]]:
    """Return a drum loop and the times of its hits."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(round(duration_s * sample_rate), np.float32)
    times = []
    position = 0.1
    while position < duration_s - 0.3:
        kind = ("kick", "snare", "hat")[int(rng.integers(3))]
        hit = drum_hit(kind, int(rng.integers(100)), 0.25, sample_rate)  # type: ignore[arg-type]
        hit *= np.minimum(1, np.linspace(4, 0, len(hit))).astype(np.float32)  # cut off, it would be heard to end
        start = round(position * sample_rate)
        samples[start : start + len(hit)] += hit[: len(samples) - start]
        times.append(position)
        position += float(rng.choice([0.25, 0.375, 0.5]))
    return (0.6 * samples / np.abs(samples).max()).astype(np.float32), times


def write_textures(folder: Path, count: int, duration_s: float = 6.0, first_seed: int = 1) -> list[Path]:
    """Write `count` different textures."""
    folder.mkdir(exist_ok=True)
    return [
        write_samples(folder / f"texture{number}.wav", texture(duration_s, first_seed + number), RATE)
        for number in range(count)
    ]


def samples_of(path: Path | str) -> Float32Array:
    """Return the samples of a file, (n, channels)."""
    return read_audio(path, mono=False)[0]
