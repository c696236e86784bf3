"""``embedindex info``, ``list`` and ``errors``: what an index holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import (
    amount,
    clock,
    print_csv,
    print_json,
    print_json_array,
    print_line,
    print_paths,
    print_table,
)
from embedindex.cli.filter_options import with_filters
from embedindex.cli.options import (
    CsvOption,
    IndexOption,
    JsonOption,
    NullOption,
    PathsOption,
    one_format,
)

if TYPE_CHECKING:
    from embedindex.filters import Filters
    from embedindex.records import FileRecord
    from embedindex.store import Store


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(info)
    app.command("list")(list_files)
    app.command()(errors)


def info(index: IndexOption = None, json: JsonOption = False) -> None:
    """Show what the index holds: files, windows, hours, model, size on disk.

    Example: embedindex info
    """
    from embedindex.errors import display_path
    from embedindex.locations import index_folder
    from embedindex.store import Store

    folder = index_folder(index)
    with Store(folder) as store:
        counts, model = store.counts(), store.model()
        roots = [path for _, path, _ in store.roots()]
        last_scan = store.last_scan()
        generation = store.generation
    size = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    data: dict[str, Any] = {
        "index": folder,
        "files": counts.ok,
        "failed": counts.failed,
        "missing": counts.missing,
        "windows": counts.windows,
        "silent_windows": counts.silent_windows,
        "seconds": round(counts.seconds, 3),
        "labels": counts.labels,
        "model": None
        if model is None
        else {
            "name": model.identity.name,
            "dimension": model.identity.dimension,
            "sample_rate": model.identity.sample_rate,
            "window": model.identity.window_s,
            "hop": model.hop_s,
            "weights_sha256": model.identity.weights_sha256,
            "parameters": dict(model.identity.parameters),
        },
        "roots": [os.fsdecode(root) for root in roots],
        "last_scan": last_scan,
        "generation": generation,
        "bytes": size,
    }
    if json:
        print_json(data)
        return
    print_line(f"Index      {display_path(folder)} ({size / 1e6:,.1f} MB)")
    print_line(
        f"Files      {counts.ok:,} searchable, {counts.failed:,} unusable, {counts.missing:,} missing; "
        f"{clock(counts.seconds)} of sound"
    )
    print_line(f"Windows    {counts.windows:,}, of them {counts.silent_windows:,} silent")
    if model is not None:
        from embedindex.writer import describe_model

        print_line(f"Model      {describe_model(model.identity, model.hop_s)}, {model.identity.dimension} dimensions")
    print_line(f"Labels     {counts.labels:,}")
    for root in roots:
        print_line(f"Folder     {display_path(root)}")
    print_line(f"Last scan  {last_scan or 'never'}")


@with_filters
def list_files(
    index: IndexOption = None,
    filters: Filters | None = None,
    status: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only files that are ok, failed or missing."),
    ] = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    paths: PathsOption = False,
    null: NullOption = False,
) -> None:
    """List the files of the index, by path.

    Example: embedindex list --path 'drums/*' --json
    """
    from embedindex.errors import UsageError
    from embedindex.filters import Filters
    from embedindex.locations import index_folder
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv, paths=paths)
    if status not in (None, "ok", "failed", "missing"):
        raise UsageError(f"--status {status}: choose ok, failed or missing")
    if null and not paths:
        raise UsageError("--null goes with --paths")
    where, values = (filters or Filters()).sql(missing=True)
    with Store(index_folder(index)) as store:
        records = (record for record in store.files(where, values) if status is None or record.shown_status == status)
        if kind == "json":
            print_json_array(file_to_json(store, record) for record in records)
        elif kind == "paths":
            print_paths((record.path for record in records), null=null)
        elif kind == "csv":
            print_csv(
                (
                    "path",
                    "status",
                    "duration",
                    "windows",
                    "sample_rate",
                    "channels",
                    "artist",
                    "album",
                    "title",
                    "genre",
                    "instrument",
                ),
                (
                    (
                        record.text_path,
                        record.shown_status,
                        "" if record.duration is None else f"{record.duration:.3f}",
                        record.n_windows,
                        record.sample_rate or "",
                        record.channels or "",
                        record.artist or "",
                        record.album or "",
                        record.title or "",
                        record.genre or "",
                        record.instrument or "",
                    )
                    for record in records
                ),
            )
        else:
            from embedindex.errors import display_path

            print_table(
                ("status", "length", "windows", "file"),
                [
                    (record.shown_status, clock(record.duration), f"{record.n_windows}", display_path(record.path))
                    for record in records
                ],
                right=(1, 2),
            )


def file_to_json(store: Store, record: FileRecord) -> dict[str, Any]:
    """Return a file as ``list --json`` has it."""
    from embedindex.analysis_store import analysis_of
    from embedindex.search import labels_of, path_to_json

    analysis = analysis_of(store, record)

    return {
        **path_to_json(record.path),
        "status": record.shown_status,
        "duration": record.duration,
        "windows": record.n_windows,
        "silent_windows": record.n_silent,
        "sample_rate": record.sample_rate,
        "channels": record.channels,
        "container": record.container,
        "codec": record.codec,
        "artist": record.artist,
        "album": record.album,
        "title": record.title,
        "genre": record.genre,
        "instrument": record.instrument,
        "year": record.year,
        "bpm": analysis.bpm,
        "key": analysis.key,
        "note": record.note,
        "error": None if record.error_kind is None else {"kind": record.error_kind, "reason": record.error_reason},
        "labels": labels_of(store, record),
    }


def errors(index: IndexOption = None, json: JsonOption = False) -> None:
    """List the files that could not be used, and why; and the folders the last scan could not look into.

    Example: embedindex errors
    """
    from collections import Counter

    from embedindex.errors import display_path
    from embedindex.locations import index_folder
    from embedindex.search import path_to_json
    from embedindex.store import Store

    with Store(index_folder(index)) as store:
        failed = list(store.files("status = 'failed'"))
        unseen = store.last_unseen()
    if json:
        print_json(
            [{**path_to_json(file.path), "kind": file.error_kind, "reason": file.error_reason} for file in failed]
            + [{"path": path, "kind": "unseen", "reason": reason} for path, reason in unseen]
        )
        return
    rows = [(file.error_kind or "", display_path(file.path), file.error_reason or "") for file in failed]
    rows += [("unseen", display_path(path), reason) for path, reason in unseen]
    if not rows:
        print_line("No errors: every file found could be used.")
        return
    print_table(("kind", "file", "reason"), rows)
    kinds = Counter(kind for kind, _, _ in rows)
    from embedindex.cli.console import say

    say("; ".join(amount(count, kind, kind) for kind, count in kinds.most_common()))
