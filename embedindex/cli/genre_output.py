"""What ``embedindex genre`` found, as a table, as JSON and as CSV."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedindex.cli.console import clock, print_csv, print_table

if TYPE_CHECKING:
    from embedindex.genre import Judgement, Span

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Judged:
    """By whom files were judged.

    Attributes:
        source: what stands behind ``predicted:`` in the labels.
        k: neighbours of each label; None for a trained classifier.
        labels: what may be said.
        labelled: how many files that is learnt from.
        across_groups: whether the confidence was learnt across groups.
    """

    source: str
    k: int | None
    labels: tuple[str, ...]
    labelled: int
    across_groups: bool


@dataclass(frozen=True)
class Result:
    """One line of the answer.

    Attributes:
        path: the file.
        file_id: its id in the index; None outside it.
        judgement: what the neighbours say; None for silence.
        labels: what it is labelled by that; () for unknown.
        given: the labels of the key that it was given already.
        spans: its timeline, when asked for.
    """

    path: bytes
    file_id: int | None
    judgement: Judgement | None
    labels: tuple[tuple[str, float], ...]
    given: tuple[str, ...] = ()
    spans: tuple[Span, ...] = field(default=())


def results_json(key: str, judged: Judged, model: str, results: list[Result]) -> dict[str, Any]:
    """Return all that was found, for programs."""
    return {
        "key": key,
        "method": judged.source,
        "k": judged.k,
        "model": model,
        "labelled": judged.labelled,
        "labels": list(judged.labels),
        "across_groups": judged.across_groups,
        "results": [_result_json(result) for result in results],
    }


def _result_json(result: Result) -> dict[str, Any]:
    from embedindex.search import path_to_json

    said = result.judgement
    data: dict[str, Any] = {
        **path_to_json(result.path),
        "label": result.labels[0][0] if result.labels else None,
        "confidence": round(said.values[0][1], 6) if said and said.values else None,
        "labels": [value for value, _ in result.labels],
        "top": [{"value": value, "confidence": round(sure, 6)} for value, sure in said.values] if said else [],
        "familiar": bool(said and said.familiar),
        "familiarity": round(said.familiarity, 6) if said else None,
        "nearest": round(said.nearest, 6) if said else None,
        "given": list(result.given),
        "neighbours": [
            {**path_to_json(one.path), "likeness": round(one.likeness, 6), "labels": list(one.values)}
            for one in (said.neighbours if said else ())
        ],
    }
    if result.spans:
        data["timeline"] = [
            {
                "start": round(span.start_s, 3),
                "end": round(span.end_s, 3),
                "value": span.value,
                "confidence": round(span.confidence, 6),
            }
            for span in result.spans
        ]
    return data


def print_results_csv(results: list[Result], top: int, *, timeline: bool) -> None:
    """Print a line a file, or a line a stretch of a timeline."""
    if timeline:
        print_csv(
            ("path", "start", "end", "label", "confidence"),
            (
                (os.fsdecode(one.path), f"{s.start_s:.3f}", f"{s.end_s:.3f}", s.value, f"{s.confidence:.4f}")
                for one in results
                for s in one.spans
            ),
        )
        return
    header = ["path", "label", "confidence"]
    for place in range(2, top + 1):
        header += [f"label_{place}", f"confidence_{place}"]
    rows = []
    for one in results:
        values = one.judgement.values if one.judgement else ()
        cells = [os.fsdecode(one.path), one.labels[0][0] if one.labels else UNKNOWN, _sure(values, 0)]
        for place in range(1, top):
            cells += [values[place][0] if place < len(values) else "", _sure(values, place)]
        rows.append(cells)
    print_csv(header, rows)


def _sure(values: tuple[tuple[str, float], ...], place: int) -> str:
    return f"{values[place][1]:.4f}" if place < len(values) else ""


def print_results(results: list[Result], key: str, *, verbose: bool) -> None:
    """Print each file with its label, and with what decided."""
    from embedindex.errors import display_path

    rows = []
    for one in results:
        values = one.judgement.values if one.judgement else ()
        shown = ", ".join(value for value, _ in one.labels) or UNKNOWN
        others = ", ".join(f"{value} {sure:.2f}" for value, sure in values)
        rows.append((shown, _sure(values, 0)[:4], display_path(one.path), others))
        if verbose and one.judgement:
            for near in one.judgement.neighbours:
                rows.append(("", f"{near.likeness:.3f}", f"  like {display_path(near.path)}", ", ".join(near.values)))
        for span in one.spans:
            rows.append((span.value, f"{span.confidence:.2f}", f"  {clock(span.start_s)} to {clock(span.end_s)}", ""))
    print_table((key, "sure", "file", "candidates"), rows, right=(1,))


def print_counts(results: list[Result], key: str) -> None:
    """Print how many files got each label."""
    counts = Counter(value for one in results for value, _ in one.labels)
    unknown = sum(1 for one in results if not one.labels)
    rows = [(value, f"{count:,}") for value, count in counts.most_common()]
    print_table((key, "files"), [*rows, *([(UNKNOWN, f"{unknown:,}")] if unknown else [])], right=(1,))
