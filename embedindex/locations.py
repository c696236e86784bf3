"""Where things live on this machine: the index, and nothing else yet. Environment variables win over the platform."""

from __future__ import annotations

import os

INDEX_VARIABLE = "EMBEDINDEX_INDEX"


def index_folder(given: str | os.PathLike[str] | None = None) -> str:
    """Return the folder of the index: `given`, else ``$EMBEDINDEX_INDEX``, else the platform's user-data folder."""
    if given is not None:
        return os.path.abspath(os.fspath(given))
    from_environment = os.environ.get(INDEX_VARIABLE)
    if from_environment:
        return os.path.abspath(os.path.expanduser(from_environment))
    from platformdirs import user_data_dir

    return user_data_dir("embedindex", appauthor=False)
