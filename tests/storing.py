"""Shared by the tests of the store and the search index: files with made-up vectors, put into a real index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from embedindex.arrays import Float16Array
from embedindex.audio import AudioFacts
from embedindex.embed import FileEmbedding
from embedindex.file_stat import FileStat
from embedindex.models import ModelIdentity, ModelRequest, load_model
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

PLAIN = ModelRequest("tiny")
STANDARDISED = ModelRequest("tiny", (("standardise", "yes"),))
DIMENSION = 16
ROOT = b"/music"


def identity_of(request: ModelRequest) -> ModelIdentity:
    return load_model(request).identity


def open_filled(index: str, request: ModelRequest = PLAIN) -> StoreWriter:
    """Return a writer of an index that has the test model, and a root with the id 1."""
    store = StoreWriter(index)
    store.use_model(identity_of(request), request, 0.5)
    store.put_root(ROOT, 7)
    return store


def some_vectors(windows: int, seed: int, silent: int = 0) -> Float16Array:
    """Return (windows, 16) random vectors, away from the origin like a real model's; the last ones are silence."""
    vectors = np.random.default_rng(seed).normal(1.0, 1.0, (windows, DIMENSION)).astype(np.float16)
    vectors[windows - silent :] = 0
    return vectors


def content(vectors: Float16Array, content_hash: bytes | None = None, **changes: Any) -> FileEmbedding:
    """Return what a scan learns from a file, with these vectors."""
    values: dict[str, Any] = {
        "content_hash": content_hash or bytes(np.random.default_rng(len(vectors)).bytes(16)),
        "vectors": vectors,
        "silent": int((~vectors.any(axis=1)).sum()),
        "hop_s": 0.5,
        "facts": AudioFacts("WAV", "PCM_16", 8000, 1, len(vectors) * 0.5, "soundfile"),
        "tags": Tags("Artist", "Album", "Title", "Genre", 1999),
        "duration_s": len(vectors) * 0.5,
        "peak": 0.5,
    }
    return FileEmbedding(**{**values, **changes})


def stat_of(number: int = 0) -> FileStat:
    return FileStat(1000 + number, 1_500_000_000_000_000_001 + number, 7, 100 + number)


def put(store: StoreWriter, name: bytes, windows: int, seed: int = 0, silent: int = 0) -> int:
    """Put a file with random vectors into the index; return its id."""
    return store.put_file(ROOT + b"/" + name, 1, stat_of(seed), content(some_vectors(windows, seed, silent)))


def all_vectors(store: Store) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the numbers, ascending, and vectors of all loud windows, read file by file: the reference for searches."""
    numbers: list[int] = []
    rows = []
    for record in sorted(store.files("status = 'ok'"), key=lambda record: record.first_window or 0):
        for offset, vector in enumerate(store.vectors_of(record)):
            if vector.any():
                numbers.append((record.first_window or 0) + offset)
                rows.append(vector.astype(np.float32))
    return numbers, np.array(rows, np.float32).reshape(-1, DIMENSION)


def execute(index: str | Path, sql: str, *parameters: Any) -> None:
    """Change a database behind embedindex's back."""
    import sqlite3

    connection = sqlite3.connect(os.path.join(index, "embedindex.db"))
    with connection:
        connection.execute(sql, parameters)
    connection.close()
