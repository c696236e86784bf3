"""Options that may change over time: a number, or breakpoints ``0:1,60:0.2`` (seconds:value), lines between."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embedindex.errors import UsageError


@dataclass(frozen=True)
class Breakpoints:
    """A value over time; before the first point and after the last it stays.

    Attributes:
        times_s: ascending times.
        values: the value at each.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time_s: float) -> float:
        """Return the value at a time in seconds."""
        return float(np.interp(time_s, self.times_s, self.values))

    @property
    def text(self) -> str:
        """The text that `parse_breakpoints` makes this of."""
        if len(self.values) == 1:
            return f"{self.values[0]:g}"
        return ",".join(f"{time:g}:{value:g}" for time, value in zip(self.times_s, self.values, strict=True))


def parse_breakpoints(name: str, text: str, lowest: float, highest: float) -> Breakpoints:
    """Return the value over time that the text of option `name` stands for.

    Raises:
        UsageError: it is neither a number nor breakpoints, times do not ascend, or a value is out of range.
    """
    example = f"write a number, or breakpoints in seconds, for example {name} 0:{highest:g},60:{lowest:g}"
    times, values = [], []
    for part in text.split(","):
        time, colon, value = part.rpartition(":")
        try:
            times.append(float(time) if colon else 0.0)
            values.append(float(value))
        except ValueError:
            raise UsageError(f"{name} {text}: {part!r} is no number; {example}") from None
        if not colon and "," in text:
            raise UsageError(f"{name} {text}: {part!r} has no time; {example}")
    if not np.isfinite(times).all():
        raise UsageError(f"{name} {text}: a time is no number of seconds; {example}")
    if any(not later > earlier for earlier, later in pairwise(times)):
        raise UsageError(f"{name} {text}: times must ascend; {example}")
    if any(not lowest <= value <= highest for value in values):
        raise UsageError(f"{name} {text}: values go from {lowest:g} to {highest:g}")
    return Breakpoints(tuple(times), tuple(values))
