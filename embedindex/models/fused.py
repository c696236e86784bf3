"""Two models as one: a network and the built-in descriptors, ``NAME+spectral``. One decode, both vectors side by side.

Conventions: windows, hop and rate are the network's. A window that is not full of sound has zeros behind it; the
network gets the sound filled up as its own identity says, the descriptors with zeros. The descriptors are those of the
window's first second, resampled to their own rate. What each half counts for is in `ModelIdentity.blocks`. Measured in
docs/decisions/fused.md.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import UsageError
from embedindex.models.base import Block, Model, ModelIdentity, TwoStepModel
from embedindex.windows import fill

# Raised whenever the numbers of a fused model change for the same two models.
VERSION = 1
SEPARATOR = "+"
SECOND = "spectral"
# How much of the score is the network's.
NETWORK_SHARE = 0.7
# Samples given to the resampler beyond those it needs, so that its filter does not meet the end of the sound.
MARGIN = 512


class FusedModel:
    """A network and the descriptors, loaded."""

    def __init__(self, network: Model, descriptors: Model) -> None:
        self.identity = _identity(network.identity, descriptors.identity)
        # So that the descriptors hear all of a sound.
        self.default_hop_s = min(network.default_hop_s, descriptors.identity.window_s)
        self._network = network
        self._descriptors = descriptors

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, dimension) float32 for windows (n, window_samples); see `embedindex.models.base.Model`."""
        return np.concatenate((self._network.embed(self._filled(windows)), self._described(windows)), axis=1)

    def _filled(self, windows: Float32Array) -> Float32Array:
        """Return the windows as the network wants them."""
        return windows if self._network.identity.filling == "zero" else _refilled(windows)

    def _described(self, windows: Float32Array) -> Float32Array:
        """Return the descriptors of windows, (n, their dimension) float32."""
        first, second = self._network.identity, self._descriptors.identity
        heard = _resampled(windows, first.sample_rate, second.sample_rate, second.window_samples)
        return self._descriptors.embed(heard)


class TwoStepFusedModel(FusedModel):
    """The same where a device can compute the network (`embedindex.models.base.TwoStepModel`)."""

    def __init__(self, network: TwoStepModel, descriptors: Model) -> None:
        super().__init__(network, descriptors)
        self._two_step = network

    def prepare(self, windows: Float32Array) -> Float32Array:
        """Return the network's inputs with the descriptors behind them, (n, numbers) float32."""
        inputs = self._two_step.prepare(self._filled(windows))
        return np.concatenate((inputs.reshape(len(inputs), -1), self._described(windows)), axis=1)

    def compute(self, inputs: Float32Array) -> Float32Array:
        """Return the vectors (n, dimension) for what `prepare` gave, in one call of the network."""
        descriptors = self._descriptors.identity.dimension
        first = inputs[:, :-descriptors].reshape(len(inputs), *self._shape)
        return np.concatenate((self._two_step.compute(first), inputs[:, -descriptors:]), axis=1)

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """What the network's inputs for one window look like."""
        return self._two_step.prepare(np.zeros((1, self.identity.window_samples), np.float32)).shape[1:]


def fuse(network: Model, descriptors: Model) -> FusedModel:
    """Return the two as one model.

    Raises:
        UsageError: the windows of the first are shorter than those of the second.
    """
    if network.identity.window_s < descriptors.identity.window_s - 1e-9:
        raise UsageError(
            f"{network.identity.name} has windows of {network.identity.window_s:g} s, too short for those of "
            f"{descriptors.identity.name}; use it by itself"
        )
    if hasattr(network, "compute"):
        return TwoStepFusedModel(cast("TwoStepModel", network), descriptors)
    return FusedModel(network, descriptors)


def parts_of(name: str) -> tuple[str, str] | None:
    """Return the names of the two models of a fused one, None for a name that is none.

    Raises:
        UsageError: it is one that there cannot be.
    """
    if SEPARATOR not in name:
        return None
    network, _, second = name.partition(SEPARATOR)
    if second != SECOND or network in ("", SECOND):
        raise UsageError(f"there is no model {name!r}; what can be fused is a network and spectral, as aisfx+spectral")
    return network, second


def _identity(network: ModelIdentity, descriptors: ModelIdentity) -> ModelIdentity:
    versions = {f"{descriptors.name}_{key}": value for key, value in descriptors.parameters.items()}
    return ModelIdentity(
        name=f"{network.name}{SEPARATOR}{descriptors.name}",
        sample_rate=network.sample_rate,
        window_samples=network.window_samples,
        dimension=network.dimension + descriptors.dimension,
        weights_sha256=network.weights_sha256,
        level="peak",
        filling="zero",
        parameters={**network.parameters, **versions, "fusion_version": VERSION},
        blocks=(
            Block(network.dimension, network.standardise, NETWORK_SHARE),
            Block(descriptors.dimension, descriptors.standardise, 1.0 - NETWORK_SHARE),
        ),
    )


def _refilled(windows: Float32Array) -> Float32Array:
    """Return windows (n, length) with the sound repeated in place of the zeros behind it."""
    length = windows.shape[1]
    sounding = length - np.argmax(windows[:, ::-1] != 0, axis=1)
    short = np.flatnonzero(sounding < length)
    if not len(short):
        return windows
    filled = windows.copy()
    for row in short:
        filled[row] = fill(windows[row, : sounding[row]], length, "tile")
    return filled


def _resampled(windows: Float32Array, from_hz: int, to_hz: int, length: int) -> Float32Array:
    """Return the first `length` samples at another rate of each window, (n, length) float32."""
    import soxr

    needed = -(-length * from_hz // to_hz) + MARGIN
    heard = np.zeros((len(windows), length), np.float32)
    for row, window in enumerate(windows):
        sound = soxr.resample(window[:needed], from_hz, to_hz, quality="HQ")[:length]
        heard[row, : len(sound)] = sound
    return heard
