"""``embedindex genre``: tag files by their labelled neighbours, with a confidence, or abstain."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import amount, print_json, progress_bar, say
from embedindex.cli.genre_output import Judged, Result, print_counts, print_results, print_results_csv, results_json
from embedindex.cli.options import CsvOption, IndexOption, JsonOption, QuietOption, one_format

if TYPE_CHECKING:
    from embedindex.genre import Judge, Span
    from embedindex.records import FileRecord
    from embedindex.store import Store

WAIT_S = 2.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(genre)


def genre(
    paths: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
        typer.Argument(
            metavar="[PATH]…",
            help="Files or folders of the index, or any sound (default: all without such a label).",
            show_default=False,
        ),
    ] = None,
    index: IndexOption = None,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Which labels: genre, instrument…")] = "genre",
    method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME|FILE", help="A classifier of `embedindex train` (default: the nearest files)."),
    ] = None,
    k: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "-k",
            min=1,
            help="Nearest folders, or files, of each label that are heard (default: chosen by cross-validation).",
        ),
    ] = None,
    group: Annotated[
        str,
        typer.Option(metavar="GROUP", help="What the confidence must hold beyond: folder, album, artist or a key."),
    ] = "folder",
    top: Annotated[int, typer.Option("-n", "--top", min=1, help="How many labels to name for each file.")] = 3,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="P", help="Less sure than this is unknown.")
    ] = 0.0,
    several: Annotated[
        bool, typer.Option("--several", help="Give a file all labels at least half as probable as the first.")
    ] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Show how the label changes along each file.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name the neighbours that decided.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing to the index.")] = False,
    write_tags: Annotated[
        bool, typer.Option("--write-tags", help="Also write the genre into the files' own tags (see --dry-run first).")
    ] = False,
    restore_tags: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Only put back the tags that --write-tags kept in this file."),
    ] = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    quiet: QuietOption = False,
) -> None:
    """Label files by their labelled neighbours, and say how sure that is; far from all that is labelled: unknown.

    Files that were given a label of the key keep it. `label undo` takes the predictions back.

    Example: embedindex genre --min-confidence 0.5
    """
    from embedindex.errors import UsageError
    from embedindex.genre import learn_judge
    from embedindex.label_store import given_labels
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv)
    name = clean_key(key)
    if restore_tags is not None:
        _restore(restore_tags)
        return
    if write_tags:
        _check_tags(name, kind, dry_run=dry_run)
    if method is not None and (timeline or k is not None):
        raise UsageError("--timeline and -k are for the nearest files; leave out --method")
    with Store(index_folder(index)) as store:
        given = given_labels(store, name)
        inside, outside = _files(store, paths, given)
        if given and not (paths or inside or quiet):
            say("embedindex: every file of the index was given a label of this key; name files to see them judged")
        explain = verbose or json
        if method is not None:
            from embedindex.cli.genre_trained import judge_by

            judged, results = judge_by(
                method, store, name, inside, outside, given, top, min_confidence, several=several, quiet=quiet
            )
        else:
            windows = sum(record.n_windows for record in inside) / max(1, len(inside))
            judge = learn_judge(store, name, group, k=k, queries=(max(1, len(inside)), max(1.0, windows)))
            judged = Judged("knn", judge.voter.k, judge.labelled.classes, len(judge.labelled), judge.across_groups)
            results = list(
                _judge_inside(store, judge, inside, given, top, min_confidence, several, explain, timeline, quiet=quiet)
            )
            results += _judge_outside(store, judge, outside, top, min_confidence, several, explain, timeline)
        model = store.model()
        folder = store.folder
    new = [result for result in results if result.file_id is not None and not result.given]
    number = 0
    if new and not dry_run:
        number = _write(folder, name, judged, new, f"genre --key {name} --min-confidence {min_confidence:g}")
    if kind == "json":
        print_json(results_json(name, judged, model.identity.name if model else "", results))
    elif kind == "csv":
        print_results_csv(results, top, timeline=timeline)
    elif paths or verbose or timeline:
        print_results(results, name, verbose=verbose)
    else:
        print_counts(results, name)
    if results and not quiet:
        _say_summary(results, judged, name, number)
    if write_tags:
        from embedindex.cli.genre_tags import write_tags as write

        wanted = [(one.path, tuple(value for value, _ in one.labels)) for one in new if one.labels]
        if write(folder, wanted, dry_run=dry_run):
            raise typer.Exit(1)


def _restore(backup: str) -> None:
    from embedindex.cli.genre_tags import restore_tags

    if restore_tags(backup):
        raise typer.Exit(1)


def _check_tags(key: str, kind: str | None, *, dry_run: bool) -> None:
    """Refuse early what cannot be written.

    Raises:
        UsageError: the key is not genre, or the output would be mixed.
        EngineMissingError: mutagen is not installed.
    """
    from embedindex.errors import UsageError
    from embedindex.write_tags import need_mutagen

    if key != "genre":
        raise UsageError(f"--write-tags writes the genre only, not {key}")
    if kind is not None and dry_run:
        raise UsageError("--write-tags --dry-run prints a table; leave out --json and --csv")
    need_mutagen()


def _files(store: Store, paths: list[str] | None, given: dict[int, list[str]]) -> tuple[list[FileRecord], list[bytes]]:
    """Return (files of the index, sounds outside it) that are to be judged.

    Raises:
        PathNotFoundError: a path is neither.
        QueryError: a path names only what could not be used.
    """
    from embedindex.archives import exists, is_folder
    from embedindex.crawl import absolute_path
    from embedindex.errors import PathNotFoundError, QueryError, display_path
    from embedindex.genre import unlabelled

    if not paths:
        return unlabelled(store, given), []
    inside: list[FileRecord] = []
    outside: list[bytes] = []
    for path in paths:
        absolute = absolute_path(os.fsencode(path))
        below = [store.file(row[0]) for row in store.paths_below(absolute)]
        usable = [record for record in below if record.status == "ok"]
        if usable:
            inside += usable
        elif below:
            raise QueryError(f"{display_path(path)}: no sound there could be used; `embedindex errors` says why")
        elif exists(absolute) and not is_folder(absolute):
            outside.append(absolute)
        else:
            raise PathNotFoundError(
                f"{display_path(path)}: is neither in the index nor a sound file; scan it, or name another"
            )
    return list({record.id: record for record in inside}.values()), outside


def _judge_inside(
    store: Store,
    judge: Judge,
    records: list[FileRecord],
    given: dict[int, list[str]],
    top: int,
    min_confidence: float,
    several: bool,
    explain: bool,
    timeline: bool,
    *,
    quiet: bool,
) -> Iterable[Result]:
    from embedindex.genre import judge_files

    by_id = {record.id: record for record in records}
    with progress_bar(quiet=quiet) as bar:
        task = None if bar is None else bar.add_task("Judging", total=len(records), note="")
        for file_id, judgement in judge_files(judge, store, records, top=top, explain=explain):
            record = by_id.pop(file_id)
            spans = _spans(judge, store, record) if timeline else ()
            labels = judgement.labels(min_confidence, several=several)
            yield Result(record.path, file_id, judgement, labels, tuple(given.get(file_id, ())), spans)
            if bar is not None and task is not None:
                bar.advance(task)
    for file_id, record in by_id.items():  # silence
        yield Result(record.path, file_id, None, (), tuple(given.get(file_id, ())))


def _spans(judge: Judge, store: Store, record: FileRecord) -> tuple[Span, ...]:
    model = store.model()
    if model is None or record.hop_s is None:
        return ()
    return tuple(judge.timeline(store.vectors_of(record), record.hop_s, model.identity.window_s, record.duration))


def _judge_outside(
    store: Store,
    judge: Judge,
    paths: list[bytes],
    top: int,
    min_confidence: float,
    several: bool,
    explain: bool,
    timeline: bool,
) -> Iterable[Result]:
    """Judge sounds that the index does not hold; they are embedded with its model."""
    if not paths:
        return
    from embedindex.embed import embed_file
    from embedindex.genre import judge_vectors
    from embedindex.query import QueryMaker

    known = store.model()
    if known is None:
        return
    model = QueryMaker(store, known).model()
    for path in paths:
        made = embed_file(path, model, known.hop_s, content_hash=b"")
        judgement = judge_vectors(judge, made.vectors, top=top, explain=explain)
        labels = () if judgement is None else judgement.labels(min_confidence, several=several)
        spans = judge.timeline(made.vectors, made.hop_s, model.identity.window_s, made.duration_s) if timeline else ()
        yield Result(path, None, judgement, labels, (), tuple(spans))


def _write(folder: str, key: str, judged: Judged, results: list[Result], detail: str) -> int:
    """Write predictions to the index; return the number of the import that undoes them."""
    from embedindex.label_store import put_predictions
    from embedindex.writer import StoreWriter

    with StoreWriter(folder, wait_s=WAIT_S) as store:
        predictions = [(result.file_id, list(result.labels)) for result in results if result.file_id is not None]
        number, _ = put_predictions(store, key, judged.source, f"{detail}{_k_of(judged)}", predictions)
    return number


def _k_of(judged: Judged) -> str:
    return "" if judged.k is None else f" -k {judged.k}"


def _say_summary(results: list[Result], judged: Judged, key: str, number: int) -> None:
    labelled = sum(1 for one in results if one.labels)
    basis = "across groups" if judged.across_groups else "file by file: it holds for files like the labelled ones only"
    say(
        f"embedindex: {amount(labelled, 'file')} of {len(results):,} labelled by {judged.labelled:,} with a given "
        f"{key}, {judged.source if judged.k is None else f'k = {judged.k}'}; confidence learnt {basis}"
    )
    if number:
        say(f"embedindex: written as import {number}; `embedindex label undo` takes it back")
    elif any(one.file_id is not None and not one.given for one in results):
        say("embedindex: nothing was written")
