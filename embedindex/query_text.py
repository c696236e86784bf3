"""What people type to ask: ``clip.wav``, ``clip.wav@12.5-15``, ``folder/``, ``-`` → a file or folder, and a part of it.

Conventions: times are seconds, or ``m:ss`` and ``h:mm:ss``. A file whose name really ends like a part is that file.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from embedindex.archives import exists
from embedindex.crawl import absolute_path
from embedindex.errors import DiskFullError, QueryError, UsageError, display_path
from embedindex.query import WHOLE, Part
from embedindex.store import Store

STDIN = "-"
STDIN_MAX_BYTES = 2 * 2**30
_PART = re.compile(r"(.+)@([0-9:.]*)-([0-9:.]*)", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """A file or folder to ask about.

    Attributes:
        text: what was typed.
        path: where it lies.
        part: the part of it that is meant.
    """

    text: str
    path: str
    part: Part = WHOLE


def parse_time(text: str) -> float:
    """Return seconds of ``12.5``, ``1:02.5`` or ``1:00:02``.

    Raises:
        ValueError: it is no time.
    """
    fields = text.split(":")
    if not 1 <= len(fields) <= 3 or not all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+", field) for field in fields):
        raise ValueError(text)
    seconds = 0.0
    for field in fields:
        seconds = 60 * seconds + float(field)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def parse_part(start: str | None, end: str | None) -> Part:
    """Return the part between two times as text; None or empty for the sound's own start or end.

    Raises:
        UsageError: they are no times, or the end does not lie behind the start.
    """
    times: list[float | None] = []
    for text in (start, end):
        try:
            times.append(parse_time(text) if text else None)
        except ValueError:
            raise UsageError(f"{text} is no time; write seconds, as 12.5, or minutes, as 1:02.5") from None
    start_s, end_s = times[0] or 0.0, times[1]
    if end_s is not None and end_s <= start_s:
        raise UsageError(f"the part from {start_s:g} s to {end_s:g} s is empty; the end must come after the start")
    return Part(start_s, end_s)


def parse_query(text: str, store: Store) -> Asked:
    """Return what is meant by a query as it was typed; stdin is not among it.

    Raises:
        UsageError: its part is no part.
    """
    match = _PART.fullmatch(text)
    if match is None or not (match[2] or match[3]) or _is_there(text, store):
        return Asked(text, text)
    return Asked(text, match[1], parse_part(match[2], match[3]))


def _is_there(text: str, store: Store) -> bool:
    in_index = store.file_by_path(absolute_path(os.fsencode(text))) is not None
    return in_index or os.path.lexists(text) or exists(text)


@contextmanager
def spooled(stream: BinaryIO, max_bytes: int = STDIN_MAX_BYTES) -> Iterator[str]:
    """Give the path of a temporary file that holds all bytes of a stream; it is gone afterwards.

    Raises:
        QueryError: there is nothing in the stream, or more than `max_bytes`.
        DiskFullError: the temporary folder cannot hold it.
    """
    descriptor, path = tempfile.mkstemp(prefix="embedindex-")
    try:
        size = 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                while block := stream.read(1 << 20):
                    size += len(block)
                    if size > max_bytes:
                        raise QueryError(
                            f"standard input: more than {max_bytes / 2**20:,.0f} MiB; write it to a file, ask with that"
                        )
                    file.write(block)
        except OSError as error:
            raise DiskFullError(
                f"standard input: cannot be kept in {display_path(os.path.dirname(path))} "
                f"({error.strerror or error}); set TMPDIR to a folder with room"
            ) from error
        if not size:
            raise QueryError("standard input: there is nothing in it; pipe the bytes of a sound file into `similar -`")
        yield path
    finally:
        os.unlink(path)
