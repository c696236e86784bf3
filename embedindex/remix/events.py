"""The events of a remix as a table: what sounds when, from where, how loud, and how well it fits."""

from __future__ import annotations

import csv
import io
import os

from embedindex.remix.recipe import Recipe

HEADER = (
    *("layer", "unit", "start", "end", "file", "file_start", "gain_db", "fade"),
    *("follows", "morph", "distance", "roughness", "stretch", "semitones"),
)


def events_csv(recipe: Recipe) -> bytes:
    """Return one line for each event, by layer and time; times in seconds, `file` empty for silence."""
    rate = recipe.output.sample_rate
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for event in recipe.events:
        source = None if event.source is None else recipe.sources[event.source]
        writer.writerow(
            (
                event.layer + 1,
                event.unit,
                f"{event.start / rate:.9f}",
                f"{(event.start + event.frames) / rate:.9f}",
                "" if source is None else os.fsdecode(source.path),
                "" if source is None else f"{event.source_start / source.sample_rate:.9f}",
                f"{event.gain_db:.3f}",
                f"{event.fade / rate:.6f}",
                int(event.follows),
                event.morph,
                f"{event.target:.4f}",
                f"{event.join:.4f}",
                f"{event.stretch:.7g}",
                f"{event.semitones:g}",
            )
        )
    return text.getvalue().encode("utf-8", "surrogateescape")
