"""What a scan leaves out: ignore files as Git reads them, the patterns of one run, and what the index keeps of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from embedindex.crawl import CrawlTrouble, crawl
from embedindex.errors import UsageError
from embedindex.estimate import estimate
from embedindex.ignore import IGNORE_MAX_BYTES, Patterns, Selection
from embedindex.models import load_model
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal
from tests.indexing import TINY, make_sound, names, one, run_scan


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"sound")


def met(folder: Path, selection: Selection | None = None, trouble: CrawlTrouble | None = None) -> list[str]:
    found = crawl([os.fsencode(folder)], trouble or CrawlTrouble(), selection)
    return sorted(os.path.relpath(os.fsdecode(file.path), folder) for file in found)


TREE = (
    *("a.wav", "b.wav", "keep.wav", "loops/a.wav", "loops/deep/b.wav", "loops/keep.wav", "x/loops/c.wav"),
    *(
        "x/y/a.wav",
        "x/y/z/keep.wav",
        "x/a1.wav",
        "x/a2.wav",
        "sp ace.wav",
        "A.wav",
        "[a].wav",
        "ü.wav",
        "loops/loops/a.wav",
        "x/x/b.wav",
    ),
)


@pytest.mark.parametrize(
    "lines",
    [
        ["a.wav"],
        ["/a.wav"],
        ["loops"],
        ["loops/"],
        ["/loops/"],
        ["loops/*", "!loops/keep.wav"],
        ["loops/", "!loops/keep.wav"],
        ["*.wav", "!keep.wav"],
        ["*", "!*/", "!keep.wav"],
        ["/*", "!/x/", "/x/*", "!/x/y/"],
        ["x/**/a.wav"],
        ["**/y"],
        ["x/**"],
        ["x/**", "!x/a1.wav"],
        ["loops/**", "!loops/*/", "!loops/deep/*"],
        ["*.wav", "!x/"],
        ["*.wav", "!loops/", "!keep.wav"],
        ["**/loops/**", "!c.wav"],
        ["*/"],
        ["*/*/", "!x/y/"],
        ["**", "!x", "!x/y/"],
        ["a?.wav", "[ab].wav"],
        ["x/a[!1].wav"],
        ["# a.wav", "", "sp ace.wav  ", "\\[a\\].wav"],
        ["a.wav", "!a.wav", "/x/y/a.wav"],
        ["ü.wav"],
        ["y/a.wav", "x/y"],
    ],
)
@pytest.mark.skipif(shutil.which("git") is None, reason="git, the reference, is not here")
def test_patterns_mean_what_they_mean_to_git(library: Path, lines: list[str]) -> None:
    touch(library, *TREE)
    (library / ".embedindexignore").write_text("\n".join(lines), encoding="utf-8")
    (library / ".gitignore").write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=library, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard", "*.wav"],
        cwd=library,
        check=True,
        capture_output=True,
    ).stdout
    assert met(library) == sorted(os.fsdecode(path) for path in listed.split(b"\0") if path)


def test_nearer_ignore_file_decides(library: Path) -> None:
    touch(library, "a.wav", "x/a.wav", "x/b.wav", "x/y/a.wav", "x/y/b.wav")
    (library / ".embedindexignore").write_text("a.wav\n")
    (library / "x" / ".embedindexignore").write_text("!a.wav\nb.wav\n")
    (library / "x" / "y" / ".embedindexignore").write_text("/a.wav\r\n!b.wav\r\n")
    assert met(library) == ["x/a.wav", "x/y/b.wav"]


def test_rules_hold_behind_links_and_for_links(library: Path) -> None:
    outside = library.parent / "outside"
    touch(outside, "a.wav", "b.wav")
    touch(library, "c.wav")
    (library / "link").symlink_to(outside)
    (library / "other").symlink_to(outside)
    (library / "d.wav").symlink_to(outside / "b.wav")
    (library / ".embedindexignore").write_text("other/\na.wav\nd.wav\n")
    assert met(library) == ["c.wav", "link/b.wav"]


def test_system_folders_are_skipped_unless_named(library: Path) -> None:
    for name in (
        "@eaDir",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "__MACOSX",
        "#recycle",
        ".Trash-1",
    ):
        touch(library, f"{name}/a.wav")
    touch(library, "@eaDir.wav", "x/#Snapshot/b.wav", "y/lost+found.wav")
    (library / "z").mkdir()
    (library / "z" / "@eaDir").symlink_to(library / "lost+found")
    assert met(library) == ["@eaDir.wav", "y/lost+found.wav"]
    assert met(library / "@eaDir") == ["a.wav"]


def test_names_of_any_bytes_are_matched_exactly(library: Path) -> None:
    for name in (b"\xff.wav", b"\xfe.wav", b"two\nlines.wav", b"line.wav", b"end\n.wav"):
        with open(os.path.join(os.fsencode(library), name), "wb"):
            pass
    (library / ".embedindexignore").write_bytes(b"\xef\xbb\xbf\xff.wav\ntwo?lines.wav\n")
    assert met(library) == sorted(["\udcfe.wav", "line.wav", "end\n.wav"])
    (library / ".embedindexignore").write_bytes(b"*e*.wav")
    assert met(library) == sorted(["\udcff.wav", "\udcfe.wav"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"a.wav\n!\n", "line 2 is no pattern: !"), (b"#" * (IGNORE_MAX_BYTES + 1), "is more than a megabyte long")],
)
def test_folder_with_a_senseless_ignore_file_is_left_alone(library: Path, content: bytes, reason: str) -> None:
    touch(library, "a.wav", "x/b.wav", "x/y/c.wav")
    (library / "x" / ".embedindexignore").write_bytes(content)
    trouble = CrawlTrouble()
    assert met(library, trouble=trouble) == ["a.wav"]
    assert trouble.folders == [(os.fsencode(library / "x"), f"left alone, for its .embedindexignore: {reason}")]


def test_ignore_file_that_is_no_file_is_not_waited_for(library: Path) -> None:
    touch(library, "a.wav", "x/b.wav")
    os.mkfifo(library / ".embedindexignore")
    (library / "x" / ".embedindexignore").mkdir()
    assert met(library) == ["a.wav", "x/b.wav"]


def test_include_picks_files_and_exclude_wins(library: Path) -> None:
    touch(library, "a.wav", "a.flac", "drums/b.wav", "drums/x/b.mp3", "drums/x/c.mp3", "d/drums.wav")
    assert met(library, Selection(["*.flac", "drums/"])) == ["a.flac", "drums/b.wav", "drums/x/b.mp3", "drums/x/c.mp3"]
    assert met(library, Selection(["*.flac", "drums/"], ["x/", "b.wav"])) == ["a.flac"]
    assert met(library, Selection([], ["/drums/x/*", "!c.mp3", "*.flac"])) == [
        "a.wav",
        "d/drums.wav",
        "drums/b.wav",
        "drums/x/c.mp3",
    ]


def test_patterns_of_a_run_hold_for_single_files_and_ignore_files_do_not(library: Path) -> None:
    touch(library, "a.wav", "b.wav")
    (library / ".embedindexignore").write_text("*.wav")
    roots = [os.fsencode(library / "a.wav"), os.fsencode(library / "b.wav")]
    found = crawl(roots, CrawlTrouble(), Selection([], ["b*"]))
    assert [os.path.basename(file.path) for file in found] == [b"a.wav"]


@pytest.mark.parametrize("glob", ["", " ", "!", "# x", "a\nb"])
def test_pattern_of_a_run_that_is_none_is_refused(index: str, library: Path, glob: str) -> None:
    with pytest.raises(UsageError, match=r"^--include .*: this is no pattern; write for example"):
        Selection([glob])
    assert "--exclude" in refusal("scan", library, "--exclude", glob, status=2)
    assert not os.path.exists(index)


def test_what_an_ignore_file_leaves_out_is_forgotten(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 300)
    make_sound(library / "x" / "b.wav", 500)
    run_scan(index, library)
    (library / ".embedindexignore").write_text("x/\n")
    summary = run_scan(index, library)
    assert (summary.found, summary.forgotten, summary.missing) == (1, 1, 0)
    assert names(index) == {"a.wav"}


def test_what_one_run_leaves_out_is_left_alone(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 300)
    path = make_sound(library / "x" / "y" / "b.wav", 500)
    make_sound(library / "c.flac.wav", 700)
    run_scan(index, library)
    with StoreWriter(index) as store:
        store.put_labels(one(index, path).id, [Label("genre", "drone", "human", 1.0)])
    make_sound(path, 900)  # changed, and not looked at
    (library / "c.flac.wav").unlink()  # deleted, and not looked for
    before = Path(index, "embedindex.db").read_bytes()
    for options in ({"exclude": ("/x/", "c.*")}, {"include": ("a.wav",)}, {"include": ("a.wav",), "prune": True}):
        summary = run_scan(index, library, **options)
        assert (summary.unchanged, summary.excluded, summary.forgotten, summary.missing) == (1, 2, 0, 0)
    assert Path(index, "embedindex.db").read_bytes() == before
    summary = run_scan(index, library)
    assert (summary.changed, summary.forgotten) == (1, 1)
    with Store(index) as store:
        assert store.labels_of([one(index, path).id])


def test_single_file_left_out_by_a_run_is_left_alone(index: str, library: Path) -> None:
    path = make_sound(library / "a.wav", 300)
    run_scan(index, path)
    assert run_scan(index, path, exclude=("*.wav",), prune=True).excluded == 1
    assert names(index) == {"a.wav"}


def test_command_and_estimate_take_the_patterns(index: str, library: Path) -> None:
    for number, name in enumerate(("a.wav", "b.wav", "x/c.wav")):
        make_sound(library / name, 300 + 100 * number)
    guess = estimate(index, [str(library)], load_model(TINY), 0.5, 1, selection=Selection([], ["x/"]))
    assert guess.found == 2
    arguments = ("scan", library, "--model", "tiny", "-j", "1", "-I", index, "--json")
    patterns = ("--include", "a.wav", "--include", "x/", "--exclude", "c*")
    assert command(*arguments, *patterns, "--dry-run").json["todo"] == 1
    assert command(*arguments, *patterns).json["added"] == 1
    assert names(index) == {"a.wav"}
    assert "1 in the index left alone" in command(*arguments[:-1], "--exclude", "a.wav").text


def test_last_pattern_that_matches_decides() -> None:
    patterns = Patterns(["*.wav", "!b.wav", "", "# c.wav"])
    assert patterns.verdict(b"/m/a.wav", b"/m", is_folder=False) is True
    assert patterns.verdict(b"/m/b.wav", b"/m/", is_folder=False) is False
    assert patterns.verdict(b"/c.mp3", b"/", is_folder=False) is None
    assert Patterns(["x"]).verdict(b"/m/x", b"/m", is_folder=False) is True
    assert Patterns(["*/"]).verdict(b"/m/x", b"/m", is_folder=False) is None
