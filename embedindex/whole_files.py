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
def whole_file(path: str, instead: str = "choose another place") -> Iterator[str]:
    """Yield the name of a file to write; it takes the place of `path` when the block ends well, else it is removed.

    Args:
        path: where the result is to be; what is there is replaced in one step.
        instead: what to do when that cannot be, for the message.

    Raises:
        DiskFullError: no space is left.
        UsageError: in place of every other OSError inside the block.
    """
    # A short name of its own: that of the result may be as long as names can be.
    temporary = os.path.join(os.path.dirname(path), f".embedindex-{secrets.token_hex(6)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as problem:
        raise unwritable(path, problem, instead) from problem
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def unwritable(path: str, problem: OSError, instead: str) -> EmbedindexError:
    """Return the error to raise when `path` could not be written."""
    if problem.errno in NO_SPACE:
        return DiskFullError(f"{display_path(path)}: no space is left for it; free some, or {instead}")
    return UsageError(f"{display_path(path)}: cannot be written ({problem.strerror or problem}); {instead}")
