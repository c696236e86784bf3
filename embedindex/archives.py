"""ZIP archives, read in place: what is in them, under which paths, and how its bytes are reached.

Conventions: a member ``disc1/01.flac`` of ``/music/album.zip`` has the path ``/music/album.zip/disc1/01.flac``, as if
the archive were a folder; a real folder of that name is a folder, and nothing here is asked about it. What an archive
claims is checked before memory, time or disk is spent on it. Format: PKWARE, APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import calendar
import io
import os
import stat
import struct
import zipfile
from functools import lru_cache
from typing import Any, cast

from embedindex.archive_members import LOCAL_HEADER, Member, open_member
from embedindex.errors import AudioLimitError, DamagedAudioError, UnreadableFileError, display_path
from embedindex.opening import is_real_folder, is_regular_file, open_regular_file, stat_path, unreadable
from embedindex.remote_paths import is_remote

SEPARATOR = os.fsencode(os.sep)
ARCHIVE_SUFFIX = b".zip"

# An archive's table of contents: about 60,000 members. It is held in memory, a few times over.
MAX_DIRECTORY_BYTES = 8 << 20
# What all of an archive may unpack to: music packs to a half, silence to a thousandth.
MAX_RATIO, FREE_BYTES = 100, 1 << 30  # no ratio is asked of what is smaller

ENCRYPTED = 0x1  # bit of the general purpose flags; APPNOTE 4.4.4
UTF8_NAME = 0x800
MADE_BY_DOS, MADE_BY_UNIX = 0, 3  # APPNOTE 4.4.2
NO_TIME = (1980, 1, 1, 0, 0, 0)


def is_archive_name(name: bytes) -> bool:
    """Return whether a regular file of that name is taken for an archive."""
    return name.lower().endswith(ARCHIVE_SUFFIX)


def is_archive(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path leads to a regular file that is taken for an archive."""
    return is_archive_name(os.fsencode(path)) and is_regular_file(path)


def archive_of(path: str | bytes | os.PathLike[str]) -> bytes | None:
    """Return the archive that a path leads into, or None when it leads into none."""
    whole = os.fsencode(path)
    place = whole.lower().find(ARCHIVE_SUFFIX + SEPARATOR)
    while place >= 0:
        archive = whole[: place + len(ARCHIVE_SUFFIX)]
        if is_regular_file(archive):
            return archive
        place = whole.lower().find(ARCHIVE_SUFFIX + SEPARATOR, place + 1)
    return None


def members(archive: bytes) -> tuple[Member, ...]:
    """Return the files in an archive, by the parts of their names; of several with one name the last, as unpacked.

    Raises:
        UnreadableFileError: the file system refused it.
        DamagedAudioError: it is no whole ZIP archive.
        AudioLimitError: it claims to hold more than can be.
    """
    return tuple(_table(archive).values())


def find_member(path: str | bytes | os.PathLike[str]) -> tuple[bytes, Member] | None:
    """Return (archive, member) of a path that leads to a file in an archive, else None; raises what `members` does."""
    archive = archive_of(path)
    if archive is None:
        return None
    member = _table(archive).get(os.fsencode(path)[len(archive) + 1 :])
    return None if member is None else (archive, member)


def is_in_archive(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path leads to a file or a folder in an archive. Raises what `members` raises."""
    archive = archive_of(path)
    if archive is None:
        return False
    inside = os.fsencode(path)[len(archive) + 1 :].rstrip(SEPARATOR)
    return any(name == inside or name.startswith(inside + SEPARATOR) for name in _table(archive))


def is_folder(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path leads to a folder, an archive, or a folder in one. Raises what `members` raises."""
    if is_real_folder(path) or is_archive(path):
        return True
    return is_in_archive(path) and find_member(path) is None


def exists(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether there is a file or folder of that path, on disk, on a server, or in an archive that can be read.

    Raises:
        UnreadableFileError: its server does not say it.
    """
    if is_remote(path):
        return _is_on_server(path)
    try:
        return os.path.exists(path) or is_in_archive(path)
    except (DamagedAudioError, AudioLimitError, UnreadableFileError):
        return False


def _is_on_server(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether there is such a path on its server. Raises `UnreadableFileError` when that does not say it."""
    try:
        stat_path(path)
    except FileNotFoundError:
        return is_in_archive(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def open_sound(path: str | bytes | os.PathLike[str]) -> io.RawIOBase:
    """Open a regular file, or a member of an archive, for reading from any place, without ever waiting for it.

    Raises:
        UnreadableFileError: it is missing, forbidden, a folder, a pipe, a device…
        DamagedAudioError: it is, or lies in, an archive that is damaged; it is encrypted, or packed in an unusual way.
        AudioLimitError: it unpacks to more than can be.
    """
    found = find_member(path)
    if found is not None:
        return open_member(path, *found)
    if is_archive(path):
        _table(os.fsencode(path))
        raise DamagedAudioError(path, "is an archive, not a sound; name a file in it, as archive.zip/name.wav")
    return open_regular_file(path)


# -- the table of contents -----------------------------------------------------------------------------------------


def _table(archive: bytes) -> dict[bytes, Member]:
    try:
        found = stat_path(archive)
    except OSError as error:
        raise unreadable(archive, error) from error
    return _read_table(archive, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=2)  # a scan goes through one archive after the other, and asks several times for each member
def _read_table(archive: bytes, size: int, mtime_ns: int, inode: int) -> dict[bytes, Member]:  # noqa: ARG001
    with open_regular_file(archive) as file:
        bounded = _Bounded(archive, file, size)
        try:
            with zipfile.ZipFile(cast(Any, bounded)) as opened:
                infos, end = opened.infolist(), opened.start_dir
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise DamagedAudioError(
                archive, f"is no whole ZIP archive ({display_path(str(error))}); copy or download it again"
            ) from error
        except (OSError, OverflowError) as error:
            raise DamagedAudioError(
                archive, f"cannot be read as a ZIP archive ({error}); copy or download it again"
            ) from error
    _refuse_bombs(archive, size, infos, end)
    found = {}
    for info in infos:
        name = _clean_name(info)
        if name and not info.is_dir() and _is_regular(info):
            changed_ns = _seconds(info) * 1_000_000_000 + info.CRC
            found[name] = Member(
                name, info.file_size, info.compress_size, changed_ns, info.CRC, info.header_offset, info.compress_type,
                bool(info.flag_bits & ENCRYPTED),
            )  # fmt: skip
    return {name: found[name] for name in sorted(found, key=lambda name: name.split(SEPARATOR))}


class _Bounded:
    """A file as `zipfile` reads its table of contents: no more at once than such a table may take."""

    def __init__(self, archive: bytes, file: io.RawIOBase, size: int) -> None:
        self._archive, self._file, self._size = archive, file, size
        self.seekable, self.seek, self.tell = file.seekable, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        wanted = size if size >= 0 else max(0, self._size - self._file.tell())
        if wanted > MAX_DIRECTORY_BYTES:
            raise AudioLimitError(
                self._archive, f"has a table of contents above {MAX_DIRECTORY_BYTES >> 20} MB; unpack it"
            )
        return self._file.read(wanted) or b""


def _refuse_bombs(archive: bytes, size: int, infos: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse archives that unpack to far more than sounds do, or whose members share their bytes.

    Raises:
        AudioLimitError: it is one of those.
        DamagedAudioError: members lie before its beginning.
    """
    claimed = sum(info.file_size for info in infos)
    if claimed > max(FREE_BYTES, MAX_RATIO * size):
        raise AudioLimitError(
            archive, f"claims to unpack to {claimed / 1e9:.1f} GB, {claimed // size} times its size: no sounds do"
        )
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if ordered and ordered[0].header_offset < 0:
        raise DamagedAudioError(archive, "is no whole ZIP archive (its front is missing); copy or download it again")
    ends = [*(info.header_offset for info in ordered[1:]), end]
    for info, following in zip(ordered, ends, strict=False):  # an empty archive ends, too
        if info.header_offset + LOCAL_HEADER.size + len(_raw_name(info)) + info.compress_size > following:
            raise AudioLimitError(archive, "its members overlap, as whole archives' do not; copy or download it again")


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """Return the name of a member as the archive has it."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_NAME else "cp437")


def _clean_name(info: zipfile.ZipInfo) -> bytes:
    """Return the path of a member below its archive, in UTF-8; nothing in it leads anywhere else.

    Names that do not say that they are UTF-8 are in code page 437 by the letter of the format; many programs write
    UTF-8 all the same, which other text hardly ever looks like.
    """
    raw = _raw_name(info).split(b"\0")[0]
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raw = raw.decode("cp437").encode("utf-8")
    if info.create_system == MADE_BY_DOS and b"/" not in raw:
        raw = raw.replace(b"\\", b"/")
    return SEPARATOR.join(part for part in raw.split(b"/") if part not in (b"", b".", b".."))


def _is_regular(info: zipfile.ZipInfo) -> bool:
    """Return whether a member is a file, as opposed to a link or a device that a Unix system packed."""
    mode = info.external_attr >> 16
    return info.create_system != MADE_BY_UNIX or stat.S_IFMT(mode) in (0, stat.S_IFREG)


def _seconds(info: zipfile.ZipInfo) -> int:
    try:
        return calendar.timegm(info.date_time)
    except ValueError:  # month 0
        return calendar.timegm(NO_TIME)
