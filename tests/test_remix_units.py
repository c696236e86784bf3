"""Cutting: units tile the sound, lie within bounds, begin just before attacks, and fall where colours change."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float32Array
from embedindex.errors import UsageError
from embedindex.remix.attacks import beats_s, onsets_s
from embedindex.remix.frames import BRIGHTNESS, LEVEL, PITCH, RATE, VOICING, describe, describe_blocks
from embedindex.remix.labels import Label, format_labels, read_labels
from embedindex.remix.units import LONGEST_S, SHORTEST_S, Unit, cut, parse_units
from tests.remixing import beat, texture
from tests.sounds import click_train, noise, sine


def units_of(samples: Float32Array, how: str, rate: int = RATE) -> list[Unit]:
    return cut(describe(samples), len(samples) * rate // RATE, rate, parse_units(how))[0]


def assert_tiles(units: list[Unit], frames: int) -> None:
    assert units[0].start == 0
    assert units[-1].end == frames
    assert all(left.end == right.start for left, right in pairwise(units))
    assert [unit.number for unit in units] == list(range(len(units)))


@settings(max_examples=25)
@given(st.integers(1, 200_000), st.sampled_from([8000, 44100, 48000, 96000]), st.sampled_from([120, 250, 333, 4000]))
def test_a_grid_tiles_a_sound_of_any_length_exactly(frames: int, rate: int, step_ms: int) -> None:
    track = describe(np.zeros(max(1, frames * RATE // rate), np.float32))
    units, kind = cut(track, frames, rate, parse_units(f"grid:{step_ms}ms"))
    assert kind == "grid"
    assert_tiles(units, frames)
    for unit in units[:-1]:
        assert unit.start == round(unit.number * step_ms / 1000 * rate)
    if len(units) > 1:
        assert min(unit.frames for unit in units) >= SHORTEST_S * rate - 1


@pytest.mark.parametrize("how", ["auto", "onset", "beat", "novelty", "grid:0.3s"])
@pytest.mark.parametrize("seed", [1, 2])
def test_units_tile_and_stay_within_bounds(how: str, seed: int) -> None:
    samples = np.concatenate((texture(5, seed), np.zeros(RATE * 6, np.float32), beat(4, seed)[0]))
    units = units_of(samples, how)
    assert_tiles(units, len(samples))
    for unit in units:
        assert SHORTEST_S - 0.001 <= unit.frames / RATE <= LONGEST_S + 0.001


def test_cuts_lie_3_to_10_ms_before_each_attack() -> None:
    times = [0.3, 0.8, 1.25, 2.0, 2.4]
    rate = 44100
    samples = click_train(times, 3.0, RATE) + noise(3.0, RATE, 1, 0.001)
    units = cut(describe(samples), 3 * rate, rate, parse_units("onset"))[0]
    starts = np.array([unit.start / rate for unit in units[1:]])
    assert len(starts) == len(times)
    before = np.array(times) - starts
    assert (before >= 0.0025).all()
    assert (before <= 0.0115).all()
    for unit, gap in zip(units[1:], before, strict=True):
        assert unit.attack_s == pytest.approx(gap, abs=0.002)


def test_onsets_are_found_where_the_hits_are() -> None:
    samples, times = beat(12, 3)
    found = onsets_s(describe(samples))
    hit = [time for time in times if np.abs(found - time).min() <= 0.02]
    assert len(hit) >= 0.95 * len(times)
    assert len(found) <= 1.1 * len(times)


def test_onsets_agree_with_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    samples, _ = beat(12, 5)
    theirs = librosa.onset.onset_detect(y=samples, sr=RATE, units="time")
    ours = onsets_s(describe(samples))
    assert sum(np.abs(ours - time).min() <= 0.05 for time in theirs) >= 0.85 * len(theirs)


def test_beats_follow_the_tempo() -> None:
    period = 60 / 126
    samples = click_train(list(np.arange(0.2, 14.5, period)), 15.0, RATE) + noise(15.0, RATE, 1, 0.001)
    beats = beats_s(describe(samples))
    assert np.median(np.diff(beats)) == pytest.approx(period, rel=0.02)
    assert np.abs((beats - 0.2 + period / 2) % period - period / 2).max() < 0.04


def test_novelty_falls_where_the_colour_changes() -> None:
    parts = [sine(300, 2.1, RATE), noise(1.7, RATE, 1), sine(2000, 2.4, RATE), noise(1.8, RATE, 2, 0.05)]
    units = units_of(np.concatenate(parts), "novelty")
    starts = np.array([unit.start / RATE for unit in units])
    for change in np.cumsum([len(part) / RATE for part in parts])[:-1]:
        assert np.abs(starts - change).min() < 0.1


def test_auto_takes_onsets_for_drums_novelty_for_pads_and_a_grid_for_silence() -> None:
    def kind(samples: Float32Array) -> str:
        return cut(describe(samples), len(samples), RATE, parse_units("auto"))[1]

    slow = sine(220, 8, RATE) * np.linspace(0.2, 1, 8 * RATE, dtype=np.float32)
    assert kind(beat(6, 1)[0]) == "onset"
    assert kind(slow) == "novelty"
    assert kind(np.zeros(5 * RATE, np.float32)) == "grid"


@pytest.mark.parametrize("samples", [1, 50, 400, 1100, 3000])
@pytest.mark.parametrize("how", ["auto", "onset", "beat", "novelty", "grid:250ms"])
def test_the_shortest_sounds_are_one_unit(samples: int, how: str) -> None:
    units = units_of(noise(1, RATE)[:samples], how)
    assert_tiles(units, samples)


def test_labels_go_out_and_come_in_again(tmp_path: Path) -> None:
    labels = [Label(0.5, 1.25, "kick"), Label(1.25, 2.0, "a\tb\nc"), Label(2.5, 2.75, "é")]
    path = tmp_path / "labels.txt"
    path.write_text(format_labels(labels), encoding="utf-8")
    back = read_labels(str(path), 3.0)
    assert back == [labels[0], Label(1.25, 2.0, "a b c"), labels[2]]
    units = units_of(noise(3, RATE), f"labels:{path}")
    assert [(unit.start, unit.text) for unit in units] == [
        (0, ""),
        (round(0.5 * RATE), "kick"),
        (round(1.25 * RATE), "a b c"),
        (2 * RATE, ""),
        (round(2.5 * RATE), "é"),
        (round(2.75 * RATE), ""),
    ]


def test_point_labels_and_frequencies_of_audacity_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("0.5\t0.5\tone\n\\\t100\t200\n2,0\t2,0\ttwo\n9\t10\tbeyond\n")
    assert read_labels(str(path), 3.0) == [Label(0.5, 2.0, "one"), Label(2.0, 3.0, "two")]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"hello", "line 1"), (b"1\t0.5\tx", "line 1"), (b"8\t9\tx", "none of its labels"), (b"\xff\xfe\x00", "not text")],
)
def test_bad_labels_are_refused_with_the_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_labels(str(path), 3.0)


@pytest.mark.parametrize("how", ["", "grid", "grid:", "grid:5", "grid:50ms", "grid:x", "labels:", "onset:2", "words"])
def test_other_ways_of_cutting_are_refused(how: str) -> None:
    with pytest.raises(UsageError, match="--units"):
        parse_units(how)


def test_tracks_tell_level_pitch_and_brightness() -> None:
    track = describe(sine(440, 2, RATE, 0.1))
    middle = track.frames[50:-50]
    assert np.abs(middle[:, PITCH] - 69).max() < 0.3
    assert middle[:, VOICING].min() > 0.9
    assert np.median(middle[:, LEVEL]) == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.7)
    assert describe(noise(1, RATE)).frames[:, BRIGHTNESS].mean() > 2 + middle[:, BRIGHTNESS].mean()


def test_a_track_does_not_depend_on_blocks() -> None:
    samples = texture(3, 7)
    whole = describe(samples)
    parts = describe_blocks(samples[start : start + 1000] for start in range(0, len(samples), 1000))
    np.testing.assert_allclose(parts.frames, whole.frames, atol=2e-3)
    np.testing.assert_array_equal(parts.fine_db, whole.fine_db)
    assert len(whole.frames) == 1 + len(samples) // 256
