"""The table of docs/clusters.md: how well clusters, found without labels, agree with labels that are known.

    python benchmarks/clusters.py

Groups the files of the collections of labels.py and compares the clusters with their labels by adjusted mutual
information (0: no more than chance, 1: the same). The baseline gives every file a random cluster of the same sizes.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from labels import Collection, collections, index_of
from sklearn.metrics import adjusted_mutual_info_score

from embedindex.clusters import find_clusters
from embedindex.label_store import given_labels
from embedindex.store import Store

WAYS: tuple[tuple[str, dict[str, object]], ...] = (
    ("k-means, auto", {}),
    ("k-means, 8", {"count": 8}),
    ("k-means, 16", {"count": 16}),
    ("k-means, 32", {"count": 32}),
    ("HDBSCAN", {"method": "hdbscan"}),
    ("k-means of windows, auto", {"by": "windows"}),
)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", action="append", metavar="NAME=FOLDER=RULE")
    parser.add_argument("--model", default="spectral")
    parser.add_argument("--indexes", default="/tmp/embedindex-labels")  # noqa: S108
    options = parser.parse_args()
    print("| collection | way | clusters | in none | AMI with the labels | random | processor s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    given_by_name = [Collection(one.split("=")[0], *one.split("=", 2)) for one in options.collection or ()]
    named = collections(Path(options.indexes), ("drums", "sonic-pi", "lmms"))
    for collection in given_by_name or named:
        name, folder = collection.title, collection.folder
        if not Path(folder).is_dir():
            continue
        with Store(index_of(collection, options.model, Path(options.indexes), 0)) as store:
            given = {file_id: values[0] for file_id, values in given_labels(store, collection.name).items()}
            for way, arguments in WAYS:
                started = time.process_time()
                found = find_clusters(store, **arguments)  # type: ignore[arg-type]
                seconds = time.process_time() - started
                ids = [file_id for file_id in found.files if file_id in given]
                truth = [given[file_id] for file_id in ids]
                chosen = [found.files[file_id][0][0] if found.files[file_id] else -1 for file_id in ids]
                mixed = random.Random(0).sample(chosen, len(chosen))
                agree, chance = (adjusted_mutual_info_score(truth, numbers) for numbers in (chosen, mixed))
                left = found.unassigned / found.members
                row = (name, way, len(found.groups), f"{left:.0%}", f"{agree:.3f}", f"{chance:.3f}", f"{seconds:.1f}")
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
