"""Hashes of a long file, block by block, so that a reader can check just what it is about to use.

A block is checked once, before its first use; what was never asked for is never read.
"""

from __future__ import annotations

import mmap
from typing import BinaryIO

import numpy as np

from embedindex.arrays import Int64Array
from embedindex.errors import EmbedindexError

BLOCK_BYTES = 1 << 16
HASH_BYTES = 8


class BlockHasher:
    """Takes the bytes of a file in pieces of any length, gives the xxh3_64 of each block of 64 KiB."""

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._waiting = bytearray()

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        import xxhash

        self._waiting += piece
        whole = len(self._waiting) // BLOCK_BYTES * BLOCK_BYTES
        view = memoryview(self._waiting)
        self._hashes += [
            xxhash.xxh3_64_digest(view[start : start + BLOCK_BYTES]) for start in range(0, whole, BLOCK_BYTES)
        ]
        view.release()
        del self._waiting[:whole]

    def hexdigest(self) -> str:
        """Return the hashes of all blocks, 16 digits each; the last block may be shorter."""
        import xxhash

        last = [xxhash.xxh3_64_digest(bytes(self._waiting))] if self._waiting else []
        return b"".join(self._hashes + last).hex()


class CheckedBlocks:
    """A file whose blocks are compared with their hashes before they are used.

    Args:
        file: open for reading; may be closed or replaced afterwards.
        length: how many of its bytes the hashes are of.
        hashes: `BlockHasher.hexdigest` of these.
        damaged: the error to raise where they differ.

    Raises:
        ValueError: there are more or fewer hashes than blocks.
    """

    def __init__(self, file: BinaryIO, length: int, hashes: str, damaged: EmbedindexError) -> None:
        self._map = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
        self._hashes = bytes.fromhex(hashes)
        blocks = -(-length // BLOCK_BYTES)
        if len(self._hashes) != blocks * HASH_BYTES:
            raise ValueError(f"{len(self._hashes)} bytes of hashes for {blocks} blocks")
        self._checked = np.zeros(blocks, bool)
        self._damaged = damaged

    def check(self, starts: Int64Array, ends: Int64Array) -> None:
        """Check the bytes between each start and its end.

        Raises:
            EmbedindexError: the one given: they are not what was written.
        """
        import xxhash

        steps = np.zeros(len(self._checked) + 1, np.int64)
        filled = np.asarray(ends) > np.asarray(starts)
        np.add.at(steps, np.asarray(starts)[filled] // BLOCK_BYTES, 1)
        np.add.at(steps, (np.asarray(ends)[filled] - 1) // BLOCK_BYTES + 1, -1)
        blocks = np.flatnonzero((np.cumsum(steps[:-1]) > 0) & ~self._checked)
        if not len(blocks):
            return
        with memoryview(self._map) as view:
            for block in blocks.tolist():
                wanted = self._hashes[block * HASH_BYTES : (block + 1) * HASH_BYTES]
                if xxhash.xxh3_64_digest(view[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]) != wanted:
                    raise self._damaged
        self._checked[blocks] = True
        if hasattr(mmap, "MADV_DONTNEED") and BLOCK_BYTES % mmap.PAGESIZE == 0:
            # FAISS maps the file, too: without this, what was searched would count twice in this process's memory.
            for run in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
                start, end = int(run[0]) * BLOCK_BYTES, min((int(run[-1]) + 1) * BLOCK_BYTES, len(self._map))
                self._map.madvise(mmap.MADV_DONTNEED, start, end - start)
