"""Loudness and true peak against the numbers of BS.1770 and EBU Tech 3341, and against scipy's filters."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex.remix.loudness import (
    LoudnessMeter,
    integrated_lufs,
    k_weighting,
    peak_envelope,
    true_peak_db,
    unit_lufs,
)


def tone(level_db: float, duration_s: float, rate: int = 48000, frequency_hz: float = 1000.0) -> np.ndarray:
    time_s = np.arange(round(duration_s * rate)) / rate
    return np.repeat((10 ** (level_db / 20) * np.sin(2 * np.pi * frequency_hz * time_s))[:, None], 2, axis=1)


def test_coefficients_at_48_khz_are_those_tabled_in_the_standard() -> None:
    shelf, high_pass = k_weighting(48000)
    np.testing.assert_allclose(shelf[0], [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-7)
    np.testing.assert_allclose(shelf[1], [1.0, -1.69065929318241, 0.73248077421585], atol=1e-7)
    np.testing.assert_allclose(high_pass[1], [1.0, -1.99004745483398, 0.99007225036621], atol=1e-7)


@pytest.mark.parametrize(("level_db", "wanted"), [(-23.0, -23.0), (-33.0, -33.0)])  # EBU Tech 3341, cases 1 and 2
def test_a_stereo_tone_reads_its_level(level_db: float, wanted: float) -> None:
    assert integrated_lufs(tone(level_db, 20), 48000) == pytest.approx(wanted, abs=0.1)


def test_quiet_parts_are_gated_out() -> None:  # EBU Tech 3341, case 3
    samples = np.concatenate((tone(-36, 10), tone(-23, 60), tone(-36, 10)))
    assert integrated_lufs(samples, 48000) == pytest.approx(-23.0, abs=0.1)


def test_levels_that_change_are_averaged_by_energy() -> None:  # EBU Tech 3341, case 5
    samples = np.concatenate((tone(-26, 20), tone(-20, 20.1), tone(-26, 20)))
    assert integrated_lufs(samples, 48000) == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("rate", [22050, 44100, 96000])
def test_other_rates_read_the_same(rate: int) -> None:
    assert integrated_lufs(tone(-23, 5, rate), rate) == pytest.approx(-23.0, abs=0.1)


def test_blocks_of_any_size_make_no_difference() -> None:
    samples = np.random.default_rng(0).standard_normal((100_000, 2)) * 0.1
    meter = LoudnessMeter(44100, 2)
    for start in range(0, len(samples), 777):
        meter.add(samples[start : start + 777])
    assert meter.integrated() == pytest.approx(integrated_lufs(samples, 44100), abs=1e-9)


def test_a_short_unit_reads_what_the_filters_of_the_standard_give() -> None:
    signal = pytest.importorskip("scipy.signal")
    samples = np.random.default_rng(1).standard_normal((9000, 2)) * 0.1
    weighted = samples
    for numerator, denominator in k_weighting(44100):
        weighted = signal.lfilter(numerator, denominator, weighted, axis=0)
    wanted = -0.691 + 10 * np.log10(np.square(weighted[2000:7000]).mean(axis=0).sum())
    assert unit_lufs(samples, 44100, 2000, 7000) == pytest.approx(wanted, abs=1e-6)


def test_silence_is_a_number() -> None:
    assert integrated_lufs(np.zeros((48000, 2)), 48000) == -120.0
    assert integrated_lufs(np.zeros((0, 1)), 48000) == -120.0


def test_peaks_between_samples_are_seen() -> None:
    rate = 48000  # a quarter of the rate at 45 degrees: samples reach 0.707 of the tone's peak
    time = np.arange(4800)
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 500)
    samples = (0.5 * fade * np.sin(2 * np.pi * time / 4 + np.pi / 4))[:, None]
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-9.03, abs=0.01)
    assert true_peak_db(samples) == pytest.approx(-6.02, abs=0.1)  # EBU Tech 3341 allows +0.2/-0.4
    assert rate  # the measure knows no rate


def test_peaks_agree_with_a_resampler() -> None:
    soxr = pytest.importorskip("soxr")
    rng = np.random.default_rng(2)
    spectrum = np.fft.rfft(rng.standard_normal(8192))
    spectrum[3000:] = 0  # up to 0.73 of half the rate
    samples = np.fft.irfft(spectrum)[:, None] * np.hanning(8192)[:, None]
    wanted = np.abs(soxr.resample(samples, 1, 8, quality="VHQ")).max()
    assert peak_envelope(samples).max() == pytest.approx(wanted, rel=0.02)
