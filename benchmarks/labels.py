"""The first table of docs/evaluation.md: how well labels are recognised, by model, beside the controls.

    python benchmarks/labels.py --keep ~/labels                      # the Debian packages that are installed
    python benchmarks/labels.py --collection mine=/samples=folder --model spectral

Scans every collection into one index a model, labels the files by their names, and prints for each model, for random
weights and numbers and for metadata only what `embedindex evaluate` finds. Groups are folders. What is in --keep is
used again; label_matrix.py asks every method of `train`, too. A collection is NAME=FOLDER=RULE; rules are those of
neighbours.py (folder, prefix, drums, or a regular expression whose first group is the label) and drums13.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from label_excerpts import soundtracks, types
from label_fonts import instruments, percussion
from label_mix import mix
from neighbours import label_of

from embedindex.arrays import Float16Array
from embedindex.embed import embed_file
from embedindex.errors import ModelError
from embedindex.evaluate import Evaluation, Figures, Method, evaluate, judge
from embedindex.label_store import FileLabel, add_import, given_labels
from embedindex.labelled import Labelled
from embedindex.likeness import sounds_as_set
from embedindex.models import Model, parse_request
from embedindex.records import Label
from embedindex.scan import ScanOptions, scan
from embedindex.space import Space
from embedindex.store import Store
from embedindex.views import learn_views
from embedindex.writer import StoreWriter

# Coarser than `drums` of neighbours.py, near to what the reference figures were made with (13 types, 592 one-shots).
COARSER = {"hat half open": "hat open", "hat pedal": "hat closed", "loop": None}


@dataclass(frozen=True)
class Collection:
    """Labelled sounds: a short name, a title, the folder, and the rule that reads a label off a path."""

    name: str
    title: str
    folder: str
    rule: str

    @property
    def index(self) -> str:
        """The name of its indexes; collections of one folder share them."""
        return "".join(char if char.isalnum() else "-" for char in self.folder.strip("/"))


def collections(keep: Path, only: Sequence[str] = ()) -> Iterator[Collection]:
    """Yield what Debian packages offer, or of it what is named; excerpts are cut when their turn comes."""
    kits = "/usr/share/hydrogen/data/drumkits"
    known: tuple[tuple[str, str, Callable[[], str], str], ...] = (
        ("drums13", "drum kits, 13 types", lambda: kits, "drums13"),
        ("drums", "drum kits, finer types", lambda: kits, "drums"),
        ("sonic-pi", "sonic-pi prefixes", lambda: "/usr/share/sonic-pi/samples", "prefix"),
        ("lmms", "LMMS folders", lambda: "/usr/share/lmms/samples", "/samples/([^/]+)/"),
        ("types", "speech, music, effects…", lambda: types(keep / "types"), "/types/([^/]+)/"),
        ("mix", "speech, music, ambience", lambda: mix(keep / "mix"), r"/mix/[^/]+/(speech|music|ambience)-"),
        ("mix4", "speech, music, ambience, effects", lambda: mix(keep / "mix"), r"/mix/[^/]+/([a-z]+)-"),
        ("soundtracks", "game soundtracks", lambda: soundtracks(keep / "soundtracks"), "folder"),
        ("instruments", "General MIDI families", lambda: instruments(keep / "instruments"), r"/([a-z ]+)-\d+\.wav$"),
        ("percussion", "General MIDI drums", lambda: percussion(keep / "percussion"), r"/([a-z ]+)_\d+_\d+\.wav$"),
    )
    for name, title, folder, rule in known:
        if not only or name in only:
            yield Collection(name, title, folder(), rule)


def read_label(path: Path, rule: str) -> str | None:
    """Return a file's label by a rule."""
    if rule != "drums13":
        return label_of(path, rule)
    label = label_of(path, "drums")
    return COARSER.get(label, label) if label else None


def index_of(collection: Collection, model: str, keep: Path, workers: int) -> str:
    """Return the index of a collection by a model, scanned and labelled."""
    path = str(keep / f"{collection.index}-{model}")
    options = ScanOptions(request=parse_request(model), workers=workers, niceness=0)
    scan(path, [os.fsencode(collection.folder)], options)  # of what is there, only what is new
    with StoreWriter(path) as store:
        if not given_labels(store, collection.name):
            labels = []
            for record in store.files("status = 'ok'"):
                value = read_label(Path(record.text_path), collection.rule)
                if value:
                    labels.append(FileLabel(record.id, Label(collection.name, value, "pattern", 1.0)))
            add_import(store, "pattern", collection.rule, labels)
    return path


def random_network(seed: int) -> Model:
    """Return aisfx with random weights (He et al. 2015), everything else as it is."""
    from embedindex.models.aisfx import AisfxModel, load, read_network
    from embedindex.models.aisfx_weights import find_aisfx
    from embedindex.models.base import ModelRequest
    from embedindex.models.convnet_onnx import build
    from embedindex.models.engines import OnnxNetwork

    random = np.random.default_rng(seed)
    net = read_network(find_aisfx(weights=None))
    layers = []
    for layer in net.layers:
        spread = np.sqrt(2.0 / np.prod(layer.kernel.shape[1:]))
        kernel = random.standard_normal(layer.kernel.shape) * spread
        layers.append(replace(layer, kernel=kernel.astype(np.float32), bias=np.zeros_like(layer.bias)))
    content = build(replace(net, layers=tuple(layers)))
    sha256 = hashlib.sha256(content).hexdigest()
    identity = replace(load(ModelRequest("aisfx")).identity, name="random", weights_sha256=None)
    return AisfxModel(identity, OnnxNetwork(content, sha256, 1))


def random_vectors(labelled: Labelled, kept: Path, seed: int) -> list[Float16Array]:
    """Return the vectors of files by a network with random weights, without silent ones; they are kept in `kept`."""
    model = random_network(seed)
    known = dict(np.load(kept)) if kept.exists() else {}
    sounds = []
    for record in labelled.records:
        if record.text_path not in known:
            known[record.text_path] = embed_file(record.path, model, model.default_hop_s, content_hash=b"").vectors
        vectors = known[record.text_path]
        loud = vectors[vectors.any(axis=1)]
        sounds.append(loud if len(loud) else np.ones((1, vectors.shape[1]), np.float16))
    np.savez(kept, **known)
    return sounds


def random_weights(result: Evaluation, kept: Path, seed: int) -> Method:
    """Return how the same files are judged by a network with random weights, whose vectors are kept in `kept`."""
    labelled, plain = result.labelled, Space("plain")
    files = sounds_as_set(random_vectors(labelled, kept, seed), plain)
    table = learn_views(files, labelled.groups, plain, seed).likeness(files, files)
    alone = np.arange(len(labelled), dtype=np.int64)
    grouped = judge(table, labelled, labelled.groups, result.k, seed)
    return Method("random weights", True, grouped, judge(table, labelled, alone, result.k, seed))


def cells(figures: Figures) -> list[str]:
    """Return what the table shows last."""
    gain = 100 * (figures.accuracy_at_80 - figures.accuracy)
    return [
        f"{figures.macro_f1:.3f}",
        f"{figures.ece:.3f} ({figures.ece_noise:.3f}, {figures.ece_noise_groups:.3f})",
        f"{figures.accuracy_at_80:.3f} ({gain:+.1f})",
    ]


def print_row(*row: str) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(row) + " |", flush=True)


def print_head(*titles: str) -> None:
    """Print the head of a Markdown table."""
    print()
    print_row(*titles)
    print("|" + " --- |" * len(titles), flush=True)


def print_models(title: str, methods: Sequence[Method]) -> None:
    """Print the rows of one collection in the table of models."""
    for protocol, name in (("grouped", "own folder excluded"), ("leave_one_out", "leave-one-out")):
        for method in methods:
            figures: Figures | None = getattr(method, protocol)
            if figures is None:
                continue
            shown = f"{name}, {figures.files} files" + (f", {figures.groups} groups" if protocol == "grouped" else "")
            control = f"{method.name} (control)" if method.control else method.name
            ranked = [f"{figures.map:.3f}", f"{figures.precision_at_10:.3f}"]
            accuracy = [f"{figures.accuracy:.3f}", f"{figures.plain_vote:.3f}"]
            print_row(title, shown, control, *accuracy, *ranked, *cells(figures))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, default=Path("/tmp/embedindex-labels"), help="indexes, excerpts")  # noqa: S108
    parser.add_argument("--collection", action="append", metavar="NAME=FOLDER=RULE")
    parser.add_argument("--only", help="names of collections, separated by commas")
    parser.add_argument("--model", action="append", help="NAME or NAME:KEY=VALUE,…; may be repeated")
    parser.add_argument("-k", type=int, help="neighbours (default: as `genre` chooses)")
    parser.add_argument("--random-weights", action="store_true", help="also a network with random weights (slow)")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = collections(options.keep, options.only.split(",") if options.only else ())
    if options.collection:
        chosen = iter([Collection(one.split("=")[0], *one.split("=", 2)) for one in options.collection])
    judged = ("collection", "judged", "model", "accuracy", "plain vote", "mAP", "P@10")
    quality = ("macro F1", "ECE (by chance: files, groups)", "80 % surest")
    started = time.monotonic()
    print_head(*judged, *quality)
    for collection in chosen:
        if not Path(collection.folder).is_dir():
            print(f"left out: {collection.folder} is not there", file=sys.stderr)
            continue
        with ExitStack() as stack:
            stores = []
            for model in options.model or ("aisfx+spectral", "aisfx", "spectral"):
                try:
                    stores.append(
                        stack.enter_context(Store(index_of(collection, model, options.keep, options.workers)))
                    )
                except ModelError as error:
                    print(f"left out: {error}", file=sys.stderr)
            if not stores:
                continue
            results = [
                evaluate([store], collection.name, k=options.k, controls=number == 0, seed=options.seed)
                for number, store in enumerate(stores)
            ]
            models = [method for result in results for method in result.methods]
            if options.random_weights:
                kept = options.keep / f"{collection.index}-random-{options.seed}.npz"
                models.append(random_weights(results[0], kept, options.seed))
            print_models(collection.title, sorted(models, key=lambda method: method.control))
    print(f"{platform.python_version()}, {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
