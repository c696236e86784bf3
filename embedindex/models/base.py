"""What a model is: windows of samples in, one vector a window out, and an identity that says which vectors these are.

A model never sees files. `embedindex.embed` cuts a file into windows the way the identity prescribes (level, filling of
short sounds) and hands them over, so that a model stays a pure function of samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Protocol

from embedindex.arrays import Float32Array

ParameterValue = str | int | float | bool | None
Level = Literal["peak", "none"]
Filling = Literal["zero", "tile"]


@dataclass(frozen=True)
class Block:
    """Consecutive dimensions of a vector that are compared by themselves.

    Attributes:
        dimension: how many they are.
        standardise: True when the index must standardise each of them before they are scaled to length 1.
        share: how much of the score is theirs; the shares of all blocks add up to 1.
    """

    dimension: int
    standardise: bool
    share: float


@dataclass(frozen=True)
class ModelIdentity:
    """Everything that decides what numbers a model returns. Two vectors are comparable only if it is equal.

    Attributes:
        name: registry name, e.g. ``"openl3"``.
        sample_rate: Hz the windows must have.
        window_samples: length of a window in samples at `sample_rate`.
        dimension: length of a vector.
        weights_sha256: SHA-256 (hex) of the weights file, None for a model without weights.
        level: ``"peak"``: in an index each file is scaled to peak 1 before it is cut into windows.
        filling: what fills the last window of a file and sounds shorter than a window: zeros, or the sound repeated.
        standardise: True when the index must standardise each dimension before cosine similarity makes sense.
        parameters: whatever else moves the numbers (front end, precision, version of the algorithm…).
        blocks: of a vector that two models made, its parts: the score is the weighted mean of theirs. Empty where the
            whole vector is compared as one, as `standardise` says.
    """

    name: str
    sample_rate: int
    window_samples: int
    dimension: int
    weights_sha256: str | None = None
    level: Level = "peak"
    filling: Filling = "tile"
    standardise: bool = False
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if self.blocks and sum(block.dimension for block in self.blocks) != self.dimension:
            raise ValueError(f"the blocks {self.blocks} do not add up to {self.dimension} dimensions")

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return self.window_samples / self.sample_rate

    def to_json(self) -> str:
        """Return the identity as canonical JSON (sorted keys), from which `fingerprint` is computed."""
        content = {
            "name": self.name,
            "sample_rate": self.sample_rate,
            "window_samples": self.window_samples,
            "dimension": self.dimension,
            "weights_sha256": self.weights_sha256,
            "level": self.level,
            "filling": self.filling,
            "standardise": self.standardise,
            "parameters": dict(self.parameters),
        }
        if self.blocks:  # older fingerprints stay what they are
            content["blocks"] = [asdict(block) for block in self.blocks]
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelIdentity:
        """Return the identity that `to_json` wrote."""
        content = json.loads(text)
        return cls(**{**content, "blocks": tuple(Block(**block) for block in content.get("blocks", ()))})

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


# What an identity says about the precision of a model that was quantised here.
PRECISION_PARAMETERS = ("precision", "quantisation", "agrees_with_fp32")


def same_space(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Say whether vectors of the two may be compared: equal, or each float32 or measured to agree with it."""
    if one == other:
        return True
    return _without_precision(one) == _without_precision(other) and all(
        identity.parameters.get("precision") == "fp32" or identity.parameters.get("agrees_with_fp32") is True
        for identity in (one, other)
    )


def _without_precision(identity: ModelIdentity) -> ModelIdentity:
    kept = {key: value for key, value in identity.parameters.items() if key not in PRECISION_PARAMETERS}
    return replace(identity, parameters=kept)


@dataclass(frozen=True)
class ModelRequest:
    """What a user asked for; picklable, so that a worker process can load the same model.

    Attributes:
        name: registry name.
        options: the model's own options as (key, value) text pairs, e.g. ``(("input_repr", "mel128"),)``.
        weights: path of a weights file to use instead of the model's own.
        precision: ``"auto"``, ``"fp32"``, ``"int8"`` or ``"bf16"``.
        engine: ``"auto"`` or the name of an engine the model knows (``"onnxruntime"``, ``"openvino"``,
            ``"tensorflow"``, ``"openl3"``).
        threads: threads one call of `embed` may use.
        device: ``"cpu"``, or ``"cuda"`` for the NVIDIA device that CUDA shows first. No index remembers it.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    weights: str | None = None
    precision: str = "auto"
    engine: str = "auto"
    threads: int = 1
    device: str = "cpu"


class Model(Protocol):
    """One embedding model, loaded and ready."""

    @property
    def identity(self) -> ModelIdentity:
        """Which vectors these are."""
        ...

    @property
    def default_hop_s(self) -> float:
        """Seconds between the starts of two windows that an index uses unless told otherwise."""
        ...

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return one vector for each window.

        Args:
            windows: (n, window_samples) float32 mono samples at the identity's sample rate, finite; n may be 0.

        Returns:
            (n, dimension) float32, finite, of magnitude below 6.5e4 (vectors are stored as float16).
        """
        ...


class TwoStepModel(Model, Protocol):
    """A model with a network that a device can compute, in a process of its own, for several that read files.

    ``embed(windows)`` is ``compute(prepare(windows))``, but for how many windows are in a call.
    """

    def prepare(self, windows: Float32Array) -> Float32Array:
        """Return the network's inputs (n, …) for windows (n, window_samples): what is done where the files are read."""
        ...

    def compute(self, inputs: Float32Array) -> Float32Array:
        """Return the vectors (n, dimension) for inputs (n, …), in one call of the network."""
        ...


def mixes_sounds(model: Model) -> bool:
    """Say whether windows of several sounds may go into one call of `embed`.

    A model says so with the attribute ``mixes_sounds = True``: its vectors are the same to the last bit whatever else
    is in the call, and larger calls are faster.
    """
    return bool(getattr(model, "mixes_sounds", False))
