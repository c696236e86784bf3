"""Selection: what fits is found, nothing stutters, shares hold, and the seed itself stays out unless it may come in."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.errors import EmptyAudioError, PathNotFoundError, QueryError, UsageError
from embedindex.remix.breakpoints import parse_breakpoints
from embedindex.remix.credits import credits_csv
from embedindex.remix.master import write_master
from embedindex.remix.options import WEIGHTS, RemixOptions, always, parse_weights
from embedindex.remix.qualities import Qualities, Scales, distances
from embedindex.remix.recipe import Recipe, to_json
from embedindex.remix.render import mixed_blocks
from embedindex.remix.units import parse_units
from tests.indexing import write_samples
from tests.remixing import (
    RATE,
    beat,
    compose,
    remix,
    samples_of,
    scan_spectral,
    texture,
    write_textures,
)
from tests.sounds import noise

GRID = RemixOptions(cutting=parse_units("grid:250ms"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An index of 30 textures of 6 s in three folders, and its library."""
    base = tmp_path_factory.mktemp("shared")
    library = base / "library"
    library.mkdir()
    for number in range(3):
        write_textures(library / f"folder{number}", 10, first_seed=100 * (number + 1))
    scan_spectral(str(base / "index"), library)
    return str(base / "index"), library


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "seed.wav", texture(5, 1), RATE)


def spans(recipe: Recipe) -> list[tuple[int, float, float]]:
    rate = recipe.output.sample_rate
    return [
        (event.source, start, start + event.frames / rate)
        for event in recipe.events
        if event.source is not None
        for start in [event.source_start / recipe.sources[event.source].sample_rate]
    ]


def test_a_seed_in_its_own_library_is_played_as_it_is(shared: tuple[str, Path], tmp_path: Path) -> None:
    index, library = shared
    own = library / "folder1" / "texture3.wav"
    options = replace(GRID, allow_self=True, no_repeat=0, novelty=always(0), max_per_file=1.0)
    recipe = remix(index, own, options)
    picks = [os.fsdecode(recipe.sources[event.source].path) for event in recipe.events if event.source is not None]
    assert len(picks) == len(recipe.events)
    assert picks.count(str(own)) >= 0.95 * len(picks)
    out = tmp_path / "out.wav"
    write_master(str(out), mixed_blocks(recipe), recipe.output, "float")
    seed, made = samples_of(own), samples_of(out)
    residual = np.square(made - seed).mean() / np.square(seed).mean()
    assert 10 * np.log10(max(residual, 1e-30)) <= -60


def test_the_seed_and_its_copies_stay_out(index: str, library: Path, tmp_path: Path) -> None:
    write_textures(library / "others", 3)
    samples = texture(5, 50)
    seed = write_samples(library / "seed.wav", samples, RATE)
    write_samples(library / "copy.wav", samples, RATE)
    quieter = (0.7 * samples + noise(5, RATE, 1, 0.0005)).astype(np.float32)
    write_samples(library / "nearly.flac", quieter, RATE)
    scan_spectral(index, library)
    recipe = remix(index, seed, GRID)
    assert {Path(os.fsdecode(source.path)).parent.name for source in recipe.sources} == {"others"}
    assert any("nearly.flac: left out: it is a copy" in note for note in recipe.notes)


def test_planted_copies_of_units_are_found(index: str, library: Path, tmp_path: Path) -> None:
    """Pieces of the seed hidden in other sounds, 6 dB up or down, with noise 20 dB below and another tone balance."""
    rng = np.random.default_rng(0)
    samples = texture(6, 70)
    seed = write_samples(tmp_path / "seed.wav", samples, RATE)
    unit = RATE // 2
    for number in range(12):
        around = texture(4, 300 + number)
        piece = samples[number * unit : (number + 1) * unit].copy()
        tilted = np.convolve(piece, [1.0, float(rng.uniform(-0.25, 0.25))], "same")  # a mild tilt of the spectrum
        noisy = tilted + rng.standard_normal(unit) * np.sqrt(np.square(piece).mean()) * 0.1
        start = int(rng.integers(RATE, 3 * RATE - unit))
        around[start : start + unit] = noisy * 10 ** (float(rng.choice([-6, 6])) / 20)
        write_samples(library / f"{number:02d}.wav", around.astype(np.float32), RATE)
    scan_spectral(index, library)
    composer = compose(index, seed, replace(GRID, cutting=parse_units("grid:500ms")))
    first = []
    for number, found in enumerate(composer.pool.candidates):
        best = composer.pool.files[int(found.files[int(np.argmin(found.costs))])]
        first.append(os.path.basename(best.text_path) == f"{number:02d}.wav")
    assert np.mean(first) >= 0.9


def test_nothing_comes_again_within_the_window(shared: tuple[str, Path], seed: Path) -> None:
    recipe = remix(shared[0], seed, replace(GRID, no_repeat=20))
    played = spans(recipe)
    assert len(played) == 20
    for number, (source, start, end) in enumerate(played):
        for other, begin, finish in played[max(0, number - 20) : number]:
            assert source != other or start >= finish - 1e-9 or end <= begin + 1e-9
    assert len({(source, round(start, 2)) for source, start, _ in played}) >= 0.9 * len(played)
    assert not [note for note in recipe.notes if "repeat" in note]


def test_shares_of_files_and_folders_hold(shared: tuple[str, Path], seed: Path) -> None:
    recipe = remix(shared[0], seed, replace(GRID, max_per_file=0.1, max_per_folder=0.4))
    files = Counter(source for source, _, _ in spans(recipe))
    folders = Counter(os.path.dirname(recipe.sources[source].path) for source, _, _ in spans(recipe))
    assert max(files.values()) <= 2
    assert max(folders.values()) <= 8


def test_rules_that_cannot_hold_are_broken_as_little_as_possible_and_said(
    index: str, library: Path, seed: Path
) -> None:
    write_textures(library, 1, duration_s=1.0)
    scan_spectral(index, library)
    recipe = remix(index, seed, GRID)
    assert len(spans(recipe)) == 20
    assert any("repeat a sound within 20 units" in note for note in recipe.notes)


def test_the_path_fits_nearly_as_well_as_the_nearest_and_joins_more_smoothly(
    shared: tuple[str, Path], seed: Path
) -> None:
    """Rows 1, 3 and 6 of the issue, in one run."""
    from embedindex.remix.path import find_path, joins

    composer = compose(shared[0], seed, GRID)
    pool = composer.pool
    times = np.arange(len(pool.lengths)) / 4
    path = find_path(pool, GRID, times)
    nearest = [int(np.argmin(found.costs)) for found in pool.candidates]
    greedy = np.mean([found.costs.min() for found in pool.candidates])
    rough = np.mean([joins(pool, unit, unit + 1)[0][nearest[unit], nearest[unit + 1]] for unit in range(19)])
    rng = np.random.default_rng(1)
    # Not a random choice among the near ones, but any stretch of such a sound: another seed's units.
    other = compose(shared[0], write_samples(seed.parent / "other.wav", texture(5, 999), RATE), GRID)
    random = _random_cost(composer, other, rng)
    closure = (random - float(path.target.mean())) / (random - float(greedy))
    assert closure >= 0.7
    assert float(path.join[1:].mean()) <= 0.65 * rough
    assert path.repeats == path.over_quota == 0
    free = replace(GRID, match=always(1), continuity=always(0))
    exact = find_path(pool, free, times)
    assert (random - float(exact.target.mean())) / (random - float(greedy)) >= 0.9


def _random_cost(composer: object, other: object, rng: np.random.Generator) -> float:
    """Return the mean distance of the units from stretches drawn at random."""
    from embedindex.remix.compose import Composer
    from embedindex.remix.qualities import distances

    assert isinstance(composer, Composer)
    assert isinstance(other, Composer)
    pool, found = composer.pool, other.pool.units
    costs = []
    for unit in range(len(pool.lengths)):
        others = found.take(rng.integers(len(found), size=10))
        apart = distances(pool.units.take(np.array([unit])), others, pool.scales)
        total = sum(WEIGHTS[name] * values for name, values in apart.items()) + WEIGHTS["embedding"] * 0.8
        costs.append(float(np.mean(total)))
    return float(np.mean(costs))


def test_a_temperature_makes_other_remixes_and_the_same_number_the_same(shared: tuple[str, Path], seed: Path) -> None:
    warm = replace(GRID, temperature=always(1.0))
    one, again, two = (spans(remix(shared[0], seed, replace(warm, chance=chance))) for chance in (1, 1, 2))
    assert one == again
    paths = {(source, round(start, 1)) for source, start, _ in one}
    assert len(paths & {(source, round(start, 1)) for source, start, _ in two}) <= 0.5 * len(paths)


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0])
def test_at_any_temperature_two_numbers_share_at_most_half(
    shared: tuple[str, Path], seed: Path, temperature: float
) -> None:
    """Row 11 of the issue, and each still fits."""
    from embedindex.remix.path import Path as Way
    from embedindex.remix.path import find_path

    pool = compose(shared[0], seed, GRID).pool
    times = np.arange(len(pool.lengths)) / 4
    warm = replace(GRID, temperature=always(temperature))
    cold, *paths = (find_path(pool, replace(warm, chance=chance), times) for chance in range(5))
    assert np.mean([np.median(found.costs) for found in pool.candidates]) > max(path.target.mean() for path in paths)

    def played(path: Way, unit: int) -> tuple[int, int]:
        place = int(path.places[unit])
        return int(pool.candidates[unit].files[place]), int(pool.candidates[unit].starts[place])

    shares = []
    for number, one in enumerate(paths):
        for other in paths[:number]:
            pairs = [(played(one, unit), played(other, unit)) for unit in range(20)]
            same = [a[0] == b[0] and abs(a[1] - b[1]) < pool.lengths[0] for a, b in pairs]
            shares.append(float(np.mean(same)))
    assert np.mean(shares) <= 0.5
    assert len({tuple(path.places.tolist()) for path in (cold, *paths)}) == 5


def test_a_sound_that_no_gain_makes_loud_enough_is_passed_over(index: str, library: Path, seed: Path) -> None:
    """Were it not so soft, it would be the nearest: it is the seed itself."""
    write_textures(library, 6)
    soft = write_samples(library / "soft.wav", 0.04 * samples_of(seed)[:, 0], RATE)
    scan_spectral(index, library)
    recipe = remix(index, seed, replace(GRID, allow_self=True))
    assert os.fsencode(soft) not in {source.path for source in recipe.sources}
    assert not any(event.clamped for event in recipe.events)


def test_what_a_gain_reaches_hardly_counts_and_what_it_does_not_counts_much() -> None:
    levels = np.array([-20.0, -29.0, -32.0, -50.0, 20.0], np.float32)
    zeros = np.zeros(5, np.float32)
    rows = Qualities(
        *(np.zeros((5, 4, 13), np.float32), np.repeat(levels[:, None], 4, 1), levels, zeros, zeros, zeros, zeros),
        *(np.zeros((5, width), np.float32) for width in (8, 16, 16)),
    )
    unit, scales = rows.take(np.array([0])), Scales(np.ones(13, np.float32))
    far = distances(unit, rows, scales)["loudness"]
    assert far[:2] == pytest.approx([0, 9 / 12])
    assert far[2] == pytest.approx(12 / 12 + 3 / 1.5)
    assert far[3] > 10 * far[1]
    assert far[4] > 10 * far[1]
    assert distances(unit, rows, scales, lowest_db=-48.0)["loudness"][4] == pytest.approx(2.0)


def test_the_same_question_has_the_same_recipe(shared: tuple[str, Path], seed: Path) -> None:
    assert to_json(remix(shared[0], seed, GRID)) == to_json(remix(shared[0], seed, GRID))


def test_variations_differ_at_every_moment_and_all_of_them_are_good(shared: tuple[str, Path], seed: Path) -> None:
    """None is what the first left over: each fits, and joins far more smoothly than the nearest sounds would."""
    from embedindex.remix.path import joins

    composer = compose(shared[0], seed, GRID)
    pool = composer.pool
    nearest = [int(np.argmin(found.costs)) for found in pool.candidates]
    greedy = np.mean([found.costs.min() for found in pool.candidates])
    rough = np.mean([joins(pool, unit, unit + 1)[0][nearest[unit], nearest[unit + 1]] for unit in range(19)])
    other = compose(shared[0], write_samples(seed.parent / "other.wav", texture(5, 999), RATE), GRID)
    random = _random_cost(composer, other, np.random.default_rng(1))
    made = [composer.recipe(number) for number in range(4)]
    for number, recipe in enumerate(made):
        assert (random - np.mean([event.target for event in recipe.events])) / (random - greedy) >= 0.6
        assert np.mean([event.join for event in recipe.events[1:]]) <= 0.8 * rough
        for earlier in made[:number]:
            same = [
                recipe.sources[one.source or 0].path == earlier.sources[other.source or 0].path
                and abs(one.source_start - other.source_start) < one.frames
                for one, other in zip(recipe.events, earlier.events, strict=True)
            ]
            assert np.mean(same) <= 0.1


def test_continuity_lets_sounds_go_on(shared: tuple[str, Path], seed: Path) -> None:
    going_on = [
        sum(event.follows for event in remix(shared[0], seed, replace(GRID, continuity=always(value))).events)
        for value in (0.0, 1.0)
    ]
    assert going_on[1] >= going_on[0] + 4


def test_only_what_is_included_and_not_excluded_is_played(shared: tuple[str, Path], seed: Path) -> None:
    recipe = remix(shared[0], seed, replace(GRID, include=("folder0/*", "folder1/*"), exclude=("folder1/*[0-4].wav",)))
    assert recipe.sources
    for item in recipe.sources:
        path = Path(os.fsdecode(item.path))
        assert path.parent.name == "folder0" or (path.parent.name == "folder1" and path.stem[-1] >= "5")
    with pytest.raises(QueryError, match="--include"):
        remix(shared[0], seed, replace(GRID, include=("nowhere/*",)))


def test_sources_that_left_since_the_scan_are_left_out_and_said(index: str, library: Path, seed: Path) -> None:
    paths = write_textures(library, 6)
    scan_spectral(index, library)
    first = remix(index, seed, GRID)
    used = Counter(source for source, _, _ in spans(first)).most_common(2)
    gone, changed = (os.fsdecode(first.sources[number].path) for number, _ in used)
    os.unlink(gone)
    Path(changed).write_bytes(b"this is no sound any more")
    recipe = remix(index, seed, GRID)
    names = {os.fsdecode(item.path) for item in recipe.sources}
    assert names <= set(map(str, paths)) - {gone, changed}
    assert any(gone in note and "no such file" in note for note in recipe.notes)
    assert any(changed in note and "has changed" in note for note in recipe.notes)


def test_silence_stays_silence(shared: tuple[str, Path], tmp_path: Path) -> None:
    samples = np.concatenate((texture(2, 1), np.zeros(2 * RATE, np.float32), texture(2, 2)))
    recipe = remix(shared[0], write_samples(tmp_path / "seed.wav", samples, RATE), GRID)
    silent = [event.source is None for event in recipe.events]
    assert silent[9:15] == [True] * 6
    assert not any(silent[:8])
    made = np.concatenate(list(mixed_blocks(recipe)))
    assert not made[int(2.3 * RATE) : int(3.7 * RATE)].any()


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 96000])
def test_seeds_of_any_layout_are_remixed_to_the_frame(
    shared: tuple[str, Path], tmp_path: Path, channels: int, rate: int
) -> None:
    samples = np.stack([texture(1.3, 5 + channel, rate) for channel in range(channels)], axis=1)
    seed = write_samples(tmp_path / "seed.wav", samples, rate)
    recipe = remix(shared[0], seed, GRID)
    assert (recipe.output.frames, recipe.output.sample_rate) == (len(samples), rate)
    assert recipe.output.channels == min(2, channels)
    out = tmp_path / "out.wav"
    written = write_master(str(out), mixed_blocks(recipe), recipe.output)
    assert written.true_peak_db <= -1
    assert samples_of(out).shape == (len(samples), min(2, channels))


def test_odd_seeds_are_remixed_or_refused_with_a_reason(shared: tuple[str, Path], tmp_path: Path) -> None:
    short = write_samples(tmp_path / "short.wav", texture(0.05, 1), RATE)
    assert len(remix(shared[0], short).events) == 1
    silent = write_samples(tmp_path / "silent.wav", np.zeros(RATE, np.float32), RATE)
    assert all(event.source is None for event in remix(shared[0], silent).events)
    with pytest.raises(PathNotFoundError, match=r"none\.wav"):
        remix(shared[0], tmp_path / "none.wav")
    with pytest.raises(QueryError, match="is a folder"):
        remix(shared[0], tmp_path)
    empty = write_samples(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(EmptyAudioError):
        remix(shared[0], empty)


def test_a_library_of_three_short_files_still_makes_a_remix(index: str, library: Path, seed: Path) -> None:
    for number in range(3):
        write_samples(library / f"{number}.wav", beat(1, number)[0][: RATE // 3], RATE)
    scan_spectral(index, library)
    recipe = remix(index, seed)
    made = np.concatenate(list(mixed_blocks(recipe)))
    assert len(made) == recipe.output.frames
    assert np.isfinite(made).all()


def test_a_library_of_nothing_but_the_seed_is_refused(index: str, library: Path) -> None:
    path = write_samples(library / "only.wav", texture(3, 1), RATE)
    scan_spectral(index, library)
    with pytest.raises(QueryError, match="--allow-self"):
        remix(index, path)


def test_onsets_of_a_beat_come_where_they_were(index: str, library: Path, tmp_path: Path) -> None:
    from embedindex.remix.attacks import onsets_s
    from embedindex.remix.frames import describe

    for number in range(8):
        write_samples(library / f"{number}.wav", beat(6, 20 + number)[0], RATE)
    scan_spectral(index, library)
    samples, times = beat(8, 5)
    recipe = remix(index, write_samples(tmp_path / "seed.wav", samples, RATE))
    found = onsets_s(describe(np.concatenate(list(mixed_blocks(recipe)))[:, 0]))
    hits = sum(np.abs(found - time).min() <= 0.05 for time in times)
    recall, precision = hits / len(times), hits / len(found)
    assert 2 * recall * precision / (recall + precision) >= 0.8


def test_credits_add_up(shared: tuple[str, Path], seed: Path) -> None:
    import csv

    recipe = remix(shared[0], seed, GRID)
    rows = list(csv.DictReader(credits_csv(recipe).decode().splitlines()))
    assert len({row["file"] for row in rows}) == len(rows) == len({event.source for event in recipe.events})
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(5.0, abs=1e-4)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1.0, abs=1e-4)


def test_breakpoints_are_lines_between_points() -> None:
    value = parse_breakpoints("--match", "0:1,60:0.2", 0, 1)
    assert [round(value.at(time), 3) for time in (-1, 0, 30, 60, 99)] == [1, 1, 0.6, 0.2, 0.2]
    assert value.text == "0:1,60:0.2"
    assert parse_breakpoints("--match", "0.5", 0, 1).at(1e9) == 0.5
    for bad in ("", "x", "0:1,0:2", "5:1,3:1", "2", "0:1,0.5", "nan"):
        with pytest.raises(UsageError, match="--match"):
            parse_breakpoints("--match", bad, 0, 1)


def test_weights_are_by_name() -> None:
    assert parse_weights("timbre=2,pitch=0") == (("timbre", 2.0), ("pitch", 0.0))
    for bad in ("timbre", "colour=1", "pitch=-1", "pitch=nan"):
        with pytest.raises(UsageError, match="--weights"):
            parse_weights(bad)
