"""How good remixes are: fit, an unseen distance, joins, repeats, loudness, clicks, speed, over some seeds.

    python benchmarks/remix_quality.py --index DIR --seconds 8 SEED.wav SEED2.wav…

Of each seed some seconds are remixed, and compared with stretches drawn at random from the library and brought to the
right levels: by what selection weighs (fit), and by what it never saw (log-mel spectra, frame by frame: unseen).
Each figure is printed beside its target. Choose weights on some packages, report on others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.descriptors import magnitude, mel_spectrogram, power_to_db
from embedindex.errors import AudioError
from embedindex.index import IndexView, load_view
from embedindex.query import QueryMaker
from embedindex.records import FileRecord
from embedindex.remix.coarse import CoarseStore
from embedindex.remix.compose import Composer
from embedindex.remix.frames import FRAMES_PER_S
from embedindex.remix.loudness import unit_lufs
from embedindex.remix.options import WEIGHTS, RemixOptions, always
from embedindex.remix.path import find_path, joins
from embedindex.remix.proposals import allowed_windows
from embedindex.remix.qualities import distances
from embedindex.remix.qualities import measure as measure_stretch
from embedindex.remix.recipe import Recipe
from embedindex.remix.render import mixed_blocks
from embedindex.remix.seed import unit_times_s
from embedindex.remix.sources import source_of_record
from embedindex.remix.stretches import SILENT_DB
from embedindex.remix.tracks import TrackCache
from embedindex.remix.units import parse_units
from embedindex.store import Store
from embedindex.windows import window_start_s


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


@dataclass(frozen=True)
class Drawn:
    """A stretch drawn at random from the library in place of a unit: where, how loud, how far from the unit."""

    record: FileRecord
    start_s: float
    level_db: float
    cost: float


def draw(
    composer: Composer, store: Store, view: IndexView, options: RemixOptions, rng: np.random.Generator
) -> list[Drawn]:
    """Return a stretch for every unit."""
    pool = composer.pool
    drawn: list[Drawn] = []
    allowed = allowed_windows(store, view, options)
    windows = np.arange(view.next_window) if allowed is None else np.flatnonzero(allowed)
    with CoarseStore(store.folder) as kept:
        cache = TrackCache(kept)
        while len(drawn) < len(pool.lengths):
            window = int(rng.choice(windows))
            owner = int(store.owners_of_windows(np.array([window]))[0])
            if owner < 0:
                continue
            record = store.file(owner)
            unit = len(drawn)
            length = int(pool.lengths[unit])
            start_s = window_start_s(window - (record.first_window or 0), record.hop_s or view.model.hop_s)
            start = round(start_s * FRAMES_PER_S)
            try:
                first, track = cache.coarse(record, start, start + length)
            except AudioError:
                continue
            here = measure_stretch(track.frames, np.array([max(0, start - first)]), length)
            if here.level[0] < SILENT_DB:
                continue
            apart = distances(pool.units.take(np.array([unit])), here, pool.scales)
            # Cosines of what was not proposed are below those of what was: this favours the random choice.
            least_alike = 1 - float(pool.candidates[unit].similarity.min()) if len(pool.candidates[unit]) else 1.0
            share = min(1.0, len(track.frames) / length)
            own = WEIGHTS["embedding"] * least_alike + WEIGHTS["duration"] * (1 - share)
            cost = own + sum(WEIGHTS[name] * float(values[0]) for name, values in apart.items())
            drawn.append(Drawn(record, start_s, float(here.level[0]), cost))
    return drawn


def measure(
    composer: Composer,
    seed: Float32Array,
    rng: np.random.Generator,
    store: Store,
    view: IndexView,
    options: RemixOptions,
) -> dict[str, float]:
    """Return the figures of one seed."""
    started, used = time.perf_counter(), time.process_time()
    recipe = composer.recipe()
    placed, placed_used = time.perf_counter(), time.process_time()
    made = np.concatenate(list(mixed_blocks(recipe)))
    rendered, rendered_used = time.perf_counter(), time.process_time()
    pool, rate = composer.pool, recipe.output.sample_rate
    units = [unit for unit in range(len(pool.lengths)) if len(pool.candidates[unit])]
    greedy = float(np.mean([pool.candidates[unit].costs.min() for unit in units]))
    nearest = {unit: int(np.argmin(pool.candidates[unit].costs)) for unit in units}
    pairs = [(left, left + 1) for left in units if left + 1 in nearest]
    rough = np.mean([joins(pool, left, right)[0][nearest[left], nearest[right]] for left, right in pairs])
    events = [event for event in recipe.events if event.source is not None]
    drawn = draw(composer, store, view, options, rng)
    chance = float(np.mean([drawn[unit].cost for unit in units]))
    faithful = replace(RemixOptions(), match=always(1), continuity=always(0), novelty=always(0))
    exact = find_path(pool, faithful, unit_times_s(composer.seed)[:, 0])
    target = float(np.mean([event.target for event in events]))
    random = np.concatenate(list(mixed_blocks(_at_random(recipe, drawn, pool.units.level, store))))
    own, ours, theirs = (log_mel(samples[: len(seed)], rate) for samples in (seed, made, random))
    errors = [
        abs(unit_lufs(made, rate, e.start, e.start + e.frames) - unit_lufs(seed, rate, e.start, e.start + e.frames))
        for e in events
        if not e.clamped
    ]
    cuts = [event.start for event in events[1:] if not event.follows]
    return {
        "fit": (chance - target) / (chance - greedy),
        "fit at match 1": (chance - float(exact.target[units].mean())) / (chance - greedy),
        "join ratio": float(np.mean([event.join for event in events[1:]]) / rough),
        "unseen ratio": float(np.abs(own - ours).mean() / np.abs(own - theirs).mean()),
        "distinct": len({(event.source, event.source_start // 2000) for event in events}) / len(events),
        "loudness median LU": float(np.median(errors)),
        "loudness p95 LU": float(np.quantile(errors, 0.95)),
        "clamped": sum(event.clamped for event in events) / len(events),
        "clicks over seed": clicks(made, cuts, rate) - clicks(seed, cuts, rate) if cuts else 0.0,
        "joins": len(cuts),
        "joins heard": len(cuts) * clicks(made, cuts, rate) if cuts else 0.0,
        "joins heard in seed": len(cuts) * clicks(seed, cuts, rate) if cuts else 0.0,
        "going on": sum(event.follows for event in events) / len(events),
        "seconds": len(seed) / rate,
        "placing s": placed - started,
        "placing CPU s": placed_used - used,
        "rendering s": rendered - placed,
        "rendering CPU s": rendered_used - placed_used,
    }


def _at_random(recipe: Recipe, drawn: list[Drawn], levels: Float32Array, store: Store) -> Recipe:
    """Return a recipe that plays what was drawn at random, at the right levels."""
    events, sources = [], []
    for event, other in zip(recipe.events, drawn, strict=True):
        start = round(other.start_s * (other.record.sample_rate or 1))
        gain_db = float(np.clip(levels[event.unit] - other.level_db, -12, 12))
        sources.append(source_of_record(store, other.record))
        number = None if event.source is None else len(sources) - 1
        events.append(replace(event, source=number, source_start=start, gain_db=gain_db, follows=False))
    return replace(recipe, events=tuple(events), sources=tuple(sources))


TARGETS = {
    "fit": ">= 0.70",
    "fit at match 1": ">= 0.90",
    "join ratio": "<= 0.65",
    "unseen ratio": "<= 0.90",
    "distinct": ">= 0.90",
    "loudness median LU": "<= 0.5",
    "loudness p95 LU": "<= 2",
    "clicks over seed": "<= 0.05",
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--index", required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--include", action="append", default=[], help="only files with this glob; may be repeated")
    parser.add_argument("--units", default="grid:250ms")
    options = parser.parse_args()
    rows = []
    with Store(options.index) as store, tempfile.TemporaryDirectory() as folder:
        view = load_view(store)
        model = QueryMaker(store, view.model).model
        for number, seed in enumerate(options.seeds):
            with AudioReader(seed, mono=False, block_s=options.seconds) as reader:
                blocks = reader.blocks()
                samples = next(blocks)
                samples = (
                    next(blocks, samples) if len(samples) >= options.seconds * reader.facts.sample_rate else samples
                )
                if len(samples) < reader.facts.sample_rate:
                    continue
            path = Path(folder, f"{number}.wav")
            soundfile.write(path, samples, reader.facts.sample_rate, subtype="FLOAT")
            own = Path(seed).name
            cut = RemixOptions(cutting=parse_units(options.units), include=tuple(options.include), exclude=(own,))
            Composer(store, view, model, str(path), cut)  # describes what never was
            started, used = time.perf_counter(), time.process_time()
            composer = Composer(store, view, model, str(path), cut)
            took, took_used = time.perf_counter() - started, time.process_time() - used
            stereo = np.repeat(samples, 2, axis=1) if samples.shape[1] == 1 else samples[:, :2]
            row = measure(composer, stereo, np.random.default_rng(number), store, view, cut)
            row |= {"selecting s": took, "selecting CPU s": took_used}
            rows.append(row)
            print(own, {key: round(value, 3) for key, value in row.items()}, flush=True)
    for key in rows[0]:
        values = [row[key] for row in rows]
        spread = f"{min(values):8.3f} … {max(values):8.3f}"
        print(f"{key:20} mean {np.mean(values):8.3f}   {spread}   {TARGETS.get(key, '')}")
    count, heard, in_seeds = (sum(row[key] for row in rows) for key in ("joins", "joins heard", "joins heard in seed"))
    if count:
        print(f"joins of all seeds: {count:.0f}, heard as clicks {heard / count:.3f}; seeds {in_seeds / count:.3f}")
    print("seeds nearer than random:", sum(row["unseen ratio"] < 1 for row in rows), "of", len(rows), "(>= 90 %)")


if __name__ == "__main__":
    main()
