"""How much of a scan's sound is done, for a time left that can be trusted: by length of sound, not by files or bytes.

A file's length is guessed from its size, by what the files of the same suffix have shown so far: a byte of MP3 holds
ten times as much sound as one of WAV. No header is opened for it: this is the process that writes the index, which
damaged files must not reach, and a scan begins with a file of every folder, so that it soon knows all kinds.
"""

from __future__ import annotations

import os
from collections import defaultdict

# Lossy and lossless music together: what files are guessed at while none is known, bytes a second.
FALLBACK_BYTES_PER_S = 40_000.0


class SoundLeft:
    """Counts the sound that is done and guesses what is left.

    Args:
        sizes: bytes to do by suffix, as `suffix` gives it.
    """

    def __init__(self, sizes: dict[bytes, int]) -> None:
        self._left = defaultdict(int, sizes)
        self._bytes: defaultdict[bytes, int] = defaultdict(int)  # of files whose length is known
        self._seconds: defaultdict[bytes, float] = defaultdict(float)
        self._passed: defaultdict[bytes, int] = defaultdict(int)  # bytes of files done without learning their length

    def done(self, path: bytes, size: int, duration_s: float | None) -> None:
        """Note that a file is done; `duration_s` is None where it was not decoded, or could not be."""
        kind = suffix(path)
        self._left[kind] -= size
        if duration_s is None:
            self._passed[kind] += size
        else:
            self._bytes[kind] += size
            self._seconds[kind] += duration_s

    def share(self) -> float:
        """Return the share of all sound that is done, 0 to 1."""
        done_s = sum(self._seconds.values()) + self._guess_s(self._passed)
        left_s = self._guess_s(self._left)
        return done_s / (done_s + left_s) if done_s + left_s > 0 else 0.0

    def _guess_s(self, sizes: dict[bytes, int]) -> float:
        """Return the seconds of sound in files of these sizes by suffix."""
        whole, whole_s = sum(self._bytes.values()), sum(self._seconds.values())
        average = whole / whole_s if whole and whole_s else FALLBACK_BYTES_PER_S
        return sum(
            size * self._seconds[kind] / self._bytes[kind] if self._bytes.get(kind) else size / average
            for kind, size in sizes.items()
        )


def suffix(path: bytes) -> bytes:
    """Return the ending of a file's name that stands for its kind: ``b".mp3"``."""
    return os.path.splitext(path)[1].lower()
