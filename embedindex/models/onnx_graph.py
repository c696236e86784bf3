"""An ONNX graph under construction: nodes, constants, and the finished model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedindex.models.convnet import ConvNet

# Opset 17 has all that is used here and is known to every supported version of ONNX Runtime.
OPSET = 17
IR_VERSION = 8


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, name: str, values: npt.ArrayLike) -> str:
        """Add a constant of whole numbers, a shape or places, and return its name."""
        return self.constant(name, np.asarray(values, np.int64))

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def reshape(self, flow: str, output: str, shape: Sequence[int]) -> str:
        """Add a node that gives `flow` another shape (0: as it was, -1: what is left); return its output's name."""
        return self.add("Reshape", [flow, self.integers(f"{output}_shape", shape)], output)

    def split(self, flow: str, name: str, parts: int, axis: int) -> list[str]:
        """Add a node that cuts `axis`, `parts` long, into slices of 1, and return their names."""
        from onnx import helper

        outputs = [f"{name}_{part}" for part in range(parts)]
        sizes = self.integers(f"{name}_sizes", [1] * parts)
        self.nodes.append(helper.make_node("Split", [flow, sizes], outputs, name=name, axis=axis))
        return outputs

    def cast(self, flow: str, output: str, *, half: bool) -> str:
        """Add a node that turns `flow` into float16 or float32, and return the name of its output."""
        from onnx import TensorProto

        return self.add("Cast", [flow], output, to=TensorProto.FLOAT16 if half else TensorProto.FLOAT)

    def model(self, net: ConvNet, output: str, *, parts: int | None = None) -> bytes:
        """Return the finished model as bytes; its input has channels if it comes in so many parts."""
        from onnx import TensorProto, checker, helper

        shape = ["n", *([] if parts is None else [parts]), net.rows, net.columns]
        given = helper.make_tensor_value_info("spectrograms", TensorProto.FLOAT, shape)
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "length"])
        graph = helper.make_graph(self.nodes, "convnet", [given], [made], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="embedindex")
        model.ir_version = IR_VERSION
        checker.check_model(model)
        return bytes(model.SerializeToString())
