"""``embedindex evaluate --methods``: the classifiers of ``train`` side by side on one split."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from embedindex.cli.console import amount, print_json, print_line, print_table
from embedindex.cli.train import as_kind, as_method, as_on, reporter, scores_json

if TYPE_CHECKING:
    from embedindex.comparison import Comparison, Line
    from embedindex.train import Plan


def plans_of(
    methods: str, on: str | None, features: str, key: str, group: str, *, seed: int, workers: int, limit: int
) -> list[Plan]:
    """Return what to compare: every method on everything that is to be heard; the cnn hears spectrograms only.

    Raises:
        UsageError: there is no such method, or no such thing to hear.
    """
    from embedindex.train import Plan

    heard = [as_on(part.strip()) for part in on.split(",")] if on else [None]
    plans = []
    for name in methods.split(","):
        method = as_method(name)
        for what in [None] if method == "cnn" else heard:
            plans.append(Plan(key, method, group, what, as_kind(features), seed, workers, limit))
    return plans


def evaluate_methods(folder: str, plans: list[Plan], *, controls: bool, json: bool) -> None:
    """Compare, and print."""
    from embedindex.comparison import compare
    from embedindex.store import Store

    with ExitStack() as stack:
        store = stack.enter_context(Store(folder))
        result = compare(store, plans, controls=controls, progress=reporter(stack, quiet=False))
    if json:
        print_json(_to_json(result, plans[0]))
    else:
        _print(result, plans[0].group)


def _to_json(result: Comparison, plan: Plan) -> dict[str, Any]:
    return {
        "key": plan.key,
        "group": plan.group,
        "seed": plan.seed,
        "files": result.files,
        "labels": list(result.classes),
        "folds": {"leave_one_group_out": result.grouped_folds, "k_fold": result.k_folds},
        "methods": [
            {
                "name": line.name,
                "on": line.on,
                "control": line.control,
                "leave_one_group_out": scores_json(line.grouped),
                "k_fold": scores_json(line.k_fold),
                "wall_s": round(line.wall_s, 2),
            }
            for line in result.lines
        ],
    }


def _print(result: Comparison, group: str) -> None:
    header = ("method", "hears", "judged", "files", "accuracy", "macro F1", "calib.", "80 % surest")
    rows = []
    for protocol, name in (("grouped", f"without its {group}"), ("k_fold", f"{result.k_folds}-fold")):
        rows += [row for line in result.lines if (row := _row(line, protocol, name))]
    print_table(header, rows, right=range(3, len(header)))
    shown = next((one for line in result.lines for one in (line.grouped, line.k_fold) if one), None)
    if shown is not None:
        print_line(
            f"{amount(result.files, 'labelled file')}, {amount(len(result.classes), 'label')}, "
            f"{amount(result.groups, group)} in {amount(result.grouped_folds, 'fold')}; always the commonest label: "
            f"{shown.majority:.3f}; calibration error by chance alone: {shown.ece_noise:.3f}"
        )


def _row(line: Line, protocol: str, name: str) -> tuple[str, ...] | None:
    scores = line.grouped if protocol == "grouped" else line.k_fold
    if scores is None:
        return None
    shares = (scores.accuracy, scores.macro_f1, scores.ece, scores.accuracy_at_80)
    title = f"{line.name} (control)" if line.control else line.name
    return (title, line.on, name, f"{scores.files:,}", *(f"{share:.3f}" for share in shares))
