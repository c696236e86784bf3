"""Checks that an index holds together: the database by itself, and the FAISS file against the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedindex.arrays import Int64Array
from embedindex.database import REPAIR
from embedindex.errors import IndexDamagedError, display_path
from embedindex.index import is_view_of
from embedindex.index_file import NOTHING_LOST, Trailer, read_index_file
from embedindex.index_lists import ivf_of, turned
from embedindex.index_plan import RABITQ_FACTOR_BYTES
from embedindex.index_refresh import is_recent
from embedindex.records import IndexModel
from embedindex.schema import WINDOWS_PER_ROW
from embedindex.space import Space
from embedindex.store import Store

if TYPE_CHECKING:
    import faiss

# float16 keeps 11 bits: a unit vector's components differ by at most 2**-12, and a little for rounding on the way.
MAX_DIFFERENCE = 1e-3
# Codes in lists are made again from the database's vectors, of one batch in so many: of all it takes as long as a
# rebuild, and their bytes were compared with their hash before. Another processor rounds a few differently.
COMPARED_BATCHES = 16
MAX_OTHER_CODES = 0.02


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be: where (``"database"`` or ``"index"``), what, and what to do."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        files: embedded files that were checked.
        windows: vectors that were compared.
        problems: what is wrong; empty when all is well.
    """

    files: int
    windows: int
    problems: tuple[Problem, ...]


def verify(store: Store, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Check the database and the search index.

    Args:
        store: the index.
        progress: called with (windows compared, windows in all).

    Raises:
        StoreError: the database cannot be read at all.
    """
    with store.snapshot():
        problems = list(_database_problems(store))
        model = store.model()
        files = windows = 0
        if model is not None:
            for record in store.files("status = 'ok'"):
                files += 1
                if not store.has_whole_vectors(record):
                    problems.append(
                        Problem("database", f"{display_path(record.path)}: its vectors are damaged", REPAIR)
                    )
            found, windows = _index_problems(store, model, progress or (lambda *_: None))
            problems += found
    return Verdict(files, windows, tuple(problems))


def _database_problems(store: Store) -> Iterator[Problem]:
    for text in store.integrity_problems():
        yield Problem("database", text, REPAIR)
    for first, count in orphan_vectors(store):
        yield Problem(
            "database",
            f"windows {first} to {first + count - 1} belong to no file",
            "harmless; `embedindex verify --repair` gets rid of them",
        )
    highest, following = store.highest_window(), store.next_window
    if highest >= following:
        yield Problem(
            "database",
            f"windows up to {highest} are in use, but {following} is to be given out next",
            "scan into a new index",
        )


def _index_problems(store: Store, model: IndexModel, progress: Callable[[int, int], None]) -> tuple[list[Problem], int]:
    """Check that the FAISS file is there, whole, and the present view of the database; then compare all vectors."""
    rebuild = "run `embedindex rebuild`"
    total = store.counts().windows
    try:
        found = read_index_file(store.folder)
    except IndexDamagedError as error:
        return [Problem("index", str(error).removesuffix(f"; {NOTHING_LOST}"), NOTHING_LOST)], 0
    if found is None:
        return ([Problem("index", "there is no search index on disk", rebuild)] if total else []), 0
    index, trailer = found
    if trailer.database_id != store.database_id or trailer.fingerprint != model.identity.fingerprint:
        return [Problem("index", "the search index belongs to another database", rebuild)], 0
    if not is_view_of(trailer, store, model.identity):
        return [Problem("index", "the search index belongs to another state of the database", rebuild)], 0
    if not is_recent(store, trailer):
        return [Problem("index", "the search index is older than the database", rebuild)], 0
    try:
        compare = _compare if trailer.kind == "flat" else _compare_lists
        return compare(store, index, trailer, progress)
    except IndexDamagedError as error:
        return [Problem("database", str(error).removesuffix(f"; {REPAIR}"), REPAIR)], 0


def _compare(
    store: Store, index: faiss.Index, trailer: Trailer, progress: Callable[[int, int], None]
) -> tuple[list[Problem], int]:
    """Compare every vector in a FAISS index with the database's."""
    import faiss

    rebuild = "run `embedindex rebuild`"
    total = store.counts().windows
    space = Space.from_bytes(bytes.fromhex(trailer.space))
    mapped: Any = index  # an IndexIDMap over a quantiser, as `index.py` makes them
    ids: Int64Array = faiss.vector_to_array(mapped.id_map)
    order = np.argsort(ids, kind="stable")
    inner = faiss.downcast_index(mapped.index)
    problems: list[Problem] = []
    compared = position = 0
    for numbers, vectors in store.vector_batches():
        loud = np.flatnonzero(vectors.any(axis=1))
        wanted = numbers[loud]
        places = order[position : position + len(wanted)]
        if len(places) != len(wanted) or (ids[places] != wanted).any():
            problems.append(
                Problem("index", f"the search index lacks windows from {wanted[0]} on, or has others", rebuild)
            )
            break
        position += len(wanted)
        if len(places):
            kept = inner.reconstruct_batch(places)[:, : vectors.shape[1]]
            difference = np.abs(kept - space.apply(vectors[loud])).max()
            if not difference <= MAX_DIFFERENCE:  # also when it is not a number
                problems.append(
                    Problem(
                        "index", f"vectors between {wanted[0]} and {wanted[-1]} differ from the database's", rebuild
                    )
                )
                break
        compared += len(numbers)
        progress(compared, total)
    else:
        if position != len(ids):
            problems.append(Problem("index", f"the search index has {len(ids) - position} windows too many", rebuild))
    return problems, compared


def _compare_lists(
    store: Store, index: faiss.Index, trailer: Trailer, progress: Callable[[int, int], None]
) -> tuple[list[Problem], int]:
    """Compare the window numbers of lists with the database's, and some of the codes with those of its vectors."""
    import faiss

    rebuild = "run `embedindex rebuild`"
    space = Space.from_bytes(bytes.fromhex(trailer.space))
    ivf = ivf_of(index)
    total = store.counts().windows
    removed = store.removed_since(trailer.generation)
    ids = [_list_ids(ivf, number) for number in range(ivf.nlist)]
    sizes = np.array([len(part) for part in ids])
    kept = np.concatenate(ids)
    lists = np.repeat(np.arange(ivf.nlist), sizes)
    places = np.arange(len(kept)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    order = np.argsort(kept, kind="stable")
    kept, lists, places = kept[order], lists[order], places[order]
    there = np.ones(len(kept), bool)
    for first, count in removed:  # skipped by searches
        there[slice(*np.searchsorted(kept, (first, first + count)))] = False
    kept, lists, places = kept[there], lists[there], places[there]
    position = compared = 0
    for batch, (numbers, vectors) in enumerate(store.vector_batches()):
        loud = np.flatnonzero(vectors.any(axis=1) & (numbers < trailer.next_window))
        part = slice(position, position + len(loud))
        if not np.array_equal(kept[part], numbers[loud]):
            what = f"the search index lacks windows from {numbers[0]} on, or has others"
            return [Problem("index", what, rebuild)], compared
        position += len(loud)
        if len(loud) and batch % COMPARED_BATCHES == 0:
            rows = turned(index, space.apply(vectors[loud]))
            assigned = np.ascontiguousarray(lists[part])
            codes = np.zeros((len(rows), ivf.code_size), np.uint8)
            pointer = faiss.swig_ptr
            ivf.encode_vectors(len(rows), pointer(rows), pointer(assigned), pointer(codes))
            stored = np.stack(
                [_code(ivf, *where) for where in zip(assigned.tolist(), places[part].tolist(), strict=True)]
            )
            if trailer.kind == "rabitq":  # behind the bits lie factors, whose last digits depend on the batch
                codes, stored = codes[:, :-RABITQ_FACTOR_BYTES], stored[:, :-RABITQ_FACTOR_BYTES]
            if (codes != stored).mean() > MAX_OTHER_CODES:
                what = f"vectors between {numbers[0]} and {numbers[-1]} differ from the database's"
                return [Problem("index", what, rebuild)], compared
        compared += len(numbers)
        progress(compared, total)
    if position != len(kept):
        return [Problem("index", f"the search index has {len(kept) - position} windows too many", rebuild)], compared
    return [], compared


def _list_ids(ivf: Any, number: int) -> Int64Array:
    """Return the window numbers of one list, (n,) int64."""
    import faiss

    size = ivf.invlists.list_size(number)
    if not size:
        return np.zeros(0, np.int64)
    ids: Int64Array = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size).copy()
    return ids


def _code(ivf: Any, number: int, place: int) -> Any:
    """Return one code of a list, (code size,) uint8."""
    import faiss

    return faiss.rev_swig_ptr(ivf.invlists.get_single_code(number, place), ivf.code_size).copy()


def orphan_vectors(store: Store) -> list[tuple[int, int]]:
    """Return (first window, number) of stored vectors that lie outside their file's run of windows."""
    rows = store._rows(
        "SELECT vectors.first_window, vectors.n_windows FROM vectors LEFT JOIN files ON files.id = vectors.file_id"
        " WHERE files.id IS NULL OR files.first_window IS NULL OR vectors.first_window < files.first_window"
        " OR vectors.first_window + vectors.n_windows > files.first_window + files.n_windows"
        " OR (vectors.first_window - files.first_window) % ? <> 0 LIMIT 20",
        (WINDOWS_PER_ROW,),
    )
    return [(row[0], row[1]) for row in rows]
