"""What a remix can write besides its sound: stems that add up, a Reaper project, tables, a picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from embedindex.arrays import Float64Array
from embedindex.remix.credits import credits_csv
from embedindex.remix.outputs import read_recipe
from embedindex.remix.reaper import project_text, quoted
from embedindex.remix.recipe import Recipe
from embedindex.remix.render import mixed_blocks
from tests.command_line import command, refusal
from tests.indexing import write_samples
from tests.remixing import RATE, beat, scan_spectral, texture, write_textures
from tests.sounds import write_wav
from tests.zips import pack_tree


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of textures and beats, and two seeds; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("outputs")
    write_textures(folder / "pads $", 5, first_seed=100)
    (folder / "drums").mkdir()
    for number in range(3):
        write_samples(folder / "drums" / f"{number}.wav", beat(5, number)[0], RATE)
    write_samples(folder / "drums" / "other rate.wav", texture(4, 9, 16000), 16000)
    for name in ("pads $", "drums"):
        scan_spectral(str(folder / "index"), folder / name)
    write_samples(folder / "seed.wav", np.stack((texture(3, 1), texture(3, 2)), 1), RATE)
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def remix(place: Path, out: Path, *options: object) -> Recipe:
    ran = command("remix", place / "seed.wav", "-o", out, "--units", "grid:250ms", "-q", *map(str, options))
    assert ran.status == 0, ran.error
    return read_recipe(str(out.with_suffix(".recipe.json")))


def mix_of(recipe: Recipe) -> Float64Array:
    return np.concatenate(list(mixed_blocks(recipe))).astype(np.float64)


def sum_of(folder: Path) -> Float64Array:
    stems = [sf.read(path, always_2d=True)[0] for path in sorted(folder.glob("*.wav"))]
    return np.asarray(np.sum(stems, axis=0), np.float64)


CASES = [
    (),
    ("--layers", "2", "--dry-wet", "0:1,3:0.2", "--continuity", "0.9"),
    ("--morph", "ir", "--tail", "ring", "--layers", "2"),
    ("--morph", "ir-reverse", "--tail", "overlap"),
]


@pytest.mark.parametrize("by", ["source", "layer"])
@pytest.mark.parametrize("options", CASES, ids=" ".join)
def test_stems_add_up_to_the_mix(place: Path, tmp_path: Path, options: tuple[str, ...], by: str) -> None:
    stems = tmp_path / "stems"
    recipe = remix(place, tmp_path / "out.wav", *options, "--stems", stems, "--stems-by", by)
    mix = mix_of(recipe)
    total = sum_of(stems)
    assert total.shape == mix.shape
    assert np.abs(total - mix).max() < 1e-6
    wet = len({event.source for event in recipe.events} - {None}) if by == "source" else recipe.layers
    assert len(list(stems.glob("*.wav"))) == wet + ("--dry-wet" in options)
    assert {path.suffix for path in stems.iterdir()} == {".wav", ".json"}


def test_stems_and_the_masters_account_give_the_finished_file(place: Path, tmp_path: Path) -> None:
    remix(place, tmp_path / "out.wav", "--lufs", "-30", "--stems", tmp_path / "stems")
    account = json.loads((tmp_path / "stems" / "stems.json").read_text())
    master = account["master"]
    assert master["limited_db"] == 0
    finished = (sum_of(tmp_path / "stems") - master["offset"]) * 10 ** (master["gain_db"] / 20)
    assert np.abs(finished - sf.read(tmp_path / "out.wav")[0]).max() < 2**-22
    assert {item["file"] for item in account["stems"]} == {path.name for path in (tmp_path / "stems").glob("*.wav")}
    for item in account["stems"]:
        peak = np.abs(sf.read(tmp_path / "stems" / item["file"])[0]).max()
        assert item["peak_db"] == pytest.approx(20 * np.log10(peak), abs=0.01)


def test_a_stem_holds_its_source_and_nothing_else(place: Path, tmp_path: Path) -> None:
    recipe = remix(place, tmp_path / "out.wav", "--stems", tmp_path / "stems")
    account = json.loads((tmp_path / "stems" / "stems.json").read_text())
    margin = round(0.06 * RATE)
    for item in account["stems"]:
        heard = np.zeros(recipe.output.frames, bool)
        for event in recipe.events:
            if event.source is not None and recipe.sources[event.source].path == item["source"].encode():
                heard[max(0, event.start - margin) : event.start + event.frames + margin] = True
        samples = sf.read(tmp_path / "stems" / item["file"])[0]
        assert not samples[~heard].any()
        assert samples[heard].any()


# -- Reaper ------------------------------------------------------------------------------------------------------


def items_of(text: str) -> list[tuple[Any, Any, float]]:
    """Return (item, its source, the track's volume) as an independent reader of the format finds them."""
    rpp = pytest.importorskip("rpp")
    project = rpp.loads(text)
    found = []
    for track in project.findall(".//TRACK"):
        volume = float(next(row for row in track if row[0] == "VOLPAN")[1])
        found += [(item, item.find("SOURCE"), volume) for item in track.findall("ITEM")]
    return found


def value(block: Any, name: str, place: int = 1) -> Any:
    return next(row for row in block if isinstance(row, list) and row[0] == name)[place]


def played(text: str, frames: int, rate: int, channels: int) -> tuple[Float64Array, Any]:
    """Return what the project's items play, and where no fade is going on; files are of the project's rate."""
    total, plain = np.zeros((frames, channels)), np.ones(frames, bool)
    for item, source, volume in items_of(text):
        position, length, offset = (float(value(item, name)) * rate for name in ("POSITION", "LENGTH", "SOFFS"))
        for time in (position, length, offset):
            assert abs(time - round(time)) < 1e-6, "not on a sample"
        first, count = round(position), round(length)
        sound = sf.read(value(source, "FILE"), always_2d=True)[0][round(offset) :][:count]
        sound = np.repeat(sound, channels, 1) if sound.shape[1] < channels else sound
        part = total[first : first + len(sound)]
        part += (sound * float(value(item, "VOLPAN")) * volume)[: len(part)]
        fade_in, fade_out = (round(float(value(item, name, 2)) * rate) for name in ("FADEIN", "FADEOUT"))
        plain[first : first + fade_in] = False
        plain[first + count - fade_out : first + count] = False
    return total, plain


@pytest.mark.parametrize("options", [(), ("--layers", "2", "--continuity", "0.9", "--match", "0.3")], ids=" ".join)
def test_a_reaper_project_plays_the_mix_to_the_sample(place: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    recipe = remix(place, tmp_path / "out.wav", *options, "--exclude", "other rate*", "--rpp", tmp_path / "out.rpp")
    text = (tmp_path / "out.rpp").read_text()
    mix = mix_of(recipe)
    total, plain = played(text, len(mix), RATE, 2)
    assert plain.mean() > 0.5
    assert np.abs(total[plain] - mix[plain]).max() < 1e-5
    assert len(items_of(text)) == sum(event.source is not None for event in recipe.events)


def test_crossfades_overlap_by_their_length_and_gains_glide(place: Path, tmp_path: Path) -> None:
    recipe = remix(place, tmp_path / "out.wav", "--rpp", tmp_path / "out.rpp")
    items = [item for item, _, _ in items_of((tmp_path / "out.rpp").read_text())]
    for number, event in enumerate(recipe.events[1:], 1):
        before, after = items[number - 1], items[number]
        overlap = float(value(before, "POSITION")) + float(value(before, "LENGTH")) - float(value(after, "POSITION"))
        missing = event.fade / RATE - overlap  # what a file that begins there does not have
        assert missing >= -1e-9
        if event.source_start:
            assert float(value(after, "FADEIN", 2)) == pytest.approx(event.fade / RATE, abs=1e-9)
        assert float(value(before, "FADEOUT", 2)) == pytest.approx(event.fade / RATE, abs=1e-9)
        assert float(value(after, "VOLPAN")) == pytest.approx(10 ** (event.gain_db / 20))


def test_the_project_has_the_masters_gain_and_the_seed(place: Path, tmp_path: Path) -> None:
    recipe = remix(
        place, tmp_path / "out.wav", "--dry-wet", "0:1,3:0.25", "--rpp", tmp_path / "out.rpp", "--stems", tmp_path / "s"
    )
    rpp = pytest.importorskip("rpp")
    project = rpp.loads((tmp_path / "out.rpp").read_text())
    master = json.loads((tmp_path / "s" / "stems.json").read_text())["master"]
    assert float(value(project, "MASTER_VOLUME")) == pytest.approx(10 ** (master["gain_db"] / 20))
    assert int(value(project, "SAMPLERATE")) == recipe.output.sample_rate
    wet, dry = project.findall(".//TRACK")
    assert [[float(number) for number in row[1:3]] for row in wet.find("VOLENV2") if row[0] == "PT"] == [
        [0, 1],
        [3, 0.25],
    ]
    assert [[float(number) for number in row[1:3]] for row in dry.find("VOLENV2") if row[0] == "PT"] == [
        [0, 0],
        [3, 0.75],
    ]
    assert value(dry.find("ITEM").find("SOURCE"), "FILE") == str(place / "seed.wav")


def test_merged_units_are_played_from_the_layers(place: Path, tmp_path: Path) -> None:
    options = ("--morph", "geomean", "--layers", "2", "--rpp", tmp_path / "out.rpp")
    line = refusal("remix", place / "seed.wav", "-o", tmp_path / "out.wav", *options, status=2)
    assert "--stems-by layer" in line
    assert not list(tmp_path.iterdir())
    recipe = remix(place, tmp_path / "out.wav", *options, "--stems", tmp_path / "stems", "--stems-by", "layer")
    total, plain = played((tmp_path / "out.rpp").read_text(), recipe.output.frames, RATE, 2)
    assert plain.all()
    assert np.abs(total - mix_of(recipe)).max() < 1e-6


def test_units_in_archives_are_played_from_the_layers(place: Path, tmp_path: Path) -> None:
    archive, index = pack_tree(place / "drums", tmp_path / "drums.zip"), tmp_path / "index"
    scan_spectral(str(index), archive)
    words = ("remix", place / "seed.wav", "-o", tmp_path / "out.wav", "-q", "-I", index, "--rpp", tmp_path / "out.rpp")
    line = refusal(*words, status=2)
    assert "Reaper cannot open" in line
    assert "--stems-by layer" in line
    assert not (tmp_path / "out.wav").exists()
    assert command(*words, "--stems", tmp_path / "stems", "--stems-by", "layer").status == 0
    text = (tmp_path / "out.rpp").read_text()
    assert f'FILE "{tmp_path / "stems" / "layer 1.wav"}"' in text
    assert "drums.zip" not in text


def test_names_with_quotation_marks_can_be_read_back(tmp_path: Path) -> None:
    assert [quoted(text) for text in ("a b", 'a"b', "a\"b'c")] == ['"a b"', "'a\"b'", "`a\"b'c`"]
    from embedindex.errors import UsageError

    with pytest.raises(UsageError, match="rename the file"):
        quoted("line\nbreak")


# -- tables and pictures -----------------------------------------------------------------------------------------


def test_the_table_of_events_is_the_recipe(place: Path, tmp_path: Path) -> None:
    recipe = remix(place, tmp_path / "out.wav", "--layers", "2", "--events")
    rows = list(csv.DictReader((tmp_path / "out.events.csv").read_text().splitlines()))
    assert len(rows) == len(recipe.events)
    for row, event in zip(rows, recipe.events, strict=True):
        assert round(float(row["start"]) * RATE) == event.start
        assert round(float(row["end"]) * RATE) == event.start + event.frames
        assert event.source is not None
        source = recipe.sources[event.source]
        assert (row["file"], int(row["layer"])) == (source.path.decode(), event.layer + 1)
        assert round(float(row["file_start"]) * source.sample_rate) == event.source_start


@pytest.mark.parametrize("options", [("--dry-wet", "0.5", "--layers", "2"), ("--morph", "envelope"), ()], ids=" ".join)
def test_credits_name_everything_that_is_heard_and_add_up(
    place: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    recipe = remix(place, tmp_path / "out.wav", *options)
    data = (tmp_path / "out.credits.csv").read_bytes()
    assert data == credits_csv(recipe)
    rows = list(csv.DictReader(data.decode().splitlines()))
    seconds = {row["file"]: float(row["seconds"]) for row in rows}
    assert (str(place / "seed.wav") in seconds) == bool(options)
    whole = recipe.output.frames / RATE * (recipe.layers + bool(options))
    assert sum(seconds.values()) == pytest.approx(whole, abs=1e-4)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-4)
    for row in rows:
        assert float(row["share"]) == pytest.approx(seconds[row["file"]] / whole, abs=1e-5)


def test_the_picture_colours_units_by_their_files(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    from embedindex.remix.picture import NAMED, OTHERS, colours_of

    recipe = remix(place, tmp_path / "out.wav", "--layers", "2", "--picture")
    assert imread(tmp_path / "out.png").shape[1] == 1320
    colours = colours_of(recipe)
    assert set(colours) == {event.source for event in recipe.events} - {None}
    own = [colour for colour in colours.values() if colour != OTHERS]
    assert len(set(own)) == len(own) == min(NAMED, len(colours))


def test_render_writes_the_same_extras_again(place: Path, tmp_path: Path) -> None:
    remix(place, tmp_path / "out.wav", "--rpp", tmp_path / "out.rpp", "--events", "--labels")
    again = tmp_path / "again.wav"
    options = ("--rpp", tmp_path / "again.rpp", "--events", "--labels", "--stems", tmp_path / "stems")
    assert command("render", tmp_path / "out.recipe.json", "-o", again, *options).status == 0
    for suffix in (".wav", ".rpp", ".events.csv", ".labels.txt"):
        assert again.with_suffix(suffix).read_bytes() == (tmp_path / "out").with_suffix(suffix).read_bytes(), suffix


def test_each_variation_has_its_own_stems_and_project(place: Path, tmp_path: Path) -> None:
    options = (
        "--variations",
        "2",
        "--stems",
        tmp_path / "stems",
        "--rpp",
        tmp_path / "p.rpp",
        "--stems-by",
        "layer",
        "-q",
    )
    assert command("remix", place / "seed.wav", "-o", tmp_path / "out.wav", *options).status == 0
    for number in (1, 2):
        assert (tmp_path / f"p-{number}.rpp").exists()
        assert (tmp_path / "stems" / str(number) / "layer 1.wav").exists()


def test_extras_that_cannot_be_written_are_refused_before_anything_is_made(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("remix", place / "seed.wav", "-o", tmp_path / "out.wav")
    assert "ends in .rpp" in refusal(*words, "--rpp", tmp_path / "out.txt", status=2)
    assert "no such folder" in refusal(*words, "--rpp", tmp_path / "no" / "out.rpp", status=2)
    assert "source, layer" in refusal(*words, "--stems", tmp_path / "s", "--stems-by", "track", status=2)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert "embedindex[plots]" in refusal(*words, "--picture")
    assert not list(tmp_path.iterdir())


def test_stems_in_a_folder_that_cannot_be_made(place: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "file", texture(0.2, 1), RATE)
    words = ("remix", place / "seed.wav", "-o", tmp_path / "out.wav")
    assert "choose another folder" in refusal(*words, "-q", "--stems", tmp_path / "file" / "stems", status=2)


def test_stems_take_the_place_of_stems_only(place: Path, tmp_path: Path) -> None:
    seed = tmp_path / "seed.wav"
    seed.write_bytes((place / "seed.wav").read_bytes())
    before = seed.read_bytes()
    words = ("remix", seed, "-o", tmp_path / "out.wav", "--dry-wet", "0.5", "--stems-by", "layer", "--stems")
    assert "seed.wav: is there already, and no stem" in refusal(*words, tmp_path, "-q", status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["seed.wav"]
    assert seed.read_bytes() == before
    for _ in range(2):
        assert command(*words, tmp_path / "stems", "-q").status == 0


def test_sources_of_another_rate_keep_their_own_seconds(place: Path, tmp_path: Path) -> None:
    recipe = remix(place, tmp_path / "out.wav", "--include", "other rate*", "--no-repeat", "0")
    event = recipe.events[3]
    item = items_of(project_text(recipe))[3][0]
    lead_s = (event.fade - event.lead) / RATE if not event.follows else event.fade // 2 / RATE
    assert float(value(item, "SOFFS")) == pytest.approx(max(0.0, event.source_start / 16000 - lead_s), abs=1e-4)
