"""Whether what was read from JSON has the kinds that a dataclass says: people edit recipes by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def require_kinds(items: Iterable[DataclassInstance]) -> None:
    """Make sure that the numbers, texts and truth values of dataclasses are such, and numbers finite.

    Raises:
        ValueError: one is not.
    """
    for item in items:
        for field in fields(item):
            kind, *others = str(field.type).split(" | ")
            value = getattr(item, field.name)
            if kind not in KINDS or (value is None and "None" in others):
                continue
            if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
                raise ValueError(f"{field.name} is {value!r}, no {kind}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} is {value}")
