"""The very sound is told from its likes by its waveform: the right file comes first, the right place is found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.index import load_view
from embedindex.matching import Phase, places, straight
from embedindex.query import QueryMaker
from embedindex.recognise import fit
from embedindex.search import Hit, search
from embedindex.store import Store
from tests.indexing import TINY, TINY_RATE, run_scan, write_samples
from tests.sounds import chirp, noise, sine
from tests.test_matching import random_rows, starts

COUNT = 8


def of(number: int) -> Float32Array:
    """Noise whose vectors are those of any other such noise."""
    return noise(1.0, TINY_RATE, seed=number)


def hits(index: str, samples: Float32Array, path: Path, **options: object) -> list[Hit]:
    write_samples(path, samples)
    with Store(index) as store:
        view = load_view(store)
        query = QueryMaker(store, view.model).from_file(str(path))
        return search(store, view, [query], **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of noises, which no test changes."""
    folder = tmp_path_factory.mktemp("noises")
    (folder / "library").mkdir()
    for number in range(COUNT):
        write_samples(folder / "library" / f"{number}.wav", of(number))
    run_scan(str(folder / "index"), folder / "library")
    return str(folder / "index")


def test_the_very_sound_comes_before_sounds_that_are_as_alike(noises: str, tmp_path: Path) -> None:
    moved = 0
    for number in range(COUNT):
        hiss = noise(1.0, TINY_RATE, seed=50 + number, level=0.45)
        found = hits(noises, of(number) + hiss, tmp_path / "copy.wav", k=COUNT)
        scores = [round(hit.score, 6) for hit in found]
        assert scores[1:] == sorted(scores[1:], reverse=True)
        if scores[0] < scores[1]:
            moved += 1
            assert found[0].file.text_path.endswith(f"{number}.wav")
            assert found[0].start_s == pytest.approx(0.0, abs=1e-3)
            assert scores[0] > scores[1] - 0.05
        assert hits(noises, of(number) + hiss, tmp_path / "copy.wav", k=1)[0].file == found[0].file
    assert moved


def test_among_descriptors_files_are_listened_to_that_are_further_from_the_best(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    for number in range(COUNT):
        write_samples(tmp_path / "library" / f"{number}.wav", of(number))
    index = str(tmp_path / "index")
    run_scan(index, tmp_path / "library", request=replace(TINY, options=(("standardise", "yes"),)))
    found = hits(index, of(3) + noise(1.0, TINY_RATE, seed=53, level=0.3), tmp_path / "copy.wav", k=COUNT)
    assert found[0].file.text_path.endswith("3.wav")
    assert found[1].score - 0.15 < found[0].score < found[1].score - 0.05


def test_sounds_that_are_only_alike_stay_ordered_by_score(noises: str, tmp_path: Path) -> None:
    scores = [round(hit.score, 6) for hit in hits(noises, of(99), tmp_path / "other.wav", k=COUNT)]
    assert scores == sorted(scores, reverse=True)


def test_with_other_sounds_to_be_like_or_unlike_nothing_is_listened_to(noises: str, tmp_path: Path) -> None:
    path = write_samples(tmp_path / "copy.wav", of(2) + noise(1.0, TINY_RATE, seed=60, level=0.25))
    with Store(noises) as store:
        view = load_view(store)
        query = QueryMaker(store, view.model).from_file(str(path))
        for options in ({"queries": [query, query]}, {"queries": [query], "unlike": [query], "unlike_weight": 0.1}):
            scores = [round(hit.score, 6) for hit in search(store, view, k=COUNT, **options)]
            assert scores == sorted(scores, reverse=True)


def rounds() -> Float32Array:
    """A pattern six times over, each time with a soft noise of its own."""
    pattern = np.concatenate([chirp(200 * step, 300 * step, 0.5, TINY_RATE) for step in (2, 7, 3, 5)])
    return np.concatenate([pattern + noise(2.0, TINY_RATE, seed=number, level=0.05) for number in range(6)])


def test_the_right_round_of_a_pattern_is_found_to_the_millisecond(library: Path, index: str, tmp_path: Path) -> None:
    track = rounds()
    write_samples(library / "track.wav", track)
    write_samples(library / "other.wav", sine(900, 3.0, TINY_RATE))
    run_scan(index, library)
    for start_s in (0.3, 2.83, 4.61, 9.07):
        first = round(start_s * TINY_RATE)
        clip = track[first : first + 2 * TINY_RATE] * np.float32(-0.5)
        hit = hits(index, clip, tmp_path / "clip.wav", k=1)[0]
        assert hit.file.text_path.endswith("track.wav")
        assert hit.start_s == pytest.approx(start_s, abs=2e-3)
        assert hit.end_s == pytest.approx(start_s + 2.0, abs=2e-3)
    late = np.concatenate((np.zeros(TINY_RATE // 4, np.float32), track[: 2 * TINY_RATE]))
    assert hits(index, late, tmp_path / "late.wav", k=1)[0].start_s == 0.0


def test_a_file_that_is_away_is_found_where_its_windows_say(library: Path, index: str, tmp_path: Path) -> None:
    write_samples(library / "track.wav", rounds())
    run_scan(index, library)
    os.remove(library / "track.wav")
    hit = hits(index, rounds()[: 2 * TINY_RATE], tmp_path / "clip.wav", k=1)[0]
    assert min(abs(hit.start_s - 2.0 * number) for number in range(6)) < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_waveforms_fit_where_they_correlate_most(seed: int) -> None:
    random = np.random.default_rng(seed)
    sound, around = (random.standard_normal(count).astype(np.float32) for count in (40, 200))
    around[77:117] += np.float32(random.choice([-1, 1])) * sound
    pairs = [(sound.astype(np.float64), around.astype(np.float64))]
    pairs += [tuple(np.diff(samples, prepend=0.0) for samples in pairs[0])]  # type: ignore[list-item]
    slow = np.array(
        [
            [own @ part / np.linalg.norm(own) / np.linalg.norm(part)]
            for own, other in pairs
            for part in [other[lag : lag + 40] for lag in range(161)]
        ]
    ).reshape(2, 161)
    correlation, lag = fit(sound, around, 0)
    assert lag == int(np.abs(slow).mean(axis=0).argmax()) == 77
    best = float(np.abs(slow).mean(axis=0).max())
    assert best - 1e-6 <= correlation <= best + 0.05  # it may be better between samples


@pytest.mark.parametrize("by", [0.3, 0.5, 0.7])
def test_a_sound_a_fraction_of_a_sample_later_fits_as_well(by: float) -> None:
    spectrum = np.fft.rfft(noise(1.0, TINY_RATE, seed=1)) * (np.arange(TINY_RATE // 2 + 1) < 0.45 * TINY_RATE)
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(TINY_RATE) * by)
    original, later = (np.fft.irfft(one, TINY_RATE).astype(np.float32) for one in (spectrum, spectrum * turns))
    at_samples = [original[1000:5000] @ later[first : first + 4000] for first in (1000, 1001)]
    assert max(at_samples) < 0.97 * float(np.square(original[1000:5000]).sum())
    correlation, lag = fit(original[1000:5000], later[500:6000], 500)
    assert correlation > 0.995
    assert abs(lag - 500 - by) <= 1


def test_the_sound_itself_half_a_sample_off_fits_better_than_its_like_upon_a_sample() -> None:
    spectra = [np.fft.rfft(noise(1.0, TINY_RATE, seed=seed)) for seed in (1, 2)]
    share = np.fft.rfftfreq(TINY_RATE) * 2
    band = (share > 0.3) & (share < 0.7)
    sound, other, later = (
        np.fft.irfft(one * band, TINY_RATE)[2000:6000].astype(np.float32)
        for one in (*spectra, spectra[0] * np.exp(-1j * np.pi * share / 2))
    )
    like = np.float32(0.8) * sound + np.float32(0.6) * other
    pause = np.zeros(1000, np.float32)
    correlation, lag = fit(sound, np.concatenate((pause, like, pause, later, pause)), 1000)
    assert lag in (6000, 6001)
    assert correlation > 0.95


def test_a_tone_that_is_not_where_it_was_expected_fits_no_worse() -> None:
    tone = sine(500, 1.0, TINY_RATE)
    original, other = tone + noise(1.0, TINY_RATE, seed=1, level=0.03), tone + noise(1.0, TINY_RATE, seed=2, level=0.03)
    sound = original[2000:6000]
    beside = 8  # half a wave beside, where another wave lies as near
    for expected in (2000 - beside, 2000, 2000 + beside):
        assert fit(sound, original, expected)[0] == pytest.approx(1.0, abs=1e-3)
        assert fit(sound, other, expected)[0] < 0.995


def test_a_tone_fits_where_it_is_expected_and_silence_nowhere() -> None:
    tone = sine(500, 1.0, TINY_RATE)
    correlation, lag = fit(tone[: TINY_RATE // 2], tone, 1600)
    assert correlation == pytest.approx(1.0, abs=1e-3)
    assert abs(lag - 1600) <= 8  # half a wave
    assert fit(np.zeros(100, np.float32), tone, 0)[0] == 0.0
    assert fit(tone, np.zeros(100, np.float32), 0)[0] == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_places_are_the_best_in_order_and_apart(seed: int) -> None:
    theirs = random_rows(seed, 20, silent=0.1)
    phases = [Phase(random_rows(seed + 10 + number, 4), starts(4, 0.25, 0.1 * number)) for number in range(3)]
    found = places(phases, theirs, 0.5, 1.0, 5)
    loud = theirs.any(axis=1)
    tables = [phase.rows @ theirs.T for phase in phases]
    best = max(
        straight(table, np.minimum(0, table[:, loud].max(axis=1)), phase.starts_s, 0.5).score
        for table, phase in zip(tables, phases, strict=True)
    )
    assert found[0].score == pytest.approx(best, abs=1e-6)
    assert [place.score for place in found] == sorted((place.score for place in found), reverse=True)
    times = sorted(place.start_s for place in found)
    assert len(found) == 5
    assert np.diff(times).min() >= 1.0
