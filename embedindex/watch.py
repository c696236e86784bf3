"""Keeping an index up to date: a scan of what the system says has changed, and now and then one of everything.

Conventions: file events are hints. They only choose what a scan looks at; a scan of everything finds what was missed,
as on network drives, which tell nothing. Times are seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from embedindex.crawl import absolute_path, lies_in, outermost
from embedindex.errors import IndexBusyError, IndexNotFoundError, display_path
from embedindex.file_events import FileEvents, Unfollowed
from embedindex.progress import Report, ScanSummary, silent
from embedindex.roots import refuse_unknown
from embedindex.scan import ScanOptions, scan
from embedindex.settling import Settling
from embedindex.store import Store

WAKE_S = 0.25
# Scans of everything: where nothing is told between them, and where nearly all is.
EVERY_POLLED_S = 300.0
EVERY_FOLLOWED_S = 3600.0
SETTLE_S = 2.0
# How long an index is left alone that another program writes to, and how soon lost events are made up for.
PAUSE_S = 30.0
# Whether disks came or went is asked so often.
DISKS_S = 5.0


@dataclass(frozen=True)
class Pace:
    """How often a watch looks.

    Attributes:
        every_s: seconds from the end of a scan of everything to the next; None for 300 where something is not told,
            else 3600.
        poll: never rely on file events.
        settle_s: how long a file must be left alone before it is scanned.
    """

    every_s: float | None = None
    poll: bool = False
    settle_s: float = SETTLE_S


def watch(
    folder: str,
    roots: Sequence[str | bytes],
    options: ScanOptions,
    *,
    pace: Pace,
    stop: Callable[[], bool],
    told: Callable[[ScanSummary | IndexBusyError], None],
    warn: Callable[[str], None],
    report: Report = silent,
) -> None:
    """Scan some folders, and then what changes in them, until `stop` says True.

    Args:
        folder: the index folder; made when absent.
        roots: what to scan.
        options: how. The model and the hop count for the first sounds; then the index has its own.
        pace: how often.
        stop: asked often; True ends a scan after the files in hand, and then the watching.
        told: given what each scan did, or that it could not because another one was writing.
        warn: told in words which roots are only looked at now and then, and why.
        report: called about ten times a second while a scan runs.

    Raises:
        EmbedindexError: whatever `scan` raises, but for an index that is busy: that is waited for.
    """
    paths = outermost([os.fsencode(root) for root in roots])
    refuse_unknown(folder, paths)
    apart = os.path.realpath(absolute_path(os.fsencode(folder)))
    with closing(FileEvents(paths, apart, poll=pace.poll, wait_s=WAKE_S)) as events:

        def run(run_options: ScanOptions) -> ScanSummary:
            return scan(folder, paths, run_options, report=report, stop=stop)

        watching = _Watch(folder, paths, options, pace, events, run, told, warn)
        watching.look_at_everything()
        while not stop():
            watching.step()


class _Watch:
    """One watch."""

    def __init__(
        self,
        folder: str,
        roots: list[bytes],
        options: ScanOptions,
        pace: Pace,
        events: FileEvents,
        run: Callable[[ScanOptions], ScanSummary],
        told: Callable[[ScanSummary | IndexBusyError], None],
        warn: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.roots = roots
        self.options = options
        self.pace = pace
        self.events = events
        self.run = run
        self.told = told
        self.warn = warn
        self.settling = Settling(pace.settle_s)
        self.unfollowed: list[Unfollowed] = []
        self.everything_s = 0.0  # when everything is looked at again
        self.busy_until_s = 0.0
        self.disks_s = 0.0  # when disks are asked about again

    def step(self) -> None:
        """Wait a moment for changes; scan when it is time to."""
        if self.events.is_following:
            self._gather()
        else:
            time.sleep(min(WAKE_S, max(0.0, self.everything_s - time.monotonic())))
        now_s = time.monotonic()
        if now_s >= self.disks_s:
            self.disks_s = now_s + DISKS_S
            if self.events.is_outdated():
                self.everything_s = now_s
        if now_s >= self.everything_s:
            self.look_at_everything()
        elif now_s >= self.busy_until_s:
            taken = self.settling.take(now_s)
            if taken is None:
                self.look_at_everything()
            elif taken:
                self._look_at(taken)

    def _gather(self) -> None:
        changed = self.events.changes()
        now_s = time.monotonic()
        if changed is None:
            self.everything_s = min(self.everything_s, now_s + min(PAUSE_S, self._every_s()))
        else:
            self.settling.note(changed, now_s)

    def _every_s(self) -> float:
        if self.pace.every_s is not None:
            return self.pace.every_s
        return EVERY_POLLED_S if self.pace.poll or self.unfollowed else EVERY_FOLLOWED_S

    def look_at_everything(self) -> None:
        """Scan all, and follow anew what can be followed: first that, so that nothing changes unseen between."""
        unfollowed = self.events.renew()
        if unfollowed != self.unfollowed:
            self.unfollowed = unfollowed
            for one in unfollowed:
                self.warn(f"{display_path(one.root)}: looked at every {self._every_s():g} s only; {one.reason}")
        self.settling.forget()
        pause_s = self._every_s() if self._scan(self.options) else min(PAUSE_S, self._every_s())
        self.everything_s = time.monotonic() + pause_s

    def _look_at(self, changed: list[bytes]) -> None:
        """Scan what changed; all, where links make it unclear what that is."""
        linked = any(_has_links(path, root) for root in self.roots for path in changed if lies_in(path, root))
        if not self._scan(self.options if linked else replace(self.options, within=tuple(changed))):
            self.settling.note(changed, time.monotonic())
            self.busy_until_s = time.monotonic() + PAUSE_S

    def _scan(self, options: ScanOptions) -> bool:
        """Scan, and return whether that could be done: the index may be busy."""
        try:
            self.told(self.run(options))
        except IndexBusyError as busy:
            self.told(busy)
            return False
        if self.options.request is not None or self.options.hop_s is not None:
            self.options = _without_model(self.folder, self.options)
        return True


def _has_links(path: bytes, root: bytes) -> bool:
    """Return whether there is a symbolic link between a root and a path, or below it: it may lead anywhere."""
    above = path
    while len(above) > len(root):
        if os.path.islink(above):
            return True
        above = os.path.dirname(above)
    return any(entry.is_symlink() for entry in _entries_below(path))


def _entries_below(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    """Yield what lies below a folder; nothing for what cannot be listed, which the scan will say."""
    stack = [folder]
    while stack:
        with suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)


def _without_model(folder: str, options: ScanOptions) -> ScanOptions:
    """Return the options of the further scans: where the index has a model, none need be loaded to compare with it."""
    try:
        with Store(folder) as store:
            settled = store.model() is not None
    except IndexNotFoundError:
        return options
    return replace(options, request=None, hop_s=None) if settled else options
