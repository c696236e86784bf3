"""``embedindex models``: which models there are, and their weights: fetch, verify, import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import print_json, print_line, print_table, progress_bar, say
from embedindex.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from embedindex.models.catalogue import Entry
    from embedindex.models.download import Progress

ModelsArgument = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
    typer.Argument(
        metavar="[MODEL]…", help="For example openl3, openl3:content_type=env or aisfx+spectral.", show_default=False
    ),
]

PrepareOption = Annotated[
    bool, typer.Option(help="Convert the weights and choose the precision now, rather than at the first scan.")
]


def register(app: typer.Typer) -> None:
    """Add the command and its sub-commands."""
    models = typer.Typer(help="Models and their weights: list, fetch, verify, import.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command("fetch")(fetch)
    models.command("verify")(verify)
    models.command("import")(import_file)
    app.add_typer(models, name="models")


def list_models(json: JsonOption = False) -> None:
    """List the models: vector length, sample rate, window, licence of the weights, and whether these are here.

    Example: embedindex models list
    """
    from embedindex.models.cache import models_folder
    from embedindex.models.catalogue import catalogue

    entries = catalogue()
    if json:
        print_json({"folder": models_folder(), "models": [_describe(entry) for entry in entries]})
        return
    rows = [
        (
            entry.request,
            str(entry.dimension or ""),
            f"{entry.sample_rate:,} Hz" if entry.sample_rate else "",
            f"{entry.window_s:.2f} s" if entry.window_s else "",
            entry.licence,
            entry.state,
        )
        for entry in entries
    ]
    print_table(("model", "numbers", "rate", "window", "licence", "weights"), rows, right=(1, 2, 3))


def fetch(
    models: ModelsArgument = None,
    prepare: PrepareOption = True,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Fetch weights now, instead of at the first scan. Without a name: those that `--model auto` would use.

    Example: embedindex models fetch openl3
    """
    from embedindex.models.auto import choose_model, forget_failures
    from embedindex.models.catalogue import fetch_weights, find_entry

    forget_failures()
    with _download_bar(quiet=quiet or json) as progress:
        if models:
            entries = [find_entry(name) for name in models]
        else:
            request, line = choose_model(progress=progress)
            if not quiet:
                say(f"embedindex: {line}")
            entries = [find_entry(request.name)]
        fetched = [fetch_weights(entry, progress) for entry in entries]
    if prepare:
        _prepare(fetched, quiet=quiet or json)
    if json:
        print_json([_describe(entry) for entry in fetched])
    elif not quiet:
        for entry in fetched:
            print_line(f"{entry.request}: {entry.state}")


def verify(models: ModelsArgument = None, json: JsonOption = False) -> None:
    """Check weights against their checksums, and what they compute against reference values. Without a name: all here.

    Exit status 0 only when all is as it should be.

    Example: embedindex models verify openl3
    """
    from embedindex.errors import WeightsMissingError
    from embedindex.models.catalogue import catalogue, find_entry
    from embedindex.models.selftest import check_model

    if models:
        entries = [find_entry(name) for name in models]
    else:
        there = [entry for entry in catalogue() if not isinstance(entry.problem, WeightsMissingError)]
        entries = [entry for entry in there if not entry.fused]  # of weights that are checked already
    verdicts = [check_model(entry) for entry in entries]
    if json:
        print_json([{"model": v.request, "ok": v.ok, "checks": list(v.checks)} for v in verdicts])
    else:
        for verdict in verdicts:
            print_line(f"{verdict.request}: {'well' if verdict.ok else 'NOT WELL'}; {'; '.join(verdict.checks)}")
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(1)


def import_file(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="OpenL3's .h5 or .h5.gz, or aisfx's .whl.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Take OpenL3 weights whose checksum is not known; you vouch for them.")
    ] = False,
    prepare: PrepareOption = True,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Take in weights that were downloaded elsewhere, for machines without a network.

    Example: embedindex models import openl3_audio_mel256_music-v0_4_0.h5.gz
    """
    from embedindex.models.catalogue import import_any

    imported = [import_any(path, trust=trust) for path in files]
    if prepare:
        _prepare(imported, quiet=quiet or json)
    if json:
        print_json([_describe(entry) for entry in imported])
    elif not quiet:
        for entry in imported:
            print_line(f"{entry.request}: {entry.state}")


def _describe(entry: Entry) -> dict[str, Any]:
    """Return what JSON says about a model."""
    weights = entry.weights
    return {
        "model": entry.request,
        "dimension": entry.dimension,
        "sample_rate": entry.sample_rate,
        "window": entry.window_s,
        "licence": entry.licence,
        "here": entry.here,
        "state": entry.state,
        "weights": None
        if weights is None
        else {"path": weights.path, "sha256": weights.sha256, "source": weights.source},
    }


def _prepare(entries: list[Entry], *, quiet: bool) -> None:
    from embedindex.models.catalogue import prepare

    told = None if quiet else lambda text: say(f"embedindex: {text}")
    for entry in entries:
        with progress_bar(quiet=quiet) as bar:
            if bar is None:
                prepare(entry, told)
                continue
            task = bar.add_task(f"Preparing {entry.name}", total=1.0, note="")
            prepare(entry, told, partial(_move, bar, task))


def _move(bar: Bar, task: TaskID, share: float) -> None:
    bar.update(task, completed=share)


@contextmanager
def _download_bar(*, quiet: bool) -> Iterator[Progress | None]:
    """Give a callback that shows a download on stderr, None when quiet or not on a terminal."""
    with progress_bar(quiet=quiet) as bar:
        if bar is None:
            yield None
            return
        task = bar.add_task("Fetching weights", total=None, note="", start=True)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, note=f"{done / 1e6:.1f} MB")

        yield show
