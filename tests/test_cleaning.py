"""What is taken from a sound that is asked about: silence in front of it, and steady noise."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.cleaning import N_FFT, exponential_integral, onset_sample, without_noise

RATE = 22050


def notes(seconds: float = 3.0) -> Float32Array:
    """Return a tune of decaying tones, four a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    steps = (time * 4).astype(int)
    frequency = 220.0 * 2 ** ((steps * 7 % 12) / 12)
    return (0.5 * np.exp(-8 * (time % 0.25)) * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def noise(like: Float32Array, snr_db: float) -> Float32Array:
    level = float(np.sqrt(np.mean(like**2))) * 10 ** (-snr_db / 20)
    return (level * np.random.default_rng(1).standard_normal(len(like))).astype(np.float32)


def snr_db(wanted: Float32Array, got: Float32Array) -> float:
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((got - wanted) ** 2)))


@pytest.mark.parametrize("evenly", [False, True])
@pytest.mark.parametrize("before_db", [10.0, 20.0])
def test_noise_gets_less_and_the_sound_stays(before_db: float, evenly: bool) -> None:
    sound = notes()
    noisy = sound + noise(sound, before_db)
    cleaned = without_noise(noisy, evenly=evenly)
    assert cleaned is not None
    assert cleaned.samples.shape == sound.shape
    assert cleaned.samples.dtype == np.float32
    assert snr_db(sound, cleaned.samples) > before_db + 5
    assert cleaned.noise_db == pytest.approx(-before_db, abs=3)
    assert cleaned.plain == (before_db == 20.0)


def test_noise_taken_away_evenly_does_not_sing() -> None:
    # What is left of it in a pause is as even as white noise, of which decibels scatter by 5.6; after subtraction
    # single cells stand out of next to nothing.
    sound = np.concatenate((notes(1.0), np.zeros(2 * RATE, np.float32)))
    rest = []
    for evenly in (False, True):
        cleaned = without_noise(sound + noise(sound, 20.0), evenly=evenly)
        assert cleaned is not None
        frames = cleaned.samples[RATE + N_FFT :][: 8 * N_FFT].reshape(8, N_FFT)
        power = np.abs(np.fft.rfft(frames * np.hanning(N_FFT))) ** 2
        rest.append(float(np.std(10 * np.log10(power))))
    assert rest[1] < 6.5 < rest[0]


@pytest.mark.parametrize("value", [0.001, 0.1, 0.9, 1.0, 1.1, 3.0, 20.0])
def test_the_exponential_integral_is_that_of_numerical_integration(value: float) -> None:
    # With u = log(t), exp(-t) / t dt is exp(-exp(u)) du.
    steps = np.linspace(np.log(value), np.log(value + 60), 200_001)
    values = np.exp(-np.exp(steps))
    slow = float((values[:-1] + values[1:]) @ np.diff(steps)) / 2
    assert float(exponential_integral(np.array([value]))[0]) == pytest.approx(slow, rel=2e-4)


def test_noise_that_dies_away_is_not_noise_beyond_doubt() -> None:
    # A cymbal: as much noise as in a noisy recording, but none at its end.
    sound = notes()
    noisy = sound + noise(sound, 15.0)
    decay = np.exp(-4 * np.arange(len(sound)) / len(sound)).astype(np.float32)  # 23 dB from the first third to the last
    dying, lasting = without_noise(decay * noisy), without_noise(noisy)
    assert dying is not None
    assert lasting is not None
    assert (dying.plain, lasting.plain) == (False, True)
    assert dying.change_db > lasting.change_db + 10


def test_noise_is_found_below_the_edge_of_a_band_limited_sound() -> None:
    # As an MP3 encoder leaves it: nothing at all in the upper half of the spectrum.
    sound = notes()
    spectrum = np.fft.rfft(sound + noise(sound, 20.0))
    spectrum[len(spectrum) // 3 :] = 0
    limited = np.fft.irfft(spectrum, len(sound)).astype(np.float32)
    cleaned = without_noise(limited)
    assert cleaned is not None
    assert np.sum((cleaned.samples - sound) ** 2) < 0.5 * np.sum((limited - sound) ** 2)


def test_a_clean_sound_is_left_alone() -> None:
    assert without_noise(notes()) is None


@pytest.mark.parametrize("samples", [0, 1, 3 * N_FFT - 1])
def test_too_short_a_sound_is_left_alone(samples: int) -> None:
    assert without_noise(np.ones(samples, np.float32)) is None


def test_silence_is_left_alone() -> None:
    assert without_noise(np.zeros(RATE, np.float32)) is None


def test_the_onset_is_where_the_sound_comes_out_of_the_silence() -> None:
    sound = notes(0.5)
    faint = np.float32(1e-5) * np.ones(1000, np.float32)  # 94 dB below the peak
    assert onset_sample(np.concatenate((faint, np.ones(1, np.float32), sound))) == 1000
    assert onset_sample(np.ones(5, np.float32)) == 0
    assert onset_sample(np.zeros(5, np.float32)) == 0
    assert onset_sample(np.zeros(0, np.float32)) == 0
