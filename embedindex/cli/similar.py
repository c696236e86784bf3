"""``embedindex similar``: what sounds like this, and where in the file."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import say, warn
from embedindex.cli.filter_options import with_filters
from embedindex.cli.options import (
    CsvOption,
    IndexOption,
    JsonOption,
    M3uOption,
    NullOption,
    PathsOption,
    one_format,
)
from embedindex.cli.threads import spare_threads

if TYPE_CHECKING:
    from embedindex.audition import Format
    from embedindex.filters import Filters
    from embedindex.grouping import GroupBy
    from embedindex.query import Query, QueryMaker
    from embedindex.query_text import Asked
    from embedindex.search import By, Hit, Match
    from embedindex.store import Store


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(similar)


@with_filters
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
    match: Annotated[
        str,
        typer.Option(
            help="inside: find the sound in files; whole: compare whole files; auto: by length, whole from 60 s on."
        ),
    ] = "auto",
    warp: Annotated[
        bool, typer.Option("--warp", help="Inside, also find it at another speed, from half to twice its own.")
    ] = False,
    group: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--group", metavar="BY", help="One result for each instrument, or for each folder."),
    ] = None,
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
    filters: Filters | None = None,
    include_self: Annotated[bool, typer.Option("--include-self", help="Let the query itself be found.")] = False,
    json: JsonOption = False,
    csv: CsvOption = False,
    paths: PathsOption = False,
    null: NullOption = False,
    m3u: M3uOption = False,
    copy_to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--copy-to", metavar="DIR", help="Copy what is found there, as '01 0.953 name.wav'."),
    ] = None,
    link_to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--link-to", metavar="DIR", help="Link to what is found from there, under such names."),
    ] = None,
    audition: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--audition", metavar="OUT.wav", help="Write the query, then the best places, to one sound file."),
    ] = None,
    audition_length: Annotated[
        float, typer.Option("--audition-length", metavar="SECONDS", help="At most so much of each sound.")
    ] = 4.0,
    audition_rate: Annotated[int, typer.Option("--audition-rate", metavar="HZ", help="44100 or 48000.")] = 44100,
    audition_bits: Annotated[int, typer.Option("--audition-bits", metavar="BITS", help="16 or 24.")] = 16,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Explain the scores: which windows matched where, and how well.")
    ] = False,
) -> None:
    """Find what sounds like a clip: the nearest files, and where in them.

    The score is the cosine similarity (1: the same) of the query's windows with the best matching ones of the
    file, half of it in their order.

    Example: embedindex similar clip.wav -k 20 --max-duration 5
    """
    spare_threads()
    from embedindex.cli import similar_output
    from embedindex.errors import UsageError
    from embedindex.grouping import group_hits
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.query import QueryMaker
    from embedindex.search import search
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv, paths=paths, m3u=m3u)
    if by not in ("file", "window"):
        raise UsageError(f"--by {by}: choose file or window")
    if match not in ("auto", "inside", "whole"):
        raise UsageError(f"--match {match}: choose auto, inside or whole")
    if null and not paths:
        raise UsageError("--null goes with --paths")
    if group not in (None, "instrument", "folder") or (group is not None and by != "file"):
        raise UsageError(f"--group {group}: choose instrument or folder, without --by window")
    grouped: GroupBy | None = None if group is None else "folder" if group == "folder" else "instrument"
    found_by: By = "window" if by == "window" else "file"
    way: Match = "inside" if match == "inside" else "whole" if match == "whole" else "auto"
    as_ = None if audition is None else _audition_format(audition, audition_length, audition_rate, audition_bits)
    with ExitStack() as held:
        store = held.enter_context(Store(index_folder(index)))
        asked, away = _asked(queries, unlike or [], start, end, store, held)
        view = load_view(store)
        warn(view.damage)
        maker = QueryMaker(store, view.model)
        wanted, unwanted = ([_heard(maker, one) for one in ones] if view.windows else [] for ones in (asked, away))
        for remark in (remark for query in (*wanted, *unwanted) for remark in query.remarks):
            say(f"embedindex: {remark}")

        def ask(wanted_hits: int) -> list[Hit]:
            return search(
                store,
                view,
                wanted,
                k=wanted_hits,
                by=found_by,
                filters=filters,
                include_self=include_self,
                unlike=unwanted,
                unlike_weight=unlike_weight,
                match=way,
                warp=warp,
            )

        hits = ask(k) if grouped is None else group_hits(ask, k, grouped)
        explained = None
        if verbose:
            from embedindex.comparing import space_for
            from embedindex.explanation import explain

            space = space_for(store, view, (*wanted, *unwanted))
            explained = [
                explain(store, view, hit, wanted, unwanted, by=found_by, match=way, warp=warp, space=space)
                for hit in hits
            ]
        if not hits:
            say("embedindex: there is no other sound in the index; add some with `embedindex scan FOLDER`")
        names = (list(queries), list(unlike or []))
        similar_output.print_hits(hits, kind, *names, view.model.identity.name, explained, null=null)
        if audition is not None and as_ is not None:
            similar_output.audition(audition, asked, wanted, hits, audition_length, as_)
        well = copy_to is None or similar_output.place(hits, copy_to, "copy")
        well &= link_to is None or similar_output.place(hits, link_to, "link")
    if not well:
        raise typer.Exit(1)


def _audition_format(target: str, length_s: float, sample_rate: int, bits: int) -> Format:
    """Return the format of the file to listen to, after checks that need no search."""
    from embedindex.audition import MAX_LENGTH_S, Format, require_new
    from embedindex.errors import UsageError

    if not 0.1 <= length_s <= MAX_LENGTH_S:
        raise UsageError(f"--audition-length {length_s:g}: give 0.1 to {MAX_LENGTH_S:g} seconds")
    require_new(target)
    return Format(sample_rate, bits)


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
        return replace(maker.from_file(asked.path, asked.part), path=STDIN.encode(), file=os.fsencode(asked.path))
    except AudioError as error:
        raise type(error)("standard input", error.reason) from error
    except QueryError as error:
        raise QueryError(str(error).replace(display_path(asked.path), "standard input")) from error
