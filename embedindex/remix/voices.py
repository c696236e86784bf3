"""What sounds in a remix, one after the other: a piece of a file, bent or merged with the seed's unit, or silence.

Conventions: blocks are (n, channels) float32 at the output rate.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.remix.align import MARGIN_S
from embedindex.remix.bending import read_bent
from embedindex.remix.morph import morph
from embedindex.remix.recipe import Event, Output, Recipe, Source
from embedindex.remix.spans import read_span


class Voice(Protocol):
    """Something that sounds for a while."""

    def read(self, frames: int) -> Float32Array:
        """Return the next `frames` frames."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Silence:
    """Nothing, for as long as it takes."""

    def __init__(self, channels: int) -> None:
        self._channels = channels

    def read(self, frames: int) -> Float32Array:
        """See `Voice.read`."""
        return np.zeros((frames, self._channels), np.float32)

    def close(self) -> None:
        """See `Voice.close`."""


class Memory:
    """A short piece of a file, in memory.

    Args:
        sound: (n, channels) float32; beyond its end there is silence.
    """

    def __init__(self, sound: Float32Array) -> None:
        self._sound = sound

    def read(self, frames: int) -> Float32Array:
        """See `Voice.read`."""
        taken, self._sound = self._sound[:frames], self._sound[frames:]
        return np.pad(taken, ((0, frames - len(taken)), (0, 0))) if len(taken) < frames else taken

    def close(self) -> None:
        """See `Voice.close`."""


class Morphed(Memory):
    """An event merged with the seed's unit: computed as a whole, because spectra have no beginning.

    Args:
        recipe: what it belongs to.
        event: the event.
        lead: frames to read before its start, at most `MARGIN_S`.
    """

    def __init__(self, recipe: Recipe, event: Event, lead: int) -> None:
        margin = round(MARGIN_S * recipe.output.sample_rate)
        sound = morphed_unit(recipe.seed_of(event.layer), recipe.sound_of(event.source or 0), event, recipe.output)
        super().__init__(sound[margin - lead :])

    def ringing(self, behind: int) -> Float32Array:
        """Return what sounds from `behind` frames after the next one to be read."""
        return self._sound[behind:]


def morphed_unit(seed: Source, path: bytes, event: Event, output: Output) -> Float32Array:
    """Return an event's file merged with the seed's unit, from `MARGIN_S` before its start on.

    Raises:
        AudioError: one of the two cannot be read.
    """
    rate, margin = output.sample_rate, round(MARGIN_S * output.sample_rate)
    frames = margin + event.frames + margin
    own_start = event.start if event.seed_start is None else event.seed_start
    begin = round(own_start * seed.sample_rate / rate)
    own, _ = read_span(seed.path, begin, margin, frames, rate, output.channels)
    other = read_bent(path, event.source_start, margin, frames, rate, output.channels, event.bend)
    return morph(own, other, event.morph, event.amount, rate, chance=event.start)
