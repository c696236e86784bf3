"""How long a search takes from nothing: `embedindex similar clip.wav` on 100,000 windows, cold processes, medians.

    python benchmarks/cold_similar.py [--windows 100000] [--runs 7] [--quick]

The index is written through the store, without sound files: vectors of the built-in model for synthesised sounds are
the centres, every file lies at one of them, moved at random by a part of the spread between them, and its windows are
scattered around it. The clip (3 s, 44.1 kHz, stereo) is not in the index. The stages are timed inside further cold
processes. Targets: 1.5 s in all, of which 50 ms for the search itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import embedindex, library_sound, median_cpu_s, median_wall_s, print_report, repeat, run_cold

WINDOWS_A_FILE = 10
CENTRES = 270
FILE_SPREAD = 0.5  # of the standard deviation between the centres
WINDOW_SPREAD = 0.25
CLIP_S = 3.0
STAGES = ("import", "open the index", "embed the clip", "search")


def write_index(folder: str, windows: int) -> None:
    """Write an index of `windows` windows of the built-in model, and its search index."""
    from embedindex.decoders import AudioFacts
    from embedindex.embed import FileEmbedding
    from embedindex.file_stat import FileStat
    from embedindex.index_refresh import refresh_index
    from embedindex.models import ModelRequest, load_model
    from embedindex.models.calibration import synthesise_windows
    from embedindex.tags import Tags
    from embedindex.writer import StoreWriter

    request = ModelRequest("spectral")
    model = load_model(request)
    identity = model.identity
    centres = model.embed(
        synthesise_windows(min(CENTRES, max(9, windows // 20)), identity.window_samples, identity.sample_rate, 1)
    )
    centres = centres[centres.any(axis=1)]
    spread = centres.std(axis=0)
    random = np.random.default_rng(2)
    duration_s = WINDOWS_A_FILE * model.default_hop_s
    facts = AudioFacts("wav", "pcm_16", 44100, 2, duration_s, "libsndfile")
    with StoreWriter(folder) as store:
        store.use_model(identity, request, model.default_hop_s)
        root_id = store.put_root(b"/library", None)
        with store.transaction():
            for number in range(max(1, windows // WINDOWS_A_FILE)):
                place = centres[random.integers(len(centres))] + FILE_SPREAD * spread * random.standard_normal(
                    len(spread)
                )
                vectors = place + WINDOW_SPREAD * spread * random.standard_normal((WINDOWS_A_FILE, len(spread)))
                content = FileEmbedding(
                    content_hash=number.to_bytes(16, "little"),
                    vectors=vectors.astype(np.float16),
                    silent=0,
                    hop_s=model.default_hop_s,
                    facts=facts,
                    tags=Tags(),
                    duration_s=duration_s,
                    peak=1.0,
                )
                path = b"/library/%03d/%06d.wav" % (number // 100, number)
                store.put_file(path, root_id, FileStat(1, 1, 1, number + 1), content)
        refresh_index(store)


def time_stages(folder: str, clip: str) -> dict[str, tuple[float, float]]:
    """Return (elapsed, processor) seconds of each stage of a search in this process, which must be fresh."""
    seconds: dict[str, tuple[float, float]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began, used = time.perf_counter(), time.process_time()
        yield
        seconds[name] = time.perf_counter() - began, time.process_time() - used

    with stage("import"):
        import faiss  # noqa: F401

        from embedindex.index import load_view
        from embedindex.query import QueryMaker
        from embedindex.search import search
        from embedindex.store import Store
    with Store(folder) as store:
        with stage("open the index"):
            view = load_view(store)
        with stage("embed the clip"):
            query = QueryMaker(store, view.model).from_file(clip)
        with stage("search"):
            hits = search(store, view, [query], k=10)
    assert hits
    return seconds


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="500 windows, one run: only to see that it works")
    parser.add_argument("--stages", nargs=2, metavar=("INDEX", "CLIP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stages:
        print(json.dumps(time_stages(*options.stages)))
        return
    windows, count = (500, 1) if options.quick else (options.windows, options.runs)
    with tempfile.TemporaryDirectory() as temporary:
        folder, clip = str(Path(temporary, "index")), str(Path(temporary, "clip.wav"))
        write_index(folder, windows)
        mono = library_sound(CLIP_S, 44100, seed=3)
        sf.write(clip, np.stack([mono, 0.5 * mono], axis=1), 44100)
        command = embedindex("similar", clip, "--index", folder, "--json")
        runs = repeat(count, lambda: run_cold(command))
        assert len(json.loads(runs[0].output)["results"]) == 10
        alone = {"OPENBLAS_NUM_THREADS": "1"}  # as the command has it
        inside = repeat(count, lambda: run_cold([sys.executable, __file__, "--stages", folder, clip], alone))
    stages = [json.loads(run.output) for run in inside]
    rows = [["embedindex similar clip.wav", f"{median_wall_s(runs):.3f} s", f"{median_cpu_s(runs):.3f} s"]]
    for name in STAGES:
        wall_s, cpu_s = (statistics.median(times) for times in zip(*(run[name] for run in stages), strict=True))
        rows.append([f"… {name}", f"{wall_s:.3f} s", f"{cpu_s:.3f} s"])
    notes = [f"Medians of {count} cold processes; the stages are of other processes than the first line."]
    notes.append("Targets: 1.5 s, search 0.050 s.")
    print_report(f"A search from nothing among {windows:,} windows", ["what", "wall", "CPU"], rows, notes)


if __name__ == "__main__":
    main()
