"""Reads the tensors of a PyTorch checkpoint (a zip with a pickle inside) without unpickling anything, without PyTorch.

The pickle's instructions are listed with `pickletools` and followed by a small interpreter that knows just those which
describe tensors. It builds dictionaries, tuples and numbers; it imports nothing and calls nothing. The layout of the
zip is that of ``torch.save`` since 1.6: ``ROOT/data.pkl`` and one raw little-endian file ``ROOT/data/KEY`` a storage.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import ChecksumError, WeightsFormatError, WeightsMissingError
from embedindex.errors import display_path as shown
from embedindex.models.convnet import BatchNorm, ConvLayer, ConvNet, fold_batch_norm

# Nothing in the checkpoint is larger; the whole of it has 24.9 MB.
MEMBER_LIMIT = 32_000_000

# aisfx/models/cnn2d.py: four blocks of two 3x3 convolutions without bias, each with batch normalisation and ReLU;
# 2x2 max pooling after the first three; nn.BatchNorm2d's default epsilon.
BLOCK_CHANNELS = ((1, 64), (64, 128), (128, 256), (256, 512))
POOLED_BLOCKS = 3
KERNEL_SIZE = 3
BATCH_NORM_EPSILON = 1e-5
# aisfx/inference.py: MEL_BINS, EMB_BLOCK_LENGTH.
MEL_BINS = 96
EMB_BLOCK_LENGTH = 100

# What zipfile and a malformed pickle raise: none of it may reach a user as a traceback.
_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True)
class _Name:
    """A global the pickle names; it stays a name."""

    text: str


@dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage; offset and strides in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_checkpoint(path: str, sha256: str, prefix: str = "") -> dict[str, Float32Array]:
    """Return the float32 tensors of a checkpoint whose names start with `prefix`.

    The checkpoint is a state dictionary, or a tuple that begins with one.

    Raises:
        WeightsMissingError: the file cannot be read.
        ChecksumError: its SHA-256 is not `sha256`.
        WeightsFormatError: it is not a checkpoint, or holds anything but plain tensors and numbers.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as problem:
        raise WeightsMissingError(f"{shown(path)}: the weights cannot be read ({problem.strerror})") from problem
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ChecksumError(f"{shown(path)} changed since it was checked; run 'embedindex models fetch aisfx' again")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_archive(archive, prefix)
    except _MALFORMED as problem:
        raise WeightsFormatError(
            f"{shown(path)}: not a checkpoint that can be read safely ({problem}); expected that of aisfx 0.1.2"
        ) from problem


def to_convnet(tensors: dict[str, Float32Array], path: str) -> ConvNet:
    """Return aisfx's network from its checkpoint's tensors, batch norms folded; `path` is for the message.

    PyTorch's network has time before frequency, a `ConvNet` has rows of equal frequency: the kernels are transposed.

    Raises:
        WeightsFormatError: a tensor is missing, has another shape, or is not finite.
    """

    def get(name: str, *shape: int) -> Float32Array:
        tensor = tensors.get(f"embedding_net.{name}")
        if tensor is None or tensor.shape != shape or not np.isfinite(tensor).all():
            found = "missing" if tensor is None else f"of shape {tensor.shape}, not {shape}, or not finite"
            raise WeightsFormatError(f"{shown(path)}: tensor embedding_net.{name} is {found}: not aisfx's weights")
        return tensor

    layers = []
    for number, (inputs, outputs) in enumerate(BLOCK_CHANNELS, 1):
        for half, given in ((1, inputs), (2, outputs)):
            kernel = get(f"conv_block{number}.conv{half}.weight", outputs, given, KERNEL_SIZE, KERNEL_SIZE)
            gamma, beta, mean, variance = (
                get(f"conv_block{number}.bn{half}.{part}", outputs)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            norm = BatchNorm(gamma, beta, mean, variance, BATCH_NORM_EPSILON)
            kernel = np.ascontiguousarray(kernel.transpose(0, 1, 3, 2))
            folded = fold_batch_norm(kernel, np.zeros(outputs, np.float32), norm)
            pool = (2, 2) if half == 2 and number <= POOLED_BLOCKS else None
            layers.append(ConvLayer(*folded, relu=True, pool=pool))
    return ConvNet(MEL_BINS, EMB_BLOCK_LENGTH, 1.0, 0.0, tuple(layers), "mean-max")


def _read_archive(archive: zipfile.ZipFile, prefix: str) -> dict[str, Float32Array]:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("no data.pkl in it")
    root = names[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    state = _follow(_member(archive, names[0]))
    if isinstance(state, tuple):
        state = state[0]
    if not isinstance(state, dict):
        raise ValueError("no state dictionary in it")
    return {
        name: _load(archive, root, tensor)
        for name, tensor in state.items()
        if isinstance(tensor, _Tensor) and str(name).startswith(prefix)
    }


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member's bytes, refusing one that unpacks to more than there can be."""
    if archive.getinfo(name).file_size > MEMBER_LIMIT:
        raise ValueError(f"{name} is larger than weights can be")
    return archive.read(name)


def _load(archive: zipfile.ZipFile, root: str, tensor: _Tensor) -> Float32Array:
    """Return the tensor, copied out of its storage; a view that leaves the storage is refused."""
    stored = np.frombuffer(_member(archive, f"{root}data/{tensor.storage}"), "<f4")
    if len(tensor.shape) != len(tensor.strides) or min((tensor.offset, *tensor.shape, *tensor.strides), default=0) < 0:
        raise ValueError("a tensor with impossible strides")
    if math.prod(tensor.shape) * 4 > MEMBER_LIMIT:
        raise ValueError("a tensor larger than weights can be")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if not tensor.shape or last >= len(stored):
        raise ValueError("a tensor beyond its storage")
    steps = tuple(step * stored.itemsize for step in tensor.strides)
    view = np.lib.stride_tricks.as_strided(stored[tensor.offset :], tensor.shape, steps, writeable=False)
    return np.array(view, np.float32)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> _Tensor | None:
    """Return the tensor that ``torch._utils._rebuild_tensor_v2`` would make; None unless it is float32."""
    storage, offset, shape, strides = arguments[:4]
    kind, key = storage[1], storage[2]
    if kind != _Name("torch FloatStorage"):
        return None
    return _Tensor(str(key), int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


# The calls a checkpoint may describe, and what stands for their results here. Numbers held as NumPy scalars are data
# nobody asks for: they become None.
_CALLS: dict[_Name, Callable[[tuple[Any, ...]], Any]] = {
    _Name("collections OrderedDict"): lambda _: {},
    _Name("torch._utils _rebuild_tensor_v2"): _rebuild_tensor,
    _Name("numpy.core.multiarray scalar"): lambda _: None,
    _Name("numpy dtype"): lambda _: None,
    _Name("_codecs encode"): lambda _: None,
}
_NAMES = {*_CALLS, _Name("torch FloatStorage"), _Name("torch LongStorage")}
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BINUNICODE", "BININT", "BININT1", "BININT2")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _follow(content: bytes) -> Any:
    """Return what a pickle describes, with `_Tensor` and `_Name` for what it would import or call.

    Raises:
        ValueError: it has an instruction, or names a global, that a checkpoint has no use for.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "PROTO":
            continue
        if name == "STOP":
            return stack.pop()
        if name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int):
            memo[argument] = stack[-1]
        else:
            _step(name, argument, stack, memo)
    raise ValueError("its pickle has no end")


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Follow one instruction; every branch is one that `torch.save` writes."""
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name in _TUPLES:
        count = _TUPLES[name]
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(items)
    elif name == "TUPLE":
        stack.append(tuple(_pop_to_mark(stack)))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif name == "SETITEMS":
        items = tuple(_pop_to_mark(stack))
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name == "GLOBAL":
        stack.append(_allowed(argument))
    elif name == "REDUCE":
        arguments, call = stack.pop(), stack.pop()
        stack.append(_CALLS[call](arguments))
    elif name == "BUILD":
        stack.pop()  # attributes: of a dictionary its metadata, of a dtype its byte order
    elif name != "BINPERSID":  # the tuple that describes a storage stays on the stack and stands for it
        raise ValueError(f"its pickle has the instruction {name}, which describes no tensor")


def _allowed(text: str) -> _Name:
    if _Name(text) not in _NAMES:
        raise ValueError(f"its pickle names {text}, which describes no tensor")
    return _Name(text)


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    """Remove and return what was pushed since the last mark."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]
