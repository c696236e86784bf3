"""What networks leave behind in memory."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

from embedindex.models.engines import release_freed_memory

BLOCK = 4000
BLOCKS = 25_000


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can be asked for it"
)
def test_freed_memory_below_what_is_in_use_goes_back_to_the_system() -> None:
    blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
    last = blocks[-1]
    del blocks
    before = resident_bytes()
    release_freed_memory()
    assert before - resident_bytes() > BLOCK * BLOCKS / 2
    assert len(last) == BLOCK
