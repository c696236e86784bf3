"""The built-in model: the contract of models, what its dimensions answer to, and its numbers against librosa's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float32Array
from embedindex.errors import UsageError
from embedindex.models import Model, ModelIdentity, ModelRequest, load_model
from embedindex.models.spectral import (
    DIMENSION,
    FLOOR_DB,
    GROUPS,
    MEL_BANDS,
    MEL_MAX_HZ,
    MEL_MIN_HZ,
    RANGE_DB,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    SpectralModel,
    describe,
    dimension_names,
)

MODEL = SpectralModel()
TIME_S = np.arange(WINDOW_SAMPLES) / SAMPLE_RATE
LARGEST = 6.5e4
LOUDNESS = [number for number, name in enumerate(dimension_names()) if name.startswith("loudness")]


def noise(seed: int = 0) -> Float32Array:
    return (0.2 * np.random.default_rng(seed).standard_normal(WINDOW_SAMPLES)).astype(np.float32)


def tone(frequency_hz: float) -> Float32Array:
    harmonics = np.sum([np.sin(2 * np.pi * frequency_hz * k * TIME_S) / k for k in (1, 2, 3)], axis=0)
    return np.asarray(0.3 * harmonics, np.float32)


def hit(decay_s: float = 0.05, seed: int = 1) -> Float32Array:
    sound = noise(seed) * np.exp(-TIME_S / decay_s)
    sound[int(8 * decay_s * SAMPLE_RATE) :] = 0.0
    return sound.astype(np.float32)


def impulse(position: int) -> Float32Array:
    sound = np.zeros(WINDOW_SAMPLES, np.float32)
    sound[position] = 1.0
    return sound


def embed(*windows: Float32Array) -> Float32Array:
    return MODEL.embed(np.stack(windows).astype(np.float32))


def value(sound: Float32Array, name: str) -> float:
    return float(embed(sound)[0, dimension_names().index(name)])


def groups_of(sound: Float32Array) -> dict[str, Float32Array]:
    described = describe(sound[None], np.abs(sound[None]).max(axis=1))
    return {name: values[0] for name, values in described.items()}


def test_the_registry_loads_it() -> None:
    model: Model = load_model(ModelRequest("spectral"))
    assert model.identity.name == "spectral"
    assert model.identity.standardise
    assert model.identity.weights_sha256 is None
    assert model.identity.parameters["version"] == 1
    assert ModelIdentity.from_json(model.identity.to_json()).fingerprint == model.identity.fingerprint
    assert 0 < model.default_hop_s <= model.identity.window_s


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ModelRequest("spectral", options=(("bands", "80"),)), "no options, but bands"),
        (ModelRequest("spectral", weights="weights.h5"), "no weights"),
        (ModelRequest("spectral", precision="int8"), "no precision 'int8'"),
        (ModelRequest("spectral", engine="onnxruntime"), "does not run on 'onnxruntime'"),
    ],
)
def test_what_it_does_not_have_is_refused(request_: ModelRequest, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_model(request_)


def test_windows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 100\) are not \(n, 22050\)"):
        MODEL.embed(np.zeros((2, 100), np.float32))


def test_the_groups_are_as_long_as_they_say() -> None:
    assert [(name, len(values)) for name, values in groups_of(noise()).items()] == list(GROUPS)
    names = dimension_names()
    assert len(names) == len(set(names)) == DIMENSION == MODEL.identity.dimension


def test_no_windows_give_no_vectors() -> None:
    assert MODEL.embed(np.zeros((0, WINDOW_SAMPLES), np.float32)).shape == (0, DIMENSION)


def test_a_batch_gives_what_its_members_give_alone() -> None:
    windows = [noise(seed) for seed in range(20)] + [hit(), np.zeros(WINDOW_SAMPLES, np.float32), tone(440)]
    together = embed(*windows)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, np.concatenate([embed(window) for window in windows]), atol=2e-3)


def test_windows_are_left_as_they_were() -> None:
    windows = np.stack([noise(), hit()])
    before = windows.copy()
    MODEL.embed(windows)
    np.testing.assert_array_equal(windows, before)


def test_digital_silence_is_a_row_of_zeros_and_only_that() -> None:
    vectors = embed(np.zeros(WINDOW_SAMPLES, np.float32), impulse(0), impulse(WINDOW_SAMPLES - 1))
    assert not vectors[0].any()
    assert vectors[1].any()
    assert vectors[2].any()


EXTREMES = {
    "DC": np.full(WINDOW_SAMPLES, 0.5),
    "DC at the largest float": np.full(WINDOW_SAMPLES, np.finfo(np.float32).max),
    "noise of 1e30": noise() * 1e30,
    "noise of 1e-30": noise() * 1e-30,
    "denormal noise": noise() * 1e-40,
    "smallest denormal click": impulse(9000) * 1.4e-45,
    "largest and smallest": np.where(np.arange(WINDOW_SAMPLES) % 2, 3e38, 1e-45),
    "click at the start": impulse(0),
    "click in the middle": impulse(11000),
    "click beyond the last frame": impulse(WINDOW_SAMPLES - 1),
    "square at half the rate": np.where(np.arange(WINDOW_SAMPLES) % 2, 1.0, -1.0),
    "full-scale square": np.sign(np.sin(2 * np.pi * 100.5 * TIME_S)),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_windows_give_finite_vectors_that_fit_float16(name: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        vectors = embed(EXTREMES[name])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors).max() < LARGEST


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(-45, 38),
    st.integers(0, WINDOW_SAMPLES - 1),
    st.integers(1, WINDOW_SAMPLES),
)
def test_any_piece_of_noise_gives_a_finite_vector(seed: int, exponent: float, start: int, length: int) -> None:
    window = np.zeros(WINDOW_SAMPLES)
    piece = np.random.default_rng(seed).uniform(-1, 1, WINDOW_SAMPLES)[: min(length, WINDOW_SAMPLES - start)]
    window[start : start + len(piece)] = piece * 10.0**exponent
    vectors = embed(window.astype(np.float32))
    assert np.isfinite(vectors).all()
    assert np.abs(vectors).max() < LARGEST


@pytest.mark.parametrize("gain_db", [-60.0, -20.0, 6.0])
def test_gain_moves_nothing_but_the_two_dimensions_of_loudness(gain_db: float) -> None:
    sounds = np.stack([noise(), hit(), tone(330)])
    plain, changed = MODEL.embed(sounds), MODEL.embed((sounds * 10 ** (gain_db / 20)).astype(np.float32))
    np.testing.assert_allclose(changed[:, LOUDNESS] - plain[:, LOUDNESS], gain_db, atol=1e-3)
    np.testing.assert_allclose(np.delete(changed, LOUDNESS, 1), np.delete(plain, LOUDNESS, 1), atol=1e-2)


def test_silence_behind_a_short_sound_is_not_described_as_sound() -> None:
    """Whether 0.3 s or 0.6 s of silence follow, the timbre of a hit stays the same."""
    short, shifted = hit(0.03), np.roll(hit(0.03), 20 * 512)
    names = dimension_names()
    timbre = [number for number, name in enumerate(names) if name.startswith(("mfcc_mean", "shape_mean", "chroma"))]
    distance = np.abs(embed(short) - embed(tone(440)))[0, timbre]
    moved = np.abs(embed(short) - embed(shifted))[0, timbre]
    assert np.median(moved) < 0.2 * np.median(distance)


def test_a_brighter_sound_has_higher_shapes() -> None:
    for name in ("shape_mean_centroid", "shape_mean_rolloff", "shape_mean_zero_crossings"):
        assert value(tone(3000), name) > value(tone(300), name) + 2  # a decade is 3.3 octaves


def test_zero_crossings_of_a_tone_are_its_frequency_in_octaves() -> None:
    sine = np.sin(2 * np.pi * 1000 * TIME_S).astype(np.float32)
    assert value(sine, "shape_mean_zero_crossings") == pytest.approx(np.log2(1000 + 50), abs=0.02)


def test_chroma_of_a_is_class_nine() -> None:
    assert int(np.argmax(groups_of(tone(440))["chroma_mean"])) == 9
    assert int(np.argmax(groups_of(tone(440))["chroma_energy"])) == 9


def test_dynamics_tell_a_hit_from_a_drone() -> None:
    for name in ("dynamics_std", "dynamics_max_over_mean", "dynamics_crest"):
        assert value(hit(), name) > value(noise(), name) + 3
    assert value(hit(), "dynamics_active") < value(noise(), "dynamics_active")
    assert value(hit(), "dynamics_trend") < value(noise(), "dynamics_trend") - 1
    assert value(hit(), "envelope_50") < value(noise(), "envelope_50") - 20


def test_spread_of_a_steady_sound_is_that_of_a_uniform_distribution() -> None:
    frames = 1 + (WINDOW_SAMPLES - 2048) // 512
    expected = np.log2(np.sqrt((frames**2 - 1) / 12) + 0.5)
    assert value(np.full(WINDOW_SAMPLES, 0.5, np.float32), "dynamics_spread") == pytest.approx(expected, abs=1e-3)


def test_onsets_count_hits() -> None:
    beats = sum((np.roll(hit(0.02), start) for start in (4000, 9000, 14000)), np.zeros(WINDOW_SAMPLES, np.float32))
    assert value(beats, "onsets_share") > value(noise(), "onsets_share")
    assert value(beats, "onsets_max") > value(noise(), "onsets_max") + 5


@pytest.mark.parametrize("sound", [noise(), tone(440)], ids=["noise", "tone"])
def test_descriptors_are_librosas(sound: Float32Array) -> None:
    """All frames of these are active, so plain means and deviations over librosa's frames are the answer."""
    librosa = pytest.importorskip("librosa", reason="librosa, the independent reference, is not installed")
    scaled = sound / np.abs(sound).max()
    magnitudes = np.abs(librosa.stft(scaled, center=False))
    magnitudes = np.maximum(magnitudes, magnitudes.max() * 10 ** (-FLOOR_DB / 20))
    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=2048, n_mels=MEL_BANDS, fmin=MEL_MIN_HZ, fmax=MEL_MAX_HZ)
    mel = bank @ magnitudes**2
    mel_db = librosa.power_to_db(mel, top_db=RANGE_DB)
    cepstra = librosa.feature.mfcc(S=mel_db, n_mfcc=20)[1:]
    contrast = librosa.feature.spectral_contrast(S=magnitudes, sr=SAMPLE_RATE)
    centroid = np.log2(librosa.feature.spectral_centroid(S=magnitudes, sr=SAMPLE_RATE)[0] + 50)
    flux = librosa.onset.onset_strength(S=mel_db, sr=SAMPLE_RATE, center=False)[1:]
    level_db = librosa.amplitude_to_db(
        librosa.feature.rms(y=scaled, center=False)[0], ref=1.0, top_db=None
    ) + 20 * np.log10(np.abs(sound).max())
    ours = groups_of(sound)
    average_db = librosa.power_to_db(mel.mean(axis=1), top_db=RANGE_DB)
    np.testing.assert_allclose(ours["mel_mean"], mel_db.mean(axis=1) - mel_db.mean(), atol=0.02)
    np.testing.assert_allclose(ours["mel_energy"], average_db - average_db.mean(), atol=0.02)
    np.testing.assert_allclose(ours["mfcc_mean"], cepstra.mean(axis=1), atol=0.05)
    np.testing.assert_allclose(ours["mfcc_std"], cepstra.std(axis=1), atol=0.05)
    np.testing.assert_allclose(ours["contrast_mean"], contrast.mean(axis=1), atol=0.02)
    np.testing.assert_allclose(ours["contrast_std"], contrast.std(axis=1), atol=0.02)
    np.testing.assert_allclose(ours["contrast_delta"], np.abs(np.diff(contrast)).mean(axis=1), atol=0.02)
    chroma = librosa.feature.chroma_stft(S=magnitudes**2, sr=SAMPLE_RATE, tuning=0.0)
    np.testing.assert_allclose(ours["chroma_mean"], chroma.mean(axis=1), atol=1e-3)
    assert ours["shape_mean"][0] == pytest.approx(centroid.mean(), abs=1e-3)
    assert ours["shape_std"][0] == pytest.approx(centroid.std(), abs=1e-3)
    assert ours["onsets"][0] == pytest.approx(flux.mean(), abs=1e-3)
    assert ours["onsets"][2] == pytest.approx(flux.max(), abs=1e-2)
    assert ours["loudness"] == pytest.approx([level_db.mean(), level_db.max()], abs=1e-2)


def test_one_query_from_cold_loads_nothing_heavy() -> None:
    program = (
        "import numpy, sys\n"
        "from embedindex.models import ModelRequest, load_model\n"
        "load_model(ModelRequest('spectral')).embed(numpy.random.default_rng(0).random((5, 22050), 'float32'))\n"
        "print(sorted({'librosa', 'scipy', 'faiss', 'soundfile'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"
