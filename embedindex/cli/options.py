"""Options that several commands share."""

from __future__ import annotations

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
        pairs.append((key.strip(), value.strip()))
    return tuple(pairs)


def parse_filters(
    label: list[str] | None, path: str | None, min_duration: float | None, max_duration: float | None
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
    return Filters(parse_labels(label), path, min_duration, max_duration)


def one_format(**formats: bool) -> str | None:
    """Return the name of the one output format that was asked for, None for the default.

    Raises:
        UsageError: there are several.
    """
    chosen = [name for name, wanted in formats.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"choose one of {' and '.join('--' + name for name in chosen)}")
    return chosen[0] if chosen else None
