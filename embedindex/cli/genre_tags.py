"""The part of ``embedindex genre`` that writes files' own tags, and puts back what was there before."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from embedindex.cli.console import amount, print_line, print_table, say

if TYPE_CHECKING:
    from embedindex.write_tags import TagChange


def write_tags(folder: str, wanted: list[tuple[bytes, tuple[str, ...]]], *, dry_run: bool) -> int:
    """Write genres to files' tags and say what was done; return how many files could not be written.

    Args:
        folder: the index folder, where the backup goes.
        wanted: (path, genres).
        dry_run: only show what would be done.
    """
    from embedindex.write_tags import write_genres

    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    backup = os.path.join(folder, f"tags-{stamp}.jsonl")
    changed, failed = _report(write_genres(wanted, None if dry_run else backup, dry_run=dry_run), show=dry_run)
    if dry_run:
        say(f"embedindex: the tags of {amount(changed, 'file')} would be written; nothing was")
    elif changed:
        undo = f"`embedindex genre --restore-tags {backup}` undoes it"
        say(f"embedindex: wrote the tags of {amount(changed, 'file')}; {undo}")
    return failed


def restore_tags(backup: str) -> int:
    """Put back what files' tags said before, and say so; return how many files could not be written."""
    from embedindex.write_tags import restore

    changed, failed = _report(restore(backup), show=False)
    print_line(f"The tags of {amount(changed, 'file')} are as they were.")
    return failed


def _report(changes: Iterable[TagChange], *, show: bool) -> tuple[int, int]:
    from embedindex.errors import display_path

    changed = failed = 0
    rows = []
    for change in changes:
        if change.problem is not None:
            failed += 1
            say(f"embedindex: {display_path(change.path)}: {change.problem}")
            continue
        changed += 1
        if show:
            rows.append(("; ".join(change.before) or "-", "; ".join(change.after), display_path(change.path)))
    if show:
        print_table(("tag now", "tag then", "file"), rows)
    return changed, failed
