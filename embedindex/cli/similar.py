"""``embedindex similar``: what sounds like this, and where in the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from embedindex.cli.console import clock, print_csv, print_json, print_m3u, print_paths, print_table, say
from embedindex.cli.options import (
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
    one_format,
    parse_filters,
)

if TYPE_CHECKING:
    from embedindex.search import Hit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(similar)


def similar(
    queries: Annotated[list[str], typer.Argument(metavar="QUERY…", help="One or more sounds, in the index or not.")],
    index: IndexOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many results.")] = 10,
    by: Annotated[str, typer.Option(help="file: each file once; window: places in files.")] = "file",
    label: LabelOption = None,
    path: GlobOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
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
    filters = parse_filters(label, path, min_duration, max_duration)
    with Store(index_folder(index)) as store:
        view = load_view(store)
        if view.damage:
            say(f"embedindex: {view.damage}")
        maker = QueryMaker(store, view.model)
        hits = search(
            store,
            view,
            [maker.from_file(query) for query in queries] if view.windows else [],
            k=k,
            by="window" if by == "window" else "file",
            filters=filters,
            include_self=include_self,
        )
        model = view.model.identity.name
    if not hits:
        say("embedindex: there is no other sound in the index; add some with `embedindex scan FOLDER`")
    _print(hits, kind, list(queries), model, null=null)


def _print(hits: list[Hit], kind: str | None, queries: list[str], model: str, *, null: bool) -> None:
    if kind == "json":
        from embedindex.search import hit_to_json

        print_json({"query": queries, "model": model, "results": [hit_to_json(hit) for hit in hits]})
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
    import os

    if hit.file.title:
        return f"{hit.file.artist} - {hit.file.title}" if hit.file.artist else hit.file.title
    return os.path.splitext(os.path.basename(hit.file.text_path))[0]
