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
from embedindex.remix.morph import TAILED
from embedindex.remix.recipe import SPLITS, Event, Recipe, Source
from embedindex.remix.sequence import Sequence
from embedindex.remix.stretches import Candidates

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
        """Return the events of a layer that stand for units."""
        return unit_events(self.recipe, number)


def unit_events(recipe: Recipe, layer: int) -> list[Event]:
    """Return the events of a layer that stand for units: all but the rests in which the last one rings out."""
    events = [event for event in recipe.events if event.layer == layer]
    if recipe.output.tail == "ring" and any(event.morph in TAILED for event in recipe.events):
        while len(events) > 1 and events[-1].source is None and events[-1].unit == events[-2].unit:
            events.pop()
    return events


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


def revisions(recipe: Recipe, split: str, reroll: str | None, lock: str | None) -> tuple[Revision, ...]:
    """Return what ``--reroll`` or ``--lock`` asks for: one change for all layers, or one for each part of a seed.

    Args:
        recipe: what there is.
        split: what parts the seed is taken apart into now.
        reroll: the units to choose again, where there are parts each with its part's first letter: ``h3,p7-9``.
        lock: the units to keep.

    Raises:
        UsageError: neither is given, or both, or one makes no sense, or the recipe has other parts.
    """
    if (reroll is None) == (lock is None):
        raise UsageError("--recipe goes with --reroll UNITS (choose these again) or --lock UNITS (keep only these)")
    if recipe.output.split != split:
        raise UsageError("--recipe: it was made with other --layers; give the same")
    option, text = ("--reroll", reroll) if reroll is not None else ("--lock", lock or "")
    layers = [_layer_alone(recipe, layer) for layer in range(len(SPLITS[split]))] if split else [recipe]
    texts: list[str | None] = _by_part(option, text, SPLITS[split]) if split else [text]
    changes = []
    for part, named in zip(layers, texts, strict=True):
        count = len(unit_events(part, 0))
        places = frozenset() if named is None else parse_places(option, named, count)
        changes.append(Revision(part, places if reroll is not None else frozenset(range(count)) - places))
    return tuple(changes)


def _layer_alone(recipe: Recipe, layer: int) -> Recipe:
    events = tuple(replace(event, layer=0) for event in recipe.events if event.layer == layer)
    return replace(recipe, events=events, output=replace(recipe.output, split=""))


def _by_part(option: str, text: str, names: tuple[str, ...]) -> list[str | None]:
    """Return the units that a text names of each part, without the letters; None where it names none."""
    found: dict[str, list[str]] = {name[0]: [] for name in names}
    for part in (part.strip() for part in text.split(",")):
        if part[:1] not in found:
            known = " or ".join(f"{name[0]} ({name})" for name in names)
            raise UsageError(f"{option} {text}: {part!r} names no part; begin with {known}: {option} h3,p7-9")
        found[part[0]].append(part[1:])
    return [",".join(parts) if parts else None for parts in found.values()]


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
    changes: dict[int, Candidates] = {}
    for step, event in enumerate(change.layer(layer)):
        found = pool.candidates[step]
        if event.source is None or not len(found):
            continue
        source = change.recipe.sources[event.source]
        same = np.array([pool.files[i].path == source.path for i in found.files.tolist()])
        off_s = np.abs(found.starts / FRAMES_PER_S - event.source_start / source.sample_rate)
        if step in change.again:
            others = np.flatnonzero(~same | (off_s >= event.frames / change.recipe.output.sample_rate))
            changes[step] = found.take(others if len(others) else np.arange(len(found)))
        else:
            near = np.flatnonzero(same & (off_s <= NEAR_S))
            if len(near):
                changes[step] = found.take(near[np.argmin(off_s[near])][None])
    return replace(pool, candidates=pool.candidates.changed(changes))


def merged(made: Recipe, change: Revision) -> Recipe:
    """Return the new recipe with everything that stays taken from the old one."""
    sources: list[Source] = []
    events: list[Event] = []
    for layer in range(made.layers):
        fresh = [event for event in made.events if event.layer == layer]
        before: Event | None = None
        for step, (new, old) in enumerate(zip(unit_events(made, layer), change.layer(layer), strict=True)):
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
        events += fresh[len(change.layer(layer)) :]  # the rest in which the last one rings out
    return replace(made, sources=tuple(sources), events=tuple(events))


def _goes_on(before: Event | None, event: Event, sources: list[Source], rate: int) -> bool:
    if before is None or event.source is None or before.source != event.source or not before.bend.plain:
        return False
    step = round(before.frames * sources[event.source].sample_rate / rate)
    return before.source_start + step == event.source_start
