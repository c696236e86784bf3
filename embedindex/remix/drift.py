"""Remix of nothing: a drift through the library that begins near a seed, each sound near the one before.

Conventions: a step plays one stretch of a file; it is found among the windows nearest to where the last step was, drawn
back towards the seed by as much as `pull` says. Steps are few numbers each; sound is read only to measure and to
render, a stretch at a time, so memory does not grow with the length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from embedindex.arrays import BoolArray, Float32Array
from embedindex.errors import AudioError, QueryError, display_path
from embedindex.index import IndexView
from embedindex.models.base import Model
from embedindex.records import FileRecord
from embedindex.remix.loudness import SILENT_LUFS, unit_lufs
from embedindex.remix.options import RemixOptions
from embedindex.remix.proposals import allowed_windows
from embedindex.remix.qualities import GAIN_LIMIT_DB
from embedindex.remix.recipe import Event, Output, Recipe, ended
from embedindex.remix.seed import Seed, questions, read_seed
from embedindex.remix.sources import source_of_record, source_of_seed
from embedindex.remix.spans import read_span
from embedindex.remix.stretches import SILENT_DB
from embedindex.remix.tracks import Told, untold
from embedindex.remix.units import Cutting
from embedindex.store import Store
from embedindex.windows import window_start_s

NEAR = (96, 1024)  # windows to choose among; more where those of all these files were played lately
UNEVEN = (0.7, 1.4)  # how much shorter and longer than the mean a step may be
FADE_SHARE, LONGEST_FADE_S = 0.4, 4.0
SHORTEST_S = 0.25
CHANCE_COSINE = 0.05  # of temperature 1


@dataclass(frozen=True)
class Drift:
    """What a drift is to be.

    Attributes:
        length_s: how long.
        density: sounds that begin in a second, in each layer.
        layers: how many walks sound together.
        pull: 0 to 1, how strongly the seed draws it back; at 0 it goes anywhere.
        temperature: chance in choosing.
        no_repeat: for so many steps no file comes again, in any layer, unless there is no other.
        lufs: loudness of the whole.
        true_peak_db: ceiling, dBTP.
        include: globs and labels of which a file must have one; empty for all.
        exclude: globs and labels of which it may have none.
        chance: seed of everything random.
    """

    length_s: float
    density: float = 0.4
    layers: int = 1
    pull: float = 0.3
    temperature: float = 0.5
    no_repeat: int = 20
    lufs: float = -20.0
    true_peak_db: float = -1.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    chance: int = 0


@dataclass
class _Walk:
    """One layer's way so far: where it began, where it is, and what it played."""

    layer: int
    home: Float32Array
    here: Float32Array
    rng: np.random.Generator
    events: list[Event] = field(default_factory=list)
    position: int = 0


def never() -> bool:
    """Return False: the drift goes on to its end."""
    return False


class Walker:
    """Walks through the windows of an index.

    Args:
        store: the index.
        view: its search index.
        model: gives the index's model, loaded.
        seed: path of the sound to begin near.
        drift: what it is to be.

    Raises:
        EmbedindexError: the seed cannot be used, or nothing passes the filters.
    """

    def __init__(
        self, store: Store, view: IndexView, model: Callable[[], Model], seed: str | bytes, drift: Drift
    ) -> None:
        self._store, self._view, self._drift = store, view, drift
        self.seed: Seed = read_seed(seed, Cutting("grid", 1.0))
        self._allowed: BoolArray | None = allowed_windows(
            store, view, RemixOptions(include=drift.include, exclude=drift.exclude)
        )
        asked = view.space.apply(questions(self.seed, model())[0])
        if not asked.any():
            raise QueryError(f"{display_path(self.seed.path)}: is silent; begin with a sound")
        self._homes = asked[asked.any(axis=1)]
        self._sources: dict[int, tuple[int, FileRecord]] = {}
        self._unusable: dict[int, str] = {}

    def recipe(self, told: Told = untold, stop: Callable[[], bool] = never) -> Recipe:
        """Return the drift.

        Args:
            told: called with (seconds done, seconds in all).
            stop: asked before each step; when it says so, the drift ends where all layers have come to.

        Raises:
            QueryError: none of the sounds can be read.
        """
        drift, rate = self._drift, self.seed.sample_rate
        frames = max(1, round(drift.length_s * rate))
        played: deque[int] = deque(maxlen=max(0, drift.no_repeat))
        walks = [self._walk(layer) for layer in range(drift.layers)]
        while True:
            walk = min(walks, key=lambda walk: walk.position)
            if walk.position >= frames or (walk.position and stop()):
                break
            self._step(walk, frames - walk.position, played)
            told(min(walk.position for walk in walks) // rate, frames // rate)
        notes = list(self._unusable.values())
        whole = Recipe(
            seed=source_of_seed(self.seed),
            output=Output(rate, 2, frames, drift.lufs, drift.true_peak_db),
            sources=tuple(source_of_record(self._store, record) for _, record in self._sources.values()),
            events=tuple(event for walk in walks for event in walk.events),
            options={"generate": {**asdict(drift), "include": list(drift.include), "exclude": list(drift.exclude)}},
            index={
                "model": self._view.model.identity.name,
                "fingerprint": self._view.model.identity.fingerprint,
                "database": self._store.database_id,
            },
            notes=tuple(notes),
        )
        return ended(whole, min(walk.position for walk in walks))

    def _walk(self, layer: int) -> _Walk:
        rng = np.random.default_rng([self._drift.chance, layer])
        home = self._homes[int(rng.integers(len(self._homes)))]
        return _Walk(layer, home, home, rng)

    def _step(self, walk: _Walk, left: int, played: deque[int]) -> None:
        """Add the next event to a walk; `left` frames of the whole are left."""
        rate, events = self.seed.sample_rate, walk.events
        mean_s = 1.0 / self._drift.density
        wanted = max(round(SHORTEST_S * rate), round(mean_s * walk.rng.uniform(*UNEVEN) * rate))
        for record, window in self._near(walk, played):
            number = window - (record.first_window or 0)
            start_s = window_start_s(number, record.hop_s or self._view.model.hop_s)
            spare_s = (record.duration or 0.0) - (wanted + LONGEST_FADE_S * rate) / rate
            start_s = max(0.0, min(start_s, spare_s))  # where it can sound to its end, if the file is so long
            there = round(((record.duration or 0.0) - start_s) * rate)
            frames = min(left, wanted, max(round(SHORTEST_S * rate), there))
            if left - frames < SHORTEST_S * rate:
                frames = left
            source_start = round(start_s * (record.sample_rate or rate))
            gain_db = self._gain_db(record, source_start, frames)
            if gain_db is None:
                continue
            fade = round(min(FADE_SHARE * min(frames, events[-1].frames if events else frames), LONGEST_FADE_S * rate))
            self._sources.setdefault(record.id, (len(self._sources), record))
            played.append(record.id)
            event = Event(
                start=walk.position,
                frames=frames,
                source=self._sources[record.id][0],
                source_start=source_start,
                gain_db=gain_db,
                fade=fade,
                lead=fade // 2,
                layer=walk.layer,
                unit=len(events),
            )
            events.append(event)
            walk.position += frames
            walk.here = self._view.space.apply(self._store.vectors_of(record)[number : number + 1])[0]
            return
        raise QueryError("none of the sounds near the seed can be read any more; run `embedindex scan` again")

    def _near(self, walk: _Walk, played: deque[int]) -> list[tuple[FileRecord, int]]:
        """Return files and windows near a walk, in the order in which to try them: those not played lately first."""
        asked = (1.0 - self._drift.pull) * walk.here + self._drift.pull * walk.home
        length = float(np.linalg.norm(asked))
        asked = (asked / length if length > 0 else walk.home).astype(np.float32)
        for near in NEAR:
            scores, windows = self._view.search(asked[None], min(near, max(1, self._view.windows)), self._allowed)
            usable = np.flatnonzero(windows[0] >= 0)
            usable = usable[np.argsort(windows[0][usable])]  # the store asks for ascending numbers
            owners = self._store.owners_of_windows(windows[0][usable])
            if not np.isin(owners, [-1, *played, *self._unusable]).all():
                break
        chance = CHANCE_COSINE * self._drift.temperature * walk.rng.gumbel(size=len(usable))
        worth = scores[0][usable] + chance - 10.0 * np.isin(owners, list(played))
        found = []
        for place in np.argsort(-worth, kind="stable").tolist():
            if owners[place] >= 0 and int(owners[place]) not in self._unusable:
                record = self._store.file(int(owners[place]))
                if record.missing_since is None and record.content_hash != self.seed.content_hash:
                    found.append((record, int(windows[0][usable[place]])))
        return found

    def _gain_db(self, record: FileRecord, start: int, frames: int) -> float | None:
        """Return what brings a stretch to the loudness of the whole; None if it cannot be heard or read."""
        rate = self.seed.sample_rate
        try:
            samples, _ = read_span(record.path, start, 0, frames, rate, 2)
        except AudioError as error:
            self._unusable[record.id] = f"{display_path(record.path)}: left out: {error.reason}"
            return None
        level = unit_lufs(samples, rate)
        if level <= max(SILENT_LUFS, SILENT_DB):
            return None
        return round(float(np.clip(self._drift.lufs - level, -GAIN_LIMIT_DB, GAIN_LIMIT_DB)), 3)
