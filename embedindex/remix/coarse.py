"""Tracks made small: 19 bytes for every 93 ms of sound (23 ms of short ones), enough to choose by, beside the index.

Conventions: a cell is a few frames of a track (see `frames` and `cell_frames`); its values are means that loud frames
count more in, of flux the maximum, as int8 in steps of `STEPS` from `ZEROS` on. Tracks are kept under their file's
content hash, so a moved or copied file needs no new one. ``remix.db`` can be deleted at any time: it is made again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array
from embedindex.remix.frames import (
    BRIGHTNESS,
    FINE,
    FLUX,
    HOP,
    LEVEL,
    LOWEST_DB,
    NOISINESS,
    PITCH,
    RATE,
    VOICING,
    WIDTH,
    Track,
)

LONG_CELL, SHORT_CELL = 8, 2
SHORT_UP_TO_S = 8.0  # single hits and loops, whose shape in time is what they are
FILE_NAME = "remix.db"
VERSION = 2  # raise it when any number in a track changes: what is kept is then made again

STEPS = np.full(WIDTH, 0.25, np.float32)
STEPS[[LEVEL, BRIGHTNESS, NOISINESS, PITCH, VOICING, FLUX]] = (1.0, 1 / 24, 0.5, 0.5, 0.01, 0.2)
ZEROS = np.zeros(WIDTH, np.float32)
ZEROS[[LEVEL, NOISINESS, PITCH, VOICING, FLUX]] = (-20.0, -50.0, 69.0, 0.5, 25.0)


@dataclass(frozen=True, eq=False)
class CoarseTrack:
    """A track made small.

    Attributes:
        cells: (n, WIDTH) int8.
        samples: length of the sound at `frames.RATE`.
    """

    cells: npt.NDArray[np.int8]
    samples: int

    @property
    def frames(self) -> int:
        """How many frames the track had."""
        return 1 + self.samples // HOP if self.samples else 0


def cell_frames(samples: int) -> int:
    """Return how many frames a cell of a sound of so many samples has."""
    return SHORT_CELL if samples <= SHORT_UP_TO_S * RATE else LONG_CELL


def shrink(track: Track) -> CoarseTrack:
    """Return a track made small."""
    cell = cell_frames(track.samples)
    count = -(-len(track.frames) // cell)
    padded = np.pad(track.frames, ((0, count * cell - len(track.frames)), (0, 0)), mode="edge" if count else "constant")
    rows = padded.reshape(count, cell, WIDTH).astype(np.float64)
    power = 10 ** (rows[:, :, LEVEL] / 10)
    weight = np.sqrt(power)[:, :, None] + 1e-9
    voiced = weight * rows[:, :, VOICING : VOICING + 1] + 1e-12
    made = (rows * weight).sum(axis=1) / weight.sum(axis=1)
    made[:, PITCH] = (rows[:, :, PITCH] * voiced[:, :, 0]).sum(axis=1) / voiced[:, :, 0].sum(axis=1)
    made[:, LEVEL] = 10 * np.log10(np.maximum(power.mean(axis=1), 10 ** (LOWEST_DB / 10)))
    made[:, FLUX] = rows[:, :, FLUX].max(axis=1)
    steps = np.clip(np.round((made - ZEROS) / STEPS), -128, 127)
    return CoarseTrack(steps.astype(np.int8), track.samples)


def grow(coarse: CoarseTrack, first: int, last: int) -> tuple[int, Track]:
    """Return (first frame, track) of the frames `first` up to `last` as far as they can be told from the cells.

    Between the middles of two cells values change evenly; flux stays what it is for the whole cell.
    """
    first = max(0, min(first, coarse.frames))
    last = max(first, min(last, coarse.frames))
    if first == last:
        return first, Track(np.zeros((0, WIDTH), np.float32), np.zeros(0, np.float32), 0)
    frames = grow_frames([(coarse, first, last)])
    fine = np.repeat(frames[:, LEVEL], HOP // FINE + 1)[: (last - first) * HOP // FINE]
    return first, Track(frames, np.asarray(fine, np.float32), (last - first) * HOP)


def grow_frames(pieces: Sequence[tuple[CoarseTrack, int, int]]) -> Float32Array:
    """Return frames `first` up to `last` of each (track, first, last), one piece after the other, (n, WIDTH).

    Pieces lie within their tracks; many at once take hardly longer than one.
    """
    cells = np.array([cell_frames(track.samples) for track, _, _ in pieces])
    firsts = np.array([first for _, first, _ in pieces])
    counts = np.array([last for _, _, last in pieces]) - firsts
    lows = np.maximum(0, firsts // cells - 1)
    highs = (firsts + counts) // cells + 2
    parts = [track.cells[low:high] for (track, _, _), low, high in zip(pieces, lows, highs, strict=True)]
    known = np.array([len(part) for part in parts])
    values = np.concatenate(parts).astype(np.float32) * STEPS + ZEROS
    own = np.repeat(np.arange(len(pieces)), counts)
    frame = np.arange(len(own)) - (np.cumsum(counts) - counts - firsts)[own]
    cell, low, last, begin = cells[own], lows[own], known[own] - 1, (np.cumsum(known) - known)[own]
    at = (frame - (cell - 1) / 2) / cell - low
    left = np.clip(np.floor(at).astype(np.int64), 0, last)
    right = np.minimum(left + 1, last)
    share = np.clip(at - left, 0, 1)[:, None].astype(np.float32)
    frames: Float32Array = values[begin + left] * (1 - share) + values[begin + right] * share
    frames[:, FLUX] = values[begin + np.minimum(frame // cell - low, last), FLUX]
    return frames


class CoarseStore:
    """Small tracks by content hash, in a file beside the index; where it cannot be written, in memory.

    Args:
        folder: the index's folder, None for memory only.
    """

    def __init__(self, folder: str | None) -> None:
        self._connection = self._open(folder)
        self._waiting = 0

    def _open(self, folder: str | None) -> sqlite3.Connection:
        path = ":memory:" if folder is None else os.path.join(folder, FILE_NAME)
        try:
            return self._prepared(path)
        except sqlite3.DatabaseError:
            pass  # damaged, or the folder cannot be written: nothing is lost
        try:
            if folder is not None and os.path.exists(path):
                os.unlink(path)
                return self._prepared(path)
        except (OSError, sqlite3.DatabaseError):
            pass  # read-only: keep what is made in memory
        return self._prepared(":memory:")

    def _prepared(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=5)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                connection.execute("DROP TABLE IF EXISTS tracks")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS tracks"
                " (content_hash BLOB PRIMARY KEY, samples INTEGER NOT NULL, cells BLOB NOT NULL)"
            )
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def __enter__(self) -> CoarseStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Keep what was put, and close."""
        self._commit()
        self._connection.close()

    def get(self, content_hash: bytes) -> CoarseTrack | None:
        """Return the track of a file's content, None if it was not made yet."""
        query = "SELECT samples, cells FROM tracks WHERE content_hash = ?"
        try:
            row = self._connection.execute(query, (content_hash,)).fetchone()
        except sqlite3.DatabaseError:
            return None  # damaged: it is made again
        if row is None or len(row[1]) % WIDTH:
            return None
        return CoarseTrack(np.frombuffer(row[1], np.int8).reshape(-1, WIDTH), row[0])

    def has(self, content_hash: bytes) -> bool:
        """Return whether the track of a file's content was made."""
        try:
            row = self._connection.execute("SELECT 1 FROM tracks WHERE content_hash = ?", (content_hash,)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return row is not None

    def put(self, content_hash: bytes, track: CoarseTrack) -> None:
        """Keep a track."""
        values = (content_hash, track.samples, track.cells.tobytes())
        try:
            self._connection.execute("INSERT OR REPLACE INTO tracks VALUES (?, ?, ?)", values)
        except sqlite3.DatabaseError:
            return  # full or read-only: it is made again next time
        self._waiting += 1
        if self._waiting >= 100:
            self._commit()

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except sqlite3.DatabaseError:
            self._connection.rollback()
        self._waiting = 0
