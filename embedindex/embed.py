"""One file of audio + a model → its vectors: the unit of work of a scan, a pure function of the file's bytes.

Conventions: vectors are float16, (n_windows, dimension); an all-zero row is a window of digital silence, for which the
model is not asked. Lengths are seconds where the name ends in ``_s``. Memory does not grow with the length of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float16Array, Float32Array
from embedindex.audio import MAX_DURATION_S, AudioFacts, AudioReader
from embedindex.errors import EmbeddingError, UnreadableFileError
from embedindex.models.base import Model
from embedindex.tags import Tags, read_tags
from embedindex.windows import cut_windows, dense_hop

# Magnitudes below one step of 16-bit audio count as digital silence.
SILENCE = 2.0**-16
# Sounds up to this length are kept while their peak is found; longer ones are decoded a second time instead.
HOLD_S = 300.0
BATCH_WINDOWS = 16
HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileEmbedding:
    """What a scan learns from a file's bytes; the store keeps all of it.

    Attributes:
        content_hash: 16 bytes, xxh3_128 of the file's bytes.
        vectors: (n_windows, dimension) float16.
        silent: how many rows are digital silence.
        hop_s: seconds between the starts of two windows.
        facts: container, codec, rate and channels of the file.
        tags: what the file says about itself.
        duration_s: seconds of sound that were decoded.
        peak: largest magnitude of the mono down-mix; full scale is 1.
        note: what a person should know about the decoding, or None.
    """

    content_hash: bytes
    vectors: Float16Array
    silent: int
    hop_s: float
    facts: AudioFacts
    tags: Tags
    duration_s: float
    peak: float
    note: str | None = None


def nothing() -> None:
    """Do nothing: the default of the `alive` callbacks."""


def hop_samples(hop_s: float, sample_rate: int) -> int:
    """Return a hop in seconds as the nearest whole number of samples, at least one."""
    return max(1, round(hop_s * sample_rate))


def hash_content(path: str | bytes, alive: Callable[[], None] = nothing) -> bytes:
    """Return the xxh3_128 digest (16 bytes) of a file's bytes; calls `alive` for every few blocks.

    Raises:
        UnreadableFileError: the file system refused it.
    """
    import xxhash

    digest = xxhash.xxh3_128()
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb", buffering=0) as file:
            for number, block in enumerate(iter(lambda: file.read(HASH_BLOCK_BYTES), b"")):
                digest.update(block)
                if number % 16 == 15:
                    alive()
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror or error})") from error
    return digest.digest()


def embed_batches(
    blocks: Iterable[Float32Array], peak: float, model: Model, hop: int, alive: Callable[[], None] = nothing
) -> Iterator[tuple[Float32Array, int]]:
    """Yield the vectors of a mono sound at the model's rate, some windows at a time, and how many are silence.

    Args:
        blocks: consecutive 1-D blocks of samples.
        peak: the sound's largest magnitude; where the model's identity asks for it, samples are divided by it.
        model: the model to ask.
        hop: samples between the starts of two windows.
        alive: called after each batch.

    Yields:
        ((n, dimension) float32, number of all-zero rows for silence).
    """
    identity = model.identity
    gain = 1.0 / peak if identity.level == "peak" and peak >= SILENCE else 1.0
    floor = SILENCE * gain
    scaled = (np.multiply(block, np.float32(gain)) for block in blocks) if gain != 1.0 else blocks
    for windows in cut_windows(scaled, identity.window_samples, hop, identity.filling, BATCH_WINDOWS):
        loud = np.maximum(windows.max(axis=1), -windows.min(axis=1)) >= floor
        vectors = np.zeros((len(windows), identity.dimension), np.float32)
        if loud.any():
            vectors[loud] = model.embed(windows if loud.all() else windows[loud])
        yield vectors, int(len(loud) - loud.sum())
        alive()


def embed_blocks(
    blocks: Iterable[Float32Array], peak: float, model: Model, hop: int, alive: Callable[[], None] = nothing
) -> tuple[Float32Array, int]:
    """Return all that `embed_batches` yields as one: ((n_windows, dimension) float32, number of all-zero rows)."""
    parts = list(embed_batches(blocks, peak, model, hop, alive))
    if not parts:
        return np.zeros((0, model.identity.dimension), np.float32), 0
    return np.concatenate([vectors for vectors, _ in parts]), sum(silent for _, silent in parts)


def embed_file(
    path: str | bytes,
    model: Model,
    hop_s: float,
    *,
    content_hash: bytes | None = None,
    max_duration_s: float = MAX_DURATION_S,
    alive: Callable[[], None] = nothing,
) -> FileEmbedding:
    """Return the vectors of an audio file, with its facts and tags.

    Args:
        path: the file.
        model: the model of the index.
        hop_s: seconds between the starts of two windows of a long sound; short ones have them closer (`dense_hop`).
        content_hash: the file's `hash_content`, when it is known already.
        max_duration_s: longest sound that is accepted, in seconds.
        alive: called whenever some work is done; the supervisor of a scan takes silence for a hang.

    Raises:
        AudioError: the file cannot be used; its subclasses and `.kind` say why.
        ModelError: the model cannot be used.
    """
    if content_hash is None:
        content_hash = hash_content(path, alive)
    rate = model.identity.sample_rate
    hop = hop_samples(hop_s, rate)
    reader, held = _hold(path, rate, max_duration_s, alive)
    if held is not None:
        hop = dense_hop(sum(map(len, held)), model.identity.window_samples, hop)
        vectors, silent = _stored(path, embed_batches(held, reader.peak, model, hop, alive), model)
    else:
        peak = reader.peak
        with AudioReader(path, sample_rate=rate, max_duration_s=max_duration_s) as reader:
            vectors, silent = _stored(path, embed_batches(reader.blocks(), peak, model, hop, alive), model)
    duration_s = reader.native_frames / reader.facts.sample_rate
    return FileEmbedding(
        content_hash=content_hash,
        vectors=vectors,
        silent=silent,
        hop_s=hop / rate,
        facts=reader.facts,
        tags=read_tags(path),
        duration_s=duration_s,
        peak=float(reader.peak),
        note=_note(reader),
    )


def _stored(path: str | bytes, batches: Iterable[tuple[Float32Array, int]], model: Model) -> tuple[Float16Array, int]:
    """Return a sound's vectors as the store keeps them, and how many rows are silence.

    Kept as bytes while they grow: a sound of ten hours has vectors enough for every further copy to show.
    """
    limit = float(np.finfo(np.float16).max)
    stored = bytearray()
    silent = 0
    for vectors, quiet in batches:
        if not np.isfinite(vectors).all():
            raise EmbeddingError(path, f"the model {model.identity.name} made vectors of it that are not numbers")
        stored += np.clip(vectors, -limit, limit).astype(np.float16).tobytes()
        silent += quiet
    return np.frombuffer(stored, np.float16).reshape(-1, model.identity.dimension), silent


def _note(reader: AudioReader) -> str | None:
    """Return what a person should know about how a file was read, or None."""
    remarks = [reader.note] if reader.note else []
    if reader.non_finite:
        remarks.append(f"{reader.non_finite} samples are not numbers; they were taken as silence")
    return "; ".join(remarks) or None


def _hold(
    path: str | bytes, rate: int, max_duration_s: float, alive: Callable[[], None]
) -> tuple[AudioReader, list[Float32Array] | None]:
    """Read a file once, to its end; return the reader and the blocks, or None when they are too many to keep."""
    with AudioReader(path, sample_rate=rate, max_duration_s=max_duration_s) as reader:
        held: list[Float32Array] = []
        samples = 0
        for block in reader.blocks():
            alive()
            held.append(block)
            samples += len(block)
            if samples > HOLD_S * rate:
                break
        else:
            return reader, held
    # Only the peak is wanted of the whole: no resampling.
    with AudioReader(path, max_duration_s=max_duration_s) as reader:
        for _ in reader.blocks():
            alive()
    return reader, None
