"""Results → a folder: copies of the files that were found, or links to them, under names that sort by rank.

Conventions: paths are bytes. Nothing is ever overwritten; a copy that fails half-way is removed again.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedindex.archives import archive_of, open_sound
from embedindex.errors import AudioError, DiskFullError, UsageError, display_path
from embedindex.file_stat import file_stat
from embedindex.remote_paths import is_remote
from embedindex.search import Hit

NAME_MAX_BYTES = 255
How = Literal["copy", "link"]


@dataclass(frozen=True)
class Placed:
    """What became of one result.

    Attributes:
        source: the file that was found.
        target: its name in the folder.
        outcome: ``"done"``; ``"kept"``: something of that name was there and was left alone; ``"failed"``.
        reason: why it failed.
    """

    source: bytes
    target: bytes
    outcome: Literal["done", "kept", "failed"]
    reason: str | None = None


def place_hits(hits: Sequence[Hit], folder: str | bytes, how: How) -> list[Placed]:
    """Copy or link the files that were found into a folder, as ``01 0.953 name.wav``; the folder is made.

    Raises:
        UsageError: the folder cannot be made.
        DiskFullError: there is no more room in it.
    """
    where = os.path.abspath(os.fsencode(folder))
    try:
        os.makedirs(where, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{display_path(where)}: cannot be made ({error.strerror or error}); choose another folder"
        ) from error
    digits = max(2, len(str(len(hits))))
    placed = []
    for hit in hits:
        target = os.path.join(where, ranked_name(hit, digits))
        placed.append(_place(hit.file.path, target, how))
    return placed


def ranked_name(hit: Hit, digits: int = 2) -> bytes:
    """Return ``rank score name``; a name too long for file systems loses the end of its stem."""
    head = f"{hit.rank:0{digits}d} {hit.score:.3f} ".encode()
    stem, suffix = os.path.splitext(os.path.basename(hit.file.text_path))
    while stem and len(head) + len(os.fsencode(stem + suffix)) > NAME_MAX_BYTES:
        stem = stem[:-1]
    return head + os.fsencode(stem + suffix)


def _place(source: bytes, target: bytes, how: How) -> Placed:
    try:
        if how == "link":
            if is_remote(source):
                return Placed(source, target, "failed", "it lies on a server, where no link can lead; copy it")
            if archive_of(source) is not None:
                return Placed(source, target, "failed", "it lies in an archive, where no link can lead; copy it")
            if not os.path.exists(source):
                return Placed(source, target, "failed", "it is not there now")
            os.symlink(source, target)
        else:
            _copy(source, target)
    except FileExistsError:
        return Placed(source, target, "kept")
    except AudioError as error:
        return Placed(source, target, "failed", error.reason)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"{display_path(target)}: no space left; free some, or choose another folder"
            ) from error
        return Placed(source, target, "failed", (error.strerror or str(error)).lower())
    return Placed(source, target, "done")


def _copy(source: bytes, target: bytes) -> None:
    with open_sound(source) as read:
        changed_ns = file_stat(source).mtime_ns
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(target, flags, 0o666)
        try:
            with open(descriptor, "wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
            os.utime(target, ns=(time.time_ns(), changed_ns))
        except BaseException:
            os.unlink(target)
            raise
