"""Damaged sound files: a small sound in every container that `tests.sounds.encode` writes, mutated."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests import sounds, zips

LIBSNDFILE_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au", ".caf", ".w64", ".rf64", ".voc")
SUFFIXES = (*LIBSNDFILE_SUFFIXES, *sounds.FFMPEG_ENCODERS)
# Numbers at which counting goes wrong, as 1, 2, 4 or 8 bytes of either byte order.
EXTREMES = (0, 1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
HEADER_BYTES = 256
RATE = 48000  # all of them take it


def originals(folder: Path) -> dict[str, bytes]:
    """Return the bytes of one whole sound for each suffix: 0.3 s, stereo noise under a tone."""
    whole: dict[str, bytes] = {}
    for suffix in SUFFIXES:
        tone = sounds.chirp(200, 2000, 0.3, RATE) * 0.5
        samples = np.stack([tone + sounds.noise(0.3, RATE, 1, 0.2), tone], axis=1).astype(np.float32)
        path = folder / f"original{suffix}"
        sounds.encode(path, samples, RATE)
        whole[suffix] = path.read_bytes()
        path.unlink()
    return whole


def _flip_bits(data: bytearray, chance: random.Random) -> None:
    reach = len(data) if chance.random() < 0.5 else min(len(data), HEADER_BYTES)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(reach)] ^= 1 << chance.randrange(8)


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(min(HEADER_BYTES, len(data)) if chance.random() < 0.3 else len(data)) :]


def _edit_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 1, 3))):
        width = chance.choice((1, 2, 4, 8))
        number = chance.choice(EXTREMES) % 2 ** (8 * width)
        place = chance.randrange(max(1, min(HEADER_BYTES, len(data)) - width))
        data[place : place + width] = number.to_bytes(width, chance.choice(("little", "big")))


def _piece(data: bytearray, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data))
    return start, min(len(data), start + chance.choice((1, 4, 16, 100, 1000)))


def _swap_chunks(data: bytearray, chance: random.Random) -> None:
    """Exchange two neighbouring stretches of any length."""
    low, middle, high = sorted(chance.randrange(len(data) + 1) for _ in range(3))
    data[low:high] = data[middle:high] + data[low:middle]


def _repeat_chunk(data: bytearray, chance: random.Random) -> None:
    start, end = _piece(data, chance)
    place = chance.randrange(len(data))
    data[place:place] = data[start:end] * chance.choice((1, 10))


def _remove_chunk(data: bytearray, chance: random.Random) -> None:
    start, end = _piece(data, chance)
    del data[start:end]


def _overwrite(data: bytearray, chance: random.Random) -> None:
    start, end = _piece(data, chance)
    data[start:end] = chance.choice((bytes(end - start), b"\xff" * (end - start), chance.randbytes(end - start)))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits, _flip_bits, _truncate, _edit_header, _edit_header,
    _swap_chunks, _repeat_chunk, _remove_chunk, _overwrite,
)  # fmt: skip


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return a damaged copy of a file's bytes; one in eight is damaged twice."""
    mutant = bytearray(data)
    for _ in range(2 if chance.random() < 1 / 8 else 1):
        if mutant:
            chance.choice(MUTATIONS)(mutant, chance)
    return bytes(mutant)


def write_archives(folder: Path, count: int, seed: int) -> None:
    """Write `count` damaged ZIP archives of whole sounds, half of them stored and half deflated."""
    files = {f"disc/{suffix[1:]}{suffix}": data for suffix, data in originals(folder).items()}
    whole = [zips.write_zip(folder / "whole", files, method).read_bytes() for method in (zips.STORED, zips.DEFLATED)]
    (folder / "whole").unlink()
    chance = random.Random(seed)
    for number in range(count):
        data = whole[number % 2]
        if number % 4 < 2:  # damage to the table of contents, which ends the archive
            start = data.index(b"PK\x01\x02")
            data = data[:start] + mutate(data[start:], chance)
        else:
            data = mutate(data, chance)
        (folder / f"{number:05d}.zip").write_bytes(data)


def write_mutants(folder: Path, count: int, seed: int) -> None:
    """Write `count` damaged files, equally many of each container, 100 to a folder."""
    whole = originals(folder)
    chance = random.Random(seed)
    for number in range(count):
        suffix = SUFFIXES[number % len(SUFFIXES)]
        path = folder / f"{number // 100:03d}" / f"{number:05d}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(mutate(whole[suffix], chance))
