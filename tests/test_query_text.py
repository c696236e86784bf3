"""What people type to ask: parts of sounds, folders, standard input, sounds to stay away from."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedindex.errors import AudioError, PathNotFoundError, QueryError, UsageError
from embedindex.index import load_view
from embedindex.query import MAX_WINDOWS, Part, QueryMaker
from embedindex.query_text import parse_part, parse_query, parse_time, spooled
from embedindex.search import search
from embedindex.store import Store
from tests.command_line import command, refusal
from tests.indexing import TINY_RATE, age, make_sound, run_scan, write_samples
from tests.processes import PATIENCE_S
from tests.sounds import chirp, encode, noise, sine

SWEEP = chirp(200, 3500, 12.0, TINY_RATE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of a small library, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("asking")
    library = folder / "library"
    for number in range(4):
        make_sound(library / "tones" / f"{number}.wav", 300 + 900 * number, 1.5)
    write_samples(library / "sweep.wav", SWEEP)
    make_sound(library / "odd@1-2", 1000, 1.0)
    (library / "odd@1-2").rename(library / "odd.wav@1-2.wav")
    write_samples(library / "stereo.wav", np.stack([noise(1.0, TINY_RATE)] * 2, 1))
    run_scan(str(folder / "index"), library)
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    with Store(str(place / "index")) as store:
        yield store


def maker(store: Store) -> QueryMaker:
    model = store.model()
    assert model is not None
    return QueryMaker(store, model)


# -- parts ---------------------------------------------------------------------------------------------------------


def test_part_is_heard_as_if_it_had_been_cut_out(store: Store, place: Path, tmp_path: Path) -> None:
    cut = write_samples(tmp_path / "cut.wav", SWEEP[round(6.13 * TINY_RATE) : round(8.5 * TINY_RATE)])
    wanted = maker(store).from_file(str(cut))
    part = maker(store).from_file(str(place / "library" / "sweep.wav"), Part(6.13, 8.5))
    assert len(part.vectors) == len(wanted.vectors) > 1
    for ours, theirs in zip(part.vectors, wanted.vectors, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert part.starts_s[0][0] == pytest.approx(6.13)
    assert part.starts_s[1][1] == pytest.approx(6.13 + 0.125 + 0.25)
    assert part.record is not None  # the file it is a part of is not its own result


def test_part_of_a_compressed_file_at_another_rate_is_that_part(store: Store, tmp_path: Path) -> None:
    sound = np.concatenate([sine(440, 3.0), sine(2500, 3.0), sine(440, 3.0)])
    encode(tmp_path / "a.mp3", sound)
    write_samples(tmp_path / "b.wav", sine(2500, 2.0), 44100)
    ours = maker(store).from_file(str(tmp_path / "a.mp3"), Part(3.5, 5.5)).vectors[0]
    theirs = maker(store).from_file(str(tmp_path / "b.wav")).vectors[0]
    assert len(ours) == len(theirs)
    strongest = theirs.argmax(axis=1)
    np.testing.assert_array_equal(ours.argmax(axis=1), strongest)


def test_long_part_is_heard_once_without_being_held(store: Store, tmp_path: Path) -> None:
    samples = noise(60.0, TINY_RATE)
    path = write_samples(tmp_path / "long.wav", samples)
    cut = write_samples(tmp_path / "cut.wav", samples[5 * TINY_RATE : 50 * TINY_RATE])
    (part,) = maker(store).from_file(str(path), Part(5, 50)).vectors
    (wanted,) = maker(store).from_file(str(cut)).vectors
    np.testing.assert_array_equal(part, wanted)


def test_part_without_an_end_goes_to_the_end_and_too_late_an_end_is_the_end(store: Store, place: Path) -> None:
    path = str(place / "library" / "sweep.wav")
    for end_s in (None, 12.0, 99.0):
        np.testing.assert_array_equal(
            maker(store).from_file(path, Part(10, end_s)).vectors[0], maker(store).from_file(path, Part(10)).vectors[0]
        )


def test_part_behind_the_end_and_silent_part_are_refused(store: Store, place: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"sweep\.wav: ends before 12\.5 s; ask for a part that lies within it"):
        maker(store).from_file(str(place / "library" / "sweep.wav"), Part(12.5, 15))
    half = np.concatenate([sine(500, 2.0, TINY_RATE), np.zeros(2 * TINY_RATE, np.float32)])
    with pytest.raises(QueryError, match="nothing but silence in that part of it"):
        maker(store).from_file(str(write_samples(tmp_path / "half.wav", half)), Part(2.5, 3.5))


def test_name_that_really_ends_like_a_part_is_that_file(store: Store, place: Path) -> None:
    name = str(place / "library" / "odd.wav@1-2.wav")
    assert parse_query(name, store).path == name
    (place / "library" / "sweep.wav@1-2").symlink_to("sweep.wav")
    try:
        asked = parse_query(str(place / "library" / "sweep.wav@1-2"), store)
        assert (asked.path, asked.part) == (asked.text, Part())
    finally:
        (place / "library" / "sweep.wav@1-2").unlink()
    asked = parse_query(str(place / "library" / "sweep.wav@1-2"), store)
    assert (asked.path, asked.part) == (str(place / "library" / "sweep.wav"), Part(1, 2))


@pytest.mark.parametrize(
    ("text", "path", "part"),
    [
        ("a.wav@12.5-15", "a.wav", Part(12.5, 15)),
        ("a.wav@1:02.5-1:00:00", "a.wav", Part(62.5, 3600)),
        ("a.wav@3-", "a.wav", Part(3, None)),
        ("a.wav@-3", "a.wav", Part(0, 3)),
        ("a@b@1-2", "a@b", Part(1, 2)),
        ("a.wav@-", "a.wav@-", Part()),
        ("me@home-1.wav", "me@home-1.wav", Part()),
        ("two\nlines@1-2", "two\nlines", Part(1, 2)),
    ],
)
def test_part_can_be_written_behind_the_name(store: Store, text: str, path: str, part: Part) -> None:
    asked = parse_query(text, store)
    assert (asked.path, asked.part) == (path, part)


def test_times_that_are_none_are_refused() -> None:
    assert parse_time("1:02:03.5") == 3723.5
    for text in ("", ".", "1:", "1:2:3:4", "nan", "-1", "1e5", "9" * 400, "\u0661"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_time(text)
    with pytest.raises(UsageError, match="5:x is no time; write seconds"):
        parse_part("5:x", None)
    with pytest.raises(UsageError, match="the end must come after the start"):
        parse_part("3", "3")


def test_start_and_end_are_the_same_as_a_part_behind_the_name(place: Path) -> None:
    sweep = str(place / "library" / "sweep.wav")
    by_options = command("similar", sweep, "--start", "6", "--end", "0:08", "--include-self", "--json").json["results"]
    by_name = command("similar", f"{sweep}@6-8", "--include-self", "--json").json["results"]
    assert by_options == by_name
    assert by_name[0]["path"] == sweep
    assert 5.5 <= by_name[0]["start"] <= 8
    assert by_name[0]["score"] > 0.97  # its last window is filled up


# -- folders -------------------------------------------------------------------------------------------------------


def test_folder_asks_about_its_files_together_and_does_not_find_them(store: Store, place: Path) -> None:
    query = maker(store).from_path(str(place / "library" / "tones"))
    stored = []
    for number in range(4):
        record = store.file_by_path(os.fsencode(place / "library" / "tones" / f"{number}.wav"))
        assert record is not None
        stored.append(store.vectors_of(record))
    np.testing.assert_array_equal(query.vectors[0], np.concatenate(stored))
    assert [os.path.basename(name) for name in query.sources[:: len(stored[0])]] == [
        b"0.wav",
        b"1.wav",
        b"2.wav",
        b"3.wav",
    ]
    found = {hit.file.text_path for hit in search(store, load_view(store), [query], k=50)}
    assert found == {str(place / "library" / name) for name in ("sweep.wav", "odd.wav@1-2.wav", "stereo.wav")}


def test_folder_of_new_sounds_is_listened_to_and_its_broken_files_are_named(store: Store, tmp_path: Path) -> None:
    make_sound(tmp_path / "new" / "a.wav", 700)
    (tmp_path / "new" / "broken.wav").write_text("no sound")
    query = maker(store).from_path(str(tmp_path / "new"))
    (remark,) = query.remarks
    assert remark.startswith("left out of the question: ")
    assert "broken.wav" in remark
    assert query.records == ()


def test_each_file_of_a_folder_has_about_the_same_weight(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    write_samples(tmp_path / "mixed" / "long.wav", noise(300.0, TINY_RATE))
    write_samples(tmp_path / "mixed" / "other.wav", noise(300.0, TINY_RATE, seed=2))
    query = maker(store).from_path(str(tmp_path / "mixed"))
    assert len(query.vectors[0]) == MAX_WINDOWS
    assert query.sources.count(os.fsencode(tmp_path / "mixed" / "long.wav")) == MAX_WINDOWS // 2


def test_folder_that_is_away_is_asked_about_from_the_index(store: Store, place: Path) -> None:
    folder = place / "library" / "tones"
    wanted = maker(store).from_path(str(folder))
    folder.rename(place / "away")
    try:
        query = maker(store).from_path(str(folder))
    finally:
        (place / "away").rename(folder)
    np.testing.assert_array_equal(query.vectors[0], wanted.vectors[0])


def test_folder_without_sound_and_part_of_a_folder_are_refused(store: Store, place: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="there is no sound in this folder"):
        maker(store).from_path(str(tmp_path))
    with pytest.raises(UsageError, match="is a folder; a part can be taken of a file only"):
        maker(store).from_path(str(place / "library"), Part(1, 2))
    with pytest.raises(PathNotFoundError, match="there is no such file"):
        maker(store).from_path(str(tmp_path / "nowhere"))


# -- standard input ------------------------------------------------------------------------------------------------


def similar_from_stdin(data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "embedindex", "similar", "-", *options]
    return subprocess.run(words, input=data, capture_output=True, timeout=PATIENCE_S)


def test_sound_on_standard_input_is_asked_about(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = similar_from_stdin((place / "library" / "sweep.wav").read_bytes(), "--paths", "-k", "1")
    assert done.stdout == os.fsencode(place / "library" / "sweep.wav") + b"\n"
    clip = write_samples(tmp_path / "clip.wav", SWEEP[4905 : 4905 + 2 * TINY_RATE])
    found = json.loads(similar_from_stdin(clip.read_bytes(), "--json", "-k", "1").stdout)
    clip.unlink()
    assert found["query"] == ["-"]
    assert found["results"][0]["start"] == pytest.approx(4905 / TINY_RATE, abs=2e-3)
    broken = similar_from_stdin(b"no sound at all")
    assert broken.returncode == 1
    assert broken.stderr.startswith(b"embedindex: standard input: its content is not audio")
    nothing = similar_from_stdin(b"")
    assert nothing.stderr.startswith(b"embedindex: standard input: there is nothing in it; pipe")
    assert list(tmp_path.iterdir()) == []


def test_standard_input_is_bounded_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(QueryError, match="more than 1 MiB"), spooled(io.BytesIO(bytes(2**20 + 1)), 2**20):
        pass
    with spooled(io.BytesIO(b"abc"), 3) as path:
        assert Path(path).read_bytes() == b"abc"
    assert list(tmp_path.iterdir()) == []


# -- the command line ----------------------------------------------------------------------------------------------


def test_unlike_moves_what_it_names_down(place: Path) -> None:
    tones = place / "library" / "tones"
    plain = command("similar", place / "library" / "sweep.wav", "--json", "-k", "50").json["results"]
    data = command(
        "similar", place / "library" / "sweep.wav", "--unlike", tones / "3.wav", "--include-self", "--json", "-k", "50"
    ).json
    assert data["unlike"] == [str(tones / "3.wav")]
    before = {result["path"]: result["score"] for result in plain}
    after = {result["path"]: result["score"] for result in data["results"]}
    three = str(tones / "3.wav")
    assert after[three] == pytest.approx(before[three] - 0.5, abs=1e-5)
    without = command("similar", place / "library" / "sweep.wav", "--unlike", three, "--json", "-k", "50").json
    assert three not in [result["path"] for result in without["results"]]


def test_filters_of_the_file_narrow_the_results(place: Path) -> None:
    def names(*options: str) -> set[str]:
        found = command("similar", place / "library" / "sweep.wav", "--paths", "-k", "50", *options)
        return {os.path.basename(line) for line in found.text.splitlines()}

    everything = names()
    assert names("--channels", "2") == names("--channels", "stereo") == names("--channels", "2-") == {"stereo.wav"}
    assert names("--channels", "mono") == names("--channels=-1") == everything - {"stereo.wav"}
    assert names("--sample-rate", "8000") == names("--sample-rate", "4000-8000") == everything
    assert names("--added-since", "1h") == names("--added-since", "2020-01-01") == everything
    for nothing in (["--sample-rate", "44100-"], ["--added-since", "2999-01-01T10:00"]):
        assert "no sound in the index passes these filters" in refusal(
            "similar", place / "library" / "sweep.wav", *nothing
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sample-rate", "many"], "--sample-rate many: write a number or a range, for example 48000"),
        (["--sample-rate", "-"], "write a number or a range"),
        (["--channels", "3-2"], "--channels 3-2: 3 is more than 2"),
        (["--added-since", "yesterday"], "--added-since yesterday: write a date, as 2026-03-01"),
        (["--start", "x"], "x is no time; write seconds"),
        (["--start", "2", "--end", "1"], "the end must come after the start"),
        (["other.wav", "--start", "2"], "--start and --end go with one sound; write a.wav@1-2 b.wav@3-4"),
        (["--unlike", "b.wav", "--unlike-weight", "0"], "must be a number above 0"),
        (["-", "-"], "standard input (-) can be read once"),
    ],
)
def test_wrong_usage_is_said_in_one_line(place: Path, options: list[Any], message: str) -> None:
    options = [str(place / "library" / "sweep.wav") if option == "b.wav" else option for option in options]
    assert message in refusal("similar", place / "library" / "tones" / "1.wav", *options, status=2)


def test_part_is_named_once(place: Path) -> None:
    part = f"{place / 'library' / 'sweep.wav'}@1-2"
    assert "names a part already" in refusal("similar", part, "--start", "1", status=2)


def test_errors_of_parts_are_those_of_the_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    age(tmp_path / "text.wav")
    with pytest.raises(AudioError, match=r"text\.wav"):
        maker(store).from_path(str(tmp_path / "text.wav"), Part(0, 1))
