"""Tracks of library files, made when they are first asked for and kept as long as memory allows.

Conventions: a region is a stretch of a file's track, counted in frames from the file's start (see `frames`). Long files
that can be entered anywhere are described in chunks of 8 s; others whole, because they must be decoded from the front.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.decoders import LOSSY_STREAMS
from embedindex.errors import AudioError
from embedindex.remix.frames import (
    FINE,
    FRAMES_PER_S,
    HOP,
    N_FFT,
    RATE,
    Track,
    describe,
    describe_blocks,
    fine_envelope_db,
)

CHUNK_FRAMES = 693  # a whole number of envelope steps: 693 * 256 = 8064 * 22
CHUNK_FINE = CHUNK_FRAMES * HOP // FINE
WHOLE_UP_TO_S = 60.0
LIMIT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class _File:
    chunked: bool
    frames: int


class TrackCache:
    """The tracks of files, by path.

    Args:
        limit_bytes: how much to keep.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._files: dict[bytes, _File] = {}
        self._chunks: OrderedDict[tuple[bytes, int], Track] = OrderedDict()

    def region(self, path: bytes, first: int, last: int) -> tuple[int, Track]:
        """Return (first frame it has, track) for the frames `first` up to `last` of a file, as far as they exist.

        Raises:
            AudioError: the file cannot be read.
        """
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = self._open(path)
        first = min(max(0, first), file.frames)
        last = min(max(first, last), file.frames)
        if not file.chunked:
            return 0, self._chunk(path, 0, file)
        numbers = range(first // CHUNK_FRAMES, max(first, last - 1) // CHUNK_FRAMES + 1)
        parts = [self._chunk(path, number, file) for number in numbers]
        if len(parts) == 1:
            return numbers[0] * CHUNK_FRAMES, parts[0]
        joined = Track(
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.fine_db for part in parts]),
            sum(part.samples for part in parts),
        )
        return numbers[0] * CHUNK_FRAMES, joined

    def _open(self, path: bytes) -> _File:
        with AudioReader(path) as reader:
            facts = reader.facts
        seekable = facts.decoder == "libsndfile" and facts.container not in LOSSY_STREAMS
        if seekable and facts.duration_s is not None and facts.duration_s > WHOLE_UP_TO_S:
            return _File(True, 1 + int(facts.duration_s * FRAMES_PER_S))
        track = self._whole(path)
        self._keep((path, 0), track)
        return _File(False, len(track.frames))

    def _chunk(self, path: bytes, number: int, file: _File) -> Track:
        found = self._chunks.get((path, number))
        if found is not None:
            self._chunks.move_to_end((path, number))
            return found
        made = self._part(path, number) if file.chunked else self._whole(path)
        self._keep((path, number), made)
        return made

    def _keep(self, key: tuple[bytes, int], track: Track) -> None:
        self._chunks[key] = track
        self._bytes += track.frames.nbytes + track.fine_db.nbytes
        while self._bytes > self._limit and len(self._chunks) > 1:
            _, old = self._chunks.popitem(last=False)
            self._bytes -= old.frames.nbytes + old.fine_db.nbytes

    def _whole(self, path: bytes) -> Track:
        with AudioReader(path, sample_rate=RATE) as reader:
            return describe_blocks(reader.blocks())

    def _part(self, path: bytes, number: int) -> Track:
        """Describe one chunk, with the sound before and behind it that its outer frames look at."""
        before = 0 if number == 0 else 4 * HOP  # enough for the window and for the rise since the frame before
        start = number * CHUNK_FRAMES * HOP - before
        wanted = before + CHUNK_FRAMES * HOP + N_FFT
        parts: list[Float32Array] = []
        length = 0
        with AudioReader(path, sample_rate=RATE, start_s=start / RATE, block_s=9.0) as reader:
            for block in reader.blocks():
                parts.append(block)
                length += len(block)
                if length >= wanted:
                    break
        samples = np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)
        track = describe(samples)
        inside = samples[before : before + CHUNK_FRAMES * HOP]
        fine_db = fine_envelope_db(np.pad(inside, (0, -len(inside) % FINE)))
        skip = before // HOP
        return Track(track.frames[skip : skip + CHUNK_FRAMES], fine_db, len(inside))


def try_region(cache: TrackCache, path: bytes, first: int, last: int) -> tuple[int, Track] | AudioError:
    """Return what `TrackCache.region` returns, or the error that it raised."""
    try:
        return cache.region(path, first, last)
    except AudioError as error:
        return error
