"""The three front ends against librosa in float64, and against the official code's own spectrograms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import librosa
import numpy as np
import pytest
from librosa.filters import mel as librosa_mel_bank

from embedindex.models.openl3_frontend import INPUT_REPRS, FrontEnd, geometry, mel_bank, spectrograms
from tests.openl3_oracle import ORACLE, Array, needs_oracle

SIZES = {"linear": (257, 197), "mel128": (128, 199), "mel256": (256, 199)}


def music(seconds: float = 1.0) -> Array:
    """Return something with partials, noise and a fade, 48 kHz float64."""
    rng = np.random.default_rng(5)
    times = np.arange(int(48000 * seconds)) / 48000
    tone = sum(np.sin(2 * np.pi * 220 * k * times) / k for k in range(1, 30))
    return np.asarray((0.2 * tone + 0.05 * rng.standard_normal(len(times))) * np.linspace(1, 0.01, len(times)))


def decibels(values: Array) -> Array:
    levels = 10 * np.log10(np.maximum(values, 1e-10))
    return np.asarray(np.maximum(levels - levels.max(), -80))


def reference(window: Array, input_repr: str, front_end: str) -> Array:
    """The spectrogram by librosa in float64, from the published description of each front end."""
    if input_repr == "linear":
        return decibels(np.abs(librosa.stft(window, n_fft=512, hop_length=242, center=False)))
    bands = int(input_repr[3:])
    if front_end == "librosa":
        return decibels(
            librosa.feature.melspectrogram(
                y=window,
                sr=48000,
                n_mels=bands,
                n_fft=2048,
                hop_length=242,
                center=True,
                power=1.0,
                pad_mode="constant",
            )
        )
    front, behind = {"kapre": (0, 1964), "original": (982, 982)}[front_end]
    padded = np.pad(window.astype(np.float32), (front, behind)).astype(np.float64)
    magnitude = np.abs(librosa.stft(padded, n_fft=2048, hop_length=242, center=False))
    bank = librosa_mel_bank(sr=48000, n_fft=2048, n_mels=bands, htk=front_end == "original", dtype=np.float64)
    return decibels(bank @ magnitude if front_end == "kapre" else np.sqrt(bank @ magnitude**2))


@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_librosa_front_end_is_librosas_to_a_millionth_of_a_decibel(input_repr: str) -> None:
    window = music()
    exact = reference(window, input_repr, "librosa")
    ours = spectrograms(window[None], input_repr, "librosa")[0]
    # The network takes float32, which near -80 dB is spaced 7.6e-6: that rounding is the official code's too.
    assert np.array_equal(ours, exact.astype(np.float32)) or np.abs(ours - exact.astype(np.float32)).max() < 8e-6
    assert np.mean(ours != exact.astype(np.float32)) < 1e-3


@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_librosa_front_end_before_rounding_is_within_a_millionth_of_a_decibel(input_repr: str) -> None:
    from embedindex.models.openl3_frontend import _spectrogram

    window = music()
    exact = reference(window, input_repr, "librosa")
    assert np.abs(_spectrogram(window, geometry(input_repr, "librosa")) - exact).max() <= 1e-6


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("front_end", ["kapre", "original"])
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_float32_front_ends_follow_their_definition(input_repr: str, front_end: FrontEnd) -> None:
    window = music()
    ours = spectrograms(window[None], input_repr, front_end)[0]
    assert ours.shape == SIZES[input_repr]
    assert np.abs(ours - reference(window, input_repr, front_end)).max() < 2e-4


@pytest.mark.filterwarnings("ignore:Empty filters")  # HTK's lowest of 256 bands hold no bin; version 0.3's were so too
@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize("bands", [128, 256])
def test_mel_bank_is_librosas(bands: int, htk: bool) -> None:
    theirs = librosa_mel_bank(sr=48000, n_fft=2048, n_mels=bands, htk=htk)
    assert np.abs(mel_bank(bands, htk=htk) - theirs).max() <= 2e-9  # one float32 step of its largest weights


def test_silence_is_zero_decibels_everywhere() -> None:
    assert not spectrograms(np.zeros((1, 48000), np.float32), "mel256").any()


def test_kapre_frames_are_not_centred_and_original_frames_are() -> None:
    window = np.zeros((1, 48000), np.float32)
    window[0, 242 * 50 + 1024] = 1.0  # the middle of frame 50 where frame i starts at sample 242 i
    loudest = {
        name: int(spectrograms(window, "mel128", name)[0].mean(axis=0).argmax()) for name in ("kapre", "original")
    }
    assert loudest["kapre"] == 50
    assert loudest["original"] == 54  # 982 zeros in front are 4.06 hops


def test_threads_change_nothing() -> None:
    windows = np.stack([music(), music()[::-1], np.zeros(48000)])
    with ThreadPoolExecutor(2) as pool:
        shared = spectrograms(windows, "mel128", pool=pool)
    assert np.array_equal(shared, spectrograms(windows, "mel128"))


def test_front_end_leaves_its_input_alone() -> None:
    windows = music()[None].astype(np.float32)
    kept = windows.copy()
    spectrograms(windows, "mel256", "original")
    assert np.array_equal(windows, kept)


@needs_oracle
@pytest.mark.parametrize("front_end", ["kapre", "librosa"])
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_spectrograms_of_noise_are_the_official_ones(input_repr: str, front_end: FrontEnd) -> None:
    import soundfile as sf

    with np.load(ORACLE / "official" / "stages.npz") as stages:
        official = stages[f"{input_repr}_{front_end}__noise__spec"]
    samples, _ = sf.read(ORACLE / "audio" / "noise_48k_stereo.wav")
    padded = np.pad(samples.mean(axis=1), (24000, 0))
    ours = spectrograms(np.stack([padded[:48000], padded[48000:96000]]), input_repr, front_end)
    assert np.abs(ours - official).max() < 1e-2  # TensorFlow 2.12's transform is that far off; see section 8 there
