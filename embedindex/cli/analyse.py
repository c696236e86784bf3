"""``embedindex analyse``: tempo and key of the files of an index, remembered and searchable."""

from __future__ import annotations

import os
from typing import Annotated, Any, Optional

import typer

from embedindex.cli.console import SlowLines, amount, print_json, progress_bar, say
from embedindex.cli.interrupts import Interrupts
from embedindex.cli.options import IndexOption, JsonOption, QuietOption, WorkersOption
from embedindex.cores import count_processes

LIMIT_S = 60.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(analyse)


def analyse(
    paths: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[PATH…]", help="Only files in these folders, or these files."),
    ] = None,
    index: IndexOption = None,
    tempo: Annotated[bool, typer.Option("--tempo", help="Only the tempo (without --key).")] = False,
    key: Annotated[bool, typer.Option("--key", help="Only the key (without --tempo).")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was analysed before.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long one file may take.")
    ] = LIMIT_S,
    workers: WorkersOption = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find tempo and key of the files, for --bpm and --key of the commands that search (needs embedindex[analyse]).

    Each content is analysed once. Ctrl-C is safe: run the same command again to go on.

    Example: embedindex analyse
    """
    from embedindex.crawl import absolute_path
    from embedindex.errors import PathNotFoundError, display_path
    from embedindex.locations import index_folder
    from embedindex.store import Store

    both = tempo == key
    folder = index_folder(index)
    with Store(folder) as store:
        for path in (absolute_path(os.fsencode(path)) for path in paths or []):
            if next(store.paths_below(path), None) is None:
                raise PathNotFoundError(f"{display_path(path)}: is not in the index; `embedindex scan` it first")
    done = run_analysis(
        folder,
        paths or [],
        tempo=tempo or both,
        key=key or both,
        again=again,
        limit_s=timeout,
        workers=workers,
        quiet=quiet,
    )
    if json:
        print_json(done)
    if done["interrupted"]:
        say("embedindex: interrupted; run the same command again to go on")
        raise typer.Exit(130)


def run_analysis(
    folder: str,
    paths: list[str],
    *,
    tempo: bool,
    key: bool,
    again: bool = False,
    limit_s: float = LIMIT_S,
    workers: int = 0,
    quiet: bool,
) -> dict[str, Any]:
    """Analyse what is to be analysed, with a progress bar; return the counts as ``--json`` prints them."""
    from embedindex.analysis_pool import analyse_files
    from embedindex.analysis_store import Wanted, put_analysis, to_analyse
    from embedindex.crawl import absolute_path
    from embedindex.errors import display_path
    from embedindex.store import Store
    from embedindex.tempo_key import require_librosa
    from embedindex.writer import StoreWriter

    require_librosa()
    wanted = Wanted(tempo, key)
    counts = {"files": 0, "with_tempo": 0, "with_key": 0, "failed": 0}
    Store(folder).close()  # says when there is no index, where a writer would make one
    with StoreWriter(folder) as store, Interrupts() as stop, progress_bar(quiet=quiet) as bar:
        todo = to_analyse(store, wanted, [absolute_path(os.fsencode(path)) for path in paths], again=again)
        lines = SlowLines()
        task = None if bar is None else bar.add_task("Analysing", total=len(todo), note="")
        processes = min(count_processes(workers), max(1, len(todo)))
        for one, found in analyse_files(todo, wanted, workers=processes, limit_s=limit_s, stop=stop):
            put_analysis(store, one.content_hash, wanted, found)
            counts["files"] += 1
            if isinstance(found, str):
                counts["failed"] += 1
                if not quiet:
                    say(f"embedindex: {display_path(one.path)}: not analysed: {display_path(found)}")
            else:
                counts["with_tempo"] += found.bpm is not None
                counts["with_key"] += found.key is not None
            if bar is not None and task is not None:
                bar.update(task, advance=1)
            elif not quiet:
                lines.say(f"embedindex: analysed {counts['files']:,} of {amount(len(todo), 'file')}")
        interrupted = counts["files"] < len(todo)
    if not quiet:
        say(
            f"embedindex: {amount(counts['files'], 'file')} analysed, {counts['with_tempo']:,} with a tempo, "
            f"{counts['with_key']:,} with a key, {counts['failed']:,} failed"
        )
    return {**counts, "interrupted": interrupted}
