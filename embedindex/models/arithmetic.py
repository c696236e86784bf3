"""In which arithmetic an NVIDIA device computes a network: float16 or TF32 where it was measured to do no harm.

The calibration's sounds go through the network in each arithmetic; one is good enough when every vector has a cosine of
at least 0.999 to its float32 one. The fastest such is remembered, for the device and the version of ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.models.batching import is_out_of_memory, note_key, read_note, write_note
from embedindex.models.calibration import KINDS, synthesise_windows
from embedindex.models.converted import Converted
from embedindex.models.convnet_onnx import build
from embedindex.models.devices import find_devices
from embedindex.models.engines import OnnxNetwork, Provider
from embedindex.models.quantise import Reduce
from embedindex.models.selection import CALIBRATION_ROUNDS, JUDGED_SEED, Subject

MIN_COSINE = 0.999
# Windows in one call where no process measures what is best (`device_process`), and while arithmetics are compared.
CUDA_BATCH = 64
JUDGED_BATCH = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arithmetic:
    """A way to compute a network.

    Attributes:
        name: ``"fp32"``, ``"tf32"`` or ``"fp16"``.
        content: gives the ONNX model.
        providers: what computes it.
    """

    name: str
    content: Callable[[], bytes]
    providers: Sequence[Provider]

    def network(self, threads: int, batch: int) -> OnnxNetwork:
        """Return the network."""
        content = self.content()
        return OnnxNetwork(content, hashlib.sha256(content).hexdigest(), threads, batch=batch, providers=self.providers)


def cuda_providers(*, tf32: bool) -> tuple[Provider, ...]:
    """Return ONNX Runtime's names and options for an NVIDIA device; what it cannot compute the processor does."""
    options = {
        "use_tf32": "1" if tf32 else "0",
        # Without these a new number of windows takes seconds of trying out, and twice the memory that it needs.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    return (("CUDAExecutionProvider", options), "CPUExecutionProvider")


def cuda_network(subject: Subject, model: Converted, threads: int) -> OnnxNetwork:
    """Return the network of a float32 model on this process's NVIDIA device, in the best arithmetic.

    Raises:
        DeviceError: ONNX Runtime cannot use the device.
    """
    import onnxruntime

    ways = (
        Arithmetic("fp32", lambda: model.content, cuda_providers(tf32=False)),
        Arithmetic("tf32", lambda: model.content, cuda_providers(tf32=True)),
        Arithmetic("fp16", lambda: build(subject.net(), half=True), cuda_providers(tf32=True)),
    )
    (device, *_) = find_devices("cuda")
    key = note_key("arithmetic", subject.key, device.name, onnxruntime.__version__)
    note = read_note(key)
    if note is None:
        _log.info("measuring in which arithmetic %s computes the model", device.name)
        windows = CALIBRATION_ROUNDS * len(KINDS)
        sounds = synthesise_windows(windows, subject.window_samples, subject.sample_rate, JUDGED_SEED)
        note = choose_arithmetic(ways, subject.spectrograms(sounds), subject.reduce, threads)
        write_note(key, note)
        _log.info("%s computes in %s", device.name, note["chosen"])
    return next(way for way in ways if way.name == note["chosen"]).network(threads, CUDA_BATCH)


def choose_arithmetic(
    ways: Sequence[Arithmetic], inputs: Float32Array, reduce: Reduce, threads: int
) -> Mapping[str, Any]:
    """Return ``{"chosen": name, "measured": {name: {"cosine", "windows_per_s"}}}``.

    Args:
        ways: the first is the exact one, whose errors are raised; another one that cannot be computed is not chosen.
        inputs: the network's inputs of many kinds of sound.
        reduce: makes vectors of the network's cells.
        threads: of one call.
    """
    measured: dict[str, dict[str, float | str]] = {}
    exact, rate = _vectors(ways[0], inputs, reduce, threads)
    measured[ways[0].name] = {"cosine": 1.0, "windows_per_s": rate}
    chosen, fastest = ways[0].name, rate
    for way in ways[1:]:
        try:
            vectors, rate = _vectors(way, inputs, reduce, threads)
        except Exception as error:  # noqa: BLE001 - whatever this device or runtime lacks for it
            reason = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
            measured[way.name] = {"error": reason[:300]}
            continue
        cosine = least_cosine(exact, vectors)
        measured[way.name] = {"cosine": cosine, "windows_per_s": rate}
        if cosine >= MIN_COSINE and rate > fastest:
            chosen, fastest = way.name, rate
    return {"chosen": chosen, "measured": measured}


def least_cosine(one: Float32Array, other: Float32Array) -> float:
    """Return the smallest cosine of two vectors of the same window, (n, dimension) each; -1 where one is no number."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return -1.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (np.linalg.norm(a, axis=1) == 0) & (np.linalg.norm(b, axis=1) == 0)
    cosines = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny))
    return float(cosines.min())


def _vectors(way: Arithmetic, inputs: Float32Array, reduce: Reduce, threads: int) -> tuple[Float32Array, float]:
    """Return (vectors, windows a second in the fastest call)."""
    network = way.network(threads, JUDGED_BATCH)
    network.cells(inputs[:JUDGED_BATCH])
    parts, fastest = [], 0.0
    for start in range(0, len(inputs), JUDGED_BATCH):
        batch = inputs[start : start + JUDGED_BATCH]
        began = time.perf_counter()
        parts.append(reduce(network.cells(batch)))
        fastest = max(fastest, len(batch) / (time.perf_counter() - began))
    return np.concatenate(parts), fastest
