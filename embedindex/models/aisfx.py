"""The model ``aisfx``: sound-effects embedding of A. B. Ma and A. Lerch (ISMIR 2022), 512 numbers for 2.3 seconds.

Paper: "Representation Learning for the Automatic Indexing of Sound Effects Libraries", doi:10.5281/zenodo.7316800;
weights CC BY 4.0. Conventions: windows are (n, 103,424) float32 at 44.1 kHz. The paper cuts a file's spectrogram into
blocks of 100 frames; a window here is the samples of one such block.
"""

from __future__ import annotations

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import UsageError
from embedindex.models.aisfx_checkpoint import EMB_BLOCK_LENGTH, read_checkpoint, to_convnet
from embedindex.models.aisfx_frontend import (
    SAMPLE_RATE,
    SPEC_HOP_LENGTH,
    WINDOW_SAMPLES,
    spectrograms,
)
from embedindex.models.aisfx_weights import find_aisfx
from embedindex.models.base import ModelIdentity, ModelRequest
from embedindex.models.cache import WeightsFile
from embedindex.models.converted import Converted, read_converted, store_converted
from embedindex.models.convnet import ConvNet
from embedindex.models.convnet_onnx import build
from embedindex.models.engines import OnnxNetwork

DIMENSION = 512
# Raised whenever the numbers of this model change for the same weights.
VERSION = 1
# Part of every stored conversion's name: raise it whenever the conversion changes any number.
CONVERTER_VERSION = 1
# One block, see docs/decisions/aisfx.md.
DEFAULT_HOP_S = EMB_BLOCK_LENGTH * SPEC_HOP_LENGTH / SAMPLE_RATE
PRECISIONS = ("auto", "fp32", "int8")


class AisfxModel:
    """aisfx, loaded: front end and network."""

    default_hop_s = DEFAULT_HOP_S

    def __init__(self, identity: ModelIdentity, network: OnnxNetwork) -> None:
        self.identity = identity
        self._network = network

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, 512) float32 for windows (n, 103,424); see `embedindex.models.base.Model`."""
        size = self._network.batch
        parts = [
            self._network.cells(spectrograms(windows[start : start + size])) for start in range(0, len(windows), size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, DIMENSION), np.float32)


def load(request: ModelRequest) -> AisfxModel:
    """Return the model; its weights are fetched where they are not here.

    Raises:
        UsageError: an option, precision or engine that it does not have.
        WeightsError: the weights cannot be had or used.
    """
    if request.options:
        raise UsageError(f"aisfx has no options, so no {request.options[0][0]!r}; write --model aisfx")
    if request.engine not in ("auto", "onnxruntime"):
        raise UsageError(f"aisfx runs on the engine onnxruntime only, not on {request.engine!r}")
    if request.precision not in PRECISIONS:
        raise UsageError(f"there is no precision {request.precision!r}; it is one of: {', '.join(PRECISIONS)}")
    weights = find_aisfx(weights=request.weights)
    model = stored_model(weights, request.precision)
    network = OnnxNetwork(model.content, model.sha256, request.threads)
    return AisfxModel(identity(weights, str(model.facts["precision"])), network)


def identity(weights: WeightsFile, precision: str) -> ModelIdentity:
    """Return what decides the numbers of `weights` at that precision (``"fp32"`` or ``"int8"``)."""
    return ModelIdentity(
        name="aisfx",
        sample_rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        dimension=DIMENSION,
        weights_sha256=weights.sha256,
        level="peak",
        filling="tile",
        standardise=False,
        parameters={"precision": precision, "version": VERSION},
    )


def model_key(weights: WeightsFile, variant: str) -> str:
    """Return the name under which a conversion of `weights` is stored."""
    return f"aisfx-{weights.sha256[:20]}-v{CONVERTER_VERSION}-{variant}"


def read_network(weights: WeightsFile) -> ConvNet:
    """Return the network in `weights`.

    Raises:
        WeightsError: the file cannot be read, has changed, or is not aisfx's checkpoint.
    """
    return to_convnet(read_checkpoint(weights.path, weights.sha256, "embedding_net."), weights.path)


def stored_model(weights: WeightsFile, precision: str) -> Converted:
    """Return the ONNX model of `weights`: the 8-bit one where one was prepared and is wanted, else float32.

    Raises:
        UsageError: ``"int8"`` was asked for and none was prepared.
        WeightsError: the weights cannot be used; see `read_network`.
    """
    if precision != "fp32":
        integer = read_converted(model_key(weights, "int8"))
        if integer is not None:
            return integer
        if precision == "int8":
            raise UsageError("aisfx has no 8-bit variant on this machine; use --precision fp32")
    key = model_key(weights, "fp32")
    facts = {"weights_sha256": weights.sha256, "precision": "fp32"}
    return read_converted(key) or store_converted(key, build(read_network(weights)), facts)
