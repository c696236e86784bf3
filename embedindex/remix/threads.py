"""How many threads to use."""

from __future__ import annotations

import os

MOST_THREADS = 16


def threads_for(work: int) -> int:
    """Return how many threads to use for so many pieces of work."""
    return max(1, min(MOST_THREADS, os.cpu_count() or 1, work))
