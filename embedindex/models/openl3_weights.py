"""The official OpenL3 weight files: HDF5, read by order and shape with h5py, checked, made into a `ConvNet`.

Layer names differ between the files that exist (numbered from 0 or 1, with gaps), so they decide nothing; Keras itself
loads these files in the order of the attribute ``layer_names``, and so does this. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import ChecksumError, WeightsFormatError, WeightsMissingError, display_path
from embedindex.models.convnet import BatchNorm, ConvLayer, ConvNet, fold_batch_norm

if TYPE_CHECKING:
    import h5py

# Keras' BatchNormalization default, which openl3/models.py leaves as it is.
BATCH_NORM_EPSILON = 1e-3
# (in, out) channels of the eight 3x3 convolutions, openl3/models.py:318-382.
CHANNELS = ((1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512))
KERNEL_SIZE = 3
# Layers followed by a 2x2 max pooling.
POOLED_LAYERS = (1, 3, 5)
# (rows, columns) of the network's input, and the max pooling at its end that leaves 4 x 3 cells (models.py:90-103).
INPUT_SIZES = {"linear": (257, 197), "mel128": (128, 199), "mel256": (256, 199)}
CELL_SIZES = {"linear": (8, 8), "mel128": (4, 8), "mel256": (8, 8)}

_CONV_ROLES = ("kernel", "bias")
_NORM_ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
# Front-end layers of the files of version 0.2 (kapre 0.1): such a file was made for another front end.
_OLD_FRONT_END = ("real_kernels", "imag_kernels", "Variable", "freq2mel")


@dataclass(frozen=True)
class Openl3Weights:
    """The tensors of an official file, in the file's own layout (kernels are (rows, columns, in, out)).

    Attributes:
        sha256: SHA-256 (hex) of the file.
        input_norm: batch normalisation of the input (one channel).
        kernels: eight of them.
        biases: eight of them.
        norms: batch normalisations after the first seven convolutions.
    """

    sha256: str
    input_norm: BatchNorm
    kernels: tuple[Float32Array, ...]
    biases: tuple[Float32Array, ...]
    norms: tuple[BatchNorm, ...]


def read_weights(path: str, expected_sha256: str | None = None) -> Openl3Weights:
    """Return the tensors of an official ``.h5`` file, version 0.4 layout.

    Args:
        path: the file. Its bytes are read once, hashed, and only then looked into.
        expected_sha256: SHA-256 (hex) it must have, where that was established before.

    Raises:
        WeightsMissingError: the file cannot be read.
        ChecksumError: its bytes are not the expected ones.
        WeightsFormatError: it is not such a file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise WeightsMissingError(
            f"{display_path(path)}: cannot be read ({error.strerror or error}); check the path given for the weights"
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if expected_sha256 not in (None, sha256):
        raise ChecksumError(
            f"{display_path(path)} changed while it was in use: its SHA-256 is {sha256}, it was {expected_sha256}; "
            "see what writes to it and try again"
        )
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file5:
            layers = _read_layers(file5, path)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise _format_error(path, f"not a readable HDF5 weights file ({error})") from error
    return _check_layers(layers, path, sha256)


def to_convnet(weights: Openl3Weights, input_repr: str) -> ConvNet:
    """Return the network that ends in the 4 x 3 x 512 cells of the 6144-d embedding, batch norms folded."""
    layers = []
    for number, (kernel, bias) in enumerate(zip(weights.kernels, weights.biases, strict=True)):
        kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        last = number == len(CHANNELS) - 1
        if not last:
            kernel, bias = fold_batch_norm(kernel, bias, weights.norms[number])
        pool = (2, 2) if number in POOLED_LAYERS else None
        layers.append(ConvLayer(kernel, bias, relu=not last, pool=pool))
    scale, shift = weights.input_norm.scale_and_shift()
    rows, columns = INPUT_SIZES[input_repr]
    return ConvNet(rows, columns, float(scale[0]), float(shift[0]), tuple(layers), "max", CELL_SIZES[input_repr])


def _format_error(path: str, reason: str) -> WeightsFormatError:
    return WeightsFormatError(
        f"{display_path(path)}: {reason}; expected an OpenL3 0.4 audio weights file like openl3_audio_mel256_music.h5"
    )


def _read_layers(root: h5py.File, path: str) -> list[tuple[str, dict[str, Float32Array]]]:
    """Return (name, tensors by role) of the layers that have weights, in the file's order."""
    group: Any = root["model_weights"] if "model_weights" in root and "layer_names" not in root.attrs else root
    if "layer_names" not in group.attrs:
        raise _format_error(path, "it has no attribute layer_names")
    layers = []
    for name in map(_text, group.attrs["layer_names"]):
        weight_names = [_text(item) for item in group[name].attrs["weight_names"]]
        if not weight_names:
            continue
        roles = [item.rsplit("/", 1)[-1].split(":")[0] for item in weight_names]
        if "spectrogram" in name or any(role.startswith(_OLD_FRONT_END) for role in roles):
            raise _format_error(path, f"layer {name} is the front end of a version before 0.4, which this is not for")
        tensors = {role: np.asarray(group[name][item][()]) for role, item in zip(roles, weight_names, strict=True)}
        layers.append((name, tensors))
    return layers


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_layers(layers: list[tuple[str, dict[str, Float32Array]]], path: str, sha256: str) -> Openl3Weights:
    """Return the tensors when order, roles and shapes are those of the official network."""
    plan: list[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]] = [(_NORM_ROLES, ((1,),) * 4)]
    for number, (inputs, outputs) in enumerate(CHANNELS):
        plan.append((_CONV_ROLES, ((KERNEL_SIZE, KERNEL_SIZE, inputs, outputs), (outputs,))))
        if number < len(CHANNELS) - 1:
            plan.append((_NORM_ROLES, ((outputs,),) * 4))
    if len(layers) != len(plan):
        raise _format_error(path, f"it has {len(layers)} layers with weights, the network has {len(plan)}")
    checked = []
    for (name, tensors), (roles, shapes) in zip(layers, plan, strict=True):
        found = {role: tensor.shape for role, tensor in tensors.items()}
        wanted = dict(zip(roles, shapes, strict=True))
        if found != wanted:
            raise _format_error(path, f"layer {name} has {found}, the network needs {wanted}")
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise _format_error(path, f"layer {name} holds values that are not finite")
        checked.append({role: np.ascontiguousarray(tensor, np.float32) for role, tensor in tensors.items()})
    norms = [
        BatchNorm(item["gamma"], item["beta"], item["moving_mean"], item["moving_variance"], BATCH_NORM_EPSILON)
        for item in checked
        if "gamma" in item
    ]
    convolutions = [item for item in checked if "kernel" in item]
    return Openl3Weights(
        sha256,
        norms[0],
        tuple(item["kernel"] for item in convolutions),
        tuple(item["bias"] for item in convolutions),
        tuple(norms[1:]),
    )
