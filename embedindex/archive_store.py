"""What an index remembers of archives: which files are in each, so that one that did not change is never opened again.

Conventions: an archive is known by its path, size, time of change and inode number. What is remembered is the whole
list; what is left out of a scan is decided anew each time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from embedindex.changes import is_gone
from embedindex.crawl import Listed, Listing, list_archive
from embedindex.file_stat import FileStat
from embedindex.store import Store, path_range
from embedindex.worker import trusted_stat
from embedindex.writer import StoreWriter


def remembered_listing(store: Store | None, begin: Callable[[], None] | None = None) -> Listing:
    """Return what gives the files in an archive, from the index where it knows them.

    Args:
        store: the index, None where there is none yet.
        begin: called before the first change; None when nothing is to be written.
    """

    def listing(archive: bytes, stat: FileStat) -> list[Listed] | None:
        known = None if store is None else _recall(store, archive, stat)
        if known is not None:
            return known
        read_at_ns = time.time_ns()
        listed = list_archive(archive, stat)
        if listed is not None and isinstance(store, StoreWriter) and begin is not None:
            begin()
            _remember(store, archive, trusted_stat(stat, stat, read_at_ns), listed)
        return listed

    return listing


def _recall(store: Store, archive: bytes, stat: FileStat) -> list[Listed] | None:
    row = store._row("SELECT size, mtime_ns, inode, members FROM archives WHERE path = ?", (archive,))
    if row is None or row[:3] != (stat.size, stat.mtime_ns, stat.inode):
        return None
    return [Listed(os.fsencode(name), size, changed_ns) for name, size, changed_ns in json.loads(row[3])]


def _remember(store: StoreWriter, archive: bytes, stat: FileStat, listed: list[Listed]) -> None:
    # Names in archives are made UTF-8 when they are read.
    names = json.dumps([[one.name.decode("utf-8", "surrogateescape"), one.size, one.changed_ns] for one in listed])
    with store.transaction():
        store._do(
            "INSERT OR REPLACE INTO archives (path, path_text, size, mtime_ns, inode, members)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (archive, archive.decode("utf-8", "replace"), stat.size, stat.mtime_ns, stat.inode, names),
        )


def forget_archives(store: StoreWriter, folder: bytes, begin: Callable[[], None]) -> None:
    """Drop what is remembered of archives below a folder, or of that archive, that are not there any more."""
    low, high = path_range(folder)
    rows = store._rows("SELECT path FROM archives WHERE path = ? OR path > ? AND path < ?", (folder, low, high))
    gone = [row[0] for row in rows if is_gone(row[0])]
    if gone:
        begin()
        with store.transaction():
            for path in gone:
                store._do("DELETE FROM archives WHERE path = ?", (path,))
