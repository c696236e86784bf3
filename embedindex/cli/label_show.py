"""The parts of ``embedindex label`` that only show: ``list``, ``export`` and ``imports``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import print_csv, print_json, print_table
from embedindex.cli.options import CsvOption, IndexOption, JsonOption, one_format

if TYPE_CHECKING:
    from embedindex.records import Label

KeyOption = Annotated[
    Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
    typer.Option("--key", metavar="KEY", help="The labels' key: genre, instrument, mood, anything."),
]
SourceOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Only labels from there: human, folders, tags, pattern, file, predicted."),
]


def list_labels(
    files: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[FILE]…", help="Show the labels of these files or folders.", show_default=False),
    ] = None,
    index: IndexOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
) -> None:
    """List all labels with their numbers of files; of some files, what each is labelled, by whom, how surely.

    Example: embedindex label list --key genre
    """
    from embedindex.crawl import absolute_path
    from embedindex.errors import PathNotFoundError, display_path
    from embedindex.label_store import label_counts
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv)
    wanted = None if key is None else clean_key(key)
    with Store(index_folder(index)) as store:
        if not files:
            counts = [count for count in label_counts(store) if wanted in (None, count.key)]
        else:
            rows = []
            for name in files:
                below = list(store.paths_below(absolute_path(os.fsencode(name))))
                if not below:
                    raise PathNotFoundError(
                        f"{display_path(name)}: is not in the index; `embedindex list` shows what is"
                    )
                for file_id, path, _, _ in below:
                    labels = store.labels_of([file_id]).get(file_id, [])
                    rows.append((path, [label for label in labels if wanted in (None, label.key)]))
    if not files:
        _print_counts(kind, [(count.key, count.value, count.files, count.sources) for count in counts])
        return
    flat = [(path, label) for path, labels in rows for label in labels]
    if kind == "json":
        print_json([_file_json(path, labels) for path, labels in rows])
    elif kind == "csv":
        _print_export(
            (os.fsdecode(path), one.key, one.value, one.source, f"{one.confidence:.4g}") for path, one in flat
        )
    else:
        print_table(
            ("file", "label", "source", "confidence"),
            [(display_path(path), f"{one.key}={one.value}", one.source, f"{one.confidence:.2f}") for path, one in flat],
            right=(3,),
        )


def _file_json(path: bytes, labels: list[Any]) -> dict[str, Any]:
    from embedindex.search import path_to_json

    shown = [{"key": one.key, "value": one.value, "source": one.source, "confidence": one.confidence} for one in labels]
    return {**path_to_json(path), "labels": shown}


def _print_counts(kind: str | None, counts: list[tuple[str, str, int, dict[str, int]]]) -> None:
    if kind == "json":
        print_json([{"key": k, "value": v, "files": n, "sources": sources} for k, v, n, sources in counts])
    elif kind == "csv":
        print_csv(("key", "value", "files"), ((k, v, n) for k, v, n, _ in counts))
    else:
        rows = [
            (f"{k}={v}", f"{n:,}", ", ".join(f"{name} {count:,}" for name, count in sorted(sources.items())))
            for k, v, n, sources in counts
        ]
        print_table(("label", "files", "from"), rows, right=(1,))


def _export_row(path: bytes, label: Label) -> tuple[str, ...]:
    return os.fsdecode(path), label.key, label.value, label.source, f"{label.confidence:.6g}"


def _print_export(rows: Iterable[tuple[str, ...]]) -> None:
    from embedindex.label_import import EXPORT_COLUMNS

    print_csv(EXPORT_COLUMNS, rows)


def export_labels(
    index: IndexOption = None,
    key: KeyOption = None,
    source: SourceOption = None,
    json: JsonOption = False,
) -> None:
    """Print all labels as CSV (or JSON), a label a line, for `label import` here or on another machine.

    Example: embedindex label export > labels.csv
    """
    from embedindex.label_store import all_labels
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.search import path_to_json
    from embedindex.store import Store

    wanted = None if key is None else clean_key(key)
    with Store(index_folder(index)) as store:
        chosen = (
            (path, label)
            for path, label in all_labels(store)
            if wanted in (None, label.key) and source in (None, label.source, label.source.partition(":")[0])
        )
        if json:
            print_json(
                [
                    {
                        **path_to_json(path),
                        "key": label.key,
                        "value": label.value,
                        "source": label.source,
                        "confidence": label.confidence,
                    }
                    for path, label in chosen
                ]
            )
        else:
            _print_export(_export_row(path, label) for path, label in chosen)


def list_imports(index: IndexOption = None, json: JsonOption = False) -> None:
    """List the imports that can be undone, the latest first.

    Example: embedindex label imports
    """
    from dataclasses import asdict

    from embedindex.errors import display_path
    from embedindex.label_store import label_imports
    from embedindex.locations import index_folder
    from embedindex.store import Store

    with Store(index_folder(index)) as store:
        imports = label_imports(store)
    if json:
        print_json([asdict(one) for one in imports])
        return
    print_table(
        ("import", "when", "from", "labels", "what"),
        [(str(one.id), one.made_at, one.source, f"{one.labels:,}", display_path(one.detail)) for one in imports],
        right=(0, 3),
    )
