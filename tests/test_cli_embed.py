"""`embedindex embed` the way users type it: the options of ``openl3 audio``, files in, ``.npz`` out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import typer
from typer.testing import CliRunner, Result

from embedindex.cli.embed import register
from embedindex.embed_files import Job, plan_jobs, write_result
from embedindex.errors import PathNotFoundError, UsageError
from embedindex.models.base import ModelRequest
from embedindex.models.openl3 import load
from embedindex.models.openl3_pipeline import embed_audio
from tests.openl3_oracle import Array, write_official_file

RATE = 48000


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of random weights."""
    return write_official_file(tmp_path_factory.mktemp("weights") / "w.h5")


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that the module shares: conversions are made once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def own_models_folder(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's models folder out of it."""
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(models_folder))
    monkeypatch.setenv("EMBEDINDEX_OFFLINE", "1")


def run(*arguments: str | Path) -> Result:
    """Run the command."""
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)  # more than one command, as in the real program
    return CliRunner().invoke(app, ["embed", *map(str, arguments)])


def fast(weights: str) -> list[str]:
    """Return the options that make a test quick: the smallest network, few windows, no choice of precision."""
    return ["--weights", weights, "-i", "mel128", "-as", "512", "-t", "0.5", "--precision", "fp32"]


def write_sound(path: Path, seconds: float = 1.0, *, channels: int = 1, rate: int = RATE) -> Array:
    """Write noise and return it as it was stored."""
    samples = 0.1 * np.random.default_rng(1).standard_normal((int(seconds * rate), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, rate, subtype="PCM_16")
    return np.asarray(sf.read(path)[0])


def test_result_holds_the_embedding_and_the_timestamps(tmp_path: Path, weights: str) -> None:
    samples = write_sound(tmp_path / "a.wav", 1.2, channels=2)
    result = run(tmp_path / "a.wav", *fast(weights))
    assert result.exit_code == 0, result.output
    request = ModelRequest("openl3", (("input_repr", "mel128"),), weights, "fp32")
    expected, timestamps = embed_audio(samples, RATE, load(request), hop_s=0.5)
    with np.load(tmp_path / "a.npz") as stored:
        assert set(stored.files) == {"embedding", "timestamps"}
        assert stored["embedding"].dtype == np.float32
        assert np.allclose(stored["embedding"], expected, atol=1e-4)
        assert stored["timestamps"].dtype == np.float64
        assert np.array_equal(stored["timestamps"], timestamps)


def test_defaults_are_those_of_the_official_command_line(tmp_path: Path, weights: str) -> None:
    write_sound(tmp_path / "a.wav", 0.6)
    result = run(tmp_path / "a.wav", "--weights", weights, "--precision", "fp32")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "a.npz") as stored:
        # Centred: 0.5 s of silence and 0.6 s of sound; two windows, 0.1 s apart, 6144 numbers each.
        assert stored["embedding"].shape == (2, 6144)
        assert stored["timestamps"].tolist() == [0.0, 0.1]


def test_every_official_option_is_understood_in_both_forms(tmp_path: Path, weights: str) -> None:
    write_sound(tmp_path / "a.wav", 1.2)
    short: list[str | Path] = [
        "-o",
        tmp_path / "s",
        "-x",
        "v",
        "-i",
        "mel128",
        "-c",
        "env",
        "-as",
        "512",
        "-n",
        "-t",
        "0.5",
        "-ab",
        "1",
    ]
    short += ["-af", "librosa", "-ow", "-q"]
    long: list[str | Path] = [
        "--output-dir",
        tmp_path / "l",
        "--suffix",
        "v",
        "--input-repr",
        "mel128",
        "--content-type",
        "env",
    ]
    long += ["--audio-embedding-size", "512", "--no-audio-centering", "--audio-hop-size", "0.5"]
    long += ["--audio-batch-size", "1", "--audio-frontend", "librosa", "--overwrite", "--quiet"]
    for options in (short, long):
        result = run(tmp_path / "a.wav", *options, "--weights", weights, "--precision", "fp32")
        assert result.exit_code == 0, result.output
        assert not result.output
    with np.load(tmp_path / "s" / "a_v.npz") as one, np.load(tmp_path / "l" / "a_v.npz") as other:
        assert one["timestamps"].tolist() == [0.0, 0.5]
        assert np.array_equal(one["embedding"], other["embedding"])


def test_results_that_exist_are_kept_and_the_others_are_still_written(tmp_path: Path, weights: str) -> None:
    """The official code forgets files it has not written yet when the last one of a list exists already."""
    for name in ("a", "b", "c"):
        write_sound(tmp_path / f"{name}.wav", 0.2)
    (tmp_path / "c.npz").write_bytes(b"kept")
    result = run(tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav", *fast(weights))
    assert result.exit_code == 0, result.output
    assert "1 of 3 results exist" in result.output
    assert (tmp_path / "c.npz").read_bytes() == b"kept"
    assert (tmp_path / "a.npz").exists()
    assert (tmp_path / "b.npz").exists()
    assert run(tmp_path / "c.wav", "-ow", *fast(weights)).exit_code == 0
    assert np.load(tmp_path / "c.npz")["embedding"].shape == (1, 512)


def test_a_broken_file_is_named_and_the_others_are_done(tmp_path: Path, weights: str) -> None:
    write_sound(tmp_path / "good.wav", 0.2)
    (tmp_path / "bad.wav").write_bytes(b"RIFF0000WAVEnothing")
    result = run(tmp_path / "bad.wav", tmp_path / "good.wav", *fast(weights))
    assert result.exit_code == 1
    assert "bad.wav" in result.output
    assert (tmp_path / "good.npz").exists()
    assert not (tmp_path / "bad.npz").exists()


def test_an_empty_file_does_not_spoil_the_others(tmp_path: Path, weights: str) -> None:
    """In the official code one empty file makes the whole call fail."""
    sf.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    write_sound(tmp_path / "good.wav", 0.2)
    result = run(tmp_path / "empty.wav", tmp_path / "good.wav", *fast(weights))
    assert result.exit_code == 1
    assert (tmp_path / "good.npz").exists()


def test_a_folder_stands_for_the_sounds_directly_in_it(tmp_path: Path) -> None:
    for name in ("b.wav", "a.FLAC", "notes.txt", "deeper/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    jobs = plan_jobs([str(tmp_path)], None, "x")
    assert jobs == [
        Job(str(tmp_path / f"{n}.{e}"), str(tmp_path / f"{n}_x.npz")) for n, e in (("a", "FLAC"), ("b", "wav"))
    ]


def test_two_sounds_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="both be written"):
        plan_jobs([str(tmp_path)])


def test_a_folder_without_sounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no audio files"):
        plan_jobs([str(tmp_path)])


def test_an_input_that_is_not_there_fails_as_in_every_other_command(tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError, match=r"missing\.wav: does not exist"):
        plan_jobs([str(tmp_path / "missing.wav")])


def test_a_result_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where a folder is needed")
    with pytest.raises(UsageError, match="--output-dir"):
        write_result(str(tmp_path / "occupied" / "a.npz"), np.zeros((1, 2), np.float32), np.zeros(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["occupied"]


def test_other_models_start_a_window_every_hop(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", 2.0)
    result = run(tmp_path / "a.wav", "--model", "spectral", "-t", "0.5")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "a.npz") as stored:
        assert np.array_equal(stored["timestamps"], 0.5 * np.arange(len(stored["embedding"])))
        assert len(stored["embedding"]) > 1


@pytest.mark.parametrize("model", ["openl3", "spectral"])
@pytest.mark.parametrize("hop", ["0", "-1", "nan"])
def test_a_hop_that_is_no_positive_number_is_refused(tmp_path: Path, weights: str, model: str, hop: str) -> None:
    write_sound(tmp_path / "a.wav", 0.2)
    options = fast(weights) if model == "openl3" else ["--model", model]
    result = run(tmp_path / "a.wav", *options, "-t", hop)
    assert isinstance(result.exception, UsageError)
    assert "positive number of seconds" in str(result.exception)


def test_options_of_openl3_are_refused_for_other_models(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav")
    result = run(tmp_path / "a.wav", "--model", "spectral", "-i", "linear")
    assert isinstance(result.exception, UsageError)
    assert "options of openl3" in str(result.exception)


def test_options_inside_the_model_name_win(tmp_path: Path, weights: str) -> None:
    write_sound(tmp_path / "a.wav", 0.2)
    options = ["--weights", weights, "--precision", "fp32", "--model", "openl3:embedding_size=512,input_repr=mel128"]
    assert run(tmp_path / "a.wav", *options).exit_code == 0
    assert np.load(tmp_path / "a.npz")["embedding"].shape == (1, 512)


def test_library_stays_light() -> None:
    import subprocess
    import sys

    heavy = ("numpy", "onnxruntime", "onnx", "h5py", "librosa", "tensorflow", "faiss")
    code = f"import sys, embedindex, embedindex.cli.embed; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
