"""A picture of how learning went: loss and accuracy of what was learnt from and of the validation, by step, as PNG."""

from __future__ import annotations

from collections.abc import Sequence

from embedindex.figures import new_figure, save


def kept_step(history: Sequence[dict[str, float]]) -> int:
    """Return the step, counted from 1, whose classifier was kept: the one of the lowest loss that decided.

    Networks are kept by their calibrated loss, which goes on falling where they only grow too sure of themselves.
    """
    losses = [line.get("val_calibrated_loss", line["val_loss"]) for line in history]
    return 1 + losses.index(min(losses))


def plot_history(history: Sequence[dict[str, float]], path: str, title: str) -> None:
    """Write the picture.

    Args:
        history: a line for each step, with ``loss``, ``accuracy``, ``val_loss`` and ``val_accuracy``; of networks with
            ``val_calibrated_loss``, too.
        path: of the PNG.
        title: above it.

    Raises:
        EngineMissingError: matplotlib is not installed.
        DiskFullError: no space is left.
        UsageError: the picture cannot be written there.
    """
    figure = new_figure(8.0, 3.8)
    steps = range(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(steps, [line[name] for line in history], label="learnt from")
        axes.plot(steps, [line[f"val_{name}"] for line in history], label="validation")
        if f"val_calibrated_{name}" in history[0]:
            axes.plot(steps, [line[f"val_calibrated_{name}"] for line in history], label="validation, calibrated")
        axes.axvline(kept_step(history), color="grey", linestyle=":", label="kept")
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        axes.legend()
    figure.suptitle(title)
    save(figure, path, dpi=120)
