"""Classifiers as ONNX graphs: numbers and operators only, so that a saved one can be opened without running its code.

Conventions: input ``rows`` (n, columns) float32, or ``segments`` (n, frames, bands) float32 for a `ConvClassifier`;
output ``probabilities`` (n, classes) float32, rows sum to 1, and of rows ``familiarity`` (n,), the best cosine with any
row that was learnt from, in the prepared space. All parameters are plain arrays, whatever learnt them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array

# Known to every supported version of ONNX Runtime.
OPSET = 17
TREES_OPSET = 3
IR_VERSION = 8
# What is added to each class's votes of neighbours, so that none is impossible.
NEIGHBOUR_PRIOR = 0.05


@dataclass(frozen=True, eq=False)
class Scaling:
    """How rows are prepared: ``clip((row - mean) * scale, ± limit) * weight``, each (columns,) float32."""

    mean: Float32Array
    scale: Float32Array
    weight: Float32Array
    limit: float

    def apply(self, rows: Float32Array) -> Float32Array:
        """Return prepared rows, new memory."""
        return np.asarray(np.clip((rows - self.mean) * self.scale, -self.limit, self.limit) * self.weight, np.float32)


@dataclass(frozen=True, eq=False)
class Layer:
    """A dense layer: kernel (inputs, outputs), bias (outputs,); a ReLU follows all but the last."""

    kernel: Float32Array
    bias: Float32Array


@dataclass(frozen=True, eq=False)
class DenseClassifier:
    """Dense layers and a softmax; with one layer, multinomial logistic regression."""

    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Tree:
    """A decision tree as parallel arrays over its nodes; node 0 is the root.

    Attributes:
        feature: (nodes,) column that is looked at.
        threshold: (nodes,) float64; up to it the way goes left.
        left: (nodes,) number of the left child.
        right: (nodes,) of the right one.
        leaf: (nodes,) bool.
        value: (nodes, outputs) float64, what a leaf adds to each output.
    """

    feature: Int64Array
    threshold: Float64Array
    left: Int64Array
    right: Int64Array
    leaf: BoolArray
    value: Float64Array


@dataclass(frozen=True, eq=False)
class TreesClassifier:
    """A sum of trees, plus `base` (classes,); through a softmax where `logits` is True."""

    trees: tuple[Tree, ...]
    base: Float64Array
    logits: bool


@dataclass(frozen=True, eq=False)
class NeighboursClassifier:
    """The `k` rows with the greatest cosine vote, by `exp(sharpness * cosine)`.

    Attributes:
        rows: (m, columns) float32 of length 1.
        labels: (m, classes) float32, each row sums to 1.
        k: how many vote.
        sharpness: how much more nearer ones count.
    """

    rows: Float32Array
    labels: Float32Array
    k: int
    sharpness: float


@dataclass(frozen=True, eq=False)
class ConvClassifier:
    """Three convolutions (3 × 3, ReLU), pooled after the first two, all cells in a row, then dense layers.

    Attributes:
        mean: of the input in training; subtracted.
        scale: the input is multiplied by it then.
        kernels: three of (outputs, inputs, 3, 3), batch normalisation folded in.
        biases: three of (outputs,).
        pool: side of the max pooling.
        head: dense layers; the first takes cells by frame, then band, then filter.
    """

    mean: float
    scale: float
    kernels: tuple[Float32Array, ...]
    biases: tuple[Float32Array, ...]
    pool: int
    head: DenseClassifier


RowClassifier = DenseClassifier | TreesClassifier | NeighboursClassifier


class _Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def add(
        self, kind: str, *inputs: str, output: str | None = None, also: str | None = None, domain: str = "", **more: Any
    ) -> str:
        """Add a node and return the name of its output; `also` names a second one, `more` are its attributes."""
        from onnx import helper

        name = output or f"{kind.lower()}{len(self.nodes)}"
        outputs = [name] if also is None else [name, also]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **more))
        return name

    def bytes(
        self, given: str, shape: Sequence[int | str], classes: int, metadata: dict[str, str], *, familiarity: bool
    ) -> bytes:
        """Return the finished model."""
        from onnx import TensorProto, checker, helper

        inputs = helper.make_tensor_value_info(given, TensorProto.FLOAT, ["n", *shape])
        outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes])]
        if familiarity:
            outputs.append(helper.make_tensor_value_info("familiarity", TensorProto.FLOAT, ["n"]))
        graph = helper.make_graph(self.nodes, "classifier", [inputs], outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="embedindex")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, metadata)
        checker.check_model(model)
        return bytes(model.SerializeToString())


def rows_graph(
    scaling: Scaling, classifier: RowClassifier, known: Float32Array, classes: int, metadata: dict[str, str]
) -> bytes:
    """Return a classifier of rows, with what prepares them, as an ONNX model.

    Args:
        scaling: how rows are prepared.
        classifier: what judges them.
        known: (m, columns) prepared rows, of length 1, that are familiar.
        classes: how many classes there are.
        metadata: texts kept in the file.
    """
    graph = _Graph()
    flow = graph.add("Mul", graph.add("Sub", "rows", graph.constant(scaling.mean)), graph.constant(scaling.scale))
    flow = graph.add("Clip", flow, graph.constant(-scaling.limit), graph.constant(scaling.limit))
    flow = graph.add("Mul", flow, graph.constant(scaling.weight))
    if isinstance(classifier, DenseClassifier):
        _dense(graph, flow, classifier)
    elif isinstance(classifier, TreesClassifier):
        _trees(graph, flow, classifier)
    else:
        _neighbours(graph, flow, classifier)
    cosines = graph.add("MatMul", _of_length_1(graph, flow), graph.constant(known.T))
    graph.add("ReduceMax", cosines, output="familiarity", axes=[1], keepdims=0)
    return graph.bytes("rows", [len(scaling.mean)], classes, metadata, familiarity=True)


def _of_length_1(graph: _Graph, flow: str) -> str:
    length = graph.add("ReduceL2", flow, axes=[1], keepdims=1)
    return graph.add("Div", flow, graph.add("Max", length, graph.constant(1e-9)))


def conv_graph(classifier: ConvClassifier, bands: int, classes: int, metadata: dict[str, str]) -> bytes:
    """Return a classifier of spectrograms (n, frames, bands) as an ONNX model."""
    graph = _Graph()
    flow = graph.add("Sub", "segments", graph.constant(classifier.mean))
    flow = graph.add("Mul", flow, graph.constant(classifier.scale))
    flow = graph.add("Unsqueeze", flow, graph.constant([1], np.int64))
    for number, (kernel, bias) in enumerate(zip(classifier.kernels, classifier.biases, strict=True)):
        flow = graph.add("Conv", flow, graph.constant(kernel), graph.constant(bias), pads=[1, 1, 1, 1])
        flow = graph.add("Relu", flow)
        if number < 2:
            side = [classifier.pool, classifier.pool]
            flow = graph.add("MaxPool", flow, kernel_shape=side, strides=side)
    flow = graph.add("Flatten", graph.add("Transpose", flow, perm=[0, 2, 3, 1]), axis=1)
    _dense(graph, flow, classifier.head)
    return graph.bytes("segments", ["frames", bands], classes, metadata, familiarity=False)


def _dense(graph: _Graph, flow: str, classifier: DenseClassifier) -> None:
    for number, layer in enumerate(classifier.layers):
        flow = graph.add("Gemm", flow, graph.constant(layer.kernel), graph.constant(layer.bias))
        if number < len(classifier.layers) - 1:
            flow = graph.add("Relu", flow)
    graph.add("Softmax", flow, output="probabilities", axis=1)


def _neighbours(graph: _Graph, flow: str, classifier: NeighboursClassifier) -> None:
    cosines = graph.add("MatMul", _of_length_1(graph, flow), graph.constant(classifier.rows.T))
    count = graph.constant([min(classifier.k, len(classifier.rows))], np.int64)
    graph.add("TopK", cosines, count, output="nearest", also="places", axis=1)
    raised = graph.add("Mul", graph.add("Sub", "nearest", graph.constant(1.0)), graph.constant(classifier.sharpness))
    weights = graph.add("Unsqueeze", graph.add("Exp", raised), graph.constant([2], np.int64))
    votes = graph.add("Mul", graph.add("Gather", graph.constant(classifier.labels), "places", axis=0), weights)
    summed = graph.add("ReduceSum", votes, graph.constant([1], np.int64), keepdims=0)
    total = graph.add("ReduceSum", weights, graph.constant([1], np.int64), keepdims=0)
    share = graph.add("Div", summed, graph.add("Max", total, graph.constant(1e-30)))
    classes = classifier.labels.shape[1]
    mixed = graph.add("Mul", share, graph.constant(1.0 - NEIGHBOUR_PRIOR))
    graph.add("Add", mixed, graph.constant(NEIGHBOUR_PRIOR / classes), output="probabilities")


def float32_below(values: Float64Array) -> Float32Array:
    """Return the greatest float32 numbers not above `values`: float32 inputs then go the same way in a tree."""
    rounded = values.astype(np.float32)
    return np.asarray(np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded), np.float32)


def _trees(graph: _Graph, flow: str, classifier: TreesClassifier) -> None:
    sizes = [len(tree.leaf) for tree in classifier.trees]
    own = [np.arange(size) for size in sizes]
    leaf = np.concatenate([tree.leaf for tree in classifier.trees])
    thresholds = np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in classifier.trees]))
    places = [np.argwhere(tree.leaf[:, None] & (tree.value != 0)) for tree in classifier.trees]
    outputs = len(classifier.base)
    scores = graph.add(
        "TreeEnsembleRegressor",
        flow,
        domain="ai.onnx.ml",
        n_targets=outputs,
        base_values=[float(value) for value in classifier.base],
        nodes_treeids=np.repeat(np.arange(len(sizes)), sizes).tolist(),
        nodes_nodeids=np.concatenate(own).tolist(),
        nodes_featureids=np.concatenate([np.where(t.leaf, 0, t.feature) for t in classifier.trees]).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=float32_below(thresholds).tolist(),
        nodes_truenodeids=np.concatenate([np.where(t.leaf, 0, t.left) for t in classifier.trees]).tolist(),
        nodes_falsenodeids=np.concatenate([np.where(t.leaf, 0, t.right) for t in classifier.trees]).tolist(),
        target_treeids=np.repeat(np.arange(len(sizes)), [len(place) for place in places]).tolist(),
        target_nodeids=np.concatenate([place[:, 0] for place in places]).tolist(),
        target_ids=np.concatenate([place[:, 1] for place in places]).tolist(),
        target_weights=np.concatenate(
            [tree.value[place[:, 0], place[:, 1]] for tree, place in zip(classifier.trees, places, strict=True)]
        ).tolist(),
    )
    if classifier.logits:
        graph.add("Softmax", scores, output="probabilities", axis=1)
    else:
        total = graph.add("ReduceSum", scores, graph.constant([1], np.int64), keepdims=1)
        graph.add("Div", scores, total, output="probabilities")
