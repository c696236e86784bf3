"""The files of a remix: audio, recipe, credits, and whatever else is asked for; each appears only when it is whole.

Conventions: they lie side by side and share a stem: ``OUT.wav``, ``OUT.recipe.json``, ``OUT.credits.csv``…
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.crawl import absolute_path
from embedindex.errors import UsageError, display_path
from embedindex.figures import require_matplotlib
from embedindex.remix.at_hand import sounds_at_hand
from embedindex.remix.bending import engine_note
from embedindex.remix.credits import credits_csv
from embedindex.remix.events import events_csv
from embedindex.remix.labels import Label, format_labels
from embedindex.remix.master import Written, check_target, write_master
from embedindex.remix.reaper import layers_needed, project_text
from embedindex.remix.recipe import Recipe, check_sources, ended, from_json, json_parts
from embedindex.remix.render import mixed_blocks
from embedindex.remix.separation import parts_at_hand
from embedindex.remix.stems import check_stems, write_stems
from embedindex.remix.tracks import Stages, stages_untold
from embedindex.store import Store
from embedindex.whole_files import whole_file

# Lengths in headers may be a little off.
AT_THE_END_S = 0.1
SHOWN_EVENTS = 8


@dataclass(frozen=True)
class Extras:
    """What to write besides audio, recipe and credits.

    Attributes:
        labels: Audacity labels, ``OUT.labels.txt``.
        events: a table of all units, ``OUT.events.csv``.
        picture: seed and remix, ``OUT.png``.
        stems: a folder for stems.
        stems_by: a stem for each source or each layer.
        rpp: a Reaper project.
    """

    labels: bool = False
    events: bool = False
    picture: bool = False
    stems: str | None = None
    stems_by: Literal["source", "layer"] = "source"
    rpp: str | None = None

    def numbered(self, number: int, count: int) -> Extras:
        """Return the same for one of `count` variations: each has its own folder of stems and its own project."""
        if count == 1:
            return self
        stems = None if self.stems is None else os.path.join(self.stems, f"{number + 1:0{len(str(count))}d}")
        return replace(self, stems=stems, rpp=None if self.rpp is None else numbered(self.rpp, number, count))

    def check(self, recipe: Recipe | None = None) -> None:
        """Make sure that it can be written, before anything is computed for it.

        Raises:
            EngineMissingError: a picture is wanted, and matplotlib is not installed.
            UsageError: the name of the project is none, or its folder is not there, or the remix does not fit into one;
                or stems would overwrite what is none.
        """
        if self.picture:
            require_matplotlib()
        if self.stems is not None and recipe is not None:
            check_stems(self.stems, recipe, self.stems_by)
        if self.rpp is None:
            return
        if os.path.splitext(self.rpp)[1].lower() != ".rpp":
            raise UsageError(f"--rpp {display_path(self.rpp)}: choose a name that ends in .rpp")
        folder = os.path.dirname(os.path.abspath(self.rpp))
        if not os.path.isdir(folder):
            raise UsageError(f"{display_path(folder)}: there is no such folder; make it first")
        if recipe is not None:
            project_text(recipe, layer_files=self._layer_files(recipe))

    def write(self, path: str, recipe: Recipe, written: Written) -> None:
        """Write it beside the finished sound `path`.

        Raises:
            UsageError: something cannot be written there.
            AudioError: a source cannot be read any more.
            DiskFullError: no space is left.
        """
        if self.labels:
            write_whole(beside(path, ".labels.txt"), [labels_of(recipe).encode("utf-8", "surrogateescape")])
        if self.events:
            write_whole(beside(path, ".events.csv"), [events_csv(recipe)])
        if self.stems is not None:
            write_stems(self.stems, recipe, written, self.stems_by)
        if self.rpp is not None:
            project = project_text(recipe, written, self._layer_files(recipe))
            write_whole(self.rpp, [project.encode("utf-8", "surrogateescape")])
        if self.picture:
            from embedindex.remix.picture import draw_remix

            draw_remix(beside(path, ".png"), recipe, path)

    def _layer_files(self, recipe: Recipe) -> tuple[bytes, ...]:
        """Return the rendered layers that a project is made of where it cannot be made of the files themselves."""
        if self.stems is None or self.stems_by != "layer" or layers_needed(recipe) is None:
            return ()
        folder = os.path.abspath(self.stems)
        names = [f"{recipe.layer_name(layer)}.wav" for layer in range(recipe.layers)]
        return tuple(os.fsencode(os.path.join(folder, name)) for name in names)


NOTHING = Extras()


def beside(path: str, suffix: str) -> str:
    """Return the name of a file that belongs to the audio file `path`."""
    return os.path.splitext(path)[0] + suffix


def numbered(path: str, number: int, count: int) -> str:
    """Return the name of one of `count` variations: `path` itself if it is the only one."""
    if count == 1:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{number + 1:0{len(str(count))}d}{suffix}"


def write_whole(path: str, parts: Iterable[bytes]) -> None:
    """Write a file, piece by piece, that appears only when it is whole.

    Raises:
        DiskFullError: no space is left.
        UsageError: it cannot be written.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.writelines(parts)


def guard(path: str, recipe: Recipe) -> None:
    """Make sure that the output overwrites neither the seed nor a source.

    Raises:
        UsageError: it would.
    """
    target = os.path.realpath(os.fsencode(path))
    for source in (recipe.seed, *recipe.sources):
        if target == os.path.realpath(source.path):
            raise UsageError(f"{display_path(path)}: would overwrite a sound of the remix; choose another -o")


def guard_library(path: str, store: Store) -> None:
    """Make sure that the output overwrites no sound of the library, unless it is a remix: its recipe lies beside it.

    Raises:
        UsageError: it would.
    """
    if os.path.exists(beside(path, ".recipe.json")):
        return
    target = os.fsencode(path)
    if any(store.file_by_path(name) is not None for name in {absolute_path(target), os.path.realpath(target)}):
        raise UsageError(f"{display_path(path)}: would overwrite a sound of the library; choose another -o")


def write_remix(
    path: str, recipe: Recipe, *, bits: str = "24", extras: Extras = NOTHING, told: Stages = stages_untold
) -> Written:
    """Write a remix's audio, recipe and credits, and whatever else is wanted; `told` hears how far that is.

    Raises:
        EngineMissingError: a picture is wanted, and matplotlib is not installed.
        UsageError: one of them cannot be written there.
        AudioError: a source cannot be read any more.
        DiskFullError: no space is left.
    """
    return _write(path, recipe, mixed_blocks, bits, extras, told)


Blocks = Callable[[Recipe], Iterator[Float32Array]]


def _write(path: str, recipe: Recipe, blocks: Blocks, bits: str, extras: Extras, told: Stages) -> Written:
    guard(path, recipe)
    extras.check(recipe)
    with parts_at_hand(recipe) as whole, sounds_at_hand(whole) as ready:
        written = write_master(path, blocks(ready), recipe.output, bits, told)
        write_whole(beside(path, ".recipe.json"), (part.encode() for part in json_parts(recipe)))
        write_whole(beside(path, ".credits.csv"), [credits_csv(recipe)])
        extras.write(path, ready, written)
    return written


class _StoppedError(Exception):
    """Rendering was asked to stop after so many frames."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.frames = frames


def write_until(
    path: str,
    recipe: Recipe,
    stop: Callable[[], bool],
    *,
    bits: str = "24",
    extras: Extras = NOTHING,
    told: Stages = stages_untold,
) -> tuple[Recipe, Written]:
    """Write a remix as `write_remix` does; when `stop` says so, end it where rendering has come to.

    Returns the recipe as it was written. What ends early is rendered anew, with a fade at its end.
    """

    def blocks(ready: Recipe) -> Iterator[Float32Array]:
        position = 0
        for block in mixed_blocks(ready):
            if position and stop():
                raise _StoppedError(position)
            yield block
            position += len(block)

    try:
        return recipe, _write(path, recipe, blocks, bits, extras, told)
    except _StoppedError as stopped:
        shorter = ended(recipe, stopped.frames)
    return shorter, write_remix(path, shorter, bits=bits, extras=extras, told=told)


def labels_of(recipe: Recipe) -> str:
    """Return Audacity labels: one for each event, with the name of its file."""
    rate = recipe.output.sample_rate
    return format_labels(
        Label(
            event.start / rate,
            (event.start + event.frames) / rate,
            "" if event.source is None else os.path.basename(os.fsdecode(recipe.sources[event.source].path)),
        )
        for event in recipe.events
    )


def read_recipe(path: str) -> Recipe:
    """Return the recipe in a file, its sources checked.

    Raises:
        UsageError: the file cannot be read or is no recipe.
        QueryError: a source is missing or has changed.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"{display_path(path)}: cannot be read ({reason}); give a .recipe.json") from error
    recipe = from_json(text, path)
    check_sources(recipe)
    return recipe


def render_note(recipe: Recipe) -> str | None:
    """Return why a recipe may not sound as it did when it was made; None if it will.

    Raises:
        EngineMissingError: python-stretch is not installed, and the recipe needs it.
    """
    return engine_note(recipe.bent_with) if recipe.bent else None


def beyond_notes(recipe: Recipe) -> Iterator[str]:
    """Yield what to say of events that begin behind the end of their file, as its header has it: they are silent."""
    begins: dict[int, list[int]] = {}
    for number, event in enumerate(recipe.events):
        if event.source is not None:
            begins.setdefault(event.source, []).append(number)
    for place, numbers in sorted(begins.items()):
        path = recipe.sources[place].path
        with AudioReader(path) as reader:
            facts = reader.facts
        if facts.duration_s is None:
            continue
        end = (facts.duration_s + AT_THE_END_S) * facts.sample_rate
        late = [str(number) for number in numbers if recipe.events[number].source_start > end]
        if late:
            shown = ", ".join(late[:SHOWN_EVENTS]) + (", …" if len(late) > SHOWN_EVENTS else "")
            yield (
                f"event{'s' if len(late) > 1 else ''} {shown} (counted from 0): source_start lies behind the end of "
                f"{display_path(path)} ({facts.duration_s:.3f} s); nothing of it is heard there"
            )


def render_recipe(
    recipe: Recipe, path: str, *, bits: str = "24", extras: Extras = NOTHING, told: Stages = stages_untold
) -> Written:
    """Render a recipe again: the same sound, to the bit, as when it was made, unless `render_note` says otherwise.

    Raises what `write_remix` raises.
    """
    check_target(path, bits)
    render_note(recipe)
    guard(path, recipe)
    extras.check(recipe)
    with parts_at_hand(recipe) as whole, sounds_at_hand(whole) as ready:
        written = write_master(path, mixed_blocks(ready), recipe.output, bits, told)
        extras.write(path, ready, written)
    return written
