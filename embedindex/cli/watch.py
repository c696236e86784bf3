"""``embedindex watch``: scans what changes, until it is stopped."""

from __future__ import annotations

import json as json_library
import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import print_line, say
from embedindex.cli.options import ExcludeOption, IncludeOption, IndexOption, JsonOption, QuietOption, WorkersOption
from embedindex.cli.scan_report import Nothing, changes_of

if TYPE_CHECKING:
    from embedindex.errors import IndexBusyError
    from embedindex.progress import ScanSummary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


def watch(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Folders (or single files) to watch.")],
    index: IndexOption = None,
    every: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=1, metavar="SECONDS", help="Time between two looks at everything (default: 3600; 300 without events)."
        ),
    ] = None,
    poll: Annotated[bool, typer.Option("--poll", help="Do not rely on file events; look at everything.")] = False,
    model: Annotated[str, typer.Option(help="auto, or NAME[:KEY=VALUE,…], for a new index.")] = "auto",
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    workers: WorkersOption = 0,
    nice: Annotated[int, typer.Option(min=0, max=19, help="How far to give way to other programs.")] = 19,
    log: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Append what happens to this file."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Keep an index up to date: scan some folders, and then what changes in them, until Ctrl-C.

    Says something only when something changed. With --json: one object a line.

    Example: embedindex watch /music
    """
    from embedindex.cli.interrupts import Interrupts
    from embedindex.cli.logs import log_to, waits_are_told
    from embedindex.cli.scan import chosen_model, requested_model
    from embedindex.errors import UsageError
    from embedindex.locations import index_folder
    from embedindex.scan import ScanOptions
    from embedindex.watch import Pace
    from embedindex.watch import watch as run_watch

    if every is not None and not every < float("inf"):
        raise UsageError(f"--every {every:g}: give a number of seconds")
    options = ScanOptions(
        request=requested_model(model),
        choose=lambda: chosen_model(Nothing(), quiet=quiet),
        workers=workers,
        niceness=nice,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )

    def told(outcome: ScanSummary | IndexBusyError) -> None:
        _tell(outcome, json=json, quiet=quiet)

    def warn(text: str) -> None:
        logging.getLogger(__name__).warning("%s", text)
        if not quiet:
            say(f"embedindex: {text}")

    pace = Pace(every, poll)
    with log_to(log), waits_are_told(quiet=quiet), Interrupts() as stop:
        run_watch(index_folder(index), list(paths), options, pace=pace, stop=stop, told=told, warn=warn)


def _tell(outcome: ScanSummary | IndexBusyError, *, json: bool, quiet: bool) -> None:
    """Say what a scan did, if it did something."""
    from embedindex.errors import IndexBusyError

    if isinstance(outcome, IndexBusyError):
        if not quiet:
            say(f"embedindex: {outcome}; the next look is later")
        return
    changes = changes_of(replace(outcome, missing=0, excluded=0))  # those two would be said at every look
    if not changes:
        return
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    if json:
        print_line(json_library.dumps({"time": time, **outcome.to_json()}, allow_nan=False))
    elif not quiet:
        print_line(f"{time} {changes}")
