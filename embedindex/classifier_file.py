"""A trained classifier as a file: one ONNX model, with what has to be known about it as JSON in its metadata.

Opening one runs no code of its author's: ONNX holds numbers and operators only, and operators outside the standard are
refused. Where it comes from, what it hears and how sure it may be are part of the file (`About`).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import ModelError, QueryError, display_path
from embedindex.whole_files import whole_file

FORMAT = "embedindex-classifier"
VERSION = 1
SUFFIX = ".onnx"
FOLDER = "classifiers"
MAX_BYTES = 1 << 30
_BATCH = 64


@dataclass(frozen=True)
class About:
    """What a classifier is.

    Attributes:
        key: of the labels that it gives.
        classes: the labels, in the order of its probabilities.
        method: how it was learnt.
        on: what it hears: embeddings, features, both or segments.
        kind: which features, where it hears some.
        columns: how long a row is; of segments the number of bands.
        model: fingerprint of the index's model, where it hears embeddings; else "".
        model_name: that model's name.
        temperature: by which log probabilities are divided.
        far: less familiar than this is unknown.
        group: what its confidence was learnt across; "" for file by file.
        files: how many files it has learnt from.
        seed: of everything random.
        accuracy: on files of the test part; None where there were none.
    """

    key: str
    classes: tuple[str, ...]
    method: str
    on: str
    kind: str
    columns: int
    model: str
    model_name: str
    temperature: float
    far: float
    group: str
    files: int
    seed: int
    accuracy: float | None


class Session:
    """An ONNX classifier, ready to judge."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.outputs = {output.name for output in self._session.get_outputs()}

    def run(self, rows: Float32Array) -> tuple[Float64Array, Float64Array]:
        """Return (probabilities (m, C), familiarity (m,); 1 where the classifier does not tell)."""
        wanted = ["probabilities", *(["familiarity"] if "familiarity" in self.outputs else [])]
        parts = [
            self._session.run(wanted, {self._input: np.ascontiguousarray(rows[first : first + _BATCH], np.float32)})
            for first in range(0, len(rows), _BATCH)
        ]
        chances = np.concatenate([part[0] for part in parts]).astype(np.float64)
        known = np.concatenate([part[1] for part in parts]) if len(wanted) == 2 else np.ones(len(rows))
        return chances, known.astype(np.float64)

    def probabilities(self, rows: Float32Array) -> Float64Array:
        """Return (m, C) probabilities."""
        return self.run(rows)[0]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier that was read from a file."""

    about: About
    session: Session


def metadata(about: About) -> dict[str, str]:
    """Return what is written into the model."""
    return {FORMAT: json.dumps({"version": VERSION, **asdict(about)}, sort_keys=True)}


def default_path(folder: str, key: str, method: str) -> str:
    """Return where a classifier lies unless it is told otherwise: in the index folder."""
    safe = "".join(char if char.isalnum() or char in "-_" else "_" for char in key)
    return os.path.join(folder, FOLDER, f"{safe}-{method}{SUFFIX}")


def write_classifier(path: str, content: bytes) -> None:
    """Write a classifier in one step of the file system; folders are made.

    Raises:
        DiskFullError: there is no space.
        UsageError: it cannot be written there.
    """
    with whole_file(path, "choose another place with --out") as temporary:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_classifier(path: str) -> Classifier:
    """Return a classifier from a file.

    Raises:
        QueryError: there is no such file.
        ModelError: it is not a classifier of embedindex, damaged, or of a later version.
    """
    import onnx

    shown = display_path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise QueryError(f"{shown}: cannot be read ({problem.strerror}); `embedindex train` makes one") from problem
    not_one = f"{shown}: is not a classifier that `embedindex train` wrote; name another, or train it again"
    if len(content) > MAX_BYTES:
        raise ModelError(not_one)
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except Exception as problem:
        raise ModelError(not_one) from problem
    found = {entry.key: entry.value for entry in model.metadata_props}.get(FORMAT)
    strange = {node.domain for node in model.graph.node} - {"", "ai.onnx", "ai.onnx.ml"}
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    if found is None or strange or external:
        raise ModelError(not_one)
    about = _about(found, shown, not_one)
    session = Session(content)
    if "probabilities" not in session.outputs:
        raise ModelError(not_one)
    return Classifier(about, session)


def _about(text: str, shown: str, not_one: str) -> About:
    try:
        data: dict[str, Any] = json.loads(text)
        version = int(data.pop("version"))
        if version > VERSION:
            raise ModelError(f"{shown}: was written by a later embedindex (format {version}); upgrade embedindex")
        about = About(**{**data, "classes": tuple(data["classes"])})
        numbers = np.array([about.temperature, about.far], np.float64)
    except (ValueError, TypeError, KeyError) as problem:
        raise ModelError(not_one) from problem
    if not np.isfinite(numbers).all() or about.temperature <= 0:
        raise ModelError(not_one)
    return about
