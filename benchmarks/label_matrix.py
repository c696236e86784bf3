"""The matrix of docs/evaluation.md: every method on everything that can be heard of every collection, on one split.

    python benchmarks/label_matrix.py --keep ~/labels                            # neighbours, knn, logistic, forest
    python benchmarks/label_matrix.py --keep ~/labels --methods boosting,mlp,cnn # the slow ones
    python benchmarks/label_matrix.py --keep ~/labels --methods ''               # print what is known

Collections and indexes are those of labels.py. A cell is one method on one collection, learnt anew in every fold of two
splits: without the own folder (more than 20 folders: in 10 parts), and stratified into 10 parts. It is a process of its
own, which is ended when it takes more processor time than --limit; what was found is kept in --keep/matrix.json, so
that cells may be made one by one, also by a Python that has TensorFlow for the networks. `neighbours` is what `genre`
does without --method; metadata (duration, rate, channels, peak, format) and random weights are controls.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from labels import Collection, collections, index_of, print_head, print_row, random_vectors

from embedindex.arrays import Float32Array, Float64Array, Int64Array
from embedindex.classifier_rows import embedding_row
from embedindex.comparison import FOLDS, MAX_GROUPS, learning, material_of
from embedindex.errors import EngineMissingError
from embedindex.evaluate import stratified_parts
from embedindex.fitting import METHODS, Material, scaling_of
from embedindex.labelled import Labelled, load_labelled, metadata_rows
from embedindex.learners import parts_of
from embedindex.likeness import sounds_as_set, space_of
from embedindex.space import Space
from embedindex.store import Store
from embedindex.train import Plan, check_plan, load_material, scores_of
from embedindex.views import learn_views
from embedindex.voting import K_CHOICES, cross_fitted, hub_penalties

MODELS = ("aisfx", "spectral", "aisfx+spectral")
FEATURES, SPECTROGRAMS = "classic features", "spectrograms"
METADATA, RANDOM = "metadata only (control)", "random weights (control)"
HEARD = (*MODELS, FEATURES, SPECTROGRAMS, METADATA, RANDOM)
NEIGHBOURS = "neighbours"
SPLITS = {"grouped": "own folder excluded", "folds": f"{FOLDS}-fold"}

Heard = tuple[Labelled, Material, Float32Array | None]


def hear(collection: Collection, what: str, options: argparse.Namespace) -> Heard:
    """Return (files, what classifiers hear of them, their likenesses; None where only a cnn can hear)."""
    model = what if what in MODELS else MODELS[-1]
    with Store(index_of(collection, model, options.keep, options.workers)) as store:
        if what in (*MODELS, SPECTROGRAMS):
            plan = Plan(collection.name, "cnn" if what == SPECTROGRAMS else "logistic", workers=options.workers)
            labelled, material, _, _ = load_material(store, plan)
            if what == SPECTROGRAMS:
                return labelled, material, None
            views = learn_views(labelled.files, labelled.groups, space_of(store), options.seed)
            return labelled, material, views.likeness(labelled.files, labelled.files)
        if what == FEATURES:
            plan = Plan(collection.name, "logistic", on="features", workers=options.workers)
            labelled, material, _, _ = load_material(store, plan)
            return labelled, material, cosines(scaling_of(material.rows, material.blocks).apply(material.rows))
        labelled = load_labelled(store, space_of(store), collection.name, "folder", limit=6000)
    if what == METADATA:
        rows = metadata_rows(labelled.records)
        return labelled, material_of(labelled, rows), cosines(rows)
    kept = options.keep / f"{collection.index}-random-{options.seed}.npz"
    sounds, plain = random_vectors(labelled, kept, options.seed), Space("plain")
    files = sounds_as_set(sounds, plain)
    rows = np.stack([row for sound in sounds if (row := embedding_row(sound)) is not None])
    views = learn_views(files, labelled.groups, plain, options.seed)
    return labelled, material_of(labelled, rows), views.likeness(files, files)


def cosines(rows: Float32Array) -> Float32Array:
    """Return (n, n) how alike rows (n, columns) are."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return np.asarray(unit @ unit.T, np.float32)


def judge(heard: Heard, method: str, seed: int) -> dict[str, Any]:
    """Return the scores of a method in both splits; None for a split in which nothing can be judged."""
    labelled, material, alike = heard
    groups = labelled.groups
    splits = {
        "grouped": groups if groups.max() < MAX_GROUPS else parts_of(groups, labelled.truth, FOLDS, seed),
        "folds": stratified_parts(labelled.truth, FOLDS, seed),
    }

    def neighbours(split: Int64Array) -> Float64Array:
        if alike is None:
            raise ValueError("spectrograms have no likenesses")
        penalties = hub_penalties(alike, split, split)
        return cross_fitted(alike, penalties, labelled.truth, split, K_CHOICES, seed, labelled.sources(split))[0]

    chances: Callable[[Int64Array], Float64Array] = neighbours
    if method != NEIGHBOURS:
        chances = learning(next(one for one in METHODS if one == method), material, groups, seed)
    found: dict[str, Any] = {}
    for name, split in splits.items():
        judged = labelled.judgeable(split)
        found[name] = None
        if judged.any():
            scores = asdict(scores_of(chances(split)[judged], labelled.truth[judged]))
            found[name] = {key: value for key, value in scores.items() if key != "confusion"}
    return found


def within(heard: Heard, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what `judge` does in a process that may take so much processor time, or {} where that was not enough."""

    def work(sender: Connection) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (options.limit, options.limit))
        sender.send(judge(heard, method, options.seed))

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = context.Process(target=work, args=(sender,))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        found = {}
    process.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["cpu_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{time.monotonic() - started:.0f} s, {found['cpu_s']:.0f} s of processors", file=sys.stderr)
    return found


def usable(methods: Sequence[str]) -> list[str]:
    """Return the methods that this Python has the libraries for."""
    found = []
    for method in methods:
        try:
            if method != NEIGHBOURS:
                check_plan(Plan("", next(one for one in METHODS if one == method)))
            found.append(method)
        except EngineMissingError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def read_cells(kept: Path) -> dict[str, Any]:
    """Return the cells that are known."""
    return dict(json.loads(kept.read_text())) if kept.exists() else {}


def print_matrix(known: dict[str, Any], chosen: Sequence[Collection], figure: str) -> None:
    """Print a figure of all cells: a row for what is heard, a column a method; `-`: not made, or took too long."""
    print_head("collection", "judged", "hears", NEIGHBOURS, *METHODS)
    for collection in chosen:
        for split, name in SPLITS.items():
            for what in HEARD:
                made = [
                    known.get(f"{collection.name} {what} {method}", {}).get(split) for method in (NEIGHBOURS, *METHODS)
                ]
                cells = ["-" if one is None else f"{one[figure]:.3f}" for one in made]
                files = max((one["files"] for one in made if one), default=0)
                if files:
                    print_row(collection.title, f"{name}, {files} files", what, *cells)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, default=Path("/tmp/embedindex-labels"), help="indexes, cells")  # noqa: S108
    parser.add_argument("--only", default="drums13,sonic-pi,types,soundtracks", help="names of collections")
    parser.add_argument("--hears", default=",".join(HEARD), help="what is heard, separated by commas")
    parser.add_argument("--methods", default="neighbours,knn,logistic,forest", help="also boosting, mlp and cnn")
    parser.add_argument("--figure", default="accuracy", help="what is printed: accuracy, ece, accuracy_at_80, macro_f1")
    parser.add_argument("--limit", type=int, default=300, help="seconds of processor time of a cell")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kept = options.keep / "matrix.json"
    known = read_cells(kept)
    chosen = [one for one in collections(options.keep, options.only.split(",")) if os.path.isdir(one.folder)]
    methods = usable([method for method in options.methods.split(",") if method])
    for collection in chosen:
        for what in options.hears.split(","):
            heard = None
            for method in methods:
                cell = f"{collection.name} {what} {method}"
                if cell in known or (method == "cnn") != (what == SPECTROGRAMS):
                    continue
                heard = heard or hear(collection, what, options)
                print(cell, end=": ", file=sys.stderr, flush=True)
                found = within(heard, method, options)
                known = read_cells(kept) | {cell: found}
                kept.write_text(json.dumps(known, indent=1))
    print_matrix(known, chosen, options.figure)


if __name__ == "__main__":
    main()
