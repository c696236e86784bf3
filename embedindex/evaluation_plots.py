"""Pictures of an evaluation: the confusion matrix and the reliability of the confidence, as PNG. Needs matplotlib."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from embedindex.evaluate import Figures
from embedindex.figures import new_figure, require_matplotlib

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES_UP_TO = 40  # more classes than this get no names at the axes


def plot_confusion(figures: Figures, classes: Sequence[str], path: str, title: str) -> None:
    """Write the confusion matrix: rows are what files are, shaded by the share of the row.

    Args:
        figures: of one protocol.
        classes: names of the classes.
        path: of the PNG.
        title: above it.

    Raises:
        EngineMissingError: matplotlib is not installed.
    """
    used = np.flatnonzero(figures.confusion.sum(axis=0) + figures.confusion.sum(axis=1))
    table = figures.confusion[np.ix_(used, used)]
    size_in = max(4.0, 1.5 + 0.35 * min(len(used), NAMES_UP_TO))
    figure = new_figure(size_in + 0.8, size_in)
    axes = figure.add_subplot()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the files with this label")
    axes.set_xlabel("taken for")
    axes.set_ylabel("label")
    axes.set_title(title)
    if len(used) <= NAMES_UP_TO:
        names = [classes[int(number)] for number in used]
        axes.set_xticks(range(len(used)), names, rotation=90)
        axes.set_yticks(range(len(used)), names)
        for row, column in np.argwhere(table > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{table[row, column]:g}" if table[row, column] % 1 == 0 else f"{table[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    figure.savefig(path, dpi=120)


def plot_reliability(figures: Figures, path: str, title: str) -> None:
    """Write confidence against accuracy, with how many files there are in each step of confidence.

    Args:
        figures: of one protocol.
        path: of the PNG.
        title: above it.

    Raises:
        EngineMissingError: matplotlib is not installed.
    """
    figure = new_figure(5.0, 5.5)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    axes.plot(
        [part.confidence for part in figures.reliability],
        [part.accuracy for part in figures.reliability],
        marker="o",
        label=f"calibration error {figures.ece:.3f} (by chance {figures.ece_noise:.3f})",
    )
    axes.set_ylabel("accuracy")
    axes.set_title(title)
    axes.legend(loc="upper left")
    below.bar(
        [(part.low + part.high) / 2 for part in figures.reliability],
        [part.files for part in figures.reliability],
        width=0.09,
    )
    below.set_xlabel("confidence")
    below.set_ylabel("files")
    figure.savefig(path, dpi=120)


def write_plots(
    grouped: Figures | None, leave_one_out: Figures | None, classes: Sequence[str], folder: str
) -> list[str]:
    """Write both pictures of the grouped judgement, or of leave-one-out where there is none; return their paths.

    Raises:
        EngineMissingError: matplotlib is not installed.
    """
    figures = grouped or leave_one_out
    if figures is None:
        return []
    name = "leave-one-group-out" if grouped is not None else "leave-one-out"
    require_matplotlib()  # before a folder is made
    os.makedirs(folder, exist_ok=True)
    paths = [os.path.join(folder, "confusion.png"), os.path.join(folder, "reliability.png")]
    plot_confusion(figures, classes, paths[0], f"{name}, accuracy {figures.accuracy:.3f}")
    plot_reliability(figures, paths[1], name)
    return paths
