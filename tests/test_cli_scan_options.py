"""Options of ``embedindex scan``: parts of a library, what it would cost, its log, and progress for other programs."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from embedindex.cli.logs import log_to, waits_are_told
from embedindex.cli.options import parse_since
from embedindex.errors import UsageError
from tests.command_line import Ran, command, refusal
from tests.indexing import make_sound, names
from tests.processes import PATIENCE_S


@pytest.fixture(autouse=True)
def index_folder(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", index)


def scan(*arguments: str | Path) -> Ran:
    return command("scan", *arguments, "--model", "tiny", "-j", "1", "--nice", "0")


def test_limit_and_since_leave_files_for_another_time(index: str, library: Path) -> None:
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 100 * number)
    ran = scan(library, "--limit", "1")
    assert "1 new, 2 left for another time" in ran.text
    os.utime(library / "2.wav")
    ran = scan(library, "--since", "1h", "--json")
    assert (ran.json["added"], ran.json["postponed"]) == (1, 1)
    assert names(index) == {"0.wav", "2.wav"}


NOW = datetime(2026, 3, 31, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("3h", NOW - timedelta(hours=3)),
        ("2d", NOW - timedelta(days=2)),
        ("1.5w", NOW - timedelta(days=10.5)),
        ("2026-03-01T18:30:00Z", datetime(2026, 3, 1, 18, 30, tzinfo=timezone.utc)),
        ("2026-03-01T18:30:00+02:00", datetime(2026, 3, 1, 16, 30, tzinfo=timezone.utc)),
    ],
)
def test_since_is_a_time_or_how_long_ago(text: str, when: datetime) -> None:
    assert parse_since(text, NOW) == round(when.timestamp() * 1e9)


def test_since_without_a_zone_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    try:
        assert parse_since("2026-03-01", NOW) == datetime(2026, 3, 1, 5, tzinfo=timezone.utc).timestamp() * 1e9
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2 d", "-2d", "nan", "2026-13-01", "2026-04-03", "9999999999d", "2d\n"]
)
def test_since_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        parse_since(text, NOW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "soon"], "--since soon: give a date or time, for example 2026-03-31"),
        (["--progress", "xml"], "--progress xml: choose auto or json"),
        (["--log", "/nowhere/scan.log"], "/nowhere/scan.log: cannot be written (No such file or directory); choose"),
    ],
)
def test_wrong_options_are_said_in_one_line(index: str, library: Path, options: list[str], message: str) -> None:
    assert message in refusal("scan", library, *options, status=2)
    assert not os.path.exists(index)


@pytest.mark.parametrize("options", [["--limit", "0"], ["--max-load", "-1"]])
def test_wrong_numbers_are_refused_by_the_parser(library: Path, options: list[str]) -> None:
    assert command("scan", library, *options).status == 2


def test_busy_machine_is_waited_for_and_the_scan_ends(library: Path) -> None:
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 100 * number)
    assert scan(library, "--max-load", "0", "--json").json["added"] == 3


def test_dry_run_says_what_a_scan_would_cost_and_makes_no_index(index: str, library: Path) -> None:
    for number in range(4):
        make_sound(library / f"{number}.wav", 300 + 100 * number, 5.0)
    ran = scan(library, "--dry-run")
    assert "4 audio files found: 4 to listen to" in ran.text
    size = sum(path.stat().st_size for path in library.iterdir())
    assert f"about 0:20.0 of sound in {size / 1000:.1f} kB (4 files looked into)" in ran.text
    assert re.search(r"about \d+:\d\d\.\d with tiny in 1 process: 44 windows, .* of disk", ran.text)
    assert not os.path.exists(index)
    data = scan(library, "--dry-run", "--json", "--limit", "3").json
    assert (data["found"], data["todo"], data["postponed"], data["model"]) == (4, 3, 1, "tiny")
    assert data["audio_s"] == pytest.approx(15)


def test_dry_run_looks_only_at_what_a_scan_would_and_leaves_the_index_alone(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    scan(library)
    before = Path(index, "embedindex.db").read_bytes()
    make_sound(library / "b.wav", 700)
    data = command("scan", library, "--dry-run", "--json").json  # with the index's own model
    assert (data["found"], data["todo"], data["model"], data["hop_s"]) == (2, 1, "tiny", 0.5)
    assert Path(index, "embedindex.db").read_bytes() == before
    assert "this index was made with" in refusal("scan", library, "--dry-run", "--model", "spectral")
    assert "not every 0.25 s" in refusal("scan", library, "--dry-run", "--hop", "0.25")


def test_dry_run_refuses_what_is_not_there(library: Path) -> None:
    message = refusal("scan", library / "nowhere", "--dry-run", "--model", "tiny")
    assert "nowhere: there is no such file or folder" in message


def test_log_names_every_file_before_it_is_opened_with_times(library: Path, tmp_path: Path) -> None:
    make_sound(library / "good.wav")
    (library / "two\nlines.wav").write_text("no sound")
    log = tmp_path / "scan.log"
    scan(library, "--log", log, "--quiet")
    lines = log.read_text(encoding="utf-8").splitlines()
    for line in lines:
        stamp, level, _ = line.split(" ", 2)
        assert abs(datetime.fromisoformat(stamp) - datetime.now().astimezone()) < timedelta(minutes=5)
        assert level in ("INFO", "WARNING")
    messages = [line.split(" ", 2)[2] for line in lines]
    assert messages[0].startswith(f"scan of {library} into ")
    assert messages.index(f"reading {library}/good.wav") < messages.index(f"heard {library}/good.wav: 2 windows")
    odd = [message for message in messages if "two\\nlines" in message]
    assert odd[0].startswith("reading ")
    assert odd[1].startswith("cannot use ")
    assert messages[-1].startswith("scan ended: found 2, added 1, failed 1")
    scan(library, "--log", log, "--quiet")
    assert log.read_text(encoding="utf-8").splitlines()[: len(lines)] == lines  # appended


def test_log_says_why_a_scan_failed_and_lets_go_of_the_file(library: Path, tmp_path: Path) -> None:
    log = tmp_path / "scan.log"
    assert refusal("scan", library / "gone", "--log", log)
    assert "ERROR" in log.read_text()
    assert "there is no such file or folder" in log.read_text()
    assert logging.getLogger("embedindex").level == logging.NOTSET
    assert not any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger("embedindex").handlers)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_log_on_a_full_disk_ends_the_log_and_not_the_scan(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    ran = scan(library, "--log", "/dev/full")
    assert ran.status == 0
    assert ran.error.count("the log cannot be written any more") == 1
    assert names(index) == {"a.wav"}


def test_models_say_what_takes_long(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = logging.getLogger("embedindex.models.openl3")
    with log_to(str(tmp_path / "log")), waits_are_told(quiet=False):
        log.info("measuring %s", "x\x1b")
        logging.getLogger("embedindex.process").info("reading")
    with waits_are_told(quiet=True):
        log.info("nothing")
    assert capsys.readouterr().err == "embedindex: measuring x\\x1b\n"
    assert [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()] == [
        "INFO measuring x\\x1b",
        "INFO reading",
    ]


def test_progress_for_programs_is_one_object_a_line(library: Path) -> None:
    odd = os.path.join(os.fsencode(library), b"\xff{.wav")
    make_sound(odd)
    for number in range(4):
        make_sound(library / f"{number}.wav", 300 + 100 * number)
    ran = scan(library, "--progress", "json", "--json")
    lines = [json.loads(line) for line in ran.error.splitlines() if line.startswith("{")]
    assert len(lines) == len(ran.error.splitlines())
    stages = [line["stage"] for line in lines]
    assert stages[0] == "crawl"
    assert stages[-1] == "end"
    assert (lines[-1]["files"], lines[-1]["failed"], lines[-1]["interrupted"]) == (5, 0, False)
    assert lines[-1]["windows"] == ran.json["windows"]
    assert set(lines[0]) == {
        *("stage", "elapsed_s", "files", "files_total", "bytes", "bytes_total", "audio_s", "windows", "failed"),
        *("left_s", "audio_left_s", "path"),
    }
    assert lines[0]["path"].startswith(str(library))


def test_dry_run_without_weights_says_that_a_scan_would_look_for_some(
    index: str, library: Path, tmp_path: Path
) -> None:
    make_sound(library / "a.wav")
    environment = {**os.environ, "EMBEDINDEX_MODELS": str(tmp_path / "models"), "EMBEDINDEX_OFFLINE": "1"}
    arguments = [sys.executable, "-m", "embedindex", "scan", str(library), "--dry-run"]
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert b"with spectral in" in done.stdout
    assert b"do it now with: embedindex models fetch" in done.stderr
    assert not os.path.exists(index)
