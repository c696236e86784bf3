"""``embedindex evaluate``: how good the labels' neighbourhoods are, across groups first."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import amount, print_csv, print_json, print_line, print_table, say
from embedindex.cli.options import CsvOption, IndexOption, JsonOption, WorkersOption, one_format

if TYPE_CHECKING:
    from embedindex.evaluate import Evaluation, Figures, Method

CONFUSIONS_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    index: IndexOption = None,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Which labels: genre, instrument…")] = "genre",
    group: Annotated[
        str,
        typer.Option(metavar="GROUP", help="What must not judge its own: folder, album, artist or a key of labels."),
    ] = "folder",
    k: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
        typer.Option(
            "-k",
            min=1,
            help="Nearest folders, or files, of each label that are heard (default: chosen by cross-validation).",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Also a stratified split into so many parts.")] = 0,
    compare: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--with", metavar="DIR", help="Another index of the same files, to compare; may be repeated."),
    ] = None,
    methods: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="LIST", help="Compare what `embedindex train` knows, learnt anew in every fold: logistic,forest,…"
        ),
    ] = None,
    on: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--on", metavar="LIST", help="With --methods: what they hear: embeddings,features,both."),
    ] = None,
    features: Annotated[str, typer.Option("--set", help="With --on: classic (26) or rich (134) features.")] = "classic",
    workers: WorkersOption = 0,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also judge by metadata only and by random numbers.")
    ] = False,
    confusion: Annotated[bool, typer.Option("--confusion", help="Print the whole confusion matrix.")] = False,
    plots: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="DIR", help="Write confusion.png and reliability.png there (needs embedindex[plots])."),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Of more labelled files, so many are drawn at random.")] = 6000,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: JsonOption = False,
    csv: CsvOption = False,
) -> None:
    """Judge every labelled file by the others: without its own folder, album or artist first, then leave-one-out.

    Leave-one-out flatters, because files of one album or pack resemble each other in more than their label.

    Example: embedindex evaluate --key genre --group album
    """
    from embedindex.errors import UsageError
    from embedindex.evaluate import evaluate as run
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv)
    if folds == 1 or folds < 0:
        raise UsageError(f"--folds {folds}: a split needs two parts or more")
    if methods is not None:
        from embedindex.cli.evaluate_methods import evaluate_methods, plans_of

        if compare or plots or csv or k is not None or folds:
            raise UsageError("--methods goes with --on, --set, --controls, --group, --limit, --seed and --json only")
        plans = plans_of(methods, on, features, clean_key(key), group, seed=seed, workers=workers, limit=limit)
        evaluate_methods(index_folder(index), plans, controls=controls, json=json)
        return
    with ExitStack() as stack:
        stores = [stack.enter_context(Store(index_folder(folder))) for folder in (index, *(compare or ()))]
        result = run(stores, clean_key(key), group, k=k, folds=folds, controls=controls, limit=limit, seed=seed)
        known = stores[0].model()
        model = known.identity.name if known else ""
    if plots is not None:
        from embedindex.evaluation_plots import write_plots

        best = result.methods[0]
        for path in write_plots(best.grouped, best.leave_one_out, result.labelled.classes, plots):
            say(f"embedindex: wrote {path}")
    if kind == "json":
        print_json(_to_json(result, model))
    elif kind == "csv":
        _print_predictions(result)
    else:
        _print(result, confusion=confusion)


def _to_json(result: Evaluation, model: str) -> dict[str, Any]:
    best = result.methods[0]
    shown = best.grouped or best.leave_one_out
    return {
        "key": result.key,
        "k": result.k or (shown.k if shown else None),
        "model": model,
        "group": result.group,
        "files": len(result.labelled),
        "labels": list(result.labelled.classes),
        "leave_one_group_out": _figures_json(best.grouped),
        "leave_one_out": _figures_json(best.leave_one_out),
        "k_fold": _figures_json(best.k_fold),
        "methods": [
            {
                "name": method.name,
                "control": method.control,
                "leave_one_group_out": _figures_json(method.grouped, short=True),
                "leave_one_out": _figures_json(method.leave_one_out, short=True),
                "k_fold": _figures_json(method.k_fold, short=True),
            }
            for method in result.methods
        ],
    }


def _figures_json(figures: Figures | None, *, short: bool = False) -> dict[str, Any] | None:
    if figures is None:
        return None
    names = ("accuracy", "macro_f1", "map", "precision_at_10", "plain_vote", "majority", "ece", "ece_noise")
    more = ("ece_noise_groups", "accuracy_at_80", "hubness")
    data: dict[str, Any] = {"files": figures.files, "groups": figures.groups, "k": figures.k, "ks": list(figures.ks)}
    data |= {name: round(getattr(figures, name), 6) for name in (*names, *more)}
    if not short:
        data["confusion"] = [[round(cell, 3) for cell in row] for row in figures.confusion.tolist()]
        data["reliability"] = [
            {"confidence": round(part.confidence, 6), "accuracy": round(part.accuracy, 6), "files": part.files}
            for part in figures.reliability
        ]
    return data


def _print_predictions(result: Evaluation) -> None:
    """Print what was made of every file: by the others of other groups where that was possible."""
    method, labelled = result.methods[0], result.labelled
    figures = method.grouped or method.leave_one_out
    if figures is None:
        return
    print_csv(
        ("path", "label", "predicted", "confidence"),
        (
            (
                record.text_path,
                "; ".join(labelled.classes[column] for column in labelled.truth[number].nonzero()[0]),
                labelled.classes[figures.chosen[number]] if figures.chosen[number] >= 0 else "",
                f"{figures.confidence[number]:.4f}",
            )
            for number, record in enumerate(labelled.records)
            if figures.judged[number]
        ),
    )


def _print(result: Evaluation, *, confusion: bool) -> None:
    best = result.methods[0]
    protocols = (
        (f"without its {result.group}", [method.grouped for method in result.methods]),
        ("leave-one-out", [method.leave_one_out for method in result.methods]),
        ("k-fold", [method.k_fold for method in result.methods]),
    )
    if best.grouped is None:
        say(f"embedindex: no label occurs in two {result.group}s, so only the flattering figure can be given")
    rows = [
        (method.name, name, *_cells(figures))
        for name, column in protocols
        for method, figures in zip(result.methods, column, strict=True)
        if figures is not None
    ]
    header = ("model", "judged", "files", "accuracy", "macro F1", "mAP", "P@10", "plain vote", "calib.", "80 % surest")
    print_table(header, rows, right=range(2, len(header)))
    _print_remarks(result, best, confusion=confusion)


def _cells(figures: Figures) -> tuple[str, ...]:
    shares = (figures.accuracy, figures.macro_f1, figures.map, figures.precision_at_10, figures.plain_vote)
    last = (figures.ece, figures.accuracy_at_80)
    return (f"{figures.files:,}", *(f"{share:.3f}" for share in (*shares, *last)))


def _print_remarks(result: Evaluation, best: Method, *, confusion: bool) -> None:
    figures = best.grouped or best.leave_one_out
    if figures is None:
        return
    labelled = result.labelled
    left_out = len(labelled) - figures.files
    why = f", {left_out:,} have a label of one {result.group} only" if left_out else ""
    print_line(
        f"{amount(len(labelled), 'labelled file')}{why}; {amount(len(labelled.classes), 'label')}; k = {figures.k}; "
        f"always the commonest label: {figures.majority:.3f}; hubness {figures.hubness:.1f}; "
        f"calibration error by chance alone: {figures.ece_noise:.3f}"
        + (f", with so few {result.group}s {figures.ece_noise_groups:.3f}" if figures is best.grouped else "")
    )
    classes = labelled.classes
    if confusion:
        names = [*classes]
        rows = [(name, *(f"{cell:g}" for cell in row)) for name, row in zip(names, figures.confusion, strict=True)]
        print_table(("label \\ taken for", *names), rows, right=range(1, len(names) + 1))
        return
    cells = [
        (float(figures.confusion[row, column]), row, column)
        for row in range(len(classes))
        for column in range(len(classes))
        if row != column and figures.confusion[row, column]
    ]
    for count, row, column in sorted(cells, reverse=True)[:CONFUSIONS_SHOWN]:
        print_line(f"{count:6g} × {classes[row]} taken for {classes[column]}")
