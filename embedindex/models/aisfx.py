"""The model ``aisfx``: sound-effects embedding of A. B. Ma and A. Lerch (ISMIR 2022), 512 numbers for 2.3 seconds.

Paper: "Representation Learning for the Automatic Indexing of Sound Effects Libraries", doi:10.5281/zenodo.7316800;
weights CC BY 4.0. Conventions: windows are (n, 103,424) float32 at 44.1 kHz. The paper cuts a file's spectrogram into
blocks of 100 frames; a window here is the samples of one such block.
"""

from __future__ import annotations

import logging

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
from embedindex.models.arithmetic import cuda_network
from embedindex.models.base import ModelIdentity, ModelRequest, ParameterValue
from embedindex.models.cache import WeightsFile
from embedindex.models.converted import Converted, read_converted, store_converted
from embedindex.models.convnet import ConvNet
from embedindex.models.convnet_onnx import build
from embedindex.models.engines import CPU_BATCH, OnnxNetwork
from embedindex.models.quantise import Advance, Report
from embedindex.models.selection import Subject, make_selection, precision_parameters, stored_selection

DIMENSION = 512
# Raised whenever the numbers of this model change for the same weights.
VERSION = 1
# Part of every stored conversion's name: raise it whenever the conversion changes any number.
CONVERTER_VERSION = 1
# One block, see docs/decisions/aisfx.md.
DEFAULT_HOP_S = EMB_BLOCK_LENGTH * SPEC_HOP_LENGTH / SAMPLE_RATE
PRECISIONS = ("auto", "fp32", "int8")

_log = logging.getLogger(__name__)


class AisfxModel:
    """aisfx, loaded: front end and network."""

    default_hop_s = DEFAULT_HOP_S
    mixes_sounds = True

    def __init__(self, identity: ModelIdentity, network: OnnxNetwork) -> None:
        self.identity = identity
        self._network = network

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, 512) float32 for windows (n, 103,424); see `embedindex.models.base.Model`."""
        size = self._network.batch
        parts = [self.compute(self.prepare(windows[start : start + size])) for start in range(0, len(windows), size)]
        return np.concatenate(parts) if parts else np.zeros((0, DIMENSION), np.float32)

    def prepare(self, windows: Float32Array) -> Float32Array:
        """Return the network's inputs; see `embedindex.models.base.TwoStepModel`."""
        return spectrograms(windows)

    def compute(self, inputs: Float32Array) -> Float32Array:
        """Return the vectors (n, 512) for inputs; see `embedindex.models.base.TwoStepModel`."""
        return self._network.cells(inputs)


def load(request: ModelRequest) -> AisfxModel:
    """Return the model; its weights are fetched where they are not here.

    Precision ``"auto"`` is 8-bit where `prepare` has found that to agree on this kind of processor, else float32.

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
    threads = max(1, request.threads)
    integer = _integer_model(weights, request.precision, threads)
    model = integer or float_model(weights)
    if request.device == "cuda" and integer is None:
        network = cuda_network(_subject(weights), model, threads)
    else:  # the CUDA provider has no 8-bit convolutions: those stay on the processor
        network = OnnxNetwork(model.content, model.sha256, threads)
    return AisfxModel(_identity(weights, integer), network)


def prepare(
    weights: WeightsFile, *, threads: int = 1, progress: Report | None = None, advance: Advance = lambda _: None
) -> str:
    """Convert `weights` and choose their precision, unless that was done before; return the decision in a sentence.

    `progress` is told in words what is being done, `advance` which share of it is done, from 0 to 1.

    Raises:
        WeightsError: the weights cannot be used.
    """
    float_model(weights)
    return str(make_selection(_subject(weights), threads, progress or _log.info, advance).facts["message"])


def _integer_model(weights: WeightsFile, precision: str, threads: int) -> Converted | None:
    """Return the 8-bit model when it was asked for, or prepared and chosen; None for float32."""
    subject = _subject(weights)
    if precision == "int8":
        return make_selection(subject, threads, _log.info)
    stored = stored_selection(subject.key) if precision == "auto" else None
    return stored if stored is not None and stored.facts.get("chosen") == "int8" else None


def _subject(weights: WeightsFile) -> Subject:
    return Subject(
        key=f"aisfx-{weights.sha256[:20]}-v{CONVERTER_VERSION}",
        net=lambda: read_network(weights),
        spectrograms=spectrograms,
        reduce=lambda cells: cells,
        sample_rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        batch=CPU_BATCH,
        tiled=False,  # it gains nothing where several windows share a call
    )


def _identity(weights: WeightsFile, integer: Converted | None) -> ModelIdentity:
    parameters: dict[str, ParameterValue] = {"version": VERSION, **precision_parameters(integer)}
    return ModelIdentity(
        name="aisfx",
        sample_rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        dimension=DIMENSION,
        weights_sha256=weights.sha256,
        level="peak",
        filling="tile",
        parameters=parameters,
    )


def read_network(weights: WeightsFile) -> ConvNet:
    """Return the network in `weights`.

    Raises:
        WeightsError: the file cannot be read, has changed, or is not aisfx's checkpoint.
    """
    return to_convnet(read_checkpoint(weights.path, weights.sha256, "embedding_net."), weights.path)


def float_model(weights: WeightsFile) -> Converted:
    """Return the float32 model of `weights`, from the models folder or converted now.

    Raises:
        WeightsError: the weights cannot be used; see `read_network`.
    """
    key = f"aisfx-{weights.sha256[:20]}-v{CONVERTER_VERSION}-fp32"
    facts = {"weights_sha256": weights.sha256, "precision": "fp32"}
    return read_converted(key) or store_converted(key, build(read_network(weights)), facts)
