"""Candidates of long seeds are laid away and come back as they were, without staying in memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedindex.remix import shelf as module
from embedindex.remix.qualities import EDGE_WIDTH
from embedindex.remix.shelf import Shelf
from embedindex.remix.stretches import Candidates, none
from tests.processes import PATIENCE_S

NAMES = tuple(Candidates.__dataclass_fields__)


def candidates(seed: int, count: int = 96) -> Candidates:
    rng = np.random.default_rng(seed)
    values: list[Any] = [rng.integers(0, 2**40, count) for _ in range(3)]
    values += [rng.random(count, np.float32) for _ in range(3)]
    values += [rng.standard_normal((count, EDGE_WIDTH)).astype(np.float16) for _ in range(2)]
    return Candidates(*values)


def same(one: Candidates, other: Candidates) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in NAMES]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("in_memory", [0, 50_000, 10**8])
def test_what_is_laid_away_comes_back_as_it_was_in_any_thread(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", in_memory or 1)
    found = [none() if seed % 7 == 3 else candidates(seed, 1 + 5 * seed) for seed in range(40)]
    shelf = Shelf()
    for one in found:
        shelf.append(one)
    assert len(shelf) == len(list(shelf)) == 40
    with ThreadPoolExecutor(8) as threads:
        order = np.random.default_rng(1).permutation(np.tile(np.arange(40), 5)).tolist()
        for unit, one in zip(order, threads.map(shelf.__getitem__, order), strict=True):
            assert same(one, found[unit])


def test_another_order_and_changes_leave_the_first_shelf_as_it_is() -> None:
    shelf = Shelf()
    for seed in range(4):
        shelf.append(candidates(seed))
    turned = shelf.in_order([3, 0, 0])
    changed = turned.changed({1: candidates(9, 2), 2: none()})
    assert [len(one) for one in changed] == [96, 2, 0]
    assert same(changed[0], candidates(3))
    assert same(changed[1], candidates(9, 2))
    assert all(same(one, candidates(seed)) for one, seed in zip(turned, (3, 0, 0), strict=True))
    assert all(same(one, candidates(seed)) for seed, one in enumerate(shelf))


def test_memory_does_not_grow_with_the_units() -> None:
    shelf, one = Shelf(), candidates(1)
    tracemalloc.start()
    try:
        for _ in range(6000):  # 58 MB
            shelf.append(one)
        assert sum(len(shelf[unit]) for unit in range(0, 6000, 10)) == 600 * 96
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * module.IN_MEMORY_BYTES


def test_a_full_folder_of_temporary_files_is_named() -> None:
    script = (
        "import resource\n"
        "from embedindex.errors import DiskFullError\n"
        "from embedindex.remix import shelf\n"
        "from tests.test_remix_shelf import candidates\n"
        "shelf.IN_MEMORY_BYTES = 1000\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "pages = shelf.Shelf()\n"
        "try:\n"
        "    for _ in range(30): pages.append(candidates(1))\n"
        "except DiskFullError as error: print(error)\n"
    )
    if sys.platform == "win32":
        pytest.skip("no such limit on Windows")
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "TMPDIR" in ran.stdout
