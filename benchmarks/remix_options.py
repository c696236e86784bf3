"""What `remix --layers hp`, `--stretch` and `--pitch` cost, and whether joins, levels and lengths hold with them.

    python benchmarks/remix_options.py --index DIR --seconds 8 SEED.wav SEED2.wav…

Some seconds of each seed are remixed in each way, one after the other in one process, once before to describe files.
Loudness is compared with that of the layer's own part of the seed. Times are processor time for a second of sound.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from remix_quality import clicks

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.remix.apart import WHOLE, PartsComposer
from embedindex.remix.breakpoints import Breakpoints
from embedindex.remix.compose import Composer, Sound
from embedindex.remix.loudness import integrated_lufs, true_peak_db, unit_lufs
from embedindex.remix.master import write_master
from embedindex.remix.options import RemixOptions
from embedindex.remix.placing import Bending
from embedindex.remix.recipe import Recipe
from embedindex.remix.render import layer_blocks, mixed_blocks
from embedindex.remix.seed import read_seed
from embedindex.remix.separation import separated, write_parts
from embedindex.remix.units import parse_units
from embedindex.store import Store

BENT = Bending(Breakpoints((0.0,), (0.2,)), Breakpoints((0.0,), (3.0,)))
WAYS = {"plain": Sound(), "--layers hp": Sound(split="hp"), "--stretch .2 --pitch 3": Sound(bending=BENT)}
TARGETS = {
    "loudness median LU": "<= 0.5",
    "loudness p95 LU": "<= 2",
    "whole LU": "<= 0.5",
    "true peak dBTP": "<= -1",
    "clicks over seed": "<= 0.05",
    "frames off": "0",
}


def parts_of(samples: Float32Array, rate: int) -> list[Float32Array]:
    """Return the harmonic and the percussive part of (n, channels) samples."""
    blocks = (samples[start : start + rate] for start in range(0, len(samples), rate))
    return [np.concatenate(pieces) for pieces in zip(*separated(blocks, rate), strict=True)]


def measure(recipe: Recipe, seed: Float32Array, path: Path) -> dict[str, float]:
    """Return the figures of one remix of (n, 2) samples; it is written to `path`."""
    rate = recipe.output.sample_rate
    used = time.process_time()
    made = np.concatenate(list(mixed_blocks(recipe)))
    rendering = (time.process_time() - used) / (len(made) / rate)
    written = write_master(str(path), iter([made]), recipe.output)
    finished = soundfile.read(path, dtype="float32", always_2d=True)[0]
    errors, joins = [], []
    for layer, part in enumerate(parts_of(seed, rate) if recipe.output.split else [seed]):
        plain = np.concatenate(list(layer_blocks(recipe, layer)))
        for event in (event for event in recipe.events if event.layer == layer and event.source is not None):
            end = event.start + event.frames
            if not event.clamped:
                errors.append(abs(unit_lufs(plain, rate, event.start, end) - unit_lufs(part, rate, event.start, end)))
            if not event.follows and rate // 10 < event.start < len(seed) - rate // 10:
                joins.append(event.start)
    sounding = [event for event in recipe.events if event.source is not None]
    return {
        "loudness median LU": float(np.median(errors)) if errors else 0.0,
        "loudness p95 LU": float(np.quantile(errors, 0.95)) if errors else 0.0,
        "whole LU": abs(integrated_lufs(finished, rate) - integrated_lufs(seed, rate)),
        "true peak dBTP": max(written.true_peak_db, true_peak_db(finished)),
        "clicks over seed": clicks(made, joins, rate) - clicks(seed, joins, rate) if joins else 0.0,
        "frames off": float(abs(len(finished) - len(seed))),
        "units": float(len(sounding)),
        "clamped": sum(event.clamped for event in sounding) / max(1, len(sounding)),
        "stretched": sum(event.stretch != 1 for event in sounding) / max(1, len(sounding)),
        "transposed": sum(event.semitones != 0 for event in sounding) / max(1, len(sounding)),
        "rendering CPU s/s": rendering,
    }


def cut_out(seeds: list[str], seconds: float, folder: Path) -> Iterator[tuple[str, Path, Float32Array]]:
    """Yield name, path and (n, 2) samples of the second stretch of so many seconds of each seed, or of its first."""
    for number, name in enumerate(seeds):
        with AudioReader(name, mono=False, block_s=seconds) as reader:
            blocks = reader.blocks()
            first = next(blocks)
            second = next(blocks, first)
            samples = second if len(second) == len(first) else first
            rate = reader.facts.sample_rate
        path = folder / f"seed {number}.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        yield Path(name).name, path, np.repeat(samples, 2, axis=1) if samples.shape[1] == 1 else samples[:, :2]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--index", required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--units", default="auto")
    parser.add_argument("--exclude", action="append", default=[], help="no files with this glob; may be repeated")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with Store(options.index) as store, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = load_view(store)
        model = QueryMaker(store, view.model).model
        for own, path, samples in cut_out(options.seeds, options.seconds, folder):
            chosen = RemixOptions(cutting=parse_units(options.units), exclude=(own, *options.exclude))
            for warm in (False, True):
                for way, sound in WAYS.items():
                    used = time.process_time()
                    if sound.split:
                        files = write_parts(bytes(path), name)
                        whole = read_seed(bytes(path), WHOLE)
                        recipe = PartsComposer(store, view, model, whole, files, chosen, sound).recipe()
                    else:
                        recipe = Composer(store, view, model, bytes(path), chosen, sound).recipe()
                    if warm:
                        duration_s = recipe.output.frames / recipe.output.sample_rate
                        choosing = {"choosing CPU s/s": (time.process_time() - used) / duration_s}
                        rows[way].append(measure(recipe, samples, folder / "made.wav") | choosing)
                        print(own, way, {key: round(value, 3) for key, value in rows[way][-1].items()}, flush=True)
    for way, found in rows.items():
        print(way)
        for key in found[0]:
            values = [row[key] for row in found]
            spread = f"{min(values):8.3f} … {max(values):8.3f}"
            print(f"  {key:20} mean {np.mean(values):8.3f}   {spread}   {TARGETS.get(key, '')}")


if __name__ == "__main__":
    main()
