"""What classifiers hear of a file: rows of its stored vectors, its descriptors or both, or stretches of spectrogram.

Conventions: a row of ``embeddings`` is, for each dimension of the index's model, the mean over the file's windows, the
first window and the greatest value: how it sounds in all, how it starts, what stands out (of a model of two, those of
the one and then those of the other). ``features`` are the columns
of `embedindex.features`. ``both`` has the one and then the richer of the other. ``segments`` are `SEGMENT_SAMPLES` at
22,050 Hz as (frames, bands) in dB below the loudest of the stretch; behind shorter sounds is silence.

Features and segments are read from the files again, in worker processes: a file that cannot be decoded is left out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedindex import descriptors
from embedindex.arrays import Float16Array, Float32Array, Int64Array
from embedindex.audio import AudioReader
from embedindex.cores import count_processes
from embedindex.errors import AudioError, QueryError
from embedindex.features import SAMPLE_RATE, columns, features
from embedindex.features import Kind as FeatureKind
from embedindex.likeness import summary_row
from embedindex.records import FileRecord
from embedindex.store import Store

On = Literal["embeddings", "features", "both", "segments"]
Progress = Callable[[str, int, int], None]

# As the tutorials on GTZAN cut it: 30 s at 22,050 Hz make six stretches.
SEGMENT_SAMPLES = 100_000
SEGMENT_BANDS = 64
MAX_SEGMENTS = 6
# The tutorials' tables describe 30 s; of longer files this much is described.
FEATURES_UP_TO_S = 30.0


@dataclass(frozen=True, eq=False)
class Rows:
    """What was made of some files.

    Attributes:
        places: (m,) numbers of the files, among those that were asked for, that could be used.
        rows: (m, columns) float32; of segments, (m', frames, bands).
        owner: (m',) int64, for each row the number, among `places`, of its file.
        blocks: how many columns of each kind there are, in their order.
    """

    places: Int64Array
    rows: Float32Array
    owner: Int64Array
    blocks: tuple[int, ...]


def embedding_row(vectors: Float16Array, blocks: tuple[int, ...] = ()) -> Float32Array | None:
    """Return (3 * dimension,) float32 of a file's (windows, dimension) vectors; None when it is silent throughout.

    Args:
        vectors: as stored.
        blocks: dimensions of the models that made them, one after the other; () for one model.
    """
    loud = vectors[vectors.any(axis=1)]
    return summary_row(loud, blocks) if len(loud) else None


def blocks_in(store: Store) -> tuple[int, ...]:
    """Return the dimensions of the models that made an index's vectors; () for one model."""
    model = store.model()
    return () if model is None else tuple(block.dimension for block in model.identity.blocks)


def feature_row(path: bytes, kind: FeatureKind) -> Float32Array:
    """Return the descriptors of a file's beginning, (26,) or (134,) float32.

    Raises:
        AudioError: it cannot be decoded.
    """
    return next(features(path, kind, duration_s=FEATURES_UP_TO_S)).values


def segments(path: bytes) -> Float32Array:
    """Return up to `MAX_SEGMENTS` stretches of a file, spread over it evenly, as (segments, frames, bands) float32.

    Raises:
        AudioError: it cannot be decoded.
    """
    with AudioReader(path, sample_rate=SAMPLE_RATE, block_s=SEGMENT_SAMPLES / SAMPLE_RATE) as reader:
        blocks = list(_spread(reader))
    if len(blocks) > 1 and len(blocks[-1]) < SEGMENT_SAMPLES // 2:
        blocks.pop()
    # Silence behind what is too short: repeated, it would be heard by its length, which is the same throughout a kit.
    sounds = np.stack([np.pad(block, (0, SEGMENT_SAMPLES - len(block))) for block in blocks])
    power = descriptors.magnitude(sounds) ** 2
    level_db = descriptors.power_to_db(descriptors.mel_spectrogram(power, SAMPLE_RATE, SEGMENT_BANDS))
    return np.asarray(level_db - level_db.max(axis=(1, 2), keepdims=True), np.float32)


def _spread(reader: AudioReader) -> list[Float32Array]:
    """Return blocks, every so many of them once there are twice too many, so that long files fit in memory."""
    kept: list[tuple[int, Float32Array]] = []
    step = 1
    for number, block in enumerate(reader.blocks()):
        if number % step == 0:
            kept.append((number, block))
        if len(kept) > 2 * MAX_SEGMENTS:
            step *= 2
            kept = [pair for pair in kept if pair[0] % step == 0]
    places = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MAX_SEGMENTS)).round().astype(int))
    return [kept[place][1] for place in places]


def load_rows(
    store: Store,
    records: Sequence[FileRecord],
    on: On,
    kind: FeatureKind,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> Rows:
    """Return what classifiers hear of files of an index.

    Args:
        store: the index.
        records: its files.
        on: embeddings, features, both or segments.
        kind: which features.
        workers: processes that read files; 0: one a core.
        progress: told what is being done, how many files are done, and of how many.

    Raises:
        QueryError: none of the files can be used.
    """
    parts: list[dict[int, Float32Array]] = []
    blocks: list[int] = []
    if on in ("embeddings", "both"):
        parts.append(_embeddings(store, records))
    if on in ("features", "both"):
        parts.append(_read(_features_of, [(record.path, kind) for record in records], workers, "Describing", progress))
    if on == "segments":
        parts.append(_read(_segments_of, [(record.path, kind) for record in records], workers, "Reading", progress))
    places = sorted(set.intersection(*(set(part) for part in parts)))
    if not places:
        raise QueryError("none of the labelled files can be used: they are silent, gone or damaged; scan them again")
    if on == "segments":
        owner = np.repeat(np.arange(len(places)), [len(parts[0][place]) for place in places])
        return Rows(np.array(places), np.concatenate([parts[0][place] for place in places]), owner, (SEGMENT_BANDS,))
    tables = [np.stack([part[place] for place in places]) for part in parts]
    blocks = [table.shape[1] for table in tables]
    if on in ("embeddings", "both"):
        blocks[:1] = [3 * dimension for dimension in blocks_in(store)] or blocks[:1]
    rows = np.asarray(np.concatenate(tables, axis=1), np.float32)
    return Rows(np.array(places), rows, np.arange(len(places)), tuple(blocks))


def feature_names(on: On, kind: FeatureKind) -> tuple[str, ...]:
    """Return the names of the descriptors that a classifier listens to; () for those that need none."""
    return columns(kind) if on in ("features", "both") else ()


def sound_row(
    path: bytes, vectors: Float16Array | None, on: On, kind: FeatureKind, blocks: tuple[int, ...] = ()
) -> Float32Array | None:
    """Return what classifiers hear of one sound, (rows, columns) or (segments, frames, bands); None when silent.

    Args:
        path: the sound.
        vectors: (windows, dimension) by the index's model, where embeddings are heard.
        on: embeddings, features, both or segments.
        kind: which features.
        blocks: see `blocks_in`.

    Raises:
        AudioError: it cannot be decoded.
    """
    if on == "segments":
        return segments(path)
    parts: list[Float32Array] = []
    if on in ("embeddings", "both"):
        row = None if vectors is None else embedding_row(vectors, blocks)
        if row is None:
            return None
        parts.append(row)
    if on in ("features", "both"):
        parts.append(feature_row(path, kind))
    return np.asarray(np.concatenate(parts)[None], np.float32)


def _embeddings(store: Store, records: Sequence[FileRecord]) -> dict[int, Float32Array]:
    blocks = blocks_in(store)
    found = ((number, embedding_row(store.vectors_of(record), blocks)) for number, record in enumerate(records))
    return {number: row for number, row in found if row is not None}


Job = tuple[bytes, FeatureKind]


def _features_of(job: Job) -> Float32Array | None:
    try:
        return feature_row(*job)
    except (AudioError, StopIteration):
        return None


def _segments_of(job: Job) -> Float32Array | None:
    try:
        return segments(job[0])
    except AudioError:
        return None


def _read(
    function: Callable[[Job], Float32Array | None],
    jobs: Sequence[Job],
    workers: int,
    what: str,
    progress: Progress | None,
) -> dict[int, Float32Array]:
    """Return {number: result} of the jobs that gave one, worked on in processes.

    Raises:
        QueryError: a worker process was ended from outside, or by a file that its decoder did not survive.
    """
    found: dict[int, Float32Array] = {}
    context = multiprocessing.get_context("spawn")  # forked children of a process that used FAISS hang
    with ProcessPoolExecutor(count_processes(workers), context) as pool:
        try:
            pending = {pool.submit(function, job): number for number, job in enumerate(jobs)}
            for done, future in enumerate(as_completed(pending), 1):
                result = future.result()
                if result is not None:
                    found[pending[future]] = result
                if progress is not None:
                    progress(what, done, len(jobs))
        except BrokenProcessPool as error:
            raise QueryError(
                "a process that reads files came to an end: too little memory, or a file that breaks its decoder; "
                "run `embedindex scan` again to find it, or give fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found
