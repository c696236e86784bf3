"""Sounds whose middle can only be reached from their beginning (AAC, WMA, films), laid at hand for one remix.

Each is decoded once, as far as it is needed, into a temporary file that any piece is read from at once: decoding anew
for each piece would take minutes. Where there is no room for it, that is what happens.

Conventions: spans are frames of a file at its own rate; the temporary file is a float WAV that has what the original
has within the spans, on the same frames, and holes between them.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from embedindex.audio import AudioReader
from embedindex.errors import AudioError
from embedindex.remix.recipe import Event, Recipe, Source

AROUND_S = 0.6  # read on both sides of a unit: for fades, for the sound before it that stretching wants to hear…
MOST_BYTES = 4 << 30  # of temporary files for one remix
SPARE_BYTES = 1 << 28  # are left to others on the disk
LARGEST_BYTES = 4_000_000_000  # what a WAV file can be
FEWEST = 2  # pieces; of one, nothing is gained
SHORT_S = 8.0  # so much is decoded in no time
HEADER = struct.Struct("<4sI4s4sIHHIIHHH4sI")
FLOAT = 3

Span = tuple[bytes, int, int]  # the file, the first frame wanted of it, and the frame after the last one


def span_of(path: bytes, start: int, seconds: float, native_rate: int, sample_rate: int) -> Span:
    """Return what may be read of a file for a unit of `seconds` that begins on its frame `start`.

    Args:
        path: the file.
        start: frame.
        seconds: of the file that are heard.
        native_rate: of the file, Hz.
        sample_rate: of the output, Hz.
    """
    period = native_rate // math.gcd(native_rate, sample_rate)  # where rates differ, see `spans`
    around = round(AROUND_S * native_rate) + period
    return path, max(0, start - around), start + round(seconds * native_rate) + around


class AtHand:
    """Files of one remix, each laid at hand when it is first asked for.

    Args:
        spans: what is needed of them.
        folder: where to; it has to stay for as long as anything is read.
    """

    def __init__(self, spans: Iterable[Span], folder: str) -> None:
        self._folder = folder
        self._wanted: dict[bytes, list[tuple[int, int]]] = {}
        for path, first, end in spans:
            self._wanted.setdefault(path, []).append((first, end))
        self._locks = {path: threading.Lock() for path, pieces in self._wanted.items() if len(pieces) >= FEWEST}
        self._found: dict[bytes, bytes] = {}
        self._room = threading.Lock()
        self._bytes = self._number = 0

    def __call__(self, path: bytes) -> bytes:
        """Return the file to read a path's sound from; from any thread."""
        lock = self._locks.get(path)
        if lock is None:
            return path
        with lock:
            if path not in self._found:
                self._found[path] = self._laid(path) or path
        return self._found[path]

    def _laid(self, path: bytes) -> bytes | None:
        """Write the pieces of a file; return where, or None if it is to be read itself."""
        pieces = united(self._wanted.pop(path))
        with self._room:
            self._number += 1
            target = os.path.join(self._folder, f"{self._number}.wav")
        try:
            with AudioReader(path, mono=False) as reader:
                if not reader.from_start or pieces[-1][1] < SHORT_S * reader.facts.sample_rate:
                    return None
                if not self._reserved(pieces, 4 * reader.facts.channels):
                    return None
                _write(reader, pieces, target)
        except (AudioError, OSError):  # whoever reads the file itself is told what is wrong with it
            if os.path.exists(target):
                os.unlink(target)
            return None
        return os.fsencode(target)

    def _reserved(self, pieces: list[tuple[int, int]], frame_bytes: int) -> bool:
        """Take the room for some pieces; return whether there is any."""
        needed = sum(end - first for first, end in pieces) * frame_bytes
        if pieces[-1][1] * frame_bytes > LARGEST_BYTES:
            return False
        with self._room:
            if self._bytes + needed > min(MOST_BYTES, self._bytes + shutil.disk_usage(self._folder).free - SPARE_BYTES):
                return False
            self._bytes += needed
        return True


def united(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return pieces in order, those that touch as one."""
    made: list[tuple[int, int]] = []
    for first, end in sorted(pieces):
        if made and first <= made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((first, end))
    return made


def _write(reader: AudioReader, pieces: list[tuple[int, int]], target: str) -> None:
    channels, last = reader.facts.channels, pieces[-1][1]
    frame_bytes = 4 * channels
    position = 0
    with open(target, "wb") as file:
        for block in reader.blocks():
            for first, end in pieces:
                low, high = max(first, position), min(end, position + len(block))
                if low < high:
                    file.seek(HEADER.size + low * frame_bytes)
                    file.write(block[low - position : high - position].astype("<f4").tobytes())
            position += len(block)
            if position >= last:
                break
        size = min(position, last) * frame_bytes
        file.truncate(HEADER.size + size)
        file.seek(0)
        rate = reader.facts.sample_rate
        file.write(
            HEADER.pack(
                *(b"RIFF", HEADER.size - 8 + size, b"WAVE", b"fmt ", 18, FLOAT, channels, rate, rate * frame_bytes),
                *(frame_bytes, 32, 0, b"data", size),
            )
        )


@contextmanager
def sounds_at_hand(recipe: Recipe) -> Iterator[Recipe]:
    """Give a recipe whose sources, and seed where units are merged with it, are read from what is at hand."""
    with tempfile.TemporaryDirectory(prefix="embedindex-") as folder:
        yield replace(recipe, at_hand=AtHand(_spans(recipe), folder))


def _spans(recipe: Recipe) -> Iterator[Span]:
    rate = recipe.output.sample_rate
    for event in recipe.events:
        if event.source is None:
            continue
        yield _span(recipe.sources[event.source], event.source_start, event, rate)
        if event.morph != "none" and not recipe.parts:
            start = event.start if event.seed_start is None else event.seed_start
            yield _span(recipe.seed, round(start * recipe.seed.sample_rate / rate), event, rate)


def _span(source: Source, start: int, event: Event, rate: int) -> Span:
    return span_of(source.path, start, event.frames / rate / event.stretch, max(1, source.sample_rate), rate)
