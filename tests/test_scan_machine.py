"""Any sequence of changes to a library, with scans in between, against a plain account of what an index must hold.

The library has few names and few contents, so that moves, swaps, copies and returns happen all the time. Workers are
real processes, shared by all examples; every scan is followed by `verify`, and every vector is compared with that of
the file's content embedded by itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from embedindex.arrays import Float16Array
from embedindex.audio import MAX_DURATION_S
from embedindex.embed import embed_file
from embedindex.models import load_model
from embedindex.scan import scan
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.worker import WorkerSetup
from embedindex.workers import WorkerPool
from tests.indexing import LONG_AGO_NS, OPTIONS, TINY, TINY_RATE
from tests.sounds import sine, write_wav

FOLDERS = ("", "a", "a/b", "c")
FILES = ("x.wav", "y.wav", "\udcff z.wav")  # the last one is no UTF-8
SOUNDS = 4  # contents 0…3 are sounds, 4 is text, 5 is nothing at all, 6 is silence
CONTENTS = 7
CONTENT_FILES = tempfile.TemporaryDirectory(prefix="embedindex-contents-")

paths = st.builds(lambda folder, file: os.path.join(folder, file), st.sampled_from(FOLDERS), st.sampled_from(FILES))
contents = st.integers(0, CONTENTS - 1)


@lru_cache
def content_file(content: int) -> Path:
    """Return a file with that content, outside any library."""
    path = Path(CONTENT_FILES.name, f"{content}.wav")
    if content < SOUNDS:
        # Two pairs of equal size: a change that only the time of change shows.
        write_wav(path, sine(300.0 * (content + 1), 0.4 + 0.8 * (content % 2), TINY_RATE), TINY_RATE)
    elif content == SOUNDS:
        path.write_text("no sound at all")
    elif content == SOUNDS + 1:
        path.write_bytes(b"")
    else:
        write_wav(path, np.zeros(TINY_RATE, np.float32), TINY_RATE)
    return path


@lru_cache
def vectors(content: int) -> Float16Array | None:
    """Return the vectors of a content; None for one that cannot be used."""
    if content in (SOUNDS, SOUNDS + 1):
        return None
    return embed_file(str(content_file(content)), load_model(TINY), 0.5).vectors


class Library(RuleBasedStateMachine):
    """The library on disk, what it should look like, and its index."""

    pool: WorkerPool

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="embedindex-machine-"))
        self.root = self.top / "library"
        self.index = str(self.top / "index")
        self.on_disk: dict[str, int] = {}
        self.clock = 0
        self.scanned: dict[str, int] | None = None  # what the last scan saw
        self.missing: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.top)

    @initialize()
    def start(self) -> None:
        self.root.mkdir()

    def full(self, path: str) -> Path:
        return self.root / path

    def stamp(self, path: str) -> None:
        self.clock += 1
        at_ns = LONG_AGO_NS + self.clock * 1_000_003
        os.utime(self.full(path), ns=(at_ns, at_ns))

    @rule(path=paths, content=contents)
    def write(self, path: str, content: int) -> None:
        self.full(path).parent.mkdir(parents=True, exist_ok=True)
        self.full(path).unlink(missing_ok=True)  # a hard link to it keeps its content
        shutil.copyfile(content_file(content), self.full(path))
        self.stamp(path)
        self.on_disk[path] = content

    @rule(path=paths)
    def touch(self, path: str) -> None:
        if path in self.on_disk:
            self.stamp(path)

    @rule(path=paths)
    def delete(self, path: str) -> None:
        if path in self.on_disk:
            self.full(path).unlink()
            del self.on_disk[path]

    @rule(source=paths, goal=paths)
    def move(self, source: str, goal: str) -> None:
        if source in self.on_disk and source != goal:
            self.full(goal).parent.mkdir(parents=True, exist_ok=True)
            if goal in self.on_disk and self.full(source).samefile(self.full(goal)):
                self.full(goal).unlink()  # rename(2) does nothing between two names of one file
            self.full(source).rename(self.full(goal))
            self.on_disk[goal] = self.on_disk.pop(source)

    @rule(first=paths, second=paths)
    def swap(self, first: str, second: str) -> None:
        if first in self.on_disk and second in self.on_disk and first != second:
            spare = self.root / "spare.tmp"
            self.full(first).rename(spare)
            self.full(second).rename(self.full(first))
            spare.rename(self.full(second))
            self.on_disk[first], self.on_disk[second] = self.on_disk[second], self.on_disk[first]

    @rule(folder=st.sampled_from(FOLDERS[1:]), name=st.sampled_from(("d", "a/e", "c/f")))
    def move_folder(self, folder: str, name: str) -> None:
        inside = {path: content for path, content in self.on_disk.items() if path.startswith(folder + "/")}
        target = self.root / name
        if not inside or target.exists() or name.startswith(folder + "/"):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.root / folder).rename(target)
        for path, content in inside.items():
            del self.on_disk[path]
            self.on_disk[name + path[len(folder) :]] = content

    @rule(source=paths, goal=paths)
    def hard_link(self, source: str, goal: str) -> None:
        if source in self.on_disk and goal not in self.on_disk:
            self.full(goal).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.full(source), self.full(goal))
            self.on_disk[goal] = self.on_disk[source]

    @rule(prune=st.booleans())
    def scan(self, prune: bool) -> None:
        options = replace(OPTIONS, prune=prune)
        summary = scan(self.index, [os.fsencode(self.root)], options, pool=self.pool)
        assert summary.found == len(self.on_disk)
        known = set(self.scanned or {}) | self.missing
        if next(self.root.iterdir(), None) is None and not prune:
            self.missing = known  # an empty root looks like a disk that is not mounted
        else:
            self.missing = set()
        self.scanned = dict(self.on_disk)

    @precondition(lambda self: self.scanned is not None)
    @rule()
    def scan_again(self) -> None:
        if self.scanned == self.on_disk and not self.missing:
            before = scan(self.index, [os.fsencode(self.root)], OPTIONS, pool=self.pool)
            after = scan(self.index, [os.fsencode(self.root)], OPTIONS, pool=self.pool)
            assert before.found == after.unchanged == len(self.on_disk)

    @invariant()
    def index_holds_what_the_last_scan_saw(self) -> None:
        if self.scanned is None:
            return
        with Store(self.index) as store:
            assert verify(store).problems == ()
            held = {}
            for record in store.files():
                path = os.path.relpath(record.text_path, self.root)
                if record.missing_since is not None:
                    assert path in self.missing
                    continue
                held[path] = record
            assert held.keys() == self.scanned.keys()
            for path, record in held.items():
                wanted = vectors(self.scanned[path])
                assert (record.status == "failed") == (wanted is None)
                if wanted is not None:
                    np.testing.assert_array_equal(store.vectors_of(record), wanted)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    setup = WorkerSetup(TINY, 0.5, MAX_DURATION_S, niceness=0)
    with WorkerPool(setup, 2, load_model(TINY).identity.fingerprint) as workers:
        yield workers


@pytest.mark.timeout(1800)
def test_index_follows_any_sequence_of_changes(pool: WorkerPool) -> None:
    Library.pool = pool
    run_state_machine_as_test(Library, settings=settings(max_examples=200, stateful_step_count=25, deadline=None))
