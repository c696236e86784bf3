"""The index from Python: open it, ask what is similar, read its files and vectors. Offered as ``embedindex.Index``.

Conventions: as everywhere: paths are bytes in records, times are seconds, vectors are float16 as the model made them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType

from embedindex.arrays import Float16Array
from embedindex.errors import PathNotFoundError, display_path
from embedindex.filters import Filters
from embedindex.index import IndexView, load_view
from embedindex.locations import index_folder
from embedindex.query import Part, QueryMaker
from embedindex.records import FileRecord
from embedindex.search import UNLIKE_WEIGHT, By, Hit, search
from embedindex.store import Store

Sound = str | bytes | os.PathLike[str]


class Index:
    """An index, open for reading. Use as a context manager, or call `close`. Sees what scans add when opened anew."""

    def __init__(self, store: Store, view: IndexView) -> None:
        self._store = store
        self._view = view
        self._maker = QueryMaker(store, view.model)

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None = None) -> Index:
        """Return the index in a folder; None for ``$EMBEDINDEX_INDEX``, else the user's data folder.

        Raises:
            StoreError: there is no index, nothing in it, or it cannot be read.
        """
        store = Store(index_folder(folder))
        try:
            return cls(store, load_view(store))
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def similar(
        self,
        *sounds: Sound,
        part: tuple[float, float | None] | None = None,
        unlike: Sequence[Sound] = (),
        unlike_weight: float = UNLIKE_WEIGHT,
        k: int = 10,
        by: By = "file",
        filters: Filters | None = None,
        include_self: bool = False,
    ) -> list[Hit]:
        """Return the `k` files (or places in files) that are most like some sounds; see `embedindex.search.search`.

        Args:
            sounds: files or folders, in the index or not.
            part: (start, end) in seconds of each file that is meant; None for all of it.
            unlike: sounds to stay away from.
            unlike_weight: by how much.
            k: how many results.
            by: ``"file"`` or ``"window"``.
            filters: which files may be found.
            include_self: let the sounds themselves be found.

        Raises:
            EmbedindexError: the question makes no sense, or a sound cannot be used.
        """
        meant = Part() if part is None else Part(*part)
        return search(
            self._store,
            self._view,
            [self._maker.from_path(os.fspath(sound), meant) for sound in sounds],
            k=k,
            by=by,
            filters=filters,
            include_self=include_self,
            unlike=[self._maker.from_path(os.fspath(sound)) for sound in unlike],
            unlike_weight=unlike_weight,
        )

    def files(self, filters: Filters | None = None) -> Iterator[FileRecord]:
        """Yield the files that can be searched, by path."""
        where, values = (filters or Filters()).sql()
        return self._store.files(f"status = 'ok' AND {where}", values)

    def vectors(self, file: FileRecord | Sound) -> Float16Array:
        """Return the vectors of a file of the index, (n_windows, dimension) float16; rows of zeros are silence.

        Raises:
            PathNotFoundError: the index has no such file.
        """
        if isinstance(file, FileRecord):
            return self._store.vectors_of(file)
        path = os.path.abspath(os.fsencode(file))
        record = self._store.file_by_path(path)
        if record is None or record.status != "ok":
            raise PathNotFoundError(f"{display_path(path)}: is not in the index; add it with `embedindex scan`")
        return self._store.vectors_of(record)
