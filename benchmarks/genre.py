"""How long does tagging a big library take? Synthetic vectors, a real index, the real command's code.

    python benchmarks/genre.py --files 100000 --labelled 5000 --windows 2

Makes an index of files whose vectors are noisy copies of class centres (no sound is read), then learns a judge from the
labelled files and judges all others, once with what is found written to the database. Prints the seconds of each step
and the accuracy, which only shows that the answers are not nonsense: the classes are easy by construction.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import print_report

from embedindex.audio import AudioFacts
from embedindex.embed import FileEmbedding
from embedindex.file_stat import FileStat
from embedindex.genre import judge_files, learn_judge, unlabelled
from embedindex.label_store import FileLabel, add_import, given_labels, put_predictions
from embedindex.models import ModelIdentity, ModelRequest
from embedindex.records import Label
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.writer import StoreWriter

HOP_S = 1.0


def make_index(folder: str, options: argparse.Namespace) -> None:
    """Write the synthetic index; file ``n`` is of class ``n % classes``."""
    random = np.random.default_rng(options.seed)
    centres = random.standard_normal((options.classes, options.dimension))
    identity = ModelIdentity("synthetic", 8000, 8000, options.dimension)
    facts = AudioFacts("wav", "pcm_16", 8000, 1, options.windows * HOP_S, "none")
    with StoreWriter(folder) as store, store.transaction():
        store.use_model(identity, ModelRequest("synthetic"), HOP_S)
        root = store.put_root(b"/synthetic", None)
        labels = []
        for number in range(options.files + options.labelled):
            kind = number % options.classes
            vectors = centres[kind] + 2.0 * random.standard_normal((options.windows, options.dimension))
            made = FileEmbedding(
                content_hash=number.to_bytes(16, "little"),
                vectors=vectors.astype(np.float16),
                silent=0,
                hop_s=HOP_S,
                facts=facts,
                tags=Tags(),
                duration_s=options.windows * HOP_S,
                peak=1.0,
                note=None,
            )
            path = f"/synthetic/{number % 997}/{number}.wav".encode()
            file_id = store.put_file(path, root, FileStat(1, 1, 1, number), made)
            if number >= options.files:
                labels.append(FileLabel(file_id, Label("genre", f"class {kind}", "file", 1.0)))
        add_import(store, "file", "benchmark", labels)


def clocks() -> tuple[float, float]:
    """Return seconds by the wall and of all processors."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--labelled", type=int, default=5000)
    parser.add_argument("--windows", type=int, default=2, help="windows of each file")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", help="keep the synthetic index there, and use it if it is there already")
    parser.add_argument("--quick", action="store_true", help="few files: only to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.files, options.labelled, options.dimension = 500, 200, 32
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.index or temporary
        if not Path(folder, "embedindex.db").exists():
            make_index(folder, options)
        started = clocks()
        with Store(folder) as store:
            records = unlabelled(store, given_labels(store, "genre"))
            judge = learn_judge(store, "genre", queries=(len(records), float(options.windows)))
            learnt = clocks()
            judged = list(judge_files(judge, store, records))
        done = clocks()
        with StoreWriter(folder) as writer:
            put_predictions(writer, "genre", "knn", "benchmark", ((i, list(said.labels())) for i, said in judged))
        written = clocks()
        path_of = {record.id: record.text_path for record in records}
        right = sum(said.values[0][0] == f"class {int(Path(path_of[i]).stem) % options.classes}" for i, said in judged)
    rows = [
        [what, *(f"{after - before:.1f} s" for before, after in zip(since, until, strict=True))]
        for what, since, until in (
            ("learning", started, learnt),
            ("judging", learnt, done),
            ("writing", done, written),
            ("in all", started, written),
        )
    ]
    notes = [
        (
            f"{len(judged):,} files of {options.windows} windows, {options.dimension} dimensions, judged by "
            f"{len(judge.labelled):,} labelled ones; {right / max(1, len(judged)):.1%} right (synthetic)."
        )
    ]
    print_report("Tagging files by their labelled neighbours", ["what", "wall", "processors"], rows, notes)


if __name__ == "__main__":
    main()
