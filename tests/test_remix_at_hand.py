"""Sounds that can only be decoded from their beginning are decoded once, and sound as they do when read themselves."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embedindex.audio import AudioReader
from embedindex.remix import at_hand as module
from embedindex.remix.at_hand import AtHand, sounds_at_hand, span_of, united
from embedindex.remix.bending import Bend, read_bent
from embedindex.remix.compose import Sound
from embedindex.remix.options import RemixOptions
from embedindex.remix.recipe import Recipe, to_json
from embedindex.remix.render import mixed_blocks
from embedindex.remix.spans import read_span
from embedindex.remix.units import parse_units
from tests.remixing import remix, scan_spectral, texture
from tests.sounds import encode

RATE = 44100
GRID = RemixOptions(cutting=parse_units("grid:600ms"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of two AAC files of 14 s, and an AAC seed."""
    folder = tmp_path_factory.mktemp("aac")
    (folder / "library").mkdir()
    for number in range(2):
        encode(folder / "library" / f"{number}.m4a", texture(14, 60 + number, RATE), RATE)
    encode(folder / "seed.m4a", texture(9, 1, RATE), RATE)
    scan_spectral(str(folder / "index"), folder / "library")
    return folder


def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows by every compressed file whose decoding begins."""
    begun: list[object] = []
    blocks = AudioReader.blocks

    def counted(self: AudioReader) -> object:
        if self.from_start:
            begun.append(self)
        return blocks(self)

    monkeypatch.setattr(AudioReader, "blocks", counted)
    return begun


@pytest.mark.parametrize("rate", [RATE, 48000, 22050])
def test_what_is_at_hand_is_what_the_file_gives(place: Path, tmp_path: Path, rate: int) -> None:
    """Pieces at the beginning, in the middle, one that goes on behind the end, and stretched ones; in any thread."""
    path = os.fsencode(place / "library" / "0.m4a")
    starts = [0, 300, 5 * RATE + 7, 11 * RATE, 14 * RATE - 5000]
    lead, frames = round(0.12 * rate), round(0.9 * rate)
    ready = AtHand([span_of(path, start, 0.66, RATE, rate) for start in starts], str(tmp_path))
    with ThreadPoolExecutor(4) as threads:
        copies = set(threads.map(ready, [path] * 8))
    (copy,) = copies
    assert copy != path
    for start in starts:
        wanted, _ = read_span(path, start, lead, frames, rate, 2)
        np.testing.assert_array_equal(read_span(copy, start, lead, frames, rate, 2)[0], wanted)
        assert wanted.any()


def test_bent_pieces_are_the_same(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("python_stretch")
    path = os.fsencode(place / "library" / "1.m4a")
    starts, bend, margin = [9 * RATE, 12 * RATE], Bend(1.2, 2.0), round(0.12 * RATE)
    ready = AtHand([span_of(path, start, 0.5 / bend.stretch, RATE, RATE) for start in starts], str(tmp_path))
    for start in starts:
        wanted, found = (
            read_bent(file, start, margin, 2 * margin + RATE // 2, RATE, 2, bend) for file in (path, ready(path))
        )
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("morph", ["none", "envelope"])
def test_a_remix_decodes_each_file_once(place: Path, monkeypatch: pytest.MonkeyPatch, morph: str) -> None:
    """And is the remix that is made of the files themselves, to the last bit."""
    made: list[Recipe] = []
    sounds: list[list[np.ndarray]] = []
    for room in (0, 4 << 30):
        monkeypatch.setattr(module, "MOST_BYTES", room)
        begun = opened(monkeypatch)
        made.append(remix(str(place / "index"), place / "seed.m4a", GRID, Sound(morph=morph)))
        counts = [len(begun)]
        with sounds_at_hand(made[-1]) as ready:
            sounds.append(list(mixed_blocks(ready)))
        counts.append(len(begun) - counts[0])
        assert (counts[1] <= 3) == (room > 0)  # the two, and the seed
        monkeypatch.undo()
    assert to_json(made[0]) == to_json(made[1])
    for first, second in zip(*sounds, strict=True):
        np.testing.assert_array_equal(first, second)
    assert made[0].at_hand(b"x") == b"x"


def test_only_what_gains_by_it_is_laid_at_hand(place: Path, tmp_path: Path) -> None:
    """Not what seeks exactly, what is played once, or what is no sound; and nothing stays behind."""
    aac = os.fsencode(place / "library" / "0.m4a")
    plain, broken = os.fsencode(tmp_path / "a.flac"), os.fsencode(tmp_path / "b.m4a")
    encode(tmp_path / "a.flac", texture(12, 1, RATE), RATE)
    (tmp_path / "b.m4a").write_bytes(b"\0" * 1000)
    folder = tmp_path / "copies"
    folder.mkdir()
    ready = AtHand(
        [
            *(span_of(path, start, 0.5, RATE, RATE) for path in (plain, broken) for start in (0, 10 * RATE)),
            span_of(aac, 15 * RATE, 0.5, RATE, RATE),
        ],
        str(folder),
    )
    assert [ready(path) for path in (plain, broken, aac, b"another")] == [plain, broken, aac, b"another"]
    assert not list(folder.iterdir())


def test_pieces_that_touch_are_one() -> None:
    assert united([(5, 9), (0, 3), (3, 4), (8, 12), (20, 21)]) == [(0, 4), (5, 12), (20, 21)]
