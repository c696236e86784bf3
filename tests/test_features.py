"""Descriptors as CSV: the tutorials' layout with librosa's numbers, by file and by window, with labels."""

from __future__ import annotations

import csv
from pathlib import Path

import librosa
import numpy as np
import pytest

from embedindex.features import SAMPLE_RATE, columns, features
from tests.command_line import Cli, command_line, started
from tests.indexing import make_sound, run_scan
from tests.sounds import chirp, noise, sine, write_wav

HEADER = (
    "filename chroma_stft rmse spectral_centroid spectral_bandwidth rolloff zero_crossing_rate "
    + " ".join(f"mfcc{number}" for number in range(1, 21))
    + " label"
)


@pytest.fixture
def cli(index: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line on the index."""
    return command_line(index, monkeypatch)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_columns_are_those_of_the_tutorials_and_their_values_librosas(library: Path, cli: Cli) -> None:
    (library / "rock").mkdir()
    sound = (0.5 * chirp(200, 4000, 2.0, SAMPLE_RATE) + noise(2.0, SAMPLE_RATE, level=0.05)).astype(np.float32)
    write_wav(library / "rock" / "song.wav", sound, SAMPLE_RATE)
    text = cli("features", library)
    assert text.splitlines()[0] == HEADER.replace(" ", ",")
    (row,) = rows_of(text)
    assert (row["filename"], row["label"]) == ("song.wav", "rock")
    expected = {
        "chroma_stft": librosa.feature.chroma_stft(y=sound, sr=SAMPLE_RATE, tuning=0.0),
        "rmse": librosa.feature.rms(y=sound),
        "spectral_centroid": librosa.feature.spectral_centroid(y=sound, sr=SAMPLE_RATE),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(y=sound, sr=SAMPLE_RATE),
        "rolloff": librosa.feature.spectral_rolloff(y=sound, sr=SAMPLE_RATE),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(sound),
    }
    for number, values in enumerate(librosa.feature.mfcc(y=sound, sr=SAMPLE_RATE, n_mfcc=20), 1):
        expected[f"mfcc{number}"] = values
    for name, values in expected.items():
        assert float(row[name]) == pytest.approx(float(np.mean(values)), rel=2e-3, abs=2e-2), name


def test_rich_set_adds_deviations(tmp_path: Path) -> None:
    sound = chirp(200, 4000, 1.0, SAMPLE_RATE)
    write_wav(tmp_path / "a.wav", sound, SAMPLE_RATE)
    names = columns("rich")
    (row,) = features(str(tmp_path / "a.wav"), "rich")
    assert len(names) == len(set(names)) == len(row.values) == 134
    values = dict(zip(names, row.values, strict=True))
    centroids = librosa.feature.spectral_centroid(y=sound, sr=SAMPLE_RATE)
    assert values["spectral_centroid_std"] == pytest.approx(centroids.std(), rel=2e-3)
    assert values["flatness"] == pytest.approx(librosa.feature.spectral_flatness(y=sound).mean(), rel=2e-3)
    (classic,) = features(str(tmp_path / "a.wav"))
    np.testing.assert_array_equal(row.values[:26], classic.values)


def test_windows_describe_their_own_part(tmp_path: Path) -> None:
    sound = np.concatenate([sine(300, 1, SAMPLE_RATE), sine(3000, 1, SAMPLE_RATE), sine(300, 0.3, SAMPLE_RATE)])
    write_wav(tmp_path / "a.wav", sound, SAMPLE_RATE)
    rows = list(features(str(tmp_path / "a.wav"), window_s=1.0))
    assert [(row.start_s, row.end_s) for row in rows] == [(0.0, 1.0), (1.0, 2.0)]
    centroid = columns("classic").index("spectral_centroid")
    assert rows[0].values[centroid] < 1000 < 2500 < rows[1].values[centroid]


def test_only_the_beginning_counts_when_asked(tmp_path: Path) -> None:
    sound = np.concatenate([sine(300, 1, SAMPLE_RATE), noise(5, SAMPLE_RATE)])
    write_wav(tmp_path / "long.wav", sound, SAMPLE_RATE)
    write_wav(tmp_path / "short.wav", sound[:SAMPLE_RATE], SAMPLE_RATE)
    (long,), (short,) = (features(str(tmp_path / name), duration_s=1.0) for name in ("long.wav", "short.wav"))
    np.testing.assert_allclose(long.values, short.values)


def test_long_file_is_described_in_parts_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(6, SAMPLE_RATE)
    write_wav(tmp_path / "a.wav", sound, SAMPLE_RATE)
    (whole,) = features(str(tmp_path / "a.wav"))
    monkeypatch.setattr("embedindex.features.PART_S", 2.0)
    (parts,) = features(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(parts.values, whole.values, rtol=0.05, atol=1.0)
    assert parts.end_s == whole.end_s == pytest.approx(6)


def test_very_short_and_silent_sounds_have_finite_descriptors(tmp_path: Path) -> None:
    for name, sound in (("short", sine(440, 0.003, SAMPLE_RATE)), ("silent", np.zeros(SAMPLE_RATE, np.float32))):
        write_wav(tmp_path / f"{name}.wav", sound, SAMPLE_RATE)
        (row,) = features(str(tmp_path / f"{name}.wav"), "rich")
        assert np.isfinite(row.values).all()


def test_labels_of_the_index_and_files_that_cannot_be_read(index: str, library: Path, cli: Cli, tmp_path: Path) -> None:
    path = make_sound(library / "a.wav")
    (library / "bad.wav").write_text("no sound")
    run_scan(index, library)
    cli("label", "set", path, "mood=dark", "mood=slow")
    table = tmp_path / "data.csv"
    cli("features", library, "--key", "mood", "--full-paths", "-o", table)
    (row,) = rows_of(table.read_text())
    assert (row["filename"], row["label"]) == (str(path), "dark; slow")
    assert "bad.wav" in cli("features", library, "--strict", status=1)
    assert "not there" in cli("features", tmp_path / "none", status=1)
    kept = table.read_bytes()
    cli("features", library / "bad.wav", "-o", table, status=1)
    assert table.read_bytes() == kept  # nothing could be described: what there was stays
    assert "is a sound's name" in cli("features", library, "-o", path, status=2)
    assert "cannot be written" in cli("features", library, "-o", tmp_path / "none" / "data.csv", status=2)
    with started(["features", str(path)]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `| head -0` does
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert "--window" in cli("features", path, "--window", "0.01", status=2)
