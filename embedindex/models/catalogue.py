"""The models as a list for people: what each is, under which licence its weights are, and whether they are here.

Conventions: an entry's `request` is what ``--model`` takes. OpenL3 has an entry for each of its six weights files; the
default one is plain ``openl3``. Nothing here touches the network except `fetch_weights`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from embedindex.errors import UnknownModelError, WeightsError, WeightsMissingError
from embedindex.errors import display_path as shown
from embedindex.models import load_model, model_names, parse_request
from embedindex.models.aisfx_weights import find_aisfx, import_aisfx
from embedindex.models.base import ModelRequest
from embedindex.models.cache import WeightsFile, discard_file
from embedindex.models.download import Progress
from embedindex.models.fused import SECOND, SEPARATOR, parts_of
from embedindex.models.weights import RELEASES, find_openl3, import_weights

CC_BY = "CC BY 4.0"


@dataclass(frozen=True)
class Entry:
    """One model that can be asked for.

    Attributes:
        request: what ``--model`` takes.
        name: the registry's name of the model whose weights these are.
        dimension: length of a vector; None where it is not known without loading.
        sample_rate: Hz; None likewise.
        window_s: length of a window in seconds; None likewise.
        licence: of the weights; empty where there are none.
        here: True when it can be used without the network.
        state: that in words.
        weights: the weights file that is here.
        problem: why it is not here: never fetched, or found damaged and set aside.
        kind: OpenL3's (input_repr, content_type).
        fused: the descriptors of `spectral` are part of it.
    """

    request: str
    name: str
    dimension: int | None = None
    sample_rate: int | None = None
    window_s: float | None = None
    licence: str = ""
    here: bool = True
    state: str = "none needed"
    weights: WeightsFile | None = None
    problem: WeightsError | None = None
    kind: tuple[str, str] | None = None
    fused: bool = False


def catalogue() -> list[Entry]:
    """Return all models of this installation, the one that ``--model auto`` prefers first."""
    from embedindex.models.openl3 import Openl3Options

    default = Openl3Options()
    kinds = sorted(
        ((release.input_repr, release.content_type) for release in RELEASES),
        key=lambda kind: (kind != (default.input_repr, default.content_type), kind),
    )
    networks = [_openl3_entry(kind) for kind in kinds] + [_aisfx_entry()]
    entries = [networks[0], _fused(networks[0]), *networks[1:], _fused(networks[-1])]
    others = [name for name in model_names() if name not in ("openl3", "aisfx")]
    return entries + [_other_entry(name) for name in others]


def find_entry(text: str) -> Entry:
    """Return the entry for what ``--model`` takes.

    Raises:
        UnknownModelError: there is no such model.
        UsageError: it has no such option.
    """
    request = parse_request(text)
    pair = parts_of(request.name)
    if pair is not None:
        network = find_entry(text.replace(request.name, pair[0], 1))
        return replace(_fused(network), request=text)
    if request.name == "openl3":
        from embedindex.models.openl3 import parse_options

        options = parse_options(request.options)
        return replace(_openl3_entry((options.input_repr, options.content_type)), request=text)
    if request.name == "aisfx":
        return _aisfx_entry()
    if request.name not in model_names():
        raise UnknownModelError(f"there is no model {request.name!r}; 'embedindex models list' shows the models here")
    return replace(_other_entry(request.name), request=text)


def find_weights(entry: Entry, *, fetch: bool = False, progress: Progress | None = None) -> WeightsFile | None:
    """Return the weights of a model, None when it needs none.

    Raises:
        WeightsError: they are not to be had, or damaged.
    """
    if entry.kind is not None:
        return find_openl3(*entry.kind, fetch=fetch, progress=progress)
    if entry.name == "aisfx":
        return find_aisfx(fetch=fetch, progress=progress)
    return None


def fetch_weights(entry: Entry, progress: Progress | None = None) -> Entry:
    """Return the entry after fetching its weights.

    Raises:
        WeightsError: they could not be had; the message says what to do.
    """
    return _with_weights(entry, find_weights(entry, fetch=True, progress=progress))


def import_any(path: str, *, trust: bool = False) -> Entry:
    """Take in a weights file of any model that has some, and return that model's entry.

    Raises:
        WeightsError: the file cannot be read, is none, or not what was published.
    """
    if not os.path.isfile(path):
        raise WeightsMissingError(f"{shown(path)}: there is no such file")
    if zipfile.is_zipfile(path):
        return _with_weights(_aisfx_entry(), import_aisfx(path))
    placed = import_weights(path, trust=trust)
    kind = os.path.splitext(os.path.basename(placed.path))[0].split("_")[2:]
    try:
        from embedindex.models.openl3_weights import read_weights

        read_weights(placed.path, placed.sha256)
    except WeightsError:
        discard_file(placed)
        raise
    return _with_weights(_openl3_entry((kind[0], kind[1])), placed)


def prepare(
    entry: Entry, say: Callable[[str], None] | None = None, advance: Callable[[float], None] = lambda _: None
) -> None:
    """Convert a model's weights and choose its precision now, so that the first use need not wait for it.

    Args:
        entry: a model whose weights are here.
        say: told in words what is being done, and the decision.
        advance: told which share of it is done, from 0 to 1.

    Raises:
        WeightsError: the weights cannot be used.
    """
    if entry.weights is None:
        return
    if entry.name == "aisfx":
        from embedindex.models import aisfx

        decision = aisfx.prepare(entry.weights, progress=say, advance=advance)
    else:
        from embedindex.models import openl3

        options = openl3.parse_options(parse_request(entry.request).options)
        decision = openl3.prepare(entry.weights, options, progress=say, advance=advance).message
    if say is not None:
        say(decision)


def _openl3_entry(kind: tuple[str, str]) -> Entry:
    from embedindex.models.openl3 import Openl3Options
    from embedindex.models.openl3_frontend import SAMPLE_RATE, WINDOW_SAMPLES

    default = Openl3Options()
    given = {"input_repr": kind[0], "content_type": kind[1]}
    usual = {"input_repr": default.input_repr, "content_type": default.content_type}
    options = ",".join(f"{key}={value}" for key, value in given.items() if value != usual[key])
    request = f"openl3:{options}" if options else "openl3"
    window_s = WINDOW_SAMPLES / SAMPLE_RATE
    return _look(Entry(request, "openl3", default.embedding_size, SAMPLE_RATE, window_s, CC_BY, kind=kind))


def _aisfx_entry() -> Entry:
    from embedindex.models.aisfx import DIMENSION
    from embedindex.models.aisfx_frontend import SAMPLE_RATE, WINDOW_SAMPLES

    return _look(Entry("aisfx", "aisfx", DIMENSION, SAMPLE_RATE, WINDOW_SAMPLES / SAMPLE_RATE, CC_BY))


def _other_entry(name: str) -> Entry:
    """Return the entry of a model whose weights, if any, are its own affair."""
    if name != "spectral":
        return Entry(name, name, state="a plug-in's")
    identity = load_model(ModelRequest(name)).identity
    return Entry(name, name, identity.dimension, identity.sample_rate, identity.window_s)


def _fused(network: Entry) -> Entry:
    """Return the entry of a network and the built-in descriptors as one model."""
    from embedindex.models.spectral import DIMENSION

    dimension = None if network.dimension is None else network.dimension + DIMENSION
    return replace(network, request=f"{network.name}{SEPARATOR}{SECOND}", dimension=dimension, fused=True)


def _look(entry: Entry) -> Entry:
    """Return the entry with what is on this machine."""
    try:
        return _with_weights(entry, find_weights(entry))
    except WeightsMissingError as problem:
        return replace(entry, here=False, state="not fetched", problem=problem)
    except WeightsError as problem:
        return replace(entry, here=False, state=str(problem), problem=problem)


def _with_weights(entry: Entry, weights: WeightsFile | None) -> Entry:
    if weights is None:
        return entry
    return replace(entry, here=True, state=f"here, {shown(weights.source)}", weights=weights, problem=None)
