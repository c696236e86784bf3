"""What benchmarks count as the very same sound is that, and nothing else is."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from tests.sounds import noise, write_wav

RATE = 22050


@pytest.fixture(scope="module")
def same_sound() -> ModuleType:
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("same_sound")
    finally:
        sys.path.remove(folder)


def written(path: Path, samples: Float32Array, rate: int = RATE) -> bytes:
    write_wav(path, samples, rate)
    return os.fsencode(path)


def later(samples: Float32Array, by: float) -> Float32Array:
    """Return a sound a fraction of a sample later."""
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(len(samples)) * by)
    return np.fft.irfft(np.fft.rfft(samples) * turns, len(samples)).astype(np.float32)


def smooth(samples: Float32Array) -> Float32Array:
    """Return a sound without the highest of its highs, as all that was ever resampled is."""
    spectrum = np.fft.rfft(samples)
    spectrum[round(0.9 * len(spectrum)) :] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def test_a_copy_at_another_level_is_the_same_and_another_take_is_not(same_sound: ModuleType, tmp_path: Path) -> None:
    sound = noise(0.5, RATE, seed=1)
    original = written(tmp_path / "original.wav", sound)
    copies = {
        "softer": sound * np.float32(-0.03),
        "later": np.concatenate((np.zeros(700, np.float32), sound)),
        "in stereo": np.stack((sound, sound), axis=1),
        "with hiss 40 dB below": sound + noise(0.5, RATE, seed=2, level=0.005),
    }
    others = {
        "another": noise(0.5, RATE, seed=3),
        "with hiss 20 dB below": sound + noise(0.5, RATE, seed=2, level=0.05),
        "and more behind": np.concatenate((sound, noise(0.1, RATE, seed=4))),
        "half of it": sound[: len(sound) // 2],
    }
    for name, samples in copies.items():
        assert same_sound.same_recording(original, written(tmp_path / "x.wav", samples)) >= same_sound.SAME, name
    for name, samples in others.items():
        assert same_sound.same_recording(original, written(tmp_path / "x.wav", samples)) < same_sound.SAME, name
    hiss = same_sound.same_recording(original, written(tmp_path / "x.wav", others["with hiss 20 dB below"]))
    assert hiss == pytest.approx(1 / np.sqrt(1.01), abs=1e-3)


@pytest.mark.parametrize("by", [0.25, 0.5, 0.8])
def test_a_fraction_of_a_sample_makes_no_other_sound(same_sound: ModuleType, tmp_path: Path, by: float) -> None:
    sound = smooth(noise(0.5, RATE, seed=5))
    pair = [written(tmp_path / "first.wav", sound), written(tmp_path / "second.wav", later(sound, by))]
    assert same_sound.same_recording(*pair) >= same_sound.SAME


def test_a_place_holds_the_same_only_where_the_very_samples_come_again(same_sound: ModuleType, tmp_path: Path) -> None:
    pattern, other = smooth(noise(2.0, RATE, seed=6)), noise(2.0, RATE, seed=7)
    rounds = np.concatenate((other, pattern, other[::-1], pattern * np.float32(0.5), other * np.float32(0.1)))
    track = written(tmp_path / "track.wav", rounds)
    sample = written(tmp_path / "sample.wav", np.concatenate((other[: RATE // 2], pattern)))
    for start_s in (6.3, 6.9, 5.5):  # the second time is at 6.4 s
        assert same_sound.holds(track, start_s, track, 2.4, 1.0) >= same_sound.SAME
    for start_s in (0.3, 4.4, 8.0):
        assert same_sound.holds(track, start_s, track, 2.4, 1.0) < 0.5
    assert same_sound.holds(sample, 0.7, track, 2.4, 1.0) >= same_sound.SAME
    assert same_sound.holds(sample, 2.2, track, 2.4, 1.0) < 0.5
    assert same_sound.holds(sample, 9.0, track, 2.4, 1.0) == 0.0
