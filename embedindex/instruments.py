"""Which files are samples of one instrument: the column ``instrument`` of the table ``files``, kept up to date.

Conventions: an instrument is named by the path of its SFZ file without the suffix, or by that of its folder and what
its files' names have in common. Where several SFZ files name a file, the one with the most samples counts. Nothing is
decoded for this. Folders to be looked at again are noted with each change of the index (``stale_folders``).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from embedindex.changes import is_gone
from embedindex.crawl import MAP_SUFFIX, SEPARATOR, lies_in
from embedindex.errors import AudioError
from embedindex.file_stat import FileStat, file_stat
from embedindex.opening import entries_of, is_real_folder
from embedindex.sample_names import instruments_of
from embedindex.sfz import read_sfz, sample_key
from embedindex.store import Store, path_range
from embedindex.writer import StoreWriter

FOLDERS_AT_ONCE = 200


def refresh_instruments(
    store: StoreWriter,
    roots: list[bytes],
    met: list[tuple[bytes, FileStat]],
    begin: Callable[[], None],
    stop: Callable[[], bool],
) -> None:
    """Find the instruments of all folders where something changed.

    Args:
        store: the index.
        roots: what was crawled.
        met: the SFZ files that were met there, with their stats.
        begin: called before the first change.
        stop: asked often; True leaves the rest for the next scan.
    """
    _follow_maps(store, roots, dict(met), begin)
    by_folder: dict[bytes, list[bytes]] | None = None
    while not stop():
        stale = [row[0] for row in store._rows("SELECT path FROM stale_folders LIMIT ?", (FOLDERS_AT_ONCE,))]
        if not stale:
            return
        begin()
        by_folder = _maps_by_folder(store) if by_folder is None else by_folder
        with store.transaction():
            for folder in stale:
                if folder:
                    _refresh_folder(store, folder, by_folder.get(folder, []))
                else:
                    _mark_all(store)
                store._do("DELETE FROM stale_folders WHERE path = ?", (folder,))


def members_of(store: Store, instrument: str) -> int:
    """Return how many files of the index, not counting missing ones, belong to an instrument."""
    sql = "SELECT count(*) FROM files WHERE instrument = ? AND missing_since IS NULL AND status = 'ok'"
    return int(store._rows(sql, (instrument,))[0][0])


def _mark_all(store: StoreWriter) -> None:
    folders = {os.path.dirname(row[0]) for row in store._rows("SELECT path FROM files")}
    for folder in folders:
        store._do("INSERT OR IGNORE INTO stale_folders VALUES (?)", (folder,))


def _follow_maps(store: StoreWriter, roots: list[bytes], met: dict[bytes, FileStat], begin: Callable[[], None]) -> None:
    """Read the SFZ files that are new or changed, drop those that are gone, and note the folders of their samples."""
    known = {row[0]: row for row in store._rows("SELECT path, size, mtime_ns, detail FROM instrument_maps")}
    for path, (_, size, mtime_ns, text) in known.items():
        detail = json.loads(text)
        if path in met:
            now = met.pop(path)
            if (now.size, now.mtime_ns) == (size, mtime_ns) and detail["includes"] == _stats(detail["includes"]):
                continue
            met[path] = now
        elif not any(lies_in(path, root) for root in roots) or not is_gone(path):
            continue
        begin()
        with store.transaction():
            _mark(store, detail["folders"])
            store._do("DELETE FROM instrument_maps WHERE path = ?", (path,))
    for path, stat in met.items():
        if path in known and store._row("SELECT 1 FROM instrument_maps WHERE path = ?", (path,)) is not None:
            continue
        begin()
        _add_map(store, path, stat)


def _add_map(store: StoreWriter, path: bytes, stat: FileStat) -> None:
    _samples.cache_clear()
    try:
        found = read_sfz(path)
    except AudioError:
        return
    folders = {_real_folder(folder) for folder in {os.path.dirname(sample) for sample in found.samples}}
    detail: dict[str, Any] = {
        "folders": sorted(os.fsdecode(folder) for folder in folders),
        "includes": _stats([[os.fsdecode(include), 0, 0] for include in found.includes]),
    }
    with store.transaction():
        _mark(store, detail["folders"])
        store._do(
            "INSERT INTO instrument_maps (path, path_text, size, mtime_ns, detail) VALUES (?, ?, ?, ?, ?)",
            (path, path.decode("utf-8", "replace"), stat.size, stat.mtime_ns, json.dumps(detail)),
        )


def _stats(includes: list[list[Any]]) -> list[list[Any]]:
    """Return [path, size, time of change] of included files as they are now."""
    found = []
    for name, *_ in includes:
        try:
            stat = file_stat(os.fsencode(name))
            found.append([name, stat.size, stat.mtime_ns])
        except OSError:
            found.append([name, -1, -1])
    return found


def _mark(store: StoreWriter, folders: list[str]) -> None:
    for folder in folders:
        store._do("INSERT OR IGNORE INTO stale_folders VALUES (?)", (os.fsencode(folder),))


def _real_folder(folder: bytes) -> bytes:
    """Return a folder as it is written on disk, where only capitals differ; as it was given when there is none."""
    if is_real_folder(folder) or folder == os.path.dirname(folder):
        return folder
    above = _real_folder(os.path.dirname(folder))
    wanted = sample_key(os.path.basename(folder))
    try:
        same = [entry.path for entry in entries_of(above) if sample_key(entry.name) == wanted]
    except OSError:
        return folder
    return same[0] if same else folder


def _maps_by_folder(store: StoreWriter) -> dict[bytes, list[bytes]]:
    found: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for path, text in store._rows("SELECT path, detail FROM instrument_maps ORDER BY path"):
        for folder in json.loads(text)["folders"]:
            found[os.fsencode(folder)].append(path)
    return found


@lru_cache(maxsize=8)
def _samples(path: bytes) -> frozenset[str]:
    try:
        return frozenset(map(sample_key, read_sfz(path).samples))
    except AudioError:
        return frozenset()


def _refresh_folder(store: StoreWriter, folder: bytes, maps: list[bytes]) -> None:
    low, high = path_range(folder)
    rows = store._rows(
        "SELECT id, path, duration, instrument, status FROM files WHERE path > ? AND path < ?"
        " AND instr(substr(path, ?), ?) = 0",
        (low, high, len(low) + 1, SEPARATOR),
    )
    stems = {os.path.splitext(os.path.basename(path))[0]: duration for _, path, duration, _, status in rows
             if status == "ok"}  # fmt: skip
    named = instruments_of({stem.decode("utf-8", "replace"): duration for stem, duration in stems.items()})
    ranked = sorted(maps, key=lambda path: (-len(_samples(path)), len(path), path))
    for file_id, path, _, before, _ in rows:
        key = sample_key(path)
        sfz = next((one for one in ranked if key in _samples(one)), None)
        if sfz is not None:
            instrument: str | None = sfz[: -len(MAP_SUFFIX)].decode("utf-8", "replace")
        else:
            name = named.get(os.path.splitext(os.path.basename(path))[0].decode("utf-8", "replace"))
            where = folder.decode("utf-8", "replace")
            instrument = None if name is None else os.path.join(where, name) if name else where
        if instrument != before:
            store._do("UPDATE files SET instrument = ? WHERE id = ?", (instrument, file_id))
