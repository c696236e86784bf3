"""Tempo and key: of sounds whose tempo and key are known, in the index, and as filters."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from embedindex.analysis_pool import _Worker, analyse_files, first_sound
from embedindex.analysis_store import ToAnalyse, Wanted, analysis_of, put_analysis, to_analyse
from embedindex.arrays import Float32Array
from embedindex.cli.filter_options import parse_filters
from embedindex.database import database_path
from embedindex.errors import UsageError
from embedindex.filters import Filters
from embedindex.schema import migrations
from embedindex.store import Store
from embedindex.tempo_key import SAMPLE_RATE, TempoKey, analyse, estimate_key, estimate_tempo, parse_key
from embedindex.writer import StoreWriter
from tests.command_line import command, command_line, refusal
from tests.indexing import make_sound, names, one, run_scan, write_samples
from tests.processes import PATIENCE_S
from tests.sounds import click_train, drum_hit, noise, pad, sine

pytest.importorskip("librosa", reason="tempo and key need librosa (embedindex[analyse])")


@pytest.fixture(autouse=True)
def time_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """librosa's functions are compiled once in each test process, one after the other."""
    monkeypatch.setattr("embedindex.analysis_pool.START_S", 600.0)


def clicks(bpm: float, beats: int, length_s: float | None = None) -> Float32Array:
    """Return clicks at a tempo, as long as the beats unless said otherwise."""
    times = [60 / bpm * beat for beat in range(beats)]
    return click_train(times, length_s or 60 / bpm * beats, SAMPLE_RATE)


@pytest.mark.parametrize("bpm", [72.0, 90.0, 120.0, 127.5, 150.0])
def test_tempo_of_clicks_is_measured(bpm: float) -> None:
    found, confidence = estimate_tempo(clicks(bpm, 32, 32 * 60 / bpm + 0.37))
    assert found is not None
    assert confidence is not None
    octaves = np.log2(found / bpm)
    assert abs(octaves - round(octaves)) < np.log2(1.01)
    assert confidence > 0.5


def test_loop_has_exactly_the_tempo_its_length_says() -> None:
    assert estimate_tempo(clicks(97, 4))[0] == pytest.approx(97, abs=0.02)
    cut = estimate_tempo(clicks(97, 4), whole=False)[0]
    assert cut != estimate_tempo(clicks(97, 4))[0]


@pytest.mark.parametrize(
    "sound", [drum_hit("snare", sample_rate=SAMPLE_RATE), sine(440, 5.0, SAMPLE_RATE), np.zeros(50_000, np.float32)]
)
def test_one_shots_tones_and_silence_have_no_tempo(sound: Float32Array) -> None:
    assert estimate_tempo(sound) == (None, None)


def cadence(tonic_hz: float, *, minor: bool) -> Float32Array:
    """Return the chords I IV V I of a key (i iv V i in minor)."""
    third = 3 if minor else 4
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    return np.concatenate([pad([tonic_hz * 2 ** (tone / 12) for tone in chord], 1.0, SAMPLE_RATE) for chord in chords])


@pytest.mark.parametrize(
    ("tonic_hz", "minor", "key"),
    [(261.63, False, "C major"), (349.23, True, "F minor"), (233.08, False, "A# major"), (220.0, True, "A minor")],
)
def test_key_of_a_cadence_is_found(tonic_hz: float, minor: bool, key: str) -> None:
    found, confidence = estimate_key(cadence(tonic_hz, minor=minor))
    assert found == key
    assert confidence is not None
    assert confidence > 0.6


def test_noise_and_silence_have_no_key() -> None:
    for sound in (noise(2.0, SAMPLE_RATE), np.zeros(50_000, np.float32), drum_hit("hat", sample_rate=SAMPLE_RATE)):
        assert estimate_key(sound) == (None, None)


def test_only_what_is_asked_for_is_looked_for() -> None:
    found = analyse(clicks(120, 8), tempo=True, key=False)
    assert found.bpm == pytest.approx(120, abs=0.1)
    assert found.key is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("F minor", "F minor"), ("Fm", "F minor"), ("F min", "F minor"), ("f MIN", None), ("Bb major", "A# major"),
        ("C#", "C# major"), ("Db", "C# major"), ("e♭m", "D# minor"), ("G dur", "G major"), ("Cb", "B major"),
        ("A flat minor", "G# minor"), ("H minor", None), ("", None), ("CM", "C major"),
    ],
)  # fmt: skip
def test_keys_are_read_in_many_spellings(text: str, key: str | None) -> None:
    if key is None:
        with pytest.raises(UsageError, match="write a key, for example 'F minor'"):
            parse_key(text)
    else:
        assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "limits"),
    [("120±3", (117, 123)), ("120+-3", (117, 123)), ("118-122", (118, 122)), ("97", (96.5, 97.5)), ("90.5", (90, 91))],
)
def test_tempo_ranges_are_read(text: str, limits: tuple[float, float]) -> None:
    assert parse_filters(bpm=text).bpm == pytest.approx(limits)


@pytest.mark.parametrize("text", ["fast", "120-110", "0-0", "±3", "120±", "3±5"])
def test_tempo_ranges_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--bpm"):
        parse_filters(bpm=text)


def test_first_sound_of_a_process_takes_it_through_all_that_is_compiled() -> None:
    found = analyse(first_sound())
    assert found.bpm == pytest.approx(120, abs=1)
    assert found.key == "A minor"


# -- in the index --------------------------------------------------------------------------------------------------


@pytest.fixture
def place(library: Path, index: str) -> Path:
    """A scanned library with a loop, a copy of it, a chord and a one-shot."""
    write_samples(library / "loop.wav", clicks(120, 8), SAMPLE_RATE)
    write_samples(library / "copy.wav", clicks(120, 8), SAMPLE_RATE)
    write_samples(library / "chords.wav", cadence(349.23, minor=True), SAMPLE_RATE)
    make_sound(library / "short.wav", 440, 0.2)
    run_scan(index, library)
    return library


def test_analysis_is_remembered_filtered_by_and_shown(place: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = command_line(index, monkeypatch)
    done = command("analyse", "-j", "1", "--json").json
    assert (done["files"], done["failed"], done["interrupted"]) == (3, 0, False)  # the copy is not heard again
    assert done["with_tempo"] >= 1
    files = {os.path.basename(file["path"]): file for file in command("list", "--json").json}
    assert files["loop.wav"]["bpm"] == files["copy.wav"]["bpm"] == pytest.approx(120, abs=0.1)
    assert files["chords.wav"]["key"] == "F minor"
    assert files["short.wav"]["bpm"] is None
    for given in ("120±3", "118-122", "60", "240"):
        assert set(run("list", "--paths", "--bpm", given).split()) >= {str(place / "loop.wav"), str(place / "copy.wav")}
    assert str(place / "loop.wav") not in run("list", "--paths", "--bpm", "100")
    assert run("list", "--paths", "--key", "Fm").split() == [str(place / "chords.wav")]
    found = command("similar", place / "short.wav", "--key", "f minor", "--json").json["results"]
    assert [result["path"] for result in found] == [str(place / "chords.wav")]
    assert command("analyse", "-j", "1", "--json").json["files"] == 0


def test_path_that_is_not_in_the_index_is_not_analysed_in_silence(place: Path, index: str) -> None:
    assert "is not in the index" in refusal("analyse", place / "none", "-I", index)


def test_tempo_and_key_are_looked_for_apart_and_below_a_path(place: Path, index: str) -> None:
    with StoreWriter(index) as store:
        everything = to_analyse(store, Wanted())
        assert [os.path.basename(one.path) for one in everything] == [b"chords.wav", b"copy.wav", b"short.wav"]
        put_analysis(store, everything[0].content_hash, Wanted(key=False), TempoKey(bpm=99.0, bpm_confidence=0.5))
        assert len(to_analyse(store, Wanted(key=False))) == 2
        assert len(to_analyse(store, Wanted(tempo=False))) == 3
        put_analysis(store, everything[0].content_hash, Wanted(tempo=False), TempoKey(None, None, "D minor", 0.7))
        assert analysis_of(store, one(index, place / "chords.wav")) == TempoKey(99.0, 0.5, "D minor", 0.7)
        assert len(to_analyse(store, Wanted(), again=True)) == 3
        assert [one.path for one in to_analyse(store, Wanted(), [os.fsencode(place / "short.wav")])] == [
            os.fsencode(place / "short.wav")
        ]
        assert to_analyse(store, Wanted(), [os.fsencode(place / "nothing")]) == []


def test_changed_file_has_no_tempo_until_it_is_analysed_again(place: Path, index: str) -> None:
    with StoreWriter(index) as store:
        (chords, *_) = to_analyse(store, Wanted())
        put_analysis(store, chords.content_hash, Wanted(), TempoKey(99.0, 0.5))
    write_samples(place / "chords.wav", cadence(220.0, minor=True), SAMPLE_RATE)
    os.utime(place / "chords.wav", (1_400_000_000, 1_400_000_000))
    run_scan(index, place)
    with Store(index) as store:
        assert analysis_of(store, one(index, place / "chords.wav")) == TempoKey()
        assert os.fsencode(place / "chords.wav") in {one.path for one in to_analyse(store, Wanted())}


def never() -> bool:
    return False


def test_file_that_cannot_be_read_is_reported_and_not_tried_again(place: Path, index: str) -> None:
    (place / "chords.wav").unlink()
    tasks = [ToAnalyse(b"x" * 16, os.fsencode(place / "chords.wav"), 1.0)]
    ((task, reason),) = analyse_files(tasks, Wanted(), workers=1, limit_s=PATIENCE_S, stop=never)
    assert task == tasks[0]
    assert "chords.wav" in str(reason)
    with StoreWriter(index) as store:
        todo = to_analyse(store, Wanted())
        put_analysis(store, todo[0].content_hash, Wanted(), "took too long")
        assert len(to_analyse(store, Wanted())) == len(todo) - 1


def test_worker_that_takes_too_long_or_dies_is_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = _Worker(Wanted(key=False))
    try:
        assert isinstance(worker.ask(os.fsencode(place / "loop.wav"), PATIENCE_S), TempoKey)
        assert "took longer than 0 seconds" in str(worker.ask(os.fsencode(place / "loop.wav"), 0.0))
        assert isinstance(worker.ask(os.fsencode(place / "loop.wav"), PATIENCE_S), TempoKey)
        worker.kill()
        assert "crash" in str(worker.ask(os.fsencode(place / "loop.wav"), PATIENCE_S))
    finally:
        worker.kill()


def test_stopping_keeps_what_was_found(place: Path, index: str) -> None:
    with Store(index) as store:
        todo = to_analyse(store, Wanted(key=False))
    found = list(analyse_files(todo, Wanted(key=False), workers=1, limit_s=PATIENCE_S, stop=lambda: True))
    assert found == []


def test_without_librosa_the_extra_is_named(place: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", index)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'embedindex[analyse]'" in refusal("analyse")
    assert "pip install 'embedindex[analyse]'" in refusal("scan", place, "--analyse", "tempo,key")


def test_scan_analyses_when_asked(place: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", index)
    assert command("scan", place, "-j", "1", "--analyse", "tempo", "--quiet").status == 0
    assert names(index) == {"loop.wav", "copy.wav", "chords.wav", "short.wav"}
    with Store(index) as store:
        where, values = Filters(bpm=(119, 121)).sql()
        assert {os.path.basename(file.path) for file in store.files(where, values)} >= {b"loop.wav", b"copy.wav"}
    assert "choose tempo, key or tempo,key" in refusal("scan", place, "--analyse", "mood", status=2)


def test_merged_index_brings_its_analyses(place: Path, index: str, tmp_path: Path) -> None:
    with StoreWriter(index) as store:
        (chords, *_) = to_analyse(store, Wanted())
        put_analysis(store, chords.content_hash, Wanted(), TempoKey(99.0, 0.5, "D minor", 0.7))
        put_analysis(store, b"elsewhere 16 byt", Wanted(), TempoKey(50.0, 0.5))
    into = str(tmp_path / "into")
    run_scan(into, place / "short.wav")
    assert command("merge", index, "--index", into, "--quiet").status == 0
    with Store(into) as store:
        assert analysis_of(store, one(into, place / "chords.wav")) == TempoKey(99.0, 0.5, "D minor", 0.7)
        assert len(store._rows("SELECT 1 FROM analyses")) == 1


def test_index_of_the_first_schema_is_migrated_and_loses_nothing(place: Path, index: str, tmp_path: Path) -> None:
    from sqlite_utils import Database

    with Store(index) as store:
        before = [(file, store.vectors_of(file).tobytes()) for file in store.files()]
    old = str(tmp_path / "old")
    os.mkdir(old)
    connection = sqlite3.connect(database_path(old), isolation_level=None)
    migrations().apply(Database(connection, strict=True), stop_before="002_tempo_and_key")
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.execute("ATTACH ? AS new", (database_path(index),))
    for table in ("models", "roots", "files", "vectors"):
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})").fetchall())
        connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")  # noqa: S608
    connection.close()
    with StoreWriter(old) as writer:
        assert [(file, writer.vectors_of(file).tobytes()) for file in writer.files()] == before
        put_analysis(writer, before[0][0].content_hash or b"", Wanted(), TempoKey(100.0, 1.0))
        assert analysis_of(writer, before[0][0]).bpm == 100.0
