"""A remix of a seed's parts: what is harmonic and what is percussive in it, each cut, chosen and placed by itself.

Conventions: layer 0 stands for the harmonic part, layer 1 for the percussive one, see `recipe.SPLITS`. Library sounds
are compared as they are, whole, with the part alone: they will be heard whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from embedindex.index import IndexView
from embedindex.models.base import Model
from embedindex.remix.align import fade_frames
from embedindex.remix.candidates import Finder
from embedindex.remix.coarse import CoarseStore
from embedindex.remix.compose import Composer, Sound, seed_lufs
from embedindex.remix.options import RemixOptions
from embedindex.remix.recipe import SPLITS, Event, Recipe, Source
from embedindex.remix.revision import Revision
from embedindex.remix.seed import Seed, read_seed
from embedindex.remix.sources import source_of_seed
from embedindex.remix.tracks import LISTENING, Stages, TrackCache, stages_untold
from embedindex.remix.units import Cutting
from embedindex.store import Store

CUTTINGS = {"harmonic": Cutting("novelty"), "percussive": Cutting("onset")}  # unless a way is asked for
CHANCE_STEP = 1000
WHOLE = Cutting("grid", 0.5)  # the whole seed is only compared with files that may be copies of it


class PartsComposer:
    """Makes remixes of the parts of one seed.

    Args:
        store: the index.
        view: its search index.
        model: gives the index's model, loaded.
        seed: the sound to remix, whole, cut as `WHOLE` says.
        files: its parts, see `separation.write_parts`.
        options: how to choose, in each part.
        sound: how it is to sound.
        told: called with what is being done, and how far that is.

    Attributes:
        composers: one for each part.

    Raises:
        EmbedindexError: the index cannot be used, see `Composer`.
    """

    def __init__(
        self,
        store: Store,
        view: IndexView,
        model: Callable[[], Model],
        seed: Seed,
        files: tuple[bytes, ...],
        options: RemixOptions,
        sound: Sound,
        told: Stages = stages_untold,
    ) -> None:
        self._seed, self._sound = seed, sound
        # A copy of the seed is told by the whole of both, not by a part of one.
        with CoarseStore(store.folder) as kept:
            pool = Finder(store, view, seed, options, TrackCache(kept), partial(told, LISTENING)).pool(model())
        self._notes = pool.notes + ((seed.note,) if seed.note else ())
        self.composers: list[Composer] = []
        for number, (name, file) in enumerate(zip(SPLITS[sound.split], files, strict=True)):
            cutting = CUTTINGS[name] if options.cutting.kind == "auto" else options.cutting
            part = replace(read_seed(file, cutting), path=seed.path, content_hash=seed.content_hash)
            own = replace(options, cutting=cutting, chance=options.chance + CHANCE_STEP * number)
            each = replace(sound, lufs=0.0)  # the whole has a loudness, its parts have none
            self.composers.append(Composer(store, view, model, part, own, each, told, pool.copies))
        channels = max(composer.channels for composer in self.composers)
        for composer in self.composers:
            composer.channels, composer.taken = channels, self.composers[0].taken

    def recipe(self, variation: int = 0, changes: tuple[Revision, ...] = ()) -> Recipe:
        """Return one remix, all anew or an old one changed; each further one avoids what the earlier ones played.

        Raises:
            UsageError: the old one was cut otherwise.
        """
        made = [
            composer.recipe(variation, change)
            for composer, change in zip(self.composers, changes or (None, None), strict=True)
        ]
        frames = max(recipe.output.frames for recipe in made)
        numbers: dict[Source, int] = {}
        events: list[Event] = []
        for layer, recipe in enumerate(made):
            own = [numbers.setdefault(source, len(numbers)) for source in recipe.sources]
            for event in _filled(recipe, frames):
                source = None if event.source is None else own[event.source]
                events.append(replace(event, layer=layer, source=source))
        lufs = self._sound.lufs
        output = made[0].output
        if lufs == "seed":
            lufs = seed_lufs(self._seed, output.sample_rate, output.channels)
        return replace(
            made[0],
            seed=source_of_seed(self._seed),
            output=replace(
                output,
                frames=frames,
                lufs=float(lufs),
                end_fade=max(recipe.output.end_fade for recipe in made),
                split=self._sound.split,
            ),
            sources=tuple(numbers),
            events=tuple(events),
            options=self._shown(made),
            notes=tuple(dict.fromkeys((*self._notes, *(note for recipe in made for note in recipe.notes)))),
        )

    def _shown(self, made: list[Recipe]) -> dict[str, object]:
        shown = dict(made[0].options)
        shown["units"] = " + ".join(dict.fromkeys(recipe.options["units"] for recipe in made))
        shown["sound"] = {**shown["sound"], "lufs": self._sound.lufs}
        return shown


def _filled(recipe: Recipe, frames: int) -> list[Event]:
    """Return a recipe's events, with silence up to `frames` where another part rings on for longer."""
    events, end = list(recipe.events), recipe.output.frames
    if end < frames:
        fade = fade_frames(frames - end, frames - end, recipe.output.sample_rate)
        events.append(Event(start=end, frames=frames - end, fade=fade, lead=fade // 2, unit=events[-1].unit))
    return events
