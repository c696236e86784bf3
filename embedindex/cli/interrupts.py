"""Ctrl-C in commands that can be ended early: the first one asks, the second one insists."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from embedindex.quiet import stderr_descriptor

# How long after a Ctrl-C that came to nothing it is sent again.
AGAIN_S = 0.05


def heed_lost_interrupts() -> None:
    """Send a Ctrl-C again that came while Python cleared away an object: there it only says "Exception ignored"."""

    def again(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            timer = threading.Timer(AGAIN_S, _interrupt)
            timer.daemon = True
            timer.start()
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = again


def _interrupt() -> None:
    if hasattr(signal, "pthread_kill"):  # also wakes a system call
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


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
