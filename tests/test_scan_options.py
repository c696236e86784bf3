"""What the options of a scan change, what it logs, and what it says it would cost."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from embedindex.errors import ModelMismatchError
from embedindex.estimate import estimate
from embedindex.models import ModelRequest, load_model
from embedindex.progress import ScanProgress
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from tests.indexing import LONG_AGO_NS, OPTIONS, TINY, age, constant, make_sound, names, run_scan, write_samples


def test_limit_leaves_the_rest_for_another_scan(index: str, library: Path) -> None:
    for number in range(5):
        make_sound(library / f"{number}.wav", 200 + 50 * number)
    summary = run_scan(index, library, limit=2)
    assert (summary.added, summary.postponed) == (2, 3)
    summary = run_scan(index, library, limit=2)
    assert (summary.unchanged, summary.added, summary.postponed) == (2, 2, 1)
    assert run_scan(index, library).added == 1


def test_since_looks_at_newer_files_only_and_forgets_nothing(index: str, library: Path) -> None:
    make_sound(library / "known.wav", 200)
    run_scan(index, library)
    make_sound(library / "old.wav", 300)
    make_sound(library / "new.wav", 400)
    age(library / "new.wav", 10_000_000_000)
    summary = run_scan(index, library, since_ns=LONG_AGO_NS + 5_000_000_000)
    assert (summary.added, summary.postponed, summary.forgotten) == (1, 1, 0)
    assert names(index) == {"known.wav", "new.wav"}


def test_busy_machine_still_gets_one_file_at_a_time_done(index: str, library: Path) -> None:
    for number in range(4):
        make_sound(library / f"{number}.wav", 200 + 50 * number)
    assert run_scan(index, library, workers=2, max_load=0.0).added == 4


def test_first_files_of_all_folders_come_first(index: str, library: Path) -> None:
    for folder in "abc":
        for number in range(3):
            make_sound(library / folder / f"{number}.wav", 200 + 50 * number + 7 * ord(folder))
    run_scan(index, library)
    with Store(index) as store:
        order = [record.text_path for record in sorted(store.files(), key=lambda record: record.id)]
    assert [Path(path).name for path in order] == ["0.wav"] * 3 + ["1.wav"] * 3 + ["2.wav"] * 3


def test_every_file_is_named_in_the_log_before_it_is_opened(
    index: str, library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_sound(library / "good.wav")
    write_samples(library / "crash.wav", constant(0.5))
    with caplog.at_level(logging.INFO, logger="embedindex"):
        run_scan(index, library)
    lines = [record.getMessage() for record in caplog.records]
    assert f"reading {library}/good.wav" in lines
    assert f"heard {library}/good.wav: 2 windows" in lines
    crash = f"{library}/crash.wav"
    told = [line for line in lines if crash in line]
    assert told == [
        f"reading {crash}",
        f"a worker died of {crash} (SIGKILL)",
        f"a worker died of {crash} (SIGKILL)",
        f"cannot use {crash} (crashed): made the decoder crash twice (SIGKILL)",
    ]


def test_progress_tells_the_stages_in_order_and_ends_complete(index: str, library: Path) -> None:
    for number in range(6):
        make_sound(library / f"{number}.wav", 200 + 50 * number)
    told: list[ScanProgress] = []
    scan(index, [os.fsencode(library)], OPTIONS, report=told.append)
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == [stage for stage in ("crawl", "embed", "sweep", "index") if stage in stages]
    assert "embed" in stages
    for progress in told:
        if progress.stage == "embed":
            assert progress.files_total == 6
            assert 0 <= progress.bytes_done <= (progress.bytes_total or 0)


def test_model_is_chosen_only_when_there_is_something_to_embed(index: str, library: Path) -> None:
    asked = []

    def choose() -> ModelRequest:
        asked.append(1)
        return TINY

    options = ScanOptions(choose=choose, workers=1, niceness=0)
    scan(index, [os.fsencode(library)], options)
    assert asked == []
    make_sound(library / "a.wav")
    scan(index, [os.fsencode(library)], options)
    scan(index, [os.fsencode(library)], options)
    assert asked == [1]


def test_estimate_is_near_what_the_scan_then_finds(index: str, library: Path) -> None:
    for number in range(10):
        make_sound(library / f"{number}.wav", 200 + 50 * number, 6.0 + number)
    (library / "text.wav").write_text("no sound")
    model = load_model(TINY)
    guess = estimate(index, [os.fsencode(library)], model, 0.5, 2)
    assert not os.path.exists(index)
    assert (guess.found, guess.todo, guess.probed) == (11, 11, 11)
    assert guess.audio_s == pytest.approx(105, rel=0.01)
    assert guess.bytes == sum(path.stat().st_size for path in library.iterdir())
    summary = run_scan(index, library)
    assert guess.windows == pytest.approx(summary.windows, rel=0.1)
    assert guess.time_s > 0
    assert estimate(index, [os.fsencode(library)], model, 0.5, 2).todo == 0


def test_precision_is_settled_by_the_first_scan(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    with Store(index) as store:
        model = store.model()
    assert model is not None
    assert model.request.precision == "fp32"  # and not "auto", which may mean something else one day


def test_other_precision_goes_in_only_where_it_was_measured_to_agree(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    make_sound(library / "b.wav", 700)
    with pytest.raises(ModelMismatchError, match=r"precision=fp32.*not with.*precision=int8"):
        run_scan(index, library, request=ModelRequest("tiny", (("agrees", "no"),), precision="int8"))
    assert run_scan(index, library, request=ModelRequest("tiny", precision="int8")).added == 1
    with Store(index) as store:
        model = store.model()
    assert model is not None
    assert model.request.precision == "fp32"
