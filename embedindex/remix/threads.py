"""How many threads to use."""

from __future__ import annotations

from embedindex.cores import count_cores

MOST_THREADS = 16


def threads_for(work: int) -> int:
    """Return how many threads to use for so many pieces of work."""
    return max(1, min(MOST_THREADS, count_cores(), work))
