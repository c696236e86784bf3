"""What ``embedindex similar`` prints, and what else it does with its results: copies, links, a file to listen to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedindex.cli.console import amount, clock, print_csv, print_json, print_m3u, print_paths, print_table, say

if TYPE_CHECKING:
    from embedindex.audition import Format
    from embedindex.explanation import Explanation
    from embedindex.query import Query
    from embedindex.query_text import Asked
    from embedindex.results import How
    from embedindex.search import Hit


def place(hits: list[Hit], folder: str, how: How) -> bool:
    """Copy or link results into a folder and say what was done; return whether all went well."""
    from embedindex.errors import display_path
    from embedindex.results import place_hits

    placed = place_hits(hits, folder, how)
    done, kept, failed = ([one for one in placed if one.outcome == kind] for kind in ("done", "kept", "failed"))
    verb = "copied" if how == "copy" else "linked"
    for one in failed:
        say(f"embedindex: {display_path(one.source)}: not {verb}: {one.reason}")
    already = f"; {len(kept)} left alone, whose names are there already" if kept else ""
    say(f"embedindex: {amount(len(done), 'file')} {verb} to {display_path(folder)}{already}")
    return not failed


def audition(
    target: str, asked: list[Asked], queries: list[Query], hits: list[Hit], length_s: float, as_: Format
) -> None:
    """Write the queries and then the best places of the results to one file, and say what was left out."""
    from embedindex.audition import Place, place_of, write_audition
    from embedindex.errors import display_path

    places: list[Place] = []
    for one, query in zip(asked, queries, strict=False):
        if query.sources:
            say(f"embedindex: {display_path(one.text)} is a folder: only what was found is in {display_path(target)}")
            continue
        end_s = one.part.start_s + length_s
        places.append(Place(os.fsencode(one.path), one.part.start_s, min(end_s, one.part.end_s or end_s)))
    places += [place_of(hit.file.path, hit.start_s, length_s, hit.file.duration) for hit in hits]
    for remark in write_audition(target, places, as_):
        say(f"embedindex: left out of {display_path(target)}: {remark}")


def print_hits(
    hits: list[Hit],
    kind: str | None,
    queries: list[str],
    unlike: list[str],
    model: str,
    explained: list[list[Explanation]] | None,
    *,
    null: bool,
) -> None:
    """Print results in the format that was chosen, and on stderr what explains them (in the JSON, where that is it)."""
    if kind == "json":
        from embedindex.explanation import explanation_to_json
        from embedindex.search import hit_to_json

        asked = {"query": queries, **({"unlike": unlike} if unlike else {})}
        results = [hit_to_json(hit) for hit in hits]
        for result, reasons in zip(results, explained or [], strict=False):
            result["matches"] = [explanation_to_json(reason) for reason in reasons]
        print_json({**asked, "model": model, "results": results})
    elif kind == "csv":
        group_columns = ("group", "group_files") if hits and hits[0].group is not None else ()
        print_csv(
            ("rank", "path", "score", "start", "end", "duration", "labels", "instrument", *group_columns),
            (
                (
                    hit.rank,
                    hit.file.text_path,
                    f"{hit.score:.6f}",
                    f"{hit.start_s:.3f}",
                    f"{hit.end_s:.3f}",
                    "" if hit.file.duration is None else f"{hit.file.duration:.3f}",
                    _labels(hit.labels),
                    hit.file.instrument or "",
                    *(() if hit.group is None else (hit.group.name or "", hit.group.files)),
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
                    _grouped(hit) + _labels(hit.labels),
                )
                for hit in hits
            ],
            right=(0, 1, 2, 3),
        )
    if kind != "json":
        for hit, reasons in zip(hits, explained or [], strict=False):
            for reason in reasons:
                say(f"{hit.rank}  {_explained(reason)}")


def _explained(reason: Explanation) -> str:
    from embedindex.cli.console import amount
    from embedindex.errors import display_path

    sign = "less the weight times " if reason.unlike else ""
    pairs = "; ".join(
        f"{clock(pair.query_start_s)} of {display_path(os.path.basename(pair.source))} matches {clock(pair.start_s)}"
        f" by {pair.cosine:.3f}"
        for pair in reason.pairs
    )
    return f"{sign}{reason.score:.3f} for {display_path(reason.query)} ({amount(reason.windows, 'window')}): {pairs}"


def _grouped(hit: Hit) -> str:
    """Return what a result stands for, as ``[12 files of Grand Piano] ``; nothing for a file by itself."""
    if hit.group is None or hit.group.name is None:
        return ""
    from embedindex.errors import display_path

    return f"[{amount(hit.group.files, 'file')} of {display_path(os.path.basename(hit.group.name))}] "


def _labels(labels: dict[str, list[str]]) -> str:
    return ", ".join(f"{key}={value}" for key, values in labels.items() for value in values)


def _title(hit: Hit) -> str:

    if hit.file.title:
        return f"{hit.file.artist} - {hit.file.title}" if hit.file.artist else hit.file.title
    return os.path.splitext(os.path.basename(hit.file.text_path))[0]
