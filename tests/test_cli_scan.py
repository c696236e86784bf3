"""``embedindex scan`` as users type it: what it prints, its exit status, and how it ends when interrupted."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.command_line import Ran, command, refusal, started
from tests.indexing import constant, make_sound, names, run_scan, write_samples
from tests.processes import PATIENCE_S, files_done, wait_until


@pytest.fixture(autouse=True)
def index_folder(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", index)


def scan(*arguments: str | Path) -> Ran:
    return command("scan", *arguments, "--model", "tiny", "-j", "1", "--nice", "0")


def test_json_counts_what_was_done_and_what_the_index_holds(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 300, 2.0)
    make_sound(library / "b.wav", 900)
    (library / "text.wav").write_text("no sound")
    ran = scan(library, "--json")
    data = ran.json
    assert (data["found"], data["added"], data["failed"], data["failures"]) == (3, 2, 1, {"not-audio": 1})
    assert data["audio_s"] == pytest.approx(2.5)
    assert (data["index"], data["model"], data["interrupted"]) == (index, "tiny", False)
    with Store(index) as store:
        windows = store.counts().windows
    assert data["total"] == {"files": 2, "failed": 1, "missing": 0, "windows": windows}
    assert data["windows"] == windows > 0


def test_summary_is_for_people_and_remarks_go_to_stderr(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 300, 2.0)
    (library / "text.wav").write_text("no sound")
    (library / "gone.wav").symlink_to("nowhere.wav")
    ran = scan(library)
    assert ran.status == 0
    assert "2 audio files found: 1 new, 1 unusable" in ran.text
    assert "The index holds 1 file," in ran.text
    assert f"Index: {index}" in ran.text
    assert "1 file could not be used; `embedindex errors` lists them" in ran.error
    assert "gone.wav: is a link that leads nowhere" in ran.error
    again = scan(library)
    assert "nothing new" in again.text


def test_quiet_says_nothing(library: Path) -> None:
    make_sound(library / "a.wav")
    ran = scan(library, "--quiet")
    assert (ran.status, ran.out, ran.error) == (0, b"", "")


def test_strict_fails_when_a_file_could_not_be_used_or_seen(library: Path) -> None:
    make_sound(library / "a.wav")
    assert scan(library, "--strict").status == 0
    (library / "gone.wav").symlink_to("nowhere.wav")
    assert scan(library, "--strict").status == 1
    (library / "gone.wav").unlink()
    (library / "empty.wav").touch()
    assert scan(library).status == 0
    assert scan(library, "--strict").status == 1
    (library / "empty.wav").unlink()
    assert scan(library, "--strict").status == 0


def test_empty_folder_is_said(library: Path) -> None:
    ran = scan(library)
    assert ran.status == 0
    assert "there is no audio file in there; check the path" in ran.error


def test_missing_files_are_kept_until_pruned(library: Path) -> None:
    path = make_sound(library / "disk" / "a.wav")
    scan(library / "disk")
    path.unlink()
    ran = scan(library / "disk")
    assert "1 missing" in ran.text
    assert "if they are gone for good: embedindex scan --prune" in ran.error
    assert "1 gone" in scan(library / "disk", "--prune").text


def test_missing_path_is_refused(index: str, library: Path) -> None:
    assert "nowhere: there is no such file or folder; check the path" in refusal("scan", library / "nowhere")
    assert not os.path.exists(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp32"], "--weights, --precision and --engine need a --model, for example --model openl3"),
        (["--hop", "inf"], "--hop inf: give a number of seconds below 3600"),
        (["--model", "tiny:nonsense=1"], "tiny has no option nonsense"),
    ],
)
def test_wrong_usage_is_said_in_one_line(library: Path, options: list[str], message: str) -> None:
    make_sound(library / "a.wav")
    assert message in refusal("scan", library, *options, status=2)


def test_empty_argument_does_not_mean_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_sound(tmp_path / "a.wav")
    for arguments in (["scan", ""], ["scan", "a.wav", "--index", ""], ["scan", "--", ""]):
        assert "is empty; give it a value" in refusal(*arguments, status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    "options", [["--hop", "0"], ["--hop", "often"], ["-j", "-1"], ["--nice", "20"], ["--nonsense"]]
)
def test_wrong_usage_that_the_parser_sees_exits_with_2(library: Path, options: list[str]) -> None:
    ran = command("scan", str(library), *options)
    assert (ran.status, ran.out) == (2, b"")
    assert "Usage: embedindex scan" in ran.error


def test_hop_that_is_no_number_is_wrong_usage(library: Path) -> None:
    ran = command("scan", str(library), "--hop", "nan")  # newer parsers refuse it themselves
    assert (ran.status, ran.out) == (2, b"")
    assert "--hop" in ran.error


def test_unknown_model_is_refused(library: Path) -> None:
    make_sound(library / "a.wav")
    assert "nonsense" in refusal("scan", library, "--model", "nonsense")


def test_index_that_is_being_written_exits_with_75(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    with StoreWriter(index):
        message = refusal("scan", library, "--model", "tiny", status=75)
    assert "another embedindex is writing to this index; wait for it to finish" in message


def test_scan_into_a_file_is_refused(index: str, library: Path) -> None:
    Path(index).write_text("in the way")
    assert "choose another folder with --index" in refusal("scan", library, "--model", "tiny")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_scan_keeps_what_it_has_and_exits_with_130(
    index: str, library: Path, tmp_path: Path, number: int
) -> None:
    for place in range(60):
        make_sound(library / f"{place:03d}.wav", 200 + 15 * place, 4.0)
    go, said = tmp_path / "go", tmp_path / "said"
    waiting = f"tiny:until={go},free=20"  # windows, of which a file has some eight
    with (
        open(said, "wb") as stderr,
        started(["scan", library, "--model", waiting, "-j", "1", "--json"], stderr=stderr) as process,
    ):
        wait_until(lambda: files_done(index) >= 1 and list(tmp_path.glob("go.*")))
        process.send_signal(number)
        wait_until(lambda: b"finishing the files in hand" in said.read_bytes())
        go.touch()
        out, _ = process.communicate(timeout=PATIENCE_S)
    error = said.read_bytes()
    assert process.returncode == 130, error
    data = json.loads(out)
    assert data["interrupted"] is True
    assert 1 <= data["total"]["files"] < 60
    assert b"finishing the files in hand; press Ctrl-C again to stop at once" in error
    assert b"interrupted; run the same command again to go on" in error
    assert b"Traceback" not in error
    with Store(index) as store:
        assert verify(store).problems == ()


def test_second_interrupt_stops_at_once(index: str, library: Path, tmp_path: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    write_samples(library / "hang.wav", constant(-0.5))
    go, said = tmp_path / "go", tmp_path / "said"
    go.touch()
    with (
        open(said, "wb") as stderr,
        started(["scan", library, "--model", f"tiny:until={go}", "-j", "1"], stderr=stderr) as process,
    ):
        wait_until(lambda: list(tmp_path.glob("go.*")))  # the file in hand hangs
        process.send_signal(signal.SIGINT)
        wait_until(lambda: b"finishing the files in hand" in said.read_bytes())
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Traceback" not in said.read_bytes()
    assert names(index) == {"a.wav"}


def test_terminal_shows_progress_and_stdout_stays_clean(index: str, library: Path) -> None:
    for place in range(60):
        make_sound(library / f"[red]{place}.wav", 200 + 30 * place, 3.0)
    master, slave = pty.openpty()
    arguments = [sys.executable, "-m", "embedindex", "scan", str(library), "--model", "tiny", "-j", "1", "--json"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = bytearray()
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not block:
                break
            shown += block
        assert process.stdout is not None
        data = json.loads(process.stdout.read())
    os.close(master)
    assert (process.returncode, data["added"]) == (0, 60)
    assert b"Listening" in shown
    assert b" of 60 files" in shown
    assert b"Traceback" not in shown


def test_model_of_its_own_is_chosen_and_said_when_none_is_named(index: str, library: Path, tmp_path: Path) -> None:
    make_sound(library / "a.wav")
    environment = {**os.environ, "EMBEDINDEX_MODELS": str(tmp_path / "models"), "EMBEDINDEX_OFFLINE": "1"}
    arguments = [sys.executable, "-m", "embedindex", "scan", str(library), "-j", "1"]
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert b"model spectral" in done.stdout
    assert done.stderr.count(b"spectral") == 1
    assert b"spectral" not in command("scan", str(library)).error.encode()  # the index remembers
