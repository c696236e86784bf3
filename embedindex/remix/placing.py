"""From a path through the candidates to exact places in their files: each laid in line with the seed, in threads.

Conventions: a chain is a unit and those after it that go on in its file; chains know nothing of each other, so they are
placed side by side, and told in the order of the units. Sounds are (n, channels) float32 at the output rate.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import AudioError
from embedindex.records import FileRecord
from embedindex.remix.align import MARGIN_S, Placed, place
from embedindex.remix.at_hand import AtHand, Span, span_of
from embedindex.remix.breakpoints import Breakpoints
from embedindex.remix.candidates import Pool
from embedindex.remix.coarse import SHORT_UP_TO_S
from embedindex.remix.fitting import UNBENT, Limits
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.path import Path
from embedindex.remix.seed import Seed, unit_times_s
from embedindex.remix.sequence import Sequence, step_sounds
from embedindex.remix.stretches import Candidates
from embedindex.remix.threads import threads_for

LONGEST_CHAIN = 64  # units whose sound is held at a time
NEVER = Breakpoints((0.0,), (0.0,))


@dataclass(frozen=True)
class Bending:
    """How far pieces may be bent, over the time of the output; see `fitting.Limits`."""

    stretch: Breakpoints = NEVER
    semitones: Breakpoints = NEVER

    @property
    def none(self) -> bool:
        """Whether nothing ever is."""
        return not any((*self.stretch.values, *self.semitones.values))


UNBENDING = Bending()


@dataclass(frozen=True, eq=False)
class UnitPlace:
    """Where one step's sound comes from.

    Attributes:
        step: its number.
        sound: the seed around it, `MARGIN_S` before it and no more behind it.
        record: the file, None where nothing sounds.
        placed: where in it.
        candidate: which of the unit's candidates.
    """

    step: int
    sound: Float32Array
    record: FileRecord | None = None
    placed: Placed | None = None
    candidate: int = -1


class Placer:
    """Places the choices for the steps through one seed.

    Args:
        seed: the seed.
        pool: the candidates of each step.
        steps: the order in which its units sound.
        channels: of the output.
        bending: how far pieces may be bent, over time; only those that stand alone are.
        merged: whether units are merged with the seed's, so that it is read unit by unit, too.
    """

    def __init__(
        self,
        seed: Seed,
        pool: Pool,
        steps: Sequence,
        channels: int,
        bending: Bending = UNBENDING,
        *,
        merged: bool = False,
    ) -> None:
        self._seed, self._pool, self._steps, self._channels = seed, pool, steps, channels
        self._bending, self._merged = bending, merged
        self._rate = steps.sample_rate
        self._margin = round(MARGIN_S * self._rate)
        self._times = unit_times_s(seed)

    def places(self, path: Path) -> Iterator[UnitPlace]:
        """Yield the place of every unit, in order; of a choice that cannot be read, that of the next best.

        Meanwhile `at_hand` says where to read the files' sounds from.

        Raises:
            AudioError: the seed cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="embedindex-") as folder:
            self.at_hand = AtHand(self._spans(path), folder)
            yield from self._in_threads(path)

    def _spans(self, path: Path) -> Iterator[Span]:
        """Yield what of the files will be read."""
        for step, chosen in enumerate(path.places.tolist()):
            if chosen < 0:
                continue
            found = self._pool.candidates[step]
            record = self._pool.files[int(found.files[chosen])]
            native = record.sample_rate or self._rate
            longest_s = self._steps.frames(step) / self._rate / (1.0 - self._limits(step).stretch)
            start = round(self._start_s(step, found, chosen) * native)
            yield span_of(record.path, start, longest_s, native, self._rate)
            if self._merged:
                own = self._seed.sample_rate
                start = round(self._steps.origins[step] * own / self._rate)
                yield span_of(self._seed.sound, start, longest_s, own, self._rate)

    def _in_threads(self, path: Path) -> Iterator[UnitPlace]:
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
        for unit, sound in enumerate(step_sounds(self._seed, self._steps, self._channels)):
            if chain and (not path.follows[unit] or len(chain) == LONGEST_CHAIN):
                yield chain
                chain = []
            chain.append((unit, sound))
        if chain:
            yield chain

    def _place_chain(self, chain: list[tuple[int, Float32Array]], path: Path) -> list[UnitPlace]:
        made: list[UnitPlace] = []
        carried: tuple[int, int] | None = None  # the file, and its frame at the end of the unit before
        for unit, sound in chain:
            chosen = int(path.places[unit])
            limits = self._limits(unit) if len(chain) == 1 else UNBENT
            found = self._placed(unit, chosen, sound, carried if path.follows[unit] else None, limits)
            made.append(found)
            carried = None
            frames = self._steps.frames(unit)
            if found.record is not None and found.placed is not None and found.placed.there >= frames:
                step = round(frames * found.placed.native_rate / self._rate)
                carried = (found.record.id, found.placed.start + step)
        return made

    def _limits(self, unit: int) -> Limits:
        time_s = self._steps.bounds[unit] / self._rate
        return Limits(self._bending.stretch.at(time_s), self._bending.semitones.at(time_s))

    def _placed(
        self, unit: int, chosen: int, sound: Float32Array, carried: tuple[int, int] | None, limits: Limits
    ) -> UnitPlace:
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
                    self.at_hand(record.path),
                    self._start_s(unit, found, candidate),
                    sound,
                    self._margin,
                    self._steps.frames(unit),
                    self._rate,
                    self._seed.units[self._steps.units[unit]].attack_s,
                    exact_start,
                    roughly=(record.duration or 0.0) > SHORT_UP_TO_S,
                    lowest_db=self._seed.lowest_db,
                    limits=limits,
                )
            except AudioError:
                continue
            return UnitPlace(unit, sound, record, placed, candidate)
        return UnitPlace(unit, sound)

    def _start_s(self, unit: int, found: Candidates, candidate: int) -> float:
        """Return where a candidate starts: as far from the frame it was found at as the unit is from its own."""
        own_s = float(self._times[self._steps.units[unit], 0])
        return max(0.0, own_s + (int(found.starts[candidate]) - round(own_s * FRAMES_PER_S)) / FRAMES_PER_S)
