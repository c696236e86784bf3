"""Crawling: which files of a folder tree are met, each of them once, and what is said of the others."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from embedindex.crawl import CrawlTrouble, absolute_path, crawl, is_audio_name, lies_in, outermost
from embedindex.file_stat import file_stat


def touch(path: Path | bytes | str) -> Path:
    os.makedirs(os.path.dirname(os.fsencode(path)), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"sound")
    return Path(os.fsdecode(path))


def met(*roots: Path, trouble: CrawlTrouble | None = None) -> list[str]:
    """Crawl, and return the paths met relative to the first root's parent."""
    trouble = CrawlTrouble() if trouble is None else trouble
    found = crawl([os.fsencode(root) for root in roots], trouble)
    return [os.path.relpath(os.fsdecode(file.path), roots[0].parent) for file in found]


def test_audio_is_known_by_its_suffix_in_any_case(library: Path) -> None:
    for name in ("a.WAV", "b.Mp3", "c.flac", "d.txt", "wav", ".wav", "e.wav.asd"):
        touch(library / name)
    assert met(library) == ["library/a.WAV", "library/b.Mp3", "library/c.flac"]


def test_hidden_files_folders_and_links_are_skipped(library: Path) -> None:
    touch(library / ".hidden.wav")
    touch(library / "._a.wav")
    touch(library / ".git" / "a.wav")
    touch(library / "a.wav")
    (library / ".link.wav").symlink_to(touch(library.parent / "other.wav"))
    assert met(library) == ["library/a.wav"]


def test_folder_named_like_a_sound_is_a_folder(library: Path) -> None:
    touch(library / "kit.wav" / "kick.wav")
    assert met(library) == ["library/kit.wav/kick.wav"]


def test_rank_counts_the_audio_files_of_a_folder(library: Path) -> None:
    for name in ("b.wav", "a.wav", "note.txt", "c.wav"):
        touch(library / name)
    touch(library / "sub" / "d.wav")
    found = list(crawl([os.fsencode(library)], CrawlTrouble()))
    assert [(os.path.basename(file.path), file.rank) for file in found] == [
        (b"a.wav", 0),
        (b"b.wav", 1),
        (b"c.wav", 2),
        (b"d.wav", 0),
    ]


def test_stat_is_that_of_the_file_also_through_a_link(library: Path) -> None:
    path = touch(library.parent / "outside" / "a.wav")
    (library / "link.wav").symlink_to(path)
    (found,) = crawl([os.fsencode(library)], CrawlTrouble())
    assert found.stat == file_stat(str(path))
    assert found.stat.size == 5


def test_link_loops_end(library: Path) -> None:
    touch(library / "a" / "x.wav")
    (library / "a" / "up").symlink_to(library)
    (library / "a" / "self").symlink_to("self")
    (library / "ring1").symlink_to("ring2")
    (library / "ring2.wav").symlink_to("ring2.wav")
    trouble = CrawlTrouble()
    assert met(library, trouble=trouble) == ["library/a/x.wav"]
    assert [os.path.basename(path) for path, _ in trouble.files] == [b"ring2.wav"]


def test_linked_outside_folder_is_followed_once(library: Path) -> None:
    outside = library.parent / "outside"
    touch(outside / "deep" / "x.wav")
    (library / "one").symlink_to(outside)
    (library / "two").symlink_to(outside)
    (library / "three").symlink_to(outside / "deep")
    assert met(library) == ["library/one/deep/x.wav"]


def test_link_to_a_folder_inside_the_library_is_not_followed(library: Path) -> None:
    touch(library / "z" / "x.wav")
    (library / "a").symlink_to(library / "z")
    assert met(library) == ["library/z/x.wav"]


def test_link_met_behind_a_link_is_followed_too(library: Path) -> None:
    outside, further = library.parent / "outside", library.parent / "further"
    touch(further / "x.wav")
    touch(outside / "y.wav")
    (outside / "on").symlink_to(further)
    (library / "out").symlink_to(outside)
    assert sorted(met(library)) == ["library/out/on/x.wav", "library/out/y.wav"]


def test_links_to_one_outside_file_give_it_once(library: Path) -> None:
    outside = touch(library.parent / "outside" / "x.wav")
    (library / "b.wav").symlink_to(outside)
    (library / "a.wav").symlink_to(outside)
    assert met(library) == ["library/a.wav"]


def test_file_met_in_a_linked_folder_does_not_come_again_by_its_own_link(library: Path) -> None:
    outside = touch(library.parent / "outside" / "x.wav")
    (library / "a.wav").symlink_to(outside)  # sorts before the link to its folder
    (library / "z").symlink_to(outside.parent)
    assert met(library) == ["library/z/x.wav"]


def test_link_to_a_file_that_is_no_audio_by_name_or_hidden_is_followed(library: Path) -> None:
    (library / "a.wav").symlink_to(touch(library / "recording"))
    (library / "b.wav").symlink_to(touch(library / ".cache" / "x.wav"))
    (library / "c.wav").symlink_to(touch(library / ".y.wav"))
    assert met(library) == ["library/a.wav", "library/b.wav", "library/c.wav"]


def test_broken_link_is_reported_when_its_name_is_audio(library: Path) -> None:
    (library / "gone.wav").symlink_to("nowhere.wav")
    (library / "gone.txt").symlink_to("nowhere.txt")
    trouble = CrawlTrouble()
    assert met(library, trouble=trouble) == []
    assert trouble.files == [(os.fsencode(library / "gone.wav"), "is a link that leads nowhere")]


def test_pipes_and_sockets_named_like_sounds_are_left_alone(library: Path) -> None:
    os.mkfifo(library / "pipe.wav")
    (library / "link.wav").symlink_to(library / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(library)  # the names of sockets must be short
        try:
            listener.bind("socket.wav")
        finally:
            os.chdir(before)
        touch(library / "a.wav")
        assert met(library) == ["library/a.wav"]


def test_pipe_as_a_root_is_reported(library: Path) -> None:
    os.mkfifo(library / "pipe.wav")
    trouble = CrawlTrouble()
    assert list(crawl([os.fsencode(library / "pipe.wav")], trouble)) == []
    assert trouble.files == [(os.fsencode(library / "pipe.wav"), "is not a regular file")]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to the superuser")
def test_folder_without_permission_is_reported_and_the_rest_is_met(library: Path) -> None:
    touch(library / "locked" / "x.wav")
    touch(library / "open" / "y.wav")
    (library / "locked").chmod(0)
    trouble = CrawlTrouble()
    try:
        assert met(library, trouble=trouble) == ["library/open/y.wav"]
    finally:
        (library / "locked").chmod(stat.S_IRWXU)
    assert trouble.folders == [(os.fsencode(library / "locked"), "Permission denied")]


def test_missing_root_is_reported(library: Path) -> None:
    trouble = CrawlTrouble()
    touch(library / "a.wav")
    assert met(library, library / "gone", trouble=trouble) == ["library/a.wav"]
    assert trouble.folders == [(os.fsencode(library / "gone"), "No such file or directory")]


def test_root_that_is_a_link_keeps_its_own_name(library: Path) -> None:
    touch(library / "a.wav")
    alias = library.parent / "alias"
    alias.symlink_to(library)
    assert met(alias) == ["alias/a.wav"]
    assert met(library, alias) == ["library/a.wav"]


def test_root_that_is_a_file_is_taken_whatever_its_name_and_once(library: Path) -> None:
    path = touch(library / "recording")
    alias = library / "alias"
    alias.symlink_to(path)
    assert met(path, alias) == ["recording"]
    sound = touch(library / "in" / "a.wav")
    other = library.parent / "a.wav"
    other.symlink_to(sound)
    assert [os.path.basename(path) for path in met(other, library)] == ["a.wav"]


def test_names_of_any_bytes_are_met_exactly(library: Path) -> None:
    names = [b"\xff\xfe.wav", "🥁.wav".encode(), b"new\nline.wav", b"\x1b[31m.wav", b"n" * 251 + b".wav"]
    for name in names:
        touch(os.path.join(os.fsencode(library), name))
    found = crawl([os.fsencode(library)], CrawlTrouble())
    assert sorted(os.path.basename(file.path) for file in found) == sorted(names)


def test_tree_deeper_than_a_path_may_be_long_is_met_as_far_as_it_goes(library: Path) -> None:
    touch(library / "first.wav")
    before = Path.cwd()
    os.chdir(library)
    try:
        for _ in range(22):  # 22 × 200 bytes > PATH_MAX
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        with open("last.wav", "wb"):
            pass
    finally:
        os.chdir(before)
    trouble = CrawlTrouble()
    try:
        assert met(library, trouble=trouble) == ["library/first.wav"]
        assert [reason for _, reason in trouble.folders + trouble.files] == ["File name too long"]
    finally:
        shutil.rmtree(library)


def test_many_levels_do_not_exhaust_the_stack(library: Path) -> None:
    before, levels = Path.cwd(), 1500
    os.chdir(library)
    try:
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        with open("x.wav", "wb"):
            pass
        assert met(library) == [os.path.join("library", *["d"] * levels, "x.wav")]
    finally:  # level by level: what removes folders elsewhere would exhaust the stack, also when this was interrupted
        if os.path.exists("x.wav"):
            os.unlink("x.wav")
        while os.path.isdir("d") or os.path.basename(os.getcwd()) == "d":
            if os.path.isdir("d"):
                os.rmdir("d")
            else:
                os.chdir("..")
        os.chdir(before)


def test_outermost_drops_nested_and_repeated_roots_and_keeps_the_order() -> None:
    paths = [b"/music/b", b"/music/a/", b"/music/a/x", b"/music/b", b"/music/ab", b"/music/a/../a/y"]
    assert outermost(paths) == [b"/music/b", b"/music/a", b"/music/ab"]


def test_outermost_of_the_root_folder_is_the_root_folder() -> None:
    assert outermost([b"/music", b"/", b"//"]) == [b"/"]
    assert outermost([b"."]) == [os.fsencode(os.getcwd())]


def test_two_leading_slashes_are_one() -> None:
    assert absolute_path(b"//music//a.wav") == b"/music/a.wav"
    assert absolute_path(b"///music") == b"/music"


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [
        (b"/a/b", b"/a", True),
        (b"/a", b"/a", True),
        (b"/ab", b"/a", False),
        (b"/a", b"/a/b", False),
        (b"/a", b"/", True),
        (b"/", b"/", True),
    ],
)
def test_lies_in_goes_by_whole_names(path: bytes, folder: bytes, inside: bool) -> None:
    assert lies_in(path, folder) is inside


def test_dotted_names_are_judged_by_their_last_suffix() -> None:
    assert is_audio_name(b"a.b.wav")
    assert not is_audio_name(b"a.wav.")
    assert not is_audio_name(b".mp3")
