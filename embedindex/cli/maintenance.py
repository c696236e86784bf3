"""``embedindex verify`` and ``rebuild``: is the index whole, and make its FAISS part again."""

from __future__ import annotations

import time

import typer

from embedindex.cli.console import amount, print_json, print_line, progress_bar, say
from embedindex.cli.options import IndexOption, JsonOption, QuietOption


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
    app.command()(rebuild)


def verify(index: IndexOption = None, json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Check the database and the search index against each other; exit status 0 only when they agree.

    Example: embedindex verify
    """
    from embedindex.locations import index_folder
    from embedindex.store import Store
    from embedindex.verify import verify as run_verify

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


def rebuild(index: IndexOption = None, quiet: QuietOption = False) -> None:
    """Make the search index again from the database, which holds all vectors; no sound is read.

    Example: embedindex rebuild
    """
    from embedindex.index import refresh_index
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
