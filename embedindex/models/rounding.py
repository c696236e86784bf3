"""Prepares a network for 8-bit integers: a step for each channel of what flows, and weights rounded to whole numbers.

Conventions: what leaves a layer is counted in steps, 0 to 255, each channel in its own. A layer's inputs are the values
under its kernel, K = input channels * rows * columns of them in the kernel's order, so kernels are (out, K) here.

Where nothing sounds, the same value stands in all places, and so would its rounding error: unlike others, such errors
do not cancel in the sums that follow. Steps are therefore chosen so that this resting value is a whole number of them.

Weights are rounded one after another, and what rounding one adds to the output is made up for by those that follow, as
far as their inputs are alike (Frantar et al. 2023, "GPTQ", here in its equivalent form as Babai's nearest plane, which
needs no inverse). What is left of its mean goes into the bias (Nagel et al. 2019, section 4.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from embedindex.arrays import Float32Array, Float64Array
from embedindex.models.convnet import ConvLayer, ConvNet
from embedindex.models.convnet_onnx import SPLIT_PARTS, IntegerLayer, IntegerNet, build, flow_names
from embedindex.models.engines import OnnxNetwork

WEIGHT_LIMIT = 127
ACTIVATION_STEPS = 255
# Sounds to come exceed the largest values seen: ranges are that much wider. Measured: below this single windows are
# clipped badly, above it all lose resolution.
RANGE_MARGIN = 1.15
# The result's channels do not start at 0: shares of their range added above and below it.
RESULT_MARGINS = (0.1, 0.3)
CALIBRATION_BATCH = 3
# Places looked at in each window.
PLACES = 256
# Resting values of so many steps are as near to a whole number as the step's size may be moved either way.
MANY_STEPS = 8
# Added to the covariance's diagonal, as a share of its mean: inputs not seen to vary may do so later.
DAMPING = 0.01
# Columns rounded before what they leave is brought to all others; any number gives the same result.
BLOCK = 64
# Likewise rows and columns that are factored at once.
CHOLESKY_BLOCK = 512


@dataclass(frozen=True)
class Inputs:
    """The values under a layer's kernel, over many places: their mean (K,) and covariance (K, K)."""

    mean: Float64Array
    covariance: Float32Array


@dataclass(frozen=True)
class Observed:
    """What was seen in a network.

    Attributes:
        lowest: for each layer, the least value of each channel leaving it; for the last, of the result's cells.
        highest: likewise the largest.
        resting: for each layer, what leaves it where its input is at the floor.
        inputs: for each layer but the first, what is under its kernel.
    """

    lowest: tuple[Float64Array, ...]
    highest: tuple[Float64Array, ...]
    resting: tuple[Float64Array, ...]
    inputs: tuple[Inputs, ...]


def observe(
    net: ConvNet, calibration: Float32Array, threads: int = 1, advance: Callable[[float], None] = lambda _: None
) -> Observed:
    """Return what is seen in `net` on spectrograms (n, rows, columns); memory does not grow with n.

    `advance` is told which share of it is done, from 0 to 1.
    """
    content = build(net, flows=True)
    network = OnnxNetwork(content, hashlib.sha256(content).hexdigest(), threads)
    random = np.random.default_rng(0)
    ranges: list[list[tuple[Float32Array, Float32Array]]] = []
    sums = [_Sums(layer.kernel[0].size) for layer in net.layers[1:]]
    for start in range(0, len(calibration), CALIBRATION_BATCH):
        flows = network.outputs(calibration[start : start + CALIBRATION_BATCH], flow_names(net))
        ranges.append([(flow.min(axis=(0, 2, 3)), flow.max(axis=(0, 2, 3))) for flow in flows])
        for layer, flow, sum_ in zip(net.layers[1:], flows, sums, strict=False):
            sum_.add(np.concatenate([_under_kernel(window, layer.kernel.shape[2:], random) for window in flow]))
        advance(min(1.0, (start + CALIBRATION_BATCH) / len(calibration)))
    lowest, highest = zip(*(_extent(list(layer)) for layer in zip(*ranges, strict=True)), strict=True)
    floor = np.full((1, net.rows, net.columns), calibration.min(), np.float32)
    middles = [flow[0, :, flow.shape[2] // 2, flow.shape[3] // 2] for flow in network.outputs(floor, flow_names(net))]
    resting = tuple(middle.astype(np.float64) for middle in middles)
    return Observed(lowest, highest, resting, tuple(sum_.inputs() for sum_ in sums))


def _extent(batches: list[tuple[Float32Array, Float32Array]]) -> tuple[Float64Array, Float64Array]:
    """Return the least and the largest value of each channel over all batches."""
    lowest, highest = zip(*batches, strict=True)
    return np.min(lowest, axis=0).astype(np.float64), np.max(highest, axis=0).astype(np.float64)


class _Sums:
    """Sums of vectors and of their products, from which mean and covariance come."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.total = np.zeros(size)
        self.products = np.zeros((size, size), np.float32)

    def add(self, vectors: Float32Array) -> None:
        """Take in `vectors`, (n, size)."""
        self.count += len(vectors)
        self.total += vectors.sum(axis=0, dtype=np.float64)
        self.products += vectors.T @ vectors

    def inputs(self) -> Inputs:
        """Return mean and covariance; the products are used up, as a second copy would take as much memory again."""
        mean = self.total / self.count
        covariance, self.products = self.products, self.products[:0]
        covariance /= np.float32(self.count)
        for row, own in zip(covariance, mean, strict=True):
            row -= own * mean
        return Inputs(mean, covariance)


def _under_kernel(flow: Float32Array, size: tuple[int, ...], random: np.random.Generator) -> Float32Array:
    """Return what a kernel of `size` sees at some places of `flow` (channels, rows, columns): (places, K)."""
    _, rows, columns = flow.shape
    margins = [((length - 1) // 2, length // 2) for length in size]
    patches = sliding_window_view(np.pad(flow, ((0, 0), *margins)), size, axis=(1, 2))
    row, column = np.divmod(random.choice(rows * columns, min(PLACES, rows * columns), replace=False), columns)
    return np.asarray(patches[:, row, column].transpose(1, 0, 2, 3).reshape(len(row), -1))


@dataclass(frozen=True)
class Rounded:
    """A network of which every layer but the first is also there in integers.

    Attributes:
        net: the network.
        steps: for each layer, the size of a step of each channel leaving it.
        lows: what 0 steps stand for in the result.
        integers: every layer but the first.
    """

    net: ConvNet
    steps: tuple[Float64Array, ...]
    lows: Float64Array
    integers: tuple[IntegerLayer, ...]

    def with_floats(self, count: int, *, split: bool) -> IntegerNet:
        """Return the network with its first `count` layers (at least one) in float32."""
        last = _in_steps(self.net.layers[count - 1], np.ones(1), self.steps[count - 1])
        floats = (*self.net.layers[: count - 1], last)
        steps, lows = self.steps[-1].astype(np.float32), self.lows.astype(np.float32)
        return IntegerNet(self.net, floats, self.integers[count - 1 :], split, steps, lows)


def round_network(net: ConvNet, observed: Observed, advance: Callable[[float], None] = lambda _: None) -> Rounded:
    """Return `net` with its layers rounded to integers; all but the last must have a ReLU.

    `advance` is told which share of the weights is rounded, from 0 to 1.
    """
    sizes = np.cumsum([layer.kernel.size for layer in net.layers[1:]])
    steps = [_steps(*layer) for layer in zip(observed.highest, observed.resting, strict=True)]
    lows = np.zeros(len(steps[-1]))
    if not net.layers[-1].relu:
        width = np.maximum(observed.highest[-1] - observed.lowest[-1], 1e-6)
        lows = observed.lowest[-1] - RESULT_MARGINS[0] * width
        steps[-1] = width * (1 + sum(RESULT_MARGINS)) / ACTIVATION_STEPS
    integers = []
    for number, layer in enumerate(net.layers[1:], 1):
        shifted = (
            replace(layer, bias=(layer.bias - lows).astype(np.float32)) if number == len(net.layers) - 1 else layer
        )
        counted = _in_steps(shifted, steps[number - 1], steps[number])
        integers.append(_round_layer(counted, observed.inputs[number - 1], steps[number - 1]))
        advance(float(sizes[number - 1] / sizes[-1]))
    return Rounded(net, tuple(steps), lows, tuple(integers))


def _steps(highest: Float64Array, resting: Float64Array) -> Float64Array:
    """Return the size of each channel's step: 255 hold the range, and a whole number of them is the resting value."""
    steps = np.maximum(highest, 1e-6 * highest.max() + 1e-30) * RANGE_MARGIN / ACTIVATION_STEPS
    number = resting / steps
    number = np.where(number > MANY_STEPS, np.rint(number), np.floor(number))  # few large steps: only make them larger
    return np.asarray(np.where(number >= 1, resting / np.maximum(number, 1), steps))


def _in_steps(layer: ConvLayer, given: Float64Array, made: Float64Array) -> ConvLayer:
    """Return the layer that takes and returns steps: of the sizes `given` and `made`, for each channel."""
    kernel = layer.kernel * given[None, :, None, None] / made[:, None, None, None]
    return replace(layer, kernel=kernel.astype(np.float32), bias=(layer.bias / made).astype(np.float32))


def _round_layer(layer: ConvLayer, inputs: Inputs, given: Float64Array) -> IntegerLayer:
    """Return a layer that takes and returns steps with whole weights; `given` are the sizes of the steps it takes."""
    exact = layer.kernel.reshape(len(layer.kernel), -1).astype(np.float64)
    scales = np.maximum(np.abs(exact).max(axis=1), 1e-30) / WEIGHT_LIMIT
    exact /= scales[:, None]
    sizes = np.repeat(given, exact.shape[1] // len(given))
    short = np.asarray(sizes, np.float32)
    covariance: Float32Array = inputs.covariance / short
    covariance /= short[:, None]
    rounded = round_weights(exact, covariance)
    bias = layer.bias / scales - (rounded - exact) @ (inputs.mean / sizes)
    limits = np.iinfo(np.int32)
    return IntegerLayer(
        rounded.reshape(layer.kernel.shape).astype(np.int8),
        np.rint(exact / SPLIT_PARTS).reshape(layer.kernel.shape).astype(np.int8),
        np.clip(np.rint(bias), limits.min, limits.max).astype(np.int32),
        scales.astype(np.float32),
        layer.pool,
    )


def whole(weights: Float64Array) -> Float64Array:
    """Return the nearest whole numbers within +-127."""
    return np.clip(np.rint(weights), -WEIGHT_LIMIT, WEIGHT_LIMIT)


def round_weights(
    exact: Float64Array, covariance: Float32Array, nearest: Callable[[Float64Array], Float64Array] = whole
) -> Float64Array:
    """Return weights, (out, K), among those that there are, that change a layer's output little.

    Args:
        exact: the weights, (out, K), in steps where they are to be whole.
        covariance: of the layer's inputs, (K, K).
        nearest: gives the nearest ones that there are.

    Returns:
        for each output the weights whose error has the least variance: those of nearest planes, or plainly rounded.
    """
    plain = nearest(exact)
    damped = covariance.copy()
    damped[np.diag_indices(len(damped))] += DAMPING * np.trace(damped) / len(damped) + 1e-30
    factor = cholesky_above(damped)
    rounded, error = np.empty_like(exact), np.zeros_like(exact)
    for start in reversed(range(0, exact.shape[1], BLOCK)):
        end = min(start + BLOCK, exact.shape[1])
        later = error[:, end:] @ factor[start:end, end:].T
        for column in reversed(range(start, end)):
            left = later[:, column - start] + error[:, column + 1 : end] @ factor[column, column + 1 : end]
            target = exact[:, column] + left / factor[column, column]
            rounded[:, column] = nearest(target)
            error[:, column] = exact[:, column] - rounded[:, column]
    better = _variance(error, covariance) <= _variance(exact - plain, covariance)
    return np.where(better[:, None], rounded, plain)


def cholesky_above(matrix: Float32Array) -> Float32Array:
    """Return F (K, K), of which only what is on and above the diagonal counts, with ``F' F = matrix``.

    `matrix` is used up. By blocks in float32, which is exact enough for a damped matrix: NumPy's own takes six times
    the memory, half a gigabyte for the largest layer.
    """
    for start in range(0, len(matrix), CHOLESKY_BLOCK):
        end = start + CHOLESKY_BLOCK
        corner = np.linalg.cholesky(matrix[start:end, start:end])
        matrix[start:end, start:end] = corner
        matrix[end:, start:end] = np.linalg.solve(corner, matrix[end:, start:end].T).T
        below = matrix[end:, start:end]
        for row in range(0, len(below), CHOLESKY_BLOCK):
            matrix[end + row : end + row + CHOLESKY_BLOCK, end:] -= below[row : row + CHOLESKY_BLOCK] @ below.T
    return matrix.T


def _variance(error: Float64Array, covariance: Float32Array) -> Float64Array:
    """Return the variance that errors of weights, (out, K), add to each output."""
    return np.asarray(np.einsum("ok,ok->o", error.astype(np.float32) @ covariance, error))
