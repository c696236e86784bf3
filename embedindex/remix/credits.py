"""Who is heard in a remix, and for how long: one line a file, as CSV."""

from __future__ import annotations

import csv
import io
import os

from embedindex.remix.recipe import Recipe, Source

HEADER = ("file", "artist", "album", "title", "licence", "seconds", "share")


def credits_csv(recipe: Recipe) -> bytes:
    """Return the credits: each file once, the longest heard first; `share` is of all the seconds that sound.

    Layers count each for themselves, silence not at all, so that the seconds add up to those of the recipe's events.
    The seed is a file like the others where it is heard itself (`--dry-wet` below 1), or is merged with a unit.
    """
    frames: dict[Source, int] = {}
    for event in recipe.events:
        if event.source is not None:
            source = recipe.sources[event.source]
            frames[source] = frames.get(source, 0) + event.frames
            if event.morph != "none" and recipe.output.all_wet:
                frames[recipe.seed] = frames.get(recipe.seed, 0) + event.frames
    if not recipe.output.all_wet:
        frames[recipe.seed] = frames.get(recipe.seed, 0) + recipe.output.frames
    total = max(1, sum(frames.values()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for source, count in sorted(frames.items(), key=lambda item: (-item[1], item[0].path)):
        seconds = count / recipe.output.sample_rate
        tags = (source.artist or "", source.album or "", source.title or "", source.licence or "")
        writer.writerow((os.fsdecode(source.path), *tags, f"{seconds:.6f}", f"{count / total:.6f}"))
    return text.getvalue().encode("utf-8", "surrogateescape")
