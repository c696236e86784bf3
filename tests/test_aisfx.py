"""aisfx: the checkpoint's reader refuses what is dangerous, the wheel is checked, the numbers are the published ones.

Tests with the real weights need them once: from the user's own models folder, else fetched into it (marked `network`).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
from librosa.filters import mel as librosa_mel

from embedindex.arrays import Float32Array
from embedindex.errors import ChecksumError, UsageError, WeightsFormatError, WeightsMissingError
from embedindex.models import load_model
from embedindex.models.aisfx import float_model, load, prepare
from embedindex.models.aisfx_checkpoint import BLOCK_CHANNELS, read_checkpoint, to_convnet
from embedindex.models.aisfx_frontend import SAMPLE_RATE, WINDOW_SAMPLES, mel_bands, spectrograms
from embedindex.models.aisfx_weights import CHECKPOINT, WheelRelease, find_aisfx, import_aisfx
from embedindex.models.base import ModelRequest
from embedindex.models.cache import WeightsFile
from embedindex.models.download import Patience
from embedindex.models.engines import OnnxNetwork

# --- checkpoints as torch.save writes them, written by hand -----------------------------------------------------------


class Pickle:
    """A protocol 2 pickle, instruction by instruction (the opcodes of `pickletools`)."""

    def __init__(self) -> None:
        self.data = b"\x80\x02"

    def name(self, module: str, name: str) -> Pickle:
        self.data += f"c{module}\n{name}\n".encode()
        return self

    def text(self, text: str) -> Pickle:
        self.data += b"X" + struct.pack("<I", len(text)) + text.encode()
        return self

    def number(self, value: int) -> Pickle:
        self.data += b"J" + struct.pack("<i", value)
        return self

    def numbers(self, values: tuple[int, ...]) -> Pickle:
        self.raw(b"(")
        for value in values:
            self.number(value)
        return self.raw(b"t")

    def raw(self, code: bytes) -> Pickle:
        self.data += code
        return self

    def tensor(self, key: str, count: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Pickle:
        self.name("torch._utils", "_rebuild_tensor_v2").raw(b"((").text("storage").name("torch", "FloatStorage")
        self.text(key).text("cpu").number(count).raw(b"tQ").number(offset).numbers(shape).numbers(strides)
        return self.raw(b"\x89").name("collections", "OrderedDict").raw(b")RtR")


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def write_checkpoint(path: Path, content: bytes, storages: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(path: Path, tensors: dict[str, Float32Array]) -> str:
    pickled = Pickle().name("collections", "OrderedDict").raw(b")R(")
    for key, (name, tensor) in enumerate(tensors.items()):
        pickled.text(name).tensor(str(key), tensor.size, 0, tensor.shape, row_major(tensor.shape))
    return write_checkpoint(
        path, pickled.raw(b"u.").data, {str(key): tensor.tobytes() for key, tensor in enumerate(tensors.values())}
    )


def random_network(seed: int = 0) -> dict[str, Float32Array]:
    """Weights of aisfx's shapes, of a size that keeps activations near 1."""
    random = np.random.default_rng(seed)
    tensors = {}
    for number, (inputs, outputs) in enumerate(BLOCK_CHANNELS, 1):
        for half, given in ((1, inputs), (2, outputs)):
            name = f"embedding_net.conv_block{number}"
            kernel = random.standard_normal((outputs, given, 3, 3)) * np.sqrt(2 / (9 * given))
            tensors[f"{name}.conv{half}.weight"] = kernel.astype(np.float32)
            tensors[f"{name}.bn{half}.weight"] = random.uniform(0.5, 1.5, outputs).astype(np.float32)
            tensors[f"{name}.bn{half}.bias"] = random.uniform(-0.5, 0.5, outputs).astype(np.float32)
            tensors[f"{name}.bn{half}.running_mean"] = random.uniform(-0.2, 0.2, outputs).astype(np.float32)
            tensors[f"{name}.bn{half}.running_var"] = random.uniform(0.5, 2.0, outputs).astype(np.float32)
    return tensors


def torch_like(tensors: dict[str, Float32Array], blocks: Float32Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the embeddings of spectrogram blocks (n, time, bands) as aisfx/models/cnn2d.py words it, in float64.

    Time before frequency, batch normalisation by its formula, patches instead of shifted sums: nothing is shared with
    the code under test.
    """
    x = blocks[:, None].astype(np.float64)  # (n, channels, time, bands)
    for block in range(1, 5):
        for half in (1, 2):
            name = f"embedding_net.conv_block{block}"
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
            x = np.tensordot(patches, tensors[f"{name}.conv{half}.weight"], axes=((1, 4, 5), (1, 2, 3)))
            norm = {
                part: tensors[f"{name}.bn{half}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
            }
            x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"].astype(np.float64) + 1e-5)
            x = np.maximum(x * norm["weight"] + norm["bias"], 0.0).transpose(0, 3, 1, 2)
        if block < 4:
            time, bands = x.shape[2] // 2, x.shape[3] // 2
            x = x[:, :, : 2 * time, : 2 * bands].reshape(len(x), -1, time, 2, bands, 2).max(axis=(3, 5))
    return np.asarray(x.mean(axis=3).max(axis=2))


# --- reading checkpoints ----------------------------------------------------------------------------------------------


def test_tensors_come_back_as_they_were_saved(tmp_path: Path) -> None:
    tensors: dict[str, Float32Array] = {
        "a.x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "b.y": np.array([1.5, -2.0], np.float32),
    }
    sha256 = save(tmp_path / "c.pth", tensors)
    read = read_checkpoint(str(tmp_path / "c.pth"), sha256)
    assert list(read) == ["a.x", "b.y"]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
    assert list(read_checkpoint(str(tmp_path / "c.pth"), sha256, "b.")) == ["b.y"]


def test_strided_view_of_a_storage_is_read_as_such(tmp_path: Path) -> None:
    pickled = Pickle().raw(b"}").text("view").tensor("0", 12, 1, (2, 3), (1, 4)).raw(b"s.")
    stored = np.arange(12, dtype=np.float32)
    sha256 = write_checkpoint(tmp_path / "c.pth", pickled.data, {"0": stored.tobytes()})
    np.testing.assert_array_equal(read_checkpoint(str(tmp_path / "c.pth"), sha256)["view"], [[1, 5, 9], [2, 6, 10]])


class Touch:
    """An object whose unpickling runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "executed"
    content = pickle.dumps(OrderedDict(weight=Touch(mark)), protocol=protocol)
    sha256 = write_checkpoint(tmp_path / "c.pth", content, {})
    with pytest.raises(WeightsFormatError, match="not a checkpoint that can be read safely"):
        read_checkpoint(str(tmp_path / "c.pth"), sha256)
    assert not mark.exists()
    pickle.loads(content)  # noqa: S301 - to see that it would
    assert mark.exists(), "the pickle was not hostile at all"


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2,), (4,)), (-1, (2,), (1,)), (3, (2,), (-1,)), (0, (2**30,), (0,))],
)
def test_view_that_leaves_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    pickled = Pickle().raw(b"}").text("view").tensor("0", 4, offset, shape, strides).raw(b"s.")
    sha256 = write_checkpoint(tmp_path / "c.pth", pickled.data, {"0": bytes(16)})
    with pytest.raises(WeightsFormatError, match="a tensor"):
        read_checkpoint(str(tmp_path / "c.pth"), sha256)


@pytest.mark.parametrize("length", [0, 10, 100, 1000])
def test_truncated_checkpoint_is_refused(tmp_path: Path, length: int) -> None:
    save(tmp_path / "c.pth", {"a": np.zeros(500, np.float32)})
    content = (tmp_path / "c.pth").read_bytes()[:length]
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(WeightsFormatError, match="expected that of aisfx"):
        read_checkpoint(str(tmp_path / "c.pth"), hashlib.sha256(content).hexdigest())


def test_truncated_pickle_is_refused(tmp_path: Path) -> None:
    whole = Pickle().raw(b"}").text("view").tensor("0", 4, 0, (4,), (1,)).raw(b"s.").data
    for length in range(len(whole)):
        sha256 = write_checkpoint(tmp_path / "c.pth", whole[:length], {"0": bytes(16)})
        with pytest.raises(WeightsFormatError):
            read_checkpoint(str(tmp_path / "c.pth"), sha256)


def test_checkpoint_that_changed_since_it_was_checked_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c.pth", {"a": np.zeros(5, np.float32)})
    with pytest.raises(ChecksumError, match="changed since it was checked"):
        read_checkpoint(str(tmp_path / "c.pth"), "0" * 64)


def test_checkpoint_of_another_network_is_refused() -> None:
    tensors = random_network()
    kernel = tensors.pop("embedding_net.conv_block3.conv2.weight")
    with pytest.raises(WeightsFormatError, match=r"conv_block3.conv2.weight is missing"):
        to_convnet(tensors, "c.pth")
    tensors["embedding_net.conv_block3.conv2.weight"] = kernel[:, :, :1]
    with pytest.raises(WeightsFormatError, match=r"of shape \(256, 256, 1, 3\), not \(256, 256, 3, 3\)"):
        to_convnet(tensors, "c.pth")


# --- the wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty models folder, and an installer that knows only the folder `wheels`."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("EMBEDINDEX_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "models"


def make_wheel(folder: Path, checkpoint: bytes = b"checkpoint" * 1000) -> WheelRelease:
    """Write a wheel like aisfx's, which no dependency of it could be installed with; return what is known of it."""
    info = "aisfx-0.1.2.dist-info"
    path = folder / "aisfx-0.1.2-py2.py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("aisfx/__init__.py", "raise SystemExit('must not be imported')")
        wheel.writestr(CHECKPOINT, checkpoint)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: aisfx\nVersion: 0.1.2\nRequires-Dist: numpy==1.23.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    content = path.read_bytes()
    return WheelRelease(
        "aisfx==0.1.2", hashlib.sha256(content).hexdigest(), len(content), hashlib.sha256(checkpoint).hexdigest()
    )


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if item.suffix != ".lock")


def test_wheel_is_fetched_by_pip_and_the_checkpoint_kept(models: Path, tmp_path: Path) -> None:
    release = make_wheel(tmp_path / "wheels")
    seen: list[tuple[int, int | None]] = []
    found = find_aisfx(release=release, progress=lambda done, total: seen.append((done, total)))
    assert Path(found.path).read_bytes() == b"checkpoint" * 1000
    assert names(models) == ["aisfx-0.1.2.json", "aisfx-0.1.2.pth"]
    assert seen[-1] == (release.wheel_bytes, release.wheel_bytes)
    (tmp_path / "wheels" / "aisfx-0.1.2-py2.py3-none-any.whl").unlink()
    assert find_aisfx(release=release) == found


def test_other_wheel_of_that_name_is_not_used(models: Path, tmp_path: Path) -> None:
    release = make_wheel(tmp_path / "wheels")
    make_wheel(tmp_path / "wheels", b"other")
    with pytest.raises(ChecksumError, match=r"aisfx-0.1.2-py2.py3-none-any.whl .* has SHA-256 .*: it was deleted"):
        find_aisfx(release=release)
    assert names(models) == []


def test_installer_without_the_wheel_says_what_to_do(models: Path) -> None:
    with pytest.raises(
        WeightsMissingError, match=r"No matching distribution found for aisfx==0.1.2\. Run 'pip"
    ) as caught:
        find_aisfx()
    assert "embedindex models import FILE.whl" in str(caught.value)
    assert names(models) == []


def test_stalled_installer_is_given_up(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pip needs longer than this to start.
    with pytest.raises(WeightsMissingError, match=r"nothing came for 0.001 s"):
        find_aisfx(patience=Patience(open_s=0.001))
    assert names(models) == []


FULL_DISK = """
import pickle, resource, sys
from embedindex.errors import WeightsMissingError
from embedindex.models.aisfx_weights import find_aisfx
release = pickle.load(sys.stdin.buffer)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    find_aisfx(release=release)
except WeightsMissingError as problem:
    print(problem)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are set with POSIX calls")
def test_full_disk_is_said_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    release = make_wheel(tmp_path / "wheels", np.random.default_rng(0).bytes(100_000))
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK], input=pickle.dumps(release), capture_output=True, check=True
    )
    assert "no space left for the weights; free" in run.stdout.decode()
    assert names(models) == []


def test_offline_variable_keeps_the_installer_alone(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make_wheel(tmp_path / "wheels")
    monkeypatch.setenv("EMBEDINDEX_OFFLINE", "1")
    with pytest.raises(WeightsMissingError, match="EMBEDINDEX_OFFLINE forbids"):
        find_aisfx(release=release)


def test_wheel_and_checkpoint_are_imported(models: Path, tmp_path: Path) -> None:
    release = make_wheel(tmp_path)
    placed = import_aisfx(str(tmp_path / "aisfx-0.1.2-py2.py3-none-any.whl"), release)
    assert Path(placed.path).read_bytes() == b"checkpoint" * 1000
    other = make_wheel(tmp_path, b"other")
    assert other != release
    with pytest.raises(ChecksumError, match="it is not used"):
        import_aisfx(str(tmp_path / "aisfx-0.1.2-py2.py3-none-any.whl"), release)
    with pytest.raises(WeightsFormatError, match="neither the wheel"):
        import_aisfx(__file__, release)


def test_damaged_cached_checkpoint_is_never_used(models: Path, tmp_path: Path) -> None:
    release = make_wheel(tmp_path / "wheels")
    path = Path(find_aisfx(release=release).path)
    path.write_bytes(b"x")
    with pytest.raises(ChecksumError, match="kept as"):
        find_aisfx(release=release, fetch=False)
    path.write_bytes(b"x")
    assert find_aisfx(release=release).sha256 == release.checkpoint_sha256


# --- front end --------------------------------------------------------------------------------------------------------


def essentia_bank() -> np.ndarray[Any, np.dtype[np.float64]]:
    """The bank (1025, 96) by the definition: triangles over the mel axis (natural logarithm), divided by their sums."""
    mel = 1127.01048 * np.log(1 + np.arange(1025) * 44100 / 2048 / 700)
    corners = np.linspace(0, 1127.01048 * np.log(1 + 22050 / 700), 98)
    bank = np.stack([np.interp(mel, corners[band : band + 3], [0, 1, 0]) for band in range(96)], axis=1)
    return np.asarray(bank / bank.sum(axis=0))


def test_bands_are_htk_triangles_of_sum_one() -> None:
    made = mel_bands(np.eye(1025, dtype=np.float32))
    np.testing.assert_allclose(made, essentia_bank(), atol=2e-6)
    # librosa's triangles are linear in Hz: where bands are much narrower than their frequency that is the same.
    reference = librosa_mel(sr=44100, n_fft=2048, n_mels=96, fmin=0, fmax=22050, htk=True, norm=1).T
    overlap = np.minimum(made, reference).sum(axis=0)
    assert overlap[20:].min() > 0.97
    assert overlap.min() > 0.8


def test_spectrogram_is_that_of_librosa_where_definitions_coincide() -> None:
    random = np.random.default_rng(1)
    sound = (random.standard_normal(WINDOW_SAMPLES) * np.linspace(0, 0.3, WINDOW_SAMPLES)).astype(np.float32)
    frames = librosa.stft(sound.astype(np.float64), n_fft=2048, hop_length=1024, window=np.hanning(2048), center=False)
    expected = np.log10(10000 * (np.abs(frames.T) ** 2 @ essentia_bank()) + 1).T / 9.457798957824707
    made = spectrograms(np.stack([sound, sound[::-1]]))
    assert made.shape == (2, 96, 100)
    np.testing.assert_allclose(made[0], expected, atol=2e-6)
    assert made.dtype == np.float32


def test_silence_is_zero() -> None:
    assert not spectrograms(np.zeros((1, WINDOW_SAMPLES), np.float32)).any()


# --- the model, with seeded weights -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("aisfx") / "seeded.pth"
    save(path, random_network())
    return str(path)


def sounds(count: int) -> Float32Array:
    random = np.random.default_rng(2)
    decay = np.exp(-np.linspace(0, 8, WINDOW_SAMPLES))
    noise = random.standard_normal((count, WINDOW_SAMPLES)) * decay
    return np.asarray(noise / np.abs(noise).max(axis=1, keepdims=True), np.float32)


def test_model_computes_what_the_published_code_says(
    seeded: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(ModelRequest("aisfx", weights=seeded))
    windows = sounds(2)
    expected = torch_like(random_network(), spectrograms(windows).transpose(0, 2, 1))
    made = model.embed(windows)
    assert np.abs(made - expected).max() < 1e-4 * np.abs(expected).max()
    assert not np.allclose(made[0], made[1], rtol=0.01)


def test_conversion_is_kept_and_remade_when_damaged(seeded: str, models: Path) -> None:
    windows = sounds(1)
    first = load(ModelRequest("aisfx", weights=seeded)).embed(windows)
    kept = [item for item in (models / "converted").iterdir() if item.suffix == ".onnx"]
    assert len(kept) == 1
    assert hashlib.sha256(Path(seeded).read_bytes()).hexdigest()[:20] in kept[0].name
    written = kept[0].stat().st_mtime_ns
    np.testing.assert_array_equal(load(ModelRequest("aisfx", weights=seeded)).embed(windows), first)
    assert kept[0].stat().st_mtime_ns == written
    content = bytearray(kept[0].read_bytes())
    content[len(content) // 2] ^= 1
    kept[0].write_bytes(content)
    np.testing.assert_array_equal(load(ModelRequest("aisfx", weights=seeded)).embed(windows), first)


def test_any_number_of_windows_gives_as_many_vectors(seeded: str, models: Path) -> None:
    model = load(ModelRequest("aisfx", weights=seeded))
    assert model.embed(sounds(0)).shape == (0, 512)
    many = model.embed(np.repeat(sounds(1), 10, axis=0))
    np.testing.assert_allclose(many, np.repeat(many[:1], 10, axis=0), rtol=1e-5, atol=1e-5)


def test_identity_names_weights_level_and_filling(seeded: str, models: Path) -> None:
    identity = load(ModelRequest("aisfx", weights=seeded)).identity
    assert (identity.sample_rate, identity.dimension, identity.window_samples) == (SAMPLE_RATE, 512, 103_424)
    assert (identity.level, identity.filling, identity.standardise) == ("peak", "tile", False)
    assert identity.weights_sha256 == hashlib.sha256(Path(seeded).read_bytes()).hexdigest()
    assert identity.parameters["precision"] == "fp32"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ModelRequest("aisfx", options=(("size", "6144"),)), "aisfx has no options, so no 'size'"),
        (ModelRequest("aisfx", engine="tensorflow"), "runs on the engine onnxruntime only"),
        (ModelRequest("aisfx", precision="fp16"), "no precision 'fp16'; it is one of: auto, fp32, int8"),
    ],
)
def test_what_aisfx_does_not_have_is_a_usage_error(request_: ModelRequest, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(request_)


# --- the real weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> WeightsFile:
    """The published weights, kept in the user's own models folder between runs."""
    try:
        return find_aisfx()
    except WeightsMissingError as problem:
        pytest.skip(f"aisfx's weights cannot be had: {problem}")


# The first six of 512 numbers that aisfx 0.1.2's own network (PyTorch 2.13) returns for the three blocks of
# numpy.random.default_rng(0).random((3, 100, 96)), float32.
PYTORCH = [
    [7.1056085, 8.796023, 7.986342, 9.130523, 5.9558663, 18.30152],
    [6.01683, 8.887685, 7.9645247, 8.607283, 5.7777333, 17.179964],
    [7.2975063, 8.316802, 7.7222004, 8.898343, 6.1256294, 18.125505],
]


@pytest.mark.network
def test_published_weights_give_the_numbers_of_the_published_code(real: WeightsFile) -> None:
    blocks = np.random.default_rng(0).random((3, 100, 96)).astype(np.float32)
    model = float_model(real)
    cells = OnnxNetwork(model.content, model.sha256, threads=1).cells(np.ascontiguousarray(blocks.transpose(0, 2, 1)))
    np.testing.assert_allclose(cells[:, :6], PYTORCH, rtol=1e-5)


@pytest.mark.network
def test_published_weights_know_a_kick_from_a_hat(real: WeightsFile) -> None:
    random = np.random.default_rng(3)
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE

    def kick(pitch_hz: float) -> Float32Array:
        return np.asarray(np.sin(2 * np.pi * pitch_hz * time * np.exp(-4 * time)) * np.exp(-8 * time), np.float32)

    def hat(decay: float) -> Float32Array:
        noise = np.diff(random.standard_normal(len(time) + 1)) * np.exp(-decay * time)
        return np.asarray(noise / np.abs(noise).max(), np.float32)

    hits = np.stack([np.resize(hit, WINDOW_SAMPLES) for hit in (kick(50), kick(60), hat(30), hat(40))])
    vectors = load(ModelRequest("aisfx")).embed(hits)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[0, 1] > likeness[0, 2:].max() + 0.1
    assert likeness[2, 3] > likeness[2, :2].max() + 0.1


@pytest.mark.network
@pytest.mark.slow
def test_prepared_8_bit_variant_is_what_auto_means_and_agrees(real: WeightsFile) -> None:
    decision = prepare(real)
    chosen = load(ModelRequest("aisfx"))
    assert (chosen.identity.parameters["precision"] == "int8") == decision.startswith("int8 arithmetic agrees")
    exact = load(ModelRequest("aisfx", precision="fp32"))
    integer = load(ModelRequest("aisfx", precision="int8"))
    assert integer.identity.parameters["precision"] == "int8"
    first, second = exact.embed(sounds(8)).astype(np.float64), integer.embed(sounds(8)).astype(np.float64)
    assert not np.array_equal(first, second)
    cosines = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert cosines.min() > 0.995
