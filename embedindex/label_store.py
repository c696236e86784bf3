"""Labels in the database: adding, replacing and removing them, imports that can be undone, and reading them by key.

Conventions: see `embedindex.labels` for keys, values and sources. An import is one row in ``label_imports``; each label
remembers the one that first brought it. Every function that writes is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedindex.errors import QueryError
from embedindex.labels import HUMAN, PREDICTED, is_predicted
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter, now

_IS_PREDICTED = f"(source = '{PREDICTED}' OR source LIKE '{PREDICTED}:%')"


@dataclass(frozen=True)
class FileLabel:
    """One label of one file, by the file's id."""

    file_id: int
    label: Label


@dataclass(frozen=True)
class LabelImport:
    """An import: its number, where it took labels from, what was asked for, when, and how many of its labels stand."""

    id: int
    source: str
    detail: str
    made_at: str
    labels: int


@dataclass(frozen=True)
class LabelCount:
    """A ``key=value`` of an index, with the number of files that have it from each source."""

    key: str
    value: str
    files: int
    sources: dict[str, int]


def label_counts(store: Store) -> list[LabelCount]:
    """Return every ``key=value`` of the index with its numbers of files, by key, the most frequent first."""
    rows = store._rows("SELECT key, value, source, count(*) FROM labels GROUP BY key, value, source")
    sources: dict[tuple[str, str], dict[str, int]] = {}
    for key, value, source, count in rows:
        sources.setdefault((key, value), {})[source] = count
    files = {
        (row[0], row[1]): row[2]
        for row in store._rows("SELECT key, value, count(DISTINCT file_id) FROM labels GROUP BY key, value")
    }
    found = [LabelCount(key, value, files[key, value], by) for (key, value), by in sources.items()]
    return sorted(found, key=lambda count: (count.key, -count.files, count.value))


def given_labels(store: Store, key: str) -> dict[int, list[str]]:
    """Return the values of `key` that were given, not predicted, of every file that has some: {file id: [values]}."""
    rows = store._rows(
        f"SELECT DISTINCT file_id, value FROM labels WHERE key = ? AND NOT {_IS_PREDICTED}"  # noqa: S608
        " ORDER BY file_id, value",
        (key,),
    )
    found: dict[int, list[str]] = {}
    for file_id, value in rows:
        found.setdefault(file_id, []).append(value)
    return found


def has_given(store: Store, file_id: int, key: str) -> bool:
    """Return whether a file was given a value of `key`, as opposed to a predicted one."""
    sql = f"SELECT 1 FROM labels WHERE file_id = ? AND key = ? AND NOT {_IS_PREDICTED} LIMIT 1"  # noqa: S608
    return store._row(sql, (file_id, key)) is not None


def all_labels(store: Store) -> Iterator[tuple[bytes, Label]]:
    """Yield (path, label) of all labels, by path. Streams."""
    for path, key, value, source, confidence in store._stream(
        "SELECT files.path, key, value, source, confidence FROM labels JOIN files ON files.id = labels.file_id"
        " ORDER BY files.path, key, confidence DESC, value, source"
    ):
        yield path, Label(key, value, source, confidence)


def file_id_of(store: Store, path: bytes) -> int | None:
    """Return the id of the file with exactly that path, or None."""
    row = store._row("SELECT id FROM files WHERE path = ?", (path,))
    return None if row is None else int(row[0])


def label_imports(store: Store) -> list[LabelImport]:
    """Return the imports that were not undone, the latest first."""
    rows = store._rows(
        "SELECT id, source, detail, made_at, (SELECT count(*) FROM labels WHERE import_id = label_imports.id)"
        " FROM label_imports ORDER BY id DESC"
    )
    return [LabelImport(*row) for row in rows]


def add_import(store: StoreWriter, source: str, detail: str, labels: Iterable[FileLabel]) -> tuple[int, int]:
    """Add labels as one import that can be undone; return (its number, how many labels were new).

    A label that is there from the same source stays with the import that brought it. Predictions of a key leave the
    files that are given a label for it.
    """
    with store.transaction():
        cursor = store._do(
            "INSERT INTO label_imports (source, detail, made_at) VALUES (?, ?, ?)",
            (source, detail.encode("utf-8", "replace").decode(), now()),
        )
        number = int(cursor.lastrowid or 0)
        added = 0
        for file_label in labels:
            added += _insert(store, file_label, number)
        if not added:
            store._do("DELETE FROM label_imports WHERE id = ?", (number,))
            number = 0
    return number, added


def _insert(store: StoreWriter, file_label: FileLabel, import_id: int | None) -> int:
    label = file_label.label
    if not is_predicted(label.source):
        _drop(store, file_label.file_id, label.key, None, _IS_PREDICTED)
    cursor = store._do(
        "INSERT INTO labels (file_id, key, value, source, confidence, added_at, import_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (file_label.file_id, label.key, label.value, label.source, float(label.confidence), now(), import_id),
    )
    return max(0, cursor.rowcount)


def _drop(store: StoreWriter, file_id: int, key: str, value: str | None, condition: str = "1") -> int:
    sql = f"DELETE FROM labels WHERE file_id = ? AND key = ? AND {condition}"  # noqa: S608 - conditions are ours
    if value is None:
        return max(0, store._do(sql, (file_id, key)).rowcount)
    return max(0, store._do(f"{sql} AND value = ? COLLATE NOCASE", (file_id, key, value)).rowcount)


def undo_import(store: StoreWriter, number: int | None = None) -> LabelImport:
    """Remove the labels that an import brought, and the import; the last one unless a number is given.

    Raises:
        QueryError: there is no such import.
    """
    with store.transaction():
        known = label_imports(store)
        chosen = next((one for one in known if number in (None, one.id)), None)
        if chosen is None:
            what = "nothing was imported" if not known else f"there is no import {number}"
            raise QueryError(f"{what}; `embedindex label imports` lists what can be undone")
        store._do("DELETE FROM labels WHERE import_id = ?", (chosen.id,))
        store._do("DELETE FROM label_imports WHERE id = ?", (chosen.id,))
    return chosen


def set_labels(store: StoreWriter, file_ids: Iterable[int], pairs: Iterable[tuple[str, str]], *, add: bool) -> int:
    """Give files these (key, value) pairs, by hand; return how many labels were written.

    Args:
        store: the index.
        file_ids: which files.
        pairs: what they are.
        add: keep the other values of these keys that were given; otherwise they go, whatever their source.
    """
    wanted = list(dict.fromkeys(pairs))
    written = 0
    with store.transaction():
        for file_id in file_ids:
            for key in {key for key, _ in wanted} if not add else ():
                _drop(store, file_id, key, None)
            for key, value in wanted:
                written += _insert(store, FileLabel(file_id, Label(key, value, HUMAN, 1.0)), None)
    return written


def remove_labels(
    store: StoreWriter, file_ids: Iterable[int], pairs: Iterable[tuple[str, str | None]], source: str | None = None
) -> int:
    """Remove labels from files and return how many; a pair without value means all values of the key.

    Args:
        store: the index.
        file_ids: which files.
        pairs: (key, value or None).
        source: only labels of this source (``predicted`` stands for all methods); None for any.
    """
    wanted = list(pairs)
    removed = 0
    with store.transaction():
        for file_id in file_ids:
            for key, value in wanted:
                before = store._rows("SELECT value, source FROM labels WHERE file_id = ? AND key = ?", (file_id, key))
                for found, found_source in before:
                    meant = value is None or found.casefold() == value.casefold()
                    if meant and source in (None, found_source, found_source.partition(":")[0]):
                        store._do(
                            "DELETE FROM labels WHERE file_id = ? AND key = ? AND value = ? AND source = ?",
                            (file_id, key, found, found_source),
                        )
                        removed += 1
    return removed


def put_predictions(
    store: StoreWriter, key: str, method: str, detail: str, predictions: Iterable[tuple[int, list[tuple[str, float]]]]
) -> tuple[int, int]:
    """Replace what was predicted of `key` for some files; return (number of the import, files that have one now).

    Files that were given a label for the key keep it and get no prediction.

    Args:
        store: the index.
        key: what was predicted.
        method: by which method.
        detail: what was asked for, in words.
        predictions: (file id, [(value, confidence)]); an empty list only takes the earlier prediction away.
    """
    source = f"{PREDICTED}:{method}"
    with store.transaction():
        given = given_labels(store, key)
        kept: list[FileLabel] = []
        for file_id, values in predictions:
            _drop(store, file_id, key, None, _IS_PREDICTED)
            if file_id not in given:
                kept += [FileLabel(file_id, Label(key, value, source, sure)) for value, sure in values]
        number, _ = add_import(store, source, detail, kept)
        # Imports of predictions that this one replaced whole are nothing that could still be undone.
        store._do(
            f"DELETE FROM label_imports WHERE {_IS_PREDICTED} AND id <> ? AND NOT EXISTS"  # noqa: S608
            " (SELECT 1 FROM labels WHERE import_id = label_imports.id)",
            (number,),
        )
    return number, len({one.file_id for one in kept})
