"""``embedindex remix`` and ``render`` as users type them: files, formats, repeatability, refusals."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedindex.remix.labels import read_labels
from embedindex.remix.loudness import integrated_lufs, true_peak_db
from tests.command_line import command, refusal
from tests.indexing import write_samples
from tests.processes import PATIENCE_S
from tests.remixing import RATE, beat, samples_of, scan_spectral, texture, write_textures


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of some textures and beats, and two seeds; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("remix")
    library = folder / "library"
    library.mkdir()
    write_textures(library / "pads", 8, first_seed=100)
    (library / "drums").mkdir()
    for number in range(4):
        write_samples(library / "drums" / f"{number}.wav", beat(5, number)[0], RATE)
    scan_spectral(str(folder / "index"), library)
    write_samples(folder / "seed.wav", np.stack((texture(4, 1), texture(4, 2)), 1), RATE)
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def test_a_remix_is_a_sound_a_recipe_and_credits(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    ran = command("remix", place / "seed.wav", "-o", out, "--units", "grid:250ms", "--labels")
    assert (ran.status, ran.error) == (0, "")
    assert f"{out}: 0:04.0, 16 units (grid:250ms) from " in ran.text
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out.wav", "out.recipe.json", "out.credits.csv", "out.labels.txt"}
    samples = samples_of(out)
    assert samples.shape == (4 * RATE, 2)
    assert true_peak_db(samples) <= -1
    assert integrated_lufs(samples, RATE) == pytest.approx(
        integrated_lufs(samples_of(place / "seed.wav"), RATE), abs=0.5
    )
    recipe = json.loads((tmp_path / "out.recipe.json").read_text())
    assert (recipe["format"], recipe["version"], len(recipe["events"])) == ("embedindex-recipe", 2, 16)
    assert all(item["content_hash"] for item in recipe["sources"])
    rows = list(csv.DictReader((tmp_path / "out.credits.csv").read_text().splitlines()))
    assert {row["file"] for row in rows} == {item["path"] for item in recipe["sources"]}
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(4, abs=1e-4)
    assert len(read_labels(str(tmp_path / "out.labels.txt"), 4.0)) == 16


@pytest.mark.parametrize("bits", ["24", "float"])
def test_a_recipe_renders_to_the_same_bytes(place: Path, tmp_path: Path, bits: str) -> None:
    out, again = tmp_path / "out.wav", tmp_path / "again.wav"
    options = ("--temperature", "0:0,4:1", "--layers", "2", "--dry-wet", "0.8", "--bits", bits, "--rng", "7")
    assert command("remix", place / "seed.wav", "-o", out, *options).status == 0
    ran = command("render", tmp_path / "out.recipe.json", "-o", again, "--bits", bits)
    assert (ran.status, ran.error) == (0, "")
    assert out.read_bytes() == again.read_bytes()


def test_recipe_that_was_edited_wrongly_is_refused(place: Path, tmp_path: Path) -> None:
    assert command("remix", place / "seed.wav", "-o", tmp_path / "out.wav", "-q", "--units", "grid:1s").status == 0
    recipe = json.loads((tmp_path / "out.recipe.json").read_text())
    edited = tmp_path / "edited.recipe.json"
    for place_of, name, value, said in (
        (recipe["events"][1], "gain_db", "loud", "gain_db is 'loud'"),
        (recipe["events"][1], "gain_db", float("nan"), "gain_db is nan"),
        (recipe["events"][1], "gain_db", 1000, "a gain of 1000 dB"),
        (recipe["events"][1], "source_start", 0.5, "source_start is 0.5"),
        (recipe["events"][1], "follows", 1, "follows is 1"),
        (recipe["output"], "sample_rate", 0, "a sample rate of 0"),
        (recipe["output"], "channels", 9, "9 channels"),
        (recipe["output"], "end_fade", -5, "fades over -5 frames"),
    ):
        before = place_of[name]
        place_of[name] = value
        edited.write_text(json.dumps(recipe))
        assert said in refusal("render", edited, "-o", tmp_path / "again.wav", status=2)
        assert not (tmp_path / "again.wav").exists()
        place_of[name] = before
    recipe["events"][1]["gain_db"] = -3  # a whole number is as good
    edited.write_text(json.dumps(recipe))
    assert command("render", edited, "-o", tmp_path / "again.wav").status == 0


def test_silence_is_said_in_words(place: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "quiet.wav", np.zeros(2 * RATE, np.float32), RATE)
    ran = command("remix", tmp_path / "quiet.wav", "-o", tmp_path / "out.wav")
    assert ran.status == 0
    assert "quiet.wav: is silent from end to end, and so is what is made of it" in ran.error
    assert ran.text.rstrip().endswith(", silent")
    assert "LUFS" not in ran.text
    assert command("render", tmp_path / "out.recipe.json", "-o", tmp_path / "b.wav").text.endswith("b.wav: silent\n")


def test_events_behind_the_end_of_their_file_are_named(place: Path, tmp_path: Path) -> None:
    command("remix", place / "seed.wav", "-o", tmp_path / "out.wav", "--units", "grid:500ms")
    path = tmp_path / "out.recipe.json"
    recipe = json.loads(path.read_text())
    for number in (2, 5):
        recipe["events"][number].update(source=0, source_start=10**9, follows=False)
    path.write_text(json.dumps(recipe))
    ran = command("render", path, "-o", tmp_path / "again.wav")
    name = recipe["sources"][0]["path"]
    assert f"events 2, 5 (counted from 0): source_start lies behind the end of {name} (" in ran.error
    assert ran.error.count("counted from 0") == 1
    assert command("render", path, "-o", tmp_path / "again.wav", "--quiet").error == ""
    recipe["events"][2]["source_start"] = recipe["events"][5]["source_start"] = 0
    path.write_text(json.dumps(recipe))
    assert command("render", path, "-o", tmp_path / "again.wav").error == ""


def test_threads_make_no_difference(place: Path, tmp_path: Path) -> None:
    made = []
    for threads in ("1", "4"):
        out = tmp_path / threads / "out.wav"
        out.parent.mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        words = [sys.executable, "-m", "embedindex", "remix", str(place / "seed.wav"), "-o", str(out)]
        subprocess.run(words, check=True, env=environment, capture_output=True, timeout=PATIENCE_S)
        made.append((out.read_bytes(), (out.parent / "out.recipe.json").read_bytes()))
    assert made[0] == made[1]


def test_variations_are_numbered(place: Path, tmp_path: Path) -> None:
    data = command("remix", place / "seed.wav", "-o", tmp_path / "v.flac", "--variations", "3", "--json").json
    assert [Path(item["output"]).name for item in data] == ["v-1.flac", "v-2.flac", "v-3.flac"]
    assert len({(tmp_path / f"v-{number}.flac").read_bytes() for number in (1, 2, 3)}) == 3
    assert all(item["true_peak_db"] <= -1 for item in data)


def test_a_dry_run_writes_nothing(place: Path, tmp_path: Path) -> None:
    ran = command("remix", place / "seed.wav", "-o", tmp_path / "out.wav", "--dry-run", "--json")
    assert ran.json[0]["units"] > 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", ["ambient", "collage", "rhythmic", "destroy"])
def test_presets_make_something_else_each(place: Path, tmp_path: Path, preset: str) -> None:
    out = tmp_path / "out.wav"
    assert command("remix", place / "seed.wav", "-o", out, "--preset", preset, "-q").status == 0
    assert true_peak_db(samples_of(out)) <= -1
    assert samples_of(out).any()


def test_loudness_and_rate_can_be_asked_for(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    data = command("remix", place / "seed.wav", "-o", out, "--lufs", "-20", "--rate", "48000", "--json").json
    assert data[0]["lufs"] == pytest.approx(-20, abs=0.5)
    assert samples_of(out).shape == (4 * 48000, 2)
    assert integrated_lufs(samples_of(out), 48000) == pytest.approx(-20, abs=0.5)


def test_labels_cut_the_seed(place: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("0.5\t1.5\tone\n2\t2\ttwo\n")
    data = command(
        "remix", place / "seed.wav", "-o", tmp_path / "out.wav", "--units", f"labels:{labels}", "--json"
    ).json
    assert (data[0]["units"], data[0]["cut"]) == (4, "labels")


def test_names_of_any_bytes_go_in_and_come_out(place: Path, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"s\xff\n.wav")
    with open(odd, "wb") as file:
        file.write((place / "seed.wav").read_bytes())
    out = os.path.join(os.fsencode(tmp_path), b"o\xfe.wav")
    assert command("remix", odd, "-o", out, "-q").status == 0
    recipe = os.path.join(os.fsencode(tmp_path), b"o\xfe.recipe.json")
    again = tmp_path / "again.wav"
    assert command("render", recipe, "-o", again, "-q").status == 0
    with open(out, "rb") as file:
        assert file.read() == again.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--units", "words"), "--units"),
        (("--match", "2"), "--match"),
        (("--match", "0:1,inf:0"), "a time is no number"),
        (("--preset", "jazz"), "--preset"),
        (("--weights", "colour=1"), "--weights"),
        (("--max-per-file", "0"), "--max-per-file"),
        (("--lufs", "loud"), "--lufs"),
        (("--bits", "8"), "--bits"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(
    place: Path, tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    line = refusal("remix", place / "seed.wav", "-o", tmp_path / "out.wav", *options, status=2)
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_neither_seed_nor_source_is_overwritten(place: Path, tmp_path: Path) -> None:
    seed = place / "seed.wav"
    before = seed.read_bytes()
    assert "would overwrite" in refusal("remix", seed, "-o", seed, status=2)
    assert command("remix", seed, "-o", tmp_path / "out.wav", "-q").status == 0
    played = json.loads((tmp_path / "out.recipe.json").read_text())["sources"][0]["path"]
    assert "would overwrite" in refusal("render", tmp_path / "out.recipe.json", "-o", played, status=2)
    assert seed.read_bytes() == before


def test_a_sound_of_the_library_is_not_overwritten_but_an_earlier_remix_is(tmp_path: Path) -> None:
    library, index = tmp_path / "library", tmp_path / "index"
    library.mkdir()
    write_textures(library, 4)
    kept = library / "kept.wav"
    write_samples(kept, texture(0.3, 77), RATE)
    scan_spectral(str(index), library)
    before = kept.read_bytes()
    for name in ("remix", "generate"):
        options = ("--exclude", "kept.wav", "-I", index)  # so that it is no source
        assert "a sound of the library" in refusal(name, library / "texture0.wav", "-o", kept, *options, status=2)
    assert kept.read_bytes() == before
    (library / "kept.recipe.json").touch()
    assert command("remix", library / "texture0.wav", "-o", kept, "--units", "grid:250ms", *options).status == 0
    assert kept.read_bytes() != before


def test_what_cannot_be_done_is_said(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    assert "there is no such file" in refusal("remix", tmp_path / "none.wav", "-o", out)
    assert "--include" in refusal("remix", place / "seed.wav", "-o", out, "--include", "none/*")
    assert "not text" in refusal("render", place / "seed.wav", "-o", out, status=2)
    (tmp_path / "x.json").write_text("{}")
    assert "is no recipe" in refusal("render", tmp_path / "x.json", "-o", out, status=2)
    assert not out.exists()
