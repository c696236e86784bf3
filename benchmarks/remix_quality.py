"""How good remixes are: fit, an unseen distance, joins, repeats, loudness and clicks, over some seeds of an index.

    python benchmarks/remix_quality.py --index DIR --seconds 8 SEED.wav SEED2.wav…

Of each seed the first seconds are remixed on a grid of 250 ms, and compared with random choices from all that was
proposed for any unit. The unseen distance is between log-mel spectra, frame by frame, which selection does not look at.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.descriptors import magnitude, mel_spectrogram, power_to_db
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.remix.compose import Composer
from embedindex.remix.loudness import true_peak_db, unit_lufs
from embedindex.remix.options import RemixOptions
from embedindex.remix.path import joins
from embedindex.remix.recipe import Recipe
from embedindex.remix.render import mixed_blocks
from embedindex.remix.units import parse_units
from embedindex.store import Store


def log_mel(samples: Float32Array, rate: int) -> Float32Array:
    """Return the log-mel spectrogram of (n, channels) samples in dB."""
    return power_to_db(mel_spectrogram(magnitude(samples.mean(axis=1)) ** 2, rate, 64))


def clicks(samples: Float32Array, times: list[int], rate: int) -> float:
    """Return the share of times whose second difference stands 6 dB above the 99th percentile around."""
    bend = np.abs(np.diff(samples.mean(axis=1), 2))
    near, around = round(0.003 * rate), round(0.05 * rate)
    loud = []
    for at in times:
        context = np.concatenate((bend[max(0, at - around) : at - near], bend[at + near : at + around]))
        loud.append(bend[max(0, at - near) : at + near].max() > 2 * np.quantile(context, 0.99) + 1e-6)
    return float(np.mean(loud))


def measure(composer: Composer, seed: Float32Array, rng: np.random.Generator) -> dict[str, float]:
    """Return the figures of one seed."""
    started = time.perf_counter()
    recipe = composer.recipe()
    placed = time.perf_counter()
    made = np.concatenate(list(mixed_blocks(recipe)))
    rendered = time.perf_counter()
    pool, rate = composer.pool, recipe.output.sample_rate
    units = [unit for unit in range(len(pool.lengths)) if len(pool.candidates[unit])]
    greedy = float(np.mean([pool.candidates[unit].costs.min() for unit in units]))
    nearest = {unit: int(np.argmin(pool.candidates[unit].costs)) for unit in units}
    pairs = [(left, left + 1) for left in units if left + 1 in nearest]
    rough = np.mean([joins(pool, left, right)[0][nearest[left], nearest[right]] for left, right in pairs])
    events = [event for event in recipe.events if event.source is not None]
    random = np.concatenate(list(mixed_blocks(_shuffled(recipe, rng))))
    own, ours, theirs = (log_mel(samples[: len(seed)], rate) for samples in (seed, made, random))
    errors = [
        abs(unit_lufs(made, rate, e.start, e.start + e.frames) - unit_lufs(seed, rate, e.start, e.start + e.frames))
        for e in events
        if not e.clamped
    ]
    cuts = [event.start for event in events[1:] if not event.follows]
    return {
        "target": float(np.mean([event.target for event in events])),
        "greedy": greedy,
        "join ratio": float(np.mean([event.join for event in events[1:]]) / rough),
        "unseen ratio": float(np.abs(own - ours).mean() / np.abs(own - theirs).mean()),
        "distinct": len({(event.source, event.source_start // 2000) for event in events}) / len(events),
        "loudness median LU": float(np.median(errors)),
        "loudness p95 LU": float(np.quantile(errors, 0.95)),
        "clamped": sum(event.clamped for event in events) / len(events),
        "clicks": clicks(made, cuts, rate) if cuts else 0.0,
        "clicks of seed": clicks(seed, cuts, rate) if cuts else 0.0,
        "true peak": true_peak_db(made),
        "placing s": placed - started,
        "rendering s": rendered - placed,
    }


def _shuffled(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    """Return a recipe that plays the same pieces at the wrong places."""
    order = rng.permutation(len(recipe.events))
    events = tuple(
        replace(event, source=other.source, source_start=other.source_start, follows=False)
        for event, other in zip(recipe.events, (recipe.events[i] for i in order), strict=True)
    )
    return replace(recipe, events=events)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--index", required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    rows = []
    with Store(options.index) as store, tempfile.TemporaryDirectory() as folder:
        view = load_view(store)
        model = QueryMaker(store, view.model).model
        for number, seed in enumerate(options.seeds):
            with AudioReader(seed, mono=False, block_s=options.seconds) as reader:
                samples = next(reader.blocks())
            path = Path(folder, f"{number}.wav")
            soundfile.write(path, samples, reader.facts.sample_rate, subtype="FLOAT")
            started = time.perf_counter()
            own = Path(seed).name
            cut = RemixOptions(cutting=parse_units("grid:250ms"), exclude=(own,))
            composer = Composer(store, view, model, str(path), cut)
            took = time.perf_counter() - started
            stereo = np.repeat(samples, 2, axis=1) if samples.shape[1] == 1 else samples
            row = {**measure(composer, stereo, np.random.default_rng(number)), "selecting s": took}
            rows.append(row)
            print(own, {key: round(value, 3) for key, value in row.items()}, flush=True)
    print("mean", {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]})
    print("seeds nearer than shuffled:", sum(row["unseen ratio"] < 1 for row in rows), "of", len(rows))


if __name__ == "__main__":
    main()
