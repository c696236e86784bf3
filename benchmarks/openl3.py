"""Windows a second of OpenL3's engines and precisions, same machine, same run, same audio, from samples to vectors.

    python benchmarks/openl3.py --weights FILE.h5 [--official-source DIR --official-python PYTHON]
                                [--tensorflow-python PYTHON] [--model aisfx] [--windows 60] [--repeats 3]

Each engine runs in a process of its own, restricted to as many cores as it has threads; the contestants take turns
`--repeats` times and the best and the median count, by wall clock and by processor time, as a shared machine slows
whoever happens to run. `--official-source` is a folder with the official `openl3` package, run by `--official-python`,
an interpreter that has its dependencies. OpenVINO takes part where it is installed, in bf16. int8 and bf16 are the
variants stored for these weights, whatever was decided about them; with `--variant N`, int8 is the Nth of
`embedindex.models.quantise.VARIANTS`, counted from 0 and prepared for this run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if sys.path[0] == str(ROOT / "benchmarks"):
    del sys.path[0]  # this file is not the package openl3


@dataclass
class Contestant:
    """One engine at one precision, and its results: (wall seconds, processor seconds) for all windows."""

    name: str
    python: str
    arguments: list[str]
    runs: list[tuple[float, float]] = field(default_factory=list)
    front_end_s: float = 0.0


def samples(windows: int, rate: int, length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return sounds as long as `windows` windows, synthesised; the same for every contestant."""
    from embedindex.models.calibration import synthesise_windows

    return synthesise_windows(min(windows, 18), length, rate, 11)[np.arange(windows) % 18]


def run_here(options: argparse.Namespace) -> dict[str, float]:
    """Measure one contestant in this process; returns seconds for all windows."""
    sounds = np.load(options.sounds)
    if options.run == "official":
        embed, front_end_s = official_embed(options), 0.0
    else:
        embed, front_end_s = our_embed(options, sounds)
    embed(sounds[:8])
    began, used = time.perf_counter(), time.process_time()
    embed(sounds)
    return {"wall": time.perf_counter() - began, "cpu": time.process_time() - used, "front_end": front_end_s}


def our_embed(options: argparse.Namespace, sounds: Any) -> tuple[Any, float]:
    """Return embedindex's function and the seconds its front end needs for `sounds` on one thread."""
    from embedindex.models import load_model
    from embedindex.models.base import ModelRequest

    precision, engine = options.run.split("@")
    request = ModelRequest(options.model, (), options.weights, precision, engine, options.threads)
    model = load_model(request)
    if options.model != "openl3":
        return model.embed, 0.0
    from embedindex.models.openl3_frontend import spectrograms

    spectrograms(sounds[:2], "mel256")
    began = time.process_time()
    spectrograms(sounds, "mel256")
    return model.embed, time.process_time() - began


def official_embed(options: argparse.Namespace) -> Any:
    """Return the official package's function: its own path from samples to vectors."""
    sys.path.insert(0, options.official_source)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    core, models = import_module("openl3.core"), import_module("openl3.models")
    model = models.load_audio_embedding_model_from_path(options.weights, "mel256", 512, frontend="kapre")

    def embed(sounds: Any) -> Any:
        whole = sounds.reshape(-1)
        return core.get_audio_embedding(whole, 48000, model=model, center=False, hop_size=1.0, verbose=0)[0]

    return embed


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """Return who takes part."""
    entered = [
        Contestant(f"{options.model} onnxruntime {name}", sys.executable, [f"{name}@onnxruntime"])
        for name in options.precisions
    ]
    if options.model == "openl3" and find_spec("openvino"):
        entered.append(Contestant("openl3 openvino bf16", sys.executable, ["bf16@openvino"]))
    if options.model == "openl3" and options.tensorflow_python:
        entered.append(Contestant("openl3 tensorflow fp32", options.tensorflow_python, ["fp32@tensorflow"]))
    if options.model == "openl3" and options.official_source:
        entered.append(Contestant("official openl3 0.4.2", options.official_python, ["official"]))
    return entered


def measure(contestant: Contestant, options: argparse.Namespace, threads: int, sounds: Path) -> None:
    """Run a contestant once, in its own process on `threads` cores."""
    command = [contestant.python, __file__, "--run", *contestant.arguments, "--threads", str(threads)]
    command += ["--model", options.model, "--sounds", str(sounds)]
    command += ["--weights", options.weights] if options.weights else []
    command += ["--official-source", options.official_source] if options.official_source else []
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["OMP_NUM_THREADS"] = str(threads)
    if "official" in contestant.arguments:  # its interpreter has its own, older libraries
        environment.pop("PYTHONPATH", None)
    cores = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run(
        command,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"{contestant.name} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    contestant.runs.append((result["wall"], result["cpu"]))
    contestant.front_end_s = result["front_end"]


def prepare(options: argparse.Namespace) -> str:
    """Prepare that int8 variant; return what was measured."""
    from embedindex.models import openl3, quantise
    from embedindex.models.weights import find_openl3

    setattr(quantise, "VARIANTS", quantise.VARIANTS[options.variant :][:1])  # noqa: B010
    return openl3.prepare(find_openl3("mel256", "music", weights=options.weights)).message


def main() -> None:
    """Parse, run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="openl3")
    parser.add_argument("--weights")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--official-source")
    parser.add_argument("--official-python", default=sys.executable)
    parser.add_argument("--tensorflow-python")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "int8"])
    parser.add_argument("--variant", type=int)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sounds", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_here(options)))
        return
    rate, length = (48000, 48000) if options.model == "openl3" else (44100, 103424)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sounds = Path(folder) / "sounds.npy"
        np.save(sounds, samples(options.windows, rate, length))
        if options.variant is not None:
            os.environ["EMBEDINDEX_MODELS"] = folder
            print(prepare(options))
        for threads in (1, 2):
            entered = contestants(options)
            for _ in range(options.repeats):
                for contestant in entered:
                    measure(contestant, options, threads, sounds)
            report(entered, threads, options.windows)


def report(entered: list[Contestant], threads: int, windows: int) -> None:
    """Print a table of windows a second, processor milliseconds a window, ratios to the official code or float32."""
    print(f"\n{threads} thread{'s' if threads > 1 else ''}, {windows} windows, load {os.getloadavg()[0]:.1f}")
    print(f"{'':28s} {'windows/s':>10s} {'median':>8s} {'ratio':>6s} {'CPU ms':>8s} {'ratio':>6s} {'front end':>10s}")
    base = next((contestant for contestant in entered if "official" in contestant.arguments), entered[0])
    base_wall, base_cpu = (min(run[part] for run in base.runs) for part in (0, 1))
    for contestant in entered:
        walls, cpus = zip(*contestant.runs, strict=True)
        share = f"{contestant.front_end_s / min(cpus):.0%}" if contestant.front_end_s else ""
        print(
            f"{contestant.name:28s} {windows / min(walls):10.1f} {windows / statistics.median(walls):8.1f} "
            f"{base_wall / min(walls):6.2f} {1e3 * min(cpus) / windows:8.1f} {base_cpu / min(cpus):6.2f} {share:>10s}",
            flush=True,
        )


if __name__ == "__main__":
    main()
