"""How many processors there are for us, which may be fewer than the machine has."""

from __future__ import annotations

import os
import sys

# Windows waits for at most 63 processes at a time (WaitForMultipleObjects), and the standard library starts 61.
MOST_PROCESSES = 60 if sys.platform == "win32" else sys.maxsize


def count_cores() -> int:
    """Return how many cores this process may run on: of a container, or of a job on a cluster, those it was given."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_processes(wanted: int | None) -> int:
    """Return how many processes to start: as many as are wanted, one a core when nothing is said (None, 0)."""
    return min(wanted or count_cores(), MOST_PROCESSES)
