"""Figures of matplotlib that need no display, for every module that draws. matplotlib is an extra."""

from __future__ import annotations

import os
from typing import Any

from embedindex.errors import EngineMissingError, UsageError, display_path
from embedindex.whole_files import whole_file

SUFFIXES = (".png", ".svg", ".pdf")
MISSING = "pictures need matplotlib: pip install 'embedindex[plots]'"


def require_matplotlib() -> None:
    """Make sure that pictures can be drawn, before anything is computed for them.

    Raises:
        EngineMissingError: matplotlib is not installed.
    """
    new_figure(1.0, 1.0)


def new_figure(width_in: float, height_in: float) -> Any:
    """Return an empty figure that needs no display.

    Raises:
        EngineMissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise EngineMissingError(MISSING) from error
    return Figure(figsize=(width_in, height_in), layout="constrained")


def new_window(width_in: float, height_in: float) -> Any:
    """Return an empty figure that `show_windows` will open.

    Raises:
        EngineMissingError: matplotlib is not installed, or cannot open windows here.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise EngineMissingError(MISSING) from error
    figure = pyplot.figure(figsize=(width_in, height_in), layout="constrained")
    if type(figure.canvas).required_interactive_framework is None:
        raise EngineMissingError("no window can be opened here (no display, or no Tk or Qt); write a file with -o")
    return figure


def show_windows() -> None:
    """Open the windows, and wait until they are closed."""
    from matplotlib import pyplot

    pyplot.show()


def check_picture(path: str) -> None:
    """Make sure that a picture can be written there.

    Raises:
        UsageError: the suffix is none of a picture's, or the folder is not there.
    """
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise UsageError(f"{display_path(path)}: choose a name that ends in {', '.join(SUFFIXES)}")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"{display_path(folder)}: there is no such folder; make it first")


def save(figure: Any, path: str, dpi: int = 110) -> None:
    """Write a figure to a file that appears only when it is whole.

    Raises:
        DiskFullError: no space is left.
        UsageError: it cannot be written.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=os.path.splitext(path)[1][1:].lower())


def drawable(text: str) -> str:
    """Return text as matplotlib takes it: printable, and without the ``$`` that would begin a formula."""
    return display_path(text).replace("$", r"\$")
