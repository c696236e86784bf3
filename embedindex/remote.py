"""Sounds on servers (S3, SFTP, SMB, HTTP…): what is there, in the words of the system, and their bytes.

Conventions: an entry's device number stands for its server; its time of change holds, in nanoseconds, what the server
calls its version (ETag), so that another content is another time. A file is fetched whole, in pieces, to a temporary
file without a name: decoders jump about in it, and read it more than once.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat as stat_module
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedindex.errors import AudioLimitError, UnreadableFileError, display_path
from embedindex.remote_paths import WEB, server_of, split_remote
from embedindex.remote_server import LIST_S, server
from embedindex.temporary import Stretch, Temporary, write_all

PIECE_BYTES = 4 << 20
PIECE_S = 60.0
MAX_FETCHED_BYTES = 8 << 30
# Fetched files are kept for another reading, so many bytes of them: a remix reads hundreds, over and over, a scan's
# workers read one after the other.
KEPT_BYTES = 512 << 20
KEPT_BY_WORKER_BYTES = 64 << 20
# What is never taken of the disk: so much, or that part of it.
SPARE_BYTES, SPARE_SHARE = 1 << 30, 0.1
ROOM_S = 30.0
# What is fetched of a file at once where only its header is wanted, and how many of these are kept.
BLOCK_BYTES, KEPT_BLOCKS = 256 << 10, 8
# A file that was looked at so lately is not asked for again.
FRESH_S = 10.0

# In these stores, two files of one size and one ETag have the same content.
_CONTENT_TAGS = frozenset((b"s3", b"s3a"))
_TIMES = ("LastModified", "mtime", "last_modified", "Last-Modified", "modified", "created")
_TAGS = ("ETag", "etag")
_SAID = frozenset(("type", "size", "mimetype", *_TIMES, *_TAGS))


@dataclass(frozen=True)
class RemoteEntry:
    """One entry of a folder, as `os.DirEntry` has it; there are no links.

    Attributes:
        name: its name.
        path: its URL.
        said: what the server's listing says of it.
    """

    name: bytes
    path: bytes
    said: dict[str, Any] = field(repr=False)

    def is_symlink(self) -> bool:
        """Return False: what a link on a server leads to is not followed."""
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - as `os.DirEntry` has it
        """Return whether it is a folder."""
        return self.said.get("type") == "directory"

    def is_file(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002
        """Return whether it is a file."""
        return self.said.get("type") == "file"

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002
        """Return what is known of it; asks the server where its listing did not say.

        Raises:
            OSError: it does not say.
        """
        if self.is_file() and self.said.get("size") is None:
            return remote_stat(self.path)
        return _stat_result(self.path, self.said)


def remote_stat(path: bytes) -> os.stat_result:
    """Return what a server says of a path, as `os.stat` would.

    Raises:
        OSError: what `Server.ask` raises.
    """

    def info(files: Any, inner: str) -> dict[str, Any]:
        files.invalidate_cache()
        found: dict[str, Any] = files.info(inner)
        return found

    result = _stat_result(path, server(path).ask(path, info))
    with _keeping:
        _fresh[path] = (time.monotonic(), result)
        while len(_fresh) > 64:
            _fresh.popitem(last=False)
    return result


def list_remote(folder: bytes) -> list[RemoteEntry]:
    """Return what is in a folder of a server, by name.

    Raises:
        OSError: what `Server.ask` raises.
    """

    def ls(files: Any, inner: str) -> list[tuple[str, dict[str, Any]]]:
        files.invalidate_cache()
        above = inner.rstrip("/") + "/"
        return [(said["name"].rstrip("/").removeprefix(above), said) for said in files.ls(inner, detail=True)]

    web = split_remote(folder)[0] in WEB
    entries = {}
    for name, said in server(folder).ask(folder, ls, LIST_S):
        # A store lists the folder itself; a web page leads elsewhere, too.
        if name not in ("", ".", "..") and "/" not in name and not (web and set("?#") & set(name)):
            raw = os.fsencode(name)
            kept = {what: value for what, value in said.items() if what in _SAID}  # there may be a million
            entries[raw] = RemoteEntry(raw, folder + b"/" + raw, kept)
    return [entries[name] for name in sorted(entries)]


def _stat_result(path: bytes, said: dict[str, Any]) -> os.stat_result:
    scheme = split_remote(path)[0]
    is_page = scheme in WEB and said.get("mimetype") == "text/html"
    is_folder = said.get("type") == "directory" or is_page
    if not is_folder and not isinstance(said.get("size"), int):
        raise OSError(errno.EIO, "the server does not say how long it is")
    tag = "" if is_folder else "/".join(str(said[name]) for name in _TAGS if said.get(name))
    seconds_ns = _time_ns(said)
    if tag:
        seconds_ns = seconds_ns // 1_000_000_000 * 1_000_000_000 + _number(tag.encode()) % 1_000_000_000
    kind = stat_module.S_IFDIR if is_folder else stat_module.S_IFREG
    if is_folder:
        inode = _number(path)
    else:
        inode = _number(said["ETag"].encode()) if has_content_tag(path) and said.get("ETag") else 0
    size = 0 if is_folder else int(said["size"])
    seconds = seconds_ns // 1_000_000_000
    return os.stat_result(
        (kind, inode, _number(server_of(path)), 1, 0, 0, size, seconds, seconds, seconds), {"st_mtime_ns": seconds_ns}
    )


def has_content_tag(path: bytes) -> bool:
    """Return whether a path lies in a store whose times of change, as they are here, tell every new content."""
    return split_remote(path)[0] in _CONTENT_TAGS


def _time_ns(said: dict[str, Any]) -> int:
    """Return when a file was changed (Unix time, nanoseconds), 0 where its server does not say it."""
    for name in _TIMES:
        value = said.get(name)
        if isinstance(value, str) and value:
            from email.utils import parsedate_to_datetime

            try:
                value = parsedate_to_datetime(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            value = value.timestamp()
        if isinstance(value, (int, float)):
            return round(value * 1_000_000) * 1000
    return 0


def _number(text: bytes) -> int:
    """Return a positive 63-bit number that stands for some bytes, always the same one and never 0."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1 or 1


# -- the bytes -----------------------------------------------------------------------------------------------------

_keeping = threading.Lock()
_fresh: OrderedDict[bytes, tuple[float, os.stat_result]] = OrderedDict()
_kept: OrderedDict[tuple[bytes, int, int], Temporary] = OrderedDict()


_kept_bytes = KEPT_BYTES
_in_blocks = False


def read_in_blocks() -> None:
    """Have files fetched block by block where they are read, from now on: for processes that read headers only."""
    global _in_blocks
    _in_blocks = True


class _Blocks(io.RawIOBase):
    """A file of a server, of which only those blocks are fetched that somebody reads; the last ones are kept."""

    def __init__(self, path: bytes, size: int) -> None:
        self.path, self.size = path, size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def part(self, place: int, size: int) -> bytes:
        """Return bytes from a place."""
        first, end = place // BLOCK_BYTES, min(place + size, self.size)
        joined = b"".join(self._block(number) for number in range(first, -(-end // BLOCK_BYTES)))
        return joined[place - first * BLOCK_BYTES :][:size]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            begin = number * BLOCK_BYTES
            self._blocks[number] = _piece(self.path, begin, min(begin + BLOCK_BYTES, self.size), self.size)
            if len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


def open_remote(path: bytes) -> Stretch:
    """Open a file of a server for reading from any place, once all of it was fetched (see `read_in_blocks`).

    Raises:
        OSError: what `Server.ask` raises; it is a folder, or there is no room for it.
        AudioLimitError: it is longer than what is fetched.
    """
    with _keeping:
        asked, result = _fresh.get(path, (0.0, None))
    if result is None or time.monotonic() - asked > FRESH_S:
        result = remote_stat(path)
    if stat_module.S_ISDIR(result.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if _in_blocks:
        return Stretch(_Blocks(path, result.st_size), 0, result.st_size, owned=True)
    key = (path, result.st_size, result.st_mtime_ns)
    with _keeping:
        fetched = _kept.get(key)
    if fetched is None:
        _make_way(result.st_size)
        fetched = _fetch(path, result.st_size)
    with _keeping:
        _kept[key] = fetched
        _kept.move_to_end(key)
    return Stretch(fetched, 0, result.st_size, owned=False)


def keep(most: int) -> None:
    """Set how many bytes of fetched files are kept in this process."""
    global _kept_bytes
    _kept_bytes = most


def _make_way(size: int) -> None:
    """Let go of what was fetched longest ago, until a file of that size can be kept as well."""
    with _keeping:
        while _kept and sum(length for _, length, _ in _kept) + size > _kept_bytes:
            _kept.popitem(last=False)


def _fetch(path: bytes, size: int) -> Temporary:
    if size > MAX_FETCHED_BYTES:
        raise AudioLimitError(
            path, f"is {size / 1e9:.1f} GB long, above the {MAX_FETCHED_BYTES / 1e9:.1f} GB that are fetched; "
            "scan a copy on this machine"
        )  # fmt: skip
    target = Temporary()
    _take_room(path, target, size)
    for begin in range(0, size, PIECE_BYTES):
        end = min(begin + PIECE_BYTES, size)
        write_all(target, _piece(path, begin, end, size))
    return target


def _piece(path: bytes, begin: int, end: int, size: int) -> bytes:
    """Return the bytes of a file from `begin` to `end`."""

    def read(files: Any, inner: str) -> bytes:
        data: bytes = files.cat_file(inner, start=begin, end=end)
        if len(data) == size != end - begin:  # a web server that gives all or nothing
            data = data[begin:end]
        if len(data) != end - begin:
            raise EOFError(f"{len(data)} of {end - begin} bytes came")
        return data

    return server(path).ask(path, read, PIECE_S)


def _take_room(path: bytes, target: Temporary, size: int) -> None:
    """Take the room for a file on the disk at once, so that all who fetch share what is there; waits for it a while.

    Raises:
        UnreadableFileError: there is none.
    """
    where = tempfile.gettempdir()
    ends = time.monotonic() + ROOM_S
    while True:
        try:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(target.fileno(), 0, size)
            disk = shutil.disk_usage(where)
            needed = 0 if hasattr(os, "posix_fallocate") else size
            if disk.free - needed >= min(SPARE_BYTES, SPARE_SHARE * disk.total):
                return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
        target.truncate(0)
        _make_way(_kept_bytes)
        if time.monotonic() >= ends:
            raise UnreadableFileError(
                path, f"cannot be fetched: no room for its {size / 1e6:.0f} MB in {display_path(where)}; free some "
                "space there, or set TMPDIR"
            )  # fmt: skip
        time.sleep(0.5)
