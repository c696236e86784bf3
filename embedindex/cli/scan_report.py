"""What ``embedindex scan`` shows: progress as a bar, as lines for logs or as JSON for programs; summary and estimate.

Conventions: progress goes to stderr, results to stdout. A line of JSON progress is one object, ASCII; no other line on
stderr begins with a brace.
"""

from __future__ import annotations

import json as json_library
import os
import time
from typing import TYPE_CHECKING, Any, Protocol

from embedindex.cli.console import SlowLines, amount, clock, print_line, say
from embedindex.errors import display_path

if TYPE_CHECKING:
    from rich.progress import Progress

    from embedindex.estimate import Estimate
    from embedindex.progress import ScanProgress, ScanSummary
    from embedindex.records import Counts

SHOWN_TROUBLES = 5
JSON_EVERY_S = 1.0
STAGES = {"crawl": "Looking", "embed": "Listening", "sweep": "Tidying", "index": "Indexing"}


class Display(Protocol):
    """Something that shows how far a scan is."""

    def report(self, progress: ScanProgress) -> None:
        """Show where the scan is."""

    def fetching(self, done: int, total: int | None) -> None:
        """Show how many bytes of a model's weights are here, of how many if that is known."""

    def preparing(self, share: float) -> None:
        """Show which share of choosing the model's precision is done."""

    def finish(self, summary: ScanSummary) -> None:
        """Show that the scan ended."""


class Nothing:
    """Shows nothing."""

    def report(self, progress: ScanProgress) -> None:
        """Show nothing."""

    def fetching(self, done: int, total: int | None) -> None:
        """Show nothing."""

    def preparing(self, share: float) -> None:
        """Show nothing."""

    def finish(self, summary: ScanSummary) -> None:
        """Show nothing."""


class Bar(Nothing):
    """Shows a bar on a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def report(self, progress: ScanProgress) -> None:
        """Move the bar of the stage."""
        task = self._task(STAGES[progress.stage])
        if progress.share is None:
            self._bar.update(task, completed=progress.bytes_done, total=None, note=_note(progress))
        else:
            self._bar.update(task, completed=progress.share, total=1.0, note=_note(progress))

    def fetching(self, done: int, total: int | None) -> None:
        """Move the bar of the download."""
        self._bar.update(self._task("Fetching weights"), completed=done, total=total, note=f"{done / 1e6:.1f} MB")

    def preparing(self, share: float) -> None:
        """Move the bar of the choice of precision."""
        self._bar.update(self._task("Choosing the precision"), completed=share, total=1.0, note="")

    def _task(self, title: str) -> Any:
        if title not in self._tasks:
            for task in self._tasks.values():
                self._bar.update(task, visible=False)
            self._tasks[title] = self._bar.add_task(title, total=None, note="")
        return self._tasks[title]


class Lines(Nothing):
    """Prints a line now and then."""

    def __init__(self) -> None:
        self._lines = SlowLines()

    def report(self, progress: ScanProgress) -> None:
        """Print where the scan is."""
        self._lines.say(f"{STAGES[progress.stage]}: {_note(progress)}")

    def fetching(self, done: int, total: int | None) -> None:
        """Print how far the download is."""
        self._lines.say(f"Fetching weights: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else ""))

    def preparing(self, share: float) -> None:
        """Print how far the choice of precision is."""
        self._lines.say(f"Choosing the precision: {share:.0%}")


class JsonLines:
    """Prints one JSON object a line: about one a second, and one for each stage at least."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = 0.0
        self._stage = ""
        self._stage_started = self._started

    def report(self, progress: ScanProgress) -> None:
        """Print where the scan is."""
        if not self._due(progress.stage):
            return
        took_s = time.monotonic() - self._stage_started
        left_s = None
        if progress.share:
            left_s = round(took_s * (1 - progress.share) / progress.share, 1)
        self._print(
            files=progress.files_done,
            files_total=progress.files_total,
            bytes=progress.bytes_done,
            bytes_total=progress.bytes_total,
            audio_s=round(progress.audio_s, 3),
            windows=progress.windows,
            failed=progress.failed,
            left_s=left_s,
            audio_left_s=None if progress.left_s is None else round(progress.left_s, 1),
            path=os.fsdecode(progress.path),
        )

    def fetching(self, done: int, total: int | None) -> None:
        """Print how far the download is."""
        if self._due("fetch"):
            self._print(bytes=done, bytes_total=total)

    def preparing(self, share: float) -> None:
        """Print how far the choice of precision is."""
        if self._due("prepare"):
            self._print(share=round(share, 3))

    def finish(self, summary: ScanSummary) -> None:
        """Print that the scan ended."""
        self._stage = "end"
        self._print(
            files=summary.found, failed=summary.failed, audio_s=summary.audio_s, windows=summary.windows,
            interrupted=summary.interrupted,
        )  # fmt: skip

    def _due(self, stage: str) -> bool:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_started = stage, now
        elif now - self._last < JSON_EVERY_S:
            return False
        self._last = now
        return True

    def _print(self, **values: Any) -> None:
        elapsed_s = round(time.monotonic() - self._started, 3)
        say(json_library.dumps({"stage": self._stage, "elapsed_s": elapsed_s, **values}, allow_nan=False))


def _note(progress: ScanProgress) -> str:
    note = f"{progress.files_done:,}"
    if progress.files_total is not None:
        note += f" of {progress.files_total:,}"
    note += " files"
    if progress.audio_s:
        note += f", {clock(progress.audio_s)} of sound"
    if progress.failed:
        note += f", {progress.failed:,} unusable"
    return note


def changes_of(summary: ScanSummary) -> str:
    """Return what a scan changed or found amiss, in words; empty for nothing."""
    news = [
        (summary.added, "new"),
        (summary.changed, "changed"),
        (summary.moved, "moved"),
        (summary.copied, "of them copies"),
        (summary.returned, "back again"),
        (summary.failed, "unusable"),
        (summary.forgotten, "gone"),
        (summary.missing, "missing"),
        (summary.postponed, "left for another time"),
        (summary.excluded, "in the index left alone"),
    ]
    return ", ".join(f"{count:,} {word}" for count, word in news if count)


def print_summary(folder: str, summary: ScanSummary, counts: Counts, model: str | None) -> None:
    """Print what a scan did and what the index holds now; remarks go to stderr."""
    changes = changes_of(summary) or "nothing new"
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


def print_estimate(guess: Estimate, model: str, workers: int) -> None:
    """Print what a scan would do and cost."""
    left = f", {guess.postponed:,} left for another time" if guess.postponed else ""
    print_line(f"{amount(guess.found, 'audio file')} found: {guess.todo:,} to listen to{left}")
    if guess.todo:
        print_line(
            f"about {clock(guess.audio_s)} of sound in {_size(guess.bytes)} ({guess.probed:,} files looked into)"
        )
        print_line(
            f"about {clock(guess.time_s)} with {model} in {amount(workers, 'process', 'processes')}: "
            f"{amount(guess.windows, 'window')}, {_size(guess.disk_bytes)} of disk for the index"
        )


def _size(count: float) -> str:
    """Return a number of bytes for people: ``12.3 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
