"""How long some of the files on a list are, by their headers: for the time left of a scan, from its beginning.

The files are a sample of every kind on the list (`time_left.Kind`). They are opened by a process of its own, which has
the limits of a scan's workers and is given up when it takes too long: this one writes the index, which damaged files
must not reach, and waits for no slow drive. Lengths are seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from embedindex.audio import probe
from embedindex.child_process import interrupts_blocked, limit_process, one_thread_each
from embedindex.errors import AudioError, ServerAwayError
from embedindex.messages import GONE
from embedindex.quiet import quieten_libraries
from embedindex.remote import read_in_blocks
from embedindex.time_left import Kind, kind_of

PROBED_FILES = 300
KEPT_OF_A_KIND = 64
# All files together may take so long, one file, and the start of the process.
PROBE_S = 15.0
STALL_S = 5.0
START_S = 60.0
STARTS = 4
NICENESS = 10
MEMORY_BYTES = 2 * 2**30


@dataclass
class _Stratum:
    files: int = 0
    size: int = 0
    kept: list[tuple[bytes, int]] = field(default_factory=list)


class Sample:
    """A few files of every kind on a list that may be long.

    Args:
        seed: of the choice.
    """

    def __init__(self, seed: int = 0) -> None:
        self._strata: defaultdict[Kind, _Stratum] = defaultdict(_Stratum)
        self._random = random.Random(seed)  # noqa: S311 - a sample, not a secret

    def add(self, path: bytes, size: int) -> None:
        """Take note of a file."""
        stratum = self._strata[kind_of(path, size)]
        stratum.files += 1
        stratum.size += size
        # Reservoir sampling (Vitter 1985, algorithm R).
        if len(stratum.kept) < KEPT_OF_A_KIND:
            stratum.kept.append((path, size))
        elif (place := int(self._random.random() * stratum.files)) < KEPT_OF_A_KIND:
            stratum.kept[place] = (path, size)

    def sizes(self) -> dict[Kind, int]:
        """Return the bytes of all files by kind."""
        return {kind: stratum.size for kind, stratum in self._strata.items()}

    def choose(self, most: int = PROBED_FILES) -> list[tuple[bytes, int]]:
        """Return (path, size) of up to `most` files: one of each kind, then more of the kinds with the most bytes.

        The order is that in which they tell the most, as there may not be time for all (D'Hondt's method of seats).
        """
        strata = [stratum for stratum in self._strata.values() if stratum.size]
        for stratum in strata:
            self._random.shuffle(stratum.kept)
        chosen: list[tuple[bytes, int]] = []
        taken = [0] * len(strata)

        def claim(number: int) -> float:
            if taken[number] == len(strata[number].kept):
                return -1.0
            return strata[number].size / taken[number] if taken[number] else strata[number].size * 1e12

        while strata and len(chosen) < most:
            best = max(range(len(strata)), key=claim)
            if claim(best) < 0:
                break
            chosen.append(strata[best].kept[taken[best]])
            taken[best] += 1
        return chosen


@dataclass(frozen=True)
class Length:
    """How long a file of so many bytes is; 0 for one without sound in it."""

    path: bytes
    size: int
    duration_s: float


class LengthProbe:
    """Looks into files, in the background. Close it at the end.

    Args:
        files: (path, size) of each.
        limit_s: seconds for all of them together; what is not known by then stays unknown.
        stall_s: seconds for one; a file that takes longer, or a decoder down, is left out.
    """

    def __init__(
        self, files: Sequence[tuple[bytes, int]], *, limit_s: float = PROBE_S, stall_s: float = STALL_S
    ) -> None:
        self._files = files
        self._limit_s = limit_s
        self._stall_s = stall_s
        self._next = 0
        self._starts = 0
        self._running: tuple[SpawnProcess, Connection] | None = None
        self._ready = False
        self._heard = 0.0
        self._used_s = 0.0
        self.done = not files

    def poll(self, wait_s: float = 0.0) -> list[Length]:
        """Return what was found since the last call, waiting at most so many seconds; the first call begins the work.

        `done` is True when nothing more will come.
        """
        found: list[Length] = []
        if self.done:
            return found
        if self._running is None:
            self._start()
        assert self._running is not None  # noqa: S101 - for the type checker
        connection = self._running[1]
        try:
            while not self.done and connection.poll(wait_s):
                wait_s = 0.0
                self._hear(connection.recv(), found)
        except (EOFError, OSError):
            self._give_up()
        now = time.monotonic()
        if not self.done and self._running is not None:
            silent_s = now - self._heard
            if self._ready and self._used_s + silent_s > self._limit_s:
                self.close()
            elif silent_s > (self._stall_s if self._ready else START_S):
                self._used_s += silent_s
                self._give_up()
        return found

    def _hear(self, duration_s: float | str | None, found: list[Length]) -> None:
        now = time.monotonic()
        if isinstance(duration_s, str):
            self._ready = True
        else:
            self._used_s += now - self._heard
            if duration_s is not None:
                found.append(Length(*self._files[self._next], duration_s))
            self._next += 1
            if self._next == len(self._files):
                self.close()
        self._heard = now

    def _start(self) -> None:
        self._starts += 1
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        arguments = (theirs, [path for path, _ in self._files[self._next :]], os.getpid())
        process = context.Process(target=_look, args=arguments, daemon=True)
        with one_thread_each(), interrupts_blocked():
            process.start()
        theirs.close()
        self._running, self._ready, self._heard = (process, ours), False, time.monotonic()

    def _give_up(self) -> None:
        """Leave out the file at hand, and let another process go on with the rest."""
        self._end()
        self._next += 1
        self.done = self._starts >= STARTS or self._next >= len(self._files)

    def close(self) -> None:
        """End the work."""
        self.done = True
        self._end()

    def _end(self) -> None:
        if self._running is not None:
            process, connection = self._running
            self._running = None
            connection.close()
            process.kill()
            process.join(1.0)  # one that waits for a dead drive cannot be killed


def _look(connection: Connection, paths: list[bytes], parent: int) -> None:
    """Send the length of each file, None where it is not known; the target of the process."""
    limit_process(parent, NICENESS, MEMORY_BYTES)
    quieten_libraries()
    read_in_blocks()
    with contextlib.suppress(*GONE):
        connection.send("ready")
        for path in paths:
            connection.send(_length_s(path))


def _length_s(path: bytes) -> float | None:
    try:
        return probe(path).duration_s
    except ServerAwayError:
        return None
    except AudioError:
        return 0.0  # its bytes hold no sound
    except Exception:  # noqa: BLE001 - whatever a decoder raises: the scan will say so
        return None
