"""The registry of models. Plug-ins add theirs through the entry-point group ``embedindex.models``.

An entry point names a function ``load(request: ModelRequest) -> Model``; its name is the model's name.
``NAME+spectral`` is that model and the built-in one as one (`embedindex.models.fused`); options, weights and engine are
the first's.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points

from embedindex.errors import UnknownModelError, UsageError
from embedindex.models.base import Model, ModelIdentity, ModelRequest, same_space

__all__ = ["Model", "ModelIdentity", "ModelRequest", "load_model", "model_names", "parse_request", "same_space"]

GROUP = "embedindex.models"


def model_names() -> list[str]:
    """Return the names of all registered models, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def parse_request(text: str) -> ModelRequest:
    """Return the request for ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``.

    Raises:
        UsageError: when the part after the colon is not a list of KEY=VALUE.
    """
    name, _, rest = text.partition(":")
    pairs = []
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--model {text}: {item!r} is not KEY=VALUE; write for example openl3:content_type=env")
        pairs.append((key.strip(), value.strip()))
    return ModelRequest(name=name, options=tuple(sorted(pairs)))


def load_model(request: ModelRequest) -> Model:
    """Return the model that `request` names, ready to embed.

    Raises:
        UnknownModelError: no registered model has that name.
        ModelError: the model could not be loaded; its subclasses say why.
    """
    from embedindex.models.fused import fuse, parts_of

    pair = parts_of(request.name)
    if pair is not None:
        return fuse(load_model(replace(request, name=pair[0])), load_model(ModelRequest(pair[1])))
    for point in entry_points(group=GROUP):
        if point.name == request.name:
            model: Model = point.load()(request)
            return model
    raise UnknownModelError(
        f"there is no model {request.name!r}; the models here are: {', '.join(model_names())} (and auto)"
    )
