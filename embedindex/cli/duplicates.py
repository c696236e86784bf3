"""``embedindex duplicates``: files that are the same recording, and which of them to keep. Deletes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import amount, clock, print_json, print_table, progress_bar, say, warn
from embedindex.cli.filter_options import with_filters
from embedindex.cli.options import (
    IndexOption,
    JsonOption,
    QuietOption,
)
from embedindex.cli.threads import spare_threads

if TYPE_CHECKING:
    from embedindex.filters import Filters
    from embedindex.near_duplicates import Duplicate, Group


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(duplicates)


@with_filters
def duplicates(
    index: IndexOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="Only files that are the same to the byte.")] = False,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--threshold", metavar="0…1", help="Correlation from which on it is the same recording."),
    ] = None,
    no_listen: Annotated[
        bool, typer.Option("--no-listen", help="Decide by the index alone, without reading the files.")
    ] = False,
    filters: Filters | None = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find files that are the same recording: to the byte, or at another bit rate, level or start.

    In each group the file to keep comes first: lossless, high rate, more channels, longer, more bits. Deletes nothing.

    Example: embedindex duplicates --path 'drums/*'
    """
    spare_threads()
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.near_duplicates import find_duplicates, group_to_json
    from embedindex.store import Store

    with Store(index_folder(index)) as store, progress_bar(quiet=quiet) as bar:
        view = load_view(store)
        warn(view.damage)
        task = None if bar is None else bar.add_task("Comparing", total=store.counts().ok, note="")

        def progress(done: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done)

        groups = find_duplicates(
            store, view, near=not exact, listen=not no_listen, threshold=threshold, filters=filters, progress=progress
        )
        model = view.model.identity.name
    if json:
        print_json({"model": model, "groups": [group_to_json(group) for group in groups]})
    else:
        print_table(
            ("group", "", "likeness", "length", "format", "file"),
            [_row(number, group, one) for number, group in enumerate(groups, 1) for one in group.files],
            right=(0, 2, 3),
        )
    if not quiet:
        say(f"embedindex: {_summary(groups)}")


def _row(number: int, group: Group, one: Duplicate) -> tuple[str, ...]:
    from embedindex.errors import display_path

    file = one.file
    form = " ".join(filter(None, (file.container, file.codec, f"{file.sample_rate} Hz", f"{file.channels} ch")))
    what = "keep" if one is group.files[0] else "exact" if one.exact else "near"
    return (str(number), what, f"{one.likeness:.3f}", clock(file.duration), form, display_path(file.path))


def _summary(groups: list[Group]) -> str:
    extra = [one.file.size for group in groups for one in group.files[1:]]
    if not groups:
        return "no duplicates"
    sizes = f"{sum(extra) / 1e6:,.1f} MB in {amount(len(extra), 'file')} besides the best of each; nothing was deleted"
    return f"{amount(len(groups), 'group')}, {sizes}"
