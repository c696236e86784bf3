"""3 x 3 convolutions with a quarter of the multiplications, in plain ONNX nodes: Winograd's F(4 x 4, 3 x 3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): an image is cut into tiles of 4 x 4
results; each needs 6 x 6 inputs, overlapping those of its neighbours. With kernels U = G k G' and tiles V = B' x B,
both 6 x 6, the results are A' (U * V) A. The products of all channels are 36 matrix products.
The matrices come from the Toom-Cook algorithm (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
Convolution for Deep Neural Networks", 2020, section 2.2); the points are among the more exact ones named there.

Conventions: an image is kept as `Rows`, (n, places, channels): one row for each pixel, in any order, and one of zeros,
which stands for what is beyond the edges. Cutting tiles out is then one Gather of whole rows, and no node ever moves
single numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial

from embedindex.arrays import Float64Array
from embedindex.models.convnet import ConvLayer
from embedindex.models.onnx_graph import Graph

Places = npt.NDArray[np.int64]

# Results in a row of a tile, and inputs they need.
TILE = 4
SPAN = TILE + 2
# The sixth is infinity.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
# With fewer channels the products save less than the transforms cost.
LEAST_CHANNELS = 64
# Tiles of one round: what they become stays in the processor's cache.
TILES_AT_ONCE = 200
# Added to the row of zeros before the ReLU, so that it is zeros again.
BELOW_ALL = -1e30


@dataclass(frozen=True)
class Rows:
    """An image in a graph, with a row for each pixel.

    Attributes:
        name: of the tensor, (n, places, channels).
        places: (rows, columns), where each pixel is.
        zeros: the place of a row of zeros; without meaning after a layer without ReLU.
        channels: how many.
    """

    name: str
    places: Places
    zeros: int
    channels: int


def transforms() -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return A' (4, 6), G (6, 3) and B' (6, 6): of results, kernels and inputs, in one dimension."""
    points = np.array(POINTS)
    results, kernels, inputs = np.zeros((TILE, SPAN)), np.zeros((SPAN, 3)), np.zeros((SPAN, SPAN))
    results[:, :-1] = points ** np.arange(TILE)[:, None]
    results[-1, -1] = kernels[-1, -1] = 1
    for number, point in enumerate(points):
        others = np.delete(points, number)
        kernels[number] = point ** np.arange(3) / np.prod(point - others)
        inputs[number, :-1] = polynomial.polyfromroots(others)
    inputs[-1] = polynomial.polyfromroots(points)
    return results, kernels, inputs


def pays(layer: ConvLayer) -> bool:
    """Say whether this way is faster for `layer`, as measured (docs/decisions/openl3-winograd.md)."""
    outputs, inputs, *size = layer.kernel.shape
    return size == [3, 3] and min(outputs, inputs) >= LEAST_CHANNELS and layer.pool in (None, (2, 2))


def to_rows(graph: Graph, flow: str, shape: tuple[int, int, int], name: str) -> Rows:
    """Return the image `flow`, (n, channels, rows, columns) of which `shape` are the last three, as rows."""
    channels, rows, columns = shape
    flow = graph.add("Transpose", [flow], f"{name}_last", perm=[0, 2, 3, 1])
    flow = graph.reshape(flow, f"{name}_places", [0, rows * columns, channels])
    flow = graph.add("Pad", [flow, graph.integers(f"{name}_one_more", [0, 0, 0, 0, 1, 0])], f"{name}_rows")
    return Rows(flow, np.arange(rows * columns).reshape(rows, columns), rows * columns, channels)


def to_image(graph: Graph, image: Rows, name: str) -> str:
    """Return the image as (n, channels, rows, columns)."""
    flow = _take(graph, image, image.places, f"{name}_places")
    flow = graph.reshape(flow, f"{name}_last", [0, *image.places.shape, image.channels])
    return graph.add("Transpose", [flow], f"{name}_image", perm=[0, 3, 1, 2])


def pool_cells(graph: Graph, image: Rows, cell: tuple[int, int], name: str) -> str:
    """Return the maxima over cells of (rows, columns), (n, cells, channels); incomplete cells are left out."""
    rows, columns = (length // size for length, size in zip(image.places.shape, cell, strict=True))
    places = image.places[: rows * cell[0], : columns * cell[1]]
    places = places.reshape(rows, cell[0], columns, cell[1]).transpose(0, 2, 1, 3)
    flow = _take(graph, image, places, f"{name}_places")
    flow = graph.reshape(flow, f"{name}_grouped", [0, rows * columns, cell[0] * cell[1], image.channels])
    return graph.add("ReduceMax", [flow], name, axes=[2], keepdims=0)


def convolve(graph: Graph, image: Rows, layer: ConvLayer, name: str) -> Rows:
    """Return `image` after `layer`, with its ReLU and its pooling: 3 x 3, and pooled by 2 x 2 or not at all."""
    rows, columns = image.places.shape
    padded = np.full((rows + SPAN, columns + SPAN), image.zeros, np.int64)
    padded[1 : rows + 1, 1 : columns + 1] = image.places
    down, across = -(-rows // TILE), -(-columns // TILE)
    tiles = np.stack([padded[y::TILE, x::TILE][:down, :across] for y in range(SPAN) for x in range(SPAN)])
    rounds = max(1, round(down * across / TILES_AT_ONCE))
    step = _Step(graph, layer, name, few_tiles=2 * down * across <= len(layer.kernel))
    flows, places, before = [], [], 0
    for number, part in enumerate(np.array_split(np.arange(down), rounds)):
        given, last = tiles[:, part].reshape(SPAN * SPAN, -1), number == rounds - 1
        if last:  # one tile more, of zeros
            given = np.concatenate([given, np.full((len(given), 1), image.zeros)], axis=1)
        count = given.shape[1]
        flows.append(step.add(_take(graph, image, given, f"{name}_{number}_tiles"), count, with_zeros=last))
        places.append(before + _places(len(part), across, count, step.side))
        before += step.side**2 * count
    flow = graph.add("Concat", flows, f"{name}_rounds", axis=1) if rounds > 1 else flows[0]
    height, width = (rows // 2, columns // 2) if layer.pool else (rows, columns)
    return Rows(flow, np.concatenate(places)[:height, :width], before - 1, len(layer.kernel))


class _Step:
    """Adds the nodes of one layer, for one round of tiles after another."""

    def __init__(self, graph: Graph, layer: ConvLayer, name: str, *, few_tiles: bool) -> None:
        results, kernels, inputs = transforms()
        self.graph, self.layer, self.name = graph, layer, name
        # A product packs its right side: with few tiles that had better be the tiles.
        self.kernel_first = few_tiles
        # Results in a row of a tile after pooling.
        self.side = TILE // 2 if layer.pool else TILE
        outer = np.kron(results, results)
        if layer.pool:  # the four of each maximum come first
            outer = outer.reshape(2, 2, 2, 2, -1).transpose(1, 3, 0, 2, 4).reshape(TILE * TILE, -1)
        self.kernel = self._kernel(np.kron(kernels, kernels))
        self.of_inputs = graph.constant(f"{name}_of_inputs", np.kron(inputs, inputs).astype(np.float32))
        self.of_results = graph.constant(f"{name}_of_results", outer.astype(np.float32))

    def _kernel(self, of_kernels: npt.NDArray[np.floating]) -> str:
        """Return 36 kernels of one pixel, (36, in, out) or (36, out, in); computed when the model is loaded."""
        outputs, inputs = self.layer.kernel.shape[:2]
        axes = (2, 3, 0, 1) if self.kernel_first else (2, 3, 1, 0)
        taps = np.ascontiguousarray(self.layer.kernel.transpose(axes)).reshape(9, -1)
        matrix = self.graph.constant(f"{self.name}_of_kernels", of_kernels.astype(np.float32))
        flow = self.graph.constant(f"{self.name}_kernel", taps)
        flow = self.graph.add("MatMul", [matrix, flow], f"{self.name}_kernels")
        shape = (outputs, inputs) if self.kernel_first else (inputs, outputs)
        return self.graph.reshape(flow, f"{self.name}_by_point", [SPAN * SPAN, *shape])

    def add(self, flow: str, tiles: int, *, with_zeros: bool) -> str:
        """Return what becomes of `tiles`, (n, 36 * tiles, in), the last of zeros or not: (n, places, out)."""
        graph, (outputs, inputs) = self.graph, self.layer.kernel.shape[:2]
        name = flow.removesuffix("_tiles")
        flow = graph.reshape(flow, f"{name}_flat", [0, SPAN * SPAN, tiles * inputs])
        flow = graph.add("MatMul", [self.of_inputs, flow], f"{name}_inputs")
        flow = graph.reshape(flow, f"{name}_points", [0, SPAN * SPAN, tiles, inputs])
        if self.kernel_first:
            flow = graph.add("Transpose", [flow], f"{name}_turned", perm=[0, 1, 3, 2])
            flow = graph.add("MatMul", [self.kernel, flow], f"{name}_products")
        else:
            flow = graph.add("MatMul", [flow, self.kernel], f"{name}_products")
        flow = graph.reshape(flow, f"{name}_flat_products", [0, SPAN * SPAN, tiles * outputs])
        flow = graph.add("MatMul", [self.of_results, flow], f"{name}_results")
        if self.layer.pool:
            flow = graph.reshape(flow, f"{name}_fours", [0, 4, self.side**2 * tiles * outputs])
            flow = graph.add("Max", graph.split(flow, f"{name}_four", 4, axis=1), f"{name}_maxima")
        flow = graph.reshape(flow, f"{name}_sums", [0, self.side**2, tiles * outputs])
        flow = graph.add("Add", [flow, self._bias(name, tiles, with_zeros=with_zeros)], f"{name}_biased")
        flow = graph.add("Relu", [flow], f"{name}_relu") if self.layer.relu else flow
        if self.kernel_first:
            flow = graph.reshape(flow, f"{name}_by_channel", [0, self.side**2, outputs, tiles])
            flow = graph.add("Transpose", [flow], f"{name}_by_place", perm=[0, 1, 3, 2])
        return graph.reshape(flow, f"{name}_rows", [0, self.side**2 * tiles, outputs])

    def _bias(self, name: str, tiles: int, *, with_zeros: bool) -> str:
        bias = np.tile(self.layer.bias.astype(np.float32), (tiles, 1))
        if with_zeros:
            bias[-1] = BELOW_ALL
        bias = bias.T if self.kernel_first else bias
        return self.graph.constant(f"{name}_bias", np.ascontiguousarray(bias).reshape(-1))


def _take(graph: Graph, image: Rows, places: npt.NDArray[Any], name: str) -> str:
    return graph.add("Gather", [image.name, graph.integers(f"{name}_index", places.reshape(-1))], name, axis=1)


def _places(down: int, across: int, tiles: int, side: int) -> Places:
    """Return where the pixels of `down` x `across` tiles are, of `tiles`: the first pixel of each, then the second."""
    y, x = np.mgrid[: down * side, : across * side]
    return np.asarray((y % side * side + x % side) * tiles + y // side * across + x // side, np.int64)
