"""Where remarks go: this program's own to the terminal, those that C libraries write on their own account nowhere."""

from __future__ import annotations

import contextlib
import os
import sys


def quieten_libraries() -> None:
    """Keep what C libraries write to the standard error descriptor off the terminal; `sys.stderr` still goes there.

    libmpg123 remarks on every damaged frame of an MP3, and on every place that it is made to jump to.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(null, 2)
    os.close(null)


def stderr_descriptor() -> int:
    """Return the descriptor that `sys.stderr` writes to; the standard one where it writes to none."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stderr at all, or one in memory
        return sys.stderr.fileno()
    return 2
