"""A scan of some files and folders below the roots does there what a whole scan would do, and nothing elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.indexing import make_sound, names, records, run_scan


def within(*paths: Path) -> tuple[bytes, ...]:
    return tuple(os.fsencode(path) for path in paths)


def test_only_what_is_named_is_looked_at(index: str, library: Path) -> None:
    make_sound(library / "a/1.wav", 300)
    make_sound(library / "b/2.wav", 400)
    run_scan(index, library)
    make_sound(library / "a/3.wav", 500)
    make_sound(library / "b/4.wav", 600)
    (library / "b/2.wav").unlink()
    summary = run_scan(index, library, within=within(library / "a"))
    assert (summary.found, summary.added, summary.forgotten, summary.missing) == (2, 1, 0, 0)
    assert names(index) == {"1.wav", "2.wav", "3.wav"}
    summary = run_scan(index, library, within=within(library / "b/2.wav"))
    assert (summary.found, summary.forgotten) == (0, 1)
    assert names(index) == {"1.wav", "3.wav"}


def test_folder_that_is_gone_is_forgotten_and_its_neighbour_kept(index: str, library: Path) -> None:
    make_sound(library / "a/1.wav", 300)
    make_sound(library / "a.b/2.wav", 400)
    run_scan(index, library)
    shutil.rmtree(library / "a")
    assert run_scan(index, library, within=within(library / "a")).forgotten == 1
    assert names(index) == {"2.wav"}


def test_whole_library_that_is_away_is_not_forgotten(index: str, library: Path) -> None:
    make_sound(library / "a/1.wav", 300)
    run_scan(index, library)
    shutil.rmtree(library / "a")
    summary = run_scan(index, library, within=within(library / "a"))  # the root is empty now, as a mount point would be
    assert (summary.forgotten, summary.missing) == (0, 1)


def test_move_between_folders_keeps_the_vectors(index: str, library: Path) -> None:
    make_sound(library / "a/1.wav", 300)
    make_sound(library / "c/2.wav", 400)
    run_scan(index, library)
    before = {Path(path).name: record.id for path, record in records(index).items()}
    (library / "a").rename(library / "b")
    summary = run_scan(index, library, within=within(library / "a", library / "b"))
    assert (summary.moved, summary.forgotten, summary.windows) == (1, 0, 0)
    assert {Path(path).name: record.id for path, record in records(index).items()} == before


@pytest.mark.parametrize("how", ["file", "options"])
def test_rules_from_above_hold(index: str, library: Path, how: str) -> None:
    make_sound(library / "a/b/1.wav", 300)
    make_sound(library / "a/b/2.wav", 400)
    options: dict[str, object] = {}
    if how == "file":
        (library / ".embedindexignore").write_text("a/b/1.wav\n")
    else:
        options = {"exclude": ("a/b/1.wav",)}
    run_scan(index, library, within=within(library / "a/b"), **options)
    assert names(index) == {"2.wav"}


def test_only_the_root_is_remembered_as_one(index: str, library: Path) -> None:
    from embedindex.store import Store

    make_sound(library / "a/1.wav", 300)
    run_scan(index, library, within=within(library / "a"))
    with Store(index) as store:
        assert [path for _, path, _ in store.roots()] == [os.fsencode(library)]
