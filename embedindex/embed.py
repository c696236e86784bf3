"""One file of audio + a model → its vectors: the unit of work of a scan, a pure function of the file's bytes.

Conventions: vectors are float16, (n_windows, dimension); an all-zero row is a window of digital silence, for which the
model is not asked. Lengths are seconds where the name ends in ``_s``. Memory does not grow with the length of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from embedindex.archives import open_sound
from embedindex.arrays import BoolArray, Float16Array, Float32Array
from embedindex.audio import MAX_DURATION_S, AudioFacts, AudioReader
from embedindex.errors import EmbeddingError, UnreadableFileError
from embedindex.models.base import Model, ModelIdentity
from embedindex.tags import Tags, read_tags
from embedindex.windows import cut_windows, dense_hop

# Magnitudes below one step of 16-bit audio count as digital silence.
SILENCE = 2.0**-16
# Sounds up to this length are kept while their peak is found; longer ones are decoded a second time instead.
HOLD_S = 600.0
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
        with open_sound(path) as file:
            for number, block in enumerate(iter(lambda: file.read(HASH_BLOCK_BYTES), b"")):
                digest.update(block)
                if number % 16 == 15:
                    alive()
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror or error})") from error
    return digest.digest()


@dataclass(frozen=True)
class WindowBatch:
    """Some windows of a sound, in its order.

    Attributes:
        sounding: (k, window_samples) float32: those of them that are not digital silence, at the model's level.
        loud: (n,) which of the n windows those are.
    """

    sounding: Float32Array
    loud: BoolArray


def window_batches(
    blocks: Iterable[Float32Array], peak: float, identity: ModelIdentity, hop: int
) -> Iterator[WindowBatch]:
    """Yield the windows of a mono sound at the model's rate, up to `BATCH_WINDOWS` at a time.

    Args:
        blocks: consecutive 1-D blocks of samples.
        peak: the sound's largest magnitude; where the identity asks for it, samples are divided by it.
        identity: the model's.
        hop: samples between the starts of two windows.
    """
    gain = 1.0 / peak if identity.level == "peak" and peak >= SILENCE else 1.0
    floor = SILENCE * gain
    scaled = (np.multiply(block, np.float32(gain)) for block in blocks) if gain != 1.0 else blocks
    for windows in cut_windows(scaled, identity.window_samples, hop, identity.filling, BATCH_WINDOWS):
        loud = np.maximum(windows.max(axis=1), -windows.min(axis=1)) >= floor
        yield WindowBatch(windows if loud.all() else windows[loud], loud)


def embed_batches(
    blocks: Iterable[Float32Array], peak: float, model: Model, hop: int, alive: Callable[[], None] = nothing
) -> Iterator[tuple[Float32Array, int]]:
    """Yield the vectors of a mono sound, some windows at a time, and how many are silence; see `window_batches`.

    Yields:
        ((n, dimension) float32, number of all-zero rows for silence).
    """
    for batch in window_batches(blocks, peak, model.identity, hop):
        vectors = np.zeros((len(batch.loud), model.identity.dimension), np.float32)
        if len(batch.sounding):
            vectors[batch.loud] = model.embed(batch.sounding)
        yield vectors, int(len(batch.loud) - len(batch.sounding))
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
    sound = FileWindows(path, model.identity, hop_s, max_duration_s, alive)
    rows = VectorRows(path, model.identity)
    for batch in sound.batches():
        rows.add(batch.loud, model.embed(batch.sounding) if len(batch.sounding) else None)
        alive()
    return sound.embedding(content_hash, rows)


class FileWindows:
    """An audio file, read to its windows: all of the work on it that comes before the model.

    Args:
        path: the file.
        identity: the model's.
        hop_s: seconds between the starts of two windows of a long sound.
        max_duration_s: longest sound that is accepted, in seconds.
        alive: called whenever some work is done.
    """

    def __init__(
        self,
        path: str | bytes,
        identity: ModelIdentity,
        hop_s: float,
        max_duration_s: float,
        alive: Callable[[], None] = nothing,
    ) -> None:
        self._path = path
        self._identity = identity
        self._hop = hop_samples(hop_s, identity.sample_rate)
        self._max_duration_s = max_duration_s
        self._alive = alive
        self._reader: AudioReader | None = None
        self._tags = Tags()

    def batches(self) -> Iterator[WindowBatch]:
        """Yield the windows, once.

        Raises:
            AudioError: the file cannot be used; its subclasses and `.kind` say why.
        """
        rate = self._identity.sample_rate
        reader, held = _hold(self._path, rate, self._max_duration_s, self._alive)
        if held is not None:
            self._hop = dense_hop(sum(map(len, held)), self._identity.window_samples, self._hop)
            yield from window_batches(_let_go(held), reader.peak, self._identity, self._hop)
        else:
            peak = reader.peak
            with AudioReader(self._path, sample_rate=rate, max_duration_s=self._max_duration_s) as reader:
                yield from window_batches(reader.blocks(), peak, self._identity, self._hop)
        self._tags = read_tags(self._path)
        self._reader = reader

    def embedding(self, content_hash: bytes, rows: VectorRows) -> FileEmbedding:
        """Return what is known of the file, once `batches` is at its end and `rows` hold all of its vectors."""
        reader = self._reader
        if reader is None:
            raise ValueError("the batches were not read to their end")
        return FileEmbedding(
            content_hash=content_hash,
            vectors=rows.vectors(),
            silent=rows.silent,
            hop_s=self._hop / self._identity.sample_rate,
            facts=reader.facts,
            tags=self._tags,
            duration_s=reader.native_frames / reader.facts.sample_rate,
            peak=float(reader.peak),
            note=_note(reader),
        )


class VectorRows:
    """A sound's vectors as the store keeps them, while they come.

    Kept as bytes while they grow: a sound of ten hours has vectors enough for every further copy to show.

    Attributes:
        silent: how many rows are silence so far.
    """

    def __init__(self, path: str | bytes, identity: ModelIdentity) -> None:
        self._path = path
        self._identity = identity
        self._stored = bytearray()
        self.silent = 0

    def add(self, loud: BoolArray, vectors: Float32Array | None) -> None:
        """Take the next windows: `loud` (n,), and (k, dimension) float32 vectors of those k that are; None for none.

        Raises:
            EmbeddingError: the vectors are not numbers.
        """
        limit = np.float32(np.finfo(np.float16).max)
        made = np.zeros((len(loud), self._identity.dimension), np.float16)
        if vectors is not None:
            if not np.isfinite(vectors).all():
                raise EmbeddingError(
                    self._path, f"the model {self._identity.name} made vectors of it that are not numbers"
                )
            made[loud] = np.clip(vectors, -limit, limit)
        self._stored += made.tobytes()
        self.silent += int(len(loud) - np.count_nonzero(loud))

    def vectors(self) -> Float16Array:
        """Return all of them, (n_windows, dimension) float16."""
        return np.frombuffer(self._stored, np.float16).reshape(-1, self._identity.dimension)


def _let_go(held: list[Float32Array]) -> Iterator[Float32Array]:
    """Yield the blocks, keeping none: the list is empty in the end."""
    held.reverse()
    while held:
        yield held.pop()


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
