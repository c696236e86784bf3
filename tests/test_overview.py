"""The numbers behind the pictures of `show`: librosa's for short sounds, means in bounded memory for long ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
from librosa.onset import onset_strength

from embedindex import overview
from embedindex.arrays import Float32Array
from embedindex.errors import EmptyAudioError, UsageError
from embedindex.novelty import cells, checkerboard, novelty
from embedindex.remix.frames import RATE, describe
from tests.sounds import chirp, encode, noise, sine, write_wav

HZ = 44100


@pytest.fixture(scope="module")
def sound() -> Float32Array:
    sweep = chirp(100, 12000, 2.0, HZ, 0.4) + noise(2.0, HZ, 1, 0.02)
    return np.concatenate((sweep, 0.01 * sine(880, 0.5, HZ))).astype(np.float32)


@pytest.fixture(scope="module")
def view(sound: Float32Array, tmp_path_factory: pytest.TempPathFactory) -> overview.Overview:
    path = tmp_path_factory.mktemp("overview") / "sound.wav"
    write_wav(path, sound, HZ)
    return overview.look_at(str(path))


def librosa_power(sound: Float32Array) -> Float32Array:
    power: Float32Array = np.abs(librosa.stft(sound, n_fft=4096, hop_length=512)) ** 2
    return power


def test_the_spectrogram_of_a_short_sound_is_librosas(view: overview.Overview, sound: Float32Array) -> None:
    assert (view.n_fft, view.hop, view.pooled, view.sample_rate) == (4096, 512, 1, HZ)
    expected = librosa_power(sound).T
    assert view.power.shape == expected.shape
    np.testing.assert_allclose(view.power, expected, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(view.times_s, librosa.times_like(expected.T, sr=HZ, hop_length=512), atol=1e-9)
    np.testing.assert_allclose(overview.frequencies_hz(view), librosa.fft_frequencies(sr=HZ, n_fft=4096), atol=1e-6)


def test_what_is_drawn_is_what_librosa_computes(view: overview.Overview, sound: Float32Array) -> None:
    power = librosa_power(sound)
    mel = librosa.feature.melspectrogram(S=power, sr=HZ, n_mels=128)
    options = {"sr": HZ, "n_fft": 4096, "hop_length": 512}
    pairs = {
        "mel": (overview.mel_db(view), librosa.power_to_db(mel).T, 0.05),
        "linear": (overview.linear_db(view), librosa.power_to_db(power).T, 0.05),
        "chroma": (overview.chroma(view), librosa.feature.chroma_stft(S=power, tuning=0.0, **options).T, 2e-3),
        "mfcc": (overview.mfcc(view), librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20).T, 0.1),
        "centroid": (overview.centroid_hz(view), librosa.feature.spectral_centroid(y=sound, **options)[0], 1.0),
        "rolloff": (overview.rolloff_hz(view), librosa.feature.spectral_rolloff(y=sound, **options)[0], 11.0),
        "onsets": (
            overview.onset_strength(view),
            onset_strength(S=librosa.power_to_db(mel), **options),
            0.05,
        ),
    }
    for name, (ours, theirs, tolerance) in pairs.items():
        assert ours.shape == theirs.shape, name
        np.testing.assert_allclose(ours, theirs, atol=tolerance, err_msg=name)


def test_ticks_lie_where_the_bands_are(view: overview.Overview) -> None:
    centres = librosa.mel_frequencies(n_mels=130, fmax=HZ / 2)[1:-1]
    np.testing.assert_allclose(overview.mel_position(view, centres), np.arange(128), atol=1e-6)
    row = int(np.argmax(overview.log_db(view)[-10]))
    assert overview.log_frequencies(view)[row] == pytest.approx(880, rel=0.02)


def test_the_waveform_keeps_every_peak_and_the_level(view: overview.Overview, sound: Float32Array) -> None:
    size = round(view.wave_step_s * HZ)
    whole = sound[: len(sound) // size * size].reshape(-1, size)
    np.testing.assert_array_equal(view.highest[: len(whole), 0], whole.max(axis=1))
    np.testing.assert_array_equal(view.lowest[: len(whole), 0], whole.min(axis=1))
    np.testing.assert_allclose(view.rms[: len(whole), 0], np.sqrt((whole**2).mean(axis=1)), atol=1e-5)
    assert view.highest.max() == sound.max()
    last = sound[len(whole) * size :]
    assert (len(last) > 0, 2000 <= len(view.rms) <= 4001) == (True, True)
    assert view.rms[-1, 0] == pytest.approx(np.sqrt((last**2).mean()), abs=1e-5)


def test_a_long_sound_is_drawn_from_the_means_of_its_frames(tmp_path: Path) -> None:
    samples = chirp(200, 3000, 40.0, 8000)
    write_wav(tmp_path / "long.wav", samples, 8000)
    view = overview.look_at(str(tmp_path / "long.wav"), columns=50)
    power = np.abs(librosa.stft(samples, n_fft=2048, hop_length=512)).T ** 2
    assert 50 <= len(view.power) <= 100
    assert view.pooled > 1
    whole = len(power) // view.pooled
    expected = power[: whole * view.pooled].reshape(whole, view.pooled, -1).mean(axis=1)
    np.testing.assert_allclose(view.power[:whole], expected, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(
        view.power[whole:], power[whole * view.pooled :].mean(axis=0)[None], rtol=2e-3, atol=1e-3
    )


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    for minutes in (2, 8):
        path = tmp_path / f"{minutes}.wav"
        write_wav(path, noise(60.0 * minutes, 8000), 8000, subtype="PCM_16")
        tracemalloc.start()
        view = overview.look_at(str(path), columns=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(view.power) < 300
    assert peaks[1] < 1.3 * peaks[0]


def test_a_stretch_has_the_times_of_its_file(tmp_path: Path) -> None:
    samples = np.concatenate((sine(300, 1.0, HZ), sine(3000, 1.0, HZ)))
    write_wav(tmp_path / "two.wav", samples, HZ)
    view = overview.look_at(str(tmp_path / "two.wav"), 1.25, 1.75)
    assert view.duration_s == pytest.approx(0.5, abs=1e-4)
    assert view.times_s[0] == 1.25
    assert view.wave_times_s[-1] == pytest.approx(1.75, abs=0.01)
    assert np.median(overview.centroid_hz(view)) == pytest.approx(3000, rel=0.05)


def test_two_channels_are_two_lanes_and_six_are_one(tmp_path: Path) -> None:
    left, right = sine(440, 0.2, HZ, 0.5), sine(440, 0.2, HZ, 0.1)
    encode(tmp_path / "two.wav", np.stack((left, right), 1), HZ)
    encode(tmp_path / "six.wav", np.stack([left] * 6, 1), HZ)
    two = overview.look_at(str(tmp_path / "two.wav"))
    assert two.highest.max(axis=0) == pytest.approx([0.5, 0.1], abs=1e-3)
    assert overview.look_at(str(tmp_path / "six.wav")).highest.shape[1] == 1


@pytest.mark.parametrize(("start_s", "end_s", "said"), [(1.0, 0.5, "must lie behind"), (5.0, None, "ends before that")])
def test_stretches_that_make_no_sense_are_refused(
    tmp_path: Path, start_s: float, end_s: float | None, said: str
) -> None:
    write_wav(tmp_path / "a.wav", sine(440, 1.0, HZ), HZ)
    with pytest.raises(UsageError, match=said):
        overview.look_at(str(tmp_path / "a.wav"), start_s, end_s)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(0, np.float32), HZ)
    with pytest.raises(EmptyAudioError):
        overview.look_at(str(tmp_path / "a.wav"))


def test_novelty_is_that_of_the_whole_matrix_of_similarities() -> None:
    rows = np.random.default_rng(3).standard_normal((40, 5))
    half = 6
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    matrix = np.pad(unit @ unit.T, half)
    kernel = checkerboard(half)
    assert (np.sign(kernel[:half, :half]) == 1).all()
    assert (np.sign(kernel[:half, half:]) == -1).all()
    direct = np.array([(matrix[at : at + 2 * half, at : at + 2 * half] * kernel).sum() for at in range(41)])
    np.testing.assert_allclose(novelty(rows, half)[half:-half], np.maximum(direct, 0)[half:-half], atol=1e-4)


def test_novelty_is_highest_where_the_colour_changes() -> None:
    sound = np.concatenate((sine(220, 4.0, RATE), noise(4.0, RATE, level=0.3)))
    curve = novelty(cells(describe(sound)))
    assert abs(int(np.argmax(curve)) * 11 * 256 / RATE - 4.0) < 0.2
