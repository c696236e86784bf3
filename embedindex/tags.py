"""Artist, album, title, genre and year from a file's own tags (tinytag), as clean short text.

Conventions: what a file does not say is None. Pictures are never read. The content decides the format, not the name.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass

from embedindex.archives import open_sound
from embedindex.opening import unreadable

# Longer is no name but abuse of a field; the index keeps a row of these a file.
MAX_TEXT = 1000

_YEAR = re.compile(r"(?<!\d)[12]\d{3}")


@dataclass(frozen=True)
class Tags:
    """What a file says about its music; None where it says nothing."""

    artist: str | None = None
    album: str | None = None
    title: str | None = None
    genre: str | None = None
    year: int | None = None


def read_tags(path: str | bytes | os.PathLike[str]) -> Tags:
    """Return the tags of a file: empty ones where it has none, has them in a format unknown here, or damaged.

    Raises:
        UnreadableFileError: the file system refused the file, or it is no regular file.
    """
    from tinytag import TinyTag, TinyTagException

    with io.BufferedReader(open_sound(path)) as file:
        try:
            found = TinyTag.get(file_obj=file, duration=False, image=False)
        except TinyTagException:
            # Unknown format, or whatever its parser stumbled over: tinytag wraps all of that in ParseError. Damaged
            # tags are common beside sound that is fine, so they are no reason to refuse the file.
            return Tags()
        except OSError as error:  # while it looked for the format, before any parsing
            raise unreadable(path, error) from error
    return Tags(
        artist=_text(found.artist or found.albumartist),
        album=_text(found.album),
        title=_text(found.title),
        genre=_text(found.genre),
        year=_year(found.year),
    )


def _text(value: str | None) -> str | None:
    """Return `value` on at most `MAX_TEXT` characters that a database takes: no NUL, no lone surrogates."""
    if not value:
        return None
    # ID3v2.4 separates several values by NUL.
    values = "; ".join(filter(None, map(str.strip, value.split("\0"))))
    storable = values.encode("utf-8", "replace").decode()
    return storable.strip()[:MAX_TEXT].rstrip() or None


def _year(value: str | None) -> int | None:
    """Return the first year in a date such as ``"2003-05-01"``."""
    match = _YEAR.search(value or "")
    return int(match.group()) if match else None
