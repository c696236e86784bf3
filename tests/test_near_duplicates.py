"""Duplicates: exact copies, the same recording in another form, and sounds that are only alike."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from embedindex import near_duplicates
from embedindex.arrays import Float32Array
from embedindex.correlation import MAX_LAG_S, SAMPLE_RATE, correlate, listening_rate
from embedindex.index import load_view
from embedindex.models import ModelRequest
from embedindex.near_duplicates import MAX_OFFSET_S, find_duplicates, quality, recording_likeness
from embedindex.store import Store
from tests.command_line import command, refusal
from tests.indexing import age, one, run_scan
from tests.sounds import chirp, drum_hit, encode, noise, pad, sine, write_wav

RATE = 44100


def melody(seed: int, notes: int = 8) -> Float32Array:
    """Return some seconds of tones whose order only the seed decides."""
    rng = np.random.default_rng(seed)
    tones = [chirp(f, f * rng.uniform(0.8, 1.3), 0.5) for f in rng.uniform(100, 4000, notes)]
    return np.concatenate(tones) * np.float32(0.8) + noise(0.5 * notes, seed=seed, level=0.01)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library of originals and altered copies, scanned with the built-in model."""
    folder = tmp_path_factory.mktemp("duplicates")
    library = folder / "library"
    library.mkdir()
    for seed in range(6):
        write_wav(library / f"other{seed}.wav", melody(100 + seed))
        write_wav(library / f"drum{seed}.wav", drum_hit("snare", seed))
    song = melody(1)
    write_wav(library / "song.wav", song, subtype="PCM_16")
    shutil.copy(library / "song.wav", library / "song copy.wav")
    encode(library / "song.mp3", song)
    encode(library / "song.ogg", 0.2 * song)
    write_wav(library / "song late.wav", np.concatenate([np.zeros(round(0.2 * RATE), np.float32), song])[: len(song)])
    notes = np.split(song, 8)
    write_wav(library / "song reordered.wav", np.concatenate(notes[4:] + notes[:4]))
    drone = pad([110.0, 165.0], 40.0)
    write_wav(library / "drone.wav", drone)
    encode(library / "drone.flac", drone, codec="PCM_16")
    for path in library.iterdir():
        age(path)
    os.environ["EMBEDINDEX_INDEX"] = str(folder / "index")
    try:
        ran = command("scan", library, "--model", "spectral", "-j", "1", "--quiet")
    finally:
        del os.environ["EMBEDINDEX_INDEX"]
    assert ran.status == 0, ran.error
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def groups(*options: str) -> list[list[str]]:
    """Return the names of the files in each group, in the order in which they come."""
    found: Any = command("duplicates", "--json", *options).json["groups"]
    return [[os.path.basename(file["path"]) for file in group["files"]] for group in found]


def test_the_same_recording_is_found_in_every_form_and_what_is_only_alike_is_not() -> None:
    found = groups()
    assert [set(names) for names in found] == [
        {"drone.wav", "drone.flac"},
        {"song.wav", "song copy.wav", "song.mp3", "song.ogg", "song late.wav"},
    ]


def test_best_quality_comes_first_and_nothing_is_deleted(place: Path) -> None:
    before = sorted((place / "library").iterdir())
    drones, songs = command("duplicates", "--json").json["groups"]
    assert [file["keep"] for file in songs["files"]] == [True, False, False, False, False]
    names = [os.path.basename(file["path"]) for file in songs["files"]]
    assert names[0] in ("song late.wav", "song copy.wav")
    assert set(names[-2:]) == {"song.mp3", "song.ogg"}
    assert os.path.basename(drones["files"][0]["path"]) == "drone.wav"
    assert drones["kind"] == songs["kind"] == "near"
    assert sorted((place / "library").iterdir()) == before


def test_exact_copies_only(place: Path) -> None:
    (group,) = command("duplicates", "--exact", "--json").json["groups"]
    assert group["kind"] == "exact"
    assert [(os.path.basename(file["path"]), file["likeness"]) for file in group["files"]] == [
        ("song copy.wav", 1.0),
        ("song.wav", 1.0),
    ]


def test_quality_prefers_lossless_then_rate_then_bits(place: Path) -> None:
    records = {
        name: one(str(place / "index"), place / "library" / name) for name in ("song.wav", "song.mp3", "song.ogg")
    }
    assert quality(records["song.wav"]) > quality(records["song.mp3"])
    assert quality(records["song.wav"]) > quality(records["song.ogg"])


def test_filters_and_threshold_narrow_the_search() -> None:
    assert groups("--path", "drone*") == [["drone.wav", "drone.flac"]]
    assert groups("--path", "*.mp3") == []
    assert groups("--threshold", "1", "--path", "song.*") == []


def test_without_listening_the_index_alone_decides_and_no_file_is_needed(place: Path) -> None:
    wanted = groups("--no-listen", "--threshold", "0.9")
    library = place / "library"
    library.rename(place / "away")
    try:
        assert groups("--no-listen", "--threshold", "0.9") == wanted
        away = groups()
    finally:
        (place / "away").rename(library)
    assert {"song.wav", "song copy.wav"} <= set(away[-1])  # what cannot be read is decided by its vectors
    assert any({"song.wav", "song.mp3"} <= set(names) for names in wanted)


def test_table_and_summary(place: Path) -> None:
    ran = command("duplicates", "--exact")
    lines = [line.split("\t") for line in ran.text.splitlines()]
    assert [line[:4] for line in lines] == [["1", "keep", "1.000", "0:04.0"], ["1", "exact", "1.000", "0:04.0"]]
    assert "1 group, 0.4 MB in 1 file besides the best of each; nothing was deleted" in ran.error
    assert "no duplicates" in command("duplicates", "--path", "drum*").error
    assert "the threshold must be above 0 and at most 1, not 0" in refusal("duplicates", "--threshold", "0", status=2)


# -- likeness ------------------------------------------------------------------------------------------------------


def unit_rows(windows: int, seed: int) -> Float32Array:
    rows = np.random.default_rng(seed).standard_normal((windows, 32)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_likeness_is_one_for_itself_and_at_any_offset_up_to_the_limit() -> None:
    rows = unit_rows(20, 1)
    assert recording_likeness(rows, 0.5, rows, 0.5) == pytest.approx(1)
    for late in range(1, round(MAX_OFFSET_S / 0.5) + 1):
        assert recording_likeness(rows, 0.5, rows[late:], 0.5) == pytest.approx(1, abs=1e-6)
    assert recording_likeness(rows, 0.5, rows[8:], 0.5) < 0.6


def test_likeness_takes_order_and_both_directions_into_account() -> None:
    rows = unit_rows(20, 2)
    assert recording_likeness(rows, 0.5, rows[::-1], 0.5) < 0.5
    silent_half = rows.copy()
    silent_half[10:] = 0
    for first, second in ((rows, silent_half), (silent_half, rows)):
        assert recording_likeness(first, 0.5, second, 0.5) == pytest.approx(0.5, abs=0.1)
    assert recording_likeness(rows, 0.5, np.zeros_like(rows), 0.5) == -1


def test_files_of_other_hops_are_compared_by_time() -> None:
    rows = unit_rows(21, 3)
    assert recording_likeness(rows, 0.25, rows[::2], 0.5) > 0.5
    assert recording_likeness(rows[::2], 0.5, rows[::2], 0.5) == pytest.approx(1)


def test_waveforms_correlate_at_any_level_sign_and_start_up_to_the_limit() -> None:
    sound = noise(3.0, SAMPLE_RATE, seed=4)
    for late_s, level in ((0.0, 1.0), (0.5, -0.1), (MAX_LAG_S, 3.0)):
        late = np.concatenate([np.zeros(round(late_s * SAMPLE_RATE), np.float32), np.float32(level) * sound])
        for pair in ((sound, late), (late, sound)):
            found = correlate(*pair)
            assert (found.whole, found.detail) == pytest.approx((1, 1), abs=1e-3)
            assert found.outside == pytest.approx(0, abs=1e-3)
            assert found.same_recording()
    too_late = np.concatenate([np.zeros(round(1.5 * SAMPLE_RATE), np.float32), sound])
    assert not correlate(sound, too_late).same_recording()
    assert correlate(sound, noise(3.0, SAMPLE_RATE, seed=5)).whole < 0.1
    assert correlate(sound, np.zeros_like(sound)).whole == 0
    assert correlate(sound[:1], sound[:1]).detail == 0


def delayed(samples: Float32Array, by_samples: float) -> Float32Array:
    """Return a sound later by a part of a sample, by the shift theorem."""
    spectrum = np.fft.rfft(samples, 2 * len(samples))
    spectrum *= np.exp(-2j * np.pi * np.arange(len(spectrum)) * by_samples / (2 * len(samples)))
    return np.fft.irfft(spectrum)[: len(samples)].astype(np.float32)


def test_waveforms_between_samples_are_brought_together() -> None:
    sound = noise(2.0, SAMPLE_RATE, seed=7)
    for by_samples in (0.5, -0.31, 1.7):
        found = correlate(sound, delayed(sound, by_samples))
        assert min(found.whole, found.detail) > 0.98


def equalised(samples: Float32Array, gain_db: float) -> Float32Array:
    """Return a sound with more below 1 kHz, gradually."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20 / (1 + (hertz / 1000) ** 2)), len(samples)).astype(np.float32)


def test_mild_equalisation_is_the_same_recording_and_a_filter_is_not() -> None:
    sound = noise(2.0, SAMPLE_RATE, seed=8)
    assert correlate(sound, equalised(sound, 6)).same_recording()
    filtered = correlate(sound, equalised(sound, 30))
    assert filtered.tilt_db > 6
    assert not filtered.same_recording()


def test_a_part_of_a_recording_is_not_the_recording() -> None:
    sound = noise(2.0, SAMPLE_RATE, seed=9)
    found = correlate(sound, sound[: SAMPLE_RATE + SAMPLE_RATE // 2])
    assert found.outside == pytest.approx(0.25, abs=0.01)
    assert not found.same_recording()


def test_deep_tone_under_other_details_is_another_recording() -> None:
    deep = 3 * chirp(60, 50, 2.0, SAMPLE_RATE)
    first, second = (deep + 0.5 * noise(2.0, SAMPLE_RATE, seed=seed) for seed in (1, 2))
    assert np.corrcoef(first, second)[0, 1] > 0.95
    assert not correlate(first, second).same_recording()


def partials(levels: list[float], phases: list[float], rate: int = SAMPLE_RATE) -> Float32Array:
    """Return a second of a tone of 100 Hz with such partials."""
    time_s = np.arange(rate) / rate
    tone = sum(
        level * np.sin(2 * np.pi * 100 * number * time_s + phase)
        for number, (level, phase) in enumerate(zip(levels, phases, strict=True), 1)
    )
    return np.asarray(tone, np.float32)


def test_tones_of_one_pitch_with_other_partials_or_phases_are_other_sounds() -> None:
    levels, phases = [1, 0.5, 0.3, 0.25, 0.2, 0.15], [0.0] * 6
    saw = partials(levels, phases)
    others = (partials([1, 0.1, 0.6, 0.1, 0.3, 0.1], phases), partials(levels, [0, 2, 4, 1, 3, 5]))
    assert correlate(saw, saw).lines < 4
    for other in others:
        assert not correlate(saw, other).same_recording()
    coded = saw + noise(1.0, SAMPLE_RATE, seed=1, level=0.005)
    assert correlate(saw, coded).same_recording()


def test_what_suffices_for_noise_does_not_for_a_tone() -> None:
    hiss, tone = noise(1.0, SAMPLE_RATE, seed=1), sine(440, 1.0, SAMPLE_RATE)
    for sound, same in ((hiss, True), (tone, False)):
        other = noise(1.0, SAMPLE_RATE, seed=2)
        level = 0.25 * np.linalg.norm(sound) / np.linalg.norm(other)
        found = correlate(sound, sound + np.float32(level) * other)
        assert found.same_recording() is same


def test_short_sounds_are_read_at_a_higher_rate() -> None:
    assert listening_rate(0.05, 0.3) == 2 * listening_rate(0.6, 12.0) == 2 * SAMPLE_RATE


def test_many_files_are_looked_up_in_cells_with_the_same_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(str(place / "index")) as store:
        view = load_view(store)
        wanted = find_duplicates(store, view, listen=False, threshold=0.9)
        monkeypatch.setattr(near_duplicates, "COMPARED_WITH_ALL", 0)
        assert find_duplicates(store, view, listen=False, threshold=0.9) == wanted
    assert wanted


def scanned(folder: Path, sounds: dict[str, tuple[Float32Array, int]]) -> list[set[str]]:
    """Return the groups of duplicates among some sounds, {name: (samples, rate)}."""
    (folder / "sounds").mkdir()
    for name, (samples, rate) in sounds.items():
        write_wav(folder / "sounds" / name, samples, rate)
    run_scan(str(folder / "other"), folder / "sounds", request=ModelRequest("spectral"))
    with Store(str(folder / "other")) as store:
        found = find_duplicates(store, load_view(store))
    return [{Path(file.file.text_path).name for file in group.files} for group in found]


def test_sounds_that_lie_above_4_khz_are_heard_there(tmp_path: Path) -> None:
    """What an encoder leaves of the little below differs more than what there is above."""
    hiss = noise(1.0, 22050, seed=1, level=0.5)
    spectrum = np.fft.rfft(hiss)
    spectrum[: len(spectrum) * 5000 // 11025] = 0
    high = np.fft.irfft(spectrum, len(hiss))
    low, other = (soxr.resample(noise(1.0, 7000, seed=seed, level=0.002), 7000, 22050)[: len(hiss)] for seed in (2, 3))
    first, second = (np.asarray(high + rest, np.float32) for rest in (low, low + 0.44 * other))
    apart = [np.asarray(soxr.resample(samples, 22050, SAMPLE_RATE), np.float32) for samples in (first, second)]
    assert not correlate(apart[0], apart[1]).same_recording()
    others = {f"{hz}.wav": (sine(hz, 1.0, 22050), 22050) for hz in (100.0, 330.0, 900.0, 2500.0)}
    assert scanned(tmp_path, {"a.wav": (first, 22050), "b.wav": (second, 22050), **others}) == [{"a.wav", "b.wav"}]


def test_a_wave_of_milliseconds_is_found_behind_silence_among_many(tmp_path: Path) -> None:
    waves = {}
    for number in range(100):
        partials = np.random.default_rng(number).standard_normal((2, 12)) / np.arange(1, 13)
        time = np.arange(441) / 441 * 2 * np.pi
        wave = sum(a * np.cos(n * time) + b * np.sin(n * time) for n, (a, b) in enumerate(partials.T, 1))
        waves[f"{number}.wav"] = np.asarray(wave / np.abs(wave).max() * 0.9, np.float32)
    asked = ("0.wav", "2.wav")  # by their vectors, some fifty others are nearer to them than their copies
    late = {f"late {name}": np.concatenate([np.zeros(9000, np.float32), waves[name]]) for name in asked}
    others = {f"drum {seed}.wav": drum_hit("snare", seed) for seed in range(40)}
    found = scanned(tmp_path, {name: (samples, RATE) for name, samples in (waves | late | others).items()})
    assert all({name, f"late {name}"} in found for name in asked)
