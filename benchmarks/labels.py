"""The table of docs/evaluation.md: how well labels are recognised, by model, with the controls that keep it honest.

    python benchmarks/labels.py                                 # the Debian packages that are installed
    python benchmarks/labels.py --collection mine=/samples=folder --model spectral -k 5

Scans every collection into one index a model (kept in --indexes, so that a second run is quick), labels the files by
their names, and prints what `embedindex evaluate --controls` finds for each model, for the fusion of all, and for
metadata only and random numbers. A collection is NAME=FOLDER=RULE; rules are those of neighbours.py: folder, prefix,
drums, or a regular expression whose first group is the label. Groups are folders.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

from neighbours import label_of

from embedindex.errors import ModelError
from embedindex.evaluate import Evaluation, Figures, evaluate
from embedindex.label_store import FileLabel, add_import, given_labels
from embedindex.models import parse_request
from embedindex.records import Label
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from embedindex.writer import StoreWriter

COLLECTIONS = (
    "drum kits (hydrogen-drumkits)=/usr/share/hydrogen/data/drumkits=drums",
    "prefixes (sonic-pi-samples)=/usr/share/sonic-pi/samples=prefix",
    "folders (lmms-common)=/usr/share/lmms/samples=/samples/([^/]+)/",
)
KEY = "benchmark"


def index_of(collection: str, model: str, indexes: str, workers: int) -> str:
    """Return the index of a collection by a model, scanned and labelled."""
    name, folder, rule = collection.split("=", 2)
    path = os.path.join(indexes, "".join(char for char in f"{name}-{model}" if char.isalnum() or char in "-_"))
    scan(path, [os.fsencode(folder)], ScanOptions(request=parse_request(model), workers=workers))
    with StoreWriter(path) as store:
        if not given_labels(store, KEY):
            labels = []
            for record in store.files("status = 'ok'"):
                value = label_of(Path(record.text_path), rule)
                if value:
                    labels.append(FileLabel(record.id, Label(KEY, value, "pattern", 1.0)))
            add_import(store, "pattern", rule, labels)
    return path


def print_rows(name: str, result: Evaluation) -> None:
    """Print the Markdown rows of one collection."""
    for protocol in ("grouped", "leave_one_out"):
        for method in result.methods:
            figures: Figures | None = getattr(method, protocol)
            if figures is None:
                continue
            shown = "own folder excluded" if protocol == "grouped" else "leave-one-out"
            cells = (
                name,
                f"{shown}, {figures.files} files, {figures.groups} groups" if protocol == "grouped" else shown,
                f"{method.name}{' (control)' if method.control else ''}",
                f"{figures.accuracy:.3f}",
                f"{figures.plain_vote:.3f}",
                f"{figures.macro_f1:.3f}",
                f"{figures.map:.3f}",
                f"{figures.precision_at_10:.3f}",
                f"{figures.ece:.3f} ({figures.ece_noise:.3f})",
                f"{figures.accuracy_at_80:.3f}",
            )
            print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", action="append", metavar="NAME=FOLDER=RULE")
    parser.add_argument("--model", action="append", help="NAME or NAME:KEY=VALUE,…; may be repeated")
    parser.add_argument("-k", type=int, help="default: chosen by cross-validation")
    parser.add_argument("--indexes", default="/tmp/embedindex-labels", help="where the indexes are kept")  # noqa: S108
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    titles = ("collection", "judged", "model", "accuracy", "plain vote", "macro F1", "mAP", "P@10", "ECE (by chance)")
    print("| " + " | ".join((*titles, "80 % surest")) + " |")
    print("| --- " * (len(titles) + 1) + "|")
    started = time.monotonic()
    for collection in options.collection or COLLECTIONS:
        name, folder, _ = collection.split("=", 2)
        if not Path(folder).is_dir():
            print(f"left out: {folder} is not there", file=sys.stderr)
            continue
        stores = []
        for model in options.model or ("spectral", "aisfx"):
            try:
                stores.append(Store(index_of(collection, model, options.indexes, options.workers)))
            except ModelError as error:
                print(f"left out: {error}", file=sys.stderr)
        if stores:
            print_rows(name, evaluate(stores, KEY, k=options.k, controls=True, seed=options.seed))
        for store in stores:
            store.close()
    print(f"{platform.python_version()}, {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
