"""``embedindex info``, ``list`` and ``errors`` as users type them."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest

from embedindex.records import Label
from embedindex.writer import StoreWriter
from tests.command_line import ODD_NAMES, command, refusal, started
from tests.indexing import age, make_sound, one, run_scan


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of a small library, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("listing")
    library, index = folder / "library", str(folder / "index")
    make_sound(library / "a.wav", 300, 1.5)
    make_sound(library / "drums" / "b.wav", 900, 0.5)
    make_sound(folder / "disk" / "away.wav", 1700)
    (library / "text\x1b.wav").write_text("no sound")
    age(library / "text\x1b.wav")
    (library / "gone.wav").symlink_to("nowhere.wav")
    for number, name in enumerate(ODD_NAMES):
        make_sound(os.path.join(os.fsencode(folder), b"odd", name), 2100 + number)
    run_scan(index, library, folder / "disk", folder / "odd")
    (folder / "disk" / "away.wav").unlink()
    run_scan(index, library, folder / "disk")
    with StoreWriter(index) as store:
        store.put_labels(one(index, library / "a.wav").id, [Label("genre", "house", "human", 1.0)])
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def test_list_json_describes_every_file(place: Path) -> None:
    files = {file["path"]: file for file in command("list", "--json").json}
    assert len(files) == 4 + len(ODD_NAMES)
    sound = files[str(place / "library" / "a.wav")]
    assert sound == {
        "path": str(place / "library" / "a.wav"),
        "status": "ok",
        "duration": 1.5,
        "windows": sound["windows"],
        "silent_windows": 0,
        "sample_rate": 8000,
        "channels": 1,
        "container": sound["container"],
        "codec": sound["codec"],
        **dict.fromkeys(("artist", "album", "title", "genre", "year", "instrument", "bpm", "key", "note", "error")),
        "labels": {"genre": ["house"]},
    }
    assert sound["windows"] == one(str(place / "index"), place / "library" / "a.wav").n_windows > 1
    failed = files[str(place / "library" / "text\x1b.wav")]
    assert (failed["status"], failed["windows"], failed["error"]["kind"]) == ("failed", 0, "not-audio")
    assert files[str(place / "disk" / "away.wav")]["status"] == "missing"


def test_list_is_ordered_by_path() -> None:
    paths = command("list", "--paths", "-0").out.split(b"\0")[:-1]
    assert paths == sorted(paths)


def test_odd_names_survive_every_format_bit_by_bit(place: Path) -> None:
    wanted = {os.path.join(os.fsencode(place), b"odd", name) for name in ODD_NAMES}
    options = ["list", "--path", "odd/*"]
    assert {os.fsencode(file["path"]) for file in command(*options, "--json").json} == wanted
    assert set(command(*options, "--paths", "-0").out.split(b"\0")[:-1]) == wanted
    text = command(*options, "--csv").out.decode("utf-8", "surrogateescape")
    assert {os.fsencode(row["path"]) for row in csv.DictReader(io.StringIO(text, newline=""))} == wanted
    plain = command(*options)
    assert len(plain.out.splitlines()) == len(ODD_NAMES)
    assert b"\x1b" not in plain.out


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--status", "failed"], {"text\x1b.wav"}),
        (["--status", "missing"], {"away.wav"}),
        (["--path", "drums/*"], {"b.wav"}),
        (["--label", "genre=House"], {"a.wav"}),
        (["--min-duration", "1"], {"a.wav"}),
        (["--path", "library/*", "--max-duration", "1"], {"b.wav"}),
        (["--label", "genre=polka"], set()),
        (["--path", "library/*", "--sample-rate", "8000", "--channels", "mono"], {"a.wav", "b.wav"}),
        (["--sample-rate", "8001-"], set()),
        (["--channels", "2-"], set()),
        (["--path", "drums/*", "--added-since", "1d"], {"b.wav"}),
        (["--added-since", "2100-01-01"], set()),
    ],
)
def test_list_can_be_narrowed(options: list[str], wanted: set[str]) -> None:
    assert {os.path.basename(file["path"]) for file in command("list", "--json", *options).json} == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--status", "odd"], "--status odd: choose ok, failed or missing"),
        (["--json", "--paths"], "choose one of --json and --paths"),
        (["-0"], "--null goes with --paths"),
        (["--min-duration", "nan"], "--min-duration nan"),
    ],
)
def test_wrong_usage_of_list_is_said_in_one_line(options: list[str], message: str) -> None:
    assert message in refusal("list", *options, status=2)


def test_info_json_counts_and_describes(place: Path) -> None:
    data = command("info", "--json").json
    size = sum(entry.stat().st_size for entry in os.scandir(place / "index"))
    assert (data["index"], data["bytes"]) == (str(place / "index"), size)
    assert (data["files"], data["failed"], data["missing"], data["labels"]) == (2 + len(ODD_NAMES), 1, 1, 1)
    assert data["seconds"] == pytest.approx(2.0 + 0.5 * len(ODD_NAMES))
    assert data["model"].pop("parameters")["version"] == 1
    assert data["model"] == {
        "name": "tiny",
        "dimension": 16,
        "sample_rate": 8000,
        "window": 1.0,
        "hop": 0.5,
        "weights_sha256": None,
    }
    assert set(data["roots"]) == {str(place / name) for name in ("library", "disk", "odd")}


def test_info_is_readable(place: Path) -> None:
    text = command("info").text
    assert "13 searchable, 1 unusable, 1 missing" in text
    assert "tiny" in text
    assert f"Folder     {place / 'library'}" in text


def test_errors_name_kind_file_and_reason_and_what_could_not_be_seen(place: Path) -> None:
    found = {error["kind"]: error for error in command("errors", "--json").json}
    assert found["not-audio"]["path"] == str(place / "library" / "text\x1b.wav")
    assert found["not-audio"]["reason"]
    assert found["unseen"] == {
        "path": str(place / "library" / "gone.wav"),
        "kind": "unseen",
        "reason": "is a link that leads nowhere",
    }
    ran = command("errors")
    assert "text\\x1b.wav" in ran.text
    assert ran.error == "1 not-audio; 1 unseen\n"


def test_no_errors_are_said(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    assert command("errors", "-I", index).text == "No errors: every file found could be used.\n"
    assert command("errors", "-I", index, "--json").json == []


@pytest.mark.parametrize("options", [["--json"], ["--paths"], ["--csv"], []])
def test_closed_output_ends_a_list_quietly(options: list[str]) -> None:
    with started(["list", *options]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `| head -0` does
        assert process.stderr.read() == b""
    assert process.returncode == 0
