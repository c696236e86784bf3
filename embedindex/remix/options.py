"""What a musician asks of a remix. Conventions: values that may change are `Breakpoints` over the seed's time."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedindex.errors import UsageError
from embedindex.remix.breakpoints import Breakpoints
from embedindex.remix.units import Cutting

WEIGHTS = {
    "timbre": 1.0,
    "embedding": 0.6,
    "shape": 0.6,
    "attack": 0.6,
    "duration": 0.8,
    "loudness": 0.25,
    "pitch": 0.3,
    "brightness": 0.3,
    "noisiness": 0.2,
}


def always(value: float) -> Breakpoints:
    """Return a value that does not change."""
    return Breakpoints((0.0,), (value,))


AUTOMATIC = Cutting()
MATCH, HALF, NONE = always(0.9), always(0.5), always(0.0)


@dataclass(frozen=True)
class RemixOptions:
    """How to choose.

    Attributes:
        cutting: how the seed is cut.
        match: 0 to 1, how near to the seed's unit a choice has to be; at 0 anything that is nearer than most will do.
        continuity: 0 to 1, how much smooth joins, and going on in the same file, count.
        novelty: 0 to 1, how much it counts against a piece, or its file, that it was played before.
        temperature: chance in choosing; 0 for none.
        no_repeat: for so many units no piece of sound comes again.
        max_per_file: largest share of units from one file, 0 to 1.
        max_per_folder: largest share of units from one folder.
        weights: how much each quality counts, by the names of `WEIGHTS`.
        include: globs and ``KEY=VALUE`` labels of which a file must have one; empty for all.
        exclude: globs and labels of which it may have none.
        allow_self: whether the seed itself may be used.
        far: choose what is least alike among what the index proposes.
        chance: seed of everything random.
    """

    cutting: Cutting = AUTOMATIC
    match: Breakpoints = MATCH
    continuity: Breakpoints = HALF
    novelty: Breakpoints = HALF
    temperature: Breakpoints = NONE
    no_repeat: int = 20
    max_per_file: float = 0.25
    max_per_folder: float = 1.0
    weights: tuple[tuple[str, float], ...] = field(default=())
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_self: bool = False
    far: bool = False
    chance: int = 0

    def weight(self, name: str) -> float:
        """Return how much a quality counts."""
        return dict(self.weights).get(name, WEIGHTS[name])


def parse_weights(text: str) -> tuple[tuple[str, float], ...]:
    """Return the weights of ``timbre=1,loudness=.5,…``; those not named stay as they are.

    Raises:
        UsageError: a name is unknown or a weight is not a number from 0 to 10.
    """
    pairs = []
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in WEIGHTS or not 0 <= value <= 10:
            known = ", ".join(WEIGHTS)
            raise UsageError(f"--weights {text}: {part!r} is not NAME=0…10; the names are {known}")
        pairs.append((name, value))
    return tuple(pairs)


PRESETS = {
    "ambient": RemixOptions(Cutting("novelty"), match=always(0.7), continuity=always(0.9), temperature=always(0.3)),
    "collage": RemixOptions(match=always(0.6), continuity=always(0.1), novelty=always(1.0), temperature=always(0.6)),
    "rhythmic": RemixOptions(Cutting("onset"), match=always(1.0), continuity=always(0.2), max_per_file=0.5),
    "destroy": RemixOptions(
        Cutting("grid", 0.125),
        match=always(0.2),
        continuity=always(0.0),
        novelty=always(1.0),
        temperature=always(1.5),
        far=True,
    ),
}


def preset(name: str | None) -> RemixOptions:
    """Return the options of a preset, the defaults for None.

    Raises:
        UsageError: there is none of that name.
    """
    if name is None:
        return RemixOptions()
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
