"""From a path through the candidates to exact places in their files: each laid in line with the seed, in threads.

Conventions: a chain is a unit and those after it that go on in its file; chains know nothing of each other, so they are
placed side by side, and told in the order of the units. Sounds are (n, channels) float32 at the output rate.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.errors import AudioError
from embedindex.records import FileRecord
from embedindex.remix.align import MARGIN_S, Placed, place
from embedindex.remix.candidates import Pool
from embedindex.remix.coarse import SHORT_UP_TO_S
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.path import Path
from embedindex.remix.seed import Seed, cut_pieces, unit_times_s
from embedindex.remix.spans import with_channels
from embedindex.remix.stretches import Candidates

MOST_THREADS = 16
LONGEST_CHAIN = 64  # units whose sound is held at a time


def threads_for(work: int) -> int:
    """Return how many threads to use for so many pieces of work."""
    return max(1, min(MOST_THREADS, os.cpu_count() or 1, work))


@dataclass(frozen=True, eq=False)
class UnitPlace:
    """Where one unit's sound comes from.

    Attributes:
        unit: number of the unit.
        sound: the seed around it, `MARGIN_S` before it and no more behind it.
        record: the file, None where nothing sounds.
        placed: where in it.
        candidate: which of the unit's candidates.
    """

    unit: int
    sound: Float32Array
    record: FileRecord | None = None
    placed: Placed | None = None
    candidate: int = -1


class Placer:
    """Places the choices for the units of one seed.

    Args:
        seed: the seed.
        pool: its candidates.
        bounds: boundaries of the units, output frames.
        sample_rate: of the output, Hz.
        channels: of the output.
    """

    def __init__(self, seed: Seed, pool: Pool, bounds: list[int], sample_rate: int, channels: int) -> None:
        self._seed, self._pool, self._bounds = seed, pool, bounds
        self._rate, self._channels = sample_rate, channels
        self._margin = round(MARGIN_S * sample_rate)
        self._times = unit_times_s(seed)

    def places(self, path: Path) -> Iterator[UnitPlace]:
        """Yield the place of every unit, in order; of a choice that cannot be read, that of the next best.

        Raises:
            AudioError: the seed cannot be read.
        """
        workers = threads_for(len(path.places))
        waiting: deque[Future[list[UnitPlace]]] = deque()
        with ThreadPoolExecutor(workers) as threads:
            try:
                for chain in self._chains(path):
                    waiting.append(threads.submit(self._place_chain, chain, path))
                    if len(waiting) > 2 * workers:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _chains(self, path: Path) -> Iterator[list[tuple[int, Float32Array]]]:
        chain: list[tuple[int, Float32Array]] = []
        for unit, sound in enumerate(self._unit_sounds()):
            if chain and (not path.follows[unit] or len(chain) == LONGEST_CHAIN):
                yield chain
                chain = []
            chain.append((unit, sound))
        if chain:
            yield chain

    def _unit_sounds(self) -> Iterator[Float32Array]:
        """Yield, for each unit, the seed around it at the output rate."""
        bounds, margin = self._bounds, self._margin
        firsts = [max(0, start - margin) for start in bounds[:-1]]
        wanted = [(first, end - first) for first, end in zip(firsts, bounds[1:], strict=True)]
        with AudioReader(self._seed.path, sample_rate=self._rate, mono=False) as reader:
            blocks = (with_channels(block, self._channels) for block in reader.blocks())
            for number, piece in enumerate(cut_pieces(blocks, wanted)):
                before = margin - (bounds[number] - firsts[number])
                lacks = wanted[number][1] - len(piece)
                yield np.pad(piece.reshape(-1, self._channels), ((before, lacks), (0, 0)))

    def _place_chain(self, chain: list[tuple[int, Float32Array]], path: Path) -> list[UnitPlace]:
        made: list[UnitPlace] = []
        carried: tuple[int, int] | None = None  # the file, and its frame at the end of the unit before
        for unit, sound in chain:
            chosen = int(path.places[unit])
            found = self._placed(unit, chosen, sound, carried if path.follows[unit] else None)
            made.append(found)
            carried = None
            frames = self._bounds[unit + 1] - self._bounds[unit]
            if found.record is not None and found.placed is not None and found.placed.there >= frames:
                step = round(frames * found.placed.native_rate / self._rate)
                carried = (found.record.id, found.placed.start + step)
        return made

    def _placed(self, unit: int, chosen: int, sound: Float32Array, carried: tuple[int, int] | None) -> UnitPlace:
        if chosen < 0:
            return UnitPlace(unit, sound)
        found = self._pool.candidates[unit]
        order = [chosen, *(int(i) for i in np.argsort(found.costs, kind="stable") if i != chosen)]
        for candidate in order:
            record = self._pool.files[int(found.files[candidate])]
            exact_start = None
            if candidate == chosen and carried is not None and carried[0] == record.id:
                exact_start = carried[1]
            try:
                placed = place(
                    record.path,
                    self._start_s(unit, found, candidate),
                    sound,
                    self._margin,
                    self._bounds[unit + 1] - self._bounds[unit],
                    self._rate,
                    self._seed.units[unit].attack_s,
                    exact_start,
                    roughly=(record.duration or 0.0) > SHORT_UP_TO_S,
                )
            except AudioError:
                continue
            return UnitPlace(unit, sound, record, placed, candidate)
        return UnitPlace(unit, sound)

    def _start_s(self, unit: int, found: Candidates, candidate: int) -> float:
        """Return where a candidate starts: as far from the frame it was found at as the unit is from its own."""
        own_s = float(self._times[unit, 0])
        return max(0.0, own_s + (int(found.starts[candidate]) - round(own_s * FRAMES_PER_S)) / FRAMES_PER_S)
