"""A map as a picture (PNG), with a legend."""

from __future__ import annotations

from embedindex.arrays import Float32Array
from embedindex.errors import EngineMissingError, display_path
from embedindex.map_page import colours_of
from embedindex.map_points import Points, colour_groups, colour_numbers
from embedindex.whole_files import whole_file

SIZE_INCHES = 10.0
DPI = 150


def draw_map(points: Points, places: Float32Array, about: str, target: str) -> None:
    """Write a map as a picture.

    Raises:
        EngineMissingError: matplotlib is not installed.
        DiskFullError: no space is left.
        UsageError: the file cannot be written, or is there already.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EngineMissingError("pictures need matplotlib: pip install 'embedindex[plots]'") from error
    groups = colour_groups(points)
    numbers = colour_numbers(points, groups)
    figure = Figure(figsize=(SIZE_INCHES, SIZE_INCHES))
    axes = figure.add_axes((0.02, 0.05, 0.96, 0.93))
    size = max(2.0, min(40.0, 20_000 / len(points.points)))
    for number, (group, colour) in enumerate(zip(groups, colours_of(groups), strict=True)):
        own = [place for place, of in enumerate(numbers) if of == number]
        shown = display_path(group).replace("$", r"\$")
        axes.scatter(places[own, 0], places[own, 1], s=size, c=colour, label=shown, linewidths=0, alpha=0.85)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.legend(loc="upper left", fontsize=8, markerscale=max(1.0, 6 / size**0.5), framealpha=0.8)
    figure.text(0.02, 0.015, about, fontsize=8, color="#555555")
    with whole_file(target, replace=False) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})
