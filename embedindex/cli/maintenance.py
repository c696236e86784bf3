"""``embedindex verify`` and ``rebuild``: is the index whole, and make its FAISS part again."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from embedindex.cli.console import amount, print_json, print_line, progress_bar, say
from embedindex.cli.options import IndexOption, JsonOption, QuietOption


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
    app.command()(rebuild)


def verify(
    index: IndexOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make a damaged index whole from what can be read; the old one is kept.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check the database and the search index against each other; exit status 0 only when they agree.

    Example: embedindex verify
    """
    from embedindex.locations import index_folder
    from embedindex.store import Store
    from embedindex.verify import verify as run_verify

    if repair:
        _repair(index_folder(index), quiet=quiet)

    with Store(index_folder(index)) as store, progress_bar(quiet=quiet or json) as bar:
        task = None if bar is None else bar.add_task("Comparing", total=None, note="")

        def progress(done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total, note=f"{done:,} windows")

        verdict = run_verify(store, progress)
    if json:
        print_json(
            {
                "ok": not verdict.problems,
                "files": verdict.files,
                "windows": verdict.windows,
                "problems": [
                    {"where": problem.where, "what": problem.what, "remedy": problem.remedy}
                    for problem in verdict.problems
                ],
            }
        )
    elif verdict.problems:
        for problem in verdict.problems:
            say(f"embedindex: {problem.what}; {problem.remedy}")
    elif not quiet:
        print_line(f"All is well: {amount(verdict.files, 'file')}, {amount(verdict.windows, 'window')}.")
    if verdict.problems:
        raise typer.Exit(1)


def _repair(folder: str, *, quiet: bool) -> None:
    """Repair what is damaged and say on stderr what became of it."""
    from embedindex.index import refresh_index
    from embedindex.repair import needs_repair
    from embedindex.repair import repair as run_repair
    from embedindex.verify import verify as run_verify
    from embedindex.writer import StoreWriter

    if not needs_repair(folder):
        with StoreWriter(folder) as store:
            if run_verify(store).problems:
                refresh_index(store, rebuild=True)
        return
    done = run_repair(folder)
    if quiet:
        return
    say(f"embedindex: repaired: {amount(done.files, 'file')} whole; the damaged database is kept as {done.kept}")
    if done.again:
        say(f"embedindex: {amount(done.again, 'file')} lost their vectors, not their labels: scan again")
    if done.holes["files"] or done.refused["files"]:
        say("embedindex: other files, with their labels, are lost from the index; scan again to find them")
    elif done.labels_lost:
        say("embedindex: some labels are lost; import them again")


def rebuild(index: IndexOption = None, quiet: QuietOption = False) -> None:
    """Make the search index again from the database, which holds all vectors; no sound is read.

    Example: embedindex rebuild
    """
    from embedindex.index_refresh import refresh_index
    from embedindex.locations import index_folder
    from embedindex.store import Store
    from embedindex.writer import StoreWriter

    folder = index_folder(index)
    Store(folder).close()  # says so when there is none, instead of making one
    started = time.monotonic()
    with StoreWriter(folder) as store:
        built = refresh_index(store, rebuild=True)
        windows = store.counts().windows
    if not built:
        say("embedindex: there is nothing in this index yet; fill it with `embedindex scan FOLDER`")
    elif not quiet:
        print_line(f"Built from {amount(windows, 'window')} in {time.monotonic() - started:.1f} s.")
