"""Search huge sound collections by sound, tag them, and play them as one instrument."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedindex.api import Index
    from embedindex.filters import Filters
    from embedindex.records import FileRecord
    from embedindex.search import Hit

__version__ = "0.1.0"
__all__ = ["FileRecord", "Filters", "Hit", "Index", "__version__"]
_HOMES = {"FileRecord": "records", "Filters": "filters", "Hit": "search", "Index": "api"}

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library says nothing unless asked to


def __getattr__(name: str) -> object:
    """Load what the library offers when it is first used: importing the package stays light."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"embedindex.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'embedindex' has no attribute {name!r}")
