"""Folders → the audio files in them, with what the file system says of each.

Conventions: paths are bytes, absolute and unresolved (a path is what the user sees). Hidden entries (leading dot) are
skipped. A symbolic link is followed once: not when its target was, or will be, met on its own.
"""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Iterator
from dataclasses import dataclass, field

from embedindex.audio import AUDIO_SUFFIXES

SEPARATOR = os.fsencode(os.sep)
_SUFFIXES = frozenset(os.fsencode(suffix) for suffix in AUDIO_SUFFIXES)


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
    """Return the stat of a file, links followed.

    Raises:
        OSError: the file system refused it.
    """
    return stat_of(os.stat(path))


def stat_of(result: os.stat_result) -> FileStat:
    """Return what `os.stat` said, with 64-bit device and inode numbers as SQLite can keep them."""
    return FileStat(result.st_size, result.st_mtime_ns, _signed(result.st_dev), _signed(result.st_ino))


def _signed(number: int) -> int:
    """Return an unsigned 64-bit number as a signed one (inode numbers of some file systems use the top bit)."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


@dataclass(frozen=True)
class Found:
    """One audio file.

    Attributes:
        path: absolute path, bytes.
        stat: what the file system says of it.
        rank: its place among the audio files of its folder, from 0.
    """

    path: bytes
    stat: FileStat
    rank: int


@dataclass
class CrawlTrouble:
    """What a crawl could not see.

    Attributes:
        folders: (path, reason) of folders that could not be listed.
        files: (path, reason) of entries that could not be looked at.
    """

    folders: list[tuple[bytes, str]] = field(default_factory=list)
    files: list[tuple[bytes, str]] = field(default_factory=list)


def is_audio_name(name: bytes) -> bool:
    """Return whether a file of that name is worth opening."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def is_hidden(name: bytes) -> bool:
    """Return whether an entry is skipped for its name: hidden ones, and the halves macOS leaves on other disks."""
    return name.startswith(b".")


def absolute_path(path: bytes) -> bytes:
    """Return a path as the index has it: absolute and normalised, links not resolved."""
    absolute = os.path.abspath(path)
    # POSIX lets a leading "//" mean something else; no system we know makes use of that.
    return absolute[1:] if SEPARATOR == b"/" and absolute.startswith(b"//") else absolute


def outermost(paths: list[bytes]) -> list[bytes]:
    """Return absolute, normalised paths without those that lie inside another, in the order given."""
    absolute = list(dict.fromkeys(absolute_path(path) for path in paths))
    return [path for path in absolute if not any(other != path and lies_in(path, other) for other in absolute)]


def lies_in(path: bytes, folder: bytes) -> bool:
    """Return whether `path` is `folder` or below it (by name; both absolute and normalised)."""
    return path == folder or path.startswith(folder.rstrip(SEPARATOR) + SEPARATOR)


def crawl(roots: list[bytes], trouble: CrawlTrouble) -> Iterator[Found]:
    """Yield the audio files of some roots (folders or single files), folder by folder.

    What cannot be seen is added to `trouble`; nothing is raised for it. Memory holds one folder's names and one number
    per folder. Links are looked at when everything else was seen, so that no file comes twice by way of a link.
    """
    seen: set[tuple[int, int]] = set()  # folders by device and inode; single files too
    links: list[bytes] = []
    for root in sorted(roots, key=os.path.isfile):  # folders first, here too
        try:
            result = os.stat(root)
        except OSError as error:
            trouble.folders.append((root, error.strerror or str(error)))
            continue
        if stat_module.S_ISDIR(result.st_mode):
            yield from _folder(root, result, seen, links, trouble)
        elif stat_module.S_ISREG(result.st_mode):
            if not _was_met(root, result, seen):
                seen.add((result.st_dev, result.st_ino))
                yield Found(root, stat_of(result), 0)
        else:
            trouble.files.append((root, "is not a regular file"))
    to_files: list[bytes] = []
    while links:  # folders first: a link to a file in one of them is then no news
        batch, links = sorted(links), []
        for link in batch:
            if os.path.isdir(link):
                yield from _linked_folder(link, seen, links, trouble)
            else:
                to_files.append(link)
    for link in sorted(to_files):
        yield from _linked_file(link, seen, trouble)


def _folder(
    top: bytes, result: os.stat_result, seen: set[tuple[int, int]], links: list[bytes], trouble: CrawlTrouble
) -> Iterator[Found]:
    stack = [(top, (result.st_dev, result.st_ino))]
    while stack:
        folder, identity = stack.pop()
        if identity in seen:
            continue
        seen.add(identity)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            trouble.folders.append((folder, error.strerror or str(error)))
            continue
        inside: list[tuple[bytes, tuple[int, int]]] = []
        rank = 0
        for entry in entries:
            if is_hidden(entry.name):
                continue
            try:
                if entry.is_symlink():
                    links.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    below = entry.stat(follow_symlinks=False)
                    if not below.st_ino:  # Windows does not say it in listings
                        below = os.lstat(entry.path)
                    inside.append((entry.path, (below.st_dev, below.st_ino)))
                elif is_audio_name(entry.name) and entry.is_file(follow_symlinks=False):
                    yield Found(entry.path, stat_of(entry.stat(follow_symlinks=False)), rank)
                    rank += 1
            except OSError as error:
                trouble.files.append((entry.path, error.strerror or str(error)))
        stack.extend(reversed(inside))


def _linked_folder(
    link: bytes, seen: set[tuple[int, int]], links: list[bytes], trouble: CrawlTrouble
) -> Iterator[Found]:
    """Yield what a link to a folder leads to, unless that was met on its own."""
    try:
        result = os.stat(link)
    except OSError as error:
        trouble.folders.append((link, error.strerror or str(error)))
        return
    yield from _folder(link, result, seen, links, trouble)


def _linked_file(link: bytes, seen: set[tuple[int, int]], trouble: CrawlTrouble) -> Iterator[Found]:
    """Yield what a link to a file leads to, unless that was met on its own or through another link."""
    if not is_audio_name(os.path.basename(link)):
        return
    try:
        result = os.stat(link)
        if stat_module.S_ISREG(result.st_mode) and not _was_met(link, result, seen):
            seen.add((result.st_dev, result.st_ino))
            yield Found(link, stat_of(result), 0)
    except OSError as error:
        reason = "is a link that leads nowhere" if isinstance(error, FileNotFoundError) else error.strerror
        trouble.files.append((link, reason or str(error)))


def _was_met(path: bytes, result: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    """Return whether the file that `path` leads to came before: by itself, or in a folder that was listed.

    Raises:
        OSError: the file system refused to say.
    """
    if (result.st_dev, result.st_ino) in seen:
        return True
    target = os.path.realpath(path)
    name = os.path.basename(target)
    home = os.stat(os.path.dirname(target))
    return (home.st_dev, home.st_ino) in seen and is_audio_name(name) and not is_hidden(name)
