"""What a musician changes: the length, single units of a recipe; and sources that broke behind the index's back."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.errors import AudioError, QueryError, UsageError
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.remix.breakpoints import Breakpoints
from embedindex.remix.compose import Composer, Sound
from embedindex.remix.options import RemixOptions, always
from embedindex.remix.outputs import write_remix
from embedindex.remix.recipe import Recipe, from_json, to_json
from embedindex.remix.render import mixed_blocks
from embedindex.remix.revision import Revision, parse_places, revisions
from embedindex.remix.sequence import parse_length
from embedindex.remix.tracks import LISTENING
from embedindex.remix.units import parse_units
from embedindex.store import Store
from tests.command_line import command, refusal
from tests.indexing import one, write_samples
from tests.remixing import RATE, compose, remix, samples_of, scan_spectral, texture, write_textures

GRID = RemixOptions(cutting=parse_units("grid:250ms"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of 12 textures, and a seed of 3 s."""
    folder = tmp_path_factory.mktemp("controls")
    (folder / "library").mkdir()
    write_textures(folder / "library", 12, 4.0, first_seed=500)
    scan_spectral(str(folder / "index"), folder / "library")
    write_samples(folder / "seed.wav", texture(3, 1), RATE)
    return folder


def rendered(recipe: Recipe) -> Float32Array:
    return np.concatenate(list(mixed_blocks(recipe)))


def sources_of(recipe: Recipe) -> list[tuple[bytes, int] | None]:
    return [
        None if event.source is None else (recipe.sources[event.source].path, event.source_start)
        for event in recipe.events
    ]


def revision(recipe: Recipe, reroll: str | None, lock: str | None) -> Revision:
    return revisions(recipe, "", reroll, lock)[0]


# -- length --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length_s", "steps"), [(0.6, 2), (0.7, 3), (1.05, 4), (3.0, 12), (7.1, 28)])
def test_a_remix_is_as_long_as_asked_for(place: Path, length_s: float, steps: int) -> None:
    """And its units are those of the seed, over and over; a rest below 0.12 s makes the last one longer."""
    recipe = remix(str(place / "index"), place / "seed.wav", GRID, Sound(length_s=length_s))
    assert len(rendered(recipe)) == recipe.output.frames == round(length_s * RATE)
    assert [event.unit for event in recipe.events] == [step % 12 for step in range(steps)]
    again = [event.start + event.frames for event in recipe.events]
    assert again[-1] == recipe.output.frames


def test_a_longer_remix_plays_something_else_when_the_seed_comes_again(place: Path) -> None:
    recipe = remix(str(place / "index"), place / "seed.wav", GRID, Sound(length_s=6.0))
    played = sources_of(recipe)
    assert len({item for item in played if item}) == len(played) == 24


def test_the_seed_sounds_again_too(place: Path) -> None:
    half = Sound(length_s=6.0, dry_wet=Breakpoints((0.0,), (0.0,)), lufs=-20.0)
    made = rendered(remix(str(place / "index"), place / "seed.wav", GRID, half))[:, 0]
    seed = samples_of(place / "seed.wav")[:, 0]
    np.testing.assert_allclose(made, np.concatenate((seed, seed)), atol=1e-6)


def test_units_that_come_again_are_merged_with_their_own(place: Path) -> None:
    """Each takes the ups and downs of its own part of the seed, the second time round as the first."""
    sound = Sound(length_s=6.0, morph="envelope")
    options = replace(GRID, no_repeat=0, novelty=always(0), continuity=always(0), match=always(1))
    recipe = remix(str(place / "index"), place / "seed.wav", options, sound)
    made = rendered(recipe)[:, 0]
    energy = np.square(made[: 6 * RATE]).reshape(2, 50, -1).mean(axis=2)
    assert np.corrcoef(np.log(energy[0] + 1e-9), np.log(energy[1] + 1e-9))[0, 1] > 0.8


def test_lengths_are_read_as_they_are_written() -> None:
    assert [parse_length(text) for text in ("90", "1:30", "1:00:00", "0.5")] == [90, 90, 3600, 0.5]
    assert [parse_length(text) for text in ("2h", "45m", "90s", "1h30m", "1.5h")] == [7200, 2700, 90, 5400, 5400]
    for bad in ("", "0", "-1", "x", "1:2:3:4", "25:00:00", "nan", "inf", "h", "25h", "1m2h", "..h"):
        with pytest.raises(UsageError, match="--length"):
            parse_length(bad)


# -- single units --------------------------------------------------------------------------------------------------


def test_only_what_is_to_be_chosen_again_changes(place: Path) -> None:
    composer = compose(str(place / "index"), place / "seed.wav", GRID)
    first = composer.recipe()
    change = revision(first, "3,7-8", None)
    second = compose(str(place / "index"), place / "seed.wav", GRID).recipe(0, change)
    before, after = sources_of(first), sources_of(second)
    assert {step for step in range(12) if before[step] != after[step]} == {3, 7, 8}
    assert [event.gain_db for event in second.events if event.unit not in (3, 7, 8)] == [
        event.gain_db for event in first.events if event.unit not in (3, 7, 8)
    ]
    assert {source.path for source in second.sources} == {item[0] for item in after if item}
    assert from_json(to_json(second), "x") == second
    old, new = rendered(first), rendered(second)
    untouched = slice(0, int(0.7 * RATE))
    np.testing.assert_array_equal(old[untouched], new[untouched])


def test_only_what_is_locked_stays(place: Path) -> None:
    first = compose(str(place / "index"), place / "seed.wav", GRID).recipe()
    second = compose(str(place / "index"), place / "seed.wav", GRID).recipe(0, revision(first, None, "0-2"))
    before, after = sources_of(first), sources_of(second)
    assert before[:3] == after[:3]
    assert not any(before[step] == after[step] for step in range(3, 12))


@pytest.mark.parametrize("layers", [1, 2])
def test_units_of_a_remix_that_rings_out_are_chosen_again(place: Path, layers: int) -> None:
    """The rest behind the last unit, in which it rings out, is no unit; it is there again."""
    sound = Sound(morph="ir", tail="ring", layers=layers)
    first = compose(str(place / "index"), place / "seed.wav", GRID, sound).recipe()
    kept = from_json(to_json(first), "x")
    second = compose(str(place / "index"), place / "seed.wav", GRID, sound).recipe(0, revision(kept, "3,11", None))
    before, after = sources_of(first), sources_of(second)
    assert len(before) == len(after) == 13 * layers
    assert {step % 13 for step in range(13 * layers) if before[step] != after[step]} == {3, 11}
    assert second.output == first.output
    old, new = rendered(first), rendered(second)
    assert len(new) == len(old) == first.output.frames > 3 * RATE
    assert np.abs(new[3 * RATE + RATE // 10 :]).max() > 1e-4
    assert len(rendered(from_json(to_json(second), "x"))) == len(new)
    with pytest.raises(UsageError, match="units 0 to 11"):
        revision(kept, "12", None)


def test_a_recipe_of_another_cut_cannot_be_changed(place: Path) -> None:
    first = compose(str(place / "index"), place / "seed.wav", GRID).recipe()
    other = compose(str(place / "index"), place / "seed.wav", replace(GRID, cutting=parse_units("grid:300ms")))
    with pytest.raises(UsageError, match="--units"):
        other.recipe(0, revision(first, "1", None))


@pytest.mark.parametrize("bad", ["", "x", "1-", "3-2", "12", "5-99", "-1"])
def test_units_that_are_not_there_are_refused(bad: str) -> None:
    assert parse_places("--lock", "0,2-4", 12) == {0, 2, 3, 4}
    with pytest.raises(UsageError, match="--lock"):
        parse_places("--lock", bad, 12)


def test_recipes_are_changed_on_the_command_line(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))
    words = ("remix", place / "seed.wav", "--units", "grid:250ms", "--length", "2.5", "-q")
    assert command(*words, "-o", tmp_path / "a.wav").status == 0
    recipe = tmp_path / "a.recipe.json"
    assert command(*words, "-o", tmp_path / "b.wav", "--recipe", recipe, "--reroll", "4").status == 0
    before, after = (from_json((tmp_path / f"{name}.recipe.json").read_text(), name) for name in "ab")
    assert {step for step in range(10) if sources_of(before)[step] != sources_of(after)[step]} == {4}
    for wrong in (("--reroll", "4"), ("--recipe", recipe), ("--recipe", recipe, "--reroll", "1", "--lock", "2")):
        assert "--re" in refusal(*words, "-o", tmp_path / "c.wav", *wrong, status=2)
    assert not (tmp_path / "c.wav").exists()


# -- what broke ----------------------------------------------------------------------------------------------------


def test_a_source_that_broke_without_changing_its_length_is_replaced_and_said(index: str, library: Path) -> None:
    """It was described before, so only playing it shows."""
    write_textures(library, 5, 3.0)
    scan_spectral(index, library)
    seed = write_samples(library.parent / "seed.wav", texture(2, 1), RATE)
    first = remix(index, seed, GRID)
    worst = Counter(item[0] for item in sources_of(first) if item).most_common(1)[0][0]
    size = one(index, worst).size
    Path(os.fsdecode(worst)).write_bytes(b"\0" * size)
    second = remix(index, seed, GRID)
    assert worst not in {item[0] for item in sources_of(second) if item}
    assert any(os.fsdecode(worst) in note and "could not be read" in note for note in second.notes)
    assert len(rendered(second)) == 2 * RATE


def test_a_library_that_broke_whole_without_changing_its_length_is_refused(index: str, library: Path) -> None:
    paths = write_textures(library, 2, 3.0)
    scan_spectral(index, library)
    seed = write_samples(library.parent / "seed.wav", texture(1, 1), RATE)
    remix(index, seed, GRID)  # describes the files, so that only playing them shows
    for path in paths:
        path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(QueryError, match=r"\(.*texture\d\.wav: could not be read\); run `embedindex scan` again"):
        remix(index, seed, GRID)


def test_every_stage_is_told_to_its_end(index: str, library: Path) -> None:
    write_textures(library, 4, 3.0)
    scan_spectral(index, library)
    seed = write_samples(library.parent / "seed.wav", texture(4, 1), RATE)
    heard: list[tuple[str, int, int]] = []

    def told(what: str, done: int, total: int) -> None:
        heard.append((what, done, total))

    with Store(index) as store:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        recipe = Composer(store, view, maker.model, str(seed), GRID, Sound(), told).recipe()
    write_remix(str(library.parent / "out.wav"), recipe, told=told)
    seconds = ", seconds of sound"
    stages = [
        "Reading the seed" + seconds,
        LISTENING,
        "Fitting sounds to units",
        "Rendering" + seconds,
        "Writing" + seconds,
    ]
    assert list(dict.fromkeys(what for what, _, _ in heard)) == stages
    for stage in stages:
        counts = [(done, total) for what, done, total in heard if what == stage]
        assert counts[-1][0] == counts[-1][1] > 0, stage
        assert all(done <= total == counts[0][1] for done, total in counts), stage


def test_a_source_that_breaks_before_it_is_rendered_leaves_no_half_remix(index: str, library: Path) -> None:
    write_textures(library, 4, 3.0)
    scan_spectral(index, library)
    seed = write_samples(library.parent / "seed.wav", texture(2, 1), RATE)
    recipe = remix(index, seed, GRID)
    for source in recipe.sources:
        Path(os.fsdecode(source.path)).write_bytes(b"\0" * source.size)
    out = library.parent / "out.wav"
    with pytest.raises(AudioError):
        write_remix(str(out), recipe)
    assert not list(library.parent.glob("out*"))
