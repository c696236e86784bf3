"""Peaks that were cut off are put back; sounds that were not clipped stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr

from embedindex.arrays import Float32Array
from embedindex.declipping import without_clipping
from embedindex.hearing import hear
from embedindex.index import load_view
from embedindex.query import Part, Query, QueryMaker
from embedindex.search import search
from embedindex.store import Store
from tests.indexing import TINY_RATE, run_scan, write_samples
from tests.sounds import chirp, drum_hit, noise, sine

RATE = 44100


def chord(seconds: float = 0.5) -> Float32Array:
    return np.asarray(sum(sine(hz, seconds, RATE, 1 / 3) for hz in (110.0, 277.0, 523.0)), np.float32)


def clipped(samples: Float32Array, share: float = 0.5) -> Float32Array:
    """Return a sound cut off at a share of its peak, rounded to 16 bits."""
    top = share * np.abs(samples).max()
    return np.asarray(np.round(samples.clip(-top, top) / top * 32767) / 32768, np.float32)


def mono(samples: Float32Array) -> Float32Array:
    return samples[:, None]


@pytest.mark.parametrize("level", [1.0, 0.25])
def test_peaks_come_back_and_all_else_is_left_as_it_was(level: float) -> None:
    original = chord() * np.float32(level / 0.5 / np.abs(chord()).max())
    damaged = clipped(original) * np.float32(level)
    repaired = without_clipping(mono(damaged))
    assert repaired is not None
    kept = np.abs(damaged) < 0.999 * np.abs(damaged).max()
    np.testing.assert_array_equal(repaired[kept], damaged[kept])
    lost, left = (float(np.sum((one[~kept] - original[~kept]) ** 2)) for one in (damaged, repaired))
    assert left < lost / 10


def test_a_cubic_goes_on_with_the_slopes_at_both_ends() -> None:
    damaged = clipped(chord())
    repaired = without_clipping(mono(damaged))
    assert repaired is not None
    at = np.concatenate(([False], damaged >= damaged.max(), [False]))
    edges = np.flatnonzero(at[1:] != at[:-1]).reshape(-1, 2)
    start, end = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    x0, x1 = float(start - 1), float(end)
    conditions = [[x0**3, x0**2, x0, 1], [x1**3, x1**2, x1, 1], [3 * x0**2, 2 * x0, 1, 0], [3 * x1**2, 2 * x1, 1, 0]]
    values = damaged.astype(np.float64)
    slopes = values[start - 1] - values[start - 2], values[end + 1] - values[end]
    cubic = np.linalg.solve(conditions, [values[start - 1], values[end], *slopes])
    np.testing.assert_allclose(repaired[start:end], np.polyval(cubic, np.arange(start, end)), atol=1e-4)


def test_only_the_channel_that_is_clipped_changes() -> None:
    left, right = clipped(chord()), chirp(200, 900, 0.5, RATE)
    repaired, alone = without_clipping(np.stack((left, right), axis=1)), without_clipping(mono(left))
    assert repaired is not None
    assert alone is not None
    np.testing.assert_allclose(repaired, (alone + right) / 2, atol=1e-6)


SQUARE = np.sign(np.sin(np.arange(RATE) * 0.05 + 0.01)).astype(np.float32)
SOUNDS: dict[str, Float32Array] = {
    "silence": np.zeros(RATE, np.float32),
    "nothing": np.zeros(0, np.float32),
    "a constant": np.full(RATE, 0.5, np.float32),
    "a bass of 16 bits": np.asarray(np.round(sine(40, 1.0, RATE, 1.0) * 32767) / 32768, np.float32),
    "a bass of 8 bits": np.asarray(np.round(sine(40, 1.0, RATE, 1.0) * 127) / 128, np.float32),
    "a chord": chord(),
    "a square wave": SQUARE,
    "a saw": np.asarray(np.arange(RATE) % 200 / 100 - 1, np.float32),
    "noise": noise(1.0, RATE, level=1.0),
    "a drum": drum_hit("kick", RATE),
    "clipped by a hair": clipped(chord(), 0.97),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_what_is_not_clipped_is_left_alone(name: str) -> None:
    assert without_clipping(mono(SOUNDS[name])) is None


def test_an_impulse_at_either_end_is_no_trouble() -> None:
    damaged = np.concatenate((np.ones(5, np.float32), clipped(chord()), np.ones(5, np.float32)))
    repaired = without_clipping(mono(damaged))
    assert repaired is not None
    np.testing.assert_array_equal(repaired[[0, 1, -2, -1]], damaged[[0, 1, -2, -1]])


def asked(index: str, path: Path) -> Query:
    with Store(index) as store:
        return QueryMaker(store, load_view(store).model).from_file(str(path))


def test_a_clipped_copy_is_heard_with_and_without_its_peaks_any_other_only_as_it_is(
    library: Path, index: str, tmp_path: Path
) -> None:
    tune = np.asarray(sine(200, 1.0, TINY_RATE, 0.2) + chirp(300, 1500, 1.0, TINY_RATE), np.float32)
    for number in range(4):
        write_samples(library / f"{number}.wav", sine(250 + 300 * number, 1.0, TINY_RATE))
    write_samples(library / "tune.wav", tune)
    run_scan(index, library)
    plain = asked(index, write_samples(tmp_path / "plain.wav", tune * np.float32(0.9)))
    cut = asked(index, write_samples(tmp_path / "cut.wav", clipped(tune, 0.4)))
    assert len(cut.vectors) == 2 * len(plain.vectors)
    with Store(index) as store:
        view = load_view(store)
        rows = [
            view.space.apply(vectors)
            for vectors in (plain.vectors[0], cut.vectors[0], cut.vectors[len(cut.vectors) // 2])
        ]
        hit = search(store, view, [cut], k=1)[0]
    assert np.sum(rows[2] * rows[0], axis=1).mean() > np.sum(rows[1] * rows[0], axis=1).mean()
    assert hit.file.text_path.endswith("tune.wav")


def test_a_part_is_repaired_as_if_it_had_been_cut_out(library: Path, index: str, tmp_path: Path) -> None:
    rate = 3 * TINY_RATE
    tune = clipped(np.asarray(sine(200, 1.0, rate, 0.2) + chirp(300, 1500, 1.0, rate), np.float32), 0.4)
    tune = np.asarray(tune / 2, np.float32)
    louder = clipped(noise(0.7, rate, seed=1)) * np.float32(0.9)
    sound = np.stack([np.concatenate((louder, tune, louder))] * 2, axis=1)
    path = write_samples(tmp_path / "whole.wav", sound, rate)
    write_samples(library / "tune.wav", sine(250, 1.0, TINY_RATE))
    run_scan(index, library)
    repaired = without_clipping(mono(tune))
    assert repaired is not None
    with Store(index) as store:
        maker = QueryMaker(store, load_view(store).model)
        found = maker.from_file(str(path), Part(0.7, 1.7)).vectors
        expected = hear(
            b"", soxr.resample(repaired, rate, TINY_RATE), float(np.abs(repaired).max()), maker.model(),
            load_view(store).model.hop_s, 0.7,
        )  # fmt: skip
    assert len(expected) < len(found)
    for vectors, heard in zip(found[-len(expected) :], expected, strict=True):
        np.testing.assert_allclose(vectors, heard.vectors, rtol=2e-3, atol=1e-3)
