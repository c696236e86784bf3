"""Drifting: from a sound to one near it and on, for as long as asked, the same every time, and never in a hurry."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.errors import QueryError
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.remix.drift import Drift, Walker
from embedindex.remix.loudness import integrated_lufs, true_peak_db
from embedindex.remix.outputs import read_recipe, render_recipe, write_until
from embedindex.remix.recipe import Recipe, from_json, to_json
from embedindex.remix.render import mixed_blocks
from embedindex.store import Store
from tests.command_line import command, refusal
from tests.indexing import write_samples
from tests.processes import PATIENCE_S
from tests.remixing import RATE, samples_of, scan_spectral, texture, write_textures
from tests.sounds import noise, sine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of 12 textures, 6 hisses and 3 hums, and a hum as seed; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("drift")
    library = folder / "library"
    library.mkdir()
    write_textures(library, 12, 5.0, first_seed=300)
    for number in range(6):
        write_samples(library / f"hiss{number}.wav", noise(6, RATE, number, 0.05 + 0.05 * number), RATE)
    for number in range(3):
        write_samples(library / f"hum{number}.wav", sine(100 + 10 * number, 6, RATE, 0.2), RATE)
    scan_spectral(str(folder / "index"), library)
    write_samples(folder / "hiss.wav", noise(4, RATE, 99, 0.3), RATE)
    write_samples(folder / "silent.wav", np.zeros(RATE, np.float32), RATE)
    return folder


def drifted(place: Path, seed: str = "hiss.wav", **options: object) -> Recipe:
    with Store(str(place / "index")) as store:
        view = load_view(store)
        drift = replace(Drift(12.0), **options)  # type: ignore[arg-type]
        return Walker(store, view, QueryMaker(store, view.model).model, str(place / seed), drift).recipe()


def names(recipe: Recipe) -> list[str]:
    return [os.path.basename(os.fsdecode(recipe.sources[event.source or 0].path)) for event in recipe.events]


@pytest.mark.parametrize("layers", [1, 3])
def test_a_drift_is_as_long_as_asked_for_and_a_whole_recipe(place: Path, layers: int) -> None:
    recipe = drifted(place, layers=layers)
    assert from_json(to_json(recipe), "x") == recipe
    samples = np.concatenate(list(mixed_blocks(recipe)))
    assert samples.shape == (12 * RATE, 2)
    assert np.isfinite(samples).all()
    assert samples.any()
    assert recipe.layers == layers


def test_density_says_how_many_sounds_begin(place: Path) -> None:
    few, many = (drifted(place, length_s=40.0, density=density) for density in (0.5, 2.0))
    assert 14 <= len(few.events) <= 28
    assert 60 <= len(many.events) <= 110


def test_it_begins_near_the_seed_and_a_strong_pull_keeps_it_there(place: Path) -> None:
    held = names(drifted(place, length_s=24.0, pull=1.0, temperature=0.0, no_repeat=4, density=1.0))
    assert sum(name.startswith("hiss") for name in held) >= 0.9 * len(held)


def test_no_file_comes_again_before_others_were_heard(place: Path) -> None:
    played = names(drifted(place, length_s=30.0, density=1.0, no_repeat=10))
    assert len(played) > 15
    for number in range(len(played)):
        assert len(set(played[max(0, number - 9) : number + 1])) == min(10, number + 1)


def test_the_same_number_drifts_the_same_way_and_another_does_not(place: Path) -> None:
    assert drifted(place) == drifted(place)
    assert names(drifted(place)) != names(drifted(place, chance=5))


def test_only_what_is_included_is_heard_and_what_broke_is_left_out(place: Path) -> None:
    assert {name[:4] for name in names(drifted(place, include=("*hum*",)))} == {"hum0", "hum1", "hum2"}
    with pytest.raises(QueryError, match="--include"):
        drifted(place, include=("none*",))
    with pytest.raises(QueryError, match="silent"):
        drifted(place, "silent.wav")


def test_sounds_that_broke_since_the_scan_are_left_out_and_said(index: str, library: Path) -> None:
    write_textures(library, 4, 3.0)
    scan_spectral(index, library)
    broken = library / "texture1.wav"
    broken.write_bytes(b"\0" * broken.stat().st_size)
    gone = library / "texture2.wav"
    gone.unlink()
    seed = write_samples(library.parent / "hiss.wav", texture(2, 9), RATE)
    recipe = drifted(seed.parent, length_s=20.0, density=1.0, no_repeat=2)
    assert set(names(recipe)) <= {"texture0.wav", "texture3.wav"}
    assert sum(str(path) in note for path in (broken, gone) for note in recipe.notes) == 2


def test_generate_writes_a_sound_a_recipe_and_credits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))
    out = tmp_path / "out.flac"
    ran = command("generate", place / "hiss.wav", "-o", out, "--length", "0:08", "--layers", "2")
    assert (ran.status, ran.error) == (0, "")
    assert f"{out}: 0:08.0" in ran.text
    samples = samples_of(out)
    assert integrated_lufs(samples, RATE) == pytest.approx(-20, abs=0.5)
    assert true_peak_db(samples) <= -1
    rows = list(csv.DictReader((tmp_path / "out.credits.csv").read_text().splitlines()))
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(16, abs=1e-3)
    assert json.loads((tmp_path / "out.recipe.json").read_text())["options"]["generate"]["density"] == 0.4
    again = tmp_path / "again.flac"
    assert command("render", tmp_path / "out.recipe.json", "-o", again, "-q").status == 0
    assert out.read_bytes() == again.read_bytes()
    assert "--length" in refusal("generate", place / "hiss.wav", "-o", tmp_path / "x.wav", "--length", "no", status=2)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_drift_that_is_stopped_ends_where_all_its_layers_have_come_to(place: Path, layers: int) -> None:
    asked = iter([False] * 8 + [True] * 99)
    with Store(str(place / "index")) as store:
        view = load_view(store)
        drift = Drift(600.0, density=1.0, layers=layers)
        walker = Walker(store, view, QueryMaker(store, view.model).model, str(place / "hiss.wav"), drift)
        recipe = walker.recipe(stop=lambda: next(asked))
    assert from_json(to_json(recipe), "x") == recipe
    assert recipe.layers == layers
    assert 1.5 * RATE < recipe.output.frames < 15 * RATE
    assert {event.source for event in recipe.events} == set(range(len(recipe.sources)))
    samples = np.concatenate(list(mixed_blocks(recipe)))
    assert len(samples) == recipe.output.frames
    assert np.abs(samples[-20:]).max() < 0.01 * np.abs(samples).max()


def test_rendering_that_is_stopped_writes_a_shorter_piece_that_renders_again(place: Path, tmp_path: Path) -> None:
    recipe = drifted(place, length_s=30.0, layers=2)
    asked = iter([False, False, True])
    out = tmp_path / "out.wav"
    shorter, _ = write_until(str(out), recipe, lambda: next(asked))
    assert 0 < shorter.output.frames < recipe.output.frames
    assert len(samples_of(out)) == shorter.output.frames
    assert from_json((tmp_path / "out.recipe.json").read_text(), "x") == shorter
    render_recipe(read_recipe(str(tmp_path / "out.recipe.json")), str(tmp_path / "again.wav"))
    assert out.read_bytes() == (tmp_path / "again.wav").read_bytes()
    lasts = [[event for event in shorter.events if event.layer == layer][-1].start for layer in range(2)]
    same = min(event.start - event.fade for event in recipe.events if event.start in lasts)
    whole, part = (np.concatenate(list(mixed_blocks(made)))[:same] for made in (recipe, shorter))
    np.testing.assert_allclose(part, whole, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_an_endless_drift_and_leaves_a_whole_file(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    words = [sys.executable, "-m", "embedindex", "generate", str(place / "hiss.wav"), "-o", str(out)]
    words += ["--length", "endless", "--index", str(place / "index"), "--density", "4"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Drifting" in line:
                break
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, error
    assert "ending the piece here" in error
    assert str(out) in output
    recipe = read_recipe(str(tmp_path / "out.recipe.json"))
    assert len(samples_of(out)) == recipe.output.frames
    assert not list(tmp_path.glob(".*"))
