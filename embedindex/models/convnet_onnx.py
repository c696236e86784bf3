"""Writes a `ConvNet` as an ONNX graph: in float32, or with some layers in 8-bit integers.

Conventions: input ``spectrograms`` (n, rows, columns) float32, output ``cells`` (n, length) float32 in the order (row,
column, channel). Integer activations are unsigned (zero point 0 after a ReLU), weights signed, one scale per output
channel: the combination that x86 has instructions for (VNNI) and that ONNX Runtime keeps in its fast layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array
from embedindex.models.convnet import ConvLayer, ConvNet

# Opset 17 has all that is used here and is known to every supported version of ONNX Runtime.
OPSET = 17
IR_VERSION = 8
WEIGHT_LIMIT = 127
ACTIVATION_STEPS = 255


@dataclass(frozen=True)
class ActivationRange:
    """The values that an 8-bit tensor can hold: `low` (at most 0) to `high` (more than 0)."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """Distance of two neighbouring values."""
        return np.float32((self.high - self.low) / ACTIVATION_STEPS)

    @property
    def zero_point(self) -> np.uint8:
        """The integer that stands for 0."""
        return np.uint8(np.clip(round(-self.low / float(self.scale)), 0, ACTIVATION_STEPS))


@dataclass(frozen=True)
class IntegerPlan:
    """Which layers compute in integers, and the ranges of what flows between them.

    Attributes:
        integer: for each layer, True when it computes in 8-bit integers.
        input_range: range of the scaled and shifted spectrogram.
        output_ranges: range of each layer's output (after its ReLU).
    """

    integer: tuple[bool, ...]
    input_range: ActivationRange
    output_ranges: tuple[ActivationRange, ...]


def weight_scales(kernel: Float32Array) -> Float32Array:
    """Return the scale of each output channel, (out,), so that its largest weight becomes +-127."""
    peak = np.abs(kernel).reshape(len(kernel), -1).max(axis=1)
    return np.asarray(np.maximum(peak, np.finfo(np.float32).tiny * 1e3) / WEIGHT_LIMIT, np.float32)


def quantise_kernel(kernel: Float32Array) -> tuple[npt.NDArray[np.int8], Float32Array]:
    """Return (int8 kernel, scales), rounded so that each 3x3 patch keeps its sum to half a step.

    Neighbouring inputs of a convolution are alike, so what rounding adds to the sum of a patch is what moves the
    output; the weights nearest to the middle between two integers go to the other one until the sum is right. Measured
    on trained weights, this leaves a third of the error of plain rounding.
    """
    scales = weight_scales(kernel)
    exact = (kernel / scales[:, None, None, None]).reshape(*kernel.shape[:2], -1).astype(np.float64)
    rounded = np.rint(exact)
    missing = exact - rounded
    steps = np.rint(missing.sum(axis=2, keepdims=True))
    rank = np.argsort(np.argsort(-missing, axis=2, kind="stable"), axis=2)  # 0 = rounded down the furthest
    rounded += (rank < steps).astype(np.float64) - (rank >= exact.shape[2] + steps)
    limited = np.clip(rounded, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return limited.reshape(kernel.shape), scales


_UNUSED = ActivationRange(0.0, 1.0)


class _Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def cast(self, flow: str, output: str, *, half: bool) -> str:
        """Add a node that turns `flow` into float16 or float32, and return the name of its output."""
        from onnx import TensorProto

        return self.add("Cast", [flow], output, to=TensorProto.FLOAT16 if half else TensorProto.FLOAT)

    def model(self, net: ConvNet, output: str) -> bytes:
        """Return the finished model as bytes."""
        from onnx import TensorProto, checker, helper

        given = helper.make_tensor_value_info("spectrograms", TensorProto.FLOAT, ["n", net.rows, net.columns])
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "length"])
        graph = helper.make_graph(self.nodes, "convnet", [given], [made], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="embedindex")
        model.ir_version = IR_VERSION
        checker.check_model(model)
        return bytes(model.SerializeToString())


def build(net: ConvNet, plan: IntegerPlan | None = None, *, flows: bool = False, half: bool = False) -> bytes:
    """Return `net` as an ONNX model.

    Args:
        net: the network.
        plan: which layers are integer; None for float32 throughout.
        flows: the model also returns what leaves each layer, pooled, under the names `flow_names`; for calibrating,
            in float32 only.
        half: the layers compute in float16; without a plan only.
    """
    graph = _Graph()
    flow = graph.add("Unsqueeze", ["spectrograms", graph.constant("axis", np.array([1], np.int64))], "channel")
    flow = graph.add("Mul", [flow, graph.constant("input_scale", np.float32(net.input_scale))], "scaled")
    flow = graph.add("Add", [flow, graph.constant("input_shift", np.float32(net.input_shift))], "shifted")
    if half:
        flow = graph.cast(flow, "narrow", half=True)
    held: ActivationRange | None = None  # range of `flow` when it is integer
    before = plan.input_range if plan else _UNUSED
    for number, layer in enumerate(net.layers):
        if plan and plan.integer[number]:
            if held is None:
                flow = _quantise(graph, flow, before, f"q{number}")
            held = plan.output_ranges[number]
            flow = _integer_layer(graph, layer, flow, before, held, number)
        else:
            if held is not None:
                flow, held = _dequantise(graph, flow, held, f"d{number}"), None
            flow = _float_layer(graph, layer, flow, number, half=half)
        if layer.pool:
            flow = graph.add("MaxPool", [flow], f"pool{number}", kernel_shape=layer.pool, strides=layer.pool)
        before = plan.output_ranges[number] if plan else _UNUSED
    if half:
        flow = graph.cast(flow, "wide", half=False)
    output = _head(graph, net, flow, held)
    content = graph.model(net, output)
    return _with_outputs(content, flow_names(net)) if flows else content


def flow_names(net: ConvNet) -> list[str]:
    """Return the names of what leaves each layer after its pooling; for the last one, after the head's max pooling."""
    names = [f"pool{number}" if layer.pool else f"layer{number}" for number, layer in enumerate(net.layers)]
    return [*names[:-1], "cell"] if net.head == "max" else names


def _float_layer(graph: _Graph, layer: ConvLayer, flow: str, number: int, *, half: bool = False) -> str:
    name, kind = f"layer{number}", np.float16 if half else np.float32
    with np.errstate(over="ignore"):  # a float16 that cannot hold them is judged and not used (`arithmetic`)
        kernel, bias = layer.kernel.astype(kind, copy=False), layer.bias.astype(kind, copy=False)
    inputs = [flow, graph.constant(f"kernel{number}", kernel), graph.constant(f"bias{number}", bias)]
    flow = graph.add("Conv", inputs, f"conv{number}" if layer.relu else name, **_conv_attributes(layer))
    return graph.add("Relu", [flow], name) if layer.relu else flow


def _integer_layer(
    graph: _Graph, layer: ConvLayer, flow: str, given: ActivationRange, made: ActivationRange, number: int
) -> str:
    kernel, scales = quantise_kernel(layer.kernel)
    bias = np.rint(layer.bias.astype(np.float64) / (scales.astype(np.float64) * float(given.scale)))
    limits = np.iinfo(np.int32)
    inputs = [
        flow,
        graph.constant(f"x_scale{number}", given.scale),
        graph.constant(f"x_zero{number}", given.zero_point),
        graph.constant(f"kernel{number}", kernel),
        graph.constant(f"w_scale{number}", scales),
        graph.constant(f"w_zero{number}", np.zeros(len(scales), np.int8)),
        graph.constant(f"y_scale{number}", made.scale),
        graph.constant(f"y_zero{number}", made.zero_point),
        graph.constant(f"bias{number}", np.clip(bias, limits.min, limits.max).astype(np.int32)),
    ]
    return graph.add("QLinearConv", inputs, f"layer{number}", **_conv_attributes(layer))


def _conv_attributes(layer: ConvLayer) -> dict[str, Any]:
    rows, columns = layer.kernel.shape[2:]
    return {
        "kernel_shape": [rows, columns],
        "pads": [(rows - 1) // 2, (columns - 1) // 2, rows // 2, columns // 2],
        "strides": [1, 1],
    }


def _quantise(graph: _Graph, flow: str, span: ActivationRange, name: str) -> str:
    scale = graph.constant(f"{name}_scale", span.scale)
    zero = graph.constant(f"{name}_zero", span.zero_point)
    return graph.add("QuantizeLinear", [flow, scale, zero], name)


def _dequantise(graph: _Graph, flow: str, span: ActivationRange, name: str) -> str:
    scale = graph.constant(f"{name}_scale", span.scale)
    zero = graph.constant(f"{name}_zero", span.zero_point)
    return graph.add("DequantizeLinear", [flow, scale, zero], name)


def _head(graph: _Graph, net: ConvNet, flow: str, held: ActivationRange | None) -> str:
    if net.head == "max":  # commutes with the dequantisation, which then has less to do
        flow = graph.add("MaxPool", [flow], "cell", kernel_shape=net.cell, strides=net.cell)
    if held is not None:
        flow = _dequantise(graph, flow, held, "dequantised")
    if net.head == "max":
        flow = graph.add("Transpose", [flow], "channels_last", perm=[0, 2, 3, 1])
        return graph.add("Flatten", [flow], "cells", axis=1)
    flow = graph.add("ReduceMean", [flow], "mean", axes=[2], keepdims=0)
    return graph.add("ReduceMax", [flow], "cells", axes=[2], keepdims=0)


def _with_outputs(content: bytes, names: list[str]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(content)
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())
