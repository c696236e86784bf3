"""Tagging by neighbours: what is written and what is left alone, abstention, explanation, timeline, sounds outside."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from embedindex.genre import Judgement, learn_judge
from embedindex.label_store import FileLabel, add_import, given_labels
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.command_line import Cli, command, command_line
from tests.indexing import one, run_scan, write_samples
from tests.sounds import noise, sine
from tests.test_labels import values

RATE = 8000
SOUNDS = {"low": 300.0, "mid": 1600.0, "high": 2900.0}


@pytest.fixture
def cli(index: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line on the index."""
    return command_line(index, monkeypatch)


@pytest.fixture
def tones(library: Path, index: str) -> Path:
    """Eight noisy tones of each of three pitches in two folders; those of the folder a are labelled with the pitch."""
    for folder in "ab":
        (library / folder).mkdir()
        for name, pitch_hz in SOUNDS.items():
            for number in range(4):
                sound = sine(pitch_hz + 12 * number, 0.6, RATE) + noise(0.6, RATE, seed=number, level=0.02)
                write_samples(library / folder / f"{name}{number}.wav", sound.astype(np.float32))
    run_scan(index, library)
    with StoreWriter(index) as store:
        add_import(
            store,
            "file",
            "",
            [
                FileLabel(record.id, Label("pitch", Path(record.text_path).stem[:-1], "file", 1.0))
                for record in store.files()
                if Path(record.text_path).parent.name == "a"
            ],
        )
    return library


def test_unlabelled_files_get_the_label_of_their_neighbours(index: str, tones: Path, cli: Cli) -> None:
    told = json.loads(cli("genre", "--key", "pitch", "--json"))
    assert (told["key"], told["model"], told["labelled"], told["labels"]) == ("pitch", "tiny", 12, sorted(SOUNDS))
    assert len(told["results"]) == 12
    for result in told["results"]:
        assert result["label"] == Path(result["path"]).stem[:-1]
        assert sum(candidate["confidence"] for candidate in result["top"]) == pytest.approx(1, abs=1e-4)
        assert result["confidence"] == result["top"][0]["confidence"]
    with Store(index) as store:
        record = store.file_by_path(bytes(tones / "b" / "mid2.wav"))
        assert record is not None
        (label,) = store.labels_of([record.id])[record.id]
    assert (label.value, label.source) == ("mid", "predicted:knn")
    assert label.confidence == pytest.approx(
        next(result["confidence"] for result in told["results"] if result["path"].endswith("mid2.wav")), abs=1e-5
    )


def test_given_labels_stay_and_predictions_teach_nothing(index: str, tones: Path, cli: Cli) -> None:
    cli("label", "set", tones / "b" / "low0.wav", "pitch=odd")
    cli("genre", "--key", "pitch")
    assert values(index, tones / "b" / "low0.wav", "pitch") == ["odd"]
    with Store(index) as store:
        assert len(given_labels(store, "pitch")) == 13
        assert len(learn_judge(store, "pitch").labelled) == 13
    cli("genre", "--key", "pitch")  # again: replaces its own predictions
    assert len(values(index, tones / "b" / "mid0.wav", "pitch")) == 1
    cli("label", "undo")
    assert values(index, tones / "b" / "mid0.wav", "pitch") == []


def test_dry_run_writes_nothing(index: str, tones: Path, cli: Cli) -> None:
    before = Path(index, "embedindex.db").read_bytes()
    cli("genre", "--key", "pitch", "--dry-run")
    assert Path(index, "embedindex.db").read_bytes() == before


def test_sound_far_from_everything_labelled_is_unknown(index: str, tones: Path, cli: Cli) -> None:
    hiss = write_samples(tones / "hiss.wav", noise(0.6, RATE, seed=9))
    run_scan(index, tones)
    told = json.loads(cli("genre", "--key", "pitch", "--json"))
    by_name = {Path(result["path"]).name: result for result in told["results"]}
    assert by_name["hiss.wav"]["label"] is None
    assert by_name["hiss.wav"]["familiar"] is False
    assert values(index, hiss, "pitch") == []
    assert by_name["mid1.wav"]["familiar"] is True


def test_unsure_files_are_left_unknown(index: str, tones: Path, cli: Cli) -> None:
    both = sine(SOUNDS["low"], 0.6, RATE) + sine(SOUNDS["mid"], 0.6, RATE)
    path = write_samples(tones / "both.wav", (0.5 * both).astype(np.float32))
    told = json.loads(cli("genre", "--key", "pitch", path, "--json", "--min-confidence", "1"))
    assert told["results"][0]["label"] is None
    assert told["results"][0]["confidence"] < 1


def test_labelled_file_does_not_vouch_for_itself(index: str, tones: Path, cli: Cli) -> None:
    path = tones / "a" / "low0.wav"
    cli("label", "set", path, "pitch=high")
    told = json.loads(cli("genre", "--key", "pitch", path, "--json"))
    (result,) = told["results"]
    assert result["given"] == ["high"]
    assert result["label"] == "low"
    assert str(path) not in [neighbour["path"] for neighbour in result["neighbours"]]
    assert values(index, path, "pitch") == ["high"]


def test_file_is_not_among_the_neighbours_that_explain_it(index: str, tones: Path, cli: Cli) -> None:
    cli("label", "remove", "--everywhere", "pitch")
    for name in ("low0", "mid0"):
        cli("label", "set", tones / "a" / f"{name}.wav", f"pitch={name}")
    told = json.loads(cli("genre", "--key", "pitch", tones / "a" / "low0.wav", "--json"))
    assert [neighbour["path"] for neighbour in told["results"][0]["neighbours"]] == [str(tones / "a" / "mid0.wav")]


def test_neighbours_explain_the_judgement(index: str, tones: Path, cli: Cli) -> None:
    said = cli("genre", "--key", "pitch", "-v", tones / "b" / "high1.wav").splitlines()
    assert said[0].startswith("high\t")
    assert f"like {tones / 'a'}" in said[1]
    assert said[1].endswith("\thigh")


def test_sound_outside_the_index_is_judged_and_not_kept(
    index: str,
    tones: Path,
    cli: Cli,
    tmp_path: Path,
) -> None:
    path = write_samples(tmp_path / "new.wav", sine(1610, 0.6, RATE))
    told = json.loads(cli("genre", "--key", "pitch", path, "--json"))
    assert told["results"][0]["label"] == "mid"
    with Store(index) as store:
        assert store.file_by_path(bytes(path)) is None
    assert "neither" in cli("genre", "--key", "pitch", tmp_path / "none.wav", status=1)


def test_file_of_the_index_that_could_not_be_used_is_not_judged_in_silence(index: str, tones: Path, cli: Cli) -> None:
    (tones / "text.wav").write_text("no sound")
    run_scan(index, tones)
    assert "could be used" in cli("genre", "--key", "pitch", tones / "text.wav", status=1)


def test_timeline_follows_the_change_of_label(index: str, tones: Path, cli: Cli, tmp_path: Path) -> None:
    halves = np.concatenate([sine(SOUNDS["low"], 20, RATE), sine(SOUNDS["high"], 20, RATE)])
    path = write_samples(tmp_path / "halves.wav", halves)
    told = json.loads(cli("genre", "--key", "pitch", path, "--timeline", "--json"))
    spans = told["results"][0]["timeline"]
    assert [span["value"] for span in spans] == ["low", "high"]
    assert spans[0]["start"] == 0
    assert spans[0]["end"] == spans[1]["start"] == pytest.approx(20, abs=1.5)
    assert spans[1]["end"] == pytest.approx(40)
    rows = list(csv.DictReader(io.StringIO(cli("genre", "--key", "pitch", path, "--timeline", "--csv"))))
    assert [row["label"] for row in rows] == ["low", "high"]


def test_csv_has_a_row_for_each_file_and_the_next_best_labels(tones: Path, cli: Cli) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("genre", "--key", "pitch", "--csv", "-n", "2"))))
    assert len(rows) == 12
    assert set(rows[0]) == {"path", "label", "confidence", "label_2", "confidence_2"}
    assert float(rows[0]["confidence"]) > float(rows[0]["confidence_2"])


def test_silence_is_unknown(index: str, tones: Path, cli: Cli) -> None:
    write_samples(tones / "silence.wav", np.zeros(4000, np.float32))
    run_scan(index, tones)
    told = json.loads(cli("genre", "--key", "pitch", "--json"))
    (silent,) = [result for result in told["results"] if result["path"].endswith("silence.wav")]
    assert (silent["label"], silent["confidence"], silent["familiar"]) == (None, None, False)


def test_question_without_labels_says_how_to_make_some(index: str, tones: Path, cli: Cli) -> None:
    assert "label import" in cli("genre", status=1)


def test_library_that_is_all_labelled_is_no_error(index: str, tones: Path, cli: Cli) -> None:
    for name in SOUNDS:
        for number in range(4):
            cli("label", "set", tones / "b" / f"{name}{number}.wav", f"pitch={name}")
    ran = command("genre", "--key", "pitch", "-I", index)
    assert (ran.status, ran.text) == (0, "")
    assert ran.error == (
        "embedindex: every file of the index was given a label of this key; name files to see them judged\n"
    )
    assert json.loads(cli("genre", "--key", "pitch", "--json"))["results"] == []
    assert json.loads(cli("genre", "--key", "pitch", "--json", tones / "a"))["results"]


def test_several_labels_are_given_while_half_as_probable_as_the_first() -> None:
    said = Judgement((("a", 0.5), ("b", 0.3), ("c", 0.2)), 0.9, 0.8, True)
    assert said.labels() == (("a", 0.5),)
    assert said.labels(several=True) == (("a", 0.5), ("b", 0.3))
    assert said.labels(0.6, several=True) == ()
    assert Judgement(said.values, 0.1, 0.1, False).labels() == ()


def test_file_with_two_labels_votes_for_both(index: str, tones: Path, cli: Cli) -> None:
    for number in range(4):
        cli("label", "set", "--add", tones / "a" / f"low{number}.wav", "pitch=deep")
    told = json.loads(cli("genre", "--key", "pitch", "--json", "--several", tones / "b" / "low2.wav"))
    assert sorted(told["results"][0]["labels"]) == ["deep", "low"]
    assert one(index, tones / "b" / "low2.wav").id
    assert sorted(values(index, tones / "b" / "low2.wav", "pitch")) == ["deep", "low"]
