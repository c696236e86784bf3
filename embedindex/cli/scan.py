"""``embedindex scan``: crawl folders, embed what is new or changed, forget what is gone."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import SlowLines, amount, clock, print_json, print_line, progress_bar, say
from embedindex.cli.options import IndexOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from embedindex.models import ModelRequest
    from embedindex.progress import Report, ScanProgress, ScanSummary

SHOWN_TROUBLES = 5
MAX_HOP_S = 3600.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(scan)


def scan(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Folders (or single files) to scan.")],
    index: IndexOption = None,
    model: Annotated[
        str,
        typer.Option(
            help="auto, or NAME[:KEY=VALUE,…] (see `embedindex models list`). An index keeps its first scan's model."
        ),
    ] = "auto",
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Use this weights file instead of the model's own."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or int8.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, onnxruntime, tensorflow or openl3.")] = "auto",
    hop: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.001, metavar="SECONDS", help="Time between two windows (else the model's default)."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-j", min=0, help="Processes; 0: one a core.")] = 0,
    nice: Annotated[int, typer.Option(min=0, max=19, help="How far to give way to other programs.")] = 5,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget missing files too, also of a disk that is not there.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a file could not be used.")] = False,
    durable: Annotated[
        bool, typer.Option("--durable", help="Sync every file to disk: a power cut loses nothing (slower).")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make or update an index of all sound in some folders.

    Only what is new or changed is read. Ctrl-C finishes the files in hand; run the same command again to go on.

    Example: embedindex scan /music ~/samples
    """
    from embedindex.errors import UsageError
    from embedindex.locations import index_folder
    from embedindex.scan import ScanOptions
    from embedindex.scan import scan as run_scan

    if hop is not None and not hop < MAX_HOP_S:
        raise UsageError(f"--hop {hop:g}: give a number of seconds below {MAX_HOP_S:g}")
    request = _request(model, weights, precision, engine)
    options = ScanOptions(
        request=request,
        choose=lambda: _choose(quiet=quiet),
        hop_s=hop,
        workers=workers,
        niceness=nice,
        prune=prune,
        durable=durable,
    )
    folder = index_folder(index)
    with _Interrupts() as stop, progress_bar(quiet=quiet) as bar:
        summary = run_scan(folder, list(paths), options, report=_reporter(bar, quiet=quiet), stop=stop)
    _finish(folder, summary, json=json, quiet=quiet, strict=strict)


def _request(model: str, weights: str | None, precision: str, engine: str) -> ModelRequest | None:
    from dataclasses import replace

    from embedindex.errors import UsageError
    from embedindex.models import parse_request

    if model == "auto":
        if weights or precision != "auto" or engine != "auto":
            raise UsageError("--weights, --precision and --engine need a --model, for example --model openl3")
        return None
    return replace(parse_request(model), weights=weights, precision=precision, engine=engine)


def _choose(*, quiet: bool) -> ModelRequest:
    from embedindex.models.auto import choose_model

    request, reason = choose_model()
    if not quiet:
        say(reason)
    return request


class _Interrupts:
    """Ctrl-C and SIGTERM: the first asks the scan to stop after the files in hand, the second stops it at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # Not through sys.stderr: the signal may have come in the middle of a write to it.
        os.write(2, b"\nembedindex: finishing the files in hand; press Ctrl-C again to stop at once\n")

    def __call__(self) -> bool:
        return self._asked


def _reporter(bar: Any, *, quiet: bool) -> Report:
    names = {"crawl": "Looking", "embed": "Listening", "sweep": "Tidying", "index": "Indexing"}
    lines = SlowLines()
    tasks: dict[str, Any] = {}

    def report(progress: ScanProgress) -> None:
        note = f"{progress.files_done:,}"
        if progress.files_total is not None:
            note += f" of {progress.files_total:,}"
        note += " files"
        if progress.audio_s:
            note += f", {clock(progress.audio_s)} of sound"
        if progress.failed:
            note += f", {progress.failed:,} unusable"
        if bar is None:
            if not quiet:
                lines.say(f"{names[progress.stage]}: {note}")
            return
        if progress.stage not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[progress.stage] = bar.add_task(names[progress.stage], total=progress.bytes_total, note="")
        bar.update(tasks[progress.stage], completed=progress.bytes_done, total=progress.bytes_total, note=note)

    return report


def _finish(folder: str, summary: ScanSummary, *, json: bool, quiet: bool, strict: bool) -> None:
    from embedindex.store import Store

    with Store(folder) as store:
        counts = store.counts()
        model = store.model()
    if json:
        data = {
            **summary.to_json(),
            "index": folder,
            "model": model.identity.name if model else None,
            "total": {
                "files": counts.ok,
                "failed": counts.failed,
                "missing": counts.missing,
                "windows": counts.windows,
            },
        }
        print_json(data)
    elif not quiet:
        _print_summary(folder, summary, counts, model.identity.name if model else None)
    if summary.interrupted:
        say("embedindex: interrupted; run the same command again to go on")
        raise typer.Exit(130)
    if strict and (counts.failed or summary.unseen):
        raise typer.Exit(1)


def _print_summary(folder: str, summary: ScanSummary, counts: Any, model: str | None) -> None:
    from embedindex.errors import display_path

    news = [
        (summary.added, "new"),
        (summary.changed, "changed"),
        (summary.moved, "moved"),
        (summary.copied, "of them copies"),
        (summary.returned, "back again"),
        (summary.failed, "unusable"),
        (summary.forgotten, "gone"),
        (summary.missing, "missing"),
    ]
    changes = ", ".join(f"{count:,} {word}" for count, word in news if count) or "nothing new"
    print_line(f"{amount(summary.found, 'audio file')} found: {changes} ({summary.elapsed_s:.1f} s)")
    if summary.audio_s:
        speed = summary.audio_s / max(summary.elapsed_s, 1e-9)
        print_line(f"{clock(summary.audio_s)} of sound embedded, {speed:.0f} times as fast as it plays")
    holds = f"{amount(counts.ok, 'file')}, {amount(counts.windows, 'window')}, {clock(counts.seconds)} of sound"
    print_line(f"The index holds {holds}" + (f", model {model}" if model else ""))
    print_line(f"Index: {display_path(folder)}")
    if not summary.found:
        say("embedindex: there is no audio file in there; check the path")
    for path, reason in summary.unseen[:SHOWN_TROUBLES]:
        say(f"embedindex: {display_path(path)}: {reason}")
    if len(summary.unseen) > SHOWN_TROUBLES:
        say(f"embedindex: …and {len(summary.unseen) - SHOWN_TROUBLES} more that could not be looked at")
    if summary.missing:
        say("embedindex: missing files are kept; if they are gone for good: embedindex scan --prune")
    if counts.failed:
        say(f"embedindex: {amount(counts.failed, 'file')} could not be used; `embedindex errors` lists them")
