"""The model ``openl3``: six networks, two sizes, three front ends, behind the interface that an index uses.

Conventions: options come as text pairs (``input_repr``, ``content_type``, ``embedding_size``, ``frontend``); windows
are (n, 48000) at 48 kHz. An embedding of 512 is the maximum over the twelve cells of the one of 6144.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import UsageError
from embedindex.models.arithmetic import cuda_network
from embedindex.models.base import ModelIdentity, ModelRequest, ParameterValue
from embedindex.models.cache import WeightsFile
from embedindex.models.converted import Converted
from embedindex.models.engines import CHEAPER, KerasNetwork, OfficialOpenl3, OnnxNetwork, choose_engine
from embedindex.models.openl3_frontend import (
    FRONT_ENDS,
    INPUT_REPRS,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    FrontEnd,
    spectrograms,
)
from embedindex.models.openl3_onnx import float_model, model_key, read_network
from embedindex.models.openvino_network import (
    OpenvinoNetwork,
    bfloat_ladder,
    processor_has_bfloat,
    require_openvino,
)
from embedindex.models.quantise import Advance, Ladder, Report
from embedindex.models.selection import Subject, make_selection, precision_parameters, stored_selection

CONTENT_TYPES = ("music", "env")
EMBEDDING_SIZES = (512, 6144)
CELLS = 12
PRECISIONS = ("auto", "fp32", "int8", "bf16")
# Raised whenever the numbers of this model change for the same weights and options.
VERSION = 1
DEFAULT_HOP_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Openl3Options:
    """Which of the OpenL3 models.

    Attributes:
        input_repr: ``"linear"``, ``"mel128"`` or ``"mel256"``.
        content_type: what the network was trained on, ``"music"`` or ``"env"``.
        embedding_size: 512 or 6144.
        frontend: ``"kapre"`` or ``"librosa"`` (version 0.4's), or ``"original"`` (version 0.3's).
    """

    input_repr: str = "mel256"
    content_type: str = "music"
    embedding_size: int = 512
    frontend: FrontEnd = "kapre"


def parse_options(pairs: tuple[tuple[str, str], ...]) -> Openl3Options:
    """Return the options that text pairs stand for; what is left out has its default.

    Raises:
        UsageError: an unknown option or value; the message names the allowed ones.
    """
    allowed: dict[str, tuple[str, ...]] = {
        "input_repr": INPUT_REPRS,
        "content_type": CONTENT_TYPES,
        "embedding_size": tuple(map(str, EMBEDDING_SIZES)),
        "frontend": FRONT_ENDS,
    }
    given = dict(pairs)
    for key, value in given.items():
        if key not in allowed:
            raise UsageError(f"openl3 has no option {key!r}; its options are: {', '.join(allowed)}")
        if value not in allowed[key]:
            raise UsageError(f"openl3:{key}={value} does not exist; {key} is one of: {', '.join(allowed[key])}")
    defaults = Openl3Options()
    return Openl3Options(
        given.get("input_repr", defaults.input_repr),
        given.get("content_type", defaults.content_type),
        int(given.get("embedding_size", defaults.embedding_size)),
        cast("FrontEnd", given.get("frontend", defaults.frontend)),
    )


# Windows in one call of the network on a processor: one keeps it busy, and each further one takes 50 MB and more.
CPU_BATCH = 1


class Openl3Model:
    """OpenL3, loaded: front end and network, or the official package doing both."""

    default_hop_s = DEFAULT_HOP_S

    def __init__(
        self,
        options: Openl3Options,
        identity: ModelIdentity,
        engine: OnnxNetwork | OpenvinoNetwork | KerasNetwork | OfficialOpenl3,
        threads: int,
    ) -> None:
        self.options = options
        self.identity = identity
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads, "openl3-frontend") if threads > 1 else None

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, dimension) float32 for windows (n, 48000); see `embedindex.models.base.Model`.

        Windows in float64 are used as such by the librosa front end.
        """
        parts = [
            self.compute(self.prepare(windows[start : start + self._engine.batch]))
            for start in range(0, len(windows), self._engine.batch)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.identity.dimension), np.float32)

    def prepare(self, windows: Float32Array) -> Float32Array:
        """Return the network's inputs; see `embedindex.models.base.TwoStepModel`."""
        if isinstance(self._engine, OfficialOpenl3):
            return windows
        return spectrograms(windows, self.options.input_repr, self.options.frontend, pool=self._pool)

    def compute(self, inputs: Float32Array) -> Float32Array:
        """Return the vectors (n, dimension) for inputs; see `embedindex.models.base.TwoStepModel`."""
        if isinstance(self._engine, OfficialOpenl3):
            return self._engine.embed(inputs)
        return reduce_cells(self._engine.cells(inputs), self.options.embedding_size)


def reduce_cells(cells: Float32Array, embedding_size: int) -> Float32Array:
    """Return embeddings (n, embedding_size) from the network's cells (n, 6144)."""
    if embedding_size == cells.shape[1]:
        return cells
    return np.asarray(cells.reshape(len(cells), CELLS, -1).max(axis=1))


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        precision: what ``auto`` stands for with these weights on this machine.
        message: the decision in a sentence for the user.
    """

    precision: str
    message: str


def prepare(
    weights: WeightsFile,
    options: Openl3Options | None = None,
    *,
    threads: int = 1,
    progress: Report | None = None,
    advance: Advance = lambda _: None,
) -> Prepared:
    """Convert `weights` and choose their precision, unless that was done before; run when a model is installed.

    Args:
        weights: the weights, checked.
        options: which model they are for; of the sizes and contents, none matters here.
        threads: threads to use.
        progress: told in words what is being done.
        advance: told which share of it is done, from 0 to 1.

    Raises:
        WeightsError: the weights cannot be used.
    """
    options = options or Openl3Options()
    float_model(weights, options.input_repr)
    facts = make_selection(_subject(weights, options), threads, progress or _log.info, advance).facts
    return Prepared(str(facts["chosen"]), str(facts["message"]))


def load(request: ModelRequest, progress: Report | None = None) -> Openl3Model:
    """Return the OpenL3 model that `request` asks for; its weights are fetched where they are not here.

    Args:
        request: what was asked for.
        progress: told in words what takes long: choosing the precision, once for each weights file.

    Raises:
        UsageError: an option, precision or engine that does not exist, or cannot go together.
        WeightsError: the weights cannot be had or used.
        EngineMissingError: the engine is not installed.
    """
    from embedindex.models.weights import find_openl3

    options = parse_options(request.options)
    engine = choose_engine(request.engine)
    if request.precision not in PRECISIONS:
        raise UsageError(f"there is no precision {request.precision!r}; it is one of: {', '.join(PRECISIONS)}")
    _check_precision(engine, request.precision)
    weights = find_openl3(options.input_repr, options.content_type, weights=request.weights)
    threads = max(1, request.threads)
    if engine == "openl3":
        if request.device != "cpu":
            raise UsageError("the engine openl3 finds its devices itself; leave out --device")
        official = OfficialOpenl3(weights.path, options.input_repr, options.embedding_size, options.frontend)
        return Openl3Model(options, _identity(options, weights, None), official, threads)
    if engine == "tensorflow":
        keras = KerasNetwork(read_network(weights, options.input_repr), threads, request.device)
        return Openl3Model(options, _identity(options, weights, None), keras, threads)
    if engine == "openvino":
        return _openvino_model(weights, options, request, progress or _log.info)
    integer = None if request.precision == "fp32" else _cheaper_model(weights, options, request, progress or _log.info)
    on_device = request.device == "cuda" and integer is None
    model = integer or float_model(weights, options.input_repr, tiled=not on_device)
    if on_device:
        network = cuda_network(_subject(weights, options), model, threads)
    else:  # the CUDA provider has no 8-bit convolutions: those stay on the processor
        network = OnnxNetwork(model.content, model.sha256, threads, batch=CPU_BATCH)
    return Openl3Model(options, _identity(options, weights, integer), network, threads)


def _check_precision(engine: str, precision: str) -> None:
    """Refuse a precision that the engine does not compute in."""
    if precision in ("auto", "fp32", CHEAPER.get(engine)):
        return
    (other,) = (name for name, cheaper in CHEAPER.items() if cheaper == precision)
    has = f"fp32 or {CHEAPER[engine]}" if engine in CHEAPER else "fp32 only"
    raise UsageError(f"the engine {engine} computes in {has}; {precision} needs --engine {other}")


def _openvino_model(weights: WeightsFile, options: Openl3Options, request: ModelRequest, report: Report) -> Openl3Model:
    require_openvino()
    if request.device != "cpu":
        raise UsageError("the engine openvino computes on the processor; leave out --device")
    threads = max(1, request.threads)
    selected = None
    if request.precision == "bf16" and not processor_has_bfloat():
        raise UsageError("this processor has no arithmetic for bf16; leave out --precision and --engine")
    if request.precision != "fp32" and processor_has_bfloat():
        selected = _cheaper_model(weights, options, request, report, bfloat_ladder())
    model = selected or float_model(weights, options.input_repr, tiled=False)
    net = None if selected is None else read_network(weights, options.input_repr)
    network = OpenvinoNetwork(model.content, model.sha256, threads, net=net)
    return Openl3Model(options, _identity(options, weights, selected), network, threads)


def _cheaper_model(
    weights: WeightsFile, options: Openl3Options, request: ModelRequest, report: Report, ladder: Ladder | None = None
) -> Converted | None:
    """Return the model of a ladder of variants when it was asked for, or was chosen; None for float32."""
    subject = _subject(weights, options)
    precision = "int8" if ladder is None else ladder.precision
    selection = stored_selection(subject.key, precision)
    if selection is None:
        selection = make_selection(subject, max(1, request.threads), report, ladder=ladder)
        report(str(selection.facts["message"]))
    return selection if precision in (request.precision, selection.facts["chosen"]) else None


def _subject(weights: WeightsFile, options: Openl3Options) -> Subject:
    return Subject(
        key=model_key(weights, options.input_repr, options.frontend),
        net=lambda: read_network(weights, options.input_repr),
        spectrograms=lambda windows: spectrograms(windows, options.input_repr, options.frontend),
        reduce=lambda cells: reduce_cells(cells, EMBEDDING_SIZES[0]),
        sample_rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        batch=CPU_BATCH,
        tiled=True,
    )


def _identity(options: Openl3Options, weights: WeightsFile, selected: Converted | None) -> ModelIdentity:
    parameters: dict[str, ParameterValue] = {
        "input_repr": options.input_repr,
        "content_type": options.content_type,
        "embedding_size": options.embedding_size,
        "frontend": options.frontend,
        "version": VERSION,
        **precision_parameters(selected),
    }
    return ModelIdentity(
        name="openl3",
        sample_rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        dimension=options.embedding_size,
        weights_sha256=weights.sha256,
        level="peak",
        filling="tile",
        parameters=parameters,
    )
