"""The time left of a scan goes by the length of the sound, whatever the files' sizes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.changes import TodoList
from embedindex.crawl import CrawlTrouble, crawl
from embedindex.estimate import estimate
from embedindex.length_probe import KEPT_OF_A_KIND, PROBED_FILES, Length, LengthProbe, Sample
from embedindex.models import load_model
from embedindex.progress import ScanProgress
from embedindex.scan import PROBE_FROM_FILES, scan
from embedindex.time_left import FALLBACK_BYTES_PER_S, Kind, SoundLeft, kind_of
from tests.indexing import OPTIONS, TINY, make_sound
from tests.processes import PATIENCE_S, lives, wait_until
from tests.servers import WebServer

SHORT, LONG = 120, 4


def sizes(**sizes_by_suffix: Sequence[int]) -> dict[Kind, int]:
    """Return the bytes by kind of files of these sizes, by suffix without the dot."""
    found: dict[Kind, int] = {}
    for ending, every in sizes_by_suffix.items():
        for size in every:
            kind = kind_of(f"a.{ending}".encode(), size)
            found[kind] = found.get(kind, 0) + size
    return found


def test_share_is_of_the_sound_not_of_the_bytes() -> None:
    sound = SoundLeft(sizes(wav=[1_000_000] * 2, mp3=[100_000] * 2))  # 10 s at 200 kB/s, 10 s at 20 kB/s
    sound.done(b"a.WAV", 1_000_000, 5.0)
    sound.done(b"a.mp3", 100_000, 5.0)
    assert sound.share() == pytest.approx(10 / 20)
    sound.done(b"b.wav", 1_000_000, 5.0)
    assert sound.share() == pytest.approx(15 / 20)
    assert sound.left_s() == pytest.approx(5)
    sound.done(b"b.mp3", 100_000, 5.0)
    assert sound.share() == 1.0


def test_long_files_and_short_ones_of_a_suffix_are_told_apart() -> None:
    sound = SoundLeft(sizes(wav=[100_000] * 10 + [10_000_000] * 2))
    sound.learn(b"hit.wav", 100_000, 0.5)  # 200 kB/s
    sound.learn(b"talk.wav", 10_000_000, 1000.0)  # 10 kB/s
    assert sound.left_s() == pytest.approx(10 * 0.5 + 2 * 1000)
    assert sound.share() == 0.0
    sound.done(b"talk.wav", 10_000_000, 1000.0)
    assert sound.share() == pytest.approx(1000 / 2005)


def test_size_of_which_nothing_is_known_is_guessed_by_the_others_of_its_suffix() -> None:
    sound = SoundLeft(sizes(wav=[1000, 100_000], mp3=[1000]))
    sound.learn(b"a.wav", 1000, 10.0)
    sound.learn(b"a.mp3", 1000, 100.0)
    assert sound.left_s() == pytest.approx(10 + 1000 + 100)


def test_files_that_were_not_decoded_count_as_their_kind() -> None:
    sound = SoundLeft(sizes(wav=[1000] * 3))
    sound.done(b"a.wav", 1000, 10.0)
    sound.done(b"moved.wav", 1000, None)
    assert sound.share() == pytest.approx(2 / 3)


def test_kind_nothing_is_known_of_is_guessed_by_the_others() -> None:
    sound = SoundLeft(sizes(wav=[1000], ogg=[3000]))
    sound.done(b"a.wav", 1000, 10.0)
    assert sound.share() == pytest.approx(1 / 4)


def test_nothing_done_is_no_share() -> None:
    assert SoundLeft(sizes(wav=[1000])).share() == 0.0
    assert SoundLeft({}).share() == 0.0


def test_files_without_a_byte_are_no_measure_of_the_others() -> None:
    left = SoundLeft(sizes(wav=[0], mp3=[80_000]))
    left.done(b"a.wav", 0, 300.0)
    assert left.share() == 300 / (300 + 80_000 / FALLBACK_BYTES_PER_S)


# -- which files are looked into --------------------------------------------------------------------------------------


def test_sample_has_every_kind_first_and_then_those_with_the_most_bytes() -> None:
    sample = Sample()
    for number in range(1000):
        sample.add(b"hit%d.wav" % number, 10_000)
    for number in range(3):
        sample.add(b"set%d.flac" % number, 500_000_000)
    sample.add(b"note.amr", 500)
    chosen = sample.choose()
    assert {path for path, _ in chosen[:3]} >= {b"note.amr"}
    assert {size for _, size in chosen[:3]} == {10_000, 500_000_000, 500}
    assert {size for _, size in chosen[3:5]} == {500_000_000}
    assert len(chosen) == 3 + 1 + KEPT_OF_A_KIND
    assert len(set(chosen)) == len(chosen)
    assert sum(sample.sizes().values()) == 1000 * 10_000 + 3 * 500_000_000 + 500


def test_sample_is_bounded_and_comes_from_all_of_a_long_list() -> None:
    sample = Sample()
    for number in range(20_000):
        sample.add(b"%d.%d" % (number, number % 40), 100_000)
    chosen = sample.choose()
    assert len(chosen) == PROBED_FILES
    numbers = sorted(int(path.split(b".")[0]) for path, _ in chosen)
    assert 8000 < np.mean(numbers) < 12_000  # of the first 64 of each kind the mean would be 1280


def test_files_without_a_byte_are_not_looked_into() -> None:
    sample = Sample()
    sample.add(b"empty.wav", 0)
    assert sample.choose() == []
    assert LengthProbe([]).done


# -- looking into them ------------------------------------------------------------------------------------------------


def look_into(files: Sequence[Path]) -> dict[bytes, float]:
    """Return the lengths by path that a probe finds."""
    found: list[Length] = []
    paths = [os.fsencode(path) for path in files]
    probe = LengthProbe([(path, os.path.getsize(path)) for path in paths])
    try:
        while not probe.done:
            found += probe.poll(0.1)
    finally:
        probe.close()
    assert all(length.size == os.path.getsize(length.path) for length in found)
    return {length.path: length.duration_s for length in found}


def test_lengths_come_from_the_headers_and_a_file_without_sound_has_none(library: Path) -> None:
    sounds = [make_sound(library / f"{number}.wav", duration_s=0.5 + number) for number in range(3)]
    text = library / "text.mp3"
    text.write_text("no sound at all")
    found = look_into([*sounds, text])
    assert found == {os.fsencode(path): pytest.approx(s) for path, s in zip([*sounds, text], (0.5, 1.5, 2.5, 0))}  # noqa: B905


AFTER = 20


def disturb(library: Path, what: signal.Signals, *, stalls: bool = False, out_of_time: bool = False) -> int:
    """Send a signal to the process that looks into files, which is at the second one; return how many were found.

    The second file is on a server that says nothing until all is over. With `stalls`, the process counts as hanging as
    soon as it was disturbed, and not before, however slow the machine is; with `out_of_time`, the time for all is up.
    """
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (fsspec[http])")
    path = os.fsencode(make_sound(library / "a.wav"))
    server, over = WebServer(library), threading.Event()
    server.fault = lambda _: over.wait(PATIENCE_S)
    files = [path, f"{server.url}/a.wav".encode(), *[path] * AFTER]
    probe = LengthProbe([(one, 100) for one in files], stall_s=PATIENCE_S, limit_s=PATIENCE_S)
    found = disturbed = 0
    try:
        while not probe.done:
            found += len(probe.poll(0.02))
            process_id = probe._running[0].pid if probe._running is not None else None
            if server.asked and not disturbed and process_id is not None:
                os.kill(process_id, what)
                disturbed = process_id
                probe._limit_s = 0.0 if out_of_time else PATIENCE_S
            probe._stall_s = 0.0 if stalls and process_id == disturbed else PATIENCE_S
    finally:
        probe.close()
        over.set()
        server.stop()
    assert disturbed
    wait_until(lambda: not lives(disturbed))
    return found


@pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL])
def test_file_that_hangs_or_takes_its_process_down_is_left_out_and_the_others_are_not(
    library: Path, what: signal.Signals
) -> None:
    assert disturb(library, what, stalls=what == signal.SIGSTOP) == 1 + AFTER


def test_looking_into_files_ends_in_time(library: Path) -> None:
    assert disturb(library, signal.SIGSTOP, out_of_time=True) == 1


# -- in a scan --------------------------------------------------------------------------------------------------------


def write_library(folder: Path) -> float:
    """Write many short sounds of many bytes a second, and a few long ones of few; return their seconds."""
    random = np.random.default_rng(1)
    for number in range(SHORT):
        hit = random.uniform(-0.5, 0.5, (4410, 2))
        sf.write(folder / f"hit{number}.wav", hit, 44100, subtype="PCM_24")
    for number in range(LONG):
        talk = random.uniform(-0.5, 0.5, 60 * 8000)
        sf.write(folder / f"talk{number}.wav", talk, 8000, subtype="ULAW")
    return SHORT * 0.1 + LONG * 60


def test_first_time_left_is_right_whatever_file_comes_first(index: str, library: Path, tmp_path: Path) -> None:
    truth_s = write_library(library)
    assert SHORT + LONG >= PROBE_FROM_FILES
    shown: list[ScanProgress] = []
    go = tmp_path / "go"  # the scan is so short that it might be over before anything is known
    waiting = replace(OPTIONS, request=replace(TINY, options=(("until", str(go)), ("free", "60"))))

    def report(progress: ScanProgress) -> None:
        if progress.stage == "embed" and progress.share is None:
            assert progress.left_s is None
        elif progress.stage == "embed":
            shown.append(progress)
            go.touch()

    summary = scan(index, [str(library)], waiting, report=report)
    assert summary.audio_s == pytest.approx(truth_s)
    first = shown[0]
    assert first.left_s is not None
    assert first.share is not None
    left_s = truth_s - first.audio_s
    assert left_s / 1.5 < first.left_s < left_s * 1.5
    assert first.share == pytest.approx(first.audio_s / truth_s, abs=0.1)


def test_estimate_of_a_few_long_files_among_many_short_ones_is_near(index: str, library: Path) -> None:
    truth_s = write_library(library)
    guess = estimate(index, [str(library)], load_model(TINY), 0.5, 1)
    assert truth_s / 1.2 < guess.audio_s < truth_s * 1.2
    assert guess.probed == KEPT_OF_A_KIND + LONG


def test_kinds_on_a_list_of_work_are_those_of_its_files(library: Path) -> None:
    write_library(library)
    with TodoList() as todo:
        for found in crawl([os.fsencode(library)], CrawlTrouble()):
            todo.add(found, None)
        assert sum(todo.sample.sizes().values()) == todo.bytes
        assert len(todo.sample.choose()) == KEPT_OF_A_KIND + LONG
