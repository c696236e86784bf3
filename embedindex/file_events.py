"""What the system says happened to files: followed through the library watchfiles, where that is possible.

Conventions: paths are bytes, those of the roots as the caller wrote them, links in a root's own name not resolved.
Events can get lost (the kernel keeps some thousands); who uses them looks at everything now and then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedindex.archives import is_archive_name
from embedindex.changes import is_gone
from embedindex.crawl import MAP_SUFFIX, SEPARATOR, is_audio_name, is_hidden, lies_in
from embedindex.ignore import IGNORE_FILE, is_system_folder
from embedindex.mounts import mounted_below, read_mounts, silent_mount
from embedindex.remote_paths import is_remote

if TYPE_CHECKING:
    from collections.abc import Generator

    from watchfiles import Change

# The library answers when nothing new came for so long, or else after the longer time; what to wait for is the
# caller's matter.
STEP_MS = 50
GATHER_MS = 200


@dataclass(frozen=True)
class Unfollowed:
    """A root without events, and why."""

    root: bytes
    reason: str


class FileEvents:
    """The events of some roots.

    Args:
        roots: absolute, normalised.
        apart: a folder whose files are nobody's sounds: the index's own.
        poll: follow none.
        wait_s: how long `changes` waits for something to happen.
    """

    def __init__(self, roots: Sequence[bytes], apart: bytes, *, poll: bool, wait_s: float) -> None:
        self._roots = roots
        self._apart = apart
        self._poll = poll
        self._wait_s = wait_s
        self._followed: list[tuple[bytes, bytes]] = []  # (as written, without links)
        self._seen_as: list[object] = []
        self._silent: set[bytes] = set()
        self._events: Generator[set[tuple[Change, str]], None, None] | None = None

    def renew(self) -> list[Unfollowed]:
        """Follow anew all roots that can be; what happens from then on is told. Returns the others."""
        self.close()
        if self._poll:
            return []
        mounts = read_mounts()
        self._followed, unfollowed, self._silent = [], [], set()
        for root in self._roots:
            if is_remote(root):
                unfollowed.append(Unfollowed(root, "servers do not tell what changes on them"))
                continue
            real = os.path.realpath(root)
            silent = silent_mount(real, mounts)
            if silent is not None:
                self._silent.add(root)
                unfollowed.append(Unfollowed(root, f"drives of type {silent.kind} do not tell what changes on them"))
            elif not os.path.isdir(real):
                reason = "it is not there" if is_gone(root) else "it is a single file"
                unfollowed.append(Unfollowed(root, reason))
            elif not _is_text(real):
                unfollowed.append(Unfollowed(root, "its name is not UTF-8"))
            else:
                self._followed.append((root, real))
        self._seen_as = self._identity()
        problem = self._start()
        if problem is not None:
            unfollowed += [Unfollowed(root, problem) for root, _ in self._followed]
            self._followed = []
        return unfollowed

    def _start(self) -> str | None:
        """Begin to follow; returns why that cannot be done, None when it can."""
        if not self._followed:
            return None
        from watchfiles import watch
        from watchfiles._rust_notify import WatchfilesRustInternalError  # the public module does not name it

        events = watch(
            *(os.fsdecode(real) for _, real in self._followed),
            watch_filter=None,
            debounce=GATHER_MS,
            step=STEP_MS,
            rust_timeout=round(self._wait_s * 1000),
            yield_on_timeout=True,
            force_polling=False,
            # True would hide all errors, and leave out what comes after the folder with the error.
            ignore_permission_denied=False,
        )
        try:
            next(events)  # only now it begins; whoever begins to follow looks at everything then
        except (OSError, WatchfilesRustInternalError) as error:
            return _in_words(error)
        self._events = events
        return None

    def changes(self) -> set[bytes] | None:
        """Return what sounds and folders changed lately; None when events got lost.

        A folder stands for all in it, as when its ignore file changed.

        Call it again and again: it waits a moment where there is nothing to tell. After None, nothing is told until
        `renew`.
        """
        if self._events is None:
            return None
        from watchfiles._rust_notify import WatchfilesRustInternalError

        try:
            events = next(self._events)
        except WatchfilesRustInternalError:  # a name that is no UTF-8, or the watches ran out
            self.close()
            return None
        return set(self._that_matter(os.fsencode(path) for _, path in events))

    def _that_matter(self, paths: Iterable[bytes]) -> Iterator[bytes]:
        for path in paths:
            for root, real in self._followed:
                if lies_in(path, real):
                    below = path[len(real.rstrip(SEPARATOR)) + 1 :]
                    named = os.path.join(root, below) if below else root
                    if may_matter(named, below) and not lies_in(path, self._apart):
                        is_rule = os.path.basename(named) == IGNORE_FILE  # news of all that lies in its folder
                        yield os.path.dirname(named) if is_rule else named

    @property
    def is_following(self) -> bool:
        """Whether events are told."""
        return self._events is not None

    def is_outdated(self) -> bool:
        """Return whether a root, or a disk in one, came or went since `renew`: then events may not be told."""
        return not self._poll and self._identity() != self._seen_as

    def _identity(self) -> list[object]:
        """Return what the roots are; drives of networks are not asked, for they may not answer."""
        mounts = read_mounts()
        identity: list[object] = []
        for root in self._roots:
            if root not in self._silent and not is_remote(root):
                identity.append(mounted_below(root, mounts))
                with suppress(OSError):
                    result = os.stat(root)
                    identity.append((root, result.st_dev, result.st_ino))
        return identity

    def close(self) -> None:
        """Follow nothing any more."""
        if self._events is not None:
            self._events.close()
            self._events = None


def may_matter(path: bytes, below: bytes) -> bool:
    """Return whether an event of that path can be news to an index: a crawl would look at it, or would have.

    Args:
        path: absolute.
        below: its part below the root.
    """
    *folders, name = below.split(SEPARATOR)
    if any(is_hidden(folder) or is_system_folder(folder) for folder in folders):
        return False
    if name == IGNORE_FILE:
        return True
    if is_hidden(name) or is_system_folder(name):
        return False
    # What is gone may have been a folder.
    if is_audio_name(name) or is_archive_name(name) or name.lower().endswith(MAP_SUFFIX):
        return True
    return os.path.isdir(path) or is_gone(path)


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_words(error: Exception) -> str:
    """Return what a failure to follow folders means."""
    text = str(error)
    if isinstance(error, PermissionError):
        return f"a folder in it may not be followed ({text})"
    if "limit reached" in text:
        return (
            "the system's watches are used up, of which each folder takes one"
            " (sysctl fs.inotify.max_user_watches says how many there are, and sets more)"
        )
    if "os error 24" in text:
        return "the system's watchers are used up (sysctl fs.inotify.max_user_instances says how many there are)"
    return f"the system cannot follow it ({text})"
