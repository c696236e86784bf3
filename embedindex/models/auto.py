"""``--model auto``: OpenL3 where its weights are or can be had, else aisfx likewise, else the built-in spectral model.

A network comes with the descriptors (`embedindex.models.fused`): what noise, encoders and low sample rates leave of a
sound is told by them (docs/decisions/fused.md).

Conventions: what was tried in vain is remembered for ten minutes (``NAME.unreachable`` in the models folder, a text
with the reason), so that a machine without a network does not wait at every command. Nobody waits longer than a few
seconds to learn that a server does not answer.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from embedindex.errors import WeightsError, WeightsMissingError
from embedindex.models.base import ModelRequest
from embedindex.models.cache import WeightsFile, models_folder, offline
from embedindex.models.download import QUICK, Patience, Progress
from embedindex.models.weights import RELEASES, Release, find_openl3

REMEMBERED_S = 600.0
# pip starts in a second, asks its index and every extra one, and only then sends bytes.
PIP_QUICK = Patience(open_s=15.0, read_s=20.0)

Find = Callable[[bool], WeightsFile]


def choose_model(
    *, fetch: bool = True, progress: Progress | None = None, releases: tuple[Release, ...] = RELEASES
) -> tuple[ModelRequest, str]:
    """Return the best model that can be had, and one line that says which and why.

    Args:
        fetch: whether weights may be fetched.
        progress: told how far a download is.
        releases: OpenL3's published files.
    """
    from embedindex.models.aisfx_weights import find_aisfx

    def openl3(may_fetch: bool) -> WeightsFile:
        return find_openl3("mel256", "music", fetch=may_fetch, progress=progress, patience=QUICK, releases=releases)

    def aisfx(may_fetch: bool) -> WeightsFile:
        return find_aisfx(fetch=may_fetch, progress=progress, patience=PIP_QUICK)

    reasons: list[str] = []
    for model, name, find in (("openl3+spectral", "openl3", openl3), ("aisfx+spectral", "aisfx", aisfx)):
        reason = _try(name, find, fetch)
        if reason is None:
            return ModelRequest(model), _sentence(f"the model is {model}", reasons)
        reasons.append(f"{name}: {reason}")
    return ModelRequest("spectral"), _sentence("the model is the built-in spectral one", reasons)


def forget_failures() -> None:
    """Forget what could not be fetched lately: somebody asks for it by name now."""
    for name in ("openl3", "aisfx"):
        with contextlib.suppress(OSError):  # mostly there is nothing to forget
            os.remove(_memory(name))


def _try(name: str, find: Find, fetch: bool) -> str | None:
    """Return None when the weights of `name` are here now, else the reason in a few words."""
    with contextlib.suppress(WeightsError):  # not here, or found damaged and set aside
        find(False)
        return None
    if offline():
        return "$EMBEDINDEX_OFFLINE is set"
    if not fetch:
        return "not on this machine"
    remembered = _recall(name)
    if remembered is not None:
        return remembered
    try:
        find(True)
    except WeightsError as problem:
        reason = _short(problem)
        if isinstance(problem, WeightsMissingError):
            _remember(name, reason)
        return reason
    return None


def _sentence(chosen: str, reasons: list[str]) -> str:
    """Return one line; with reasons it says how to get a better model."""
    if not reasons:
        return chosen
    return f"{chosen} ({'; '.join(reasons)}); 'embedindex models list' says more"


def _short(problem: WeightsError) -> str:
    """Return the reason alone: neither the address before it nor the advice after it, which fill lines."""
    sentence = str(problem).split(". ", 1)[0].splitlines()[0]
    _, fetched, reason = sentence.partition("could not be fetched: ")
    return f"not fetched, {reason}" if fetched else sentence


def _memory(name: str) -> str:
    return os.path.join(models_folder(), f"{name}.unreachable")


def _recall(name: str) -> str | None:
    """Return why `name` could not be fetched less than ten minutes ago, or None."""
    path = _memory(name)
    try:
        age_s = time.time() - os.path.getmtime(path)
        if 0 <= age_s < REMEMBERED_S:
            with open(path, encoding="utf-8") as file:
                return file.read(500)
    except (OSError, UnicodeDecodeError):
        return None
    return None


def _remember(name: str, reason: str) -> None:
    with contextlib.suppress(OSError):  # a folder that cannot be written costs a few seconds the next time, no more
        os.makedirs(models_folder(), exist_ok=True)
        with open(_memory(name), "w", encoding="utf-8") as file:
            file.write(reason)
