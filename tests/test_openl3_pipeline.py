"""Centring, padding, hop and down-mix of the official OpenL3 code, and those of its bugs that are not imitated."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex.errors import UsageError
from embedindex.models.openl3_pipeline import embed_audio, hop_samples, pad_audio, to_mono_48k
from tests.openl3_oracle import Array


class Recorder:
    """A model that returns each window's first and last sample, to see which samples a window holds."""

    def embed(self, windows: Array) -> Array:
        return np.stack([windows[:, 0], windows[:, -1]], axis=1).astype(np.float64)


def test_strided_views_are_read_correctly() -> None:
    """The official code reads wrong samples from a view (as_strided with the item size as stride)."""
    stereo = np.arange(96000.0).reshape(48000, 2)
    embedding, _ = embed_audio(stereo[:, 1], 48000, Recorder(), center=False)
    assert embedding.tolist() == [[1.0, 95999.0]]


def test_integers_are_not_scaled_and_are_resampled_in_floating_point() -> None:
    """The official code resamples 16-bit integers in 16-bit integers, which overflow and lose the fraction."""
    tone = np.round(30000 * np.sin(np.arange(44100) * 0.01)).astype(np.int16)
    assert np.array_equal(to_mono_48k(tone, 48000), tone.astype(np.float64))
    resampled = to_mono_48k(tone, 44100)
    assert resampled.dtype == np.float64
    assert np.mean(resampled == np.round(resampled)) < 0.1
    assert 29000 < np.abs(resampled).max() < 31500


def test_a_hop_below_one_sample_is_refused_in_words() -> None:
    """The official code divides by zero."""
    with pytest.raises(UsageError, match="shorter than one sample"):
        hop_samples(1e-6)


@pytest.mark.parametrize("hop_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_hop_that_is_no_positive_number_is_refused(hop_s: float) -> None:
    with pytest.raises(UsageError, match="positive number of seconds"):
        hop_samples(hop_s)


def test_a_sound_too_short_to_resample_is_refused_in_words() -> None:
    """The official code lets resampy's bare ValueError through."""
    with pytest.raises(UsageError, match="less than one at 48 kHz"):
        to_mono_48k(np.ones(1), 96000)


def test_channels_in_front_are_refused_rather_than_averaged_over_time() -> None:
    """The official code averages an array of (channels, samples) along time, silently."""
    with pytest.raises(UsageError, match=r"give \(n, channels\)"):
        to_mono_48k(np.ones((2, 48000)), 48000)


@pytest.mark.parametrize(("samples", "rate"), [(np.zeros(0), 48000), (np.ones((2, 2, 2)), 48000), (np.ones(9), 0)])
def test_what_is_no_sound_is_refused(samples: Array, rate: float) -> None:
    with pytest.raises(UsageError):
        to_mono_48k(samples, rate)


def test_channels_are_averaged_before_resampling() -> None:
    stereo = np.stack([np.ones(48000), np.zeros(48000)], axis=1)
    assert np.array_equal(to_mono_48k(stereo, 48000), np.full(48000, 0.5))


def test_centring_puts_half_a_window_of_silence_in_front_only() -> None:
    padded = pad_audio(np.ones(48000), 4800, center=True)
    assert len(padded) == 24000 + 48000
    assert not padded[:24000].any()
    assert padded[24000:].all()


def test_the_last_window_is_padded_never_dropped() -> None:
    embedding, timestamps = embed_audio(np.ones(48001), 48000, Recorder(), center=False, hop_s=0.5)
    assert embedding.tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert timestamps.tolist() == [0.0, 0.5]


@pytest.mark.parametrize("rate", [8000, 22050, 22254, 44100, 44101, 96000, 128000])
def test_resampled_length_is_the_official_one(rate: int) -> None:
    assert len(to_mono_48k(np.ones(rate + 7), rate)) == int((rate + 7) * (48000 / rate))
