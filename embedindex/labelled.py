"""The labelled files of an index as learners see them: stretches, classes, and groups that belong together.

Conventions: ``n`` files, ``C`` classes; values that mean the same (`embedindex.labels.same`) are one class, under the
spelling that most files have. Only given labels count, predicted ones never do.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Int64Array
from embedindex.errors import QueryError, UsageError, display_path
from embedindex.label_store import given_labels
from embedindex.labels import clean_key, same
from embedindex.likeness import FileSet, join, load_files, stretches_for
from embedindex.records import FileRecord
from embedindex.space import Space
from embedindex.store import Store

GROUPS = ("folder", "album", "artist")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled files.

    Attributes:
        files: their stretches.
        records: their rows in the database, in the same order.
        classes: the values, by spelling.
        truth: (n, C) bool, which values each file has.
        groups: (n,) int64 from 0: files that belong together, so that one must not be judged by another.
    """

    files: FileSet
    records: tuple[FileRecord, ...]
    classes: tuple[str, ...]
    truth: BoolArray
    groups: Int64Array

    def __len__(self) -> int:
        return len(self.records)

    def take(self, numbers: Int64Array) -> Labelled:
        """Return the files with these numbers, with groups numbered anew."""
        return Labelled(
            self.files.take(numbers),
            tuple(self.records[number] for number in numbers),
            self.classes,
            self.truth[numbers],
            np.unique(self.groups[numbers], return_inverse=True)[1].astype(np.int64),
        )

    def grouped(self) -> bool:
        """Return whether judging across groups is possible: any file's label occurs in another group too."""
        return bool(self.judgeable(self.groups).any())

    def sources(self, split: Int64Array) -> Int64Array:
        """Return (n,) which files are one witness: a group where a split (n,) keeps it together, else each file."""
        together = all(len(np.unique(split[self.groups == group])) == 1 for group in np.unique(self.groups))
        return self.groups if together else np.arange(len(self), dtype=np.int64)

    def judgeable(self, groups: Int64Array) -> BoolArray:
        """Return (n,) whether a label of the file occurs in another group than its own."""
        count = int(groups.max(initial=-1)) + 1
        inside = np.zeros((count, len(self.classes)), np.int64)
        np.add.at(inside, groups, self.truth.astype(np.int64))
        elsewhere = self.truth.sum(axis=0)[None, :] > inside[groups]
        return np.asarray((self.truth & elsewhere).any(axis=1), np.bool_)


def load_labelled(
    store: Store,
    space: Space,
    key: str,
    group: str,
    *,
    limit: int,
    queries: tuple[int, float] | None = None,
    seed: int = 0,
) -> Labelled:
    """Return the files that were given a label of `key` and sound.

    Args:
        store: the index.
        space: its space.
        key: of the labels.
        group: ``folder``, ``album``, ``artist``, or another key of labels.
        limit: of more files than this, so many are drawn at random.
        queries: how many files they will be compared with, and the mean number of windows of these; None: with
            themselves. The more there is to compare, the fewer stretches files are cut into.
        seed: of the draw.

    Raises:
        QueryError: there are no such files, or they all have the same label.
    """
    given = given_labels(store, key)
    if not given:
        raise QueryError(
            f"{display_path(store.folder)}: no file has a label {key}=…; make some with `embedindex label import` or "
            f"`label set FILE {key}=VALUE`"
        )
    records = [
        record
        for record in store.files(
            "status = 'ok' AND missing_since IS NULL"
            " AND EXISTS (SELECT 1 FROM labels WHERE labels.file_id = files.id AND key = ?)",
            (key,),
        )
        if record.id in given
    ]
    if len(records) > limit:
        drawn = np.random.default_rng(seed).choice(len(records), limit, replace=False)
        records = [records[number] for number in np.sort(drawn)]
    windows = float(np.mean([record.n_windows for record in records])) if records else 0.0
    stretches = stretches_for(
        windows, queries[1] if queries else windows, len(records), (queries or (len(records),))[0]
    )
    sets = list(load_files(store, records, space, stretches))
    if not sets:
        raise QueryError(f"no file with a label {key}=… has any sound; `embedindex errors` may say why")
    files = join(sets)
    by_id = {record.id: record for record in records}
    kept = tuple(by_id[int(file_id)] for file_id in files.ids)
    classes, truth = class_table(key, [given[record.id] for record in kept])
    if len(classes) < 2:
        raise QueryError(f"all labelled files have {key}={classes[0]}; at least two different values are needed")
    return Labelled(files, kept, classes, truth, group_numbers(store, kept, group))


def class_table(key: str, values: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], BoolArray]:
    """Return (the classes, sorted; (n, C) which file has which) of files' values; one class per meaning."""
    spellings: dict[str, Counter[str]] = {}
    for some in values:
        for value in some:
            spellings.setdefault(same(key, value), Counter())[value] += 1
    shown = {meaning: min(counts, key=lambda name: (-counts[name], name)) for meaning, counts in spellings.items()}
    meanings = sorted(shown, key=lambda meaning: shown[meaning])
    column = {meaning: number for number, meaning in enumerate(meanings)}
    truth = np.zeros((len(values), len(meanings)), bool)
    for row, some in enumerate(values):
        for value in some:
            truth[row, column[same(key, value)]] = True
    return tuple(shown[meaning] for meaning in meanings), truth


def group_numbers(store: Store, records: Sequence[FileRecord], group: str) -> Int64Array:
    """Return (n,) the number of each file's group; a file that has no album, artist or label counts by its folder.

    Raises:
        UsageError: `group` is neither ``folder``, ``album``, ``artist`` nor the key of any label.
    """
    labels: Mapping[int, list[str]] = {}
    if group not in GROUPS:
        labels = given_labels(store, clean_key(group))
        if not labels:
            raise UsageError(f"--group {group}: choose folder, album, artist, or the key of labels that are there")
    names: list[tuple[str, ...]] = []
    for record in records:
        folder = ("folder", os.path.dirname(record.text_path))
        if group == "album" and record.album:
            names.append(("album", same("album", record.album), same("artist", record.artist or "")))
        elif group == "artist" and record.artist:
            names.append(("artist", same("artist", record.artist)))
        elif record.id in labels:
            names.append(("label", *sorted(same(group, value) for value in labels[record.id])))
        else:
            names.append(folder)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def metadata_rows(records: Sequence[FileRecord]) -> Float32Array:
    """Return (n, columns) what can be known of files without listening, standardised, rows of length 1.

    Duration, sample rate, channels, peak and format: the control that every model must clearly beat, because files of
    one origin share these.
    """
    columns = [
        [float(np.log(max(record.duration or 0.0, 1e-4))) for record in records],
        [float(record.sample_rate or 0) for record in records],
        [float(record.channels or 0) for record in records],
        [float(np.log(max(record.peak or 0.0, 1e-6))) for record in records],
    ]
    for kind in sorted({(record.container or "", record.codec or "") for record in records}):
        columns.append([float((record.container or "", record.codec or "") == kind) for record in records])
    rows = np.array(columns).T
    rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-9)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
