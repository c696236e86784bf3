"""Seeking: what is read from the middle of a file is what a decode from its start gives there, in every container."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.audio import AudioReader, read_audio
from embedindex.seeking import SHORTEST, seek_before
from tests.remixing import texture
from tests.sounds import RATE, encode

SOUND = np.stack((texture(11, 1, RATE), texture(11, 2, RATE)), axis=1)
SUFFIXES = [".wav", ".aiff", ".flac", ".mp3", ".mp2", ".ogg", ".opus", ".m4a", ".mov", ".wv", ".tta", ".wma", ".mka"]


def assert_reads_as_the_whole(path: Path, starts: list[int]) -> None:
    whole, facts = read_audio(path, mono=False)
    for start in starts:
        with AudioReader(path, mono=False, start_s=start / facts.sample_rate) as reader:
            found = np.concatenate([*reader.blocks(), whole[:0]])
        assert found.shape == whole[start:].shape
        assert np.abs(found - whole[start:]).max(initial=0) < 10 ** (-90 / 20)


def starts_in(frames: int, count: int = 6) -> list[int]:
    rng = np.random.default_rng(frames)
    return [1, SHORTEST + 1, frames - 5, *rng.integers(SHORTEST, frames, count).tolist()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reading_from_the_middle_is_decoding_from_the_start(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sound{suffix}"
    rate = 48000 if suffix == ".opus" else RATE
    encode(path, SOUND, rate)
    assert_reads_as_the_whole(path, starts_in(len(SOUND)))


def test_lossless_sound_in_mp4_is_read_from_the_middle_exactly(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    encode(path, SOUND, codec="alac")
    assert_reads_as_the_whole(path, starts_in(len(SOUND)))


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".opus", ".flac"])
def test_most_of_a_file_is_not_decoded_to_read_its_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sound{suffix}"
    encode(path, SOUND, 48000 if suffix == ".opus" else RATE)
    frames = sf.info(path).frames
    with open(path, "rb", buffering=0) as file, sf.SoundFile(file.fileno(), closefd=False) as sound:
        far = [int(frames * share) for share in (0.7, 0.8, 0.85)]
        stood = [seek_before(sound, file, frame) for frame in far]
    assert sum(at > frame - 40_000 for at, frame in zip(stood, far, strict=True)) >= 2  # Ogg may go back to the start
    assert all(at <= frame for at, frame in zip(stood, far, strict=True))


def test_a_stream_cut_out_of_a_longer_one_is_not_trusted(tmp_path: Path) -> None:
    """Its pages count from the beginning of what it was cut out of."""
    whole = tmp_path / "whole.ogg"
    encode(whole, SOUND)
    data = whole.read_bytes()
    pages = [place for place in range(len(data)) if data.startswith(b"OggS", place)]
    body = len(pages) // 4
    cut = tmp_path / "cut.ogg"
    cut.write_bytes(data[: pages[2]] + data[pages[body] :])
    found, facts = read_audio(cut, mono=False)
    starts = [start for start in starts_in(len(found), 3) if start < len(found)]
    assert facts.decoder
    assert_reads_as_the_whole(cut, starts)
