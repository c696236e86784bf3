"""A recipe, changed in places: some units are chosen again, all others stay as they are, to the sample.

Conventions: a unit is named by its place in the recipe, from 0, as ``unit`` is in ``recipe.json`` (where ``--length``
lets units come more than once, by its turn); what is said of a unit holds in all layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from embedindex.errors import UsageError
from embedindex.remix.align import SHIFT_S
from embedindex.remix.candidates import Pool
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.recipe import Event, Recipe, Source
from embedindex.remix.sequence import Sequence

NEAR_S = SHIFT_S[1] + 2 / FRAMES_PER_S


@dataclass(frozen=True)
class Revision:
    """What is to change.

    Attributes:
        recipe: what there is.
        again: the units to choose again.
    """

    recipe: Recipe
    again: frozenset[int]

    def layer(self, number: int) -> list[Event]:
        """Return the events of a layer."""
        return [event for event in self.recipe.events if event.layer == number]


def parse_places(option: str, text: str, count: int) -> frozenset[int]:
    """Return the places of ``3,7-9`` among `count`.

    Raises:
        UsageError: it is no such list, or there are not so many units.
    """
    places: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not first.strip().isdecimal() or not last.strip().isdecimal():
            raise UsageError(f"{option} {text}: {part!r} is no unit; write numbers from 0, for example {option} 3,7-9")
        span = range(int(first), int(last) + 1)
        if not span or span[-1] >= count:
            raise UsageError(f"{option} {text}: the recipe has the units 0 to {count - 1}; {part!r} is not among them")
        places.update(span)
    return frozenset(places)


def revision(recipe: Recipe, reroll: str | None, lock: str | None) -> Revision:
    """Return what ``--reroll`` or ``--lock`` asks for.

    Raises:
        UsageError: neither is given, or both, or one makes no sense.
    """
    count = sum(event.layer == 0 for event in recipe.events)
    if (reroll is None) == (lock is None):
        raise UsageError("--recipe goes with --reroll UNITS (choose these again) or --lock UNITS (keep only these)")
    if reroll is not None:
        return Revision(recipe, parse_places("--reroll", reroll, count))
    return Revision(recipe, frozenset(range(count)) - parse_places("--lock", lock or "", count))


def require_same_cut(change: Revision, steps: Sequence, layers: int) -> None:
    """Make sure that a recipe's units are those of the seed as it is cut now.

    Raises:
        UsageError: they are not.
    """
    rate = change.recipe.output.sample_rate
    for layer in range(max(layers, change.recipe.layers)):
        starts = tuple(event.start for event in change.layer(layer))
        if starts != steps.bounds[:-1] or rate != steps.sample_rate:
            raise UsageError(
                "--recipe: its units are not those of this seed and these options; give the seed, --units, --layers, "
                "--length and --rate that it was made with"
            )


def revised_pool(pool: Pool, change: Revision, layer: int) -> Pool:
    """Return a pool in which what stays has no rival, and what is chosen again is not what it was."""
    candidates = list(pool.candidates)
    for step, event in enumerate(change.layer(layer)):
        found = candidates[step]
        if event.source is None or not len(found):
            continue
        source = change.recipe.sources[event.source]
        same = np.array([pool.files[i].path == source.path for i in found.files.tolist()])
        off_s = np.abs(found.starts / FRAMES_PER_S - event.source_start / source.sample_rate)
        if step in change.again:
            others = np.flatnonzero(~same | (off_s >= event.frames / change.recipe.output.sample_rate))
            candidates[step] = found.take(others if len(others) else np.arange(len(found)))
        else:
            near = np.flatnonzero(same & (off_s <= NEAR_S))
            if len(near):
                candidates[step] = found.take(near[np.argmin(off_s[near])][None])
    return replace(pool, candidates=tuple(candidates))


def merged(made: Recipe, change: Revision) -> Recipe:
    """Return the new recipe with everything that stays taken from the old one."""
    sources: list[Source] = []
    events: list[Event] = []
    for layer in range(made.layers):
        fresh = [event for event in made.events if event.layer == layer]
        before: Event | None = None
        for step, (new, old) in enumerate(zip(fresh, change.layer(layer), strict=True)):
            recipe, event = (made, new) if step in change.again else (change.recipe, old)
            if event.source is not None:
                source = recipe.sources[event.source]
                known = [other.path for other in sources]
                if source.path not in known:
                    sources.append(source)
                event = replace(event, source=[other.path for other in sources].index(source.path))
            event = replace(event, follows=event.follows and _goes_on(before, event, sources, made.output.sample_rate))
            events.append(event)
            before = event
    return replace(made, sources=tuple(sources), events=tuple(events))


def _goes_on(before: Event | None, event: Event, sources: list[Source], rate: int) -> bool:
    if before is None or event.source is None or before.source != event.source or not before.bend.plain:
        return False
    step = round(before.frames * sources[event.source].sample_rate / rate)
    return before.source_start + step == event.source_start
