"""What the words of a remix's command line stand for: options as values, wrong ones told clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedindex.remix.options import RemixOptions
    from embedindex.remix.placing import Bending

MOST_LAYERS = 8


def parse_layers(text: str) -> tuple[int, str]:
    """Return (how many layers, what parts the seed is taken apart into) of ``1`` to ``8`` or ``hp``.

    Raises:
        UsageError: it is none of these.
    """
    from embedindex.errors import UsageError
    from embedindex.remix.recipe import SPLITS

    if text and text in SPLITS:
        return 1, text
    if not text.isdecimal() or not 1 <= int(text) <= MOST_LAYERS:
        raise UsageError(
            f"--layers {text}: write 1 to {MOST_LAYERS}, or hp for the harmonic and the percussive part, each remixed"
        )
    return int(text), ""


def parse_bending(stretch: str, pitch: str) -> Bending:
    """Return how far sounds may be stretched and transposed.

    Raises:
        UsageError: one of the two is no number or breakpoints, or goes too far.
        EngineMissingError: one is asked for, and what does it is not installed.
    """
    from embedindex.remix.bending import LIMITS, engine
    from embedindex.remix.breakpoints import parse_breakpoints
    from embedindex.remix.placing import Bending

    bending = Bending(
        parse_breakpoints("--stretch", stretch, 0.0, LIMITS[0]), parse_breakpoints("--pitch", pitch, 0.0, LIMITS[1])
    )
    if not bending.none:
        engine()
    return bending


def parse_lufs(text: str) -> str | float:
    """Return ``seed``, or a loudness in LUFS.

    Raises:
        UsageError: it is neither.
    """
    from embedindex.errors import UsageError

    if text == "seed":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 1.0
    if not -70 <= value <= 0:
        raise UsageError(f"--lufs {text}: write seed, or a loudness from -70 to 0, for example -16")
    return value


def one_of(name: str, text: str, choices: tuple[str, ...]) -> str:
    """Return `text`, one of the choices of option `name`.

    Raises:
        UsageError: it is none of them.
    """
    from embedindex.errors import UsageError

    if text not in choices:
        raise UsageError(f"{name} {text}: choose one of {', '.join(choices)}")
    return text


def parse_share(name: str, text: str) -> float:
    """Return the share, above 0 and up to 1, of ``25%`` or ``0.25``.

    Raises:
        UsageError: it is none.
    """
    from embedindex.errors import UsageError

    try:
        value = float(text.rstrip("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise UsageError(f"{name} {text}: write a share, for example 25% or 0.25")
    return value


def remix_options(given: dict[str, Any]) -> RemixOptions:
    """Return the options that a command line asks for: its preset's, else the defaults, changed by what was given."""
    from dataclasses import replace

    from embedindex.remix.breakpoints import parse_breakpoints
    from embedindex.remix.options import parse_weights, preset
    from embedindex.remix.units import parse_units

    options = preset(given["preset"])
    changed: dict[str, Any] = {}
    for name, highest in (("match", 1.0), ("continuity", 1.0), ("novelty", 1.0), ("temperature", 2.0)):
        if given[name] is not None:
            changed[name] = parse_breakpoints(f"--{name}", given[name], 0.0, highest)
    if given["units"] is not None:
        changed["cutting"] = parse_units(given["units"])
    if given["no_repeat"] is not None:
        changed["no_repeat"] = given["no_repeat"]
    for name in ("max_per_file", "max_per_folder"):
        if given[name] is not None:
            changed[name] = parse_share("--" + name.replace("_", "-"), given[name])
    return replace(
        options,
        **changed,
        weights=parse_weights(given["weights"]),
        include=tuple(given["include"] or ()),
        exclude=tuple(given["exclude"] or ()),
        allow_self=given["allow_self"],
        far=given["far"] or options.far,
        chance=given["rng"],
    )
