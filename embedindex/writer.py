"""Writing an index: the one connection that may. Everything about a file is written in one transaction.

The writer holds a kernel lock on the index folder for as long as it is open, so that two scans never meet; the lock
goes with the process, however it ends. Window numbers are handed out here and never used twice.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import numpy as np

from embedindex import __version__
from embedindex.copies import stored_content
from embedindex.database import open_writer, sqlite_errors
from embedindex.embed import FileEmbedding
from embedindex.errors import (
    ModelMismatchError,
    display_path,
)
from embedindex.file_stat import FileStat
from embedindex.lock import take_lock
from embedindex.models.base import ModelIdentity, ModelRequest
from embedindex.records import FileRecord, IndexModel, Label, request_to_json, vectors_hash
from embedindex.schema import WINDOWS_PER_ROW
from embedindex.store import Store, path_range


def now() -> str:
    """Return the time as the database writes it: ISO 8601, UTC, seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _path_text(path: bytes) -> str:
    return path.decode("utf-8", "replace")


class StoreWriter(Store):
    """An index, open for writing by this process alone.

    Args:
        folder: the index folder, made when absent.
        durable: a power cut loses nothing that was committed (slower).
        wait_s: how long to wait for another writer to finish.

    Raises:
        IndexBusyError: another process is writing.
        IndexReadOnlyError: the folder cannot be made or written.
        StoreError: its subclasses say what else is wrong.
    """

    def __init__(self, folder: str, *, durable: bool = False, wait_s: float = 0.0) -> None:
        self._lock = take_lock(folder, wait_s)
        try:
            super().__init__(folder, open_writer(folder, durable=durable))
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def close(self) -> None:
        """Close the connection and let go of the lock."""
        try:
            super().close()
        finally:
            self._lock.release()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all that is written inside happen together or not at all. Nests: the outermost one commits."""
        if self._connection.in_transaction:
            yield
            return
        with sqlite_errors(self.folder):
            # IMMEDIATE: a deferred transaction that writes after another commit fails at once, without waiting.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _do(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        with sqlite_errors(self.folder):
            return self._connection.execute(sql, parameters)

    def _next_generation(self) -> int:
        self._do("UPDATE settings SET value = value + 1 WHERE name = 'generation'")
        return self.generation

    # -- model, space, roots, runs -------------------------------------------------------------------------------

    def use_model(self, identity: ModelIdentity, request: ModelRequest, hop_s: float) -> IndexModel:
        """Return the index's model, which is set on first use.

        Raises:
            ModelMismatchError: the index was made with another model or hop.
        """
        known = self.model()
        if known is None:
            with self.transaction():
                self._do(
                    "INSERT INTO models"
                    " (name, fingerprint, identity, request, weights_sha256, dimension, hop_s, added_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        identity.name,
                        identity.fingerprint,
                        identity.to_json(),
                        request_to_json(request),
                        identity.weights_sha256,
                        identity.dimension,
                        float(hop_s),
                        now(),
                    ),
                )
            known = self.model()
            if known is None:
                raise AssertionError("the model was just written")
            return known
        if known.identity != identity or known.hop_s != hop_s:
            raise model_mismatch(self.folder, known, identity, hop_s)
        return known

    def set_space(self, kind: str, data: bytes, windows: int) -> None:
        """Keep the learnt transform of the index's model, replacing the one before."""
        with self.transaction():
            self._do(
                "INSERT INTO spaces (model_id, kind, data, windows, learnt_at)"
                " SELECT id, ?, ?, ?, ? FROM models ORDER BY id LIMIT 1"
                " ON CONFLICT (model_id) DO UPDATE SET kind = excluded.kind, data = excluded.data,"
                " windows = excluded.windows, learnt_at = excluded.learnt_at",
                (kind, data, windows, now()),
            )

    def put_setting(self, name: str, value: float | str) -> None:
        """Write one row of the table ``settings``."""
        with self.transaction():
            self._do("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def put_index_stamps(self, stamps: Sequence[str]) -> None:
        """Write by which random names the index file on disk is known from now on."""
        self.put_setting("index_stamps", " ".join(stamps))

    def put_root(self, path: bytes, device: int | None) -> int:
        """Return the id of a scanned root, which is added when new; its device number is kept up to date."""
        for root_id, known, known_device in self.roots():
            if known == path:
                if device is not None and device != known_device:
                    with self.transaction():
                        self._do("UPDATE roots SET device = ? WHERE id = ?", (device, root_id))
                return root_id
        with self.transaction():
            cursor = self._do(
                "INSERT INTO roots (path, path_text, device, first_scan) VALUES (?, ?, ?, ?)",
                (path, _path_text(path), device, now()),
            )
        return int(cursor.lastrowid or 0)

    def start_run(self, roots: Iterable[bytes]) -> int:
        """Return the id of a new row in the table ``runs``."""
        with self.transaction():
            # This process holds the lock, so that no other run is under way: what says so was killed.
            self._do("UPDATE runs SET outcome = 'interrupted' WHERE outcome = 'running'")
            cursor = self._do(
                "INSERT INTO runs (started_at, version, roots, outcome) VALUES (?, ?, ?, 'running')",
                (now(), __version__, json.dumps([os.fsdecode(root) for root in roots])),
            )
        return int(cursor.lastrowid or 0)

    def finish_run(self, run_id: int, outcome: str, summary: dict[str, Any]) -> None:
        """Write how a run ended: ``done``, ``interrupted`` or ``failed``."""
        with self.transaction():
            self._do(
                "UPDATE runs SET finished_at = ?, outcome = ?, summary = ? WHERE id = ?",
                (now(), outcome, json.dumps(summary, sort_keys=True), run_id),
            )

    # -- files ---------------------------------------------------------------------------------------------------

    def put_file(self, path: bytes, root_id: int, stat: FileStat, content: FileEmbedding) -> int:
        """Write a file with its vectors in one transaction; what the index knew of that path before is replaced.

        Labels of the path stay. Returns the file's id.

        Raises:
            ValueError: the vectors are not (n ≥ 1, the model's dimension) float16.
        """
        n_windows, width = content.vectors.shape
        if content.vectors.dtype != np.float16 or width != self._dimension() or n_windows < 1:
            raise ValueError(f"{content.vectors.dtype} vectors of shape {content.vectors.shape} do not fit this index")
        data = np.ascontiguousarray(content.vectors).data.cast("B")  # no copy: it may be long
        with self.transaction():
            file_id = self._drop_windows_of(path)
            self._next_generation()
            first = self.next_window
            self._do("UPDATE settings SET value = ? WHERE name = 'next_window'", (first + n_windows,))
            columns = {
                **_stat_columns(path, root_id, stat),
                "status": "ok",
                "missing_since": None,
                "content_hash": content.content_hash,
                "container": content.facts.container,
                "codec": content.facts.codec,
                "sample_rate": content.facts.sample_rate,
                "channels": content.facts.channels,
                "duration": float(content.duration_s),
                "peak": float(content.peak),
                "artist": content.tags.artist,
                "album": content.tags.album,
                "title": content.tags.title,
                "genre": content.tags.genre,
                "year": content.tags.year,
                "note": content.note,
                "error_kind": None,
                "error_reason": None,
                "first_window": first,
                "n_windows": n_windows,
                "n_silent": int(content.silent),
                "hop_s": float(content.hop_s),
                "vectors_hash": vectors_hash(data),
                "scanned_at": now(),
            }
            file_id = self._put_row(file_id, columns)
            for start in range(0, n_windows, WINDOWS_PER_ROW):
                count = min(WINDOWS_PER_ROW, n_windows - start)
                self._do(
                    "INSERT INTO vectors (first_window, file_id, n_windows, data) VALUES (?, ?, ?, ?)",
                    (first + start, file_id, count, data[start * width * 2 : (start + count) * width * 2]),
                )
        return file_id

    def put_failure(
        self, path: bytes, root_id: int, stat: FileStat, kind: str, reason: str, content_hash: bytes | None = None
    ) -> int:
        """Write that a file could not be used, and why; vectors it had are removed. Returns the file's id."""
        with self.transaction():
            file_id = self._drop_windows_of(path)
            columns = {
                **_stat_columns(path, root_id, stat),
                "status": "failed",
                "missing_since": None,
                "content_hash": content_hash,
                **dict.fromkeys(
                    (
                        "container", "codec", "sample_rate", "channels", "duration", "peak", "artist", "album", "title",
                        "genre", "year", "note", "first_window", "vectors_hash", "hop_s",
                    )
                ),
                "n_windows": 0,
                "n_silent": 0,
                "error_kind": kind,
                "error_reason": reason.encode("utf-8", "replace").decode(),
                "scanned_at": now(),
            }  # fmt: skip
            return self._put_row(file_id, columns)

    def _put_row(self, file_id: int | None, columns: dict[str, Any]) -> int:
        self._mark_stale(columns["path"])
        if file_id is None:
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            cursor = self._do(f"INSERT INTO files ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608
            return int(cursor.lastrowid or 0)
        names = ", ".join(f"{name} = ?" for name in columns)
        self._do(f"UPDATE files SET {names} WHERE id = ?", (*columns.values(), file_id))  # noqa: S608
        return file_id

    def _mark_stale(self, path: bytes) -> None:
        """Note that the instruments of a file's folder are to be found again (see `embedindex.instruments`)."""
        self._do("INSERT OR IGNORE INTO stale_folders VALUES (?)", (os.path.dirname(path),))

    def _drop_windows_of(self, path: bytes) -> int | None:
        """Remove the vectors of a path and log it for the search index; return the file's id, None when unknown."""
        row = self._row("SELECT id, first_window, n_windows FROM files WHERE path = ?", (path,))
        if row is None:
            return None
        file_id, first, count = row
        if first is not None and count:
            self._do(
                "INSERT INTO removed_windows (first_window, n_windows, generation) VALUES (?, ?, ?)",
                (first, count, self._next_generation()),
            )
            self._do("DELETE FROM vectors WHERE file_id = ?", (file_id,))
        return int(file_id)

    def touch_file(self, file_id: int, stat: FileStat) -> None:
        """Write that a file's content is as it was, though its stat is not; a missing file is back."""
        with self.transaction():
            self._do(
                "UPDATE files SET size = ?, mtime_ns = ?, device = ?, inode = ?, missing_since = NULL WHERE id = ?",
                (stat.size, stat.mtime_ns, stat.device, stat.inode, file_id),
            )

    def move_file(self, record: FileRecord, path: bytes, root_id: int, stat: FileStat) -> None:
        """Give a file its new path; id, vectors and labels stay. What the index knew of the new path is forgotten."""
        with self.transaction():
            there = self.file_by_path(path)
            if there is not None and there.id != record.id:
                self.forget_file(there.id)
            self._mark_stale(record.path)
            columns = _stat_columns(path, root_id, stat)
            self._put_row(record.id, {**columns, "missing_since": None})

    def copy_file(self, source: FileRecord, path: bytes, root_id: int, stat: FileStat) -> int:
        """Write a file whose content is another's, with that one's vectors under numbers of its own."""
        return self.put_file(path, root_id, stat, stored_content(self, source))

    def renumber_device(self, folder: bytes, old: int, new: int) -> None:
        """Write that the disk under a folder has another device number now, as network drives do after a restart."""
        low, high = path_range(folder)
        with self.transaction():
            self._do("UPDATE files SET device = ? WHERE device = ? AND path > ? AND path < ?", (new, old, low, high))

    def mark_missing(self, file_ids: Iterable[int]) -> None:
        """Write that files were not found; their vectors and labels stay."""
        with self.transaction():
            for file_id in file_ids:
                self._do("UPDATE files SET missing_since = ? WHERE id = ? AND missing_since IS NULL", (now(), file_id))

    def forget_file(self, file_id: int) -> None:
        """Remove a file with its vectors and labels."""
        with self.transaction():
            row = self._row("SELECT path FROM files WHERE id = ?", (file_id,))
            if row is not None:
                self._mark_stale(row[0])
                self._drop_windows_of(row[0])
                self._do("DELETE FROM files WHERE id = ?", (file_id,))

    def forget_removals(self, generation: int) -> None:
        """Drop the log of removals up to a generation, once the search index on disk has followed."""
        generation = int(generation)  # the column takes any type, and a NumPy number would become bytes
        if self._row("SELECT 1 FROM removed_windows WHERE generation <= ? LIMIT 1", (generation,)):
            with self.transaction():
                self._do("DELETE FROM removed_windows WHERE generation <= ?", (generation,))
                self._do("UPDATE settings SET value = ? WHERE name = 'removals_after'", (generation,))

    # -- labels --------------------------------------------------------------------------------------------------

    def put_labels(self, file_id: int, labels: Iterable[Label]) -> None:
        """Add labels to a file; one that is there from the same source gets the new confidence."""
        with self.transaction():
            for label in labels:
                self._do(
                    "INSERT INTO labels (file_id, key, value, source, confidence, added_at) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (file_id, key, value, source) DO UPDATE SET confidence = excluded.confidence",
                    (file_id, label.key, label.value, label.source, float(label.confidence), now()),
                )


def model_mismatch(folder: str, known: IndexModel, identity: ModelIdentity, hop_s: float) -> ModelMismatchError:
    """Return the error to raise when something is to go into an index that was made with another model or hop."""
    return ModelMismatchError(
        f"{display_path(folder)}: this index was made with {describe_model(known.identity, known.hop_s)}, "
        f"not with {describe_model(identity, hop_s)}; leave out --model and --hop to go on with it, or start "
        "another index with --index DIR"
    )


def describe_model(identity: ModelIdentity, hop_s: float) -> str:
    """Return a model in a few words for a message."""
    parameters = ", ".join(f"{key}={value}" for key, value in sorted(identity.parameters.items()))
    weights = f", weights {identity.weights_sha256[:12]}" if identity.weights_sha256 else ""
    return f"{identity.name} ({parameters or 'no parameters'}{weights}, hop {hop_s:g} s)"


def _stat_columns(path: bytes, root_id: int, stat: FileStat) -> dict[str, Any]:
    return {
        "path": path,
        "path_text": _path_text(path),
        "root_id": root_id,
        "size": stat.size,
        "mtime_ns": stat.mtime_ns,
        "device": stat.device,
        "inode": stat.inode,
    }
