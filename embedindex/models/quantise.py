"""Decides whether a network may compute in cheaper arithmetic on this machine, and prepares it so that it can.

Conventions: spectrograms are (n, rows, columns) float32. A variant is judged on windows that were not used to prepare
it: it passes when, of the ten nearest neighbours of each window by cosine, on average 98 % are those of the float32
vectors, and 95 % of its vectors have a cosine of at least 0.995 with their float32 ones. The fastest that passes wins.

A ladder of variants is one engine's. ONNX Runtime's have 8-bit integers; they differ in how many layers at the front
stay in float32, and in whether the first integer layer is given whole steps or sixteenths
(`embedindex.models.rounding`). OpenVINO's have bfloat16 at the front (`embedindex.models.bfloat`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.models.convnet import ConvNet
from embedindex.models.convnet_onnx import build, build_integer
from embedindex.models.engines import CPU_BATCH, OnnxNetwork
from embedindex.models.rounding import Observed, observe, round_network

# Part of what a stored selection is known by: raise it whenever the method changes.
METHOD_VERSION = 3
MIN_OVERLAP = 0.98
MIN_COSINE_P5 = 0.995
NEIGHBOURS = 10
# Below this gain over float32 the loss of exactness is not worth it.
MIN_SPEED_UP = 1.2
# (layers at the front in float32, first integer layer split), the fastest first. The first layer has one input channel:
# it is the most sensitive, and no faster in integers. Errors made early grow.
VARIANTS = ((1, False), (1, True), (2, True), (3, True), (4, True), (5, True))

Reduce = Callable[[Float32Array], Float32Array]
Report = Callable[[str], None]
# Told which share of the work is done, from 0 to 1.
Advance = Callable[[float], None]
# Shares of the time that is done after: measuring float32, observing the network, rounding it; the rest is for trials.
DONE_AFTER = (0.1, 0.35, 0.65)


class Network(Protocol):
    """A network in an engine; see `embedindex.models.engines`."""

    def cells(self, spectrograms: Float32Array) -> Float32Array:
        """Return (n, length) float32 for spectrograms (n, rows, columns) float32."""
        ...


@dataclass(frozen=True)
class Variant:
    """A network in cheaper arithmetic.

    Attributes:
        name: e.g. ``"first 2 layers in float32, then split"``.
        build: gives the ONNX model.
    """

    name: str
    build: Callable[[], bytes]


@dataclass(frozen=True)
class Ladder:
    """The variants that an engine can compute.

    Attributes:
        precision: what they are called: ``"int8"`` or ``"bf16"``.
        variants: gives those of a network of which something was observed, the fastest first, and tells how far it is.
        load: loads a variant's model of a network, to be computed by so many threads.
    """

    precision: str
    variants: Callable[[ConvNet, Observed, Advance], Sequence[Variant]]
    load: Callable[[ConvNet, bytes, int], Network]


@dataclass(frozen=True)
class Agreement:
    """How near two sets of vectors for the same windows are.

    Attributes:
        overlap: mean share of the ten nearest neighbours that both have in common.
        cosine_p5: 5th percentile of the cosines between a window's two vectors.
    """

    overlap: float
    cosine_p5: float

    @property
    def passes(self) -> bool:
        """True when an index may use one in place of the other."""
        return self.overlap >= MIN_OVERLAP and self.cosine_p5 >= MIN_COSINE_P5


@dataclass(frozen=True)
class Trial:
    """One variant and what was measured of it.

    Attributes:
        variant: its name, e.g. ``"first 2 layers in float32, then split"``.
        agreement: with the float32 vectors.
        windows_per_s: speed of the network alone, by processor time.
    """

    variant: str
    agreement: Agreement
    windows_per_s: float


@dataclass(frozen=True)
class Selection:
    """What was decided for one network on one machine.

    Attributes:
        precision: the ladder's or ``"fp32"``: what ``auto`` stands for.
        offered: the ladder's.
        trials: all that was tried.
        best: the fastest that passes, or, when none does, the one that agrees best.
        content: the ONNX model of `best`.
        fp32_windows_per_s: speed of the float32 network, by processor time.
    """

    precision: str
    offered: str
    trials: tuple[Trial, ...]
    best: Trial
    content: bytes
    fp32_windows_per_s: float

    @property
    def message(self) -> str:
        """The decision in a sentence for the user."""
        found = self.best.agreement
        measured = (
            f"{self.best.windows_per_s / self.fp32_windows_per_s:.1f} x the speed, neighbour overlap "
            f"{found.overlap:.3f} (needs {MIN_OVERLAP}), cosine {found.cosine_p5:.4f} (needs {MIN_COSINE_P5})"
        )
        if self.precision == self.offered:
            return f"{self.offered} arithmetic agrees with float32 on these weights and is used: {measured}"
        return (
            f"float32 is used: {self.offered} arithmetic does not agree well enough or is no faster here ({measured})"
        )

    def facts(self) -> dict[str, Any]:
        """Return everything but the model as JSON values; ``"precision"`` is the model's, ``"chosen"`` the decision."""
        return {
            "precision": self.offered,
            "chosen": self.precision,
            "variant": self.best.variant,
            "agrees": self.best.agreement.passes,
            "message": self.message,
            "fp32_windows_per_s": self.fp32_windows_per_s,
            "trials": [asdict(trial) for trial in self.trials],
        }


def integer_ladder(batch: int = CPU_BATCH) -> Ladder:
    """Return ONNX Runtime's variants: the later layers in 8-bit integers, with `batch` windows in a call."""

    def load(_: ConvNet, content: bytes, threads: int) -> OnnxNetwork:
        return OnnxNetwork(content, hashlib.sha256(content).hexdigest(), threads, batch=batch)

    return Ladder("int8", _integer_variants, load)


def _integer_variants(net: ConvNet, seen: Observed, advance: Advance) -> list[Variant]:
    rounded = round_network(net, seen, advance)

    def build_one(float_layers: int, split: bool) -> bytes:
        return build_integer(rounded.with_floats(float_layers, split=split))

    possible = [(float_layers, split) for float_layers, split in VARIANTS if float_layers < len(net.layers)]
    return [Variant(_name(*one), partial(build_one, *one)) for one in possible]


def measure_agreement(reference: Float32Array, other: Float32Array) -> Agreement:
    """Return how near `other` is to `reference`, both (n, dimension) with n above `NEIGHBOURS`."""
    first, second = _unit(reference), _unit(other)
    cosines = np.einsum("nd,nd->n", first, second)
    pairs = zip(_nearest(first), _nearest(second), strict=True)
    overlap = np.mean([len(np.intersect1d(left, right)) / NEIGHBOURS for left, right in pairs])
    return Agreement(float(overlap), float(np.quantile(cosines, 0.05)))


def select(
    net: ConvNet,
    calibration: Float32Array,
    judged: Float32Array,
    *,
    ladder: Ladder | None = None,
    reduce: Reduce = lambda cells: cells,
    threads: int = 1,
    batch: int = CPU_BATCH,
    tiled: bool = False,
    report: Report = lambda _: None,
    advance: Advance = lambda _: None,
) -> Selection:
    """Prepare cheaper variants of `net`, judge them, and choose.

    Args:
        net: the network.
        calibration: spectrograms to find ranges and means on.
        judged: other spectrograms, on which float32 and the variants are compared.
        ladder: the variants, None for `integer_ladder`.
        reduce: makes vectors of the network's cells.
        threads: threads of a call; the speeds are compared at this number…
        batch: …and at this number of windows in a call.
        tiled: the network in float32 is computed by tiles.
        report: told in words what is being done.
        advance: told which share of it is done, as far as one can tell before; it may end early.
    """
    measured, observed, ready = DONE_AFTER
    exact = integer_ladder(batch)
    ladder = ladder or exact

    def run(network: Network, begin: float, end: float) -> tuple[Float32Array, float]:
        return _run(network, judged, reduce, batch, part(advance, begin, end))

    report("measuring the network in float32")
    reference, fp32_rate = run(exact.load(net, build(net, tiled=tiled), threads), 0.0, measured)
    report(f"rounding the network for {ladder.precision}")
    seen = observe(net, calibration, threads, part(advance, measured, observed))
    variants = ladder.variants(net, seen, part(advance, observed, ready))
    del seen  # hundreds of megabytes
    trials: list[tuple[Trial, bytes]] = []
    for variant in variants:
        report(f"trying {ladder.precision}: {variant.name}")
        content = variant.build()
        begin = ready + (1 - ready) * len(trials) / len(variants)
        vectors, rate = run(ladder.load(net, content, threads), begin, begin + (1 - ready) / len(variants))
        trial = Trial(variant.name, measure_agreement(reference, vectors), rate)
        trials.append((trial, content))
        if trial.agreement.passes or rate < MIN_SPEED_UP * fp32_rate:
            break
    return _choose(ladder.precision, trials, fp32_rate)


def part(advance: Advance, begin: float, end: float) -> Advance:
    """Return what tells `advance` of a part of the work, which goes from `begin` to `end` of the whole."""
    return lambda share: advance(begin + (end - begin) * share)


def _merit(trial: Trial) -> tuple[float, float]:
    return trial.agreement.overlap, trial.agreement.cosine_p5


def _choose(offered: str, trials: list[tuple[Trial, bytes]], fp32_rate: float) -> Selection:
    """Return the selection: the one that passes, which is the last; when none does, the nearest to float32."""
    passing = [item for item in trials if item[0].agreement.passes]
    best, content = max(passing or trials, key=lambda item: _merit(item[0]))
    chosen = bool(passing) and best.windows_per_s >= MIN_SPEED_UP * fp32_rate
    tried = tuple(trial for trial, _ in trials)
    return Selection(offered if chosen else "fp32", offered, tried, best, content, fp32_rate)


def _name(float_layers: int, split: bool) -> str:
    front = "first layer" if float_layers == 1 else f"first {float_layers} layers"
    return f"{front} in float32{', then split' if split else ''}"


def _run(
    network: Network, judged: Float32Array, reduce: Reduce, batch: int, advance: Advance
) -> tuple[Float32Array, float]:
    """Return (vectors, windows a second of processor time, which other work does not change)."""
    network.cells(judged[:batch])
    parts = []
    used_s = 0.0
    for start in range(0, len(judged), batch):
        windows = judged[start : start + batch]
        began = time.process_time()
        parts.append(reduce(network.cells(windows)))
        used_s += time.process_time() - began
        advance((start + len(windows)) / len(judged))
    return np.concatenate(parts), len(judged) / max(used_s, 1e-9)


def _unit(vectors: Float32Array) -> Float64Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float64)


def _nearest(unit: Float64Array) -> Any:
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
