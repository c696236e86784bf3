"""Keeping an index up to date: a scan now and then, for as long as the caller likes.

Conventions: nothing is listened to for events of the file system, which network drives do not send and big libraries
exhaust; a scan that finds nothing changed costs a look at every file and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from embedindex.errors import IndexBusyError, IndexNotFoundError
from embedindex.progress import Report, ScanSummary, silent
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store

WAKE_S = 0.25


def watch(
    folder: str,
    roots: Sequence[str | bytes],
    options: ScanOptions,
    *,
    every_s: float,
    stop: Callable[[], bool],
    told: Callable[[ScanSummary | IndexBusyError], None],
    report: Report = silent,
) -> None:
    """Scan some folders again and again until `stop` says True.

    Args:
        folder: the index folder; made when absent.
        roots: what to scan.
        options: how. The model and the hop count for the first sounds; then the index has its own.
        every_s: seconds from the end of a scan to the start of the next.
        stop: asked often; True ends a scan after the files in hand, and then the watching.
        told: given what each scan did, or that it could not because another one was writing.
        report: called about ten times a second while a scan runs.

    Raises:
        EmbedindexError: whatever `scan` raises, but for an index that is busy: that is waited for.
    """
    while True:
        try:
            told(scan(folder, roots, options, report=report, stop=stop))
        except IndexBusyError as busy:
            told(busy)
        if options.request is not None or options.hop_s is not None:
            options = _without_model(folder, options)
        until = time.monotonic() + every_s
        while not stop() and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(WAKE_S, left_s))
        if stop():
            return


def _without_model(folder: str, options: ScanOptions) -> ScanOptions:
    """Return the options of the further scans: where the index has a model, none need be loaded to compare with it."""
    try:
        with Store(folder) as store:
            settled = store.model() is not None
    except IndexNotFoundError:
        return options
    return replace(options, request=None, hop_s=None) if settled else options
