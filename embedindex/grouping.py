"""Results by instrument or by folder: one line for each, with its best file, and how many of its files were found.

A search is asked for more and more files until there are enough groups. A file that belongs to no instrument is a group
by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from embedindex.records import FileRecord
from embedindex.search import Found, Hit

GroupBy = Literal["instrument", "folder"]
FIRST_DEPTH = 4  # so many files are asked for, for each group that is wanted


def group_hits(ask: Callable[[int], list[Hit]], k: int, by: GroupBy) -> list[Hit]:
    """Return the best file of each of the `k` best groups, the best first, ranked anew.

    Each says how many files of its group are at least as good as the last one that is returned.

    Args:
        ask: gives the so many best files.
        k: how many groups.
        by: what makes a group.
    """
    depth = FIRST_DEPTH * k
    while True:
        hits = ask(depth)
        groups: dict[object, list[Hit]] = {}
        for hit in hits:
            groups.setdefault(_group(hit.file, by), []).append(hit)
        if len(groups) >= k or len(hits) < depth:
            break
        depth *= FIRST_DEPTH
    shown = list(groups.values())[:k]
    worst = shown[-1][0].score if shown else 0.0
    return [
        replace(group[0], rank=rank, group=Found(_name(group[0].file, by), sum(hit.score >= worst for hit in group)))
        for rank, group in enumerate(shown, 1)
    ]


def _group(file: FileRecord, by: GroupBy) -> object:
    if by == "folder":
        return os.path.dirname(file.path)
    return file.id if file.instrument is None else file.instrument


def _name(file: FileRecord, by: GroupBy) -> str | None:
    return os.path.dirname(file.text_path) if by == "folder" else file.instrument
