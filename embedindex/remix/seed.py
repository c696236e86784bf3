"""A seed: read once or twice from front to back, described, cut, and turned into questions for the index.

Conventions: units are in frames at the seed's own rate; tracks as in `frames`; vectors as the index stores them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from embedindex.archives import exists
from embedindex.arrays import Float16Array, Float32Array, Float64Array, Int64Array
from embedindex.audio import AudioReader
from embedindex.crawl import absolute_path
from embedindex.embed import SILENCE, hash_content
from embedindex.errors import EmptyAudioError, PathNotFoundError, QueryError, display_path
from embedindex.models.base import Model
from embedindex.opening import is_real_folder
from embedindex.remix.frames import FRAMES_PER_S, RATE, Track, describe_blocks
from embedindex.remix.qualities import GAIN_LIMIT_DB, PART_LOWEST_DB, Qualities, join_qualities, measure
from embedindex.remix.tracks import Stages, stages_untold
from embedindex.remix.units import Cutting, Unit, cut
from embedindex.windows import fill

BATCH = 16


@dataclass(frozen=True, eq=False)
class Seed:
    """A sound to remix.

    Attributes:
        path: absolute.
        sound: the file its sound is read from: itself, or one with a part of it.
        content_hash: 16 bytes, as the index has it.
        sample_rate: Hz.
        channels: how many.
        frames: length at its own rate.
        peak: largest magnitude of its mono mix.
        units: what it was cut into, n units.
        starts: (n,) where they begin, in frames of its track (see `frames`).
        lengths: (n,) how many frames they have.
        measured: what they sound like.
        kind: how it was cut.
        note: what is wrong with the file, or None.
    """

    path: bytes
    sound: bytes
    content_hash: bytes
    sample_rate: int
    channels: int
    frames: int
    peak: float
    units: tuple[Unit, ...]
    starts: Int64Array
    lengths: Int64Array
    measured: Qualities
    kind: str
    note: str | None

    @property
    def is_part(self) -> bool:
        """Whether it is only a part of what its file holds."""
        return self.sound != self.path

    @property
    def lowest_db(self) -> float:
        """How far what takes a unit's place may be turned down: a part may be far softer than any sound there is."""
        return PART_LOWEST_DB if self.is_part else -GAIN_LIMIT_DB


def read_seed(path: str | bytes, cutting: Cutting, told: Stages = stages_untold) -> Seed:
    """Read and cut a seed.

    Args:
        path: the file.
        cutting: how.
        told: called with what is being done, and how far that is.

    Raises:
        PathNotFoundError: there is no such file.
        QueryError: it is a folder.
        AudioError: it cannot be decoded, or there is no sound in it.
        UsageError: the labels to cut at make no sense.
    """
    absolute = absolute_path(os.fsencode(path))
    if is_real_folder(absolute):
        raise QueryError(f"{display_path(absolute)}: is a folder; give the path of a sound")
    if not exists(absolute):
        raise PathNotFoundError(f"{display_path(absolute)}: there is no such file; give the path of a sound")
    with AudioReader(absolute, sample_rate=RATE) as reader:
        track = describe_blocks(_told_of(reader, told))
        facts = reader.facts
    if not reader.native_frames or not track.samples:
        raise EmptyAudioError(absolute, "there is no sound in it; give another seed")
    units, kind = cut(track, reader.native_frames, facts.sample_rate, cutting)
    bounds = np.array([(unit.start, unit.end) for unit in units], np.float64) / facts.sample_rate * FRAMES_PER_S
    starts, ends = np.round(bounds).astype(np.int64).T
    lengths = np.maximum(1, ends - starts)
    return Seed(
        path=absolute,
        sound=absolute,
        content_hash=hash_content(absolute),
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        frames=reader.native_frames,
        peak=float(reader.peak),
        units=tuple(units),
        starts=starts,
        lengths=lengths,
        measured=_measured(track, starts, lengths),
        kind=kind,
        note=reader.note,
    )


def _told_of(reader: AudioReader, told: Stages) -> Iterator[Float32Array]:
    done = 0
    for block in reader.blocks():
        done += len(block)
        done_s = done // RATE
        told("Reading the seed, seconds of sound", done_s, max(done_s, int(reader.facts.duration_s or 0)))
        yield block


def _measured(track: Track, starts: Int64Array, lengths: Int64Array) -> Qualities:
    """Return what each unit sounds like: of a long seed only the frames of the unit are looked at."""
    parts = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        low = min(start, len(track.frames))
        parts.append(measure(track.frames[low : start + length + 1], np.array([start - low]), length))
    return join_qualities(parts)


def questions(seed: Seed, model: Model) -> tuple[Float16Array, Float16Array]:
    """Return two vectors for each unit, (n, dimension) float16 each: with its surroundings, and by itself.

    The first is of a window of the seed centred on the unit, real sound on both sides: that is what windows of long
    files look like. The second is of the unit alone, filled up as the model fills short sounds: that is what single
    hits look like. A unit longer than a window asks twice by its surroundings. Rows of zeros stand for silence.
    """
    identity = model.identity
    gain = 1.0 / seed.peak if identity.level == "peak" and seed.peak >= SILENCE else 1.0
    window = identity.window_samples
    scale = identity.sample_rate / seed.sample_rate
    total = round(seed.frames * scale)
    starts, lengths = [], []
    for unit in seed.units:
        start, end = unit.start * scale, unit.end * scale
        centred = round((start + end) / 2 - window / 2)
        starts += [min(max(0, centred), max(0, total - window)), round(start)]
        lengths += [window, min(window, max(1, round(end - start)))]
    order = np.argsort(starts, kind="stable")
    vectors = np.zeros((len(starts), identity.dimension), np.float16)
    pending: list[tuple[int, Float32Array]] = []
    with AudioReader(seed.sound, sample_rate=identity.sample_rate) as reader:
        pieces = cut_pieces(reader.blocks(), [(starts[place], lengths[place]) for place in order])
        for place, piece in zip(order, pieces, strict=True):
            if np.abs(piece).max(initial=0.0) >= SILENCE:
                pending.append((int(place), fill(piece * np.float32(gain), window, identity.filling)))
            if len(pending) == BATCH:
                _embed(model, pending, vectors)
                pending = []
    _embed(model, pending, vectors)
    return vectors[0::2], vectors[1::2]


def _embed(model: Model, pending: list[tuple[int, Float32Array]], vectors: Float16Array) -> None:
    if pending:
        vectors[[place for place, _ in pending]] = model.embed(np.stack([piece for _, piece in pending]))


def cut_pieces(blocks: Iterable[Float32Array], wanted: list[tuple[int, int]]) -> Iterator[Float32Array]:
    """Yield ``(start, length)`` pieces, by ascending start, of a sound that comes in blocks; short at its end."""
    kept: Float32Array = np.zeros((0,), np.float32)
    position = 0  # of kept[0]
    source = iter(blocks)
    ended = False
    for start, length in wanted:
        while not ended and position + len(kept) < start + length:
            block = next(source, None)
            if block is None:
                ended = True
                break
            drop = min(max(0, start - position), len(kept))
            kept = np.concatenate((kept[drop:], block)) if len(kept) else block
            position += drop
        yield kept[max(0, start - position) : max(0, start - position) + length]


def unit_times_s(seed: Seed) -> Float64Array:
    """Return (n, 2) start and end of each unit in seconds."""
    return np.array([(unit.start, unit.end) for unit in seed.units], np.float64) / seed.sample_rate
