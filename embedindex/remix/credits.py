"""Who is heard in a remix, and for how long: one line a file, as CSV."""

from __future__ import annotations

import csv
import io
import os

from embedindex.remix.recipe import Recipe

HEADER = ("file", "artist", "album", "title", "licence", "seconds", "share")


def credits_csv(recipe: Recipe) -> bytes:
    """Return the credits: each file once, the longest heard first; `share` is of all the seconds that sound.

    Layers count each for themselves, silence not at all, so that the seconds add up to those of the recipe's events.
    """
    frames: dict[int, int] = {}
    for event in recipe.events:
        if event.source is not None:
            frames[event.source] = frames.get(event.source, 0) + event.frames
    total = max(1, sum(frames.values()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for number, count in sorted(frames.items(), key=lambda item: (-item[1], recipe.sources[item[0]].path)):
        source = recipe.sources[number]
        seconds = count / recipe.output.sample_rate
        tags = (source.artist or "", source.album or "", source.title or "", source.licence or "")
        writer.writerow((os.fsdecode(source.path), *tags, f"{seconds:.6f}", f"{count / total:.6f}"))
    return text.getvalue().encode("utf-8", "surrogateescape")
