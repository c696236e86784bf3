"""The list of work, the set of ids, and the judgement whether what was not met is gone or out of sight."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from embedindex.changes import IdSet, TodoList, disk_is_there, is_gone, may_be_forgotten
from embedindex.crawl import CrawlTrouble, Found
from embedindex.file_stat import FileStat, file_stat


def found(path: bytes, rank: int, size: int = 1) -> Found:
    return Found(path, FileStat(size, 2, -3, 4), rank)


def test_work_shows_something_of_every_folder_first() -> None:
    with TodoList() as todo:
        for folder in (b"/a", b"/b"):
            for rank in range(3):
                todo.add(found(folder + b"/%d.wav" % rank, rank), None)
        assert [item.path for item in todo] == [
            b"/a/0.wav",
            b"/b/0.wav",
            b"/a/1.wav",
            b"/b/1.wav",
            b"/a/2.wav",
            b"/b/2.wav",
        ]


def test_work_keeps_everything_it_was_told() -> None:
    with TodoList() as todo:
        todo.add(found(b"/\xff\n.wav", 0, 10), 7)
        todo.add(found(b"/b.wav", 0, 20), None)
        first, second = todo
        assert (todo.files, todo.bytes) == (2, 30)
    assert (first.path, first.stat, first.known) == (b"/\xff\n.wav", FileStat(10, 2, -3, 4), 7)
    assert second.known is None
    assert first.number != second.number


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100_000))))
def test_id_set_is_a_set(steps: list[tuple[bool, int]]) -> None:
    ours, reference = IdSet(), set[int]()
    for put, number in steps:
        if put:
            ours.add(number)
            reference.add(number)
        else:
            ours.discard(number)
            reference.discard(number)
    for number in {number for _, number in steps} | {0, 7, 8, 4095, 10**9}:
        assert (number in ours) == (number in reference)


def test_gone_is_what_has_no_name_any_more(library: Path) -> None:
    (library / "broken.wav").symlink_to("nowhere")
    (library / "file").touch()
    assert not is_gone(os.fsencode(library / "broken.wav"))
    assert is_gone(os.fsencode(library / "x.wav"))
    assert is_gone(os.fsencode(library / "file" / "x.wav"))
    assert not is_gone(os.fsencode(library / ("n" * 300)))  # cannot be looked at


def test_disk_is_judged_by_the_nearest_folder_that_is_left(library: Path) -> None:
    device = file_stat(str(library)).device
    path = os.fsencode(library / "gone" / "deeper" / "x.wav")
    assert disk_is_there(path, device)
    assert not disk_is_there(path, device + 1)


def test_deleted_file_may_be_forgotten(library: Path) -> None:
    (library / "left.wav").touch()
    root, device = os.fsencode(library), file_stat(str(library)).device
    assert may_be_forgotten(root + b"/x.wav", device, root, CrawlTrouble())


def test_nothing_below_what_could_not_be_seen_is_forgotten(library: Path) -> None:
    (library / "left.wav").touch()
    root, device = os.fsencode(library), file_stat(str(library)).device
    trouble = CrawlTrouble(folders=[(root + b"/locked", "Permission denied")], files=[(root + b"/y.wav", "odd")])
    assert not may_be_forgotten(root + b"/locked/deep/x.wav", device, root, trouble)
    assert not may_be_forgotten(root + b"/y.wav", device, root, trouble)
    assert may_be_forgotten(root + b"/locked2/x.wav", device, root, trouble)


def test_nothing_of_an_empty_or_missing_root_is_forgotten(library: Path) -> None:
    root, device = os.fsencode(library), file_stat(str(library)).device
    assert not may_be_forgotten(root + b"/x.wav", device, root, CrawlTrouble())
    assert not may_be_forgotten(root + b"/gone/x.wav", device, root + b"/gone", CrawlTrouble())
