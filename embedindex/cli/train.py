"""``embedindex train``: a classifier learnt from the labelled files, tested on others, kept for ``genre --method``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import amount, print_json, print_line, print_table, progress_bar, say
from embedindex.cli.options import IndexOption, JsonOption, QuietOption, WorkersOption

if TYPE_CHECKING:
    from embedindex.classifier_rows import On, Progress
    from embedindex.features import Kind
    from embedindex.fitting import Method
    from embedindex.train import Plan, Scores, Trained

CONFUSIONS_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(
    index: IndexOption = None,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Which labels: genre, instrument…")] = "genre",
    method: Annotated[
        str, typer.Option(metavar="METHOD", help="knn, logistic, forest, boosting, mlp or cnn.")
    ] = "logistic",
    group: Annotated[
        str, typer.Option(metavar="GROUP", help="What is kept together in the split: folder, album, artist or a key.")
    ] = "folder",
    on: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
        typer.Option("--on", metavar="WHAT", help="What is heard: embeddings (default), features, or both."),
    ] = None,
    kind: Annotated[str, typer.Option("--set", help="Which features: classic (26) or rich (134).")] = "classic",
    out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--out", "-o", metavar="FILE", help="Write the classifier there, not into the index folder."),
    ] = None,
    plot: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--plot", metavar="PNG", help="Draw how learning went (mlp, cnn, boosting; embedindex[plots])."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    workers: WorkersOption = 0,
    limit: Annotated[int, typer.Option(min=2, help="Of more labelled files, so many are drawn at random.")] = 20_000,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn a classifier from the labelled files, and say how well it judges groups that it has not heard.

    Example: embedindex train --key genre --method logistic --group album
    """
    from embedindex.errors import UsageError
    from embedindex.figures import check_picture, require_matplotlib
    from embedindex.history_plot import plot_history
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.store import Store
    from embedindex.train import Plan
    from embedindex.train import train as run

    plan = Plan(clean_key(key), as_method(method), group, as_on(on), as_kind(kind), seed, workers, limit)
    if plot is not None:
        if plan.method not in ("mlp", "cnn", "boosting"):
            raise UsageError(f"--plot: {method} learns in one step; mlp, cnn and boosting have a history")
        require_matplotlib()
        check_picture(plot)
    with ExitStack() as stack:
        store = stack.enter_context(Store(index_folder(index)))
        result = run(store, plan, out, reporter(stack, quiet=quiet))
    if plot is not None:
        plot_history(result.history, plot, f"{plan.method}, {plan.key}, {result.about.on}")
        if not quiet:
            say(f"embedindex: wrote {plot}")
    if json:
        print_json(_to_json(result, plan))
        return
    _print(result, plan)
    if not quiet:
        say(f"embedindex: wrote {result.path}; use it with `embedindex genre --key {plan.key} --method {method}`")


def as_method(text: str) -> Method:
    """Return the method of that name.

    Raises:
        UsageError: there is none.
    """
    from embedindex.errors import UsageError
    from embedindex.fitting import METHODS

    for method in METHODS:
        if method == text.strip().lower():
            return method
    raise UsageError(f"there is no method {text}; the methods are: {', '.join(METHODS)}")


def as_on(text: str | None) -> On | None:
    """Return what is to be heard.

    Raises:
        UsageError: there is no such thing.
    """
    from embedindex.errors import UsageError

    known: tuple[On, ...] = ("embeddings", "features", "both", "segments")
    for on in known:
        if on == text:
            return on
    if text is None:
        return None
    raise UsageError(f"--on {text}: choose embeddings, features or both")


def as_kind(text: str) -> Kind:
    """Return the set of features of that name.

    Raises:
        UsageError: there is none.
    """
    from embedindex.errors import UsageError

    if text not in ("classic", "rich"):
        raise UsageError(f"--set {text}: choose classic or rich")
    return "rich" if text == "rich" else "classic"


def reporter(stack: ExitStack, *, quiet: bool) -> Progress | None:
    """Return what shows progress, a bar for each thing that is done; None when nobody looks."""
    bar = stack.enter_context(progress_bar(quiet=quiet))
    if bar is None:
        return None
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, of: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=of, note="")
        bar.update(tasks[what], completed=done, total=of)

    return report


def scores_json(scores: Scores | None) -> dict[str, Any] | None:
    """Return figures for programs."""
    if scores is None:
        return None
    names = ("accuracy", "macro_f1", "majority", "ece", "ece_noise", "accuracy_at_80")
    data: dict[str, Any] = {"files": scores.files}
    data |= {name: round(getattr(scores, name), 6) for name in names}
    data["confusion"] = [[round(cell, 3) for cell in row] for row in scores.confusion.tolist()]
    return data


def _to_json(result: Trained, plan: Plan) -> dict[str, Any]:
    from embedindex.search import path_to_json

    about = result.about
    return {
        "key": about.key,
        "method": about.method,
        "on": about.on,
        "set": about.kind,
        "model": about.model_name or None,
        "group": plan.group,
        "across_groups": result.across_groups,
        "seed": about.seed,
        "labels": list(about.classes),
        "left_out_labels": list(result.rare),
        "learnt_from": result.parts[0],
        "unusable": result.unusable,
        "test": scores_json(result.scores),
        "classifier": {**path_to_json(result.path.encode("utf-8", "surrogateescape")), "files": about.files},
        "history": result.history,
    }


def _print(result: Trained, plan: Plan) -> None:
    scores, classes = result.scores, result.about.classes
    split = f"whole {plan.group}s" if result.across_groups else "file by file, which flatters"
    print_line(
        f"{plan.method} on {result.about.on}: {amount(result.parts[0], 'file')} to learn from, "
        f"{amount(result.parts[1], 'file')} to test with ({split}); {amount(len(classes), 'label')}; seed {plan.seed}"
    )
    if result.rare:
        print_line(f"left out, of one file only: {', '.join(result.rare)}")
    if result.unusable:
        print_line(f"{amount(result.unusable, 'labelled file')} could not be read")
    if scores is None:
        print_line("too few groups to test with: nothing is known about how good it is")
        return
    rows = [
        ("accuracy", f"{scores.accuracy:.3f}"),
        ("macro F1", f"{scores.macro_f1:.3f}"),
        ("always the commonest label", f"{scores.majority:.3f}"),
        ("accuracy of the 80 % surest", f"{scores.accuracy_at_80:.3f}"),
        ("calibration error (by chance)", f"{scores.ece:.3f} ({scores.ece_noise:.3f})"),
    ]
    print_table(("test", f"{scores.files:,} files"), rows, right=(1,))
    cells = [
        (float(scores.confusion[row, column]), row, column)
        for row in range(len(classes))
        for column in range(len(classes))
        if row != column and scores.confusion[row, column]
    ]
    for count, row, column in sorted(cells, reverse=True)[:CONFUSIONS_SHOWN]:
        print_line(f"{count:6g} × {classes[row]} taken for {classes[column]}")
