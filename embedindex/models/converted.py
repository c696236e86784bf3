"""Converted models, kept in the models folder beside the weights: an ONNX file and a note of what it is.

Conventions: `key` names what a model was made from and by which version of the code; ``converted/KEY.onnx`` holds the
model, ``converted/KEY.json`` its SHA-256 and facts about it. The note is written last and atomically: without it, or
when it does not match, the model is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedindex.errors import WeightsMissingError
from embedindex.models.cache import models_folder, writing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """A converted model.

    Attributes:
        content: the ONNX model.
        sha256: SHA-256 (hex) of it.
        facts: what else is known about it (JSON values).
    """

    content: bytes
    sha256: str
    facts: Mapping[str, Any]


def read_converted(key: str) -> Converted | None:
    """Return the stored model, None when it is not there or not what its note says."""
    facts = read_facts(key)
    if facts is None:
        return None
    try:
        with open(_path(key, "onnx"), "rb") as file:
            content = file.read()
    except OSError:
        return None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != facts.get("sha256"):
        _log.warning("%s is not what was stored there; it is made again", _path(key, "onnx"))
        return None
    return Converted(content, sha256, facts)


def read_facts(key: str) -> Mapping[str, Any] | None:
    """Return the note about a stored model, None when there is none that can be read."""
    try:
        with open(_path(key, "json"), encoding="utf-8") as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def store_converted(key: str, content: bytes, facts: Mapping[str, Any]) -> Converted:
    """Return the model after storing it; where the folder cannot be written it is used all the same, with a warning."""
    sha256 = hashlib.sha256(content).hexdigest()
    note = {**facts, "sha256": sha256}
    try:
        _place(_path(key, "onnx"), content)
        _place(_path(key, "json"), json.dumps(note, indent=1, sort_keys=True).encode())
    except WeightsMissingError as problem:
        _log.warning("the converted model is not kept and will be made again next time: %s", problem)
    return Converted(content, sha256, note)


def _path(key: str, suffix: str) -> str:
    return os.path.join(models_folder(), "converted", f"{key}.{suffix}")


def _place(path: str, content: bytes) -> None:
    with writing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
