"""Prepares a network for bfloat16, numbers with float32's range and 8 bits of precision, and gives it integers behind.

Processors with AVX512-BF16 or AMX multiply them twice as fast as float32, and sum in float32. ONNX Runtime has no such
convolutions, OpenVINO has (`embedindex.models.openvino_network`).

What flows needs no steps here: its error is always the same share of it. Weights are rounded together, as in
`embedindex.models.rounding`. The network's input, in decibels, would lose most by far, and what is made of it first
costs next to nothing: it is given in two parts, a rounded one and the rest, and so are the first layer's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.models.convnet import ConvLayer, ConvNet
from embedindex.models.convnet_onnx import BfloatNet
from embedindex.models.rounding import Inputs, Observed, Rounded, round_weights

# Bits of a float32 that a bfloat16 leaves out.
BITS_LEFT_OUT = 16


def nearest_bfloat(values: Float32Array | Float64Array) -> Float32Array:
    """Return the nearest bfloat16 of each finite value, ties to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    tie = (bits >> np.uint32(BITS_LEFT_OUT)) & np.uint32(1)
    bits = (bits + np.uint32((1 << (BITS_LEFT_OUT - 1)) - 1) + tie) >> np.uint32(BITS_LEFT_OUT)
    return (bits << np.uint32(BITS_LEFT_OUT)).view(np.float32)


@dataclass(frozen=True)
class Halved:
    """A network of which every layer is there in bfloat16, and every one but the first in integers.

    Attributes:
        layers: with weights that are bfloat16 numbers; of the first, (out, 3, rows, columns), for an input in parts.
        rounded: the network in integers.
    """

    layers: tuple[ConvLayer, ...]
    rounded: Rounded

    def with_bfloats(self, count: int) -> BfloatNet:
        """Return the network with its first `count` layers (at least one) in bfloat16 and the others in integers."""
        net, steps, lows = self.rounded.net, self.rounded.steps, self.rounded.lows
        given, made = steps[count - 1].astype(np.float32), steps[-1].astype(np.float32)
        integers = self.rounded.integers[count - 1 :]
        return BfloatNet(net, self.layers[:count], given, integers, made, lows.astype(np.float32))


def halve_network(rounded: Rounded, observed: Observed, advance: Callable[[float], None] = lambda _: None) -> Halved:
    """Return the network of `rounded` with its layers in bfloat16, too.

    `advance` is told which share of the weights is rounded, from 0 to 1.
    """
    net = rounded.net
    sizes = np.cumsum([layer.kernel.size for layer in net.layers[1:]])
    layers = [_in_parts(net.layers[0])]
    for layer, inputs, size in zip(net.layers[1:], observed.inputs, sizes, strict=True):
        layers.append(_halve_layer(layer, inputs))
        advance(float(size / sizes[-1]))
    return Halved(tuple(layers), rounded)


def input_in_parts(net: ConvNet, spectrograms: Float32Array) -> Float32Array:
    """Return (n, 3, rows, columns), bfloat16 numbers: the scaled input, what that leaves out, and the first again."""
    exact = spectrograms * np.float32(net.input_scale) + np.float32(net.input_shift)
    near = nearest_bfloat(exact)
    return np.stack([near, nearest_bfloat(exact - near), near], axis=1)


def _in_parts(layer: ConvLayer) -> ConvLayer:
    """Return the layer for `input_in_parts`: rounded weights for the first two, what those leave out for the third."""
    near = nearest_bfloat(layer.kernel)
    return replace(layer, kernel=np.concatenate([near, near, nearest_bfloat(layer.kernel - near)], axis=1))


def _halve_layer(layer: ConvLayer, inputs: Inputs) -> ConvLayer:
    exact = layer.kernel.reshape(len(layer.kernel), -1).astype(np.float64)
    halved = round_weights(exact, inputs.covariance, lambda weights: nearest_bfloat(weights).astype(np.float64))
    bias = layer.bias - (halved - exact) @ inputs.mean
    return replace(layer, kernel=halved.reshape(layer.kernel.shape).astype(np.float32), bias=bias.astype(np.float32))
