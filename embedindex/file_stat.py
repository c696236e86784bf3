"""What the file system, an archive or a server says of a file: the key of change detection."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass

from embedindex.archives import find_member
from embedindex.errors import AudioError
from embedindex.opening import stat_path
from embedindex.remote_paths import is_remote


@dataclass(frozen=True)
class FileStat:
    """What the file system says of a file: the key of change detection.

    Attributes:
        size: bytes.
        mtime_ns: time of last change in nanoseconds; `RECHECK` when it cannot be trusted.
        device: device number.
        inode: inode number, 0 where there is none.
    """

    size: int
    mtime_ns: int
    device: int
    inode: int


# A modification time that no file has: the next scan compares the content again.
RECHECK = -1


def file_stat(path: str | bytes) -> FileStat:
    """Return the stat of a file, links followed, also of one in an archive.

    Raises:
        OSError: the file system refused it, or its archive cannot be read.
    """
    try:
        return stat_of(stat_path(path))
    except (NotADirectoryError, FileNotFoundError) as gone:
        if isinstance(gone, FileNotFoundError) and not is_remote(path):
            raise
        try:
            found = find_member(path)
        except AudioError as error:
            raise OSError(errno.EIO, f"its archive {error.reason}") from error
        if found is None:
            raise
        archive, member = found
        return member_stat(member.name, member.size, member.changed_ns, file_stat(archive))


def member_stat(name: bytes, size: int, changed_ns: int, archive: FileStat) -> FileStat:
    """Return what stands for a member's stat; its inode number is made of the archive's number and its name."""
    if not archive.inode:
        return FileStat(size, changed_ns, archive.device, 0)
    digest = hashlib.blake2b(name, digest_size=8, key=archive.inode.to_bytes(8, "big", signed=True)).digest()
    return FileStat(size, changed_ns, archive.device, int.from_bytes(digest, "big", signed=True))


def stat_of(result: os.stat_result) -> FileStat:
    """Return what `os.stat` said, with 64-bit device and inode numbers as SQLite can keep them."""
    return FileStat(result.st_size, result.st_mtime_ns, _signed(result.st_dev), _signed(result.st_ino))


def _signed(number: int) -> int:
    """Return an unsigned 64-bit number as a signed one (inode numbers of some file systems use the top bit)."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number
