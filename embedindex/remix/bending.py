"""Pieces of files made longer or shorter, higher or lower, exact to the frame. Needs python-stretch, which is an extra.

The work is done by Signalsmith Stretch, a phase vocoder that keeps attacks together (MIT licence). Nothing random goes
into it for the changes that `LIMITS` allow: the same piece is the same to the last bit, in any thread.

Conventions: sounds are (n, channels) float32 at the output rate; `stretch` is the length heard over the length in the
file, and does not change the pitch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import EngineMissingError
from embedindex.remix.spans import read_span

CONTEXT_S = 0.25  # heard on both sides of a piece, so that it does not begin out of nothing: two of its blocks
LIMITS = (0.2, 3.0)  # how much longer or shorter (share), higher or lower (semitones) a remix may make a unit
WILDEST = (2.0, 12.0)  # and how much a recipe that was edited may
CHANCE = 1


@dataclass(frozen=True)
class Bend:
    """What becomes of a piece of a file.

    Attributes:
        stretch: length heard over length in the file.
        semitones: how much higher.
    """

    stretch: float = 1.0
    semitones: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether it stays as it is."""
        return self.stretch == 1.0 and self.semitones == 0.0


PLAIN = Bend()


def engine() -> str:
    """Return the name and version of what bends sounds.

    Raises:
        EngineMissingError: python-stretch is not installed.
    """
    from importlib.metadata import version

    try:
        import python_stretch  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise EngineMissingError(
            "--stretch and --pitch, and recipes made with them, need python-stretch: pip install 'embedindex[stretch]'"
        ) from error
    return f"python-stretch {version('python-stretch')}"


def engine_note(made_with: str | None) -> str | None:
    """Return what to say where sounds are bent by another version than they once were; None where they are not.

    Args:
        made_with: name and version of what they were bent with, None where nobody noted it.

    Raises:
        EngineMissingError: python-stretch is not installed.
    """
    here = engine()
    if made_with in {None, here}:
        return None
    return (
        f"made with {made_with}, and this is {here}: what is stretched or transposed may sound a little different; for "
        f"the same bytes install that version: pip install '{str(made_with).replace(' ', '==')}'"
    )


def read_bent(
    path: bytes, start: int, lead: int, frames: int, sample_rate: int, channels: int, bend: Bend
) -> Float32Array:
    """Return `frames` output frames of a file, the one numbered `lead` standing for its frame `start`.

    Raises:
        AudioError: the file cannot be decoded.
        EngineMissingError: python-stretch is not installed, and `bend` is not plain.
    """
    if bend.plain:
        return read_span(path, start, lead, frames, sample_rate, channels)[0]
    context = round(CONTEXT_S * sample_rate)
    before = math.ceil(lead / bend.stretch) + context
    after = math.ceil((frames - lead) / bend.stretch) + context
    sound, _ = read_span(path, start, before, before + after, sample_rate, channels)
    first = round(before * bend.stretch) - lead
    return bent(sound, sample_rate, bend)[first : first + frames]


def bent(samples: Float32Array, sample_rate: int, bend: Bend) -> Float32Array:
    """Return a sound (n, channels) bent, ``round(n * stretch)`` frames or a few more."""
    engine()
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch(CHANCE)
    stretch.preset(samples.shape[1], sample_rate)
    stretch.timeFactor = 1.0 / bend.stretch  # its name for the speed
    if bend.semitones:
        stretch.setTransposeSemitones(bend.semitones)
    made = np.asarray(stretch.process(np.ascontiguousarray(samples.T, np.float32)), np.float32).T
    lacking = round(len(samples) * bend.stretch) - len(made)
    return np.ascontiguousarray(np.pad(made, ((0, max(0, lacking)), (0, 0))), np.float32)
