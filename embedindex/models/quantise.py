"""Decides whether a network may compute in 8-bit integers on this machine, and prepares it so that it can.

Conventions: spectrograms are (n, rows, columns) float32. A variant is judged on windows that were not used to prepare
it: it passes when, of the ten nearest neighbours of each window by cosine, on average 98 % are those of the float32
vectors, and 95 % of its vectors have a cosine of at least 0.995 with their float32 ones. The fastest that passes wins.

Means: rescaling of channels between two layers, which a ReLU lets through (Nagel et al. 2019, "Data-free quantization
through weight equalization and bias correction", section 4.1), correction of each layer's bias for the mean error of
its rounded weights (section 4.2), ranges that minimise the squared error, and layers that stay in float32.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.models.convnet import ConvNet
from embedindex.models.convnet_onnx import ActivationRange, IntegerPlan, build, flow_names, quantise_kernel
from embedindex.models.engines import OnnxNetwork

# Part of what a stored selection is known by: raise it whenever the method changes.
METHOD_VERSION = 1
MIN_OVERLAP = 0.98
MIN_COSINE_P5 = 0.995
NEIGHBOURS = 10
# Below this gain over float32 the loss of exactness is not worth it.
MIN_SPEED_UP = 1.2
# 0: channels as they are; 0.5: factors shared between the ranges of activations and of the weights that follow.
EQUALISATIONS = (0.0, 0.5)
# Layers at the front that stay in float32. The first has one input channel: it is the most sensitive, and no faster in
# integers. Each further one costs speed; errors made early grow.
FLOAT_LAYERS = (1, 2, 3, 4)
CLIPPINGS = (False, True)
# Ranges tried when clipping, as shares of the full one.
CLIP_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
SAMPLES_PER_CHANNEL = 64
CALIBRATION_BATCH = 3

Reduce = Callable[[Float32Array], Float32Array]
Report = Callable[[str], None]


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
        variant: its name, e.g. ``"first 1 in float32, channels equalised, ranges full"``.
        agreement: with the float32 vectors.
        windows_per_s: speed of the network alone.
    """

    variant: str
    agreement: Agreement
    windows_per_s: float


@dataclass(frozen=True)
class Selection:
    """What was decided for one network on one machine.

    Attributes:
        precision: ``"int8"`` or ``"fp32"``: what ``auto`` stands for.
        trials: all that was tried.
        best: the fastest that passes, or, when none does, the one that agrees best.
        content: the ONNX model of `best`.
        fp32_windows_per_s: speed of the float32 network.
    """

    precision: str
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
        if self.precision == "int8":
            return f"int8 arithmetic agrees with float32 on these weights and is used: {measured}"
        return f"float32 is used: int8 arithmetic does not agree well enough or is no faster here ({measured})"

    def facts(self) -> dict[str, Any]:
        """Return everything but the model as JSON values; ``"precision"`` is the model's, ``"chosen"`` the decision."""
        return {
            "precision": "int8",
            "chosen": self.precision,
            "variant": self.best.variant,
            "agrees": self.best.agreement.passes,
            "message": self.message,
            "fp32_windows_per_s": self.fp32_windows_per_s,
            "trials": [asdict(trial) for trial in self.trials],
        }


@dataclass(frozen=True)
class _Flow:
    """What was seen leaving one layer: per channel the largest value, the mean and some values; overall the least."""

    channel_max: Float64Array
    channel_mean: Float64Array
    samples: Float64Array  # (channels, SAMPLES_PER_CHANNEL per batch)
    least: float


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
    reduce: Reduce = lambda cells: cells,
    threads: int = 1,
    report: Report = lambda _: None,
) -> Selection:
    """Prepare 8-bit variants of `net`, judge them, and choose.

    Args:
        net: the network.
        calibration: spectrograms to find ranges and means on.
        judged: other spectrograms, on which float32 and the variants are compared.
        reduce: makes vectors of the network's cells.
        threads: threads of a call; the speeds are compared at this number.
        report: told in words what is being done.
    """
    report("measuring the network in float32")
    reference, fp32_rate = _run(build(net), judged, reduce, threads)
    flows = _observe(net, calibration, threads)
    trials: list[tuple[Trial, bytes]] = []
    preparations = [(equalisation, clipped) for equalisation in EQUALISATIONS for clipped in CLIPPINGS]
    for float_layers in FLOAT_LAYERS:
        round_ = []
        for equalisation, clipped in preparations:
            variant = _name(float_layers, equalisation, clipped)
            report(f"trying int8: {variant}")
            content = _prepare(net, calibration, flows, float_layers, equalisation, clipped)
            vectors, rate = _run(content, judged, reduce, threads)
            round_.append((Trial(variant, measure_agreement(reference, vectors), rate), content))
        trials += round_
        if any(trial.agreement.passes or trial.windows_per_s < MIN_SPEED_UP * fp32_rate for trial, _ in round_):
            break
        # With more layers in float32 the same preparation stays the best; only that one is tried on.
        preparations = [max(zip(round_, preparations, strict=True), key=lambda pair: _merit(pair[0][0]))[1]]
    return _choose(trials, fp32_rate)


def _merit(trial: Trial) -> tuple[float, float]:
    return trial.agreement.overlap, trial.agreement.cosine_p5


def _choose(trials: list[tuple[Trial, bytes]], fp32_rate: float) -> Selection:
    """Return the selection: of those that pass (all of one speed) the nearest to float32."""
    passing = [item for item in trials if item[0].agreement.passes]
    best, content = max(passing or trials, key=lambda item: _merit(item[0]))
    chosen = bool(passing) and best.windows_per_s >= MIN_SPEED_UP * fp32_rate
    return Selection("int8" if chosen else "fp32", tuple(trial for trial, _ in trials), best, content, fp32_rate)


def _name(float_layers: int, equalisation: float, clipped: bool) -> str:
    channels = "equalised" if equalisation else "as they are"
    return f"first {float_layers} in float32, channels {channels}, ranges {'clipped' if clipped else 'full'}"


def _run(content: bytes, judged: Float32Array, reduce: Reduce, threads: int) -> tuple[Float32Array, float]:
    """Return (vectors, windows a second in the fastest batch) of an ONNX model."""
    network = OnnxNetwork(content, hashlib.sha256(content).hexdigest(), threads)
    network.cells(judged[: network.batch])
    parts = []
    fastest = 0.0
    for start in range(0, len(judged), network.batch):
        batch = judged[start : start + network.batch]
        began = time.perf_counter()
        parts.append(reduce(network.cells(batch)))
        fastest = max(fastest, len(batch) / (time.perf_counter() - began))
    return np.concatenate(parts), fastest


def _observe(net: ConvNet, calibration: Float32Array, threads: int) -> list[_Flow]:
    """Return what leaves each layer of the float32 network on the calibration spectrograms."""
    content = build(net, flows=True)
    network = OnnxNetwork(content, hashlib.sha256(content).hexdigest(), threads)
    random = np.random.default_rng(0)
    batches: list[list[_Flow]] = []
    for start in range(0, len(calibration), CALIBRATION_BATCH):
        outputs = network.outputs(calibration[start : start + CALIBRATION_BATCH], flow_names(net))
        batches.append([_look(values, random) for values in outputs])
    return [_merge(list(flows)) for flows in zip(*batches, strict=True)]


def _look(values: Float32Array, random: np.random.Generator) -> _Flow:
    by_channel = values.transpose(1, 0, 2, 3).reshape(values.shape[1], -1)
    places = random.integers(0, by_channel.shape[1], SAMPLES_PER_CHANNEL)
    return _Flow(
        by_channel.max(axis=1).astype(np.float64),
        by_channel.mean(axis=1, dtype=np.float64),
        by_channel[:, places].astype(np.float64),
        float(values.min()),
    )


def _merge(flows: list[_Flow]) -> _Flow:
    return _Flow(
        np.max([flow.channel_max for flow in flows], axis=0),
        np.mean([flow.channel_mean for flow in flows], axis=0),
        np.concatenate([flow.samples for flow in flows], axis=1),
        min(flow.least for flow in flows),
    )


def _prepare(
    net: ConvNet,
    calibration: Float32Array,
    flows: list[_Flow],
    float_layers: int,
    equalisation: float,
    clipped: bool,
) -> bytes:
    """Return the ONNX model of one variant."""
    if equalisation:
        net, flows = equalise(net, flows, equalisation)
    scaled = calibration.astype(np.float64) * net.input_scale + net.input_shift
    integer = tuple(number >= float_layers for number in range(len(net.layers)))
    means = [np.array([scaled.mean()]), *(flow.channel_mean for flow in flows[:-1])]
    net = correct_biases(net, means, integer)
    ranges = tuple(
        _range(flow, layer.relu, clipped and number < len(flows) - 1)
        for number, (flow, layer) in enumerate(zip(flows, net.layers, strict=True))
    )
    given = ActivationRange(min(0.0, float(scaled.min())), max(1e-6, float(scaled.max())))
    return build(net, IntegerPlan(integer, given, ranges))


def equalise(net: ConvNet, flows: list[_Flow], share: float) -> tuple[ConvNet, list[_Flow]]:
    """Return the same function with other factors between its layers, and what then flows between them.

    Channel c leaving a layer is divided by ``range_c ** share / weight_c ** (1 - share)``, where weight_c is the
    largest weight that the next layer gives it, and the next layer's weights are multiplied by it.
    """
    layers, flows = list(net.layers), list(flows)
    for number in range(len(layers) - 1):
        after = layers[number + 1]
        ranges = np.maximum(flows[number].channel_max, 1e-6 * flows[number].channel_max.max() + 1e-30)
        weights = np.abs(after.kernel).max(axis=(0, 2, 3)).astype(np.float64)
        weights = np.maximum(weights, 1e-6 * weights.max() + 1e-30)
        factor = ranges**share / weights ** (1 - share)
        factor /= np.exp(np.log(factor).mean())
        kernel = (layers[number].kernel / factor[:, None, None, None]).astype(np.float32)
        layers[number] = replace(layers[number], kernel=kernel, bias=(layers[number].bias / factor).astype(np.float32))
        layers[number + 1] = replace(after, kernel=(after.kernel * factor[None, :, None, None]).astype(np.float32))
        flow = flows[number]
        samples = flow.samples / factor[:, None]
        flows[number] = _Flow(flow.channel_max / factor, flow.channel_mean / factor, samples, float(samples.min()))
    return net.with_layers(layers), flows


def correct_biases(net: ConvNet, input_means: Sequence[Float64Array], integer: Sequence[bool]) -> ConvNet:
    """Return `net` with the biases that make up for the mean error of its rounded weights.

    Args:
        net: the network.
        input_means: for each layer, the mean of each of its input channels.
        integer: for each layer, whether its weights will be rounded.
    """
    layers = list(net.layers)
    for number, layer in enumerate(layers):
        if integer[number]:
            kernel, scales = quantise_kernel(layer.kernel)
            error = (kernel * scales[:, None, None, None].astype(np.float64) - layer.kernel).sum(axis=(2, 3))
            layers[number] = replace(layer, bias=(layer.bias - error @ input_means[number]).astype(np.float32))
    return net.with_layers(layers)


def _range(flow: _Flow, relu: bool, clipped: bool) -> ActivationRange:
    """Return the range of what leaves a layer: all of it, or the share with the least squared error."""
    low = 0.0 if relu else min(0.0, flow.least)
    full = ActivationRange(low, max(float(flow.channel_max.max()), 1e-6))
    if not clipped:
        return full
    tried = [ActivationRange(full.low * share, full.high * share) for share in CLIP_SHARES]
    return min(tried, key=lambda span: _squared_error(flow.samples, span))


def _squared_error(values: Float64Array, span: ActivationRange) -> float:
    zero, scale = int(span.zero_point), float(span.scale)
    rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return float(np.square(rounded - values).mean())


def _unit(vectors: Float32Array) -> Float64Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float64)


def _nearest(unit: Float64Array) -> Any:
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
