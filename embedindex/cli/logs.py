"""The library's log, where a command wants it: in a file with times, and what is to be waited for on stderr.

Conventions: a log file is appended to, one line an event, in UTF-8: local time with its offset from UTC (ISO 8601), the
level, the message. Names are escaped as on a terminal, so that a line is a line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

from embedindex.cli.console import say
from embedindex.errors import EmbedindexError, UsageError, display_path
from embedindex.slow_answers import slow_answers_are_logged


@contextmanager
def log_to(path: str | None) -> Iterator[None]:
    """Write what happens inside to a log file; None for no file.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        yield
        return
    try:
        handler = _File(path)
    except OSError as problem:
        raise UsageError(
            f"{display_path(path)}: cannot be written ({problem.strerror}); choose another file with --log"
        ) from problem
    handler.setFormatter(_Lines())
    log = logging.getLogger("embedindex")
    with _attached(log, handler):
        try:
            yield
        except EmbedindexError as problem:
            log.error("%s", problem)
            raise
        except KeyboardInterrupt:
            log.warning("stopped at once")
            raise
        except Exception as problem:
            log.critical("unexpected %s: %s", type(problem).__name__, problem)
            raise


@contextmanager
def waits_are_told(*, quiet: bool) -> Iterator[None]:
    """Show on stderr what takes long: choosing a precision takes a minute, once; a server may not answer."""
    with ExitStack() as told:
        for name in () if quiet else ("models", "slow_answers"):
            told.enter_context(_attached(logging.getLogger(f"embedindex.{name}"), _Stderr()))
        told.enter_context(slow_answers_are_logged())
        yield


@contextmanager
def _attached(log: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """Attach a handler for INFO and above; the logger is afterwards as it was."""
    before = log.level
    log.addHandler(handler)
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        return f"{time} {record.levelname} {display_path(record.getMessage())}"


class _File(logging.FileHandler):
    """A log file; a disk that is full ends the log, not the scan."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        if not self._failed:
            self._failed = True
            say(f"embedindex: {display_path(self.baseFilename)}: the log cannot be written any more")

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # what could not be written is tried again when the file is closed
            self.stream = None
            logging.Handler.close(self)


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"embedindex: {display_path(record.getMessage())}")
