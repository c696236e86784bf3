"""What a crawl leaves out: ``.embedindexignore`` files, the include and exclude patterns of one run, system folders.

Conventions: patterns are Git's (gitignore(5)); they are matched by the library pathspec against a path relative to the
folder that the patterns belong to. Paths are bytes; patterns are text as the system decodes names (surrogateescape).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedindex.errors import UsageError, display_path
from embedindex.remote import open_remote
from embedindex.remote_paths import is_remote

SEPARATOR = os.fsencode(os.sep)
IGNORE_FILE = b".embedindexignore"
IGNORE_MAX_BYTES = 1 << 20

FOLDER_MARK = "ps_d"  # pathspec's name for the slash after a folder that a pattern matched

# Folders that systems and devices keep beside people's files, in small letters; nobody's library is in them.
SYSTEM_FOLDERS = frozenset(
    (
        b"$recycle.bin",  # Windows
        b"recycler",
        b"system volume information",
        b"lost+found",  # ext4
        b"__macosx",  # macOS, in archives: halves of files that have nothing of the sound
        b"@eadir",  # Synology: thumbnails and indexes
        b"#recycle",
        b"#snapshot",
        b"@recycle",  # QNAP
        b"@recently-snapshot",
    )
)


def is_system_folder(name: bytes) -> bool:
    """Return whether a folder is skipped for its name; hidden ones are another matter."""
    return name.lower() in SYSTEM_FOLDERS


class Patterns:
    """A list of patterns; the last one that matches decides.

    A crawl asks about every folder on its way down, as Git does. So a pattern must match the path itself here; pathspec
    lets it match what is below as well, and marks the slash of the folder that it matched.

    Args:
        lines: the patterns, blank lines and comments among them.

    Raises:
        ValueError: one is no pattern; the message says which.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

        found: list[tuple[re.Pattern[str], bool]] = []
        for number, line in enumerate(lines, 1):
            try:
                pattern = GitIgnoreSpecPattern(line)
            except ValueError:
                raise ValueError(f"line {number} is no pattern: {line}") from None
            if pattern.regex is not None and pattern.include is not None:
                found.append((pattern.regex, pattern.include))
        self._last_first = found[::-1]

    def verdict(self, path: bytes, folder: bytes, *, is_folder: bool) -> bool | None:
        """Return True when the patterns of `folder` match a path below it, False when they take it back, else None."""
        text = os.fsdecode(path[len(folder.rstrip(SEPARATOR)) + 1 :]).replace(os.sep, "/")
        # A pattern is one line; in a regular expression a new line is no character like others, NUL is in no name.
        text = text.replace("\n", "\0")
        return next((include for regex, include in self._last_first if _matches(regex, text, is_folder)), None)

    def reaches(self, path: bytes, folder: bytes) -> bool:
        """Return whether the patterns of `folder` match a file below it, or a folder between the two."""
        verdict = self.verdict(path, folder, is_folder=False)
        while verdict is None and len(path := os.path.dirname(path)) > len(folder):
            verdict = self.verdict(path, folder, is_folder=True)
        return verdict is True


def _matches(regex: re.Pattern[str], text: str, is_folder: bool) -> bool:
    """Return whether a pattern of pathspec matches a path itself, as opposed to a folder above it."""
    if FOLDER_MARK not in regex.groupindex:  # "**", "x/**": all that is below
        return regex.search(text) is not None
    text = text + "/" if is_folder else text
    if not regex.pattern.startswith("^"):  # "*/": every folder
        return is_folder
    match = regex.search(text)
    return match is not None and match.end() == len(text)


@dataclass(frozen=True)
class Rules:
    """The patterns of the ignore file in a folder, and those of the folders above it.

    Attributes:
        folder: where the ignore file lies.
        patterns: what is in it.
        above: the rules that hold where these say nothing.
    """

    folder: bytes
    patterns: Patterns
    above: Rules | None

    def leave_out(self, path: bytes, *, is_folder: bool) -> bool:
        """Return whether a path below the folder is to be left out; the nearest file that says something decides."""
        rules: Rules | None = self
        while rules is not None:
            verdict = rules.patterns.verdict(path, rules.folder, is_folder=is_folder)
            if verdict is not None:
                return verdict
            rules = rules.above
        return False


def read_rules(folder: bytes, above: Rules | None) -> Rules:
    """Return the rules of the ignore file in `folder`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long, or a line is no pattern.
    """
    path = os.path.join(folder, IGNORE_FILE)
    with open_remote(path) if is_remote(path) else open(path, "rb", buffering=0) as file:
        content = file.read(IGNORE_MAX_BYTES + 1) or b""
    if len(content) > IGNORE_MAX_BYTES:
        raise ValueError("is more than a megabyte long")
    lines = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n")
    return Rules(folder, Patterns([line.removesuffix("\r") for line in lines]), above)


class Selection:
    """What one run looks at: files that an include pattern matches, if there are any, and that no exclude one does.

    Args:
        include: patterns of files, relative to the folder that is scanned.
        exclude: patterns of files and folders, likewise.
        within: files and folders (absolute paths) outside of which nothing is looked at; None for no such limit.

    Raises:
        UsageError: one is no pattern.
    """

    def __init__(
        self, include: Sequence[str] = (), exclude: Sequence[str] = (), within: Sequence[bytes] | None = None
    ) -> None:
        self._include = _given("--include", include)
        self._exclude = _given("--exclude", exclude)
        self._within = None if within is None else frozenset(within)
        self._on_the_way = frozenset(folder for path in within or () for folder in _and_above(path))

    def leaves_out(self, path: bytes, root: bytes, *, is_folder: bool) -> bool:
        """Return whether a path below `root` is left out, for its own sake."""
        if self._is_elsewhere(path, is_folder=is_folder):
            return True
        if self._exclude is not None and self._exclude.verdict(path, root, is_folder=is_folder):
            return True
        return self._include is not None and not is_folder and not self._include.reaches(path, root)

    def _is_elsewhere(self, path: bytes, *, is_folder: bool) -> bool:
        """Return whether a path lies outside of what is looked at, and does not lead there."""
        if self._within is None or (is_folder and path in self._on_the_way):
            return False
        return not any(folder in self._within for folder in _and_above(path))

    def leaves_out_below(self, path: bytes, root: bytes) -> bool:
        """Return whether a file is left out for its own sake, or because a folder between it and `root` is."""
        if self._is_elsewhere(path, is_folder=False):
            return True
        if self._include is None and self._exclude is None:
            return False
        if path == root:
            return self.leaves_out(path, os.path.dirname(path), is_folder=False)
        if self.leaves_out(path, root, is_folder=False):
            return True
        folder = os.path.dirname(path)
        while len(folder) > len(root):
            if self.leaves_out(folder, root, is_folder=True):
                return True
            folder = os.path.dirname(folder)
        return False


def _and_above(path: bytes) -> Iterator[bytes]:
    """Yield a path and the folders above it."""
    yield path
    while (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


def _given(option: str, globs: Sequence[str]) -> Patterns | None:
    """Return the patterns of an option, None when it was not given."""
    for glob in globs:
        try:
            empty = not glob.strip() or glob.startswith("#") or "\n" in glob
            Patterns([glob])
        except ValueError:
            empty = True
        if empty:
            raise UsageError(
                f"{option} {display_path(glob)}: this is no pattern; write for example '*.mp3' or 'loops/'"
            )
    return Patterns(globs) if globs else None
