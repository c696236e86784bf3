"""``embedindex label``: import labels, set, remove, list and export them, undo an import."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import amount, print_json, print_line, print_table, say
from embedindex.cli.filter_options import GlobOption
from embedindex.cli.label_show import KeyOption, SourceOption, export_labels, list_imports, list_labels
from embedindex.cli.options import IndexOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from embedindex.label_import import Found
    from embedindex.store import Store
    from embedindex.writer import StoreWriter

# A scan holds the index only while it runs; a short wait spares people an error at its last moment.
WAIT_S = 2.0
TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE… KEY=VALUE…", help="Files or folders of the index, and labels, in any order."),
]


def register(app: typer.Typer) -> None:
    """Add the command and its sub-commands."""
    label = typer.Typer(help="Labels, KEY=VALUE: import, set, remove, list, export, undo.", no_args_is_help=True)
    label.command("import")(import_labels)
    label.command("set")(set_labels)
    label.command("remove")(remove_labels)
    label.command("list")(list_labels)
    label.command("export")(export_labels)
    label.command("imports")(list_imports)
    label.command("undo")(undo)
    app.add_typer(label, name="label")


def _writer(index: str | None) -> StoreWriter:
    from embedindex.locations import index_folder
    from embedindex.store import Store
    from embedindex.writer import StoreWriter

    folder = index_folder(index)
    Store(folder).close()  # says so when there is none, instead of making one
    return StoreWriter(folder, wait_s=WAIT_S)


def import_labels(
    file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[FILE]", help="CSV with the header path,KEY[,KEY…], or JSON.", show_default=False),
    ] = None,
    index: IndexOption = None,
    from_folders: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--from-folders",
            metavar="DEPTH",
            help="Take folder names: 1 the folder below the scanned one, 2 the next; -1 the file's own folder.",
        ),
    ] = None,
    from_tags: Annotated[bool, typer.Option("--from-tags", help="Take the genre in the files' own tags.")] = False,
    pattern: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--pattern",
            metavar="REGEX",
            help="Take what this finds in the path: '(?P<drum>kick|snare)', or one group and --key.",
        ),
    ] = None,
    key: KeyOption = None,
    value: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--value", metavar="VALUE", help="With --pattern and --key: write this where it matches."),
    ] = None,
    path: GlobOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, write nothing.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take labels from a CSV or JSON file, folder names, the files' tags, or a pattern; `label undo` takes them back.

    Example: embedindex label import --from-folders 1 --key genre
    """
    from embedindex.errors import QueryError, UsageError
    from embedindex.label_store import add_import

    if sum((file is not None, from_folders is not None, from_tags, pattern is not None)) != 1:
        raise UsageError("label import takes one of: a FILE, --from-folders DEPTH, --from-tags, --pattern REGEX")
    if value is not None and pattern is None:
        raise UsageError("--value goes with --pattern")
    if file is not None and (key is not None or path is not None):
        raise UsageError("--key and --path do not go with a file, whose header names the keys")
    with _writer(index) as store:
        found, source, detail = _find(store, file, from_folders, from_tags, pattern, key, value, path)
        number, added = (None, 0) if dry_run else add_import(store, source, detail, found.labels)
    values: dict[tuple[str, str], int] = {}
    for one in found.labels:
        pair = (one.label.key, one.label.value)
        values[pair] = values.get(pair, 0) + 1
    files = len({one.file_id for one in found.labels})
    if json:
        print_json(
            {
                "import": number or None,
                "source": source,
                "files": files,
                "labels": len(found.labels),
                "added": added,
                "unknown_paths": found.unknown,
                "values": [
                    {"key": name, "value": text, "files": count} for (name, text), count in sorted(values.items())
                ],
                "notes": found.notes,
            }
        )
        return
    for note in found.notes:
        say(f"embedindex: {note}")
    if found.unknown:
        say(f"embedindex: {amount(found.unknown, 'row')} named no file of the index")
    if not found.labels:
        raise QueryError(f"no labels found ({detail}); nothing was changed")
    if dry_run:
        print_table(("label", "files"), [(f"{k}={v}", f"{n:,}") for (k, v), n in sorted(values.items())], right=(1,))
    if not quiet:
        what = "would be looked at" if dry_run else f"new of {len(found.labels):,} found"
        count = len(found.labels) if dry_run else added
        undo_hint = f" (import {number}; `embedindex label undo` takes it back)" if number else ""
        print_line(f"{amount(count, 'label')} {what}, on {amount(files, 'file')}{undo_hint}.")


def _find(
    store: Store,
    file: str | None,
    from_folders: int | None,
    from_tags: bool,
    pattern: str | None,
    key: str | None,
    value: str | None,
    path: str | None,
) -> tuple[Found, str, str]:
    """Return what an import finds, the labels' source, and the import in words."""
    from embedindex import label_import as importing
    from embedindex.errors import display_path
    from embedindex.labels import clean_key
    from embedindex.search import Filters

    if file is not None:
        return importing.from_file(store, file), "file", display_path(os.path.abspath(file))
    name = clean_key(key) if key is not None else None
    where, values = Filters(path=path).sql(missing=True)
    records = store.files(where, values)
    if from_folders is not None:
        found = importing.from_folders(store, records, from_folders, name or "genre")
        return found, "folders", f"--from-folders {from_folders} --key {name or 'genre'}"
    if from_tags:
        return importing.from_tags(records, name or "genre"), "tags", f"--from-tags --key {name or 'genre'}"
    words = f"--pattern {pattern}" + (f" --key {name}" if name else "") + (f" --value {value}" if value else "")
    return importing.from_pattern(records, pattern or "", name, value), "pattern", words


def _targets(store: Store, arguments: Iterable[str], *, values: bool) -> tuple[list[int], list[tuple[str, str | None]]]:
    """Return (file ids, (key, value) pairs) of mixed arguments; what is a file of the index is one.

    Args:
        store: the index.
        arguments: files, folders, ``KEY=VALUE`` and, unless `values`, plain ``KEY``.
        values: every label must have a value.
    """
    from embedindex.archives import exists
    from embedindex.crawl import absolute_path
    from embedindex.errors import PathNotFoundError, UsageError, display_path
    from embedindex.labels import clean_key, parse_pair

    ids: list[int] = []
    pairs: list[tuple[str, str | None]] = []
    for argument in arguments:
        below = [row[0] for row in store.paths_below(absolute_path(os.fsencode(argument)))]
        if below:
            ids += below
        elif exists(argument) or os.sep in argument.partition("=")[0]:
            raise PathNotFoundError(f"{display_path(argument)}: is not in the index; `embedindex scan` it first")
        elif "=" in argument:
            pairs.append(parse_pair(argument))
        elif not values and "." not in argument:
            pairs.append((clean_key(argument), None))
        else:
            raise PathNotFoundError(
                f"{display_path(argument)}: is neither a file of the index nor a label KEY=VALUE; give both, for "
                "example: song.mp3 genre=ambient"
            )
    if not pairs:
        raise UsageError("name a label, KEY=VALUE, for example genre=ambient")
    return list(dict.fromkeys(ids)), pairs


def set_labels(
    targets: TargetsArgument,
    index: IndexOption = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the other values of the key.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Set labels of files by hand. Other values of the same key go, unless --add; several at once are all kept.

    Example: embedindex label set song.mp3 genre=ambient genre=drone mood=dark
    """
    from embedindex.errors import UsageError
    from embedindex.label_store import set_labels as write

    with _writer(index) as store:
        ids, pairs = _targets(store, targets, values=True)
        if not ids:
            raise UsageError("name the files or folders that are to get the label")
        written = write(store, ids, [(key, value) for key, value in pairs if value is not None], add=add)
    if not quiet:
        print_line(f"{amount(written, 'label')} set on {amount(len(ids), 'file')}.")


def remove_labels(
    targets: TargetsArgument,
    index: IndexOption = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Of all files of the index.")] = False,
    source: SourceOption = None,
    quiet: QuietOption = False,
) -> None:
    """Remove labels of files: KEY=VALUE, or KEY for all its values.

    Example: embedindex label remove --everywhere genre --source predicted
    """
    from embedindex.errors import UsageError
    from embedindex.label_store import remove_labels as remove

    with _writer(index) as store:
        ids, pairs = _targets(store, targets, values=False)
        if everywhere == bool(ids):
            raise UsageError("name the files or folders whose labels are to go, or --everywhere")
        if everywhere:
            ids = [record.id for record in store.files()]
        removed = remove(store, ids, pairs, source)
    if not quiet:
        print_line(f"{amount(removed, 'label')} removed.")


def undo(
    number: Annotated[
        Optional[int],  # noqa: UP045
        typer.Argument(metavar="[IMPORT]", help="Which import (default: the last).", show_default=False),
    ] = None,
    index: IndexOption = None,
    quiet: QuietOption = False,
) -> None:
    """Take back an import: the labels that it brought go, all others stay.

    Example: embedindex label undo
    """
    from embedindex.label_store import undo_import

    with _writer(index) as store:
        undone = undo_import(store, number)
    if not quiet:
        print_line(f"Import {undone.id} ({undone.source}) undone: {amount(undone.labels, 'label')} removed.")
