"""Seed and index → recipe: selection, then sample-exact events with gains and fades.

Conventions: the output has the seed's rate and length unless told otherwise; events are in output frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.embed import SILENCE
from embedindex.errors import QueryError, display_path
from embedindex.index import IndexView
from embedindex.models.base import Model
from embedindex.records import FileRecord
from embedindex.remix.align import MARGIN_S, fade_frames
from embedindex.remix.at_hand import AtHand
from embedindex.remix.bending import engine, engine_note
from embedindex.remix.breakpoints import Breakpoints
from embedindex.remix.candidates import Finder, Pool, none_readable
from embedindex.remix.coarse import CoarseStore
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.loudness import SILENT_LUFS, LoudnessMeter, unit_lufs
from embedindex.remix.morph import TAILED
from embedindex.remix.options import RemixOptions
from embedindex.remix.path import Path, Taken, find_path
from embedindex.remix.placing import UNBENDING, Bending, Placer
from embedindex.remix.qualities import GAIN_LIMIT_DB
from embedindex.remix.recipe import Event, Output, Recipe
from embedindex.remix.revision import Revision, merged, require_same_cut, revised_pool
from embedindex.remix.seed import Seed, read_seed
from embedindex.remix.sequence import in_sequence, sequence
from embedindex.remix.sources import source_of_record, source_of_seed
from embedindex.remix.spans import with_channels
from embedindex.remix.stretches import Candidates
from embedindex.remix.tracks import LISTENING, Stages, TrackCache, stages_untold
from embedindex.remix.units import Cutting
from embedindex.remix.voices import morphed_unit
from embedindex.store import Store

ALTERNATES = 3

ALL_WET = Breakpoints((0.0,), (1.0,))


@dataclass(frozen=True)
class Sound:
    """How the result is to sound as a whole.

    Attributes:
        sample_rate: Hz, None for the seed's.
        lufs: ``"seed"``, or a number.
        true_peak_db: ceiling, dBTP.
        dry_wet: share of the remix.
        layers: how many remixes sound together.
        split: what parts the seed is taken apart into, which are remixed apart; one of `recipe.SPLITS`.
        bending: how far pieces may be stretched and transposed to fit.
        morph: how each unit is merged with the seed's, one of `morph.MODES`.
        amount: how much.
        tail: what becomes of what rings on, one of `morph.TAILS`.
        length_s: how long, None for as long as the seed.
    """

    sample_rate: int | None = None
    lufs: str | float = "seed"
    true_peak_db: float = -1.0
    dry_wet: Breakpoints = ALL_WET
    layers: int = 1
    split: str = ""
    bending: Bending = UNBENDING
    morph: str = "none"
    amount: Breakpoints = ALL_WET
    tail: str = "truncate"
    length_s: float | None = None


class Composer:
    """Makes remixes of one seed.

    Args:
        store: the index.
        view: its search index.
        model: gives the index's model, loaded.
        seed: path of the sound to remix, or that sound, or a part of it.
        options: how to choose.
        sound: how it is to sound.
        told: called with what is being done, and how far that is.
        excluded: files that must not be used.

    Attributes:
        channels: of the output.
        taken: stretches that were played, by file, and when.

    Raises:
        EmbedindexError: the seed or the index cannot be used; see `read_seed` and `Finder.pool`.
    """

    def __init__(
        self,
        store: Store,
        view: IndexView,
        model: Callable[[], Model],
        seed: str | bytes | Seed,
        options: RemixOptions,
        sound: Sound = Sound(),
        told: Stages = stages_untold,
        excluded: tuple[FileRecord, ...] = (),
    ) -> None:
        self._store, self._view, self._options, self._sound, self._told = store, view, options, sound, told
        self.seed = seed if isinstance(seed, Seed) else read_seed(seed, options.cutting, told)
        with CoarseStore(store.folder) as kept:
            self.pool = Finder(
                store, view, self.seed, options, TrackCache(kept), partial(told, LISTENING), excluded
            ).pool(model())
        self._rate = sound.sample_rate or self.seed.sample_rate
        self._steps = sequence(self.seed, self._rate, sound.length_s)
        self._pool = in_sequence(self.pool, self._steps)
        self._times = np.array(self._steps.bounds[:-1]) / self._rate
        self.taken: Taken = {}
        self._sources: list[FileRecord] = []
        self._numbers: dict[int, int] = {}
        stereo = self.seed.channels > 1 or any((record.channels or 1) > 1 for record in self.pool.files.values())
        self.channels = 2 if stereo else 1
        self._lufs: float | None = None

    def recipe(self, variation: int = 0, change: Revision | None = None) -> Recipe:
        """Return one remix, all anew or an old one changed; each further one avoids what the earlier ones played.

        Raises:
            UsageError: the old one was cut otherwise.
        """
        if change is not None:
            require_same_cut(change, self._steps, self._sound.layers)
        self._sources, self._numbers = [], {}
        events: list[Event] = []
        notes = list(self.pool.notes) + ([self.seed.note] if self.seed.note else [])
        if self.seed.peak < SILENCE and not self.seed.is_part:
            notes.append(f"{display_path(self.seed.path)}: is silent from end to end, and so is what is made of it")
        if change is not None and change.recipe.bent:
            notes += filter(None, [engine_note(change.recipe.bent_with)])
        for layer in range(self._sound.layers):
            options = replace(self._options, chance=self._options.chance + 1000 * layer + variation)
            pool = self._pool if change is None else revised_pool(self._pool, change, layer)
            path = find_path(pool, options, self._times, self.taken)
            self._remember(path, pool)
            notes += _remarks(path, pool, options)
            events += self._events(path, pool, layer, notes)
        last = [event for event in events if event.layer == 0][-1]
        ring = self._ring_frames(events)
        if ring:
            events = sorted([*events, *self._rests(ring)], key=lambda event: (event.layer, event.start))
        output = Output(
            sample_rate=self._rate,
            channels=self.channels,
            frames=self._steps.bounds[-1] + ring,
            lufs=self._target_lufs(),
            true_peak_db=self._sound.true_peak_db,
            end_fade=0 if ring or self._ends_naturally(last) else fade_frames(last.frames, last.frames, self._rate),
            dry_wet=self._sound.dry_wet.text,
            tail=self._sound.tail,
            seed_loops=self._sound.length_s is not None,
        )
        made = Recipe(
            seed=source_of_seed(self.seed),
            output=output,
            sources=tuple(source_of_record(self._store, record) for record in self._sources),
            events=tuple(events),
            options=_shown(self._options, self._sound, self.seed, variation),
            index={
                "model": self._view.model.identity.name,
                "fingerprint": self._view.model.identity.fingerprint,
                "database": self._store.database_id,
            },
            notes=tuple(dict.fromkeys(notes)),
        )
        return made if change is None else merged(made, change)

    def _remember(self, path: Path, pool: Pool) -> None:
        for step, chosen in enumerate(path.places.tolist()):
            if chosen >= 0:
                found = pool.candidates[step]
                start, length = int(found.starts[chosen]), int(pool.lengths[step])
                from_s = float(self._times[step])
                span = (start, start + length, from_s, from_s + length / FRAMES_PER_S)
                self.taken.setdefault(int(found.files[chosen]), []).append(span)

    def _events(self, path: Path, pool: Pool, layer: int, notes: list[str]) -> list[Event]:
        """Return the events of one layer."""
        steps = self._steps
        events: list[Event] = []
        carried: tuple[int, int] | None = None  # source and its frame at the end of the event before
        bending = self._sound.bending
        merged_in = self._sound.morph != "none"
        placer = Placer(self.seed, pool, steps, self.channels, bending, merged=merged_in)
        short = off_pitch = 0
        tail = self._rate  # frames that the fade behind the event before may take
        for found in placer.places(path):
            step, unit = found.step, steps.units[found.step]
            start, frames = steps.bounds[step], steps.frames(step)
            self._told("Fitting sounds to units", step + 1, len(steps.units))
            if found.candidate != path.places[step]:
                chosen = self.pool.files[int(pool.candidates[step].files[path.places[step]])]
                instead = "there is silence instead" if found.record is None else "the next best took its place"
                notes.append(f"{display_path(chosen.path)}: could not be read; {instead}")
            if found.record is None or found.placed is None:
                events.append(_silence(start, frames, layer, unit, events, self._rate, tail))
                carried, tail = None, self._rate
                continue
            source, exact = self._number(found.record), found.placed
            bend = exact.fit.bend
            follows = carried == (source, exact.start) and bend.plain
            short, off_pitch = short + exact.fit.short, off_pitch + exact.fit.off_pitch
            end = exact.start + round(frames * exact.native_rate / self._rate)
            fade = fade_frames(events[-1].frames if events else frames, frames, self._rate)
            event = Event(
                start=start,
                frames=frames,
                source=source,
                source_start=exact.start,
                gain_db=round(exact.gain_db, 3),
                fade=fade,
                lead=min(exact.lead, tail, fade // 2),
                follows=follows and not merged_in,
                layer=layer,
                unit=unit,
                target=round(float(pool.candidates[step].costs[found.candidate]), 4),
                join=round(0.0 if follows else float(path.join[step]), 4),
                clamped=exact.clamped,
                alternates=self._alternates(pool.candidates[step], found.candidate),
                seed_start=steps.origins[step],
                stretch=bend.stretch,
                semitones=bend.semitones,
            )
            margin = round(MARGIN_S * self._rate)
            events.append(self._morphed(event, found.sound, margin, placer.at_hand) if merged_in else event)
            carried, tail = (source, end) if exact.there >= frames and bend.plain else None, exact.tail
        notes += _bend_remarks(short, off_pitch)
        if (path.places >= 0).any() and all(event.source is None for event in events):
            raise none_readable(notes)
        return events

    def _morphed(self, event: Event, sound: Float32Array, margin: int, at_hand: AtHand) -> Event:
        """Return an event merged with the seed's unit, its level matched after that."""
        amount = self._sound.amount.at(event.start / self._rate)
        event = replace(event, morph=self._sound.morph, amount=amount, lead=event.fade // 2)
        path = at_hand(self._sources[event.source or 0].path)
        output = Output(self._rate, self.channels, event.frames, None)
        own = replace(source_of_seed(self.seed), path=at_hand(self.seed.sound))
        made = morphed_unit(own, path, event, output)
        end = margin + event.frames
        wanted, have = (unit_lufs(samples, self._rate, margin, end) for samples in (sound, made))
        gain_db = wanted - have if min(wanted, have) > SILENT_LUFS else 0.0
        limited = float(np.clip(gain_db, self.seed.lowest_db, GAIN_LIMIT_DB))
        return replace(event, gain_db=round(limited, 3), clamped=limited != gain_db)

    def _ring_frames(self, events: list[Event]) -> int:
        """Return by how much the output is longer than the seed because convolutions ring on."""
        if self._sound.tail != "ring" or self._sound.morph not in TAILED:
            return 0
        lasts = [event for event in events if event.start + event.frames == self._steps.bounds[-1]]
        margins = 3 * round(MARGIN_S * self._rate)  # both sounds were convolved with theirs
        return max((event.frames + margins for event in lasts if event.source is not None), default=0)

    def _rests(self, frames: int) -> list[Event]:
        start, unit = self._steps.bounds[-1], self._steps.units[-1]
        fade = fade_frames(frames, frames, self._rate)
        return [
            Event(start=start, frames=frames, fade=fade, lead=fade // 2, layer=layer, unit=unit)
            for layer in range(self._sound.layers)
        ]

    def _number(self, record: FileRecord) -> int:
        if record.id not in self._numbers:
            self._numbers[record.id] = len(self._sources)
            self._sources.append(record)
        return self._numbers[record.id]

    def _alternates(self, found: Candidates, chosen: int) -> tuple[tuple[str, float, float], ...]:
        order = [int(i) for i in np.argsort(found.costs, kind="stable") if i != chosen][:ALTERNATES]
        return tuple(
            (
                self.pool.files[int(found.files[i])].text_path,
                round(int(found.starts[i]) / FRAMES_PER_S, 4),
                round(float(found.costs[i]), 4),
            )
            for i in order
        )

    def _target_lufs(self) -> float | None:
        if self._sound.lufs != "seed":
            return float(self._sound.lufs)
        if self._lufs is None:
            self._lufs = seed_lufs(self.seed, self._rate, self.channels)
        return self._lufs

    def _ends_naturally(self, last: Event) -> bool:
        if last.source is None:
            return True
        record = self._sources[last.source]
        end_s = last.source_start / (record.sample_rate or 1) + last.frames / last.stretch / self._rate
        return end_s >= (record.duration or 0.0) - 1.5 / self._rate


def seed_lufs(seed: Seed, sample_rate: int, channels: int) -> float:
    """Return the integrated loudness of all of a seed, as the output has it."""
    meter = LoudnessMeter(sample_rate, channels)
    with AudioReader(seed.path, sample_rate=sample_rate, mono=False) as reader:
        for block in reader.blocks():
            meter.add(with_channels(block, channels))
    return round(meter.integrated(), 4)


def _silence(start: int, frames: int, layer: int, unit: int, before: list[Event], rate: int, tail: int) -> Event:
    fade = fade_frames(before[-1].frames if before else frames, frames, rate)
    return Event(start=start, frames=frames, fade=fade, lead=min(tail, fade // 2), layer=layer, unit=unit)


def _units(count: int, one: str, many: str) -> str:
    """Return so many units, and what they do."""
    return f"1 unit {one}" if count == 1 else f"{count} units {many}"


def _remarks(path: Path, pool: Pool, options: RemixOptions) -> list[str]:
    remarks = []
    if path.repeats:
        they = _units(path.repeats, "repeats", "repeat")
        remarks.append(
            f"{they} a sound within {options.no_repeat} units: there is too little that fits; scan more, or lower "
            "--no-repeat"
        )
    if path.over_quota:
        they = _units(path.over_quota, "exceeds", "exceed")
        remarks.append(
            f"{they} the share of a file or folder: there is too little that fits; scan more, or raise --max-per-file"
        )
    lonely = sum(1 for found, quiet in zip(pool.candidates, pool.silent, strict=True) if not quiet and not len(found))
    if lonely:
        remarks.append(f"{_units(lonely, 'stays', 'stay')} silent: nothing was found")
    return remarks


def _bend_remarks(short: int, off_pitch: int) -> list[str]:
    remarks = []
    if short:
        remarks.append(f"{short} units end before their turn does: their files end there, and --stretch allows no more")
    if off_pitch:
        remarks.append(f"{off_pitch} units are nearer to the seed's pitch, but not on it: --pitch allows no more")
    return remarks


def _shown(options: RemixOptions, sound: Sound, seed: Seed, variation: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for item in fields(options):
        value = getattr(options, item.name)
        if isinstance(value, Breakpoints):
            shown[item.name] = value.text
        elif isinstance(value, tuple):
            shown[item.name] = [list(part) if isinstance(part, tuple) else part for part in value]
        elif not isinstance(value, Cutting):
            shown[item.name] = value
    shown["units"] = f"grid:{1000 * options.cutting.step_s:g}ms" if seed.kind == "grid" else seed.kind
    texts = {"dry_wet": sound.dry_wet.text, "amount": sound.amount.text}
    bending = {"stretch": sound.bending.stretch.text, "pitch": sound.bending.semitones.text}
    if not sound.bending.none:
        bending["engine"] = engine()
    shown["sound"] = {**asdict(sound), **texts, "bending": bending}
    shown["variation"] = variation
    return shown


def require_windows(view: IndexView, folder: str) -> None:
    """Make sure that there is something to remix with.

    Raises:
        QueryError: the index holds no searchable sound.
    """
    if not view.windows:
        raise QueryError(
            f"{display_path(folder)}: there is no sound in this index yet; fill it with `embedindex scan FOLDER`"
        )
