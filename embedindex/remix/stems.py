"""Stems: a remix taken apart, one full-length file a source or layer, which add up to the mix.

Conventions: stems are 32-bit float WAV files of the output's rate, channels and length, before the master: without its
gain and its limiter. Their sum is the mix to float precision; the finished file is ``limiter((sum - offset) * gain)``
with the `master` entry of ``stems.json`` beside them. Memory does not grow with the length or the number of sources.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import UsageError, display_path
from embedindex.remix.breakpoints import parse_breakpoints
from embedindex.remix.master import RF64_FROM_BYTES, Written
from embedindex.remix.recipe import Output, Recipe
from embedindex.remix.render import (
    BLOCK_FRAMES,
    Tail,
    layer_blocks,
    layer_parts,
    rebatched,
    seed_blocks,
    wet_share,
)
from embedindex.sound_writing import sound_to
from embedindex.whole_files import unwritable

By = Literal["source", "layer"]
Piece = tuple[str, int, Float32Array]  # which stem, first frame, what it adds from there on
SEED = "seed"


@dataclass(frozen=True)
class Stem:
    """One file: its name in the folder, what it holds (None: a layer, or the seed), and how loud it gets."""

    file: str
    source: bytes | None
    peak: float


def write_stems(folder: str, recipe: Recipe, written: Written, by: By = "source") -> list[Stem]:
    """Write the stems of a remix and ``stems.json`` into a folder, which is made.

    Args:
        folder: where to.
        recipe: the remix.
        written: what its master measured.
        by: a stem for each source, or for each layer; and one for the seed where it is heard itself.

    Raises:
        UsageError: they cannot be written there.
        AudioError: a source cannot be read any more.
        DiskFullError: no space is left.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".stems-") as temporary:
            sums = _Sums(temporary, recipe.output)
            for key, start, sound in pieces(recipe, by):
                sums.add(key, start, sound)
            made = []
            for number, (key, source) in enumerate(_stems_of(recipe, by), 1):
                name = _file_name(number, key, source)
                peak = sums.write(key, os.path.join(temporary, name))
                made.append(Stem(name, source, peak))
            for stem in made:
                os.replace(os.path.join(temporary, stem.file), os.path.join(folder, stem.file))
        with open(os.path.join(folder, "stems.json"), "w", encoding="ascii") as file:
            file.write(_account(recipe, written, made, by))
    except OSError as error:
        raise unwritable(folder, error, "choose another folder, or try --stems-by layer") from error
    return made


def check_stems(folder: str, recipe: Recipe, by: By) -> None:
    """Make sure that no stem takes the place of a file that is none: those of before are named in ``stems.json``.

    Raises:
        UsageError: one would.
    """
    try:
        with open(os.path.join(folder, "stems.json"), encoding="utf-8") as file:
            before = {stem["file"] for stem in json.load(file)["stems"]}
    except (OSError, ValueError, KeyError, TypeError):
        before = set()
    names = [_file_name(number, key, source) for number, (key, source) in enumerate(_stems_of(recipe, by), 1)]
    for name in names:
        path = os.path.join(folder, name)
        if name not in before and os.path.lexists(path):
            raise UsageError(f"{display_path(path)}: is there already, and no stem; choose another folder for --stems")


def pieces(recipe: Recipe, by: By) -> Iterator[Piece]:
    """Yield what each stem is made of; pieces of one stem may overlap, and then add up.

    Raises:
        AudioError: a source cannot be read.
    """
    rate = recipe.output.sample_rate
    wet = parse_breakpoints("dry_wet", recipe.output.dry_wet, 0.0, 1.0)
    share = np.float32(recipe.layer_gain)
    for layer in range(recipe.layers):
        for key, start, sound in _of_layer(recipe, layer) if by == "layer" else _of_sources(recipe, layer):
            heard = sound[: recipe.output.frames - start]
            yield key, start, heard * share * wet_share(wet, start, len(heard), rate)
    if recipe.output.all_wet:
        return
    position = 0
    for block in rebatched(seed_blocks(recipe), BLOCK_FRAMES):
        heard = block[: recipe.output.frames - position]
        if not len(heard):
            return
        yield SEED, position, heard * (np.float32(1.0) - wet_share(wet, position, len(heard), rate))
        position += len(heard)


def _of_layer(recipe: Recipe, layer: int) -> Iterator[Piece]:
    position = 0
    for block in layer_blocks(recipe, layer):
        yield recipe.layer_name(layer), position, block
        position += len(block)


def _of_sources(recipe: Recipe, layer: int) -> Iterator[Piece]:
    tails: list[Tail] = []
    position = 0
    for parts in layer_parts(recipe, layer, tails):
        for source, sound in parts:
            if source is not None:
                yield str(source), position, np.asarray(sound, np.float32)
        position += len(parts[0][1])
        while tails:
            start, sound, source = tails.pop()
            if start < recipe.output.frames:
                yield str(source), start, sound


def _stems_of(recipe: Recipe, by: By) -> list[tuple[str, bytes | None]]:
    """Return (key, source) of the stems, sources by the time when they are first heard."""
    seed: list[tuple[str, bytes | None]] = [] if recipe.output.all_wet else [(SEED, recipe.seed.path)]
    if by == "layer":
        return [(recipe.layer_name(layer), None) for layer in range(recipe.layers)] + seed
    heard = sorted((event.start, event.layer, event.source) for event in recipe.events if event.source is not None)
    order = dict.fromkeys(source for _, _, source in heard)
    return [(str(source), recipe.sources[source].path) for source in order] + seed


def _file_name(number: int, key: str, source: bytes | None) -> str:
    """Return a name that any system takes: numbered, with the source's name."""
    if source is None or key == SEED:
        return f"{key}.wav"
    stem = os.path.splitext(os.path.basename(os.fsdecode(source)))[0]
    clean = "".join(char if char.isalnum() or char in " -_.()" else "_" for char in display_path(stem))
    return f"{number:03d} {clean[:80].strip() or 'source'}.wav"


class _Sums:
    """Sounds that grow by pieces in any order: a raw file each, holes where nothing sounds."""

    def __init__(self, folder: str, output: Output) -> None:
        self._folder = folder
        self._output = output
        self._frame_bytes = 4 * output.channels

    def _raw(self, key: str) -> str:
        return os.path.join(self._folder, f"{key}.raw")

    def add(self, key: str, start: int, sound: Float32Array) -> None:
        """Add a sound (n, channels) to one of them, from frame `start` on."""
        path = self._raw(key)
        with open(path, "r+b" if os.path.exists(path) else "w+b") as file:
            file.seek(start * self._frame_bytes)
            there = np.frombuffer(file.read(len(sound) * self._frame_bytes), np.float32).reshape(-1, sound.shape[1])
            total = np.array(sound, np.float32)
            total[: len(there)] += there
            file.seek(start * self._frame_bytes)
            file.write(total.tobytes())

    def write(self, key: str, path: str) -> float:
        """Write one of them as WAV, the raw file goes; return the largest magnitude."""
        output, raw = self._output, self._raw(key)
        size = output.frames * self._frame_bytes
        kind = "RF64" if size > RF64_FROM_BYTES else "WAV"
        peak = 0.0
        with (
            open(raw, "r+b" if os.path.exists(raw) else "w+b") as file,
            sound_to(path, output.sample_rate, output.channels, kind, "FLOAT") as sound,
        ):
            file.truncate(size)
            file.seek(0)
            while data := file.read(BLOCK_FRAMES * self._frame_bytes):
                block = np.frombuffer(data, np.float32).reshape(-1, output.channels)
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
                sound.write(block)
        os.unlink(raw)
        return peak


def _account(recipe: Recipe, written: Written, stems: list[Stem], by: By) -> str:
    """Return ``stems.json``: what the stems are, and what the master did to their sum."""
    listed: list[dict[str, Any]] = [
        {
            "file": stem.file,
            "source": None if stem.source is None else os.fsdecode(stem.source),
            "peak_db": None if stem.peak <= 0 else round(20.0 * float(np.log10(stem.peak)), 3),
        }
        for stem in stems
    ]
    data = {
        "by": by,
        "sample_rate": recipe.output.sample_rate,
        "channels": recipe.output.channels,
        "frames": recipe.output.frames,
        "master": {
            "offset": list(written.offset),
            "gain_db": written.gain_db,
            "limited_db": written.limited_db,
            "true_peak_db": written.true_peak_db,
            "lufs": written.lufs,
        },
        "stems": listed,
    }
    return json.dumps(data, indent=1) + "\n"
