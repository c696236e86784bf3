"""The files of a remix: audio, recipe, credits, and on demand labels; each appears only when it is whole.

Conventions: they lie side by side and share a stem: ``OUT.wav``, ``OUT.recipe.json``, ``OUT.credits.csv``…
"""

from __future__ import annotations

import os

from embedindex.errors import UsageError, display_path
from embedindex.remix.credits import credits_csv
from embedindex.remix.labels import Label, format_labels
from embedindex.remix.master import Written, check_target, write_master
from embedindex.remix.recipe import Recipe, check_sources, from_json, to_json
from embedindex.remix.render import mixed_blocks


def beside(path: str, suffix: str) -> str:
    """Return the name of a file that belongs to the audio file `path`."""
    return os.path.splitext(path)[0] + suffix


def numbered(path: str, number: int, count: int) -> str:
    """Return the name of one of `count` variations: `path` itself if it is the only one."""
    if count == 1:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{number + 1:0{len(str(count))}d}{suffix}"


def write_whole(path: str, data: bytes) -> None:
    """Write a small file that appears only when it is whole.

    Raises:
        UsageError: it cannot be written.
    """
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{display_path(path)}: cannot be written ({error.strerror or error})") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def guard(path: str, recipe: Recipe) -> None:
    """Make sure that the output overwrites neither the seed nor a source.

    Raises:
        UsageError: it would.
    """
    target = os.path.realpath(os.fsencode(path))
    for source in (recipe.seed, *recipe.sources):
        if target == os.path.realpath(source.path):
            raise UsageError(f"{display_path(path)}: would overwrite a sound of the remix; choose another -o")


def write_remix(path: str, recipe: Recipe, *, bits: str = "24", labels: bool = False) -> Written:
    """Write a remix's audio, recipe and credits (and labels).

    Raises:
        UsageError: one of them cannot be written there.
        AudioError: a source cannot be read any more.
        DiskFullError: no space is left.
    """
    guard(path, recipe)
    written = write_master(path, mixed_blocks(recipe), recipe.output, bits)
    write_whole(beside(path, ".recipe.json"), to_json(recipe).encode())
    write_whole(beside(path, ".credits.csv"), credits_csv(recipe))
    if labels:
        write_whole(beside(path, ".labels.txt"), labels_of(recipe).encode("utf-8", "surrogateescape"))
    return written


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


def render_recipe(recipe: Recipe, path: str, *, bits: str = "24") -> Written:
    """Render a recipe again: the same sound, to the bit, as when it was made.

    Raises what `write_remix` raises.
    """
    check_target(path, bits)
    guard(path, recipe)
    return write_master(path, mixed_blocks(recipe), recipe.output, bits)
