"""Scans of ZIP archives: as if they were folders, never opened without need, and what is asked of them afterwards."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.archive_store import remembered_listing
from embedindex.archives import open_sound
from embedindex.crawl import CrawlTrouble, crawl
from embedindex.estimate import estimate
from embedindex.ignore import Selection
from embedindex.index import load_view
from embedindex.models import load_model
from embedindex.query import QueryMaker
from embedindex.results import place_hits
from embedindex.search import search
from embedindex.store import Store
from embedindex.verify import verify
from tests.command_line import command
from tests.indexing import TINY, age, make_sound, names, one, records, run_scan
from tests.sounds import encode, noise, sine
from tests.zips import DEFLATED, STORED, pack_tree, raw_zip, write_zip


def sound(frequency_hz: float, folder: Path) -> bytes:
    """Return a tone as a file: always the same bytes in one test (libsndfile writes the time into WAV files)."""
    path = folder / "made" / f"{frequency_hz:g}.wav"
    return (path if path.exists() else make_sound(path, frequency_hz)).read_bytes()


def below(index: str, folder: str | Path) -> dict[str, tuple[object, ...]]:
    """Return what an index knows of a folder: {path below it: what a listener would notice}."""
    start = f"{folder}{os.sep}"
    with Store(index) as store:
        return {
            path.removeprefix(start): (
                record.status, record.size, record.content_hash, record.duration, record.title, record.error_kind,
                store.vectors_of(record).tobytes() if record.status == "ok" else record.error_reason,
            )
            for path, record in records(index).items()
            if path.startswith(start)
        }  # fmt: skip


NAME = st.sampled_from(["a", "B", "ö", "x y", ".hidden", "__MACOSX", "drums", "01"])
FILE = st.sampled_from(["a.wav", "b.WAV", ".c.wav", "ü.wav", "d.txt", "e.flac", "bad.wav", "f.wav.zip"])
TREES = st.dictionaries(
    st.tuples(st.lists(NAME, max_size=2).map(tuple), FILE), st.integers(0, 3), min_size=1, max_size=8
)


@settings(max_examples=60)
@given(tree=TREES, method=st.sampled_from([STORED, DEFLATED]))
def test_crawl_finds_in_an_archive_what_it_finds_in_the_same_tree_unpacked(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[tuple[str, ...], str], int], method: int
) -> None:
    tmp = tmp_path_factory.mktemp("trees")
    folder = tmp / "plain"
    for (folders, name), kind in tree.items():
        path = folder.joinpath(*folders, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([kind]) * kind * 1000)
    archive = pack_tree(folder, tmp / "packed.zip", method)
    found: list[dict[bytes, bytes]] = []
    for top in (folder, archive):
        trouble = CrawlTrouble()
        crawled = list(crawl([os.fsencode(top)], trouble))
        assert trouble == CrawlTrouble()
        found.append({})
        for one_found in crawled:
            if one_found.path.endswith(b".zip"):  # one in another is not opened; this one holds nothing
                continue
            with open_sound(one_found.path) as file:
                content = file.read()
            assert one_found.stat.size == len(content)
            found[-1][one_found.path.removeprefix(os.fsencode(top))] = content
    assert found[0] == found[1]


def test_scan_learns_of_an_archive_what_it_learns_of_the_same_tree_unpacked(index: str, tmp_path: Path) -> None:
    folder = tmp_path / "plain" / "album"
    for number, suffix in enumerate((".wav", ".flac", ".ogg", ".mp3", ".m4a", ".wv")):
        path = folder / f"disc {number % 2}" / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, noise(0.5, 44100, number), 44100, title="Rain" if suffix == ".m4a" else None)
    (folder / "bad.wav").write_bytes(b"RIFF, but nothing else")
    (folder / "empty.wav").write_bytes(b"")
    (tmp_path / "packed").mkdir()
    archives = [pack_tree(folder, tmp_path / "packed" / f"{method}.zip", method) for method in (STORED, DEFLATED)]
    run_scan(index, tmp_path / "plain")
    run_scan(index + "2", *archives)
    wanted = below(index, folder)
    assert len(wanted) == 8
    assert {facts[0] for facts in wanted.values()} == {"ok", "failed"}
    for archive in archives:
        assert below(index + "2", archive) == wanted


@settings(max_examples=100)
@given(
    tree=TREES,
    ignored=st.sampled_from(["", "a/", "*.wav", "!b.WAV", "album*/drums", "/a.wav", "drums/*\n!drums/a.wav"]),
    include=st.sampled_from([(), ("*.flac",), ("drums/",), ("album*/",)]),
    exclude=st.sampled_from([(), ("a.wav",), ("01/",), ("album*/01",)]),
)
def test_patterns_hold_in_archives_as_in_folders(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[tuple[tuple[str, ...], str], int],
    ignored: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> None:
    tmp = tmp_path_factory.mktemp("trees")
    top = tmp / "library" / "album.zip"
    for folders, name in tree:
        path = top.joinpath(*folders, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp / "library" / ".embedindexignore").write_text(ignored)
    selection = Selection(include, exclude)

    def found() -> list[bytes]:
        trouble = CrawlTrouble()
        paths = sorted(one.path for one in crawl([os.fsencode(tmp / "library")], trouble, selection))
        assert trouble == CrawlTrouble()
        # A nested archive is a folder that cannot be listed when unpacked, and nothing when packed.
        return [path for path in paths if not path.endswith(b".zip")]

    unpacked = found()
    pack_tree(top, tmp / "packed")
    shutil.rmtree(top)
    (tmp / "packed").rename(top)
    assert found() == unpacked


def test_unchanged_archive_is_not_opened_again_and_nothing_is_written(
    index: str, library: Path, tmp_path: Path
) -> None:
    archive = write_zip(library / "a.zip", {"1.wav": sound(300, tmp_path), "d/2.wav": sound(500, tmp_path)})
    assert run_scan(index, library).added == 2
    stat = os.stat(archive)
    archive.write_bytes(bytes(stat.st_size))  # whoever opens it now finds nothing
    os.utime(archive, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    database = Path(index, "embedindex.db")
    before = database.read_bytes()
    summary = run_scan(index, library)
    assert (summary.found, summary.unchanged, summary.failed, summary.forgotten) == (2, 2, 0, 0)
    assert database.read_bytes() == before


def test_member_that_says_it_was_made_in_the_future_is_read_once(index: str, library: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(library / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("1.wav", (2107, 1, 1, 0, 0, 0)), sound(300, tmp_path))
    age(library / "a.zip")
    run_scan(index, library)
    assert run_scan(index, library).unchanged == 1


def test_only_changed_members_of_a_changed_archive_are_read(index: str, library: Path, tmp_path: Path) -> None:
    first, second, third = (sound(hz, tmp_path) for hz in (300, 500, 700))
    write_zip(library / "a.zip", {"1.wav": first, "2.wav": second})
    run_scan(index, library)
    kept = one(index, library / "a.zip" / "1.wav")
    write_zip(library / "a.zip", {"0.wav": sound(900, tmp_path), "1.wav": first, "2.wav": third}, later_ns=5)
    summary = run_scan(index, library)
    assert (summary.unchanged, summary.changed, summary.added, summary.touched) == (1, 1, 1, 0)
    assert one(index, library / "a.zip" / "1.wav") == kept


def test_renamed_archive_keeps_its_files_without_reading_them(index: str, library: Path, tmp_path: Path) -> None:
    archive = write_zip(library / "a.zip", {f"{n}.wav": sound(300 + n, tmp_path) for n in range(4)})
    run_scan(index, library)
    ids = {record.id for record in records(index).values()}
    archive.rename(library / "B.zip")
    summary = run_scan(index, library)
    assert (summary.moved, summary.added, summary.forgotten) == (4, 0, 0)
    assert {record.id for record in records(index).values()} == ids
    assert all(path.startswith(f"{library}/B.zip/") for path in records(index))
    assert rows(index, "SELECT path_text FROM archives") == [(f"{library}/B.zip",)]


def rows(index: str, sql: str) -> list[tuple[object, ...]]:
    with Store(index) as store:
        return store._rows(sql)


def test_unpacked_archive_is_a_move(index: str, library: Path, tmp_path: Path) -> None:
    archive = write_zip(library / "a.zip", {"1.wav": sound(300, tmp_path)})
    run_scan(index, library)
    (library / "a").mkdir()
    (library / "a" / "1.wav").write_bytes(sound(300, tmp_path))
    archive.unlink()
    summary = run_scan(index, library)
    assert (summary.moved, summary.added, summary.windows) == (1, 0, 0)


def test_files_of_a_deleted_archive_are_forgotten_and_those_of_an_unmounted_one_kept(
    index: str, library: Path, tmp_path: Path
) -> None:
    archive = write_zip(library / "a.zip", {"1.wav": sound(300, tmp_path)})
    make_sound(library / "b.wav", 500)
    run_scan(index, library)
    away = archive.rename(tmp_path / "away.zip")
    kept = (library / "b.wav").rename(tmp_path / "b.wav")
    assert run_scan(index, library).missing == 2  # an empty folder
    kept.rename(library / "b.wav")
    away.rename(archive)
    assert run_scan(index, library).returned == 2
    archive.unlink()
    assert run_scan(index, library).forgotten == 1
    assert names(index) == {"b.wav"}
    assert rows(index, "SELECT path_text FROM archives") == []


def test_damaged_archive_is_one_failure_that_is_not_tried_again_and_its_files_stay(
    index: str, library: Path, tmp_path: Path
) -> None:
    content = {"1.wav": sound(300, tmp_path), "2.wav": sound(400, tmp_path)}
    archive = write_zip(library / "a.zip", content)
    run_scan(index, library)
    half = archive.read_bytes()[: archive.stat().st_size // 2]
    archive.write_bytes(half)
    os.utime(archive, ns=(10**18 + 1, 10**18 + 1))
    summary = run_scan(index, library)
    assert (summary.failed, summary.failures, summary.missing, summary.forgotten) == (1, {"damaged": 1}, 2, 0)
    failed = one(index, archive)
    assert failed.status == "failed"
    assert "is no whole ZIP archive" in (failed.error_reason or "")
    summary = run_scan(index, library)
    assert (summary.failed, summary.unchanged, summary.missing) == (0, 1, 2)
    write_zip(archive, content, later_ns=7)
    summary = run_scan(index, library)
    assert (summary.returned, summary.added, summary.forgotten) == (2, 0, 1)
    assert names(index, "failed") == set()


def test_bomb_is_recorded_with_its_reason(index: str, library: Path, tmp_path: Path) -> None:
    entry = {"data": b"x", "method": 8, "size": 3 << 30}
    raw_zip(library / "bomb.zip", [{"name": b"a.wav", **entry}])
    locked = {"name": b"locked.wav", "data": sound(300, tmp_path), "flags": 1}
    raw_zip(library / "locked.zip", [locked, {"name": b"open.wav", "data": sound(300, tmp_path)}])
    summary = run_scan(index, library)
    assert summary.failures == {"limit": 1, "damaged": 1}
    assert one(index, library / "bomb.zip").error_kind == "limit"
    assert "is encrypted" in (one(index, library / "locked.zip" / "locked.wav").error_reason or "")
    assert one(index, library / "locked.zip" / "open.wav").status == "ok"
    assert run_scan(index, library).unchanged == 3


def test_archive_or_a_folder_in_it_can_be_named(index: str, library: Path, tmp_path: Path) -> None:
    archive = write_zip(library / "a.zip", {"1.wav": sound(300, tmp_path), "d/2.wav": sound(500, tmp_path)})
    assert run_scan(index, archive / "d").added == 1
    assert names(index) == {"2.wav"}
    assert run_scan(index, archive).added == 1


def test_link_to_an_archive_is_followed_once(index: str, library: Path, tmp_path: Path) -> None:
    outside = write_zip(tmp_path / "outside.zip", {"1.wav": sound(300, tmp_path)})
    inside = write_zip(library / "inside.zip", {"2.wav": sound(500, tmp_path)})
    (library / "to_outside.zip").symlink_to(outside)
    (library / "to_inside.zip").symlink_to(inside)
    run_scan(index, library)
    assert set(records(index)) == {f"{library}/to_outside.zip/1.wav", f"{library}/inside.zip/2.wav"}


def test_since_goes_by_the_time_of_the_archive(index: str, library: Path, tmp_path: Path) -> None:
    archive = write_zip(library / "a.zip", {"1.wav": sound(300, tmp_path)})
    changed_ns = archive.stat().st_mtime_ns
    assert run_scan(index, library, since_ns=changed_ns + 10).postponed == 0  # its file says 2019, later than that
    assert run_scan(index + "2", library, since_ns=2**62).postponed == 1
    os.utime(archive, ns=(2**62 + 1, 2**62 + 1))
    assert run_scan(index + "2", library, since_ns=2**62).added == 1


def test_dry_run_counts_members_and_writes_nothing(index: str, library: Path, tmp_path: Path) -> None:
    write_zip(library / "a.zip", {f"{n}.wav": sound(300 + n, tmp_path) for n in range(3)})
    guess = estimate(index, [str(library)], load_model(TINY), 0.5, 1)
    assert (guess.found, guess.todo, guess.probed) == (3, 3, 3)
    assert guess.audio_s == pytest.approx(1.5)
    run_scan(index, library)
    before = Path(index, "embedindex.db").read_bytes()
    write_zip(library / "b.zip", {"9.wav": sound(999, tmp_path)})
    assert estimate(index, [str(library)], load_model(TINY), 0.5, 1).todo == 1
    assert Path(index, "embedindex.db").read_bytes() == before
    with Store(index) as store:
        listing = remembered_listing(store)
        assert len(list(crawl([os.fsencode(library)], CrawlTrouble(), None, listing))) == 4


def test_member_is_a_query_a_result_and_can_be_copied_out(index: str, library: Path, tmp_path: Path) -> None:
    archive = write_zip(library / "a.zip", {"low.wav": sound(200, tmp_path), "d/high.wav": sound(2000, tmp_path)})
    make_sound(library / "almost.wav", 2010)
    run_scan(index, library)
    with Store(index) as store:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        found = search(store, view, [maker.from_path(str(library / "almost.wav"))], k=1)
        assert found[0].file.path == os.fsencode(archive / "d" / "high.wav")
        own = search(store, view, [maker.from_path(str(archive / "d/high.wav"))], k=1)
        assert own[0].file.path == os.fsencode(library / "almost.wav")
        whole = maker.from_path(str(archive))
        assert set(whole.sources) == {os.fsencode(archive / "low.wav"), os.fsencode(archive / "d" / "high.wav")}
        copied, linked = (
            place_hits(found, str(tmp_path / "out"), "copy"),
            place_hits(found, str(tmp_path / "out2"), "link"),
        )
        assert Path(os.fsdecode(copied[0].target)).read_bytes() == sound(2000, tmp_path)
        assert (linked[0].outcome, linked[0].reason) == (
            "failed",
            "it lies in an archive, where no link can lead; copy it",
        )
        assert verify(store).problems == ()


def test_commands_take_members_of_archives(index: str, library: Path, tmp_path: Path) -> None:
    archive = write_zip(library / "a.zip", {"low.wav": sound(200, tmp_path), "high.wav": sound(2000, tmp_path)})
    run_scan(index, library)
    wav = tmp_path / "heard.wav"
    done = command("similar", f"{archive}/low.wav", "-I", index, "--json", "--audition", str(wav))
    assert done.status == 0, done.error
    assert [hit["path"] for hit in done.json["results"]] == [f"{archive}/high.wav"]
    assert np.abs(sf.read(wav)[0]).max() > 0.05
    done = command("list", "-I", index, "--path", "a.zip/*", "--paths")
    assert done.text.splitlines() == [f"{archive}/high.wav", f"{archive}/low.wav"]
    done = command("features", f"{archive}/low.wav")
    assert done.status == 0, done.error
    assert len(done.text.splitlines()) == 2
    done = command("embed", f"{archive}", "--model", "tiny", "-q")
    assert done.status == 0, done.error
    assert sorted(path.name for path in library.iterdir()) == ["a.zip", "high.npz", "low.npz"]


def test_remix_plays_from_archives(index: str, library: Path, tmp_path: Path) -> None:
    files = {f"{n}.wav": sound(200 + 100 * n, tmp_path) for n in range(6)}
    archive = write_zip(library / "a.zip", files)
    run_scan(index, library)
    seed = tmp_path / "seed.wav"
    sf.write(seed, np.tile(sine(420, 0.5, 44100), 4), 44100)
    out = tmp_path / "out.wav"
    done = command("remix", str(seed), "-o", str(out), "-I", index)
    assert done.status == 0, done.error
    recipe = tmp_path / "out.recipe.json"
    assert f"{archive}/" in recipe.read_text()
    again = command("render", str(recipe), "-o", str(tmp_path / "again.wav"))
    assert again.status == 0, again.error
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()
