"""The file ``windows.faiss``: a FAISS index, followed by a trailer that says of which database state it is the view.

Layout: the bytes FAISS writes; the trailer as JSON; its xxh3_64 (8 bytes), its length (8 bytes, little endian) and the
magic. The trailer holds the hash of FAISS's bytes, which is checked before FAISS sees them: a damaged index often loads
and then answers wrongly. Of an index of lists, which is long, the trailer has a hash for each block: what describes the
lists is checked before FAISS sees it, each list before it is searched. The file is written beside its place, synced and
renamed, so that it is whole or not there.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from embedindex.errors import DiskFullError, IndexDamagedError, IndexReadOnlyError, StoreError, display_path
from embedindex.index_blocks import BlockHasher, CheckedBlocks
from embedindex.syncing import sync_folder

if TYPE_CHECKING:
    import faiss

INDEX_NAME = "windows.faiss"
MAGIC = b"embedindexfaiss1"
TAIL_BYTES = 16 + len(MAGIC)
BLOCK_BYTES = 1 << 20
MAX_TRAILER_BYTES = 1 << 24
NOTHING_LOST = "nothing is lost: `embedindex rebuild` makes it again from the database"
# Windows lets nobody replace a file that somebody has mapped: there, indexes are read instead.
MAPPING = os.name != "nt"


@dataclass(frozen=True)
class SearchStep:
    """What a search in lists reads.

    Attributes:
        k: for up to so many results.
        probes: how many lists.
        candidates: how many windows are ranked again.
        recall: which share of the true nearest windows of other files that found when it was measured.
    """

    k: int
    probes: int
    candidates: int
    recall: float


@dataclass(frozen=True)
class Trailer:
    """Of what an index file is the view.

    Attributes:
        database_id: the database it was made from.
        generation: that database's generation.
        next_window: the first window number that is not in it.
        fingerprint: the model's.
        stamp: a random name of this file, which the database knows too: after one of the two was restored from a
            backup, their numbers may fit though their histories do not.
        space: the transform of the vectors, `Space.to_bytes` in hexadecimal.
        learnt_from: how many windows the space was learnt from.
        drift: how many windows came and went since.
        windows: how many vectors it holds.
        faiss_bytes: length of FAISS's part.
        faiss_hash: its xxh3_128, hexadecimal.
        kind: the kind of the `index_plan.Plan` it was made by.
        header_bytes: length of what comes before the lists in FAISS's part; 0 when there are no lists.
        sizes: how many windows each list holds, little-endian uint32 in hexadecimal; FAISS tells only one at a time.
        blocks: `index_blocks.BlockHasher.hexdigest` of FAISS's part; empty when there are no lists.
        steps: how much a search of the lists reads.
        closeness: mean inner product of a vector and its list's centre.
        added: how many windows were added to the lists since their centres were learnt.
        added_closeness: mean inner product of those and their centres.
    """

    database_id: str
    generation: int
    next_window: int
    fingerprint: str
    stamp: str
    space: str
    learnt_from: int
    drift: int
    windows: int
    faiss_bytes: int = 0
    faiss_hash: str = ""
    kind: str = "flat"
    header_bytes: int = 0
    sizes: str = ""
    blocks: str = ""
    steps: tuple[SearchStep, ...] = ()
    closeness: float = 0.0
    added: int = 0
    added_closeness: float = 0.0


def index_path(folder: str) -> str:
    """Return the path of the FAISS file in an index folder."""
    return os.path.join(folder, INDEX_NAME)


def write_index_file(folder: str, index: faiss.Index, trailer: Trailer, lists_bytes: int = 0) -> None:
    """Write an index with its trailer, atomically; the trailer's lengths and hashes of FAISS's part are filled in.

    Args:
        folder: the index folder.
        index: FAISS's index.
        trailer: of what it is the view.
        lists_bytes: how long its lists are, which FAISS writes last; 0 when it has none.

    Raises:
        DiskFullError: no space is left; the file that was there stays.
        StoreError: the file cannot be written for another reason.
    """
    import xxhash

    path = index_path(folder)
    part = path + ".part"
    digest = xxhash.xxh3_128()
    blocks = BlockHasher() if lists_bytes else None
    written = 0
    try:
        with open(part, "wb") as file:

            def take(block: bytes) -> None:
                nonlocal written
                digest.update(block)
                file.write(block)
                written += len(block)
                if blocks is not None:
                    blocks.update(block)

            _write_faiss(index, take)
            filled = {**asdict(trailer), "faiss_bytes": written, "faiss_hash": digest.hexdigest()}
            if blocks is not None:
                filled.update(blocks=blocks.hexdigest(), header_bytes=written - lists_bytes)
            text = json.dumps(filled, sort_keys=True).encode()
            file.write(text + xxhash.xxh3_64_digest(text) + len(text).to_bytes(8, "little") + MAGIC)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(folder)
    except OSError as error:
        import errno

        with contextlib.suppress(OSError):
            os.unlink(part)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(
                f"{display_path(path)}: no space left on the disk for the search index; the vectors are safe in the "
                "database. Free some space, then run `embedindex rebuild`"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise IndexReadOnlyError(f"{display_path(path)}: cannot be written ({error.strerror})") from error
        raise StoreError(f"{display_path(path)}: {error.strerror or error}") from error


def remove_leftover(folder: str) -> None:
    """Remove what a crash left of an index file that was being written. The caller holds the lock."""
    with contextlib.suppress(OSError):  # harmless if it stays
        os.unlink(index_path(folder) + ".part")


def _write_faiss(index: faiss.Index, take: Any) -> None:
    import faiss

    # FAISS's own file writer reports success when only its last buffer did not fit on the disk.
    writer = faiss.PyCallbackIOWriter(take)  # type: ignore[attr-defined]
    faiss.write_index(index, writer)
    del writer


def read_trailer(folder: str) -> Trailer | None:
    """Return the trailer of the index file, None when there is no file.

    Raises:
        IndexDamagedError: it is not such a file, or a damaged one.
    """
    try:
        with open(index_path(folder), "rb") as file:
            return _trailer(file, folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(folder, error.strerror or str(error)) from error


def read_index_file(folder: str, *, mapped: bool = True) -> tuple[faiss.Index, Trailer] | None:
    """Return the index with its trailer; None when there is no file.

    Args:
        folder: the index folder.
        mapped: map the file instead of reading it: at once there, but FAISS crashes when such an index is changed.

    Raises:
        IndexDamagedError: it is not such a file, or a damaged one.
    """
    try:
        with open(index_path(folder), "rb") as file:
            trailer = _trailer(file, folder)
            _check_hash(file, trailer, folder)
            index = _load_faiss(file, folder, trailer, mapped=mapped and trailer.kind == "flat")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(folder, error.strerror or str(error)) from error
    except RuntimeError as error:  # FAISS: of a version that this one cannot read
        raise _damaged(folder, "FAISS cannot read it") from error
    if index.ntotal != trailer.windows:
        raise _damaged(folder, "it does not hold as many vectors as it says")
    return index, trailer


def open_index(folder: str) -> tuple[faiss.Index, Trailer, CheckedBlocks | None] | None:
    """Return the index to search in, its trailer, and its hashes when it has lists; None when there is no file.

    Of an index of lists, only what comes before them is read and checked; the lists are mapped into memory. Whoever
    searches one checks its bytes first. Where files are not mapped, all of it is read and checked, and has no hashes.

    Raises:
        IndexDamagedError: it is not such a file, or a damaged one.
    """
    try:
        with open(index_path(folder), "rb") as file:
            trailer = _trailer(file, folder)
            blocks = None
            if trailer.kind == "flat" or not MAPPING:
                _check_hash(file, trailer, folder)
            else:
                damaged = _damaged(folder, "its bytes are not those that were written")
                blocks = CheckedBlocks(file, trailer.faiss_bytes, trailer.blocks, damaged)
                blocks.check(np.array([0]), np.array([trailer.header_bytes]))
            index = _load_faiss(file, folder, trailer, mapped=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(folder, error.strerror or str(error)) from error
    except (RuntimeError, ValueError) as error:  # FAISS: of a version that this one cannot read
        raise _damaged(folder, "FAISS cannot read it") from error
    if index.ntotal != trailer.windows:
        raise _damaged(folder, "it does not hold as many vectors as it says")
    return index, trailer, blocks


def _trailer(file: BinaryIO, folder: str) -> Trailer:
    import xxhash

    size = file.seek(0, os.SEEK_END)
    if size < TAIL_BYTES:
        raise _damaged(folder, "it is too short")
    file.seek(size - TAIL_BYTES)
    tail = file.read(TAIL_BYTES)
    length = int.from_bytes(tail[8:16], "little")
    if tail[16:] != MAGIC or length > min(size - TAIL_BYTES, MAX_TRAILER_BYTES):
        raise _damaged(folder, "its end is missing")
    file.seek(size - TAIL_BYTES - length)
    text = file.read(length)
    if xxhash.xxh3_64_digest(text) != tail[:8]:
        raise _damaged(folder, "its description is damaged")
    try:
        values = json.loads(text)
        trailer = Trailer(**{**values, "steps": tuple(SearchStep(**step) for step in values.get("steps", ()))})
    except (AttributeError, TypeError, ValueError) as error:
        raise _damaged(folder, "another version of embedindex made it") from error
    if trailer.faiss_bytes != size - TAIL_BYTES - length:
        raise _damaged(folder, "its length is wrong")
    return trailer


def _check_hash(file: BinaryIO, trailer: Trailer, folder: str) -> None:
    import xxhash

    digest = xxhash.xxh3_128()
    file.seek(0)
    left = trailer.faiss_bytes
    while left:
        block = file.read(min(BLOCK_BYTES, left))
        if not block:
            break
        digest.update(block)
        left -= len(block)
    if digest.hexdigest() != trailer.faiss_hash:
        raise _damaged(folder, "its bytes are not those that were written")


def _load_faiss(file: BinaryIO, folder: str, trailer: Trailer, *, mapped: bool) -> faiss.Index:
    """Return the index in the checked, open `file`: a scan may put a newer one in its place at any moment."""
    import faiss

    mapped = mapped and MAPPING
    # Lists are mapped by another part of FAISS than plain vectors.
    flags = (faiss.IO_FLAG_MMAP_IFC if trailer.kind == "flat" else faiss.IO_FLAG_MMAP) if mapped else 0
    opened = f"/proc/self/fd/{file.fileno()}"  # this very file, whatever its name is or is now another's
    if os.path.exists(opened):
        return faiss.read_index(opened, flags)
    path = index_path(folder)
    # FAISS takes no other names; it maps plain vectors on Linux and Windows only; the file may be gone.
    with contextlib.suppress(UnicodeEncodeError, RuntimeError):
        path.encode("utf-8")
        index = faiss.read_index(path, flags)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return index
    file.seek(0)
    return faiss.deserialize_index(np.frombuffer(file.read(trailer.faiss_bytes), np.uint8))


def _damaged(folder: str, reason: str) -> IndexDamagedError:
    return IndexDamagedError(
        f"{display_path(index_path(folder))}: the search index is damaged ({reason}); {NOTHING_LOST}"
    )
