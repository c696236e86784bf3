"""A sound someone asks about → the vectors to search with.

A file that the index holds unchanged is not decoded again: its stored vectors are used. Any other sound is embedded the
way a scan would, but from several starting points a fraction of a hop apart (`PHASES`), because nothing says that its
windows fall where those of the library fall: a clip cut at an odd place would otherwise match half a hop beside itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float16Array, Float32Array
from embedindex.audio import AudioReader
from embedindex.crawl import FileStat, absolute_path, file_stat
from embedindex.embed import embed_blocks, embed_file, hop_samples
from embedindex.errors import EmbeddingError, ModelMismatchError, PathNotFoundError, QueryError, display_path
from embedindex.models import Model, load_model, same_space
from embedindex.opening import unreadable
from embedindex.records import FileRecord, IndexModel
from embedindex.store import Store
from embedindex.windows import count_windows, dense_hop
from embedindex.writer import describe_model

# So many starting points to the hop of long sounds; the windows of short queries lie closer, and need fewer.
PHASES = 4
# Longer queries are embedded from one starting point: they have windows enough that some fall well.
PHASED_UP_TO_S = 30.0
# Of longer sounds so many windows, evenly spread, ask for the whole: more cost time and change no ranking.
MAX_WINDOWS = 512


@dataclass(frozen=True)
class Query:
    """One sound to search with.

    Attributes:
        path: the file, as it was given, made absolute.
        vectors: one (n, dimension) float16 array for each starting point; silence left out, n ≥ 1.
        record: the file in the index that this is, or None.
    """

    path: bytes
    vectors: tuple[Float16Array, ...]
    record: FileRecord | None


class QueryMaker:
    """Makes queries for one index; the model is loaded when the first sound has to be embedded.

    Args:
        store: the index.
        model: its model.
        threads: threads that the model may use.
        load: how to load a model.
    """

    def __init__(
        self,
        store: Store,
        model: IndexModel,
        threads: int = 0,
        load: Callable[..., Model] = load_model,
    ) -> None:
        self._store = store
        self._model = model
        self._threads = threads or os.cpu_count() or 1
        self._load = load
        self._loaded: Model | None = None

    def model(self) -> Model:
        """Return the index's model, loaded.

        Raises:
            ModelMismatchError: what is installed under its name makes other vectors than those of the index.
        """
        if self._loaded is None:
            from dataclasses import replace

            loaded = self._load(replace(self._model.request, threads=self._threads))
            if not same_space(loaded.identity, self._model.identity):
                raise ModelMismatchError(
                    f"{display_path(self._store.folder)}: this index was made with "
                    f"{describe_model(self._model.identity, self._model.hop_s)}, but the model here is now "
                    f"{describe_model(loaded.identity, self._model.hop_s)}; install the version it was made with, or "
                    "scan into another index with --index DIR"
                )
            self._loaded = loaded
        return self._loaded

    def from_file(self, path: str | bytes) -> Query:
        """Return the query for a file, inside or outside the index.

        Raises:
            PathNotFoundError: there is no such file.
            AudioError: it cannot be decoded.
            QueryError: there is nothing but silence in it.
        """
        absolute = absolute_path(os.fsencode(path))
        record = self._store.file_by_path(absolute)
        try:
            stat = file_stat(absolute)
            record = record or self._by_another_name(absolute, stat)
        except (FileNotFoundError, NotADirectoryError):
            if record is None or record.status != "ok":
                raise PathNotFoundError(
                    f"{display_path(absolute)}: there is no such file; give the path of a sound"
                ) from None
            stat = None  # a file of a disk that is away can still be asked about
        except OSError as error:
            raise unreadable(absolute, error) from error
        if os.path.isdir(absolute):
            raise QueryError(f"{display_path(absolute)}: is a folder; give the path of a sound")
        unchanged = record is not None and (
            stat is None or (record.size, record.mtime_ns) == (stat.size, stat.mtime_ns)
        )
        if record is not None and record.status == "ok" and unchanged:
            vectors: tuple[Float16Array, ...] = (self._store.vectors_of(record),)
        else:
            vectors = self._embed(absolute)
        loud = tuple(_spread(array[array.any(axis=1)]) for array in vectors)
        loud = tuple(array for array in loud if len(array))
        if not loud:
            raise QueryError(f"{display_path(absolute)}: there is nothing but silence in it; give another sound")
        return Query(absolute, loud, record)

    def _by_another_name(self, path: bytes, stat: FileStat) -> FileRecord | None:
        """Return the file of the index that `path` leads to through a link, or None."""
        if not stat.inode:
            return None
        for record in self._store.files_by_inode(stat.device, stat.inode):
            with contextlib.suppress(OSError):  # the other name is gone
                if os.path.samefile(record.path, path):
                    return record
        return None

    def _embed(self, path: bytes) -> tuple[Float16Array, ...]:
        model = self.model()
        held = self._short(path, model.identity.sample_rate)
        if held is None:
            return (embed_file(path, model, self._model.hop_s, content_hash=b"").vectors,)
        samples, peak = held
        window = model.identity.window_samples
        usual = hop_samples(self._model.hop_s, model.identity.sample_rate)
        hop = dense_hop(len(samples), window, usual)
        vectors = []
        for start in range(0, hop, max(1, usual // PHASES)):
            if start and count_windows(len(samples) - start, window, hop) == 0:
                break
            part, _ = embed_blocks([samples[start:]], peak, model, hop)
            if not np.isfinite(part).all():
                raise EmbeddingError(path, f"the model {model.identity.name} made vectors of it that are not numbers")
            vectors.append(_as_stored(part))
        return tuple(vectors)

    def _short(self, path: bytes, sample_rate: int) -> tuple[Float32Array, float] | None:
        """Return (samples, peak) of a sound up to `PHASED_UP_TO_S` seconds, None for a longer one."""
        blocks: list[Float32Array] = []
        samples = 0
        with AudioReader(path, sample_rate=sample_rate) as reader:
            for block in reader.blocks():
                blocks.append(block)
                samples += len(block)
                if samples > PHASED_UP_TO_S * sample_rate:
                    return None
        return np.concatenate(blocks), reader.peak


def _as_stored(vectors: Float32Array) -> Float16Array:
    """Return vectors as the store keeps them, so that a sound compared with itself scores 1."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(vectors, -limit, limit).astype(np.float16)


def _spread(vectors: Float16Array) -> Float16Array:
    """Return at most `MAX_WINDOWS` rows, evenly spread."""
    if len(vectors) <= MAX_WINDOWS:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, MAX_WINDOWS).round().astype(np.int64)]
