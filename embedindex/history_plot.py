"""A picture of how learning went: loss and accuracy of what was learnt from and of the validation, by step, as PNG."""

from __future__ import annotations

from collections.abc import Sequence

from embedindex.errors import EngineMissingError, UsageError, display_path


def need_matplotlib() -> None:
    """Raise EngineMissingError when matplotlib is not installed."""
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise EngineMissingError("pictures need matplotlib: pip install 'embedindex[plots]'") from error


def plot_history(history: Sequence[dict[str, float]], path: str, title: str) -> None:
    """Write the picture.

    Args:
        history: a line for each step, with ``loss``, ``accuracy``, ``val_loss`` and ``val_accuracy``.
        path: of the PNG.
        title: above it.

    Raises:
        EngineMissingError: matplotlib is not installed.
        UsageError: the picture cannot be written there.
    """
    need_matplotlib()
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    steps = range(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(steps, [line[name] for line in history], label="learnt from")
        axes.plot(steps, [line[f"val_{name}"] for line in history], label="validation")
        best = min(range(len(history)), key=lambda number: history[number]["val_loss"])
        axes.axvline(best + 1, color="grey", linestyle=":", label="kept")
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        axes.legend()
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UsageError(f"{display_path(path)}: cannot be written ({error.strerror}); choose another place") from error
