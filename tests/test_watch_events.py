"""Watching by file events: real files, the real kernel, a watch in a thread of its own."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from embedindex.errors import IndexBusyError
from embedindex.file_events import FileEvents
from embedindex.ignore import IGNORE_FILE
from embedindex.progress import ScanSummary
from embedindex.watch import Pace, watch
from embedindex.writer import StoreWriter
from tests.indexing import OPTIONS, age, make_sound, names
from tests.processes import PATIENCE_S

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the events of Linux are tested")


class Watching:
    """A watch that goes on in a thread."""

    def __init__(self, index: str, roots: list[Path], pace: Pace) -> None:
        self.index = index
        self.outcomes: list[ScanSummary | IndexBusyError] = []
        self.warnings: list[str] = []
        self.error: BaseException | None = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(roots, pace))

    def _run(self, roots: list[Path], pace: Pace) -> None:
        try:
            watch(
                self.index,
                [str(root) for root in roots],
                replace(OPTIONS, max_load=None),
                pace=pace,
                stop=self.over.is_set,
                told=self.outcomes.append,
                warn=self.warnings.append,
            )
        except BaseException as error:
            self.error = error
            raise

    @property
    def scans(self) -> list[ScanSummary]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, ScanSummary)]

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_so():
            assert self.thread.is_alive(), self.error
            assert time.monotonic() < until, self.outcomes
            time.sleep(0.02)

    def wait_for_names(self, *expected: str) -> None:
        self.wait_for(lambda: bool(self.outcomes) and names(self.index) == set(expected))


class Pauses:
    """How long it was from one change to the next, as this process saw it; the machine may have slept."""

    def __init__(self) -> None:
        self._times = [time.monotonic()]

    def note(self) -> None:
        self._times.append(time.monotonic())

    def longer_than(self, seconds: float) -> int:
        return sum(later - earlier > seconds for earlier, later in pairwise(self._times))


@contextmanager
def watching(index: str, *roots: Path, settle_s: float = 0.3, **pace: float) -> Iterator[Watching]:
    """Watch, with nobody looking at everything again in the time of a test unless `pace` says so."""
    following = Watching(index, list(roots), Pace(settle_s=settle_s, **pace))  # type: ignore[arg-type]
    following.thread.start()
    try:
        following.wait_for(lambda: bool(following.outcomes))
        yield following
    finally:
        following.over.set()
        following.thread.join(PATIENCE_S)
    assert following.error is None


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder on the same disk that nobody watches."""
    folder = tmp_path / "beside"
    folder.mkdir()
    return folder


def test_added_changed_renamed_and_deleted_files_are_followed(index: str, library: Path, beside: Path) -> None:
    make_sound(library / "kept/k.wav", 200)
    with watching(index, library) as following:
        make_sound(beside / "a.wav", 300).rename(library / "a.wav")
        following.wait_for_names("k.wav", "a.wav")
        make_sound(beside / "a.wav", 400).replace(library / "a.wav")
        following.wait_for(lambda: any(scan.changed for scan in following.scans))
        (library / "a.wav").rename(library / "kept/b.wav")
        following.wait_for_names("k.wav", "b.wav")
        (library / "kept/b.wav").unlink()
        following.wait_for_names("k.wav")
    scans = following.scans
    assert sum(scan.added for scan in scans) == 2
    assert sum(scan.moved for scan in scans) == 1
    assert sum(scan.forgotten for scan in scans) == 1
    assert all(scan.found <= 1 for scan in scans)  # the file that stays is looked at once, by the first
    assert following.warnings == []


def test_folders_are_followed_with_all_that_is_in_them(index: str, library: Path, beside: Path) -> None:
    make_sound(library / "a.wav", 200)
    for number in range(3):
        make_sound(beside / f"album/disc {number}/{number}.wav", 300 + number)
    with watching(index, library) as following:
        (beside / "album").rename(library / "album")
        following.wait_for_names("a.wav", "0.wav", "1.wav", "2.wav")
        (library / "album").rename(library / "Album. Vol. 2")
        following.wait_for(lambda: sum(scan.moved for scan in following.scans) == 3)
        make_sound(beside / "late.wav", 500).rename(library / "Album. Vol. 2/disc 1/late.wav")
        following.wait_for_names("a.wav", "0.wav", "1.wav", "2.wav", "late.wav")
        shutil.rmtree(library / "Album. Vol. 2")
        following.wait_for_names("a.wav")
    assert sum(scan.added for scan in following.scans) == 5


def test_burst_of_files_is_few_scans(index: str, library: Path, beside: Path) -> None:
    for number in range(300):
        make_sound(beside / f"{number:03}.wav", 100 + number, 0.1)
    pauses = Pauses()
    with watching(index, library, settle_s=1.0) as following:
        for path in sorted(beside.iterdir()):
            shutil.copy(path, library)
            pauses.note()
            time.sleep(0.01)
        following.wait_for(lambda: sum(scan.added for scan in following.scans) == 300)
    assert len(following.scans) <= 10 + 2 * pauses.longer_than(0.5)  # two, but on a machine that sleeps in between


def test_file_that_grows_is_scanned_when_it_is_complete(index: str, library: Path, beside: Path) -> None:
    whole = make_sound(beside / "long.wav", 300, 4.0).read_bytes()
    for attempt in range(10):  # of which one will find the machine awake
        pauses = Pauses()
        place = f"{index}{attempt}"
        with watching(place, library, settle_s=2.0) as following:
            with open(library / "long.wav", "wb", buffering=0) as file:
                for start in range(0, len(whole), len(whole) // 8):
                    file.write(whole[start : start + len(whole) // 8])
                    pauses.note()
                    time.sleep(0.1)
            following.wait_for_names("long.wav")
        (library / "long.wav").unlink()
        if not pauses.longer_than(0.5):
            break
    assert [scan.found for scan in following.scans[:2]] == [0, 1]
    assert sum(scan.failed + scan.changed for scan in following.scans) == 0


def test_ignore_files_count_when_one_file_changes(index: str, library: Path, beside: Path) -> None:
    (library / "album").mkdir()
    (library / os.fsdecode(IGNORE_FILE)).write_text("bad*\n")
    with watching(index, library) as following:
        make_sound(beside / "bad.wav", 300).rename(library / "album/bad.wav")
        make_sound(beside / "good.wav", 400).rename(library / "album/good.wav")
        following.wait_for_names("good.wav")
        (library / os.fsdecode(IGNORE_FILE)).write_text("good*\n")
        following.wait_for_names("bad.wav")


def test_what_is_no_sound_starts_no_scan(index: str, library: Path, beside: Path) -> None:
    with watching(index, library) as following:
        (library / "cover.jpg").write_bytes(b"x")
        (library / ".hidden").mkdir()
        make_sound(library / ".hidden/a.wav")
        make_sound(beside / "b.wav", 300).rename(library / "b.wav")
        following.wait_for_names("b.wav")
        time.sleep(0.6)
    assert [scan.found for scan in following.scans] == [0, 1]


def test_index_inside_the_watched_folder_starts_no_scan_of_itself(library: Path, beside: Path) -> None:
    with watching(str(library / "index"), library) as following:
        make_sound(beside / "b.wav", 300).rename(library / "b.wav")
        following.wait_for_names("b.wav")
        time.sleep(0.6)
    assert [scan.found for scan in following.scans] == [0, 1]


def test_links_do_not_make_files_count_twice(index: str, library: Path, beside: Path) -> None:
    make_sound(library / "a/one.wav", 300)
    (library / "z").mkdir()
    with watching(index, library) as following:
        (library / "z/link").symlink_to(library / "a")
        make_sound(beside / "two.wav", 400).rename(library / "z/two.wav")
        following.wait_for_names("one.wav", "two.wav")
    assert [scan.copied for scan in following.scans] == [0] * len(following.scans)


def test_link_as_a_root_is_followed_under_its_own_name(index: str, library: Path, beside: Path) -> None:
    (beside / "link").symlink_to(library)
    with watching(index, beside / "link") as following:
        make_sound(beside / "a.wav", 300).rename(library / "a.wav")
        following.wait_for_names("a.wav")


def test_names_that_are_no_text_lose_nothing(index: str, library: Path, beside: Path) -> None:
    with watching(index, library, every_s=0.5) as following:
        make_sound(beside / "a.wav", 300).rename(Path(os.fsdecode(os.fsencode(library) + b"/\xff.wav")))
        following.wait_for_names("\udcff.wav")
        make_sound(beside / "b.wav", 400).rename(library / "b.wav")
        following.wait_for_names("\udcff.wav", "b.wav")


def test_folder_that_went_and_came_back_is_followed_again(
    index: str, library: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedindex.watch.DISKS_S", 0.1)
    make_sound(library / "a.wav", 300)
    with watching(index, library) as following:
        library.rename(beside / "away")
        following.wait_for(lambda: bool(following.warnings))
        assert "it is not there" in following.warnings[0]
        make_sound(beside / "away/b.wav", 400)
        (beside / "away").rename(library)
        following.wait_for_names("a.wav", "b.wav")
        make_sound(beside / "c.wav", 500).rename(library / "c.wav")
        following.wait_for_names("a.wav", "b.wav", "c.wav")
    assert sum(scan.forgotten for scan in following.scans) == 0


def test_change_is_not_lost_while_another_scan_writes(
    index: str, library: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedindex.watch.PAUSE_S", 0.2)
    with watching(index, library) as following:
        with StoreWriter(index):
            make_sound(beside / "a.wav", 300).rename(library / "a.wav")
            following.wait_for(lambda: isinstance(following.outcomes[-1], IndexBusyError))
        following.wait_for_names("a.wav")


def test_everything_is_looked_at_now_and_then(index: str, library: Path) -> None:
    with watching(index, library, every_s=0.1) as following:
        make_sound(library / ".a.wav", 300)  # hidden files tell nothing
        following.wait_for(lambda: len(following.scans) >= 3)


def test_single_files_and_folders_that_are_away_are_said(tmp_path: Path) -> None:
    sound = make_sound(tmp_path / "a.wav")
    roots = [os.fsencode(sound), os.fsencode(tmp_path / "nowhere"), os.fsencode(tmp_path) + b"/\xff"]
    os.mkdir(roots[2])
    events = FileEvents(roots, b"/index", poll=False, wait_s=0.01)
    assert [one.reason for one in events.renew()] == [
        "it is a single file",
        "it is not there",
        "its name is not UTF-8",
    ]
    assert not events.is_following
    age(sound)


LIMITED = """
import os, sys
from embedindex.file_events import FileEvents
events = FileEvents([os.fsencode(sys.argv[1])], b"/index", poll=False, wait_s=0.01)
print(*[one.reason for one in events.renew()], events.is_following)
"""


@pytest.mark.parametrize(
    ("limit", "number", "said"),
    [("max_inotify_watches", 3, "max_user_watches"), ("max_inotify_instances", 0, "max_user_instances")],
)
def test_watches_that_are_used_up_are_said_in_words(tmp_path: Path, limit: str, number: int, said: str) -> None:
    import subprocess

    for name in "abcdef":
        (tmp_path / name).mkdir()
    script = f'echo {number} > /proc/sys/user/{limit} || exit 77; exec "$0" -c "$1" "$2"'
    words = ["unshare", "-U", "-r", "sh", "-c", script, sys.executable, LIMITED, str(tmp_path)]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, of util-linux")
    ran = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    if "Operation not permitted" in ran.stderr or ran.returncode == 77:
        pytest.skip("this system allows no namespaces")
    assert said in ran.stdout, ran.stderr
    assert ran.stdout.rstrip().endswith("False")
