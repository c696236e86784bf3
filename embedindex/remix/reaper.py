"""A remix as a Reaper project: every unit an item on the time line, taken from its own file.

Format: text, ``<NAME`` opens a block and ``>`` closes it; as Reaper 5 and later write it, and as far as Cockos' wiki
("State Chunk Definitions") documents it. Times are seconds with 14 decimals: Reaper rounds them to the frames they came
from. Reaper draws its own curve for a fade, and has no limiter: all else is as in the finished file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from embedindex.archives import archive_of
from embedindex.errors import UsageError, display_path
from embedindex.remix.bending import PLAIN, Bend
from embedindex.remix.breakpoints import parse_breakpoints
from embedindex.remix.master import Written
from embedindex.remix.recipe import Event, Recipe, Source
from embedindex.remote_paths import is_remote

TYPES = {".wav": "WAVE", ".aif": "WAVE", ".aiff": "WAVE", ".w64": "WAVE", ".rf64": "WAVE", ".mp3": "MP3"}
TYPES |= {".flac": "FLAC", ".ogg": "VORBIS", ".opus": "OPUS", ".wv": "WAVPACK"}
DOWNMIX = 2  # CHANMODE: the mean of both channels
EQUAL_POWER = 1  # shape of a fade
KEEP_PITCH = 1  # at any speed


@dataclass(frozen=True)
class Item:
    """A stretch of a file on a track.

    Attributes:
        path: the file.
        name: what to show.
        position_s: where it begins.
        length_s: how long it is.
        offset_s: where in the file it begins.
        fade_in_s: length of its fade in.
        fade_out_s: and out.
        shape: of both fades: 0 linear, 1 of equal power.
        gain: factor.
        downmix: whether two channels are to become one.
        bend: how it is stretched and transposed.
    """

    path: bytes
    name: str
    position_s: float
    length_s: float
    offset_s: float
    fade_in_s: float = 0.0
    fade_out_s: float = 0.0
    shape: int = EQUAL_POWER
    gain: float = 1.0
    downmix: bool = False
    bend: Bend = PLAIN


def project_text(recipe: Recipe, written: Written | None = None, layer_files: tuple[bytes, ...] = ()) -> str:
    """Return the project.

    Args:
        recipe: the remix.
        written: what the master measured: its gain becomes the master fader.
        layer_files: rendered layers, where units are in no file that Reaper can open: see `layers_needed`.

    Raises:
        UsageError: rendered layers are needed and there are none, or a path cannot be written in a project.
    """
    output = recipe.output
    reason = layers_needed(recipe)
    if reason and not layer_files:
        raise UsageError(f"--rpp: {reason}; give --stems DIR --stems-by layer as well")
    if not output.all_wet and not _can_open(recipe.seed.path):
        raise UsageError(
            f"--rpp: Reaper cannot open {display_path(recipe.seed.path)}; copy the seed to a file of its own"
        )
    wet = parse_breakpoints("dry_wet", output.dry_wet, 0.0, 1.0)
    envelope = tuple(zip(wet.times_s, wet.values, strict=True))
    dry = tuple((time_s, 1.0 - value) for time_s, value in envelope)
    gain = 1.0 if written is None else 10.0 ** (written.gain_db / 20.0)
    lines = [
        '<REAPER_PROJECT 0.1 "6.0/linux" 0',
        f"  SAMPLERATE {output.sample_rate} 1 0",
        "  PANLAW 1",
        "  TEMPO 120 4 4",
        f"  MASTER_NCH {max(2, output.channels)} 2",
        f"  MASTER_VOLUME {gain:.14f} 0 -1 -1 1",
    ]
    for layer in range(recipe.layers):
        if layer_files:
            items, volume = _rendered_items(recipe, layer, layer_files[layer]), 1.0
        else:
            items, volume = _items(recipe, layer), recipe.layer_gain
        name = recipe.layer_name(layer) if recipe.layers > 1 else "remix"
        lines += _track(name, volume, items, () if layer_files or output.all_wet else envelope)
    if not output.all_wet:
        seed = recipe.seed
        downmix = output.channels == 1 and seed.channels > 1
        whole = Item(seed.path, _name(seed), 0.0, output.frames / output.sample_rate, 0.0, shape=0, downmix=downmix)
        lines += _track("seed", 1.0, [whole], dry)
    return "\n".join([*lines, ">"]) + "\n"


def layers_needed(recipe: Recipe) -> str | None:
    """Return why units cannot be taken from their own files, so that rendered layers are needed; None if they can."""
    if recipe.morphed:
        return "merged units (--morph) are in no file"
    for number in dict.fromkeys(event.source for event in recipe.events if event.source is not None):
        if not _can_open(recipe.sources[number].path):
            return f"Reaper cannot open {display_path(recipe.sources[number].path)}, in an archive or on a server"
    return None


def _can_open(path: bytes) -> bool:
    return archive_of(path) is None and not is_remote(path)


def _items(recipe: Recipe, layer: int) -> list[Item]:
    """Return the items of a layer: what `render` plays, with the sound that is needed for the crossfades."""
    output = recipe.output
    rate = output.sample_rate
    events = [event for event in recipe.events if event.layer == layer]
    entries = [_entry(event, is_first=not number) for number, event in enumerate(events)]
    exits = [(fade, fade - before, shape) for before, fade, shape in entries[1:]]
    exits.append((output.end_fade, 0, EQUAL_POWER))
    made = []
    for event, (before, fade_in, shape), (fade_out, beyond, _) in zip(events, entries, exits, strict=True):
        if event.source is None:
            continue
        source = recipe.sources[event.source]
        start_s = event.source_start / source.sample_rate
        missing = max(0, before - int(start_s * event.stretch * rate))  # so many frames before it the file has nothing
        made.append(
            Item(
                path=source.path,
                name=_name(source),
                position_s=(event.start - before + missing) / rate,
                length_s=(event.frames + before - missing + beyond) / rate,
                offset_s=max(0.0, start_s - (before - missing) / rate / event.stretch),
                fade_in_s=max(0, fade_in - missing) / rate,
                fade_out_s=fade_out / rate,
                shape=shape,
                gain=10.0 ** (event.gain_db / 20.0),
                downmix=output.channels == 1 and source.channels > 1,
                bend=event.bend,
            )
        )
    return made


def _entry(event: Event, *, is_first: bool) -> tuple[int, int, int]:
    """Return (frames before its start, length of the fade in, its shape) of an event."""
    if is_first:
        fade = 0 if event.source_start == 0 else event.lead
        return 0, fade, EQUAL_POWER
    if event.follows:  # the same sound goes on; only its gain glides, half of it before the start
        return event.fade // 2, event.fade, 0
    return event.fade - event.lead, event.fade, EQUAL_POWER


def _rendered_items(recipe: Recipe, layer: int, path: bytes) -> list[Item]:
    """Return an item for each event, cut out of the rendered layer: they join to what it is."""
    rate = recipe.output.sample_rate
    events = [event for event in recipe.events if event.layer == layer]
    starts = [event.start for event in events] + [recipe.output.frames]
    return [
        Item(
            path=path,
            name="" if event.source is None else _name(recipe.sources[event.source]),
            position_s=start / rate,
            length_s=(end - start) / rate,
            offset_s=start / rate,
            shape=0,
        )
        for event, (start, end) in zip(events, pairwise(starts), strict=True)
    ]


def _track(name: str, volume: float, items: list[Item], envelope: tuple[tuple[float, float], ...]) -> Iterator[str]:
    yield "  <TRACK"
    yield f"    NAME {quoted(name)}"
    yield f"    VOLPAN {volume:.14f} 0 -1 -1 1"
    if envelope:
        yield "    <VOLENV2"
        yield "      ACT 1 -1"
        yield "      VIS 1 1 1"
        yield from (f"      PT {time_s:.14f} {value:.14f} 0" for time_s, value in envelope)
        yield "    >"
    for item in items:
        yield "    <ITEM"
        yield f"      POSITION {item.position_s:.14f}"
        yield f"      LENGTH {item.length_s:.14f}"
        yield "      LOOP 0"
        yield f"      FADEIN {item.shape} {item.fade_in_s:.14f} 0 {item.shape} 0 0 0"
        yield f"      FADEOUT {item.shape} {item.fade_out_s:.14f} 0 {item.shape} 0 0 0"
        yield f"      NAME {quoted(item.name)}"
        yield f"      VOLPAN {item.gain:.14f} 0 1 -1"
        yield f"      SOFFS {item.offset_s:.14f}"
        speed = "1" if item.bend.stretch == 1.0 else f"{1.0 / item.bend.stretch:.14f}"
        yield f"      PLAYRATE {speed} {KEEP_PITCH} {item.bend.semitones:g} -1 0 0.0025"
        yield f"      CHANMODE {DOWNMIX if item.downmix else 0}"
        suffix = os.path.splitext(os.fsdecode(item.path))[1].lower()
        yield f"      <SOURCE {TYPES.get(suffix, 'VIDEO')}"  # Reaper's name for what its FFmpeg decodes
        yield f"        FILE {quoted(os.fsdecode(item.path))}"
        yield "      >"
        yield "    >"
    yield "  >"


def _name(source: Source) -> str:
    return display_path(os.path.basename(source.path))


def quoted(text: str) -> str:
    """Return a text between quotation marks that do not occur in it: ``"``, ``'`` or a backtick.

    Raises:
        UsageError: all three occur in it, or a line break.
    """
    mark = next((mark for mark in "\"'`" if mark not in text), None)
    if mark is None or "\n" in text or "\r" in text:
        raise UsageError(f"{display_path(text)}: a Reaper project cannot hold this name; rename the file")
    return f"{mark}{text}{mark}"
