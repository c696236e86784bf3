"""The options that narrow a search or a list, in one place: ``@with_filters`` gives them to a command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.options import parse_labels
from embedindex.errors import UsageError

if TYPE_CHECKING:
    from embedindex.filters import Filters

LabelOption = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
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
BpmOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--bpm", metavar="BPM", help="Only files of this tempo, its half or double: 120, 120±3 or 118-122."),
]
KeyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--key", metavar="KEY", help="Only files in this key: 'F minor', Fm, 'Bb major'."),
]
InstrumentOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--instrument", metavar="GLOB", help="Only samples of this instrument: '*piano*' (see scan)."),
]
# In the order in which help shows them; the names are those of the arguments of `parse_filters`.
FILTER_OPTIONS: dict[str, Any] = {
    "label": LabelOption,
    "path": GlobOption,
    "min_duration": MinDurationOption,
    "max_duration": MaxDurationOption,
    "sample_rate": SampleRateOption,
    "channels": ChannelsOption,
    "added_since": AddedSinceOption,
    "bpm": BpmOption,
    "key": KeyOption,
    "instrument": InstrumentOption,
}


# A tempo without a range stands for itself and what rounds to it.
ROUND_BPM = 0.5


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose parameter ``filters`` has become the options of `FILTER_OPTIONS`."""
    # typer takes the annotations of a signature as they stand, not as the text that `from __future__` makes of them.
    # Those of `typing.get_type_hints` would not do: on Python 3.10 it wraps them where the default is None.
    signature = inspect.signature(command, locals={"Filters": Any}, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "filters":
            parameters += [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=option)
                for name, option in FILTER_OPTIONS.items()
            ]
        else:
            parameters.append(parameter)

    @wraps(command)
    def parsed(**given: Any) -> None:
        chosen = {name: given.pop(name, None) for name in FILTER_OPTIONS}
        command(**given, filters=parse_filters(**chosen))

    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return parsed


def parse_filters(
    label: list[str] | None = None,
    path: str | None = None,
    min_duration: float | None = None,
    max_duration: float | None = None,
    sample_rate: str | None = None,
    channels: str | None = None,
    added_since: str | None = None,
    bpm: str | None = None,
    key: str | None = None,
    instrument: str | None = None,
) -> Filters:
    """Return the filters that the options of those names stand for.

    Raises:
        UsageError: one of them makes no sense.
    """
    from embedindex.filters import Filters

    for name, length_s in (("--min-duration", min_duration), ("--max-duration", max_duration)):
        if length_s is not None and not length_s >= 0:
            raise UsageError(f"{name} {length_s:g}: give a number of seconds, 0 or more")
    if min_duration is not None and max_duration is not None and min_duration > max_duration:
        raise UsageError(f"--min-duration {min_duration:g} is more than --max-duration {max_duration:g}")
    channels = {"mono": "1", "stereo": "2"}.get(channels or "", channels)
    return Filters(
        labels=parse_labels(label),
        path=path,
        min_duration_s=min_duration,
        max_duration_s=max_duration,
        sample_rate=_number_range("--sample-rate", sample_rate, "48000, 44100- or 8000-22050"),
        channels=_number_range("--channels", channels, "mono, stereo, 6 or 2-"),
        added_since=None if added_since is None else _past_time("--added-since", added_since),
        bpm=None if bpm is None else _tempo_range(bpm),
        key=None if key is None else _key(key),
        instrument=instrument,
    )


def _tempo_range(text: str) -> tuple[float, float]:
    """Return (lowest, highest) of ``120``, ``120±3`` (also ``120+-3``) or ``118-122``, beats a minute."""
    number = r"(\d{1,3}(?:\.\d{1,6})?)"
    around = re.fullmatch(rf"\s*{number}\s*(?:(?:±|\+-|\+/-)\s*{number})?\s*", text)
    between = re.fullmatch(rf"\s*{number}\s*[-–]\s*{number}\s*", text)
    if around:
        spread = ROUND_BPM if around[2] is None else float(around[2])
        low, high = float(around[1]) - spread, float(around[1]) + spread
    elif between:
        low, high = float(between[1]), float(between[2])
    else:
        raise UsageError(f"--bpm {text}: write a tempo or a range, for example 120, 120±3 or 118-122")
    if not 0 < low <= high:
        raise UsageError(f"--bpm {text}: {low:g} to {high:g} is no range of tempo")
    return low, high


def _key(text: str) -> str:
    from embedindex.tempo_key import parse_key

    return parse_key(text)


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
