"""Search huge sound collections by sound, tag them, and play them as one instrument."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library says nothing unless asked to
