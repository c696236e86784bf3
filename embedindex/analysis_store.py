"""Tempo and key in the database: what has been found, and what is still to be looked for.

An analysis belongs to a content (see `embedindex.schema`): copies share it, a changed file has none yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from embedindex.records import FileRecord
from embedindex.store import Store, path_range
from embedindex.tempo_key import TempoKey
from embedindex.writer import StoreWriter, now


@dataclass(frozen=True)
class Wanted:
    """What to look for."""

    tempo: bool = True
    key: bool = True


@dataclass(frozen=True)
class ToAnalyse:
    """One content to analyse, and a file that has it."""

    content_hash: bytes
    path: bytes
    duration_s: float


def to_analyse(store: Store, wanted: Wanted, below: Iterable[bytes] = (), *, again: bool = False) -> list[ToAnalyse]:
    """Return what is still to be analysed, each content once, by path.

    Args:
        store: the index.
        wanted: what to look for.
        below: only files in these folders, or these files; all when empty.
        again: also what was analysed before.
    """
    missing = [f"{name}_at IS NULL" for name in ("tempo", "key") if getattr(wanted, name)]
    terms = ["status = 'ok'", "missing_since IS NULL", "files.content_hash IS NOT NULL"]
    if not again:
        terms.append(f"({' OR '.join(missing)})")
    values: list[bytes] = []
    folders = []
    for folder in below:
        folders.append("(path = ? OR path > ? AND path < ?)")
        values += [folder, *path_range(folder)]
    if folders:
        terms.append(f"({' OR '.join(folders)})")
    rows = store._rows(
        "SELECT files.content_hash, min(path), duration FROM files LEFT JOIN analyses USING (content_hash)"  # noqa: S608
        f" WHERE {' AND '.join(terms)} GROUP BY files.content_hash ORDER BY min(path)",
        values,
    )
    return [ToAnalyse(row[0], row[1], row[2] or 0.0) for row in rows]


def put_analysis(store: StoreWriter, content_hash: bytes, wanted: Wanted, found: TempoKey | str) -> None:
    """Write what was found in a content, or why it could not be analysed; what was not looked for stays."""
    result, error = (TempoKey(), found) if isinstance(found, str) else (found, None)
    columns: dict[str, object] = {"error": error}
    if wanted.tempo:
        columns |= {"tempo_bpm": result.bpm, "tempo_confidence": result.bpm_confidence, "tempo_at": now()}
    if wanted.key:
        columns |= {"key": result.key, "key_confidence": result.key_confidence, "key_at": now()}
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns)
    with store.transaction():
        store._do(
            f"INSERT INTO analyses (content_hash, {names}) VALUES (?, {marks})"  # noqa: S608
            f" ON CONFLICT (content_hash) DO UPDATE SET {updates}",
            (content_hash, *columns.values()),
        )


def analysis_of(store: Store, record: FileRecord) -> TempoKey:
    """Return what has been found in a file, nothing where nothing has."""
    row = store._row(
        "SELECT tempo_bpm, tempo_confidence, key, key_confidence FROM analyses WHERE content_hash = ?",
        (record.content_hash,),
    )
    return TempoKey() if row is None else TempoKey(*row)


def copy_analyses(source: Store, target: StoreWriter) -> None:
    """Take what another index has found in contents that are in this one, too; what is known here stays."""
    columns = "content_hash, tempo_bpm, tempo_confidence, tempo_at, key, key_confidence, key_at, error"
    with target.transaction():
        for row in source._stream(f"SELECT {columns} FROM analyses"):  # noqa: S608
            target._do(
                f"INSERT INTO analyses ({columns}) SELECT ?, ?, ?, ?, ?, ?, ?, ?"  # noqa: S608
                " WHERE EXISTS (SELECT 1 FROM files WHERE content_hash = ?) ON CONFLICT DO NOTHING",
                (*row, row[0]),
            )
