"""A stack of convolutions as plain arrays: what a weights file becomes before it is quantised or written as ONNX.

Conventions: kernels are (out, in, rows, columns) float32, cross-correlated, stride 1, zero-padded to the same size;
spectrograms are (n, rows, columns) float32, rows = frequency. Batch normalisations are folded into the convolutions
before them, which is exact; the one on the input stays a scale and a shift, because the padding comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array, Float64Array


@dataclass(frozen=True)
class BatchNorm:
    """Inference statistics of a batch normalisation, (channels,) each.

    Attributes:
        gamma: scale after normalising.
        beta: shift after scaling.
        mean: moving mean.
        variance: moving variance.
        epsilon: added to the variance.
    """

    gamma: Float32Array
    beta: Float32Array
    mean: Float32Array
    variance: Float32Array
    epsilon: float

    def scale_and_shift(self) -> tuple[Float64Array, Float64Array]:
        """Return (scale, shift), float64, with ``normalised = scale * x + shift``."""
        scale = self.gamma.astype(np.float64) / np.sqrt(self.variance.astype(np.float64) + self.epsilon)
        return scale, self.beta - self.mean * scale


@dataclass(frozen=True)
class ConvLayer:
    """One convolution with what follows it.

    Attributes:
        kernel: (out, in, rows, columns) float32.
        bias: (out,) float32.
        relu: True when a ReLU follows.
        pool: (rows, columns) of the max pooling after that (stride = size, incomplete cells dropped), or None.
    """

    kernel: Float32Array
    bias: Float32Array
    relu: bool = True
    pool: tuple[int, int] | None = None


@dataclass(frozen=True)
class ConvNet:
    """A stack of convolutions between a spectrogram and the cells of an embedding.

    Attributes:
        rows: height of the spectrogram.
        columns: width of the spectrogram.
        input_scale: the spectrogram is multiplied by this…
        input_shift: …and this is added, before the first convolution.
        layers: the convolutions, in order.
        head: ``"max"``: max pooling over `cell`; ``"mean-max"``: mean over rows, then maximum over columns.
        cell: (rows, columns) of the last max pooling; for ``"mean-max"`` not used.
    """

    rows: int
    columns: int
    input_scale: float
    input_shift: float
    layers: tuple[ConvLayer, ...]
    head: Literal["max", "mean-max"] = "max"
    cell: tuple[int, int] = (1, 1)

    def with_layers(self, layers: Sequence[ConvLayer]) -> ConvNet:
        """Return the same net with other `layers`."""
        return replace(self, layers=tuple(layers))


def fold_batch_norm(kernel: Float32Array, bias: Float32Array, norm: BatchNorm) -> tuple[Float32Array, Float32Array]:
    """Return (kernel, bias) of the convolution that does `norm` as well; computed in float64."""
    scale, shift = norm.scale_and_shift()
    folded = kernel.astype(np.float64) * scale[:, None, None, None]
    return folded.astype(np.float32), (bias * scale + shift).astype(np.float32)


def run_reference(net: ConvNet, spectrograms: npt.NDArray[np.floating]) -> Float64Array:
    """Return the net's cells, (n, cell rows * cell columns * channels) float64, the slow and plain way.

    Sums of shifted products in float64: the reference that engines are tested against, too slow for anything else.
    """
    x = spectrograms.astype(np.float64)[..., None] * net.input_scale + net.input_shift  # (n, rows, columns, channels)
    for layer in net.layers:
        x = _convolve(x, layer)
        if layer.relu:
            x = np.maximum(x, 0.0)
        if layer.pool:
            x = _max_pool(x, layer.pool)
    if net.head == "mean-max":
        return np.asarray(x.mean(axis=1).max(axis=1), np.float64)
    return np.asarray(_max_pool(x, net.cell).reshape(len(x), -1), np.float64)


def _convolve(x: Float64Array, layer: ConvLayer) -> Float64Array:
    _, _, rows, columns = layer.kernel.shape
    padded = np.pad(x, ((0, 0), ((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2), (0, 0)))
    out: Float64Array = np.tile(layer.bias.astype(np.float64), (*x.shape[:3], 1))
    for row in range(rows):
        for column in range(columns):
            shifted = padded[:, row : row + x.shape[1], column : column + x.shape[2]]
            out += shifted @ layer.kernel[:, :, row, column].T.astype(np.float64)
    return out


def _max_pool(x: Float64Array, size: tuple[int, int]) -> Float64Array:
    rows, columns = x.shape[1] // size[0], x.shape[2] // size[1]
    cells = x[:, : rows * size[0], : columns * size[1]]
    cells = cells.reshape(len(x), rows, size[0], columns, size[1], x.shape[3])
    return np.asarray(cells.max(axis=(2, 4)), np.float64)
