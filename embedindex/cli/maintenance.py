"""``embedindex verify`` and ``rebuild``: is the index whole, and make its FAISS part again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import amount, clock, print_json, print_line, progress_bar, say
from embedindex.cli.options import IndexOption, JsonOption, QuietOption
from embedindex.errors import UsageError

if TYPE_CHECKING:
    from embedindex.index_build import Progress
    from embedindex.index_plan import Plan


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

    with Store(index_folder(index)) as store, _told_windows("Comparing", quiet=quiet or json) as told:
        verdict = run_verify(store, partial(told, "Comparing"))
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
    from embedindex.index_refresh import refresh_index
    from embedindex.repair import needs_repair
    from embedindex.repair import repair as run_repair
    from embedindex.verify import verify as run_verify
    from embedindex.writer import StoreWriter

    with _told_windows("Checking", quiet=quiet) as told:
        damaged = needs_repair(folder)
        if damaged:
            done = run_repair(folder, told)
        else:
            with StoreWriter(folder) as store:
                again = bool(run_verify(store, partial(told, "Checking")).problems)
                if again:
                    refresh_index(store, rebuild=True, progress=told)
    if quiet:
        return
    if not damaged:
        if again:
            say("embedindex: repaired: the search index was made again from the database; nothing is lost")
        return
    say(f"embedindex: repaired: {amount(done.files, 'file')} whole; the damaged database is kept as {done.kept}")
    if done.again:
        say(f"embedindex: {amount(done.again, 'file')} lost their vectors, not their labels: scan again")
    if done.holes["files"] or done.refused["files"]:
        say("embedindex: other files, with their labels, are lost from the index; scan again to find them")
    elif done.labels_lost:
        say("embedindex: some labels are lost; import them again")


@contextmanager
def _told_windows(text: str, *, quiet: bool) -> Iterator[Progress]:
    """Show a bar that says `text`; give a function of (what is being done, windows done, windows in all)."""
    started = time.monotonic()
    with progress_bar(quiet=quiet) as bar:
        task = None if bar is None else bar.add_task(text, total=None, note="")

        def told(what: str, done: int, total: int) -> None:
            if bar is not None and task is not None:
                rate = done / max(0.1, time.monotonic() - started)
                bar.update(task, description=what, completed=done, total=total, note=f"{rate:,.0f} windows/s")

        yield told


MemoryOption = Annotated[
    Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
    typer.Option("--memory", metavar="BYTES", help="Memory for searching: 500M, 2G. Kept for later scans."),
]
RecallOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--recall",
        metavar="SHARE",
        help="Share of the 10 nearest windows to be found: 0.95; 1 for an exact index of any size. Kept, too.",
    ),
]


def rebuild(
    index: IndexOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be built, and what to expect.")] = False,
    memory: MemoryOption = None,
    recall: RecallOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the search index again from the database, which holds all vectors; no sound is read.

    Example: embedindex rebuild --plan --memory 2G --recall 0.95
    """
    from embedindex.index import budget_of
    from embedindex.index_plan import make_plan
    from embedindex.index_refresh import refresh_index, set_budget
    from embedindex.locations import index_folder
    from embedindex.store import Store
    from embedindex.writer import StoreWriter

    memory_bytes, share = parse_bytes("--memory", memory), parse_share("--recall", recall)
    folder = index_folder(index)
    with Store(folder) as reader:  # says so when there is none, instead of making one
        model, windows = reader.model(), reader.sounding_windows()
        kept = budget_of(reader)
    if model is None:
        say("embedindex: there is nothing in this index yet; fill it with `embedindex scan FOLDER`")
        return
    if plan:
        print_plan(make_plan(windows, model.identity.dimension, memory_bytes or kept[0], share or kept[1]), json=json)
        return
    started = time.monotonic()
    with StoreWriter(folder) as store, _told_windows("Reading", quiet=quiet or json) as told:
        set_budget(store, memory_bytes, share)
        refresh_index(store, rebuild=True, progress=told)
    elapsed_s = time.monotonic() - started
    if json:
        print_json({"windows": windows, "seconds": round(elapsed_s, 3)})
    elif not quiet:
        print_line(f"Built from {amount(windows, 'window')} in {elapsed_s:.1f} s.")


def print_plan(plan: Plan, *, json: bool) -> None:
    """Print what would be built."""
    if json:
        print_json({**asdict(plan), "fits": plan.fits})
        return
    kinds = {
        "flat": "exact: every window is compared",
        "sq8": f"{plan.lists:,} lists of vectors, a byte a dimension; the best are compared exactly",
        "rabitq": f"{plan.lists:,} lists of codes, a bit a dimension; the best are compared exactly",
    }
    lines = [
        ("Windows", f"{plan.windows:,} of {plan.dimension} dimensions"),
        ("Index", kinds[plan.kind]),
        ("File", f"{plan.file_bytes / 1e6:,.1f} MB; no search holds more of it in memory"),
        ("Budget", f"{plan.memory_bytes / 1e6:,.0f} MB" + ("" if plan.fits else ": too little, this is the smallest")),
        ("Recall", f"{plan.expected_recall:.2f} of the 10 nearest windows (asked for: {plan.recall:g})"),
        ("Search", f"about {plan.latency_s * 1000:.1f} ms a query window"),
        ("Building", f"about {clock(plan.build_s)} on two idle cores"),
    ]
    for name, text in lines:
        print_line(f"{name:<9} {text}")


def parse_bytes(option: str, text: str | None) -> int | None:
    """Return a number of bytes, as ``500M`` or ``2G``.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([kmgt]?)b?", text.strip().lower())
    count = round(float(match[1]) * 1000 ** " kmgt".index(match[2] or " ")) if match else 0
    if count < 1:
        raise UsageError(f"{option} {text}: give a number of bytes, for example 500M or 2G")
    return count


def parse_share(option: str, share: float | None) -> float | None:
    """Return a share that a search can be asked to find.

    Raises:
        UsageError: it is none.
    """
    if share is not None and not 0.5 <= share <= 1:
        raise UsageError(f"{option} {share:g}: give a share from 0.5 to 1, for example 0.95")
    return share
