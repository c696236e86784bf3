"""``embedindex export``: vectors, paths, times, labels and attributes as one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Optional, cast

import typer

from embedindex.cli.console import amount, print_json, progress_bar, say
from embedindex.cli.filter_options import with_filters
from embedindex.cli.options import IndexOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from embedindex.filters import Filters


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


@with_filters
def export(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Where to: OUT.npz or OUT.parquet.")],
    index: IndexOption = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--to", metavar="FORMAT", help="npz or parquet, whatever the name ends in."),
    ] = None,
    by: Annotated[str, typer.Option(help="A row for each file (its mean vector), or for each window.")] = "file",
    filters: Filters | None = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write vectors with paths, times, labels and attributes to one file, for NumPy or Parquet's many readers.

    Parquet needs embedindex[parquet].

    Example: embedindex export library.npz --by window --path 'drums/*'
    """
    from embedindex.errors import UsageError
    from embedindex.export import export as write
    from embedindex.locations import index_folder
    from embedindex.store import Store

    if by not in ("file", "window"):
        raise UsageError(f"--by {by}: choose file or window")
    if to not in (None, "npz", "parquet"):
        raise UsageError(f"--to {to}: choose npz or parquet")
    with Store(index_folder(index)) as store, progress_bar(quiet=quiet) as bar:
        task = None if bar is None else bar.add_task("Writing", total=None, note="")

        def progress(done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total)

        done = write(
            store,
            out,
            to=cast("Literal['npz', 'parquet'] | None", to),
            by="window" if by == "window" else "file",
            filters=filters,
            progress=progress,
        )
    if json:
        print_json({"path": out, "files": done.files, "rows": done.rows})
    elif not quiet:
        say(f"embedindex: {amount(done.rows, 'row')} of {amount(done.files, 'file')} in {out}")
