"""The oracle files of ../shared/openl3, the official resampler re-stated, and files of random weights, for tests.

The official code resamples with resampy 0.2 (`kaiser_best`); embedindex does not. To compare everything else, the
tests feed the official code's own 48 kHz signal, which this computes from resampy's published definition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

from embedindex.models.openl3_weights import CHANNELS

ORACLE = Path(__file__).parents[2] / "shared" / "openl3"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="../shared/openl3 oracle files are not here")

Array = npt.NDArray[Any]

# resampy 0.2.2, filters.py: the precomputed filter kaiser_best.
ZERO_CROSSINGS = 64
TABLE_STEPS = 512
KAISER_BETA = 14.769656459379492
ROLLOFF = 0.9475937167399596


@dataclass(frozen=True)
class Case:
    """One call of the official code and what it returned."""

    input_name: str
    input_repr: str
    frontend: str
    embedding_size: int
    hop_s: float
    center: bool
    embedding: Array
    timestamps: Array


def weights(input_repr: str) -> str:
    """Path of the seeded weights."""
    return str(ORACLE / "weights" / f"openl3_audio_{input_repr}_music.h5")


def cases(folder: str, input_repr: str, frontend: str) -> Iterator[Case]:
    """Yield the cases stored in ``folder/INPUTREPR_FRONTEND.npz``."""
    stem = ORACLE / folder / f"{input_repr}_{frontend}"
    notes = json.loads(stem.with_suffix(".json").read_text())
    with np.load(stem.with_suffix(".npz")) as stored:
        for note in notes:
            yield Case(
                note["input"],
                input_repr,
                frontend,
                note["embedding_size"],
                note["hop_size"],
                note["center"],
                stored[f"{note['key']}__embedding"],
                stored[f"{note['key']}__timestamps"],
            )


@lru_cache(maxsize=32)
def sound_48k(name: str) -> Array:
    """Return an input as one channel at 48 kHz in float64, resampled the official way."""
    samples, rate = sf.read(ORACLE / "audio" / name)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    return samples if rate == 48000 else resample_kaiser_best(samples, rate, 48000)


def resample_kaiser_best(x: Array, rate: float, new_rate: float) -> Array:
    """Return what ``resampy.resample(x, rate, new_rate)`` of version 0.2 returns, (n,) float64."""
    ratio = new_rate / rate
    size = TABLE_STEPS * ZERO_CROSSINGS
    taper = np.kaiser(2 * size + 1, KAISER_BETA)[size:]
    table = taper * ROLLOFF * np.sinc(ROLLOFF * np.linspace(0, ZERO_CROSSINGS, size + 1)) * min(1.0, ratio)
    slope = np.append(np.diff(table), 0.0)
    scale = min(1.0, ratio)
    step = int(scale * TABLE_STEPS)
    times = np.cumsum(np.full(int(len(x) * ratio), 1 / ratio)) - 1 / ratio
    whole = times.astype(np.int64)
    out = np.zeros(len(times))
    fraction = scale * (times - whole)
    for sign, position in ((-1, fraction), (1, scale - fraction)):
        offset = (position * TABLE_STEPS).astype(np.int64)
        eta = position * TABLE_STEPS - offset
        limit = (len(table) - offset) // step
        for tap in range(int(limit.max())):
            source = whole - tap if sign < 0 else whole + tap + 1
            used = (tap < limit) & (source >= 0) & (source < len(x))
            place = np.minimum(offset + tap * step, len(table) - 1)
            out += np.where(used, (table[place] + eta * slope[place]) * x[np.clip(source, 0, len(x) - 1)], 0.0)
    return out


def write_official_file(path: Path, *, attribute: str = "text", root: str = "", seed: int = 3) -> str:
    """Write random weights in the layout of the official files, as the versions of Keras did; return the path."""
    rng = np.random.default_rng(seed)
    tensors: list[tuple[str, dict[str, Array]]] = [("batch_normalization_4", norm(1, rng))]
    for number, (inputs, outputs) in enumerate(CHANNELS):
        kernel = rng.standard_normal((3, 3, inputs, outputs)).astype(np.float32) * np.float32((2 / 9 / inputs) ** 0.5)
        name = "audio_embedding_layer" if number == 7 else f"conv2d_{11 + number}"
        tensors.append((name, {"kernel": kernel, "bias": 0.05 * rng.standard_normal(outputs).astype(np.float32)}))
        if number < 7:
            tensors.append((f"batch_normalization_{20 + 3 * number}", norm(outputs, rng)))
            tensors.append((f"activation_{number}", {}))
    with h5py.File(path, "w") as file:
        write_layers(file.create_group(root) if root else file, tensors, attribute)
    return str(path)


def norm(channels: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return the tensors of a batch normalisation that does something."""
    small = (0.1 * rng.standard_normal((4, channels))).astype(np.float32)
    spectrogram = channels == 1
    return {
        "gamma": 1 + small[0],
        "beta": small[1],
        "moving_mean": small[2] - np.float32(40.0 if spectrogram else 0.0),
        "moving_variance": (1 + small[3]) * np.float32(900.0 if spectrogram else 1.0),
    }


def write_layers(group: h5py.Group, tensors: list[tuple[str, dict[str, Array]]], attribute: str) -> None:
    """Write layers and the attributes that name them, as text or as fixed-length bytes."""

    def encoded(names: list[str]) -> object:
        return np.array(names, dtype="S") if attribute == "bytes" else np.array(names, dtype=h5py.string_dtype())

    group.attrs["layer_names"] = encoded([name for name, _ in tensors])
    for name, roles in tensors:
        layer = group.create_group(name)
        layer.attrs["weight_names"] = encoded([f"{name}/{role}:0" for role in roles]) if roles else np.array([])
        for role, values in roles.items():
            layer.create_dataset(f"{name}/{role}:0", data=values)
