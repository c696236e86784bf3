"""Writes a `ConvNet` as an ONNX graph: in float32, or with its later layers in 8-bit integers.

Conventions: input ``spectrograms`` (n, rows, columns) float32, output ``cells`` (n, length) float32 in the order (row,
column, channel). Integer activations are unsigned with 0 standing for 0, weights signed, one scale per output channel:
the combination that x86 has instructions for (VNNI) and that ONNX Runtime keeps in its fast layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array
from embedindex.models.convnet import ConvLayer, ConvNet
from embedindex.models.onnx_graph import Graph
from embedindex.models.winograd import Rows, convolve, pays, pool_cells, to_image, to_rows

# A split activation is whole steps plus sixteenths of a step, both with this zero point: eight sixteenths either way.
SPLIT_PARTS = 16
SPLIT_ZERO = 8


@dataclass(frozen=True)
class IntegerLayer:
    """A convolution in 8-bit integers: ``out = clip(round(scales * (kernel * in + bias)), 0, 255)``, then its pooling.

    The lower limit is the ReLU.

    Attributes:
        kernel: (out, in, rows, columns) int8.
        fine_kernel: the kernel for sixteenths of steps, of the same shape.
        bias: (out,) int32.
        scales: (out,) float32.
        pool: (rows, columns) of the max pooling, or None.
    """

    kernel: npt.NDArray[np.int8]
    fine_kernel: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    scales: Float32Array
    pool: tuple[int, int] | None


@dataclass(frozen=True)
class IntegerNet:
    """A network of which the later layers compute in integers.

    Attributes:
        net: the network: geometry, input and head are its.
        floats: the first layers; what leaves the last of them is counted in steps.
        integers: the other layers.
        split: the first integer layer takes whole steps and sixteenths of steps as twice as many channels.
        steps: (channels,) float32, the size of a step of each channel of the result.
        lows: (channels,) float32, what 0 steps stand for in the result.
    """

    net: ConvNet
    floats: tuple[ConvLayer, ...]
    integers: tuple[IntegerLayer, ...]
    split: bool
    steps: Float32Array
    lows: Float32Array


@dataclass(frozen=True)
class BfloatNet:
    """A network whose first layers are for bfloat16, the later ones, if any, for integers.

    Attributes:
        net: the network: geometry and head are its.
        floats: the first layers, of natural units; the first takes the input in three parts.
        given: (channels,) float32, the size of a step of each channel that the integers are given.
        integers: the other layers.
        steps: (channels,) float32, the size of a step of each channel of the result of integers.
        lows: (channels,) float32, what 0 steps stand for in it.
    """

    net: ConvNet
    floats: tuple[ConvLayer, ...]
    given: Float32Array
    integers: tuple[IntegerLayer, ...]
    steps: Float32Array
    lows: Float32Array


def build(net: ConvNet, *, flows: bool = False, half: bool = False, tiled: bool = False) -> bytes:
    """Return `net` as an ONNX model in floating point.

    Args:
        net: the network.
        flows: the model also returns what leaves each layer, pooled, under the names `flow_names`; for calibrating.
        half: the layers compute in float16, else in float32.
        tiled: layers are computed by tiles where that is faster on a processor (`winograd`); the same but for rounding.
            Not together with `flows` or `half`.
    """
    graph = Graph()
    flow = _float_layers(graph, net, net.layers, half=half, tiled=tiled)
    if isinstance(flow, Rows) and net.head == "max":
        cells = pool_cells(graph, flow, net.cell, "maxima")
        return graph.model(net, graph.add("Flatten", [cells], "cells", axis=1))
    image = _image(graph, flow, "result")
    if half:
        image = graph.cast(image, "wide", half=False)
    content = graph.model(net, _head(graph, net, image))
    return _with_outputs(content, flow_names(net)) if flows else content


def build_integer(plan: IntegerNet) -> bytes:
    """Return an ONNX model whose later layers compute in integers."""
    graph = Graph()
    flow = _image(graph, _float_layers(graph, plan.net, plan.floats, tiled=True), "exact")
    flow = _split(graph, flow) if plan.split else _quantise(graph, flow, 1.0, 0, "whole")
    for number, layer in enumerate(plan.integers, len(plan.floats)):
        flow = _integer_layer(graph, layer, flow, plan.split and number == len(plan.floats), number)
    return graph.model(plan.net, _head(graph, plan.net, flow, plan))


def build_bfloat(plan: BfloatNet) -> bytes:
    """Return an ONNX model in float32 whose weights and inputs fit bfloat16, with integers behind.

    Its input is ``spectrograms`` in three parts, (n, 3, rows, columns). Integer layers are float convolutions between
    QuantizeLinear and DequantizeLinear nodes, from which OpenVINO makes integer ones. The last one's result stays in
    floating point; only what has a ReLU after it is rounded to steps.
    """
    graph = Graph()
    flow = "spectrograms"
    for number, layer in enumerate(plan.floats):
        last = number == len(plan.floats) - 1 and plan.integers
        flow = _float_layer(graph, replace(layer, pool=None) if last else layer, flow, number, half=False)
        if last:  # the largest of rounded values is the rounded largest, and has a quarter of the bytes
            share = graph.constant("share", (1 / plan.given).reshape(1, -1, 1, 1))
            flow = _in_whole_steps(graph, graph.add("Mul", [flow, share], "in_steps"), "given")
            flow = _pool(graph, flow, layer.pool, "given_pool")
    for number, integer in enumerate(plan.integers, len(plan.floats)):
        units = (plan.steps, plan.lows) if number == len(plan.net.layers) - 1 else None
        flow = _integer_layer_between_floats(graph, integer, flow, number, units)
    return graph.model(plan.net, _head(graph, plan.net, flow), parts=plan.floats[0].kernel.shape[1])


def flow_names(net: ConvNet) -> list[str]:
    """Return the names of what leaves each layer after its pooling; for the last one, after the head's max pooling."""
    names = [f"pool{number}" if layer.pool else f"layer{number}" for number, layer in enumerate(net.layers)]
    return [*names[:-1], "cell"] if net.head == "max" else names


def _float_layers(
    graph: Graph, net: ConvNet, layers: tuple[ConvLayer, ...], *, half: bool = False, tiled: bool = False
) -> str | Rows:
    given = graph.add("Unsqueeze", ["spectrograms", graph.integers("axis", [1])], "channel")
    given = graph.add("Mul", [given, graph.constant("input_scale", np.float32(net.input_scale))], "scaled")
    given = graph.add("Add", [given, graph.constant("input_shift", np.float32(net.input_shift))], "shifted")
    flow: str | Rows = graph.cast(given, "narrow", half=True) if half else given
    rows, columns = net.rows, net.columns
    for number, layer in enumerate(layers):
        if tiled and pays(layer):
            if not isinstance(flow, Rows):
                flow = to_rows(graph, flow, (layer.kernel.shape[1], rows, columns), f"given{number}")
            flow = convolve(graph, flow, layer, f"layer{number}")
            flow = flow if layer.relu or number == len(layers) - 1 else _image(graph, flow, f"left{number}")
        else:
            flow = _float_layer(graph, layer, _image(graph, flow, f"given{number}"), number, half=half)
        rows, columns = (rows // layer.pool[0], columns // layer.pool[1]) if layer.pool else (rows, columns)
    return flow


def _image(graph: Graph, flow: str | Rows, name: str) -> str:
    return to_image(graph, flow, name) if isinstance(flow, Rows) else flow


def _float_layer(graph: Graph, layer: ConvLayer, flow: str, number: int, *, half: bool) -> str:
    name, kind = f"layer{number}", np.float16 if half else np.float32
    with np.errstate(over="ignore"):  # a float16 that cannot hold them is judged and not used (`arithmetic`)
        kernel, bias = layer.kernel.astype(kind, copy=False), layer.bias.astype(kind, copy=False)
    inputs = [flow, graph.constant(f"kernel{number}", kernel), graph.constant(f"bias{number}", bias)]
    flow = graph.add("Conv", inputs, f"conv{number}" if layer.relu else name, **_conv_attributes(layer.kernel))
    flow = graph.add("Relu", [flow], name) if layer.relu else flow
    return _pool(graph, flow, layer.pool, f"pool{number}")


def _pool(graph: Graph, flow: str, size: tuple[int, int] | None, name: str) -> str:
    return graph.add("MaxPool", [flow], name, kernel_shape=size, strides=size) if size else flow


def _integer_layer(graph: Graph, layer: IntegerLayer, flow: str, split: bool, number: int) -> str:
    kernel = np.concatenate([layer.kernel, layer.fine_kernel], axis=1) if split else layer.kernel
    inputs = [
        flow,
        graph.constant(f"x_scale{number}", np.float32(1)),
        graph.constant(f"x_zero{number}", np.uint8(SPLIT_ZERO if split else 0)),
        graph.constant(f"kernel{number}", kernel),
        graph.constant(f"w_scale{number}", layer.scales),
        graph.constant(f"w_zero{number}", np.zeros(len(layer.scales), np.int8)),
        graph.constant(f"y_scale{number}", np.float32(1)),
        graph.constant(f"y_zero{number}", np.uint8(0)),
        graph.constant(f"bias{number}", layer.bias),
    ]
    flow = graph.add("QLinearConv", inputs, f"layer{number}", **_conv_attributes(kernel))
    return _pool(graph, flow, layer.pool, f"pool{number}")


def _conv_attributes(kernel: npt.NDArray[Any]) -> dict[str, Any]:
    rows, columns = kernel.shape[2:]
    return {
        "kernel_shape": [rows, columns],
        "pads": [(rows - 1) // 2, (columns - 1) // 2, rows // 2, columns // 2],
        "strides": [1, 1],
    }


def _integer_layer_between_floats(
    graph: Graph, layer: IntegerLayer, flow: str, number: int, units: tuple[Float32Array, Float32Array] | None
) -> str:
    """Return what leaves a layer: whole steps, or, with ``(steps, lows)`` as `units`, values."""
    scales, lows = layer.scales, np.zeros(1, np.float32)
    if units is not None:
        scales, lows = (scales * units[0]).astype(np.float32), units[1]
    inputs = [
        graph.constant(f"kernel{number}", layer.kernel),
        graph.constant(f"w_scale{number}", scales),
        graph.constant(f"w_zero{number}", np.zeros(len(scales), np.int8)),
    ]
    kernel = graph.add("DequantizeLinear", inputs, f"weights{number}", axis=0)
    bias = graph.constant(f"bias{number}", (layer.bias * scales + lows).astype(np.float32))
    flow = graph.add("Conv", [flow, kernel, bias], f"conv{number}", **_conv_attributes(layer.kernel))
    if units is None:
        flow = _in_whole_steps(graph, graph.add("Relu", [flow], f"layer{number}"), f"whole{number}")
    return _pool(graph, flow, layer.pool, f"pool{number}")


def _in_whole_steps(graph: Graph, flow: str, name: str) -> str:
    """Return `flow` rounded to 0 to 255, in floating point."""
    return _dequantise(graph, _quantise(graph, flow, 1.0, 0, name), 0, f"{name}_steps")


def _split(graph: Graph, flow: str) -> str:
    """Return whole steps, then what is missing to them in sixteenths, as the channels of one tensor."""
    whole = _quantise(graph, flow, 1.0, SPLIT_ZERO, "whole")
    missing = graph.add("Sub", [flow, _dequantise(graph, whole, SPLIT_ZERO, "whole_steps")], "missing")
    return graph.add("Concat", [whole, _quantise(graph, missing, 1 / SPLIT_PARTS, SPLIT_ZERO, "fine")], "split", axis=1)


def _quantise(graph: Graph, flow: str, scale: float, zero: int, name: str) -> str:
    scale_name = graph.constant(f"{name}_scale", np.float32(scale))
    return graph.add("QuantizeLinear", [flow, scale_name, graph.constant(f"{name}_zero", np.uint8(zero))], name)


def _dequantise(graph: Graph, flow: str, zero: int, name: str) -> str:
    scale = graph.constant(f"{name}_scale", np.float32(1))
    return graph.add("DequantizeLinear", [flow, scale, graph.constant(f"{name}_zero", np.uint8(zero))], name)


def _head(graph: Graph, net: ConvNet, flow: str, plan: IntegerNet | None = None) -> str:
    if net.head == "max":  # commutes with the dequantisation, which then has less to do
        flow = _pool(graph, flow, net.cell, "cell")
    if plan is not None:
        flow = _dequantise(graph, flow, 0, "dequantised")
    if net.head == "max":
        flow = graph.add("Transpose", [flow], "channels_last", perm=[0, 2, 3, 1])
    else:
        flow = graph.add("ReduceMean", [flow], "mean", axes=[2], keepdims=0)
        flow = graph.add("ReduceMax", [flow], "maximum", axes=[2], keepdims=0)
    if plan is not None:
        flow = graph.add("Mul", [flow, graph.constant("steps", plan.steps)], "units")
        flow = graph.add("Add", [flow, graph.constant("lows", plan.lows)], "values")
    return graph.add("Flatten", [flow], "cells", axis=1)


def _with_outputs(content: bytes, names: list[str]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(content)
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())
