"""Folders → the audio files in them, with what the file system says of each.

Conventions: paths are bytes, absolute and unresolved (a path is what the user sees). Hidden entries (leading dot) are
skipped, as is what `embedindex.ignore` knows to leave out. A symbolic link is followed once: not when its target was,
or will be, met on its own. A ZIP archive is looked into as if it were a folder (see `embedindex.archives`).
"""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from embedindex.archives import archive_of, is_archive_name, members
from embedindex.audio import AUDIO_SUFFIXES
from embedindex.errors import AudioError
from embedindex.file_stat import FileStat, member_stat, stat_of
from embedindex.ignore import IGNORE_FILE, Rules, Selection, is_system_folder, read_rules
from embedindex.opening import entries_of, stat_entry, stat_path
from embedindex.remote import RemoteEntry
from embedindex.remote_paths import is_remote, normal_remote

SEPARATOR = os.fsencode(os.sep)
MAP_SUFFIX = b".sfz"
_SUFFIXES = frozenset(os.fsencode(suffix) for suffix in AUDIO_SUFFIXES)


@dataclass(frozen=True)
class Found:
    """One audio file.

    Attributes:
        path: absolute path, bytes.
        stat: what the file system says of it.
        rank: its place among the audio files of its folder, from 0. Of an archive, the first file has 0 and all others
            1: they are then read one after the other.
        archive_ns: when the archive that it lies in was changed (Unix time, nanoseconds), 0 outside of archives.
    """

    path: bytes
    stat: FileStat
    rank: int
    archive_ns: int = 0


@dataclass(frozen=True)
class Listed:
    """A file that a crawl may want in an archive: its path below the archive, its size and time (see `Member`)."""

    name: bytes
    size: int
    changed_ns: int


Entries = list[os.DirEntry[bytes]] | list[RemoteEntry]

# Gives what is in an archive of some stat, None when that cannot be known.
Listing = Callable[[bytes, FileStat], "list[Listed] | None"]


@dataclass
class CrawlTrouble:
    """What a crawl could not see, and what it met beside sounds.

    Attributes:
        maps: SFZ files, which say what instruments samples belong to.
        folders: (path, reason) of folders that could not be listed.
        files: (path, reason) of entries that could not be looked at.
    """

    folders: list[tuple[bytes, str]] = field(default_factory=list)
    files: list[tuple[bytes, str]] = field(default_factory=list)
    maps: list[tuple[bytes, FileStat]] = field(default_factory=list)


def is_audio_name(name: bytes) -> bool:
    """Return whether a file of that name is worth opening."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def _is_looked_at(name: bytes) -> bool:
    return is_audio_name(name) or is_archive_name(name)


def is_hidden(name: bytes) -> bool:
    """Return whether an entry is skipped for its name: hidden ones, and the halves macOS leaves on other disks."""
    return name.startswith(b".")


def list_archive(archive: bytes, _: FileStat | None = None) -> list[Listed] | None:
    """Return the files in an archive that a crawl may want, None when it cannot be read."""
    try:
        found = members(archive)
    except AudioError:
        return None
    return [Listed(one.name, one.size, one.changed_ns) for one in found if _is_wanted_inside(one.name)]


def _is_wanted_inside(name: bytes) -> bool:
    """Return whether a crawl may want a file of an archive; its path below the archive decides."""
    *folders, last = name.split(SEPARATOR)
    skipped = is_hidden(last) or any(is_hidden(folder) or is_system_folder(folder) for folder in folders)
    return not skipped and is_audio_name(last)


def absolute_path(path: bytes) -> bytes:
    """Return a path as the index has it: absolute and normalised, links not resolved."""
    if is_remote(path):
        return normal_remote(path)
    absolute = os.path.abspath(path)
    # POSIX lets a leading "//" mean something else; no system we know makes use of that.
    return absolute[1:] if SEPARATOR == b"/" and absolute.startswith(b"//") else absolute


def joined_path(folder: bytes, name: bytes) -> bytes:
    """Return the path, normalised, that a name stands for in a folder; an absolute name stands for itself.

    Raises:
        UsageError: the folder lies on a server, and the name leads out of that.
    """
    joined = os.path.join(folder, name)
    return absolute_path(joined) if is_remote(joined) else os.path.normpath(joined)


def outermost(paths: Iterable[bytes]) -> list[bytes]:
    """Return absolute, normalised paths without those that lie inside another, in the order given."""
    absolute = dict.fromkeys(absolute_path(path) for path in paths)
    return [path for path in absolute if not any(folder in absolute for folder in folders_above(path))]


def folders_above(path: bytes) -> Iterator[bytes]:
    """Yield the folders above an absolute path, the nearest first."""
    while (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


def lies_in(path: bytes, folder: bytes) -> bool:
    """Return whether `path` is `folder` or below it (by name; both absolute and normalised)."""
    return path == folder or path.startswith(folder.rstrip(SEPARATOR) + SEPARATOR)


def crawl(
    roots: list[bytes], trouble: CrawlTrouble, selection: Selection | None = None, listing: Listing = list_archive
) -> Iterator[Found]:
    """Yield the audio files of some roots (folders or single files), folder by folder.

    An archive that cannot be read is yielded itself, in place of what it holds.

    What cannot be seen is added to `trouble`; nothing is raised for it. Memory holds one folder's names and one number
    per folder. Links are looked at when everything else was seen, so that no file comes twice by way of a link.

    Args:
        roots: absolute, normalised; none inside another.
        trouble: is filled in.
        selection: what to look at; None for everything that no ignore file leaves out.
        listing: says what is in an archive.
    """
    yield from _Crawl(trouble, selection or Selection(), listing).run(roots)


@dataclass(frozen=True)
class _Place:
    """A path that is still to be looked at: under which root it lies, and the rules that hold there."""

    path: bytes
    root: bytes
    rules: Rules | None


class _Crawl:
    """One crawl."""

    def __init__(self, trouble: CrawlTrouble, selection: Selection, listing: Listing) -> None:
        self.trouble = trouble
        self.selection = selection
        self.listing = listing
        self.seen: set[tuple[int, int]] = set()  # folders by device and inode; single files too
        self.links: list[_Place] = []

    def run(self, roots: list[bytes]) -> Iterator[Found]:
        for root in sorted(roots, key=os.path.isfile):  # folders first, here too
            yield from self._root(root)
        to_files: list[_Place] = []
        while self.links:  # folders first: a link to a file in one of them is then no news
            batch, self.links = sorted(self.links, key=lambda link: link.path), []
            for link in batch:
                if os.path.isdir(link.path):
                    yield from self._linked_folder(link)
                else:
                    to_files.append(link)
        for link in sorted(to_files, key=lambda link: link.path):
            yield from self._linked_file(link)

    def _root(self, root: bytes) -> Iterator[Found]:
        """Yield what a root holds. It was named, so that neither its name nor an ignore file is asked about it."""
        try:
            archive = archive_of(root)
            result = stat_path(archive or root)
        except OSError as error:
            self.trouble.folders.append((root, error.strerror or str(error)))
            return
        if archive is not None:  # a file or folder in it was named
            yield from self._archive(_Place(archive, archive, None), stat_of(result), below=root)
        elif stat_module.S_ISDIR(result.st_mode):
            yield from self._folder(_Place(root, root, None), result)
        elif not stat_module.S_ISREG(result.st_mode):
            self.trouble.files.append((root, "is not a regular file"))
        elif not self.selection.leaves_out_below(root, root) and not _was_met(root, result, self.seen):
            self.seen.add((result.st_dev, result.st_ino))
            if is_archive_name(root):
                yield from self._archive(_Place(root, root, None), stat_of(result))
            else:
                yield Found(root, stat_of(result), 0)

    def _archive(self, place: _Place, stat: FileStat, below: bytes = b"") -> Iterator[Found]:
        """Yield the files in an archive, or those in one of its folders; the archive itself when it cannot be read."""
        listed = self.listing(place.path, stat)
        if listed is None:
            yield Found(place.path, stat, 0)
            return
        left_out: dict[bytes, bool] = {place.path: False}

        def leaves_out(folder: bytes) -> bool:
            if folder not in left_out:
                here = _Place(folder, place.root, place.rules)
                left_out[folder] = leaves_out(os.path.dirname(folder)) or self._leaves_out(here, is_folder=True)
            return left_out[folder]

        rank = 0
        for one in listed:
            path = os.path.join(place.path, one.name)
            inside = not below or lies_in(path, below)
            if not inside or leaves_out(os.path.dirname(path)):
                continue
            if not self._leaves_out(_Place(path, place.root, place.rules), is_folder=False):
                yield Found(path, member_stat(one.name, one.size, one.changed_ns, stat), rank, stat.mtime_ns)
                rank = 1

    def _folder(self, top: _Place, result: os.stat_result) -> Iterator[Found]:
        stack = [(top, (result.st_dev, result.st_ino))]
        while stack:
            place, identity = stack.pop()
            if identity in self.seen:
                continue
            self.seen.add(identity)
            listed = self._list(place)
            if listed is None:
                continue
            entries, rules = listed
            if not entries and place.path == place.root and is_remote(place.root):
                self.trouble.folders.append((place.root, "nothing is in it, which may be the server's trouble"))
            inside: list[tuple[_Place, tuple[int, int]]] = []
            rank = 0
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                here = _Place(entry.path, place.root, rules)
                try:
                    if entry.is_symlink():
                        self.links.append(here)
                    elif entry.is_dir(follow_symlinks=False):
                        if not self._leaves_out(here, is_folder=True):
                            below = stat_entry(entry)
                            if not below.st_ino:  # Windows does not say it in listings
                                below = os.lstat(entry.path)
                            inside.append((here, (below.st_dev, below.st_ino)))
                    elif (
                        is_audio_name(entry.name)
                        and entry.is_file(follow_symlinks=False)
                        and not self._leaves_out(here, is_folder=False)
                    ):
                        yield Found(entry.path, stat_of(stat_entry(entry)), rank)
                        rank += 1
                    elif is_archive_name(entry.name) and entry.is_file(follow_symlinks=False):
                        if not self._leaves_out(here, is_folder=True):
                            yield from self._archive(here, stat_of(stat_entry(entry)))
                    elif entry.name.lower().endswith(MAP_SUFFIX) and entry.is_file(follow_symlinks=False):
                        self.trouble.maps.append((entry.path, stat_of(stat_entry(entry))))
                except OSError as error:
                    self.trouble.files.append((entry.path, error.strerror or str(error)))
            stack.extend(reversed(inside))

    def _list(self, place: _Place) -> tuple[Entries, Rules | None] | None:
        """Return what is in a folder, by name, and the rules that hold there; None when that cannot be known."""
        try:
            entries = entries_of(place.path)
        except OSError as error:
            self.trouble.folders.append((place.path, error.strerror or str(error)))
            return None
        try:
            return entries, _rules_in(place, entries)
        except (OSError, ValueError, AudioError) as error:  # nothing is read: it may be just what was to be left out
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.trouble.folders.append((place.path, f"left alone, for its {os.fsdecode(IGNORE_FILE)}: {reason}"))
            return None

    def _leaves_out(self, place: _Place, *, is_folder: bool) -> bool:
        """Return whether an entry is left out: as a system's folder, by an ignore file, or by this run's patterns."""
        if is_folder and is_system_folder(os.path.basename(place.path)):
            return True
        if place.rules is not None and place.rules.leave_out(place.path, is_folder=is_folder):
            return True
        return self.selection.leaves_out(place.path, place.root, is_folder=is_folder)

    def _linked_folder(self, link: _Place) -> Iterator[Found]:
        """Yield what a link to a folder leads to, unless that was met on its own."""
        if self._leaves_out(link, is_folder=True):
            return
        try:
            result = stat_path(link.path)
        except OSError as error:
            self.trouble.folders.append((link.path, error.strerror or str(error)))
            return
        yield from self._folder(link, result)

    def _linked_file(self, link: _Place) -> Iterator[Found]:
        """Yield what a link to a file leads to, unless that was met on its own or through another link."""
        path = link.path
        packed = is_archive_name(path)
        if not _is_looked_at(os.path.basename(path)) or self._leaves_out(link, is_folder=packed):
            return
        try:
            result = stat_path(path)
            if stat_module.S_ISREG(result.st_mode) and not _was_met(path, result, self.seen):
                self.seen.add((result.st_dev, result.st_ino))
                if packed:
                    yield from self._archive(link, stat_of(result))
                else:
                    yield Found(path, stat_of(result), 0)
        except OSError as error:
            reason = "is a link that leads nowhere" if isinstance(error, FileNotFoundError) else error.strerror
            self.trouble.files.append((path, reason or str(error)))


def _rules_in(place: _Place, entries: Entries) -> Rules | None:
    """Return the rules that hold in a folder that has these entries.

    Raises:
        OSError: its ignore file cannot be read.
        ValueError: its ignore file makes no sense.
    """
    for entry in entries:
        if entry.name == IGNORE_FILE and entry.is_file():
            return read_rules(place.path, place.rules)
    return place.rules


def _was_met(path: bytes, result: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    """Return whether the file that `path` leads to came before: by itself, or in a folder that was listed.

    Raises:
        OSError: the file system refused to say.
    """
    if is_remote(path):
        return False
    if (result.st_dev, result.st_ino) in seen:
        return True
    target = os.path.realpath(path)
    name = os.path.basename(target)
    home = os.stat(os.path.dirname(target))
    return (home.st_dev, home.st_ino) in seen and _is_looked_at(name) and not is_hidden(name)
