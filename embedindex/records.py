"""What travels out of the store: files, labels, counts, the index's model, as frozen dataclasses.

Conventions: paths are bytes, times and lengths are seconds.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields

from embedindex.models.base import ModelIdentity, ModelRequest


@dataclass(frozen=True)
class FileRecord:
    """One row of the table ``files``; the names are the column names, see `schema.py`."""

    id: int
    path: bytes
    root_id: int
    status: str
    missing_since: str | None
    size: int
    mtime_ns: int
    device: int
    inode: int
    content_hash: bytes | None
    container: str | None
    codec: str | None
    sample_rate: int | None
    channels: int | None
    duration: float | None
    peak: float | None
    artist: str | None
    album: str | None
    title: str | None
    genre: str | None
    year: int | None
    note: str | None
    error_kind: str | None
    error_reason: str | None
    first_window: int | None
    n_windows: int
    n_silent: int
    hop_s: float | None
    vectors_hash: bytes | None
    scanned_at: str
    instrument: str | None

    @property
    def shown_status(self) -> str:
        """``"ok"``, ``"failed"`` or ``"missing"``."""
        return "missing" if self.missing_since is not None else self.status

    @property
    def text_path(self) -> str:
        """The path as Python text; undecodable bytes are surrogate escapes, so `os.fsencode` gives `path` back."""
        return os.fsdecode(self.path)


FILE_COLUMNS = ", ".join(f"files.{column.name}" for column in fields(FileRecord))


@dataclass(frozen=True)
class IndexModel:
    """The one model of an index.

    Attributes:
        id: its row in the table ``models``.
        identity: which vectors it makes.
        request: how to load it again.
        hop_s: seconds between the starts of two windows (of long files; short ones have theirs closer).
    """

    id: int
    identity: ModelIdentity
    request: ModelRequest
    hop_s: float


@dataclass(frozen=True)
class Counts:
    """How much an index holds. `windows` counts those of files that are not missing; `seconds` likewise."""

    files: int
    ok: int
    failed: int
    missing: int
    windows: int
    silent_windows: int
    seconds: float
    labels: int


@dataclass(frozen=True)
class Label:
    """One ``key=value`` of a file, who said so (`source`) and how sure it is (0 to 1)."""

    key: str
    value: str
    source: str
    confidence: float


def vectors_hash(data: bytes | memoryview) -> bytes:
    """Return the 8-byte xxh3 of the bytes of a file's stored vectors, by which damaged ones are found."""
    import xxhash

    return xxhash.xxh3_64_digest(data)


def request_to_json(request: ModelRequest) -> str:
    """Return a request as JSON for the table ``models``."""
    return json.dumps(
        {
            "name": request.name,
            "options": [list(pair) for pair in request.options],
            "weights": request.weights,
            "precision": request.precision,
            "engine": request.engine,
        },
        sort_keys=True,
    )


def request_from_json(text: str) -> ModelRequest:
    """Return the request that `request_to_json` wrote."""
    data = json.loads(text)
    return ModelRequest(
        name=data["name"],
        options=tuple((str(key), str(value)) for key, value in data["options"]),
        weights=data["weights"],
        precision=data["precision"],
        engine=data["engine"],
    )
