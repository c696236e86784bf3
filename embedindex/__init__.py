"""Search huge sound collections by sound, tag them, and play them as one instrument."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedindex.api import Index
    from embedindex.filters import Filters

__version__ = "0.1.0"
__all__ = ["Filters", "Index", "__version__"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library says nothing unless asked to


def __getattr__(name: str) -> object:
    """Load what the library offers when it is first used: importing the package stays light."""
    if name == "Index":
        from embedindex.api import Index

        return Index
    if name == "Filters":
        from embedindex.filters import Filters

        return Filters
    raise AttributeError(f"module 'embedindex' has no attribute {name!r}")
