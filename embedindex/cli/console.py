"""Printing: tables and lines to stdout, progress and remarks to stderr. Paths leave as the bytes they are."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from embedindex.errors import display_path

if TYPE_CHECKING:
    from rich.progress import Progress


BATCH_BYTES = 1 << 16


class OutputClosed(Exception):  # noqa: N818 - not an error: the reader of our output has seen enough
    """What reads our standard output has closed it."""


def say(text: str) -> None:
    """Print a remark to stderr."""
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    sys.stderr.flush()


def warn(trouble: str | None) -> None:
    """Say what is wrong, if anything is."""
    if trouble:
        say(f"embedindex: {trouble}")


def print_line(text: str) -> None:
    """Print a line to stdout, surrogate escapes as the bytes they stand for."""
    write_bytes(os.fsencode(text) + b"\n")


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout, after what was printed before.

    Raises:
        OutputClosed: nobody reads it any more.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosed from None


def write_pieces(pieces: Iterable[bytes]) -> None:
    """Write many small pieces to stdout, a batch at a time: a big library must not have to fit in memory as text."""
    batch = bytearray()
    for piece in pieces:
        batch += piece
        if len(batch) >= BATCH_BYTES:
            write_bytes(bytes(batch))
            batch.clear()
    write_bytes(bytes(batch))


def print_json(value: Any) -> None:
    """Print JSON to stdout, in ASCII: undecodable bytes of paths stay what they are, as escaped surrogates."""
    write_bytes(json.dumps(value, indent=2, allow_nan=False).encode("ascii") + b"\n")


def print_json_array(items: Iterable[Any]) -> None:
    """Print a JSON array, one item a line."""
    texts = (json.dumps(item, allow_nan=False).encode("ascii") for item in items)
    first = next(texts, None)
    if first is None:
        write_bytes(b"[]\n")
        return
    write_pieces(chain([b"[\n  ", first], (b",\n  " + text for text in texts), [b"\n]\n"]))


def print_paths(paths: Iterable[bytes], *, null: bool) -> None:
    """Print paths, each ended by a new line or by NUL."""
    end = b"\0" if null else b"\n"
    write_pieces(path + end for path in paths)


def print_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print CSV (RFC 4180 quoting, lines end in a new line)."""
    write_pieces(csv_line(row) for row in chain([header], rows))


def csv_line(row: Sequence[object]) -> bytes:
    """Return one line of CSV."""
    import csv
    import io

    text = io.StringIO()
    # Python before 3.13 quotes carriage returns only when lines end in one, too.
    csv.writer(text, lineterminator="\r\n").writerow(row)
    return text.getvalue()[:-2].encode("utf-8", "surrogateescape") + b"\n"


def print_m3u(tracks: Iterable[tuple[bytes, float | None, str]]) -> None:
    """Print an extended M3U playlist of (path, duration in seconds, title); names with line breaks are left out."""
    lines = [b"#EXTM3U"]
    for path, duration_s, title in tracks:
        if b"\n" in path or b"\r" in path:
            say(f"embedindex: left out of the playlist, which cannot hold its name: {display_path(path)}")
            continue
        shown = " ".join(title.split())
        lines.append(f"#EXTINF:{-1 if duration_s is None else round(duration_s)},{shown}".encode("utf-8", "replace"))
        lines.append(path)
    write_pieces(line + b"\n" for line in lines)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere.

    Args:
        header: column titles.
        rows: cells.
        right: numbers of the columns to align right.
    """
    shown = [[display_path(cell) for cell in row] for row in rows]  # no label or reason may move the cursor either
    if not sys.stdout.isatty():
        write_pieces(os.fsencode("\t".join(row)) + b"\n" for row in shown)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    aligned = set(right)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(header):
        table.add_column(title, justify="right" if number in aligned else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def clock(seconds: float | None) -> str:
    """Return a time as ``m:ss.d`` or ``h:mm:ss``."""
    if seconds is None:
        return ""
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36_000)
    minutes, rest = divmod(rest, 600)
    if hours:
        return f"{hours}:{minutes:02d}:{rest // 10:02d}"
    return f"{minutes}:{rest // 10:02d}.{rest % 10}"


def amount(count: float, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 file``, ``12,000 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress | None]:
    """Give a rich progress display on stderr with rate and time left; None when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield progress


class SlowLines:
    """Progress for logs: a line now and then instead of a bar."""

    def __init__(self, every_s: float = 30.0) -> None:
        self._every_s = every_s
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print the line if the last one was long enough ago."""
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            say(text)
