"""The folders and files that a scan is asked to look at: whether they can be meant."""

from __future__ import annotations

from embedindex.changes import is_gone
from embedindex.errors import IndexNotFoundError, PathNotFoundError, RemoteError, display_path
from embedindex.file_stat import file_stat
from embedindex.remote_paths import is_remote
from embedindex.store import Store


def refuse_unknown(folder: str, paths: list[bytes]) -> None:
    """Refuse roots that are not there, unless the index holds files of them: then their disk may be away.

    Raises:
        PathNotFoundError: there is such a root.
        RemoteError: there is such a root on a server that cannot be used.
    """
    absent = [path for path in paths if is_remote(path) or is_gone(path)]
    if not absent:
        return
    try:
        with Store(folder) as store:
            unknown = [path for path in absent if next(store.paths_below(path), None) is None]
    except IndexNotFoundError:
        unknown = absent
    for path in unknown:
        try:
            if is_remote(path):
                file_stat(path)
                continue
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RemoteError(f"{display_path(path)}: {error.strerror or error}; see docs/remote.md") from error
        raise PathNotFoundError(f"{display_path(path)}: there is no such file or folder; check the path")
