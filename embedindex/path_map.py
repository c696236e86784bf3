"""The same files under another name: prefixes of paths on one machine and what they are on another. Paths are bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from embedindex.crawl import absolute_path, lies_in
from embedindex.errors import UsageError, display_path


@dataclass(frozen=True)
class PathMap:
    """Pairs of folders, (there, here), absolute and normalised; the longest one that fits counts."""

    pairs: tuple[tuple[bytes, bytes], ...] = ()

    def apply(self, path: bytes) -> bytes:
        """Return what a path there is here; itself when no pair fits."""
        fitting = [pair for pair in self.pairs if lies_in(path, pair[0])]
        if not fitting:
            return path
        there, here = max(fitting, key=lambda pair: len(pair[0]))
        rest = path[len(there.rstrip(b"/")) :].lstrip(b"/")
        return os.path.join(here, rest) if rest else here


def parse_path_map(texts: Iterable[str]) -> PathMap:
    """Return the map that ``OLD=NEW`` texts stand for.

    Raises:
        UsageError: one of them is not two absolute paths, or a folder is mapped twice.
    """
    pairs: dict[bytes, bytes] = {}
    for text in texts:
        there, equals, here = os.fsencode(text).partition(b"=")
        if not equals or not there.startswith(b"/") or not os.path.isabs(here):
            raise UsageError(f"--map {display_path(text)}: write OLD=NEW, two absolute folders: /music=/mnt/nas/music")
        if absolute_path(there) in pairs:
            raise UsageError(f"--map {display_path(text)}: {display_path(there)} is mapped twice; leave one out")
        pairs[absolute_path(there)] = absolute_path(here)
    return PathMap(tuple(pairs.items()))
