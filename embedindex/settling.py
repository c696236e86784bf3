"""What changed and is still to be scanned: gathered until it comes to rest, so that no copy is scanned while it grows.

Conventions: times are seconds of one monotonic clock, given by the caller. Paths are bytes, absolute and normalised.
"""

from __future__ import annotations

from collections.abc import Collection

from embedindex.crawl import folders_above, outermost

PATIENCE_S = 30.0
MANY = 50_000


class Settling:
    """Paths that changed.

    They are taken together when nothing has changed for `settle_s`. While changes do not end, as in a copy of hours,
    what has come to rest is taken every `patience_s`. A folder rests when all that is known to change in it does.

    Args:
        settle_s: how long a path must be left alone.
        patience_s: how long the first of some changes may wait for the others.
    """

    def __init__(self, settle_s: float, patience_s: float = PATIENCE_S) -> None:
        self._settle_s = settle_s
        self._patience_s = patience_s
        self._last: dict[bytes, float] = {}
        self._since = 0.0
        self._newest = 0.0
        self._too_many = False

    def note(self, paths: Collection[bytes], now_s: float) -> None:
        """Note that some paths changed just now."""
        if not paths:
            return
        if not self._last and not self._too_many:
            self._since = now_s
        self._newest = now_s
        if self._too_many or len(self._last) + len(paths) > MANY:
            self._too_many = True
            self._last.clear()
            return
        for path in paths:
            self._last[path] = now_s
            for folder in folders_above(path):
                if folder in self._last:
                    self._last[folder] = now_s

    def take(self, now_s: float) -> list[bytes] | None:
        """Return what is to be scanned now, and let go of it; None for everything, when too much changed.

        No path of the result lies in another.
        """
        at_rest = now_s - self._newest >= self._settle_s
        if not at_rest and now_s - self._since < self._patience_s:
            return []
        if self._too_many:
            self._too_many = False
            return None
        taken = {path for path, changed_s in self._last.items() if now_s - changed_s >= self._settle_s}
        for path in taken:
            del self._last[path]
        self._since = now_s
        return outermost(sorted(taken))

    def forget(self) -> None:
        """Let go of all: everything is going to be looked at."""
        self._last.clear()
        self._too_many = False
