"""Says in the log that a disk or server keeps the program waiting: a call that asks it may last for minutes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from embedindex.errors import display_path

SLOW_S = 5.0
LOOK_S = 1.0
_log = logging.getLogger(__name__)
# What each thread asks about now, and since when (the monotonic clock, seconds).
_asked: dict[int, tuple[float, bytes]] = {}


class Asking:
    """What is done inside asks a disk or server about a path."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        _asked[threading.get_ident()] = (time.monotonic(), self._path)

    def __exit__(self, *_: object) -> None:
        _asked.pop(threading.get_ident(), None)


@contextmanager
def slow_answers_are_logged() -> Iterator[None]:
    """Log, meanwhile, one line for each question of this process that has no answer after five seconds."""
    ended = threading.Event()
    threading.Thread(target=_look, args=(ended,), name="slow-answers", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _look(ended: threading.Event) -> None:
    told: set[tuple[float, bytes]] = set()
    while not ended.wait(LOOK_S):
        late = {asked for asked in list(_asked.values()) if time.monotonic() - asked[0] >= SLOW_S}
        for _, path in late - told:
            _log.warning("waiting for %s: no answer yet after %g seconds", display_path(path), SLOW_S)
        told = late
