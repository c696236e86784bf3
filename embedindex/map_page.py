"""A map as one HTML file that needs nothing else: drawn by a script of its own, playing the local files on a click.

Everything that comes from a library (names, labels) travels as JSON and is shown as text, never as HTML.
"""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

from embedindex.archives import archive_of
from embedindex.arrays import Float32Array
from embedindex.errors import display_path
from embedindex.map_points import NONE, OTHER, Points, colour_groups, colour_numbers
from embedindex.remote_paths import is_remote

# Twelve colours that can be told apart on dark and on white (after P. Tol, "Colour schemes", 2021, muted and vibrant).
PALETTE = (
    "#77aadd", "#ee8866", "#eedd88", "#44bb99", "#ffaabb", "#bbcc33", "#99ddff", "#aa4499", "#ddcc77", "#cc6677",
    "#117733", "#8877dd",
)  # fmt: skip
GREY, DARK_GREY = "#9aa3ad", "#5d666f"


def colours_of(groups: list[str]) -> list[str]:
    """Return a colour for each group: greys for the rest and for what has none."""
    greys = {OTHER: GREY, NONE: DARK_GREY}
    return [greys.get(group, PALETTE[number % len(PALETTE)]) for number, group in enumerate(groups)]


def _address(path: bytes) -> str:
    """Return where a browser finds a sound; nothing if it is in an archive, where none looks."""
    if archive_of(path) is not None:
        return ""
    return os.fsdecode(path) if is_remote(path) else Path(os.fsdecode(path)).as_uri()


def page(points: Points, places: Float32Array, about: str, *, windows: bool) -> str:
    """Return the HTML of a map.

    Args:
        points: what is on it.
        places: (n, 2) where, in 0…1.
        about: one line on what it shows.
        windows: the points are windows, which have a time.
    """
    groups = colour_groups(points)
    numbers: dict[bytes, int] = {}
    known = []
    for point in points.points:
        if point.path not in numbers:
            numbers[point.path] = len(numbers)
            known.append(
                {
                    "name": display_path(os.path.basename(point.path)),
                    "path": display_path(point.path),
                    "url": _address(point.path),
                    "duration": round(point.duration_s, 3),
                    "labels": [display_path(label) for label in point.labels],
                }
            )
    data = {
        "about": about,
        "windows": windows,
        "groups": [display_path(group) for group in groups],
        "colours": colours_of(groups),
        "files": known,
        "x": [round(float(x), 5) for x in places[:, 0]],
        "y": [round(float(y), 5) for y in places[:, 1]],
        "file": [numbers[point.path] for point in points.points],
        "start": [point.start_s for point in points.points],
        "colour": colour_numbers(points, groups),
    }
    # In ASCII, and without a `<` that could end the element it stands in.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = files("embedindex").joinpath("map_page.html").read_text(encoding="utf-8")
    return template.replace("/*DATA*/", text)
