"""Results appear only when they are whole, and what the system says against them is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from embedindex.errors import DiskFullError, UsageError
from embedindex.sound_writing import sound_to
from embedindex.whole_files import whole_file
from tests.processes import ENVIRONMENT


def test_result_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "result.csv"
    target.write_text("before")
    with whole_file(str(target)) as temporary:
        Path(temporary).write_text("after")
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert os.listdir(tmp_path) == ["result.csv"]


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "result.csv"
    target.write_text("before")

    def write_half() -> None:
        with whole_file(str(target)) as temporary:
            Path(temporary).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["result.csv"]


@pytest.mark.parametrize("links", [True, False])
def test_what_came_while_a_new_file_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, os.strerror(1))  # as Linux says it of FAT

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "result.csv"

    def write() -> None:
        with whole_file(str(target), replace=False) as temporary:
            Path(temporary).write_text("ours")
            target.write_text("another program's")

    with pytest.raises(UsageError, match=r"result\.csv: is there already and is not written over"):
        write()
    assert target.read_text() == "another program's"
    with (
        pytest.raises(UsageError, match="is not written over"),
        whole_file(str(target), replace=False),  # and at once where something is from the beginning
    ):
        pytest.fail("the block ran")
    assert os.listdir(tmp_path) == ["result.csv"]
    target.unlink()
    with whole_file(str(target), replace=False) as temporary:
        Path(temporary).write_text("ours")
    assert target.read_text() == "ours"
    assert os.listdir(tmp_path) == ["result.csv"]


def test_link_that_leads_nowhere_is_something(tmp_path: Path) -> None:
    (tmp_path / "result.csv").symlink_to(tmp_path / "away")
    with (
        pytest.raises(UsageError, match="is not written over"),
        whole_file(str(tmp_path / "result.csv"), replace=False),
    ):
        pytest.fail("the block ran")


def test_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".csv")
    with whole_file(str(target)) as temporary:
        Path(temporary).write_text("whole")
    assert target.read_text() == "whole"


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"no/x\.csv: cannot be written \(No such file or directory\); choose another"),
        whole_file(str(tmp_path / "no" / "x.csv")) as temporary,
    ):
        Path(temporary).write_text("")


def test_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"file/x\.csv: cannot be written \(Not a directory\)"),
        whole_file(str(tmp_path / "file" / "x.csv")) as temporary,
    ):
        Path(temporary).write_text("")


def test_bare_name_is_written_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_file("x.csv") as temporary:
        Path(temporary).write_text("here")
    assert Path("x.csv").read_text() == "here"


def test_sound_is_written_as_libsndfile_writes_it(tmp_path: Path) -> None:
    samples = np.random.default_rng(3).uniform(-1, 1, (5000, 2)).astype(np.float32)
    for kind, subtype in (("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("W64", "FLOAT")):
        with sound_to(str(tmp_path / "ours"), 44100, 2, kind, subtype) as file:
            file.write(samples[:3000])
            file.write(samples[3000:])
        soundfile.write(tmp_path / "theirs", samples, 44100, format=kind, subtype=subtype)
        np.testing.assert_array_equal(soundfile.read(tmp_path / "ours")[0], soundfile.read(tmp_path / "theirs")[0])
        assert soundfile.info(tmp_path / "ours").format == kind


FULL = """
import os, resource, sys
import numpy as np
from embedindex.errors import DiskFullError
from embedindex.sound_writing import sound_to
from embedindex.whole_files import whole_file

samples = np.random.default_rng(1).uniform(-1, 1, (30_000, 2)).astype(np.float32)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
target = os.path.join(sys.argv[1], "x.wav")
for kind, subtype in (("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("RF64", "FLOAT")):
    with sound_to(target, 44100, 2, kind, subtype) as file:
        file.write(samples)
    whole = os.path.getsize(target)
    os.unlink(target)
    for missing in (whole, whole - 1, whole - 60, whole // 2, 5000, 60, 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole - missing, most))
        try:
            with whole_file(target) as temporary, sound_to(temporary, 44100, 2, kind, subtype) as file:
                for start in range(0, len(samples), 7000):
                    file.write(samples[start : start + 7000])
        except DiskFullError as error:
            print(error)
        else:
            print("written", kind, subtype, missing)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert os.listdir(sys.argv[1]) == [], (kind, missing)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of a file's size stands for a full disk")
def test_sound_that_finds_no_space_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = f"{tmp_path}/x.wav: no space is left for it; free some, or choose another place"
    assert done.stdout.splitlines() == [said] * 28


def test_full_disk_is_told_from_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="free some, or use fewer"), whole_file(str(tmp_path / "x"), "use fewer"):
        raise OSError(28, os.strerror(28))
