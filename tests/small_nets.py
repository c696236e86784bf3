"""Small networks of the kind that is quantised, and spectrograms for them."""

from __future__ import annotations

import hashlib

import numpy as np

from embedindex.models.convnet import ConvLayer, ConvNet
from embedindex.models.engines import OnnxNetwork
from tests.openl3_oracle import Array


def small_net(seed: int = 0, *, spread: float = 1.0) -> ConvNet:
    """Return a net of five small layers; `spread` makes the scales of its channels uneven."""
    rng = np.random.default_rng(seed)
    layers = []
    for number, (inputs, outputs) in enumerate([(1, 16), (16, 16), (16, 24), (24, 24), (24, 32)]):
        kernel = rng.standard_normal((outputs, inputs, 3, 3)) * (2 / 9 / inputs) ** 0.5
        kernel *= np.exp(rng.uniform(-spread, spread, (outputs, 1, 1, 1)))
        bias = 0.1 * rng.standard_normal(outputs)
        pool = (2, 2) if number in (1, 3) else None
        layers.append(ConvLayer(kernel.astype(np.float32), bias.astype(np.float32), number < 4, pool))
    return ConvNet(32, 24, 0.05, 2.0, tuple(layers), "max", (4, 3))


def levels(count: int, seed: int) -> Array:
    """Return smooth random spectrograms in [-80, 0] dB."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 8, 6))
    fine = np.kron(coarse, np.ones((1, 4, 4))) + 0.2 * rng.random((count, 32, 24))
    return (-80 * np.clip(fine, 0, 1)).astype(np.float32)


def onnx(content: bytes) -> OnnxNetwork:
    """Return the ONNX model, loaded."""
    return OnnxNetwork(content, hashlib.sha256(content).hexdigest(), 1)


def relative(found: Array, exact: Array) -> float:
    """Return the relative distance of `found` to `exact`."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
