"""Damaged files give what can be read of them, once and in order, and say what is missing."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader, read_audio
from embedindex.decoders import FfmpegDecoder
from embedindex.errors import AudioError, DamagedAudioError
from tests import sounds

# Quiet noise under a moving tone: no two stretches are alike, so that lost or repeated samples show.
ORIGINAL = sounds.chirp(100, 6000, 10.0, level=0.4) + sounds.noise(10.0, seed=9, level=0.05)


def encoded(tmp_path: Path, suffix: str) -> bytes:
    path = tmp_path / f"whole{suffix}"
    sounds.encode(path, ORIGINAL)
    return path.read_bytes()


def read(path: Path, content: bytes, start_s: float = 0.0) -> tuple[Float32Array, str | None]:
    path.write_bytes(content)
    with AudioReader(path, start_s=start_s) as reader:
        blocks = list(reader.blocks())
        assert sum(map(len, blocks)) == reader.native_frames
        return np.concatenate(blocks), reader.note


def find(part: Float32Array, samples: Float32Array) -> int:
    """Return where in `samples` `part` begins: the peak of their correlation."""
    size = 1 << int(np.ceil(np.log2(len(part) + len(samples))))
    product = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(part, size))
    return int(np.argmax(np.fft.irfft(product, size)))


def test_whole_files_have_no_note(tmp_path: Path) -> None:
    for suffix in (".wav", ".flac", ".mp3", ".mp2", ".ogg", ".m4a", ".wv", ".mka", ".webm", ".wma", ".aac", ".ac3"):
        if suffix == ".webm":
            sounds.encode(tmp_path / "a.webm", ORIGINAL, 48000)
        else:
            sounds.encode(tmp_path / f"a{suffix}", ORIGINAL)
        with AudioReader(tmp_path / f"a{suffix}") as reader:
            assert sum(map(len, reader.blocks())) == pytest.approx(441_000, abs=4096)
            assert reader.note is None, suffix


def test_truncated_mp3_gives_what_can_be_read(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".mp3")
    whole, _ = read_audio(tmp_path / "whole.mp3")
    samples, note = read(tmp_path / "a.mp3", data[: len(data) // 2])
    assert 0.48 * 441_000 < len(samples) < 0.51 * 441_000
    assert np.abs(samples[:-2304] - whole[: len(samples) - 2304]).max() < 1e-4  # the last frame has no successor
    assert note == "5.0 s of 10.0 s could be read: the rest is missing or damaged"
    assert len(samples) > len(sf.read(tmp_path / "a.mp3")[0])  # the last frame, which libsndfile does not give


def test_truncated_mp3_behind_a_large_tag_is_noticed(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".mp3")
    tag = b"ID3\x03\0\0" + bytes([0, 3, 0x0D, 0x20]) + bytes((3 << 14) + (0x0D << 7) + 0x20)  # a picture, say
    _, note = read(tmp_path / "a.mp3", tag + data[: len(data) // 2])
    assert note == "5.0 s of 10.0 s could be read: the rest is missing or damaged"


def test_flac_with_nothing_but_a_header_is_damage(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".flac")
    with pytest.raises(DamagedAudioError, match="nothing can be decoded"):
        read(tmp_path / "a.flac", data[:60] + bytes(5000))


def test_raw_aac_with_garbage_in_the_middle_says_so(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".aac")
    middle = len(data) // 2
    samples, note = read(tmp_path / "a.aac", data[:middle] + np.random.default_rng(3).bytes(5000) + data[middle:])
    assert len(samples) > 0.95 * 441_000
    assert note == "damaged in places: what could be decoded was read"


def test_wrong_length_in_a_movie_header_cuts_nothing(tmp_path: Path) -> None:
    sounds.encode(tmp_path / "whole.mov", ORIGINAL)
    data = bytearray((tmp_path / "whole.mov").read_bytes())
    place = data.index(b"mdhd") + 20
    assert int.from_bytes(data[place : place + 4], "big") == 441_000
    data[place : place + 4] = (100_000).to_bytes(4, "big")
    data[data.index(b"elst") : data.index(b"elst") + 4] = b"free"
    samples, _ = read(tmp_path / "a.mov", bytes(data))
    assert len(samples) == 441_000


def test_truncated_flac_gives_its_exact_samples_to_the_cut(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".flac")
    samples, note = read(tmp_path / "a.flac", data[: len(data) // 2])
    assert len(samples) > 0.45 * 441_000
    assert np.abs(samples - ORIGINAL[: len(samples)]).max() <= 1 / 32768
    assert note is not None
    assert note.endswith("of 10.0 s could be read: the rest is missing or damaged")


def test_flac_with_a_bad_middle_is_read_on_behind_it(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".flac")
    middle = len(data) // 2
    garbage = np.random.default_rng(0).bytes(5000)
    samples, note = read(tmp_path / "a.flac", data[:middle] + garbage + data[middle + 5000 :])
    assert len(samples) > 0.95 * 441_000
    assert np.abs(samples[:180_000] - ORIGINAL[:180_000]).max() <= 1 / 32768
    assert np.abs(samples[-100_000:] - ORIGINAL[-100_000:]).max() <= 1 / 32768
    assert note is not None


def test_mp3_with_garbage_in_the_middle_is_read_on_behind_it(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".mp3")
    whole, _ = read_audio(tmp_path / "whole.mp3")
    cut = len(data) * 37 // 100
    garbage = np.random.default_rng(1).bytes(3000)
    samples, note = read(tmp_path / "a.mp3", data[:cut] + garbage + data[cut + 3000 :])
    assert len(samples) > 0.9 * 441_000
    tail = whole[-100_000:-5000]
    start = find(tail, samples)
    assert np.abs(samples[start : start + len(tail)] - tail).max() < 1e-4
    assert start + len(tail) + 5000 == pytest.approx(len(samples), abs=2304)  # an encoder's padding may remain
    assert note is not None


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".flac"])
def test_joined_files_are_read_to_the_end_of_the_last(tmp_path: Path, suffix: str) -> None:
    data = encoded(tmp_path, suffix)
    whole, _ = read_audio(tmp_path / f"whole{suffix}")
    samples, note = read(tmp_path / f"a{suffix}", data + data)
    assert len(samples) == pytest.approx(882_000, abs=4096)
    assert np.array_equal(samples[:441_000], whole)
    second = whole[5000:-5000]
    start = 441_000 + find(second, samples[441_000:])
    assert start == pytest.approx(441_000 + 5000, abs=4096)  # an encoder's delay may remain
    assert np.abs(samples[start : start + len(second)] - second).max() < 1e-4
    assert note is not None
    assert "where the header says 10.0 s" in note


def test_joined_files_of_another_rate_are_read_to_the_seam(tmp_path: Path) -> None:
    for suffix in (".mp3", ".aac"):
        sounds.encode(tmp_path / f"slow{suffix}", sounds.sine(440, 10.0, 32000), 32000)
        samples, note = read(tmp_path / "a.bin", encoded(tmp_path, suffix) + (tmp_path / f"slow{suffix}").read_bytes())
        assert len(samples) == pytest.approx(441_000, abs=4096)
        assert note is not None
        assert "goes on at 32000 Hz after 10" in note


def test_joined_files_of_other_channels_are_read_to_the_end(tmp_path: Path) -> None:
    sounds.encode(tmp_path / "wide.aac", np.stack([ORIGINAL, ORIGINAL], axis=1))
    samples, _ = read(tmp_path / "a.bin", encoded(tmp_path, ".aac") + (tmp_path / "wide.aac").read_bytes())
    assert len(samples) == pytest.approx(882_000, abs=4096)
    assert np.std(samples[500_000:800_000]) == pytest.approx(np.std(ORIGINAL), rel=0.05)


def test_tag_behind_the_sound_is_no_damage(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".mp3")
    samples, note = read(tmp_path / "a.mp3", data + b"TAG" + bytes(125))
    assert (len(samples), note) == (441_000, None)


def test_wav_of_a_recorder_that_was_cut_off_is_read_to_its_end(tmp_path: Path) -> None:
    data = bytearray(encoded(tmp_path, ".wav"))
    place = data.index(b"data") + 4
    for size in (b"\0" * 4, b"\xff" * 4):
        data[place : place + 4] = size
        samples, note = read(tmp_path / "a.wav", bytes(data))
        assert np.abs(samples - ORIGINAL).max() <= 1 / 32768
        assert (len(samples), note) == (441_000, None)


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    data = bytearray(encoded(tmp_path, ".flac"))
    data[21] &= 0xF0  # the 36-bit number of samples: 0 is "unknown"
    data[22:26] = bytes(4)
    samples, note = read(tmp_path / "a.flac", bytes(data))
    assert (len(samples), note) == (441_000, None)


def test_start_within_the_damaged_part_is_counted_from_the_front(tmp_path: Path) -> None:
    data = encoded(tmp_path, ".flac")
    data = data[: len(data) * 3 // 4]
    whole, _ = read(tmp_path / "a.flac", data)
    rest, note = read(tmp_path / "a.flac", data, start_s=3.0)
    assert np.array_equal(rest, whole[3 * 44100 :])
    assert note is not None


@pytest.mark.parametrize("suffix", [".mka", ".wv", ".ogg", ".aac", ".ac3", ".wma", ".mp2", ".wav", ".aiff", ".caf"])
def test_half_a_file_gives_about_half_the_sound(tmp_path: Path, suffix: str) -> None:
    data = encoded(tmp_path, suffix)
    samples, _ = read(tmp_path / f"a{suffix}", data[: len(data) // 2])
    assert 0.4 * 441_000 < len(samples) < 0.55 * 441_000
    whole, _ = read_audio(tmp_path / f"whole{suffix}")
    assert np.abs(samples[:150_000] - whole[:150_000]).max() < 1e-4


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mka", ".wv", ".wma", ".aac"])
def test_mutilated_files_give_finite_sound_or_a_reason(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(tmp_path, suffix)[:60_000]
    rng = np.random.default_rng(len(suffix))
    for _ in range(12):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            broken[place] = rng.integers(256)
        start = int(rng.integers(0, len(data) - 2000))
        broken[start : start + int(rng.integers(1, 2000))] = rng.bytes(int(rng.integers(0, 2000)))
        try:
            samples, _ = read(tmp_path / "a.bin", bytes(broken))
        except AudioError as error:
            assert error.kind != "io"  # noqa: PT017 (sound is as welcome as a reason)
        else:
            assert np.isfinite(samples).all()
    assert not [line for line in capfd.readouterr().err.splitlines() if " @ 0x" in line]  # how FFmpeg talks


class FailingFile(io.FileIO):
    """A file on a disk that fails behind its first 40,000 bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 40_000:
            raise OSError(5, "Input/output error")
        return super().read(size) or b""


def test_failing_disk_is_told_from_damaged_content(tmp_path: Path) -> None:
    encoded(tmp_path, ".mka")
    with FailingFile(os.fspath(tmp_path / "whole.mka")) as file:
        decoder = FfmpegDecoder(file)
        with pytest.raises(OSError, match="Input/output error") as caught:
            list(decoder.chunks())
        decoder.close()
    assert type(caught.value) is OSError
