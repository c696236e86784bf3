"""How many windows a device gets in one call: found by measurement, remembered, and halved when memory is short.

Conventions: `compute` takes inputs (n, …) float32 and returns vectors (n, dimension) float32; rates are windows a
second.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import DeviceMemoryError, WeightsMissingError
from embedindex.models.cache import models_folder, writing

Compute = Callable[[Float32Array], Float32Array]

MOST = 256
MEASURE_S = 0.2
# A batch is large enough when a larger one is no faster than this; the smallest such one takes the least memory.
ENOUGH = 0.95
# What ONNX Runtime, CUDA's libraries and TensorFlow say when memory is short.
SHORT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "resourceexhausted",
    "oom when allocating",
)


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an error of a network means that there was not enough memory."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(words in text for words in SHORT_OF_MEMORY)


class Batches:
    """Calls a network with as many windows at a time as there is memory for.

    Args:
        compute: the network.
        size: how many windows at a time, to begin with.
        padded: fill calls up to powers of two, for devices that set themselves up anew for every new size.

    Attributes:
        size: how many windows at a time now.
    """

    def __init__(self, compute: Compute, size: int, *, padded: bool = False) -> None:
        self._compute = compute
        self._padded = padded
        self.size = size

    def run(self, inputs: Float32Array) -> Float32Array:
        """Return the vectors of n inputs, n at least 1.

        Raises:
            DeviceMemoryError: there is not memory enough for a single window.
        """
        parts: list[Float32Array] = []
        done = 0
        while done < len(inputs):
            piece = inputs[done : done + self.size]
            try:
                parts.append(self._call(piece))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(piece) == 1:
                    raise DeviceMemoryError(f"there is not memory enough for one window ({error})") from error
                self.size = len(piece) // 2
                continue
            done += len(piece)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _call(self, piece: Float32Array) -> Float32Array:
        wanted = 1 << (len(piece) - 1).bit_length()
        if not self._padded or wanted == len(piece):
            return self._compute(piece)
        filled = np.zeros((wanted, *piece.shape[1:]), piece.dtype)
        filled[: len(piece)] = piece
        return self._compute(filled)[: len(piece)]


def measure_batch(compute: Compute, inputs: Float32Array, most: int = MOST) -> tuple[int, dict[int, float]]:
    """Return the best number of windows a call, a power of two, and the rates that were measured by number.

    Numbers are doubled until there is no memory for more, or twice as many were twice no faster.

    Args:
        compute: the network.
        inputs: some windows' inputs, repeated as needed.
        most: largest number.

    Raises:
        DeviceMemoryError: there is not memory enough for a single window.
    """
    rates: dict[int, float] = {}
    size = 1
    while size <= most:
        try:
            rates[size] = _rate(compute, np.resize(inputs, (size, *inputs.shape[1:])))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not rates:
                raise DeviceMemoryError(f"there is not memory enough for one window ({error})") from error
            break
        top = max(rates.values())
        if size >= 4 and rates[size] < top and rates[size // 2] < top:
            break
        size *= 2
    top = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= ENOUGH * top), rates


def _rate(compute: Compute, inputs: Float32Array) -> float:
    """Return windows a second of the fastest of a few calls; the first, which sets things up, does not count."""
    compute(inputs)
    best_s, began = float("inf"), time.perf_counter()
    while True:
        started = time.perf_counter()
        compute(inputs)
        now = time.perf_counter()
        best_s = min(best_s, now - started)
        if now - began >= MEASURE_S:
            return len(inputs) / max(best_s, 1e-9)


def note_key(*facts: str) -> str:
    """Return the name under which is remembered what was measured of these: the model, the device, the versions."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def read_note(key: str) -> Mapping[str, Any] | None:
    """Return what was remembered under a name, None when nothing was."""
    try:
        with open(_path(key), encoding="utf-8") as file:
            note = json.load(file)
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def write_note(key: str, note: Mapping[str, Any]) -> None:
    """Remember something; where the models folder cannot be written it is measured again next time."""
    try:
        with writing(_path(key)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(note, file, indent=1, sort_keys=True)
    except WeightsMissingError:
        return


def _path(key: str) -> str:
    return os.path.join(models_folder(), "devices", f"{key}.json")
