"""Ctrl-C in commands that can be ended early: the first one asks, the second one insists."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from embedindex.quiet import stderr_descriptor


class Interrupts:
    """Ctrl-C and SIGTERM: the first asks to stop when what is in hand is done, the second stops at once.

    Args:
        doing: what is said to the first one, "…; press Ctrl-C again to stop at once".
    """

    def __init__(self, doing: str = "finishing the files in hand") -> None:
        self._doing = doing
        self._asked = False
        self._stderr = stderr_descriptor()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # Not through sys.stderr: the signal may have come in the middle of a write to it.
        said = f"\nembedindex: {self._doing}; press Ctrl-C again to stop at once\n"
        os.write(self._stderr, said.encode())

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self._asked
