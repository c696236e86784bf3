"""``embedindex similar`` as users type it: formats, filters, refusals, and names of any bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from embedindex.records import Label
from embedindex.writer import StoreWriter
from tests.command_line import ODD_NAMES, command, refusal, started
from tests.indexing import TINY_RATE, make_sound, one, run_scan, write_samples
from tests.sounds import chirp, sine

KEYS = ["rank", "path", "score", "start", "end", "duration", "labels", "instrument"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of a small library, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("similar")
    library = folder / "library"
    for number, frequency_hz in enumerate((300, 700, 1200, 1700)):
        make_sound(library / "tones" / f"{number}.wav", frequency_hz, 0.5 + number)
    write_samples(library / "sweep.wav", chirp(200, 3500, 8.0, TINY_RATE))
    for number, name in enumerate(ODD_NAMES):
        make_sound(os.path.join(os.fsencode(library), b"odd", name), 2100 + 100 * number, 1.0)
    run_scan(str(folder / "index"), library)
    with StoreWriter(str(folder / "index")) as store:
        record = one(str(folder / "index"), library / "tones" / "1.wav")
        store.put_labels(record.id, [Label("genre", "drone", "human", 1.0), Label("mood", "dark\x1b[2J", "human", 1.0)])
    write_samples(folder / "clip.wav", sine(700, 1.0, TINY_RATE))
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def test_json_has_the_promised_keys_and_the_nearest_file_first(place: Path) -> None:
    clip = str(place / "clip.wav")
    data = command("similar", clip, "-k", "5", "--json").json
    assert list(data) == ["query", "model", "results"]
    assert (data["query"], data["model"]) == ([clip], "tiny")
    assert [list(result) for result in data["results"]] == [KEYS] * 5
    assert [result["rank"] for result in data["results"]] == [1, 2, 3, 4, 5]
    first = data["results"][0]
    assert first["path"] == str(place / "library" / "tones" / "1.wav")
    assert first["labels"] == {"genre": ["drone"], "mood": ["dark\x1b[2J"]}
    assert first["score"] > 0.99
    assert (first["start"] >= 0, first["end"] <= first["duration"]) == (True, True)
    scores = [result["score"] for result in data["results"]]
    assert scores == sorted(scores, reverse=True)


def test_by_window_gives_places_in_files(place: Path) -> None:
    sweep = str(place / "library" / "sweep.wav")
    results = command("similar", sweep, "--by", "window", "--include-self", "--json", "-k", "4").json["results"]
    assert {result["path"] for result in results} == {sweep}
    assert len({result["start"] for result in results}) == 4
    assert all(0 < result["end"] - result["start"] <= 1 for result in results)


def test_file_is_its_own_best_match_only_when_asked_for(place: Path) -> None:
    path = str(place / "library" / "tones" / "2.wav")
    results = command("similar", path, "--include-self", "--json").json["results"]
    assert (results[0]["path"], results[0]["score"]) == (path, 1.0)
    assert path not in [result["path"] for result in command("similar", path, "--json", "-k", "99").json["results"]]


@pytest.mark.parametrize("by", ["file", "window"])
def test_as_many_results_as_there_are_can_be_asked_for(place: Path, by: str) -> None:
    everything = command("similar", place / "clip.wav", "--by", by, "--json", "-k", str(10**30)).json["results"]
    if by == "file":
        assert len(everything) == 5 + len(ODD_NAMES)
    else:
        info = command("info", "--json").json
        assert len(everything) == info["windows"] - info["silent_windows"]


def test_several_queries_are_asked_together(place: Path) -> None:
    clips = [str(place / "library" / "tones" / f"{number}.wav") for number in (0, 1)]
    data = command("similar", *clips, "--json", "-k", "99").json
    assert data["query"] == clips
    assert not set(clips) & {result["path"] for result in data["results"]}


def test_filters_narrow_the_results(place: Path) -> None:
    def names(*options: str) -> set[str]:
        results = command("similar", place / "clip.wav", "--json", "-k", "99", *options).json["results"]
        return {os.path.basename(result["path"]) for result in results}

    assert names("--label", "genre=DRONE") == {"1.wav"}
    assert names("--path", "tones/*") == {"0.wav", "1.wav", "2.wav", "3.wav"}
    assert names("--path", "tones/*", "--min-duration", "1", "--max-duration", "2.5") == {"1.wav", "2.wav"}
    assert names("--path", "sweep*", "--min-duration", "8") == {"sweep.wav"}


def test_name_beginning_with_a_dash_can_be_asked_about(place: Path) -> None:
    ran = command("similar", "--json", "--", place / "library" / "odd" / "-k.wav")
    assert ran.json["query"][0].endswith("-k.wav")


def test_odd_names_survive_every_format_bit_by_bit(place: Path) -> None:
    wanted = {os.path.join(os.fsencode(place / "library"), b"odd", name) for name in ODD_NAMES}
    options: list[str | Path] = ["similar", place / "clip.wav", "--path", "odd/*", "-k", "99"]
    results = command(*options, "--json").json["results"]
    assert {os.fsencode(result["path"]) for result in results} == wanted
    for result in results:
        undecodable = b"\xff" in os.fsencode(result["path"])
        assert ("path_base64" in result) == undecodable
        if undecodable:
            assert b64decode(result["path_base64"]) in wanted
    assert set(command(*options, "--paths", "-0").out.split(b"\0")[:-1]) == wanted
    assert command(*options, "--paths", "-0").out.endswith(b"\0")
    text = command(*options, "--csv").out.decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0]) == KEYS
    assert {os.fsencode(row["path"]) for row in rows} == wanted
    playlist = command(*options, "--m3u")
    lines = playlist.out.split(b"\n")
    assert lines[0] == b"#EXTM3U"
    held = {line for line in lines[1:-1] if not line.startswith(b"#EXTINF:1,")}
    assert held == {path for path in wanted if b"\n" not in path and b"\r" not in path}
    assert playlist.error.count("left out of the playlist") == 2


def test_odd_name_can_be_asked_about(place: Path) -> None:
    for name in ODD_NAMES:
        path = os.path.join(os.fsencode(place / "library"), b"odd", name)
        data = command("similar", "--json", "--include-self", "-k", "1", "--", path).json
        assert os.fsencode(data["results"][0]["path"]) == os.fsencode(data["query"][0]) == path


def test_without_a_terminal_it_prints_tab_separated_lines_without_control_characters(place: Path) -> None:
    ran = command("similar", place / "clip.wav", "-k", "99")
    lines = [line.split("\t") for line in ran.text.splitlines()]
    assert {len(line) for line in lines} == {6}
    assert lines[0][0] == "1"
    assert lines[0][2:4] == ["0:00.0", "0:01.5"]
    assert lines[0][5] == "genre=drone, mood=dark\\x1b[2J"
    shown = {os.path.basename(line[4]) for line in lines}
    assert {
        "two\\nlines.wav",
        "tab\\tname.wav",
        "\\x1b[2J\\x1b[31mred.wav",
        "[red]mark[bold].wav",
        "\\xff\\xfe\\xfa.wav",
    } <= shown
    assert "\x1b" not in ran.text
    assert "\u202e" not in ran.text


def test_on_a_terminal_it_prints_a_table_with_names_as_they_are(place: Path) -> None:
    master, slave = pty.openpty()
    arguments = [sys.executable, "-m", "embedindex", "similar", str(place / "clip.wav"), "-k", "99"]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm-256color"}
    with subprocess.Popen(arguments, stdout=slave, stderr=subprocess.PIPE, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not block:
                break
            shown += block
    os.close(master)
    assert process.returncode == 0
    text = shown.decode()
    assert "score" in text.splitlines()[1]
    assert "[red]mark[bold].wav" in text
    assert "\\x1b[2J\\x1b[31mred.wav" in text
    assert "\x1b[2J" not in text
    assert "🥁 kick.wav" in text


def test_paths_are_one_a_line(place: Path) -> None:
    ran = command("similar", place / "clip.wav", "--paths", "-k", "1")
    assert ran.out == os.fsencode(place / "library" / "tones" / "1.wav") + b"\n"


def test_playlist_names_length_and_title(place: Path) -> None:
    lines = command("similar", place / "clip.wav", "--m3u", "-k", "1").text.splitlines()
    assert lines == ["#EXTM3U", "#EXTINF:2,1", str(place / "library" / "tones" / "1.wav")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "nonsense"], "--by nonsense: choose file or window"),
        (["--label", "genre"], "--label genre: write KEY=VALUE, for example genre=ambient"),
        (["--json", "--csv"], "choose one of --json and --csv"),
        (["-0"], "--null goes with --paths"),
        (["--min-duration", "nan"], "--min-duration nan: give a number of seconds, 0 or more"),
        (["--max-duration", "-1"], "--max-duration -1: give a number of seconds, 0 or more"),
        (["--min-duration", "3", "--max-duration", "2"], "--min-duration 3 is more than --max-duration 2"),
        (["--path", ""], "--path '': the last of these is empty"),
        (["--copy-to="], "--copy-to=: the last of these is empty"),
        (["--audition", "hits.mp3"], "hits.mp3: a WAV file is written; choose a name that ends in .wav"),
    ],
)
def test_wrong_usage_is_said_in_one_line(place: Path, options: list[str], message: str) -> None:
    assert message in refusal("similar", str(place / "clip.wav"), *options, status=2)


@pytest.mark.parametrize("options", [["-k", "0"], ["-k", "many"], ["--nonsense"], ["--min-duration", "long"], []])
def test_wrong_usage_that_the_parser_sees_exits_with_2(place: Path, options: list[str]) -> None:
    ran = command("similar", *([str(place / "clip.wav"), *options] if options else []))
    assert (ran.status, ran.out) == (2, b"")
    assert "Usage: embedindex similar" in ran.error
    assert "Traceback" not in ran.error


def test_what_cannot_be_asked_is_said_in_one_line(place: Path, tmp_path: Path) -> None:
    clip = place / "clip.wav"
    assert "there is no such file; give the path of a sound" in refusal("similar", tmp_path / "nowhere.wav")
    assert "there is no sound in this folder that can be asked about" in refusal("similar", tmp_path)
    assert "no sound in the index passes these filters" in refusal("similar", clip, "--label", "genre=polka")
    assert "no file has a tempo yet; find them with `embedindex analyse`" in refusal("similar", clip, "--bpm", "120")
    assert "no file has a key yet; find them with `embedindex analyse`" in refusal("similar", clip, "--key", "F minor")
    (tmp_path / "text.wav").write_text("no sound at all")
    assert "text.wav: " in refusal("similar", tmp_path / "text.wav")
    assert "two\\nlines" in refusal("similar", tmp_path / "two\nlines")


def test_missing_and_empty_index_say_what_to_run_first(place: Path, tmp_path: Path) -> None:
    clip = place / "clip.wav"
    message = refusal("similar", clip, "--index", tmp_path / "none")
    assert message.endswith("none: there is no index here; make one with `embedindex scan FOLDER`\n")
    assert not (tmp_path / "none").exists()
    (tmp_path / "library").mkdir()
    run_scan(str(tmp_path / "empty"), tmp_path / "library")
    assert "fill it with `embedindex scan FOLDER`" in refusal("similar", clip, "--index", tmp_path / "empty")


def test_index_of_silence_and_index_of_one_sound_have_nothing_else(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "library" / "a.wav")
    run_scan(str(tmp_path / "index"), tmp_path / "library")
    ran = command("similar", path, "--json", "-I", tmp_path / "index")
    assert ran.json["results"] == []
    assert "there is no other sound in the index" in ran.error


def test_damaged_search_index_is_said_and_not_needed(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "library" / "a.wav")
    make_sound(tmp_path / "library" / "b.wav", 900)
    run_scan(str(tmp_path / "index"), tmp_path / "library")
    faiss = tmp_path / "index" / "windows.faiss"
    damaged = bytearray(faiss.read_bytes())
    damaged[100] ^= 1
    faiss.write_bytes(damaged)
    ran = command("similar", path, "--json", "-I", tmp_path / "index")
    assert [os.path.basename(result["path"]) for result in ran.json["results"]] == ["b.wav"]
    assert "`embedindex rebuild` makes it again" in ran.error
    assert ran.error.count("\n") == 1
    faiss.unlink()
    assert len(command("similar", path, "--json", "-I", tmp_path / "index").json["results"]) == 1


def test_closed_output_ends_it_quietly(place: Path) -> None:
    with started(["similar", str(place / "clip.wav"), "-k", "99"]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `| head -0` does
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_traceback_is_shown_only_with_debug(place: Path, tmp_path: Path) -> None:
    arguments = ["similar", str(tmp_path / "nowhere.wav")]
    with started(arguments) as process:
        _, error = process.communicate()
    assert (process.returncode, error.count(b"\n"), b"Traceback" in error) == (1, 1, False)
    with started([*arguments, "--debug"]) as process:
        _, error = process.communicate()
    assert process.returncode == 1
    assert b"Traceback" in error


def test_answer_is_the_same_every_time(place: Path) -> None:
    first, second = (command("similar", place / "clip.wav", "--json", "-k", "99").out for _ in range(2))
    assert first == second
    assert json.loads(first)["results"]


def test_match_says_whether_clips_are_found_inside_files_or_compared_with_whole_ones(
    place: Path, tmp_path: Path
) -> None:
    write_samples(tmp_path / "part.wav", chirp(200, 3500, 8.0, TINY_RATE)[3 * TINY_RATE : 5 * TINY_RATE])
    part, sweep = str(tmp_path / "part.wav"), str(place / "library" / "sweep.wav")
    first = command("similar", part, "--match", "inside", "--json").json["results"][0]
    assert first["path"] == sweep
    assert first["start"] == pytest.approx(3.0, abs=0.2)
    assert first["end"] == pytest.approx(5.0, abs=0.3)
    results = command("similar", part, "--match", "whole", "--json", "-k", "30").json["results"]
    assert {(result["start"], result["end"] - result["duration"]) for result in results} == {(0.0, 0.0)}
    whole = next(result for result in results if result["path"] == sweep)
    assert whole["score"] < first["score"] - 0.05
    explained = command("similar", part, "--match", "whole", "--json", "-v", "-k", "3").json["results"]
    assert [result["matches"][0]["score"] for result in explained] == pytest.approx(
        [result["score"] for result in explained], abs=1e-4
    )


def test_warp_finds_the_same_gesture_played_faster(place: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "fast.wav", chirp(200, 3500, 5.0, TINY_RATE))
    fast, sweep = str(tmp_path / "fast.wav"), str(place / "library" / "sweep.wav")

    def score(*options: str) -> float:
        results = command("similar", fast, "--json", "-k", "30", *options).json["results"]
        return float(next(result["score"] for result in results if result["path"] == sweep))

    assert score("--warp") > score() + 0.02


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--match", "sideways"), "choose auto, inside or whole"),
        (("--match", "whole", "--warp"), "leave out --match whole"),
        (("--by", "window", "--warp"), "window by window"),
    ],
)
def test_ways_that_do_not_go_together_are_refused(place: Path, options: tuple[str, ...], reason: str) -> None:
    assert reason in refusal("similar", str(place / "clip.wav"), *options, status=2)
