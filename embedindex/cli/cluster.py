"""``embedindex cluster``: groups of sounds that are alike, found without labels, named, and kept as labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedindex.cli.console import amount, clock, print_csv, print_json, print_line, print_table, progress_bar, say
from embedindex.cli.options import CsvOption, IndexOption, JsonOption, QuietOption, one_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedindex.cluster_names import Name
    from embedindex.clusters import Clusters, Group
    from embedindex.store import Store

WAIT_S = 2.0
STAGES = {"reading": "Reading", "choosing": "Trying numbers of clusters", "assigning": "Grouping", "naming": "Naming"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cluster)


def cluster(
    index: IndexOption = None,
    by: Annotated[
        str, typer.Option(metavar="files|windows", help="What is grouped: whole files, or moments.")
    ] = "files",
    clusters: Annotated[str, typer.Option("--clusters", "-n", metavar="N|auto", help="How many.")] = "auto",
    method: Annotated[
        str,
        typer.Option(metavar="kmeans|hdbscan", help="hdbscan leaves out what is in no group (embedindex[clusters])."),
    ] = "kmeans",
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Of the labels to write.")] = "cluster",
    exemplars: Annotated[int, typer.Option(min=1, max=20, help="Typical sounds to name of each cluster.")] = 3,
    smallest: Annotated[int, typer.Option("--min-size", min=2, help="hdbscan: the smallest group.")] = 5,
    rng: Annotated[int, typer.Option(min=0, help="Seed of chance: the same number, the same clusters.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no labels.")] = False,
    json: JsonOption = False,
    csv: CsvOption = False,
    quiet: QuietOption = False,
) -> None:
    """Group sounds that are alike, without labels; name the groups and label their files.

    Files that were given a label of the key keep it. `label undo` takes the clusters back.

    Example: embedindex cluster --clusters 12
    """
    from embedindex.cluster_names import name_clusters
    from embedindex.clusters import find_clusters
    from embedindex.labels import clean_key
    from embedindex.locations import index_folder
    from embedindex.store import Store

    kind = one_format(json=json, csv=csv)
    name = clean_key(key)
    count = _count(clusters, method)
    unit = _one_of("--by", by, ("files", "windows"))
    way = _one_of("--method", method, ("kmeans", "hdbscan"))
    with Store(index_folder(index)) as store, store.snapshot(), _progress(quiet=quiet) as report:
        found = find_clusters(
            store,
            unit,
            count,
            way,
            seed=rng,
            smallest=smallest,
            exemplars=exemplars,
            report=report,
        )
        names = name_clusters(store, found, name, lambda done, total: report("naming", done, total))
        shown = [_shown(store, group, named) for group, named in zip(found.groups, names, strict=True)]
        paths = {record.id: record.path for record in store.files()} if kind == "csv" else {}
        folder = store.folder
    number, labelled = 0, 0
    if not dry_run:
        number, labelled = _write(folder, name, found, names, f"cluster --by {by} --method {method} --rng {rng}")
    if kind == "json":
        print_json(_to_json(name, method, found, shown, number))
    elif kind == "csv":
        print_csv(
            ("path", "cluster", "share"),
            (
                (os.fsdecode(paths[file_id]), names[group].name, f"{share:.4f}")
                for file_id, groups in found.files.items()
                for group, share in groups
            ),
        )
    else:
        _print(found, shown)
    if not quiet:
        _say_summary(found, name, number, labelled)


def _count(text: str, method: str) -> int | None:
    from embedindex.errors import UsageError

    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"--clusters {text}: write auto, or a number from 1 on")
    if method == "hdbscan":
        raise UsageError("--method hdbscan finds the number of clusters by itself; leave --clusters out")
    return int(text)


def _one_of(option: str, text: str, choices: tuple[str, ...]) -> Any:
    from embedindex.errors import UsageError

    if text not in choices:
        raise UsageError(f"{option} {text}: choose {' or '.join(choices)}")
    return text


def _write(folder: str, key: str, found: Clusters, names: list[Name], detail: str) -> tuple[int, int]:
    """Write the clusters as labels; return the number of the import that undoes them, and how many files have one."""
    from embedindex.label_store import put_predictions
    from embedindex.writer import StoreWriter

    with StoreWriter(folder, wait_s=WAIT_S) as store:
        predictions = (
            (file_id, [(names[number].name, share) for number, share in groups])
            for file_id, groups in found.files.items()
        )
        return put_predictions(store, key, "cluster", detail, predictions)


def _shown(store: Store, group: Group, named: Name) -> dict[str, Any]:
    from embedindex.cluster_names import span_of
    from embedindex.search import path_to_json

    examples = []
    for exemplar in group.exemplars:
        record = store.file(exemplar.file_id)
        start_s, length_s = span_of(store, record, exemplar)
        examples.append(
            {
                **path_to_json(record.path),
                "start": round(start_s, 6),
                "end": round(start_s + length_s, 6),
                "score": round(exemplar.similarity, 6),
            }
        )
    label = None
    if named.label is not None:
        label = {"key": named.label[0], "value": named.label[1], "share": round(named.label[2], 6)}
    return {
        "name": named.name,
        "size": group.size,
        "words": list(named.words),
        "label": label,
        "similarity": round(group.similarity, 6),
        "exemplars": examples,
    }


def _to_json(key: str, method: str, found: Clusters, shown: list[dict[str, Any]], number: int) -> dict[str, Any]:
    return {
        "key": key,
        "by": found.by,
        "method": method,
        "members": found.members,
        "unassigned": found.unassigned,
        "chosen": found.chosen,
        "silhouette": None if found.silhouette is None else round(found.silhouette, 6),
        "import": number or None,
        "clusters": shown,
    }


def _print(found: Clusters, shown: list[dict[str, Any]]) -> None:
    rows = []
    for item in shown:
        examples = [
            f"{example['path']}{'' if found.by == 'files' else ' at ' + clock(example['start'])}"
            for example in item["exemplars"]
        ]
        rows.append(
            (item["name"], f"{item['size']:,}", " ".join(item["words"]), f"{item['similarity']:.2f}", examples[0])
        )
        rows += [("", "", "", "", example) for example in examples[1:]]
    print_table(("cluster", found.by, "sounds", "alike", "for example"), rows, right=(1, 3))
    quality = "" if found.silhouette is None else f", silhouette {found.silhouette:.2f}"
    left = f"; {found.unassigned:,} in none" if found.unassigned else ""
    print_line(
        f"{amount(len(found.groups), 'cluster')} of {found.members:,} {found.by} ({found.chosen}){quality}{left}"
    )


def _say_summary(found: Clusters, key: str, number: int, labelled: int) -> None:
    if not number:
        say("embedindex: no labels were written")
        return
    kept = len(found.files) - labelled
    left = f"; {amount(kept, 'file')} kept what it was given, or are in no cluster" if kept else ""
    say(f"embedindex: labelled {amount(labelled, 'file')} {key}=…{left}; undo with `embedindex label undo {number}`")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    with progress_bar(quiet=quiet) as bar:
        if bar is None:
            yield lambda _stage, _done, _total: None
            return
        task = bar.add_task("Reading", total=None, note="")

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=STAGES[stage], completed=done, total=total)

        yield report
