"""Other systems: what of them can be played on this one. A POSIX without fcntl and the like is as near as we get."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedindex import cores, index_file
from embedindex.errors import display_path
from embedindex.filters import Filters
from embedindex.index import load_view
from embedindex.index_file import index_path, write_index_file
from embedindex.index_refresh import refresh_index, set_budget
from embedindex.store import Store
from embedindex.syncing import sync_folder
from tests.indexing import make_sound, run_scan
from tests.processes import ENVIRONMENT
from tests.storing import DIMENSION, content, open_filled, stat_of
from tests.test_index_file import TRAILER, some_index, trailer_of

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "curses", "readline", "syslog")
NAMES = (
    "fork", "forkpty", "getuid", "geteuid", "getgid", "nice", "pread", "posix_fallocate", "sched_getaffinity",
    "O_NONBLOCK", "O_CLOEXEC", "mkfifo",
)  # fmt: skip
LACKING = f"""
import os, signal, sys
for module in {MODULES}:
    sys.modules[module] = None
for name in {NAMES}:
    delattr(os, name)
del signal.pthread_sigmask
"""


@pytest.fixture
def lacking(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python, and of those it starts, without what only POSIX has."""
    place = tmp_path / "lacking"
    place.mkdir()
    (place / "sitecustomize.py").write_text(LACKING)
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(place), ENVIRONMENT["PYTHONPATH"]])}


def test_sounds_are_scanned_and_found_without_what_only_posix_has(
    lacking: dict[str, str], library: Path, index: str
) -> None:
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 200 * number)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "embedindex", *words], env=lacking, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "scan" in run("--help")
    run("scan", str(library), "--index", index, "--model", "tiny", "--workers", "2")
    found = json.loads(run("similar", str(library / "1.wav"), "--include-self", "--json", "--index", index))
    names = [Path(result["path"]).name for result in found["results"]]
    assert (names[0], sorted(names)) == ("1.wav", ["0.wav", "1.wav", "2.wav"])


def test_every_module_is_imported_without_what_only_posix_has(lacking: dict[str, str]) -> None:
    program = """
import importlib, pkgutil, sys
import embedindex
for found in pkgutil.walk_packages(embedindex.__path__, "embedindex."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as missing:  # an extra
            if missing.name in sys.argv[1:]:
                raise
"""
    subprocess.run([sys.executable, "-c", program, *MODULES], env=lacking, check=True)


# -- where a mapped file cannot be replaced ------------------------------------------------------------------------


def mapped_files() -> str:
    return Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="only Linux says what is mapped")
@pytest.mark.parametrize("mapping", [True, False])
def test_plain_index_is_mapped_where_mapped_files_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapping: bool
) -> None:
    monkeypatch.setattr(index_file, "MAPPING", mapping)
    write_index_file(str(tmp_path), some_index(), TRAILER)
    found = index_file.open_index(str(tmp_path))
    assert found is not None
    assert (index_path(str(tmp_path)) in mapped_files()) == mapping
    np.testing.assert_array_equal(found[0].search(np.eye(8, dtype=np.float32), 5)[1],
                                  some_index().search(np.eye(8, dtype=np.float32), 5)[1])  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="only Linux says what is mapped")
def test_index_of_lists_answers_the_same_without_being_mapped(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    with open_filled(index) as store:
        set_budget(store, 1, 0.95)
        with store.transaction():
            for number in range(120):
                vectors = rng.normal(size=(20, DIMENSION)).astype(np.float16)
                store.put_file(b"/music/%d.wav" % number, 1, stat_of(number), content(vectors))
        assert refresh_index(store)
    assert trailer_of(index).kind == "rabitq"
    asked = rng.normal(size=(5, DIMENSION)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)

    def answers() -> Any:
        with Store(index) as store:
            view = load_view(store)
            found = view.search(asked, 10, None)
            return found, index_path(index) in mapped_files()

    (scores, windows), mapped = answers()
    assert mapped
    monkeypatch.setattr(index_file, "MAPPING", False)
    (scores_read, windows_read), mapped = answers()
    assert not mapped
    np.testing.assert_array_equal(windows_read, windows)
    np.testing.assert_allclose(scores_read, scores, atol=1e-6)


# -- names -----------------------------------------------------------------------------------------------------------


def test_halves_of_characters_that_windows_allows_in_names_are_shown_escaped() -> None:
    assert display_path("kick\ud83d.wav") == "kick\\xed\\xa0\\xbd.wav"
    assert display_path(b"kick\xff.wav") == "kick\\xff.wav"


def test_path_filter_takes_both_strokes_where_folders_are_parted_by_the_other_one(
    library: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sound(library / "C:\\music\\drums\\kick.wav", 300)  # one name here
    make_sound(library / "C:\\music\\bass\\kick.wav", 400)
    run_scan(index, library)
    monkeypatch.setattr(os, "sep", "\\")
    with Store(index) as store:
        for pattern in ("drums/*", "drums\\*", "C:\\music\\drums\\*.wav"):
            where, values = Filters(path=pattern).sql()
            assert [re.findall("drums|bass", record.text_path) for record in store.files(where, values)] == [["drums"]]


# -- folders and processors ------------------------------------------------------------------------------------------


def test_folder_that_the_system_does_not_open_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = os.open

    def as_on_windows(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return open_(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", as_on_windows)
    sync_folder(str(tmp_path))
    write_index_file(str(tmp_path), some_index(), TRAILER)
    assert os.listdir(tmp_path) == ["windows.faiss"]
    with pytest.raises(FileNotFoundError):
        sync_folder(str(tmp_path / "gone"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to some cores")
def test_processes_are_as_many_as_the_cores_that_this_one_was_given() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from embedindex.cores import count_cores, count_processes;"
        "print(count_cores(), count_processes(None), count_processes(3))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "3"]


def test_processes_are_no_more_than_the_system_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "MOST_PROCESSES", 60)
    assert cores.count_processes(96) == 60
