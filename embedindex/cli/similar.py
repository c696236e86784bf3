"""``embedindex similar``: what sounds like this, and where in the file."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import clock, print_csv, print_json, print_m3u, print_paths, print_table, say
from embedindex.cli.options import (
    AddedSinceOption,
    ChannelsOption,
    CsvOption,
    GlobOption,
    IndexOption,
    JsonOption,
    LabelOption,
    M3uOption,
    MaxDurationOption,
    MinDurationOption,
    NullOption,
    PathsOption,
    SampleRateOption,
    one_format,
    parse_filters,
)

if TYPE_CHECKING:
    from embedindex.query import Query, QueryMaker
    from embedindex.query_text import Asked
    from embedindex.search import Hit
    from embedindex.store import Store


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(similar)


def similar(
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY…",
            help="Sounds, in the index or not; a part of one, as clip.wav@12.5-15; a folder; - for standard input.",
        ),
    ],
    index: IndexOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many results.")] = 10,
    by: Annotated[str, typer.Option(help="file: each file once; window: places in files.")] = "file",
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--start", metavar="TIME", help="Ask about the part of the sound from here (seconds or m:ss) on."),
    ] = None,
    end: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--end", metavar="TIME", help="Ask about the part of the sound up to here."),
    ] = None,
    unlike: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--unlike", metavar="SOUND", help="Stay away from this sound; may be repeated."),
    ] = None,
    unlike_weight: Annotated[
        float, typer.Option("--unlike-weight", metavar="W", help="How much the score for --unlike is subtracted.")
    ] = 0.5,
    label: LabelOption = None,
    path: GlobOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    sample_rate: SampleRateOption = None,
    channels: ChannelsOption = None,
    added_since: AddedSinceOption = None,
    include_self: Annotated[bool, typer.Option("--include-self", help="Let the query itself be found.")] = False,
    json: JsonOption = False,
    csv: CsvOption = False,
    paths: PathsOption = False,
    null: NullOption = False,
    m3u: M3uOption = False,
) -> None:
    """Find what sounds like a clip: the nearest files, and where in them.

    The score is the cosine similarity (1: the same) of the query's windows with the best matching ones of the file.

    Example: embedindex similar clip.wav -k 20 --max-duration 5
    """
    # Idle threads of numpy's BLAS spin and take the processors from FAISS's: without them a search takes half the time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from embedindex.errors import UsageError
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.query import QueryMaker
    from embedindex.search import search
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv, paths=paths, m3u=m3u)
    if by not in ("file", "window"):
        raise UsageError(f"--by {by}: choose file or window")
    if null and not paths:
        raise UsageError("--null goes with --paths")
    filters = parse_filters(label, path, min_duration, max_duration, sample_rate, channels, added_since)
    with ExitStack() as held:
        store = held.enter_context(Store(index_folder(index)))
        asked, away = _asked(queries, unlike or [], start, end, store, held)
        view = load_view(store)
        if view.damage:
            say(f"embedindex: {view.damage}")
        maker = QueryMaker(store, view.model)
        wanted, unwanted = ([_heard(maker, one) for one in ones] if view.windows else [] for ones in (asked, away))
        for remark in (remark for query in (*wanted, *unwanted) for remark in query.remarks):
            say(f"embedindex: {remark}")
        hits = search(
            store,
            view,
            wanted,
            k=k,
            by="window" if by == "window" else "file",
            filters=filters,
            include_self=include_self,
            unlike=unwanted,
            unlike_weight=unlike_weight,
        )
        model = view.model.identity.name
    if not hits:
        say("embedindex: there is no other sound in the index; add some with `embedindex scan FOLDER`")
    _print(hits, kind, list(queries), list(unlike or []), model, null=null)


def _asked(
    queries: list[str], unlike: list[str], start: str | None, end: str | None, store: Store, held: ExitStack
) -> tuple[list[Asked], list[Asked]]:
    """Return what is meant by the arguments; standard input is kept in a file until `held` ends."""
    from dataclasses import replace

    from embedindex.errors import UsageError
    from embedindex.query import WHOLE
    from embedindex.query_text import STDIN, Asked, parse_part, parse_query, spooled

    if (queries + unlike).count(STDIN) > 1:
        raise UsageError("standard input (-) can be read once; name the other sounds")
    asked = [
        Asked(text, held.enter_context(spooled(sys.stdin.buffer))) if text == STDIN else parse_query(text, store)
        for text in queries + unlike
    ]
    if start is not None or end is not None:
        if len(queries) > 1:
            raise UsageError("--start and --end go with one sound; write a.wav@1-2 b.wav@3-4 for parts of several")
        if asked[0].part != WHOLE:
            raise UsageError(f"{queries[0]} names a part already; leave out --start and --end")
        asked[0] = replace(asked[0], part=parse_part(start, end))
    return asked[: len(queries)], asked[len(queries) :]


def _heard(maker: QueryMaker, asked: Asked) -> Query:
    """Return the query; an error about standard input names it so, not the file it is kept in."""
    from dataclasses import replace

    from embedindex.errors import AudioError, QueryError, display_path
    from embedindex.query_text import STDIN

    if asked.text != STDIN:
        return maker.from_path(asked.path, asked.part)
    try:
        return replace(maker.from_file(asked.path, asked.part), path=STDIN.encode())
    except AudioError as error:
        raise type(error)("standard input", error.reason) from error
    except QueryError as error:
        raise QueryError(str(error).replace(display_path(asked.path), "standard input")) from error


def _print(hits: list[Hit], kind: str | None, queries: list[str], unlike: list[str], model: str, *, null: bool) -> None:
    if kind == "json":
        from embedindex.search import hit_to_json

        asked = {"query": queries, **({"unlike": unlike} if unlike else {})}
        print_json({**asked, "model": model, "results": [hit_to_json(hit) for hit in hits]})
    elif kind == "csv":
        print_csv(
            ("rank", "path", "score", "start", "end", "duration", "labels"),
            (
                (
                    hit.rank,
                    hit.file.text_path,
                    f"{hit.score:.6f}",
                    f"{hit.start_s:.3f}",
                    f"{hit.end_s:.3f}",
                    "" if hit.file.duration is None else f"{hit.file.duration:.3f}",
                    _labels(hit.labels),
                )
                for hit in hits
            ),
        )
    elif kind == "paths":
        print_paths((hit.file.path for hit in hits), null=null)
    elif kind == "m3u":
        print_m3u((hit.file.path, hit.file.duration, _title(hit)) for hit in hits)
    else:
        from embedindex.errors import display_path

        print_table(
            ("", "score", "at", "length", "file", "labels"),
            [
                (
                    str(hit.rank),
                    f"{hit.score:.3f}",
                    clock(hit.start_s),
                    clock(hit.file.duration),
                    display_path(hit.file.path),
                    _labels(hit.labels),
                )
                for hit in hits
            ],
            right=(0, 1, 2, 3),
        )


def _labels(labels: dict[str, list[str]]) -> str:
    return ", ".join(f"{key}={value}" for key, values in labels.items() for value in values)


def _title(hit: Hit) -> str:

    if hit.file.title:
        return f"{hit.file.artist} - {hit.file.title}" if hit.file.artist else hit.file.title
    return os.path.splitext(os.path.basename(hit.file.text_path))[0]
