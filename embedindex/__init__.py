"""Search huge sound collections by sound, tag them, and play them as one instrument."""

__version__ = "0.1.0"
