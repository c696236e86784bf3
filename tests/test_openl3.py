"""OpenL3 against what the official code returned, and against a plain float64 convolution on weights made here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.errors import ChecksumError, EngineMissingError, UsageError
from embedindex.models.base import ModelRequest
from embedindex.models.convnet import ConvLayer, ConvNet, run_reference
from embedindex.models.convnet_onnx import build
from embedindex.models.engines import OnnxNetwork
from embedindex.models.openl3 import Openl3Model, load, parse_options, reduce_cells
from embedindex.models.openl3_frontend import INPUT_REPRS, spectrograms
from embedindex.models.openl3_pipeline import count_windows, embed_audio, hop_samples
from embedindex.models.openl3_weights import read_weights, to_convnet
from tests.openl3_oracle import ORACLE, Array, Case, cases, needs_oracle, sound_48k, weights, write_official_file

Load = Callable[..., Openl3Model]


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A models folder that the module shares: conversions are made once."""
    folder = tmp_path_factory.mktemp("models")
    before = os.environ.get("EMBEDINDEX_MODELS")
    os.environ["EMBEDINDEX_MODELS"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EMBEDINDEX_MODELS"]
    else:
        os.environ["EMBEDINDEX_MODELS"] = before


@pytest.fixture(scope="module")
def official(models_folder: Path) -> Load:
    """Loads the model with the oracle's seeded weights, in float32, each kind once."""
    loaded: dict[tuple[str, str, int, str], Openl3Model] = {}

    def get(input_repr: str, frontend: str = "kapre", size: int = 512, engine: str = "auto") -> Openl3Model:
        key = (input_repr, frontend, size, engine)
        if key not in loaded:
            options = (("embedding_size", str(size)), ("frontend", frontend), ("input_repr", input_repr))
            request = ModelRequest("openl3", options, weights(input_repr), "fp32", engine, threads=2)
            loaded[key] = load(request)
        return loaded[key]

    return get


# The network


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize(("rows", "columns", "cell"), [(128, 199, (4, 8)), (83, 45, (5, 2))])
def test_onnx_network_computes_what_a_plain_convolution_does(
    tmp_path: Path, rows: int, columns: int, cell: tuple[int, int], tiled: bool
) -> None:
    net = to_convnet(read_weights(write_official_file(tmp_path / "w.h5")), "mel128")
    net = replace(net, rows=rows, columns=columns, cell=cell)
    levels = (-80 * np.random.default_rng(1).random((1, rows, columns))).astype(np.float32)
    exact = run_reference(net, levels)
    content = build(net, tiled=tiled)
    assert np.abs(OnnxNetwork(content, sha256(content), 2).cells(levels) - exact).max() <= 1e-4


def test_folding_a_batch_norm_into_the_convolution_before_it_changes_nothing(tmp_path: Path) -> None:
    file = read_weights(write_official_file(tmp_path / "w.h5"))
    levels = (-80 * np.random.default_rng(1).random((1, 16, 12))).astype(np.float64)
    scale, shift = file.input_norm.scale_and_shift()
    plain = ConvLayer(file.kernels[0].transpose(3, 2, 0, 1), file.biases[0], relu=False)
    whole = ConvNet(16, 12, float(scale[0]), float(shift[0]), (plain,), "max", (1, 1))
    norm_scale, norm_shift = file.norms[0].scale_and_shift()
    exact = np.maximum(run_reference(whole, levels) * np.tile(norm_scale, 192) + np.tile(norm_shift, 192), 0)
    folded = to_convnet(file, "mel128")
    first = replace(whole, layers=folded.layers[:1])
    assert np.abs(run_reference(first, levels) - exact).max() < 1e-5


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@needs_oracle
@pytest.mark.parametrize("frontend", ["kapre", "librosa"])
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_network_alone_returns_the_official_embedding_of_the_official_spectrogram(
    official: Load, input_repr: str, frontend: str
) -> None:
    with np.load(ORACLE / "official" / "stages.npz") as stages:
        levels = stages[f"{input_repr}_{frontend}__noise__spec"][1:2]
        expected = stages[f"{input_repr}_{frontend}__noise__embedding512"]
    network = official(input_repr)._engine
    assert isinstance(network, OnnxNetwork)
    assert np.abs(reduce_cells(network.cells(levels), 512) - expected).max() <= 1e-4


# End to end against the official code


def deviation(case: Case, model: Openl3Model) -> tuple[float, float]:
    """Return (largest absolute, relative L2) difference to the official embedding; timestamps have to be equal."""
    embedding, timestamps = embed_audio(sound_48k(case.input_name), 48000, model, center=case.center, hop_s=case.hop_s)
    assert embedding.shape == case.embedding.shape
    assert np.array_equal(timestamps, case.timestamps)
    difference = embedding - case.embedding
    return float(np.abs(difference).max()), float(np.linalg.norm(difference) / np.linalg.norm(case.embedding))


@needs_oracle
@pytest.mark.parametrize("frontend", ["kapre", "librosa"])
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_number_of_windows_and_timestamps_are_the_official_ones(input_repr: str, frontend: str) -> None:
    seen = 0
    for case in cases("official", input_repr, frontend):
        length = len(sound_48k(case.input_name))
        count = count_windows(length, hop_samples(case.hop_s), center=case.center)
        assert count == len(case.embedding), case.input_name
        assert np.array_equal(np.arange(count) * case.hop_s, case.timestamps)
        seen += 1
    assert seen > 10


@needs_oracle
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_kapre_embeddings_of_noise_are_the_official_ones(official: Load, input_repr: str) -> None:
    key = f"{input_repr}_kapre__noise_48k_stereo__512__h0.5__c0"
    with np.load(ORACLE / "official" / "noise.npz") as stored:
        expected = stored[f"{key}__embedding"]
    samples, rate = sf.read(ORACLE / "audio" / "noise_48k_stereo.wav")
    embedding, _ = embed_audio(samples, rate, official(input_repr), center=False, hop_s=0.5)
    assert np.abs(embedding - expected).max() <= 2e-4


@needs_oracle
@pytest.mark.parametrize("name", ["short.wav", "silence.wav"])
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_kapre_embeddings_of_short_and_silent_sounds_are_the_official_ones(
    official: Load, input_repr: str, name: str
) -> None:
    case = first_case("official", input_repr, "kapre", name)
    assert deviation(case, official(input_repr))[0] <= 2e-4


def first_case(folder: str, input_repr: str, frontend: str, name: str) -> Case:
    """Return the stored case with the fewest windows of an input, of 512 numbers."""
    found = [
        case for case in cases(folder, input_repr, frontend) if case.input_name == name and case.embedding_size == 512
    ]
    return min(found, key=lambda case: len(case.embedding))


REAL_SOUNDS = ["loop_amen.flac", "bass_voxy_c.flac", "ambi_piano_22k_mono.flac", "elec_chime_96k_mono.flac"]


@needs_oracle
@pytest.mark.slow
@pytest.mark.parametrize("name", [*REAL_SOUNDS, "chirp_44k.wav", "chirp_mono.wav"])
@pytest.mark.parametrize(("input_repr", "limit"), [("linear", 0.05), ("mel128", 0.03), ("mel256", 0.03)])
def test_kapre_embeddings_of_real_sounds_are_the_official_ones(
    official: Load, input_repr: str, limit: float, name: str
) -> None:
    case = first_case("official_tf215", input_repr, "kapre", name)
    assert deviation(case, official(input_repr))[1] <= limit


@needs_oracle
@pytest.mark.slow
@pytest.mark.parametrize("name", [*REAL_SOUNDS, "chirp_44k.wav", "chirp_stereo.wav"])
@pytest.mark.parametrize("input_repr", INPUT_REPRS)
def test_librosa_embeddings_of_real_sounds_are_the_official_ones(official: Load, input_repr: str, name: str) -> None:
    case = first_case("official", input_repr, "librosa", name)
    assert deviation(case, official(input_repr, "librosa"))[0] <= 1e-3


@needs_oracle
def test_embeddings_of_6144_are_the_official_ones(official: Load) -> None:
    (case,) = [
        case
        for case in cases("official", "mel128", "librosa")
        if case.embedding_size == 6144 and case.input_name == "chirp_mono.wav" and case.center
    ][:1]
    assert deviation(case, official("mel128", "librosa", 6144))[0] <= 1e-3


# What the official code does with odd inputs, and its bugs


@pytest.fixture(scope="module")
def extra() -> dict[str, Array]:
    """What the official code returned for odd inputs."""
    with np.load(ORACLE / "official" / "extra.npz") as stored:
        return {key: stored[key] for key in stored.files}


@needs_oracle
def test_hop_is_truncated_in_samples_but_not_in_timestamps(official: Load, extra: dict[str, Array]) -> None:
    assert hop_samples(0.29) == 13919
    timestamps = extra["hop_0.29_truncated_13919__timestamps"]
    assert count_windows(len(sound_48k("loop_amen.flac")), 13919, center=True) == len(timestamps)
    assert np.array_equal(np.arange(6) * 0.29, timestamps)


@needs_oracle
def test_a_nan_sample_spoils_nothing_as_in_the_official_code(official: Load, extra: dict[str, Array]) -> None:
    samples = np.random.default_rng(0).standard_normal(48000)
    samples[100] = np.nan
    embedding, _ = embed_audio(samples, 48000, official("mel128"), center=False)
    assert np.isfinite(extra["one_nan__embedding"]).all()
    assert np.isfinite(embedding).all()


# The model


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of random weights."""
    return write_official_file(tmp_path_factory.mktemp("weights") / "random.h5")


def request_for(path: str, **options: str) -> ModelRequest:
    return ModelRequest("openl3", tuple(sorted({"input_repr": "mel128", **options}.items())), path, "fp32", threads=2)


def test_index_model_returns_one_vector_a_window(models_folder: Path, random_file: str) -> None:
    model = load(request_for(random_file))
    windows = np.random.default_rng(0).standard_normal((3, 48000)).astype(np.float32)
    vectors = model.embed(windows)
    assert vectors.shape == (3, 512)
    assert vectors.dtype == np.float32
    assert model.embed(windows[:0]).shape == (0, 512)
    large = load(request_for(random_file, embedding_size="6144")).embed(windows)
    assert np.array_equal(large.reshape(3, 12, 512).max(axis=1), vectors)


def test_a_vector_does_not_depend_on_its_batch(models_folder: Path, random_file: str) -> None:
    model = load(request_for(random_file))
    windows = np.random.default_rng(0).standard_normal((10, 48000)).astype(np.float32)
    alone = np.concatenate([model.embed(windows[9:]), model.embed(windows[:1])])
    assert np.allclose(model.embed(windows)[[9, 0]], alone, atol=1e-4)


def test_identity_tells_options_and_weights_apart(models_folder: Path, random_file: str, tmp_path: Path) -> None:
    identity = load(request_for(random_file)).identity
    assert (identity.name, identity.sample_rate, identity.window_samples, identity.dimension) == (
        "openl3",
        48000,
        48000,
        512,
    )
    assert identity.parameters["precision"] == "fp32"
    other = write_official_file(tmp_path / "other.h5", seed=4)
    others = [
        request_for(random_file, frontend="librosa"),
        request_for(random_file, content_type="env"),
        request_for(other),
    ]
    prints = {load(request).identity.fingerprint for request in others} | {identity.fingerprint}
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input_repr", "mel64", "linear, mel128, mel256"),
        ("embedding_size", "1024", "512, 6144"),
        ("frontend", "torch", "kapre, librosa, original"),
        ("size", "512", "input_repr, content_type, embedding_size, frontend"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(key: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_options(((key, value),))


def test_a_damaged_conversion_is_made_again(models_folder: Path, random_file: str) -> None:
    windows = np.random.default_rng(0).standard_normal((1, 48000)).astype(np.float32)
    before = load(request_for(random_file)).embed(windows)
    stored = sorted((models_folder / "converted").glob("openl3-mel128-*-fp32-tiled.onnx"))
    assert stored
    for path in stored:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
    assert np.array_equal(load(request_for(random_file)).embed(windows), before)


def test_the_conversion_is_used_again(models_folder: Path, random_file: str) -> None:
    load(request_for(random_file))
    stored = {path: path.stat().st_mtime_ns for path in (models_folder / "converted").iterdir()}
    load(request_for(random_file))
    assert {path: path.stat().st_mtime_ns for path in (models_folder / "converted").iterdir()} == stored


def test_an_onnx_model_with_other_bytes_is_not_loaded() -> None:
    with pytest.raises(ChecksumError):
        OnnxNetwork(b"anything", "0" * 64, 1)


def test_unknown_engine_and_impossible_precision_are_refused(random_file: str) -> None:
    with pytest.raises(UsageError, match="auto, onnxruntime, openvino, tensorflow, openl3"):
        load(ModelRequest("openl3", weights=random_file, engine="torch"))
    with pytest.raises(UsageError, match="auto, fp32, int8, bf16"):
        load(ModelRequest("openl3", weights=random_file, precision="fp64"))
    with pytest.raises(UsageError, match="fp32 only"):
        load(ModelRequest("openl3", weights=random_file, precision="int8", engine="tensorflow"))


@pytest.mark.parametrize("engine", ["openvino", "tensorflow", "openl3"])
def test_an_engine_that_is_not_installed_is_said_so(models_folder: Path, random_file: str, engine: str) -> None:
    if find_spec(engine):
        pytest.skip(f"{engine} is installed")
    with pytest.raises(EngineMissingError) as said:  # also to one who searches, where no option chooses an engine
        load(ModelRequest("openl3", weights=random_file, engine=engine))
    assert "pip install " in str(said.value)
    assert "scan a new index, or embed, with --engine onnxruntime" in str(said.value)


@pytest.mark.parametrize("engine", ["openvino", "tensorflow", "openl3"])
def test_engines_agree(models_folder: Path, random_file: str, engine: str) -> None:
    if not find_spec(engine):
        pytest.skip(f"{engine} is not installed")
    windows = 0.1 * np.random.default_rng(0).standard_normal((2, 48000)).astype(np.float32)
    request = request_for(random_file)
    theirs = load(ModelRequest("openl3", request.options, random_file, "fp32", engine)).embed(windows)
    assert np.abs(theirs - load(request).embed(windows)).max() <= 2e-4


def test_original_front_end_moves_the_embedding(models_folder: Path, random_file: str) -> None:
    windows = np.random.default_rng(0).standard_normal((1, 48000)).astype(np.float32)
    kapre, original = (load(request_for(random_file, frontend=name)).embed(windows) for name in ("kapre", "original"))
    assert np.abs(kapre - original).max() > 1e-3
    levels = spectrograms(windows, "mel128", "original")
    network = load(request_for(random_file))._engine
    assert isinstance(network, OnnxNetwork)
    assert np.array_equal(reduce_cells(network.cells(levels), 512), original)


def test_a_models_folder_that_cannot_be_written_costs_time_not_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, random_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path / "file" / "models"))
    vectors = load(request_for(random_file)).embed(np.ones((1, 48000), np.float32))
    assert vectors.shape == (1, 512)
    assert "will be made again next time" in caplog.text
