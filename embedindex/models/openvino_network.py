"""OpenVINO as an engine: it computes a network in bfloat16, with integers behind or not, or in float32.

OpenVINO (Intel, Apache-2.0) is the extra ``embedindex[openvino]``. ONNX Runtime has no convolutions in bfloat16.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import ChecksumError, EngineMissingError, ModelError
from embedindex.models.bfloat import halve_network, input_in_parts
from embedindex.models.convnet import ConvNet
from embedindex.models.convnet_onnx import build_bfloat
from embedindex.models.engines import not_installed, release_freed_memory
from embedindex.models.quantise import Advance, Ladder, Variant, part
from embedindex.models.rounding import Observed, round_network

# Share of the rounding's time that integers take.
INTEGERS_SHARE = 0.7


def require_openvino() -> None:
    """Raise where OpenVINO is not installed.

    Raises:
        EngineMissingError: it is not.
    """
    if find_spec("openvino") is None:
        raise EngineMissingError(not_installed("openvino", "pip install 'embedindex[openvino]'"))


def processor_has_bfloat() -> bool:
    """Say whether OpenVINO computes in bfloat16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenvinoNetwork:
    """An ONNX model in OpenVINO, one window a call: more are no faster. Loaded when it is first needed.

    Attributes:
        batch: windows that it likes to be given at once.
    """

    batch = 1

    def __init__(self, content: bytes, sha256: str, threads: int, *, net: ConvNet | None = None) -> None:
        """Take a model as bytes.

        Args:
            content: the model.
            sha256: SHA-256 (hex) it must have.
            threads: threads of one call.
            net: the network of a model for bfloat16 (`convnet_onnx.build_bfloat`); None for one in float32.

        Raises:
            ChecksumError: the bytes are others.
            EngineMissingError: OpenVINO is not installed.
        """
        require_openvino()
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ChecksumError(f"a converted model has SHA-256 {found}, not {sha256}; delete it and try again")
        self._content = content
        self._threads = threads
        self._net = None if net is None else net.with_layers(())  # its input's scale is all that is needed

    @cached_property
    def _request(self) -> Any:
        """What computes.

        Raises:
            ModelError: OpenVINO cannot load the model.
        """
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if self._net is None else "bf16",
            "INFERENCE_NUM_THREADS": max(1, self._threads),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # workers would all be put on the same cores
        }
        core = openvino.Core()
        try:
            model = core.read_model(self._content)
            model.reshape([1, *list(model.input(0).partial_shape)[1:]])
            request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load a converted model ({error})") from error
        self._content = b""
        release_freed_memory()
        return request

    def cells(self, spectrograms: Float32Array) -> Float32Array:
        """Return (n, length) float32 for spectrograms (n, rows, columns) float32."""
        inputs = spectrograms if self._net is None else input_in_parts(self._net, spectrograms)
        made = []
        for number in range(len(inputs)):
            self._request.infer([np.ascontiguousarray(inputs[number : number + 1], np.float32)])
            made.append(self._request.get_output_tensor(0).data.copy())
        return np.concatenate(made)


def bfloat_ladder() -> Ladder:
    """Return OpenVINO's variants: a number of layers in bfloat16, the later ones in 8-bit integers."""

    def load(net: ConvNet, content: bytes, threads: int) -> OpenvinoNetwork:
        return OpenvinoNetwork(content, hashlib.sha256(content).hexdigest(), threads, net=net)

    return Ladder("bf16", _bfloat_variants, load)


def _bfloat_variants(net: ConvNet, seen: Observed, advance: Advance) -> list[Variant]:
    rounded = round_network(net, seen, part(advance, 0.0, INTEGERS_SHARE))
    halved = halve_network(rounded, seen, part(advance, INTEGERS_SHARE, 1.0))

    def build_one(count: int) -> bytes:
        return build_bfloat(halved.with_bfloats(count))

    return [
        Variant(_name(count, len(net.layers)), partial(build_one, count)) for count in range(1, len(net.layers) + 1)
    ]


def _name(count: int, layers: int) -> str:
    if count == layers:
        return "all layers in bfloat16"
    return f"first {'layer' if count == 1 else f'{count} layers'} in bfloat16, then int8"
