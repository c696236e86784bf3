"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Optional

import typer

from embedindex.errors import UsageError

IndexOption = Annotated[
    Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
    typer.Option(
        "--index", "-I", metavar="DIR", help="The index folder (else $EMBEDINDEX_INDEX, else the user's data folder)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PathsOption = Annotated[bool, typer.Option("--paths", help="Print one path a line, for xargs.")]
NullOption = Annotated[
    bool, typer.Option("--null", "-0", help="With --paths: end paths with NUL instead of a new line (xargs -0).")
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
M3uOption = Annotated[bool, typer.Option("--m3u", help="Print an M3U playlist.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
IncludeOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--include", metavar="GLOB", help="Look only at files like this: '*.flac', 'drums/'; may be repeated."
    ),
]
ExcludeOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--exclude", metavar="GLOB", help="Do not look at files or folders like this; may be repeated."),
]
WorkersOption = Annotated[int, typer.Option("--workers", "-j", min=0, help="Processes; 0: one a core.")]
SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_since(text: str, now: datetime) -> int:
    """Return the Unix time in nanoseconds that ``--since`` stands for: a date, a time, or how long ago.

    Args:
        text: an ISO 8601 date or time (local where it names no zone), or a number with s, m, h, d or w.
        now: the present, with its zone.

    Raises:
        UsageError: it is neither, or lies in the future.
    """
    ago = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text)
    if ago:
        return round((now.timestamp() - float(ago[1]) * SECONDS_OF[ago[2]]) * 1e9)
    try:
        when = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))  # Python 3.10 does not know Z
        since_s = (when if when.tzinfo else when.astimezone()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"--since {text}: give a date or time, for example 2026-03-31 or 2026-03-31T18:30, or how long ago: 2d, 3h"
        ) from None
    if since_s > now.timestamp():
        raise UsageError(f"--since {text}: this lies in the future")
    return round(since_s * 1e9)


def parse_labels(texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Return (key, value) pairs of ``KEY=VALUE`` texts.

    Raises:
        UsageError: one of them has no ``=``.
    """
    pairs = []
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"--label {text}: write KEY=VALUE, for example genre=ambient")
        pairs.append((key.strip().lower(), value.strip()))  # keys are kept in lower case
    return tuple(pairs)


def one_format(**formats: bool) -> str | None:
    """Return the name of the one output format that was asked for, None for the default.

    Raises:
        UsageError: there are several.
    """
    chosen = [name for name, wanted in formats.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"choose one of {' and '.join('--' + name for name in chosen)}")
    return chosen[0] if chosen else None
