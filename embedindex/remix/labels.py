"""Audacity's label tracks, in and out: one label a line, start, end and text separated by tabs, times in seconds.

Format: Audacity manual, "Importing and exporting labels". Lines that begin with a backslash hold the frequencies of
the label before, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from embedindex.errors import UsageError, display_path


@dataclass(frozen=True)
class Label:
    """A stretch of time with a name, in seconds."""

    start_s: float
    end_s: float
    text: str


def read_labels(path: str, duration_s: float) -> list[Label]:
    """Return the labels of a file that begin within `duration_s`, by time; a point label reaches to the next one.

    Raises:
        UsageError: the file cannot be read, a line is not a label, or none lies within the sound.
    """
    shown = display_path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"{shown}: the labels cannot be read ({reason}); give a label file of Audacity") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("\\"):
            continue
        try:
            start, end, *text = line.split("\t")
            label = Label(float(start.replace(",", ".")), float(end.replace(",", ".")), text[0] if text else "")
        except ValueError:
            raise UsageError(f"{shown}: line {number} is no label; write START<tab>END<tab>TEXT in seconds") from None
        if not 0 <= label.start_s <= label.end_s < float("inf"):
            raise UsageError(f"{shown}: line {number} ends before it starts, or before 0; correct its times")
        if label.start_s < duration_s:
            found.append(label)
    if not found:
        raise UsageError(f"{shown}: none of its labels lies within the sound, which is {duration_s:.2f} s long")
    found.sort(key=lambda label: (label.start_s, label.end_s))
    after = [label.start_s for label in found[1:]] + [duration_s]
    return [
        label if label.end_s > label.start_s else Label(label.start_s, following, label.text)
        for label, following in zip(found, after, strict=True)
    ]


def format_labels(labels: Iterable[Label]) -> str:
    """Return the text of a label file; tabs and line breaks in a label's text become spaces."""
    return "".join(f"{label.start_s:.6f}\t{label.end_s:.6f}\t{' '.join(label.text.split())}\n" for label in labels)
