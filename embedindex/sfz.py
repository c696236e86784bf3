"""SFZ files: which samples an instrument is made of. Only what is needed for that is read, and tolerantly.

Conventions: the format as sfzformat.com describes it: headers in ``<…>``, ``opcode=value``, ``//`` and ``/* */``
comments, ``#define $NAME value``, ``#include "file"`` relative to the file that was opened first, backslashes for
slashes, ``default_path`` put before the names that follow. A sample of a group counts like a region's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from embedindex.archives import open_sound
from embedindex.crawl import joined_path
from embedindex.errors import AudioError, UsageError

MAX_BYTES = 16 << 20  # of a file with all that it includes; sampled pianos have some hundred thousand
MAX_FILES = 256
MAX_VALUE = 1024

_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\w])//[^\n]*", re.DOTALL)
_DIRECTIVE = re.compile(r"""#include\s*"([^"\n]*)"|#define\s+(\$\w+)\s+(\S+)""")
# A value goes on to the next opcode or header, or to the end of the line: names of samples have blanks in them.
_OPCODE = re.compile(r"\b(sample|default_path)=([^\n<]*?)(?=\s+\w+=|\s*<|\s*$)", re.MULTILINE)


@dataclass(frozen=True)
class SfzMap:
    """What an SFZ file names: paths of samples, normalised, and of the files that it includes."""

    samples: tuple[bytes, ...]
    includes: tuple[bytes, ...]


def read_sfz(path: bytes) -> SfzMap:
    """Return what an SFZ file names; what it includes and is not there is left out.

    Raises:
        AudioError: it cannot be read.
    """
    return _Reader(path).read()


class _Reader:
    def __init__(self, path: bytes) -> None:
        self.path = path
        self.folder = os.path.dirname(path)
        self.defines: dict[str, str] = {}
        self.includes: list[bytes] = []
        self.left = MAX_BYTES
        self.default_path = ""
        self.samples: dict[bytes, None] = {}

    def read(self) -> SfzMap:
        self._take(self._text(self.path), (self.path,))
        return SfzMap(tuple(self.samples), tuple(self.includes))

    def _text(self, path: bytes) -> str:
        with open_sound(path) as file:
            data = file.read(max(0, self.left)) or b""
        self.left -= len(data)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
        return _COMMENT.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))

    def _take(self, text: str, within: tuple[bytes, ...]) -> None:
        """Read a text from front to back: what is defined, included and set counts for what follows."""
        position = 0
        for directive in _DIRECTIVE.finditer(text):
            self._opcodes(text[position : directive.start()])
            position = directive.end()
            if directive[2]:
                self.defines[directive[2]] = self._replaced(directive[3])[:MAX_VALUE]
            else:
                self._include(self._path(self._replaced(directive[1])), within)
        self._opcodes(text[position:])

    def _include(self, path: bytes, within: tuple[bytes, ...]) -> None:
        if path in within or len(self.includes) >= MAX_FILES:
            return
        try:
            text = self._text(path)
        except AudioError:
            return
        self.includes.append(path)
        self._take(text, (*within, path))

    def _opcodes(self, text: str) -> None:
        for opcode, value in _OPCODE.findall(self._replaced(text)):
            if opcode == "default_path":
                self.default_path = value.strip()
            elif value.strip() and not value.startswith("*"):  # a generator: *sine
                self.samples[self._path(self.default_path + value.strip())] = None

    def _replaced(self, text: str) -> str:
        if "$" not in text:
            return text
        names = sorted(self.defines, key=len, reverse=True)
        if not names:
            return text
        pattern = re.compile("|".join(map(re.escape, names)))
        return pattern.sub(lambda match: self.defines[match[0]], text)

    def _path(self, name: str) -> bytes:
        try:
            return joined_path(self.folder, os.fsencode(name.replace("\\", "/").replace("\0", "")))
        except UsageError:  # it leads out of its server
            return self.path


def sample_key(path: bytes) -> str:
    """Return a path as samples are compared: SFZ files come from systems where capitals do not count."""
    return path.decode("utf-8", "surrogateescape").casefold()
