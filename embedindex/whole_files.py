"""Results that appear only when they are whole: written beside their place under another name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator

from embedindex.errors import DiskFullError, EmbedindexError, UsageError, display_path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(path: str, instead: str = "choose another place", *, replace: bool = True) -> Iterator[str]:
    """Yield the name of a file to write; it takes the place of `path` when the block ends well, else it is removed.

    Args:
        path: where the result is to be.
        instead: what to do when that cannot be, for the message.
        replace: whether what is there is replaced, in one step; else it stays, also what came while the block ran.

    Raises:
        DiskFullError: no space is left.
        UsageError: in place of every other OSError inside the block; or something is there that stays.
    """
    if not replace:
        require_absent(path)
    try:
        with renamed(path, replace=replace) as temporary:
            yield temporary
    except OSError as problem:
        raise unwritable(path, problem, instead) from problem


@contextlib.contextmanager
def renamed(path: str, *, replace: bool = True) -> Iterator[str]:
    """Do what `whole_file` does, and let every OSError through."""
    # A short name of its own: that of the result may be as long as names can be.
    temporary = os.path.join(os.path.dirname(path), f".embedindex-{secrets.token_hex(6)}.part")
    try:
        yield temporary
        if replace:
            os.replace(temporary, path)
        else:
            _place_new(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def require_absent(path: str) -> None:
    """Refuse a place that is taken, before anything is computed for it.

    Raises:
        UsageError: something is there.
    """
    if os.path.lexists(path):
        raise UsageError(f"{display_path(path)}: is there already and is not written over; choose another name")


def _place_new(temporary: str, path: str) -> None:
    """Give a file the name `path`, unless something has it by now."""
    try:
        os.link(temporary, path)  # fails where something is, as renaming does not
    except OSError:
        require_absent(path)
        os.replace(temporary, path)  # a file system without links, such as FAT


def unwritable(path: str, problem: OSError, instead: str) -> EmbedindexError:
    """Return the error to raise when `path` could not be written."""
    if problem.errno in NO_SPACE:
        return DiskFullError(f"{display_path(path)}: no space is left for it; free some, or {instead}")
    return UsageError(f"{display_path(path)}: cannot be written ({problem.strerror or problem}); {instead}")
