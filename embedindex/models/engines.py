"""What computes a network: ONNX Runtime (the default), TensorFlow through Keras 3, or the official package itself.

OpenVINO has a module of its own, `embedindex.models.openvino_network`.

Conventions: a network takes spectrograms (n, rows, columns) float32 and returns cells (n, length) float32. The official
package has its own front end, so it takes windows of samples instead. Each says how many windows it likes at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias, Union

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import ChecksumError, DeviceError, EngineMissingError, ModelError, UsageError
from embedindex.models.convnet import ConvNet

ENGINES = ("onnxruntime", "openvino", "tensorflow", "openl3")
# The cheaper arithmetic of each engine; the others compute in float32 only.
CHEAPER = {"onnxruntime": "int8", "openvino": "bf16"}
# What to do without one, for messages: commands that search have the index's and no such option.
OTHER_ENGINE = "scan a new index, or embed, with --engine onnxruntime"
# Windows in one call. More than that gain nothing on a processor, and cost memory.
CPU_BATCH = 8
# What computes a network, as ONNX Runtime names it, with options or without.
Provider: TypeAlias = Union[str, tuple[str, Mapping[str, str]]]  # noqa: UP007 - evaluated on 3.10
CPU_PROVIDERS: tuple[Provider, ...] = ("CPUExecutionProvider",)

_log = logging.getLogger(__name__)


def choose_engine(name: str) -> str:
    """Return the engine that `name` stands for; ``"auto"`` is ONNX Runtime.

    Raises:
        UsageError: there is no engine of that name.
    """
    if name == "auto":
        return "onnxruntime"
    if name not in ENGINES:
        raise UsageError(f"there is no engine {name!r}; the engines are: auto, {', '.join(ENGINES)}")
    return name


class OnnxNetwork:
    """An ONNX model in ONNX Runtime.

    The session is made when it is first needed: who only asks which model this is, or lets another process compute it,
    has no use for one.

    Attributes:
        batch: windows in one call.
    """

    def __init__(
        self,
        content: bytes,
        sha256: str,
        threads: int,
        *,
        batch: int = CPU_BATCH,
        providers: Sequence[Provider] = CPU_PROVIDERS,
    ) -> None:
        """Take a model as bytes: a path would let the file change after its hash was checked, or name other files.

        Args:
            content: the model.
            sha256: SHA-256 (hex) it must have.
            threads: threads of one call.
            batch: windows in one call.
            providers: what computes it, by ONNX Runtime's names; the first must be there.

        Raises:
            ChecksumError: the bytes are others.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ChecksumError(f"a converted model has SHA-256 {found}, not {sha256}; delete it and try again")
        self._content = content
        self._threads = threads
        self._providers = providers
        self.batch = batch

    @cached_property
    def _session(self) -> Any:
        """The session.

        Raises:
            DeviceError: the first provider cannot be used.
            ModelError: ONNX Runtime cannot load the model.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, self._threads)
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # as fast without, and a tenth less memory
        options.log_severity_level = 3
        # Waiting threads sleep: the front end and the decoders need the processor between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        first = self._providers[0] if isinstance(self._providers[0], str) else self._providers[0][0]
        if first == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
                onnxruntime.preload_dlls()  # of CUDA and cuDNN, where they were installed by pip
        try:
            session = onnxruntime.InferenceSession(self._content, options, providers=list(self._providers))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load a converted model ({error})") from error
        if first not in session.get_providers():
            raise DeviceError(
                f"ONNX Runtime {onnxruntime.__version__} cannot use its {first}: the libraries of CUDA and cuDNN that "
                "it needs are not there, or not of its version"
            )
        self._content = b""
        release_freed_memory()
        return session

    def cells(self, spectrograms: Float32Array) -> Float32Array:
        """Return (n, length) float32 for spectrograms (n, rows, columns) float32."""
        return np.asarray(self._session.run(["cells"], {"spectrograms": spectrograms})[0], np.float32)

    def outputs(self, spectrograms: Float32Array, names: list[str]) -> list[Float32Array]:
        """Return the outputs of those names, for a model that has more than its cells."""
        return [np.asarray(item) for item in self._session.run(names, {"spectrograms": spectrograms})]


def not_installed(engine: str, remedy: str) -> str:
    """Return what to say where an engine is missing, and how to install it."""
    return f"the engine {engine} is not installed; {remedy}; or {OTHER_ENGINE}"


def release_freed_memory() -> None:
    """Give back to the system what the C library keeps of freed memory, where it can: 100 MB after loading a network.

    It keeps what lies below something still in use; what a session needs while it is made, it never needs again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's, not musl's
    if trim is not None:
        trim(0)


class KerasNetwork:
    """The same weights in Keras 3 on TensorFlow, float32. Built when it is first needed."""

    batch = 32

    def __init__(self, net: ConvNet, threads: int, device: str = "cpu") -> None:
        """Take a network.

        Args:
            net: the network.
            threads: threads of one call.
            device: ``"cpu"`` or ``"cuda"``.

        Raises:
            EngineMissingError: TensorFlow is not installed.
        """
        if find_spec("tensorflow") is None:
            raise EngineMissingError(not_installed("tensorflow", "pip install 'embedindex[tensorflow]'"))
        self._net = net
        self._threads = threads
        self._device = device

    @cached_property
    def _model(self) -> Any:
        """The network.

        Raises:
            DeviceError: TensorFlow sees no such device.
        """
        import tensorflow

        config = tensorflow.config
        devices = config.list_physical_devices("GPU")
        if self._device == "cuda" and not devices:
            raise DeviceError(
                "TensorFlow sees no NVIDIA device; its libraries come with: pip install 'tensorflow[and-cuda]'"
            )
        try:
            config.threading.set_intra_op_parallelism_threads(max(1, self._threads))
            if self._device == "cpu":
                config.set_visible_devices([], "GPU")
            for one in devices:
                config.experimental.set_memory_growth(one, True)  # else it takes all of the device's memory at once
            config.experimental.enable_tensor_float_32_execution(False)
        except RuntimeError:  # TensorFlow takes this once in a process; results do not depend on it
            _log.debug("TensorFlow already runs; its settings stay as they are")
        return _keras_model(self._net, tensorflow.keras)

    def cells(self, spectrograms: Float32Array) -> Float32Array:
        """Return (n, length) float32 for spectrograms (n, rows, columns) float32."""
        return np.asarray(self._model.predict_on_batch(spectrograms[..., None]), np.float32)


def _keras_model(net: ConvNet, keras: Any) -> Any:
    given = keras.Input((net.rows, net.columns, 1))
    flow = keras.layers.Rescaling(net.input_scale, net.input_shift)(given)
    loaded = []
    for layer in net.layers:
        convolution = keras.layers.Conv2D(
            len(layer.kernel), layer.kernel.shape[2:], padding="same", activation="relu" if layer.relu else None
        )
        flow = convolution(flow)
        loaded.append((convolution, [layer.kernel.transpose(2, 3, 1, 0), layer.bias]))
        if layer.pool:
            flow = keras.layers.MaxPooling2D(layer.pool)(flow)
    if net.head == "max":
        flow = keras.layers.Flatten()(keras.layers.MaxPooling2D(net.cell)(flow))
    else:
        rows, columns = flow.shape[1], flow.shape[2]
        flow = keras.layers.MaxPooling2D((1, columns))(keras.layers.AveragePooling2D((rows, 1))(flow))
        flow = keras.layers.Flatten()(flow)
    for convolution, tensors in loaded:
        convolution.set_weights(tensors)
    return keras.Model(given, flow)


class OfficialOpenl3:
    """The official ``openl3`` package, for comparison: its own front end, its own network, float32."""

    batch = 32

    def __init__(self, weights_path: str, input_repr: str, embedding_size: int, frontend: str) -> None:
        """Load the official model with any weights file in the official layout.

        Raises:
            EngineMissingError: the package is not installed.
            UsageError: it has no such front end.
        """
        if frontend == "original":
            raise UsageError(f"the openl3 package 0.4 has no front end original; {OTHER_ENGINE}")
        if find_spec("openl3") is None:
            raise EngineMissingError(
                not_installed(
                    "openl3", "pip install openl3==0.4.2 (needs Python 3.10 or earlier and an old TensorFlow)"
                )
            )
        official = import_module("openl3.models")
        self._model = official.load_audio_embedding_model_from_path(
            weights_path, input_repr, embedding_size, frontend=frontend
        )
        self._input_repr = input_repr
        self._frontend = frontend

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, embedding_size) float32 for windows (n, 48000)."""
        if self._frontend == "kapre":
            given: Any = windows[:, None].astype(np.float32)
        else:
            official = import_module("openl3.core")
            given = np.concatenate(
                [
                    official.preprocess_audio(window, 48000, hop_size=1.0, input_repr=self._input_repr, center=False)
                    for window in windows
                ]
            )
        return np.asarray(self._model.predict(given, batch_size=self.batch, verbose=0), np.float32)
