"""``--stretch`` and ``--pitch``: sounds made longer or shorter, higher or lower, so that they take a unit's place."""

from __future__ import annotations

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.audio import read_audio
from embedindex.errors import UsageError
from embedindex.remix.attacks import onsets_s
from embedindex.remix.bending import LIMITS, Bend, bent, read_bent
from embedindex.remix.fitting import Limits, fit, own_length, steady_pitch
from embedindex.remix.frames import describe
from embedindex.remix.loudness import integrated_lufs, true_peak_db, unit_lufs
from embedindex.remix.outputs import read_recipe
from embedindex.remix.recipe import Recipe, from_json, to_json
from embedindex.remix.render import mixed_blocks
from tests.command_line import command, refusal
from tests.indexing import write_samples
from tests.remixing import RATE, beat, samples_of, scan_spectral, texture
from tests.sounds import chirp, noise, sine, write_wav
from tests.test_remix_outputs import items_of, value
from tests.test_remix_render import burst_db

pytest.importorskip("python_stretch")
FASTER = 24_255


def note(semitones: float, duration_s: float, rate: int = RATE, level: float = 0.3) -> Float32Array:
    """Return a steady note with six harmonics; 69 is 440 Hz."""
    frequency_hz = 440 * 2 ** ((semitones - 69) / 12)
    parts = [sine(number * frequency_hz, duration_s, rate, level / number) for number in range(1, 7)]
    return np.asarray(np.sum(parts, axis=0) / 2, np.float32)


# -- bending -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [RATE, 44100, 96000])
@pytest.mark.parametrize("stretch", [0.8, 0.93, 1.17, 1.2])
def test_what_is_bent_stays_in_its_place(tmp_path: Path, stretch: float, rate: int) -> None:
    """A click at the frame asked for comes at that frame, one before and one after it as far off as they should."""
    samples = np.zeros(2 * rate, np.float32)
    start, apart = rate, round(0.2 * rate)
    for place in (start - apart, start, start + apart):
        samples[place] = 0.9
    write_wav(tmp_path / "a.wav", samples, rate)
    lead, frames = round(0.3 * rate), round(0.7 * rate)
    made = read_bent(os.fsencode(tmp_path / "a.wav"), start, lead, frames, rate, 1, Bend(stretch))
    assert made.shape == (frames, 1)
    energy = np.convolve(np.square(made[:, 0]), np.ones(round(0.002 * rate)), "same")
    for number in (-1, 0, 1):
        wanted = lead + round(number * apart * stretch)
        near = energy[wanted - round(0.05 * rate) : wanted + round(0.05 * rate)]
        assert abs(int(np.argmax(near)) - round(0.05 * rate)) <= 0.002 * rate


@pytest.mark.parametrize("semitones", [-3.0, -1.3, 0.4, 3.0])
def test_pitch_moves_and_time_does_not(semitones: float) -> None:
    made = bent(note(60, 1.5)[:, None], RATE, Bend(1.0, semitones))
    assert len(made) == round(1.5 * RATE)
    assert steady_pitch(made[RATE // 4 : RATE], RATE) == pytest.approx(60 + semitones, abs=0.08)


def test_the_same_piece_is_the_same_in_every_thread() -> None:
    samples = np.stack((texture(1, 1), texture(1, 2)), 1)
    first = bent(samples, RATE, Bend(1.13, -2.0))
    with ThreadPoolExecutor(8) as threads:
        for other in threads.map(lambda _: bent(samples, RATE, Bend(1.13, -2.0)), range(16)):
            np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("count", [1, 50, 2000])
def test_the_shortest_sounds_can_be_bent(tmp_path: Path, count: int) -> None:
    write_wav(tmp_path / "a.wav", noise(count / RATE, RATE), RATE)
    made = read_bent(os.fsencode(tmp_path / "a.wav"), 0, 100, 5000, RATE, 2, Bend(1.2, 3.0))
    assert made.shape == (5000, 2)
    assert np.isfinite(made).all()
    assert np.abs(made[-1000:]).max() < 0.005


# -- how far -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [RATE, 48000])
@pytest.mark.parametrize("semitones", [34.0, 45.5, 57.27, 69.0, 80.9])
def test_pitches_are_found_to_a_twentieth_of_a_semitone(semitones: float, rate: int) -> None:
    assert steady_pitch(note(semitones, 0.4, rate)[:, None], rate) == pytest.approx(semitones, abs=0.05)


def test_what_has_no_one_pitch_has_none() -> None:
    two = np.concatenate((note(60, 0.3), note(65, 0.3)))
    for samples in (noise(0.5, RATE), chirp(200, 800, 0.5, RATE), two, np.zeros(9000, np.float32), note(60, 0.001)):
        assert steady_pitch(samples[:, None], RATE) is None


def hits(times_s: list[float], duration_s: float) -> Float32Array:
    """Return bursts of noise that begin at some times, (n, 1)."""
    samples = noise(duration_s, RATE, 9, 1e-4)
    for time_s in times_s:
        start = round(time_s * RATE)
        count = max(0, min(2000, len(samples) - start))
        samples[start : start + count] += noise(count / RATE, RATE, 1) * np.exp(-np.arange(count) / 500).astype(
            np.float32
        )
    return samples[:, None]


@pytest.mark.parametrize(
    ("times_s", "there_s", "wanted_s"),
    [
        ([0.005, 0.45], 2.0, 0.45),  # shorter than the unit: the next hit would get in
        ([0.005, 0.58], 2.0, 0.58),  # longer: it would be cut
        ([0.005, 0.44, 0.52], 2.0, 0.52),  # the one nearer to the unit's end
        ([0.005, 0.25, 0.8], 2.0, 0.5),  # neither is near
        ([0.005, 0.508], 2.0, 0.5),  # as good as there
        ([0.005], 0.42, 0.42),  # the file ends
        ([0.005], 0.2, 0.2),  # far too early
    ],
)
def test_a_piece_is_as_long_as_until_something_new_begins(
    times_s: list[float], there_s: float, wanted_s: float
) -> None:
    found = own_length(hits(times_s, 0.7), round(there_s * RATE), RATE // 2, RATE, 0.2)
    assert found / RATE == pytest.approx(wanted_s, abs=0.004)


def test_limits_hold_and_what_they_keep_from_fitting_is_told() -> None:
    unit, piece = note(60, 0.5)[:, None], note(58.5, 0.7)[:, None]
    whole = fit(unit, piece, len(piece), RATE, Limits(0.2, 3.0))
    assert whole.bend.stretch == 1
    assert whole.bend.semitones == pytest.approx(1.5, abs=0.05)
    assert not whole.off_pitch
    half = fit(unit, piece, len(piece), RATE, Limits(0.2, 1.0))
    assert (half.bend.semitones, half.off_pitch) == (1.0, True)
    short = fit(unit, piece, round(0.3 * RATE), RATE, Limits(0.1))
    assert (short.bend, short.short) == (Bend(1.1), True)
    octave = fit(unit, note(49, 0.7)[:, None], len(piece), RATE, Limits(0.0, 3.0))
    assert octave.bend.semitones == pytest.approx(-1, abs=0.05)  # to the C below
    assert fit(unit, piece, 1, RATE, Limits()).bend.plain
    assert fit(unit, noise(0.7, RATE)[:, None], len(piece), RATE, Limits(0.0, 3.0)).bend.plain


# -- remixes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of drum loops and of notes out of tune, and two seeds: drums, notes; left as they are."""
    folder = tmp_path_factory.mktemp("bending")
    (folder / "library").mkdir()
    for number in range(8):
        drums = beat(6, 20 + number)[0] + noise(6, RATE, number, 0.002)
        write_samples(folder / "library" / f"drums{number}.wav", drums, FASTER)  # by a tenth than the seed
    for number in range(14):
        write_samples(folder / "library" / f"note{number}.wav", note(50.4 + 1.5 * number, 2.0), RATE)
    scan_spectral(str(folder / "index"), folder / "library")
    write_samples(folder / "drums.wav", beat(6, 5)[0], RATE)
    notes = np.concatenate([note(number, 0.5) for number in (60, 64, 55, 67, 62, 65)])
    write_samples(folder / "notes.wav", np.stack((notes, notes), 1), RATE)
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


BOTH = ("--stretch", "0.2", "--pitch", "3", "--continuity", "0.1")


def remix(place: Path, seed: str, out: Path, *options: object) -> Recipe:
    out.parent.mkdir(exist_ok=True)
    ran = command("remix", place / seed, "-o", out, "-q", *map(str, options))
    assert ran.status == 0, ran.error
    return read_recipe(str(out.with_suffix(".recipe.json")))


def test_drums_are_stretched_to_their_units(place: Path, tmp_path: Path) -> None:
    """Rows 9, 10 and 12: length to the sample, attacks where they were, levels, and the same bytes again."""
    out = tmp_path / "out.wav"
    recipe = remix(place, "drums.wav", out, *BOTH)
    stretched = [event for event in recipe.events if event.stretch != 1]
    assert len(stretched) >= 3
    assert all(abs(event.stretch - 1) <= LIMITS[0] + 1e-9 for event in recipe.events)
    assert recipe.options["sound"]["bending"]["stretch"] == "0.2"
    seed, made = samples_of(place / "drums.wav"), samples_of(out)
    assert len(made) == len(seed)
    assert integrated_lufs(made, RATE) == pytest.approx(integrated_lufs(seed, RATE), abs=0.5)
    assert true_peak_db(made) <= -1
    times, found = beat(6, 5)[1], onsets_s(describe(made[:, 0]))
    near = np.abs(found[:, None] - np.array(times)) <= 0.05
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    assert 2 * precision * recall / (precision + recall) >= 0.8
    plain = np.concatenate(list(mixed_blocks(recipe)))
    errors = [
        abs(unit_lufs(plain, RATE, event.start, end) - unit_lufs(seed, RATE, event.start, end))
        for event in recipe.events
        if not event.clamped
        for end in [event.start + event.frames]
    ]
    assert np.median(errors) <= 0.5
    assert np.quantile(errors, 0.95) <= 2
    assert command("render", tmp_path / "out.recipe.json", "-o", tmp_path / "again.wav").status == 0
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()


def test_stretched_hits_end_where_the_next_ones_would_begin(place: Path, tmp_path: Path) -> None:
    """In the file, something new begins right behind what was stretched."""
    recipe = remix(place, "drums.wav", tmp_path / "out.wav", *BOTH)
    for event in recipe.events:
        if event.stretch != 1 and event.source is not None:
            source = recipe.sources[event.source]
            if source.sample_rate != FASTER:
                continue
            samples = read_audio(source.path, sample_rate=RATE)[0]
            end_s = event.source_start / FASTER + (event.frames + event.fade / 2) / event.stretch / RATE
            attacks = onsets_s(describe(samples))
            assert np.abs(attacks - end_s).min() <= 0.012 or end_s == pytest.approx(len(samples) / RATE, abs=0.01)


def test_notes_are_brought_to_the_pitch_of_the_seed(place: Path, tmp_path: Path) -> None:
    options = ("--units", "grid:500ms", "--include", "note*", "--continuity", "0", "--temperature", "0")
    plain = remix(place, "notes.wav", tmp_path / "plain.wav", *options)
    assert not plain.bent
    tuned = remix(place, "notes.wav", tmp_path / "tuned.wav", *options, "--pitch", "3")
    seed = samples_of(place / "notes.wav")

    def off(recipe: Recipe) -> list[float]:
        made = np.concatenate(list(mixed_blocks(recipe)))
        apart = []
        for event in recipe.events:
            inner = slice(event.start + RATE // 20, event.start + event.frames - RATE // 20)
            wanted, have = steady_pitch(seed[inner], RATE), steady_pitch(made[inner], RATE)
            assert wanted is not None
            assert have is not None
            apart.append(abs((have - wanted + 6) % 12 - 6))
        return apart

    assert max(off(tuned)) < 0.1
    assert np.median(off(plain)) > 0.2
    assert all(abs(event.semitones) <= LIMITS[1] for event in tuned.events)


def test_threads_make_no_difference(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for threads in (1, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, threads=threads: range(threads), raising=False)
        remix(place, "drums.wav", tmp_path / str(threads) / "out.wav", *BOTH)
        made.append([(tmp_path / str(threads) / name).read_bytes() for name in ("out.wav", "out.recipe.json")])
    assert made[0] == made[1]


def test_joins_of_bent_tones_do_not_click(place: Path, index: str, library: Path, tmp_path: Path) -> None:
    """Row 7; the tones end early, so that they are stretched, and are out of tune."""
    rate, rng = 44100, np.random.default_rng(3)
    count = rate * 9 // 20
    ends = np.minimum(1, np.arange(count) / 1500)
    for number in range(8):
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(300, 360) * np.arange(count) / rate + rng.uniform(0, 6))
        soft = tone * (0.5 - 0.5 * np.cos(np.pi * ends)) * (0.5 - 0.5 * np.cos(np.pi * ends[::-1]))
        write_samples(library / f"{number}.wav", soft.astype(np.float32), rate)
    scan_spectral(index, library)
    seed = write_samples(tmp_path / "seed.wav", sine(330, 3, rate, 0.3), rate)
    words = ("remix", seed, "-o", tmp_path / "out.wav", "--units", "grid:500ms", "--index", index, *BOTH, "-q")
    assert command(*words).status == 0
    recipe = read_recipe(str(tmp_path / "out.recipe.json"))
    assert sum(event.stretch > 1.05 and event.semitones != 0 for event in recipe.events) >= 4

    def bursts(fades: bool) -> float:
        events = [replace(event, fade=0, lead=0) if not fades else event for event in recipe.events]
        samples = np.concatenate(list(mixed_blocks(replace(recipe, events=tuple(events)))))[:, 0]
        return float(np.median([burst_db(samples, event.start, rate) for event in recipe.events[1:]]))

    assert bursts(True) <= bursts(False) - 40


def test_bending_follows_its_breakpoints_and_goes_with_all_else(place: Path, tmp_path: Path) -> None:
    recipe = remix(
        place,
        "drums.wav",
        tmp_path / "out.wav",
        *("--preset", "rhythmic", "--stretch", "0:0,3:0,3.01:0.2", "--layers", "2", "--length", "8", "--rate", "32000"),
    )
    rate = recipe.output.sample_rate
    assert len(samples_of(tmp_path / "out.wav")) == 8 * rate
    late = [event.start / rate for event in recipe.events if event.stretch != 1]
    assert len(late) >= 3
    assert min(late) >= 3
    assert recipe.options["sound"]["bending"]["stretch"] == "0:0,3:0,3.01:0.2"


def test_merged_units_are_bent_first(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    recipe = remix(place, "drums.wav", out, *BOTH, "--morph", "envelope")
    assert recipe.bent
    assert recipe.morphed
    assert command("render", tmp_path / "out.recipe.json", "-o", tmp_path / "again.wav").status == 0
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()
    straight = replace(recipe, events=tuple(replace(event, stretch=1.0, semitones=0.0) for event in recipe.events))
    mixed = [np.concatenate(list(mixed_blocks(one))) for one in (recipe, straight)]
    assert np.abs(mixed[0] - mixed[1]).max() > 0.01


def test_tables_and_projects_say_how_units_are_bent(place: Path, tmp_path: Path) -> None:
    """Reaper takes the same piece of the file, at the same speed and pitch, from sample to sample."""
    recipe = remix(place, "notes.wav", tmp_path / "out.wav", *BOTH, "--events", "--rpp", tmp_path / "out.rpp")
    rows = list(csv.DictReader((tmp_path / "out.events.csv").read_text().splitlines()))
    items = [item for item, _, _ in items_of((tmp_path / "out.rpp").read_text())]
    assert any(event.semitones for event in recipe.events)
    sounding = [event for event in recipe.events if event.source is not None]
    for row, item, event in zip(rows, items, sounding, strict=True):
        assert (float(row["stretch"]), float(row["semitones"])) == (event.stretch, event.semitones)
        assert float(value(item, "PLAYRATE")) == pytest.approx(1 / event.stretch, abs=1e-12)
        assert (int(value(item, "PLAYRATE", 2)), float(value(item, "PLAYRATE", 3))) == (1, event.semitones)
        position, length, offset = (float(value(item, name)) for name in ("POSITION", "LENGTH", "SOFFS"))
        for time_s in (position, length):
            assert time_s * RATE == pytest.approx(round(time_s * RATE), abs=1e-6)
        begun_s = event.start / RATE - position  # what sounds before the unit, for the crossfade
        assert offset + begun_s / event.stretch == pytest.approx(event.source_start / RATE, abs=1e-9)


def test_another_version_of_what_bends_sounds_is_said(place: Path, tmp_path: Path) -> None:
    """It is what the same bytes depend on; where nothing is bent, it makes no difference."""
    recipe = remix(place, "notes.wav", tmp_path / "out.wav", *BOTH, "--units", "grid:500ms")
    path, out = tmp_path / "out.recipe.json", ("-o", tmp_path / "again.wav")
    assert recipe.bent_with is not None
    assert command("render", path, *out).error == ""
    path.write_text(path.read_text().replace(recipe.bent_with, "python-stretch 0.0.1"))
    ran = command("render", path, *out)
    assert ran.status == 0
    assert "made with python-stretch 0.0.1, and this is " + recipe.bent_with in ran.error
    assert "pip install 'python-stretch==0.0.1'" in ran.error
    assert command("render", path, *out, "-q").error == ""
    words = ("remix", place / "notes.wav", "-o", tmp_path / "b.wav", *BOTH, "--units", "grid:500ms")
    assert "python-stretch 0.0.1" in command(*words, "--recipe", path, "--reroll", "2").error
    plain = replace(recipe, events=tuple(replace(event, stretch=1.0, semitones=0.0) for event in recipe.events))
    path.write_text(to_json(plain).replace(recipe.bent_with, "python-stretch 0.0.1"))
    assert command("render", path, *out).error == ""


def test_recipes_bent_by_hand_are_checked(place: Path, tmp_path: Path) -> None:
    recipe = remix(place, "notes.wav", tmp_path / "out.wav", "--units", "grid:500ms")
    data = json.loads(to_json(recipe))
    del data["events"][0]["stretch"], data["events"][0]["semitones"]  # as in recipes of the first version
    assert from_json(json.dumps(data), "x") == recipe
    for change in ({"stretch": 2.5}, {"stretch": 0}, {"semitones": 13}, {"semitones": float("nan")}):
        wrong = {**data, "events": [{**data["events"][0], **change}, *data["events"][1:]]}
        with pytest.raises(UsageError, match=r"x\.json"):
            from_json(json.dumps(wrong), "x.json")
    bent_and_going_on = {**data["events"][1], "follows": True, "stretch": 1.1}
    with pytest.raises(UsageError, match="goes on in its file"):
        from_json(json.dumps({**data, "events": [data["events"][0], bent_and_going_on, *data["events"][2:]]}), "x")


@pytest.mark.parametrize(
    ("option", "wrong"), [("--stretch", "0.3"), ("--stretch", "x"), ("--pitch", "4"), ("--pitch", "0:1,0:2")]
)
def test_wrong_values_are_refused(place: Path, tmp_path: Path, option: str, wrong: str) -> None:
    line = refusal("remix", place / "notes.wav", "-o", tmp_path / "out.wav", option, wrong, status=2)
    assert f"{option} {wrong}" in line
    assert not list(tmp_path.iterdir())


def test_without_the_library_it_is_said_what_to_install(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remix(place, "notes.wav", tmp_path / "out.wav", "--units", "grid:500ms", "--pitch", "3")
    monkeypatch.setitem(__import__("sys").modules, "python_stretch", None)
    words = ("remix", place / "notes.wav", "-o", tmp_path / "b.wav")
    assert "embedindex[stretch]" in refusal(*words, "--stretch", "0.1")
    assert "embedindex[stretch]" in refusal("render", tmp_path / "out.recipe.json", "-o", tmp_path / "b.wav")
    assert not (tmp_path / "b.wav").exists()
    assert command(*words, "-q").status == 0
