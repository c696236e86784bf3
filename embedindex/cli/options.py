"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.errors import UsageError

if TYPE_CHECKING:
    from embedindex.search import Filters

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
LabelOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--label", metavar="KEY=VALUE", help="Only files with this label; may be repeated."),
]
GlobOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--path", metavar="GLOB", help="Only files whose path, or its end, matches: 'drums/*' or '*.flac'."),
]
MinDurationOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--min-duration", metavar="SECONDS", help="Only files at least this long."),
]
MaxDurationOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--max-duration", metavar="SECONDS", help="Only files at most this long."),
]
SampleRateOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--sample-rate", metavar="HZ", help="Only files at this rate: 48000, or 44100- for at least that."),
]
ChannelsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--channels", metavar="N", help="Only files with so many channels: 2, mono, or 2- for at least two."),
]
AddedSinceOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--added-since", metavar="WHEN", help="Only files heard since: 2026-03-01, or 7d, 12h, 2w ago."),
]


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


def parse_filters(
    label: list[str] | None,
    path: str | None,
    min_duration: float | None,
    max_duration: float | None,
    sample_rate: str | None = None,
    channels: str | None = None,
    added_since: str | None = None,
) -> Filters:
    """Return the filters that the options of those names stand for.

    Raises:
        UsageError: one of them makes no sense.
    """
    from embedindex.search import Filters

    for name, length_s in (("--min-duration", min_duration), ("--max-duration", max_duration)):
        if length_s is not None and not length_s >= 0:
            raise UsageError(f"{name} {length_s:g}: give a number of seconds, 0 or more")
    if min_duration is not None and max_duration is not None and min_duration > max_duration:
        raise UsageError(f"--min-duration {min_duration:g} is more than --max-duration {max_duration:g}")
    if path is not None and not path:
        raise UsageError("--path: give a pattern, for example 'drums/*'")
    channels = {"mono": "1", "stereo": "2"}.get(channels or "", channels)
    return Filters(
        labels=parse_labels(label),
        path=path,
        min_duration_s=min_duration,
        max_duration_s=max_duration,
        sample_rate=_number_range("--sample-rate", sample_rate, "48000, 44100- or 8000-22050"),
        channels=_number_range("--channels", channels, "mono, stereo, 6 or 2-"),
        added_since=None if added_since is None else _past_time("--added-since", added_since),
    )


def _number_range(option: str, text: str | None, examples: str) -> tuple[int | None, int | None]:
    """Return (lowest, highest) of ``N``, ``LOW-``, ``-HIGH`` or ``LOW-HIGH``."""
    if text is None:
        return None, None
    low, dash, high = (part.strip() for part in text.partition("-"))
    ends = [low, high] if dash else [low, low]
    if not any(ends) or not all(end == "" or (end.isascii() and end.isdigit() and len(end) < 10) for end in ends):
        raise UsageError(f"{option} {text}: write a number or a range, for example {examples}")
    lowest, highest = (int(end) if end else None for end in ends)
    if lowest is not None and highest is not None and lowest > highest:
        raise UsageError(f"{option} {text}: {lowest} is more than {highest}")
    return lowest, highest


def _past_time(option: str, text: str) -> str:
    """Return a date, a time of this machine's clock, or a span before now, as the index writes times: ISO 8601, UTC."""
    import re
    from datetime import datetime, timedelta, timezone

    span = re.fullmatch(r"(\d{1,4})([hdw])", text)
    try:
        if span:
            hours = int(span[1]) * {"h": 1, "d": 24, "w": 168}[span[2]]
            when = datetime.now(timezone.utc) - timedelta(hours=hours)
        else:
            when = datetime.fromisoformat(text).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{option} {text}: write a date, as 2026-03-01 or 2026-03-01T18:30, or 7d, 12h, 2w") from None
    return when.isoformat(timespec="seconds")


def one_format(**formats: bool) -> str | None:
    """Return the name of the one output format that was asked for, None for the default.

    Raises:
        UsageError: there are several.
    """
    chosen = [name for name, wanted in formats.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"choose one of {' and '.join('--' + name for name in chosen)}")
    return chosen[0] if chosen else None
