"""The descriptors against librosa, an independent implementation, and against sounds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from embedindex import descriptors as d
from embedindex import mel
from embedindex.arrays import Float32Array

librosa = pytest.importorskip("librosa", reason="librosa, the independent reference, is not installed")

RATE = 22050


def noise(seconds: float = 1.0, seed: int = 0) -> Float32Array:
    return (0.3 * np.random.default_rng(seed).standard_normal(int(RATE * seconds))).astype(np.float32)


def chord(seconds: float = 1.0) -> Float32Array:
    t = np.arange(int(RATE * seconds)) / RATE
    tones = sum(np.sin(2 * np.pi * f * t) / (i + 1) for i, f in enumerate((220.0, 277.18, 329.63, 1234.5, 5000.0)))
    return (0.2 * tones * np.exp(-2 * t)).astype(np.float32)


def pluck(seconds: float = 1.0) -> Float32Array:
    """Silence, a click with a decaying noisy tail, silence again: zeros, an onset and a wide range of levels."""
    sound = noise(seconds, 1) * np.exp(-np.arange(int(RATE * seconds)) / 800.0).astype(np.float32)
    out = np.zeros_like(sound)
    out[5000:15000] = sound[:10000]
    return out


SOUNDS = {"noise": noise(), "chord": chord(), "pluck": pluck(), "odd length": chord(0.7)[:-13]}


@pytest.fixture(params=SOUNDS, ids=lambda name: name.replace(" ", "-"))
def sound(request: pytest.FixtureRequest) -> Float32Array:
    return SOUNDS[request.param]


def reference_magnitude(sound: Float32Array) -> Float32Array:
    return np.asarray(np.abs(librosa.stft(sound)), np.float32)


def assert_close(ours: Float32Array, theirs: Float32Array, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("rate", "n_fft", "bands"), [(22050, 2048, 128), (32000, 2048, 64), (44100, 1024, 40)])
def test_mel_bank_is_librosas(rate: int, n_fft: int, bands: int) -> None:
    assert_close(mel.mel_bank(rate, n_fft, bands).T, librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands), atol=1e-8)


def test_mel_bank_between_two_frequencies_is_librosas() -> None:
    theirs = librosa.filters.mel(sr=32000, n_fft=2048, n_mels=48, fmin=30.0, fmax=14000.0)
    assert_close(mel.mel_bank(32000, 2048, 48, 30.0, 14000.0).T, theirs, atol=1e-8)


@pytest.mark.parametrize("tuning", [0.0, 0.3])
def test_chroma_bank_is_librosas(tuning: float) -> None:
    theirs = librosa.filters.chroma(sr=RATE, n_fft=2048, tuning=tuning)
    assert_close(mel.chroma_bank(RATE, 2048, 12, tuning).T, theirs, atol=1e-6)


def test_mel_scale_turns_back() -> None:
    hertz = np.array([0.0, 20.0, 999.0, 1000.0, 1001.0, 15999.0])
    np.testing.assert_allclose(mel.mel_to_hz(mel.hz_to_mel(hertz)), hertz, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(mel.hz_to_mel(hertz), librosa.hz_to_mel(hertz), rtol=1e-12)


def test_shared_banks_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mel.mel_bank(RATE, 2048)[0, 0] = 1.0


def test_magnitude_is_librosas(sound: Float32Array) -> None:
    theirs = reference_magnitude(sound).T
    assert_close(d.magnitude(sound), theirs, atol=1e-5 * float(theirs.max()))


def test_mel_spectrogram_is_librosas(sound: Float32Array) -> None:
    theirs = librosa.feature.melspectrogram(y=sound, sr=RATE).T
    assert_close(d.mel_spectrogram(d.magnitude(sound) ** 2, RATE), theirs, atol=1e-6 * float(theirs.max()))


@pytest.mark.parametrize("range_db", [80.0, None])
def test_decibels_are_librosas(range_db: float | None) -> None:
    power = np.random.default_rng(3).uniform(0, 1e-3, (7, 5)).astype(np.float32) ** 4
    assert_close(d.power_to_db(power, range_db), librosa.power_to_db(power, top_db=range_db), atol=1e-3)


def test_mfcc_is_librosas(sound: Float32Array) -> None:
    log_mel = librosa.power_to_db(librosa.feature.melspectrogram(y=sound, sr=RATE))
    theirs = librosa.feature.mfcc(S=log_mel, n_mfcc=20).T
    assert_close(d.mfcc(log_mel.T, 20), theirs, atol=2e-3)
    ours = d.mfcc(d.power_to_db(d.mel_spectrogram(d.magnitude(sound) ** 2, RATE)))
    assert_close(ours, librosa.feature.mfcc(y=sound, sr=RATE).T, atol=0.02)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("width", [3, 9])
def test_delta_inside_is_librosas(order: int, width: int) -> None:
    features = np.random.default_rng(5).standard_normal((30, 6)).astype(np.float32)
    theirs = librosa.feature.delta(features.T, width=width, order=order).T
    if order == 1:  # a straight line has one slope, so the ends agree as well
        assert_close(d.delta(features, width, order), theirs, atol=1e-5)
    inner = slice(width // 2, -(width // 2))
    assert_close(d.delta(features, width, order)[inner], theirs[inner], atol=1e-5)


@pytest.mark.parametrize(("frames", "width", "order"), [(5, 9, 1), (20, 4, 1), (20, 1, 1), (20, 9, 3)])
def test_delta_of_too_few_frames_or_an_even_width_is_refused(frames: int, width: int, order: int) -> None:
    with pytest.raises(ValueError, match=r"frames|width"):
        d.delta(np.zeros((frames, 2), np.float32), width, order)


def test_chroma_is_librosas(sound: Float32Array) -> None:
    power = reference_magnitude(sound) ** 2
    assert_close(d.chroma(power.T, RATE), librosa.feature.chroma_stft(S=power, sr=RATE, tuning=0.0).T)


def test_chroma_of_a_is_class_nine() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    assert set(np.argmax(d.chroma(d.magnitude(tone) ** 2, RATE), axis=-1)) == {9}


def test_rms_is_librosas(sound: Float32Array) -> None:
    assert_close(d.rms(sound), librosa.feature.rms(y=sound)[0])


def test_zero_crossing_rate_is_librosas(sound: Float32Array) -> None:
    assert_close(d.zero_crossing_rate(sound), librosa.feature.zero_crossing_rate(sound)[0], atol=1e-7)


def test_centroid_bandwidth_and_rolloff_are_librosas(sound: Float32Array) -> None:
    magnitudes = reference_magnitude(sound)
    centroids = d.centroid_hz(magnitudes.T, RATE)
    assert_close(centroids, librosa.feature.spectral_centroid(S=magnitudes, sr=RATE)[0], atol=0.01)
    theirs = librosa.feature.spectral_bandwidth(S=magnitudes, sr=RATE)[0]
    assert_close(d.bandwidth_hz(magnitudes.T, RATE, centroids), theirs, atol=0.1)
    assert_close(d.rolloff_hz(magnitudes.T, RATE), librosa.feature.spectral_rolloff(S=magnitudes, sr=RATE)[0])


def test_flatness_is_librosas(sound: Float32Array) -> None:
    magnitudes = reference_magnitude(sound)
    assert_close(d.flatness(magnitudes.T**2), librosa.feature.spectral_flatness(S=magnitudes)[0], rtol=1e-3)


def test_contrast_is_librosas(sound: Float32Array) -> None:
    magnitudes = reference_magnitude(sound)
    theirs = librosa.feature.spectral_contrast(S=magnitudes, sr=RATE).T
    ours = d.contrast_db(magnitudes.T, RATE)
    assert ours.shape[-1] == 7
    assert_close(ours, theirs, atol=1e-2)


def test_contrast_beyond_half_the_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        d.contrast_db(np.ones((3, 1025), np.float32), 8000)


def test_onset_strength_is_librosas(sound: Float32Array) -> None:
    log_mel = librosa.power_to_db(librosa.feature.melspectrogram(y=sound, sr=RATE))
    theirs = librosa.onset.onset_strength(S=log_mel, sr=RATE)
    assert_close(d.onset_strength(log_mel.T), theirs, atol=1e-4)


def test_a_batch_gives_what_its_members_give_alone() -> None:
    batch = np.stack([noise(), chord(), pluck(), np.zeros(RATE, np.float32)])
    together = d.power_to_db(d.mel_spectrogram(d.magnitude(batch) ** 2, RATE))
    for number, member in enumerate(batch):
        alone = d.power_to_db(d.mel_spectrogram(d.magnitude(member) ** 2, RATE))
        np.testing.assert_allclose(together[number], alone, atol=1e-3)
    np.testing.assert_array_equal(d.zero_crossing_rate(batch)[2], d.zero_crossing_rate(batch[2]))


def test_silence_has_finite_descriptors() -> None:
    magnitudes = d.magnitude(np.zeros(RATE, np.float32))
    power = magnitudes**2
    centroids = d.centroid_hz(magnitudes, RATE)
    values = [centroids, d.bandwidth_hz(magnitudes, RATE, centroids), d.rolloff_hz(magnitudes, RATE)]
    values += [d.flatness(power), d.contrast_db(magnitudes, RATE), d.chroma(power, RATE)]
    assert all(np.isfinite(value).all() for value in values)
    assert not centroids.any()
