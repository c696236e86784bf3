"""Watching: an index follows its folders until it is told to stop, and a stop is never in the middle of a file."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from embedindex.errors import IndexBusyError, PathNotFoundError
from embedindex.progress import ScanSummary
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.watch import Pace, watch
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal, started
from tests.indexing import OPTIONS, make_sound, names
from tests.processes import PATIENCE_S


class Rounds:
    """Does something after each scan, and stops when there is nothing more to do."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.outcomes: list[ScanSummary | IndexBusyError] = []
        self.over = False

    def told(self, outcome: ScanSummary | IndexBusyError) -> None:
        self.outcomes.append(outcome)
        if self.steps:
            self.steps.pop(0)()
        else:
            self.over = True

    def stop(self) -> bool:
        return self.over


def run(index: str, library: Path, rounds: Rounds) -> None:
    pace = Pace(every_s=0.05, poll=True)
    watch(index, [str(library)], OPTIONS, pace=pace, stop=rounds.stop, told=rounds.told, warn=pytest.fail)


def test_index_follows_its_folder(index: str, library: Path) -> None:
    rounds = Rounds(
        lambda: make_sound(library / "a.wav", 300),
        lambda: make_sound(library / "b.wav", 500),
        lambda: (library / "a.wav").unlink(),
    )
    run(index, library, rounds)
    done = [outcome for outcome in rounds.outcomes if isinstance(outcome, ScanSummary)]
    assert [(summary.found, summary.added, summary.forgotten) for summary in done] == [
        (0, 0, 0),
        (1, 1, 0),
        (2, 1, 0),
        (1, 0, 1),
    ]
    assert names(index) == {"b.wav"}


def test_busy_index_is_waited_for(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    writers = [StoreWriter(index)]
    rounds = Rounds(lambda: writers.pop().close())
    run(index, library, rounds)
    assert isinstance(rounds.outcomes[0], IndexBusyError)
    assert names(index) == {"a.wav"}


def test_folder_that_is_not_there_is_refused(index: str, library: Path) -> None:
    with pytest.raises(PathNotFoundError):
        run(index, library / "nowhere", Rounds())
    assert "there is no such file or folder" in refusal("watch", library / "nowhere", "-I", index)


@pytest.mark.parametrize("options", [["--every", "0"], ["--every", "inf"]])
def test_senseless_times_are_refused(index: str, library: Path, options: list[str]) -> None:
    assert command("watch", library, "-I", index, *options).status == 2


@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, ["--poll", "--every", "1"]), (signal.SIGTERM, [])])
def test_command_says_what_changed_and_ends_when_asked(index: str, library: Path, number: int, how: list[str]) -> None:
    make_sound(library / "a.wav")
    arguments: list[str | Path] = [
        "watch",
        library,
        "-I",
        index,
        "--model",
        "tiny",
        "-j",
        "1",
        "--json",
        *how,
    ]
    with started(arguments) as process:
        timer = threading.Timer(PATIENCE_S, process.kill)
        timer.start()
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        make_sound(library.parent / "b.wav", 700).rename(library / "b.wav")
        second = json.loads(process.stdout.readline())
        time.sleep(0.1)
        process.send_signal(number)
        out, error = process.communicate(timeout=PATIENCE_S)
        timer.cancel()
    assert (process.returncode, out) == (0, b""), error
    assert b"Traceback" not in error
    looked_at = 2 if how else 1  # with events, only at what changed
    assert (first["added"], second["added"], second["found"]) == (1, 1, looked_at)
    assert names(index) == {"a.wav", "b.wav"}
    assert os.path.exists(os.path.join(index, "windows.faiss"))
    with Store(index) as store:
        assert verify(store).problems == ()
