"""How much of a scan's sound is done, for a time left that can be trusted: by length of sound, not by files or bytes.

A file's length is guessed from its size, by what files of the same kind (suffix and rough size) have shown so far: a
byte of MP3 holds ten times as much sound as one of WAV, and archives of speech have another format than one-shots. The
lengths come from the files that are done and, before those, from a look into a few (`length_probe`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TypeAlias

# Lossy and lossless music together: what files are guessed at while none is known, bytes a second.
FALLBACK_BYTES_PER_S = 40_000.0
# A file's suffix, and its size in steps of a factor of four.
Kind: TypeAlias = tuple[bytes, int]


class SoundLeft:
    """Counts the sound that is done and guesses what is left.

    Args:
        sizes: bytes to do by kind, as `kind_of` gives it.
    """

    def __init__(self, sizes: dict[Kind, int]) -> None:
        self._left = defaultdict(int, sizes)
        self._bytes: defaultdict[Kind, int] = defaultdict(int)  # of files whose length is known
        self._seconds: defaultdict[Kind, float] = defaultdict(float)
        self._done_s = 0.0
        self._passed: defaultdict[Kind, int] = defaultdict(int)  # bytes of files done without learning their length

    def learn(self, path: bytes, size: int, duration_s: float) -> None:
        """Note how long a file is that may not be done yet."""
        kind = kind_of(path, size)
        self._bytes[kind] += size
        self._seconds[kind] += duration_s

    def done(self, path: bytes, size: int, duration_s: float | None) -> None:
        """Note that a file is done; `duration_s` is None where it was not decoded, or could not be."""
        kind = kind_of(path, size)
        self._left[kind] -= size
        if duration_s is None:
            self._passed[kind] += size
        else:
            self._done_s += duration_s
            self.learn(path, size, duration_s)

    def left_s(self) -> float:
        """Return how many seconds of sound are left."""
        return self._guess_s(self._left)

    def share(self) -> float:
        """Return the share of all sound that is done, 0 to 1."""
        done_s = self._done_s + self._guess_s(self._passed)
        left_s = self.left_s()
        return done_s / (done_s + left_s) if done_s + left_s > 0 else 0.0

    def _guess_s(self, sizes: dict[Kind, int]) -> float:
        """Return the seconds of sound in files of these sizes by kind: as their kind has, their suffix, or all."""
        by_suffix: dict[bytes, tuple[int, float]] = {}
        for (ending, _), size in self._bytes.items():
            known, known_s = by_suffix.get(ending, (0, 0.0))
            by_suffix[ending] = (known + size, known_s)
        for (ending, _), seconds in self._seconds.items():
            known, known_s = by_suffix[ending]
            by_suffix[ending] = (known, known_s + seconds)
        whole, whole_s = sum(self._bytes.values()), sum(self._seconds.values())
        everything = (whole, whole_s) if whole and whole_s else (FALLBACK_BYTES_PER_S, 1.0)
        guessed_s = 0.0
        for kind, size in sizes.items():
            kinds = (self._bytes.get(kind, 0), self._seconds.get(kind, 0.0)), by_suffix.get(kind[0], (0, 0.0))
            held, held_s = next((pair for pair in kinds if pair[0]), everything)
            guessed_s += size * held_s / held
        return guessed_s


def kind_of(path: bytes, size: int) -> Kind:
    """Return the kind of a file, by its name and its bytes."""
    return os.path.splitext(path)[1].lower(), size.bit_length() // 2
