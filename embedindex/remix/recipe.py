"""A recipe: everything that rendering needs, and nothing else decides how it sounds. JSON, versioned.

Conventions: ``start`` and ``frames`` of events, fades and leads are frames of the output; ``source_start`` is one of
the source at its own rate. Numbers are written so that they are read back exactly.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from embedindex.errors import QueryError, UsageError, display_path
from embedindex.file_stat import file_stat
from embedindex.remix.bending import WILDEST, Bend
from embedindex.remix.breakpoints import parse_breakpoints
from embedindex.remix.kinds import require_kinds
from embedindex.remix.morph import MODES, TAILS

FORMAT = "embedindex-recipe"
VERSION = 2
LARGEST_GAIN_DB = 144.0  # 24 bits
SPLITS = {"": (), "hp": ("harmonic", "percussive")}  # what a seed's parts are called, which are remixed apart


@dataclass(frozen=True)
class Source:
    """A file that sounds in a remix, or its seed.

    Attributes:
        path: absolute.
        size: bytes.
        mtime_ns: time of its last change.
        content_hash: hexadecimal xxh3_128 of its bytes.
        sample_rate: Hz.
        channels: how many.
        artist: from its tags, as `album` and `title`.
        album: from its tags.
        title: from its tags.
        licence: its label ``licence`` or ``license``, if it has one.
    """

    path: bytes
    size: int
    mtime_ns: int
    content_hash: str
    sample_rate: int
    channels: int
    artist: str | None = None
    album: str | None = None
    title: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One unit of the remix.

    Attributes:
        start: first frame of the output.
        frames: length in the output.
        source: number of its file in the recipe, None for silence.
        source_start: frame of the file that lies on `start`.
        gain_db: what its level is changed by.
        fade: frames of the crossfade with the event before.
        lead: of these, frames after `start`; an attack comes later.
        follows: whether it goes on where the event before ended, without a crossfade.
        layer: from 0.
        unit: number of the seed's unit it stands for.
        target: distance from that unit.
        join: roughness of the join before it.
        clamped: whether its level could not be matched within 12 dB.
        morph: how it is merged with the seed's unit, see `morph.MODES`.
        amount: how much, 0 to 1.
        alternates: (file, second, distance) of what else would have done.
        stretch: length heard over length in the file, see `bending.Bend`.
        semitones: how much higher than in the file.
        seed_start: output frame at which the seed, played from 0, has what it stands for; None for `start`.
    """

    start: int
    frames: int
    source: int | None = None
    source_start: int = 0
    gain_db: float = 0.0
    fade: int = 0
    lead: int = 0
    follows: bool = False
    layer: int = 0
    unit: int = 0
    target: float = 0.0
    join: float = 0.0
    clamped: bool = False
    morph: str = "none"
    amount: float = 1.0
    alternates: tuple[tuple[str, float, float], ...] = ()
    seed_start: int | None = None
    stretch: float = 1.0
    semitones: float = 0.0

    @property
    def bend(self) -> Bend:
        """What becomes of its piece of the file."""
        return Bend(self.stretch, self.semitones)


@dataclass(frozen=True)
class Output:
    """How the whole is written.

    Attributes:
        sample_rate: Hz.
        channels: 1 or 2.
        frames: length.
        lufs: integrated loudness to bring it to, None to leave it.
        true_peak_db: ceiling, dBTP.
        end_fade: frames of the fade at the very end.
        dry_wet: share of the remix over time, as breakpoints; the rest is the seed.
        tail: what becomes of what rings on after a convolution: ``truncate``, ``overlap`` (into the next unit) or
            ``ring``.
        seed_loops: whether the seed, where it is heard, begins anew at its end.
        split: whether each layer stands for a part of the seed, one of `SPLITS`.
    """

    sample_rate: int
    channels: int
    frames: int
    lufs: float | None
    true_peak_db: float = -1.0
    end_fade: int = 0
    dry_wet: str = "1"
    tail: str = "truncate"
    seed_loops: bool = False
    split: str = ""

    @property
    def all_wet(self) -> bool:
        """Whether nothing of the seed itself is heard."""
        return set(parse_breakpoints("dry_wet", self.dry_wet, 0.0, 1.0).values) == {1.0}


def as_it_is(path: bytes) -> bytes:
    """Return the path itself."""
    return path


@dataclass(frozen=True)
class Recipe:
    """A remix.

    Attributes:
        seed: what was remixed.
        output: how it is written.
        sources: files that sound in it.
        events: by layer, then by time.
        options: what was asked for, to read.
        index: model and database it was made from, to read.
        notes: what a person should know.
        parts: files of the seed's parts, while they are at hand; never written.
        at_hand: gives the file to read the sound of a path from; never written.
    """

    seed: Source
    output: Output
    sources: tuple[Source, ...]
    events: tuple[Event, ...]
    options: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: tuple[bytes, ...] = ()
    at_hand: Callable[[bytes], bytes] = field(default=as_it_is, compare=False)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return 1 + max((event.layer for event in self.events), default=0)

    @property
    def layer_gain(self) -> float:
        """What each layer is multiplied by: parts of a seed add up to it, remixes of all of it share its power."""
        return 1.0 if self.output.split else 1.0 / math.sqrt(self.layers)

    def layer_name(self, layer: int) -> str:
        """Return what to call a layer."""
        names = SPLITS[self.output.split]
        return names[layer] if layer < len(names) else f"layer {layer + 1}"

    def sound_of(self, source: int) -> bytes:
        """Return the file to read a source's sound from."""
        return self.at_hand(self.sources[source].path)

    def seed_of(self, layer: int) -> Source:
        """Return the seed, or the part of it that a layer stands for."""
        return replace(self.seed, path=self.parts[layer] if self.parts else self.at_hand(self.seed.path))

    @property
    def bent(self) -> bool:
        """Whether any event is stretched or transposed."""
        return any(not event.bend.plain for event in self.events)

    @property
    def bent_with(self) -> str | None:
        """Name and version of what bends its sounds, where it notes them."""
        sound = self.options.get("sound")
        bending = sound.get("bending") if isinstance(sound, dict) else None
        noted = bending.get("engine") if isinstance(bending, dict) else None
        return noted if isinstance(noted, str) else None

    @property
    def morphed(self) -> bool:
        """Whether any event is merged with the seed's unit, so that it sounds like no stretch of a file."""
        return any(event.morph != "none" for event in self.events)


def ended(recipe: Recipe, frames: int) -> Recipe:
    """Return a recipe that ends after `frames` frames, at most its length, with a fade of the last event's length.

    The fade is a second long at most.
    """
    events = []
    for event in recipe.events:
        left = min(event.frames, frames - event.start)
        if left > 0:
            fade = min(event.fade, left)
            events.append(replace(event, frames=left, fade=fade, lead=min(event.lead, fade)))
    last = max(event.frames for event in events if event.start + event.frames == frames)
    fade = min(last, recipe.output.sample_rate)
    used = sorted({event.source for event in events if event.source is not None})
    number = {source: place for place, source in enumerate(used)}
    return replace(
        recipe,
        output=replace(recipe.output, frames=frames, end_fade=fade),
        sources=tuple(recipe.sources[source] for source in used),
        events=tuple(replace(event, source=None if event.source is None else number[event.source]) for event in events),
    )


def to_json(recipe: Recipe) -> str:
    """Return the recipe as JSON text."""
    return "".join(json_parts(recipe))


def json_parts(recipe: Recipe) -> Iterator[str]:
    """Yield the recipe as JSON text, piece by piece: that of an hour is long."""
    from embedindex import __version__

    head = {
        "format": FORMAT,
        "version": VERSION,
        "program": f"embedindex {__version__}",
        "seed": _source_to_json(recipe.seed),
        "index": recipe.index,
        "options": recipe.options,
        "output": asdict(recipe.output),
        "notes": list(recipe.notes),
    }
    yield json.dumps(head, indent=1, allow_nan=False)[: -len("\n}")]
    yield from _array_parts("sources", (_source_to_json(source) for source in recipe.sources))
    yield from _array_parts("events", (_event_to_json(event) for event in recipe.events))
    yield "\n}\n"


def _array_parts(name: str, items: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f',\n "{name}": ['
    for number, item in enumerate(items):
        text = json.dumps(item, indent=1, allow_nan=False).replace("\n", "\n  ")
        yield ("," if number else "") + "\n  " + text
    yield "\n ]"


def _source_to_json(source: Source) -> dict[str, Any]:
    data = asdict(source)
    text = os.fsdecode(source.path)
    data["path"] = text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        data["path_base64"] = base64.b64encode(source.path).decode("ascii")
    return data


def _event_to_json(event: Event) -> dict[str, Any]:
    data = asdict(event)
    data["alternates"] = [
        {"path": path, "start_s": start_s, "target": target} for path, start_s, target in event.alternates
    ]
    return data


def from_json(text: str, name: str) -> Recipe:
    """Return the recipe that `to_json` wrote.

    Args:
        text: the JSON.
        name: the file it came from, for messages.

    Raises:
        UsageError: it is no recipe, or one of a later version.
    """
    shown = display_path(name)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{shown}: is no recipe ({error}); give a .recipe.json of `embedindex remix`") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UsageError(f"{shown}: is no recipe; give a .recipe.json that `embedindex remix` wrote")
    if not isinstance(data.get("version"), int) or data["version"] > VERSION:
        raise UsageError(f"{shown}: its version is {data.get('version')}, this embedindex reads {VERSION}; upgrade it")
    try:
        recipe = Recipe(
            seed=_source_from_json(data["seed"]),
            output=Output(**data["output"]),
            sources=tuple(_source_from_json(source) for source in data["sources"]),
            events=tuple(_event_from_json(event) for event in data["events"]),
            options=data.get("options", {}),
            index=data.get("index", {}),
            notes=tuple(data.get("notes", ())),
        )
        _check(recipe)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{shown}: the recipe is incomplete or was edited wrongly ({error})") from None
    return recipe


def _source_from_json(data: dict[str, Any]) -> Source:
    known = {item.name for item in fields(Source)}
    path = base64.b64decode(data["path_base64"]) if "path_base64" in data else os.fsencode(data["path"])
    return Source(**{**{key: value for key, value in data.items() if key in known}, "path": path})


def _event_from_json(data: dict[str, Any]) -> Event:
    alternates = tuple((item["path"], item["start_s"], item["target"]) for item in data.get("alternates", ()))
    return Event(**{**data, "alternates": alternates})


def _check(recipe: Recipe) -> None:
    """Raise ValueError unless each layer's events tile the output and name sources that are there."""
    output, files = recipe.output, (recipe.seed, *recipe.sources)
    require_kinds((output, *files, *recipe.events))
    if output.channels not in (1, 2) or not 0 <= output.end_fade <= output.frames:
        raise ValueError(f"an output of {output.channels} channels that fades over {output.end_fade} frames")
    if min(output.sample_rate, *(file.sample_rate for file in files)) <= 0:
        raise ValueError("a sample rate of 0 or less")
    for layer in range(recipe.layers):
        position = 0
        for event in (event for event in recipe.events if event.layer == layer):
            if event.start != position or event.frames <= 0:
                raise ValueError(f"event at {event.start} of layer {layer} should start at {position}")
            if event.source is not None and not 0 <= event.source < len(recipe.sources):
                raise ValueError(f"event at {event.start} names source {event.source}")
            if not abs(event.gain_db) <= LARGEST_GAIN_DB:
                raise ValueError(f"event at {event.start} has a gain of {event.gain_db:g} dB")
            if event.source_start < 0 or event.fade < 0 or not 0 <= event.lead <= event.fade:
                raise ValueError(f"event at {event.start} has times that make no sense")
            if not 1 / WILDEST[0] <= event.stretch <= WILDEST[0] or not abs(event.semitones) <= WILDEST[1]:
                raise ValueError(f"event at {event.start} is bent too far")
            if event.follows and not event.bend.plain:
                raise ValueError(f"event at {event.start} goes on in its file, and is bent")
            if event.morph not in MODES or not 0 <= event.amount <= 1:
                raise ValueError(f"event at {event.start} has a morph that is not known")
            if event.fade > (0.05 * recipe.output.sample_rate if event.morph != "none" else event.frames):
                raise ValueError(f"event at {event.start} has too long a fade")
            position += event.frames
        if recipe.output.tail not in TAILS:
            raise ValueError(f"tail {recipe.output.tail!r}")
        if recipe.output.split not in SPLITS:
            raise ValueError(f"split {recipe.output.split!r}")
        if position != recipe.output.frames:
            raise ValueError(f"layer {layer} ends at {position}, the output at {recipe.output.frames}")


def check_sources(recipe: Recipe) -> None:
    """Make sure that the files are the ones the recipe was made of: by size and time, else by content.

    Raises:
        QueryError: one is missing or has changed.
    """
    from embedindex.embed import hash_content

    used = {event.source for event in recipe.events if event.source is not None}
    files = [recipe.sources[number] for number in sorted(used)]
    if recipe.output.dry_wet != "1" or any(event.morph != "none" for event in recipe.events):
        files.append(recipe.seed)
    for source in files:
        shown = display_path(source.path)
        try:
            stat = file_stat(source.path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise QueryError(f"{shown}: cannot be read ({reason}); put it back, or make the remix again") from error
        same = stat.size == source.size
        if same and stat.mtime_ns != source.mtime_ns:
            same = hash_content(source.path).hex() == source.content_hash
        if not same:
            raise QueryError(f"{shown}: has changed since the recipe was made; put the old one back, or remix again")
