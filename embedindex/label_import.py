"""Where labels come from: folder names, the files' own tags, a regular expression on the path, CSV and JSON files.

Each function only reads and returns the labels found as `FileLabel`s; `embedindex.label_store.add_import` writes them.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from embedindex.crawl import SEPARATOR, absolute_path, joined_path
from embedindex.errors import PathNotFoundError, UsageError, display_path
from embedindex.label_store import FileLabel, file_id_of
from embedindex.labels import MAX_TEXT, clean_key, clean_text, clean_value, genres_of_tag
from embedindex.records import FileRecord, Label
from embedindex.remote_paths import is_remote
from embedindex.store import Store

PATH_COLUMNS = ("path", "file", "filename")
NOTES_KEPT = 20
# The columns of `label export`, one label a row.
EXPORT_COLUMNS = ("path", "key", "value", "source", "confidence")


@dataclass
class Found:
    """What an import found.

    Attributes:
        labels: the labels.
        unknown: how many rows named a file that is not in the index.
        notes: the first few problems, one line each.
    """

    labels: list[FileLabel] = field(default_factory=list)
    unknown: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a remark, unless there are many already."""
        if len(self.notes) < NOTES_KEPT:
            self.notes.append(text)


def from_folders(store: Store, files: Iterable[FileRecord], depth: int, key: str) -> Found:
    """Take the name of a folder on the way to each file.

    Args:
        store: the index.
        files: which files.
        depth: 1 is the folder just below the scanned one, 2 the next…; -1 the folder that holds the file, -2 the one
            above it… Files that have no such folder below the scanned one are left out.
        key: the labels' key.

    Raises:
        UsageError: `depth` is 0.
    """
    if depth == 0:
        raise UsageError("--from-folders 0 names no folder: 1 is the first below the scanned one, -1 the file's own")
    roots = {root_id: path for root_id, path, _ in store.roots()}
    found = Found()
    for record in files:
        root = roots[record.root_id].rstrip(SEPARATOR)
        folders = record.path[len(root) :].strip(SEPARATOR).split(SEPARATOR)[:-1]
        place = depth - 1 if depth > 0 else depth
        if -len(folders) <= place < len(folders):
            _add(found, record.id, key, os.fsdecode(folders[place]), "folders")
    return found


def from_tags(files: Iterable[FileRecord], key: str = "genre") -> Found:
    """Take the genres that the files' own tags name, in one spelling."""
    found = Found()
    for record in files:
        for genre in genres_of_tag(record.genre or ""):
            _add(found, record.id, key, genre, "tags")
    return found


def from_pattern(files: Iterable[FileRecord], pattern: str, key: str | None, value: str | None) -> Found:
    r"""Take what a regular expression finds in the path.

    Args:
        files: which files.
        pattern: searched in the whole path. Named groups are keys: ``(?P<drum>kick|snare)``. A pattern with one plain
            group needs `key`, one without groups `key` and `value`.
        key: the labels' key.
        value: what to write where the pattern matches; None for what its group matched.

    Raises:
        UsageError: the pattern is not valid, or does not fit `key` and `value`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--pattern {pattern}: {error}; write a Python regular expression") from error
    keys = {clean_key(name): name for name in compiled.groupindex}
    if value is not None and key is None:
        raise UsageError("--value goes with --key KEY: which label to write where the pattern matches")
    if value is None and not keys and (compiled.groups != 1 or key is None):
        raise UsageError(
            "--pattern needs named groups, which are keys: '(?P<drum>kick|snare)'; or one group and --key; "
            "or --key and --value"
        )
    found = Found()
    for record in files:
        match = compiled.search(record.text_path)
        if match is None:
            continue
        if value is not None and key is not None:
            _add(found, record.id, key, value, "pattern")
        elif keys:
            for name, group in keys.items():
                _add(found, record.id, name, match.group(group) or "", "pattern")
        elif key is not None:
            _add(found, record.id, key, match.group(1) or "", "pattern")
    return found


def _add(found: Found, file_id: int, key: str, text: str, source: str) -> None:
    value = clean_text(text)
    if len(value) > MAX_TEXT:
        found.note(f"left out, longer than {MAX_TEXT} characters: {value[:40]}…")
    elif value:
        found.labels.append(FileLabel(file_id, Label(key, value, source, 1.0)))


def from_file(store: Store, path: str) -> Found:
    """Read a CSV or JSON file of labels.

    CSV has a header ``path,KEY[,KEY…]`` and a row for each file, several values of a key in one cell separated by
    ``;``; or is what `label export` writes. JSON is an array of ``{"path": …, KEY: value or [values]}``, what `label
    export --json` or `list --json` print, or an object ``{path: {KEY: value or [values]}}``. Paths are absolute,
    or relative to that file's folder, to a scanned folder or to the working folder, whichever is in the index.

    Raises:
        PathNotFoundError: there is no such file.
        UsageError: it is not of that form.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise PathNotFoundError(
            f"{display_path(path)}: cannot be read ({error.strerror}); give a CSV or JSON file of labels"
        ) from error
    text = content.decode("utf-8-sig", "surrogateescape")
    as_json = path.lower().endswith(".json") or (not path.lower().endswith(".csv") and text.lstrip()[:1] in ("[", "{"))
    rows = _json_rows(path, text) if as_json else _csv_rows(path, text)
    found = Found()
    lookup = _Lookup(store, os.path.dirname(os.path.abspath(path)))
    for where, file_path, labels in rows:
        file_id = lookup.file_id(file_path)
        if file_id is None:
            found.unknown += 1
            found.note(f"{where}: {display_path(file_path)} is not in the index")
            continue
        for label in labels:
            found.labels.append(FileLabel(file_id, label))
    return found


class _Lookup:
    """Finds the files that an import names."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folders = [os.fsencode(folder), *(path for _, path, _ in store.roots()), os.fsencode(os.getcwd())]

    def file_id(self, path: bytes) -> int | None:
        """Return the id of the file that `path` means; None where the index has no such file."""
        for spelling in dict.fromkeys((path, _readable(os.fsdecode(path)).encode("utf-8", "surrogateescape"))):
            for folder in self._folders:
                found = file_id_of(self._store, _below(folder, spelling))
                if found is not None:
                    return found
        return None


def _below(folder: bytes, path: bytes) -> bytes:
    """Return the path that is meant by one relative to a folder; an absolute one, or an URL, is itself."""
    if is_remote(path):
        return absolute_path(path)
    return joined_path(folder, path)


_Row = tuple[str, bytes, list[Label]]


def _csv_rows(path: str, text: str) -> Iterator[_Row]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [clean_text(cell).lower() for cell in next(reader, [])]
        column = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
        if column is None or len(header) < 2:
            raise UsageError(f"{display_path(path)}: the first line must be path,KEY[,KEY…], for example path,genre")
        exported = {"key", "value"} <= set(header)
        keys = {} if exported else {place: clean_key(name) for place, name in enumerate(header) if place != column}
        for row in reader:
            where = f"{display_path(path)}, line {reader.line_num}"
            if not any(map(str.strip, row)):
                continue
            if len(row) > len(header):
                raise UsageError(
                    f"{where}: {len(row)} cells under {len(header)} titles; put cells that hold {delimiter!r} in quotes"
                )
            cells = row + [""] * (len(header) - len(row))
            if exported:
                yield where, _csv_path(cells[column]), _exported(where, dict(zip(header, cells, strict=True)))
            else:
                labels = [
                    _label(where, key, part) for place, key in keys.items() for part in _parts(cells[place], delimiter)
                ]
                yield where, _csv_path(cells[column]), labels
    except csv.Error as error:
        raise UsageError(f"{display_path(path)}, line {reader.line_num}: {error}; it is no proper CSV") from error


def _readable(text: str) -> str:
    """Return text of a file that was no UTF-8 as the Windows code page 1252, in which spreadsheets save it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def _csv_path(cell: str) -> bytes:
    return os.fsencode(cell)


def _parts(cell: str, delimiter: str) -> list[str]:
    return [part for part in (cell.split(";") if delimiter != ";" else [cell]) if clean_text(part)]


def _label(where: str, key: str, value: str, source: str = "file", confidence: float = 1.0) -> Label:
    try:
        return Label(key, clean_value(_readable(value)), source, confidence)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _exported(where: str, row: dict[str, Any]) -> list[Label]:
    """Return the label of one row of an export: it keeps source and confidence."""
    if not clean_text(str(row["value"])):
        return []
    try:
        given = row.get("confidence")
        confidence = 1.0 if given in (None, "") else float(str(given))
        if not 0.0 <= confidence <= 1.0:
            raise ValueError
    except ValueError:
        raise UsageError(f"{where}: the confidence {row.get('confidence')!r} is not a number from 0 to 1") from None
    source = clean_text(str(row.get("source") or "")) or "file"
    return [_label(where, clean_key(str(row["key"])), str(row["value"]), source, confidence)]


def _json_rows(path: str, text: str) -> Iterator[_Row]:
    shape = 'an array of {"path": …, "genre": …}, or an object {path: {"genre": …}}'
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{display_path(path)}: is no JSON ({error}); give {shape}") from error
    if isinstance(data, dict):
        data = [{"path": name, "labels": labels} for name, labels in data.items()]
    if not isinstance(data, list):
        raise UsageError(f"{display_path(path)}: give {shape}")
    for number, entry in enumerate(data, 1):
        where = f"{display_path(path)}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise UsageError(f"{where}: has no path; give {shape}")
        yield where, _json_path(where, entry), _json_labels(where, entry)


def _json_path(where: str, entry: dict[str, Any]) -> bytes:
    encoded = entry.get("path_base64")
    if not isinstance(encoded, str):
        return os.fsencode(entry["path"])
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"{where}: path_base64 is no base64 ({error})") from error


def _json_labels(where: str, entry: dict[str, Any]) -> list[Label]:
    if isinstance(entry.get("key"), str) and "value" in entry:
        return _exported(where, entry)
    labels = entry.get("labels", {key: value for key, value in entry.items() if key not in ("path", "path_base64")})
    if not isinstance(labels, dict):
        raise UsageError(f"{where}: its labels are no object of keys and values")
    found = []
    for key, values in labels.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, (dict, list)):
                raise UsageError(f"{where}: the value of {key!r} is no text")
            if value is not None and clean_text(str(value)):
                found.append(_label(where, clean_key(key), str(value)))
    return found
