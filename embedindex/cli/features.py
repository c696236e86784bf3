"""``embedindex features``: the classic descriptors of files as CSV, for spreadsheets and other people's notebooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import amount, csv_line, progress_bar, say, write_bytes
from embedindex.cli.options import IndexOption, QuietOption

if TYPE_CHECKING:
    from embedindex.features import Kind


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(features)


def features(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Sound files, or folders of them.")],
    output: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
        typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to the terminal."),
    ] = None,
    kind: Annotated[str, typer.Option("--set", help="classic: 26 columns; rich: 134, with deviations.")] = "classic",
    window: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.0, metavar="SECONDS", help="A row for each stretch of this length, not for each file."),
    ] = None,
    duration: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.0, metavar="SECONDS", help="Only the beginning; tutorials take 30."),
    ] = None,
    key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="KEY", help="Take the label from the index, not from the folder's name."),
    ] = None,
    full_paths: Annotated[bool, typer.Option("--full-paths", help="Whole paths in the first column.")] = False,
    index: IndexOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a file could not be used.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write chroma, level, centroid, bandwidth, roll-off, zero crossings and MFCCs of files as CSV.

    Example: embedindex features genres/ --duration 30 -o data.csv
    """
    from embedindex.errors import AudioError, UsageError, display_path
    from embedindex.features import columns
    from embedindex.features import features as rows_of

    if kind not in ("classic", "rich"):
        raise UsageError(f"--set {kind}: choose classic or rich")
    chosen: Kind = "rich" if kind == "rich" else "classic"
    files = list(_files(paths))
    labels = _labels(index, key, files)
    failed = 0
    with _table(output) as write, progress_bar(quiet=quiet or output is None) as bar:
        task = None if bar is None else bar.add_task("Describing", total=len(files), note="")
        write(csv_line(("filename", *(("start", "end") if window else ()), *columns(chosen), "label")))
        for path in files:
            name = os.fsdecode(path if full_paths else os.path.basename(path))
            try:
                for row in rows_of(path, chosen, window_s=window or None, duration_s=duration or None):
                    where = (f"{row.start_s:.3f}", f"{row.end_s:.3f}") if window else ()
                    write(csv_line((name, *where, *(f"{value:.9g}" for value in row.values), labels[path])))
            except AudioError as error:
                failed += 1
                say(f"embedindex: {error}")
            if bar is not None and task is not None:
                bar.advance(task)
        if failed and not quiet:
            say(f"embedindex: {amount(failed, 'file')} of {len(files):,} could not be described")
        if failed and failed == len(files):
            raise typer.Exit(1)  # a table that is there already stays
    if output is not None and not quiet:
        say(f"embedindex: wrote {display_path(output)}")
    if failed and strict:
        raise typer.Exit(1)


@contextmanager
def _table(output: str | None) -> Iterator[Callable[[bytes], object]]:
    """Give what writes a line: to stdout, or to a file that appears when it is whole.

    Raises:
        UsageError: the file has a sound's name, or cannot be written.
        DiskFullError: no space is left for it.
    """
    from embedindex.crawl import is_audio_name
    from embedindex.errors import UsageError, display_path
    from embedindex.whole_files import whole_file

    if output is None:
        yield write_bytes
        return
    if is_audio_name(os.path.basename(os.fsencode(output))):  # `-o *.wav` is a slip of the hand
        raise UsageError(f"-o {display_path(output)}: is a sound's name; choose one for the table, such as data.csv")
    with whole_file(output) as temporary, open(temporary, "wb") as file:
        yield file.write


def _files(paths: list[str]) -> Iterator[bytes]:
    """Yield the files that are named, and the sound files in folders that are, by name.

    Raises:
        PathNotFoundError: a path is not there.
    """
    from embedindex.archives import exists, is_archive
    from embedindex.crawl import CrawlTrouble, absolute_path, crawl, is_audio_name, is_hidden, list_archive
    from embedindex.errors import PathNotFoundError, display_path
    from embedindex.opening import is_real_folder
    from embedindex.remote_paths import is_remote

    for path in map(os.fsencode, paths):
        if not exists(path):
            raise PathNotFoundError(f"{display_path(path)}: is not there; give sound files or folders")
        if is_archive(path):
            yield from (os.path.join(path, one.name) for one in list_archive(path) or [])
            continue
        if is_remote(path) and is_real_folder(path):
            yield from (found.path for found in crawl([absolute_path(path)], CrawlTrouble()))
            continue
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for name in sorted(names):
                if is_audio_name(name) and not is_hidden(name):
                    yield os.path.join(folder, name)


def _labels(index: str | None, key: str | None, files: list[bytes]) -> dict[bytes, str]:
    """Return the last column: the folder's name, or the labels that the index knows."""
    from embedindex.crawl import absolute_path

    if key is None:
        return {path: os.path.basename(os.fsdecode(os.path.dirname(absolute_path(path)))) for path in files}
    from embedindex.label_store import file_id_of, given_labels
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.store import Store

    with Store(index_folder(index)) as store:
        given = given_labels(store, clean_key(key))
        ids = {path: file_id_of(store, absolute_path(path)) for path in files}
    return {path: "; ".join(given.get(file_id or 0, ())) for path, file_id in ids.items()}
