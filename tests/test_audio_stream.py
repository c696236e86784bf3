"""Blocks, rates and memory: the same samples come out however they are asked for, from a bounded amount of memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader, read_audio
from embedindex.errors import AudioError
from tests import sounds


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the same five seconds of stereo in formats of both decoders."""
    folder = tmp_path_factory.mktemp("stream")
    stereo = np.stack([sounds.chirp(50, 9000, 5.0), sounds.noise(5.0, seed=4)], axis=1)
    for suffix in (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mka"):
        sounds.encode(folder / f"a{suffix}", stereo)
    return {path.suffix: path for path in folder.iterdir()}


def blocks_of(path: Path, **options: float | bool | int | None) -> list[Float32Array]:
    with AudioReader(path, **options) as reader:  # type: ignore[arg-type]
        return list(reader.blocks())


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from([".wav", ".flac", ".mp3", ".m4a", ".mka"]),
    block_s=st.floats(0.001, 6.0),
    sample_rate=st.sampled_from([None, 44100, 48000, 16000, 8000]),
    mono=st.booleans(),
)
def test_block_size_never_changes_a_sample(
    files: dict[str, Path], suffix: str, block_s: float, sample_rate: int | None, mono: bool
) -> None:
    blocks = blocks_of(files[suffix], block_s=block_s, sample_rate=sample_rate, mono=mono)
    expected, _ = read_audio(files[suffix], sample_rate, mono)
    size = max(1, round(block_s * (sample_rate or 44100)))
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert 1 <= len(blocks[-1]) <= size
    assert np.array_equal(np.concatenate(blocks), expected)
    assert all(block.dtype == np.float32 for block in blocks)


@pytest.mark.parametrize("to_hz", [8000, 16000, 22050, 48000, 96000])
@pytest.mark.parametrize("mono", [True, False])
def test_streamed_resampling_equals_one_call_of_soxr(files: dict[str, Path], to_hz: int, mono: bool) -> None:
    streamed, _ = read_audio(files[".flac"], to_hz, mono)
    native, _ = sf.read(files[".flac"], dtype="float32")
    whole = soxr.resample(native.mean(axis=1, dtype=np.float32) if mono else native, 44100, to_hz, quality="HQ")
    assert streamed.shape == whole.shape
    assert np.abs(streamed - whole).max() < 1e-6


@pytest.mark.parametrize("frames", [1, 2, 99, 1000, 65535, 65536, 65537, 131072])
@pytest.mark.parametrize("to_hz", [48000, 22050])
def test_length_after_resampling_is_the_rounded_ratio(tmp_path: Path, frames: int, to_hz: int) -> None:
    sounds.write_wav(tmp_path / "a.wav", sounds.noise(frames / 44100))
    with AudioReader(tmp_path / "a.wav", sample_rate=to_hz) as reader:
        assert sum(map(len, reader.blocks())) == int(frames * to_hz / 44100 + 0.5)
        assert reader.native_frames == frames


def test_peak_is_of_the_native_mix_whatever_the_rate_asked_for(tmp_path: Path) -> None:
    click = np.zeros((1000, 2), np.float32)
    click[500] = [0.8, 0.2]
    sounds.write_wav(tmp_path / "a.wav", click)
    with AudioReader(tmp_path / "a.wav", sample_rate=8000, mono=False) as reader:
        assert np.abs(np.concatenate(list(reader.blocks()))).max() < 0.3
        assert reader.peak == pytest.approx(0.5)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".m4a"])
@pytest.mark.parametrize("start", [1, 70_001, 220_499])
def test_start_is_exact_to_the_sample(files: dict[str, Path], suffix: str, start: int) -> None:
    whole, _ = read_audio(files[suffix])
    rest = np.concatenate(blocks_of(files[suffix], start_s=start / 44100))
    assert np.array_equal(rest, whole[start:])


def test_start_behind_the_end_gives_no_blocks(files: dict[str, Path]) -> None:
    assert blocks_of(files[".wav"], start_s=5.5) == []
    assert blocks_of(files[".mp3"], start_s=5.5) == []


def test_blocks_can_be_read_once(files: dict[str, Path]) -> None:
    with AudioReader(files[".wav"]) as reader:
        list(reader.blocks())
        with pytest.raises(ValueError, match="open the file again"):
            next(reader.blocks())


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a"])
def test_reader_left_halfway_closes_its_file(files: dict[str, Path], suffix: str) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with AudioReader(files[suffix], block_s=0.1) as reader:
            next(reader.blocks())
    assert len(os.listdir("/dev/fd")) == before


def test_refused_files_are_closed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound" * 100)
    before = len(os.listdir("/dev/fd"))
    for path in [tmp_path / "a.wav", tmp_path] * 3:
        with pytest.raises(AudioError):
            AudioReader(path)
    assert len(os.listdir("/dev/fd")) == before


def test_arrays_stay_small_for_eight_channels_at_192_khz(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sounds.write_wav(path, np.zeros((10, 8), np.float32), 192000)
    with open(path, "r+b") as file:
        header = file.read()
        file.seek(header.index(b"data") + 4)
        file.write(b"\xff" * 4)  # as long as the file
        file.truncate(192000 * 8 * 4 * 30)  # 30 s = 184 MB of zeros that take no disk
    tracemalloc.start()
    with AudioReader(path, sample_rate=48000, block_s=1.0) as reader:
        seconds = sum(map(len, reader.blocks())) / 48000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds == pytest.approx(30, abs=0.1)
    assert peak_bytes < 8e6


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc to see the memory of a process")
@pytest.mark.parametrize("suffix", [".flac", ".mka"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    resident = []
    for minutes in (1, 20):
        sounds.encode(tmp_path / f"a{suffix}", np.zeros((minutes * 60 * 8000, 2), np.float32), 8000)
        script = (
            "import sys; from embedindex.audio import AudioReader\n"
            "with AudioReader(sys.argv[1], sample_rate=48000) as reader: n = sum(map(len, reader.blocks()))\n"
            "print(n, next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        output = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / f"a{suffix}")], capture_output=True, text=True, check=True
        )
        samples, kilobytes = map(int, output.stdout.split())
        assert samples == minutes * 60 * 48000
        resident.append(kilobytes)
    assert resident[1] - resident[0] < 30_000  # the samples alone are 230 MB
