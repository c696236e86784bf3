"""``embedindex merge``: unite indexes that were made apart."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from embedindex.cli.console import amount, print_json, print_line, progress_bar, say
from embedindex.cli.interrupts import Interrupts
from embedindex.cli.options import IndexOption, JsonOption, QuietOption


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(merge)


def merge(
    sources: Annotated[list[str], typer.Argument(metavar="INDEX…", help="Folders of the indexes to take in.")],
    index: IndexOption = None,
    path_map: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--map", metavar="OLD=NEW", help="A folder of theirs and what it is on this machine; may be repeated."
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take other indexes into this one: files, vectors and labels; no sound is read, the others stay as they are.

    All must have been made with the same model. Run it again after an interruption, or when the others have grown.

    Example: embedindex merge /mnt/usb/laptop-index --map /Users/ana/Samples=/mnt/nas/ana
    """
    from embedindex.locations import index_folder
    from embedindex.merge import merge as run_merge
    from embedindex.path_map import parse_path_map

    folder = index_folder(index)
    renaming = parse_path_map(path_map or ())
    with Interrupts() as stop, progress_bar(quiet=quiet or json) as bar:
        task = None if bar is None else bar.add_task("Merging", total=None, note="")

        def report(done: int, total: int, _: bytes) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total, note=f"{done:,} of {total:,} files")

        summaries = run_merge(folder, sources, renaming, report=report, stop=stop)
    if json:
        print_json({"index": folder, "merged": [summary.to_json() for summary in summaries]})
    elif not quiet:
        for one in summaries:
            parts = [
                amount(one.added, "new file"),
                f"{one.known:,} known",
                f"{one.united:,} known under another path",
                f"{one.replaced:,} replaced by a later scan",
                f"{one.kept:,} kept as they were",
                amount(one.labels, "new label"),
            ]
            print_line(f"{one.source}: {', '.join(part for part in parts if not part.startswith('0 ')) or 'nothing'}.")
    for one in summaries:
        if one.damaged:
            say(
                f"embedindex: {one.source}: {amount(one.damaged, 'file')} left out: their vectors are damaged there; "
                "`embedindex verify` names them"
            )
        if one.interrupted:
            say("embedindex: interrupted; run the same command again to go on")
            raise typer.Exit(130)
