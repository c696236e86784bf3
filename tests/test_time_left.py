"""The time left of a scan goes by the length of the sound, whatever the files' sizes."""

from __future__ import annotations

import pytest

from embedindex.time_left import FALLBACK_BYTES_PER_S, SoundLeft


def test_share_is_of_the_sound_not_of_the_bytes() -> None:
    sound = SoundLeft({b".wav": 2_000_000, b".mp3": 200_000})  # 10 s at 200 kB/s, 10 s at 20 kB/s
    sound.done(b"a.WAV", 1_000_000, 5.0)
    sound.done(b"a.mp3", 40_000, 2.0)
    assert sound.share() == pytest.approx(7 / 20)
    sound.done(b"b.wav", 1_000_000, 5.0)
    assert sound.share() == pytest.approx(12 / 20)
    sound.done(b"b.mp3", 160_000, 8.0)
    assert sound.share() == 1.0


def test_files_that_were_not_decoded_count_as_their_kind() -> None:
    sound = SoundLeft({b".wav": 3000})
    sound.done(b"a.wav", 1000, 10.0)
    sound.done(b"moved.wav", 1000, None)
    assert sound.share() == pytest.approx(2 / 3)


def test_kind_nothing_is_known_of_is_guessed_by_the_others() -> None:
    sound = SoundLeft({b".wav": 1000, b".ogg": 3000})
    sound.done(b"a.wav", 1000, 10.0)
    assert sound.share() == pytest.approx(1 / 4)


def test_nothing_done_is_no_share() -> None:
    assert SoundLeft({b".wav": 1000}).share() == 0.0
    assert SoundLeft({}).share() == 0.0


def test_files_without_a_byte_are_no_measure_of_the_others() -> None:
    left = SoundLeft({b".wav": 0, b".mp3": 80_000})
    left.done(b"a.wav", 0, 300.0)
    assert left.share() == 300 / (300 + 80_000 / FALLBACK_BYTES_PER_S)
