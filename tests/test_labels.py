"""Labels as users make them: imports from folders, tags, patterns and files, their undoing; set, remove, list."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
import soundfile as sf

from embedindex.label_store import FileLabel, add_import, given_labels, label_imports, put_predictions, undo_import
from embedindex.labels import genres_of_tag, same
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.command_line import Cli, command_line
from tests.indexing import make_sound, one, run_scan
from tests.sounds import sine


@pytest.fixture
def sounds(library: Path, index: str) -> Path:
    """An index of four files in two kits."""
    for number, name in enumerate(("a/808/kick.wav", "a/808/snare.wav", "a/909/kick.wav", "hat.wav")):
        make_sound(library / name, 300 + 100 * number)
    run_scan(index, library)
    return library


@pytest.fixture
def cli(index: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line on the index."""
    return command_line(index, monkeypatch)


def labels(index: str) -> set[tuple[str, str, str, str]]:
    """Return (path in the library, key, value, source) of all labels."""
    with Store(index) as store:
        return {
            (record.text_path.partition("/library/")[2], *_three(label))
            for record in store.files()
            for label in store.labels_of([record.id]).get(record.id, [])
        }


def _three(label: Label) -> tuple[str, str, str]:
    return label.key, label.value, label.source


def values(index: str, path: Path, key: str) -> list[str]:
    with Store(index) as store:
        file_id = one(index, path).id
        return [label.value for label in store.labels_of([file_id]).get(file_id, []) if label.key == key]


def test_folder_names_become_labels_from_the_top_or_from_the_file(index: str, sounds: Path, cli: Cli) -> None:
    cli("label", "import", "--from-folders", "2", "--key", "kit")
    assert labels(index) == {
        ("a/808/kick.wav", "kit", "808", "folders"),
        ("a/808/snare.wav", "kit", "808", "folders"),
        ("a/909/kick.wav", "kit", "909", "folders"),
    }
    cli("label", "import", "--from-folders", "-2", "--key", "shelf")
    assert values(index, sounds / "a/909/kick.wav", "shelf") == ["a"]
    assert values(index, sounds / "hat.wav", "shelf") == []


def test_pattern_writes_its_named_groups_or_a_fixed_value(index: str, sounds: Path, cli: Cli) -> None:
    cli("label", "import", "--pattern", r"/(?P<kit>\d+)/(?P<drum>\w+)\.wav$")
    assert values(index, sounds / "a/909/kick.wav", "kit") == ["909"]
    assert values(index, sounds / "a/808/snare.wav", "drum") == ["snare"]
    cli("label", "import", "--pattern", "hat", "--key", "drum", "--value", "hi-hat")
    assert values(index, sounds / "hat.wav", "drum") == ["hi-hat"]
    assert "named groups" in cli("label", "import", "--pattern", "kick", status=2)
    assert "regular expression" in cli("label", "import", "--pattern", "(", "--key", "a", status=2)


def test_csv_paths_may_be_absolute_or_relative_and_cells_hold_several_values(
    index: str, sounds: Path, cli: Cli, tmp_path: Path
) -> None:
    table = tmp_path / "elsewhere" / "labels.csv"
    table.parent.mkdir()
    table.write_text(
        "\ufeffPath,genre,mood\n"
        f"{sounds / 'hat.wav'},techno; house,\n"
        'a/808/kick.wav,"rock, hard",dark\n'
        "a/808/absent.wav,rock,dark\n"
    )
    told = json.loads(cli("label", "import", table, "--json"))
    assert (told["added"], told["files"], told["unknown_paths"]) == (4, 2, 1)
    assert "line 4" in told["notes"][0]
    assert values(index, sounds / "hat.wav", "genre") == ["house", "techno"]
    assert values(index, sounds / "a/808/kick.wav", "genre") == ["rock, hard"]
    table.write_text("genre\nrock\n")
    assert "path,KEY" in cli("label", "import", table, status=2)


def test_csv_of_a_spreadsheet_in_its_old_code_page_is_read(index: str, library: Path, cli: Cli, tmp_path: Path) -> None:
    make_sound(library / "Brücke.wav")
    run_scan(index, library)
    table = tmp_path / "labels.csv"
    table.write_bytes(f"path;genre\r\n{library}/Brücke.wav;chanson française\r\n".encode("cp1252"))
    cli("label", "import", table)
    assert values(index, library / "Brücke.wav", "genre") == ["chanson française"]


def test_json_of_each_shape_is_read(index: str, sounds: Path, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    for data in (
        [{"path": "hat.wav", "genre": ["a", "b"]}],
        {"hat.wav": {"genre": ["a", "b"]}},
        [{"path": "hat.wav", "labels": {"genre": ["a", "b"]}, "duration": 1.5}],
    ):
        file.write_text(json.dumps(data))
        cli("label", "import", file)
        assert values(index, sounds / "hat.wav", "genre") == ["a", "b"]
        cli("label", "undo")
        assert values(index, sounds / "hat.wav", "genre") == []
    file.write_text('[{"genre": "a"}]')
    assert "entry 1" in cli("label", "import", file, status=2)


def test_undo_takes_away_what_that_import_brought_and_nothing_else(index: str, sounds: Path, cli: Cli) -> None:
    cli("label", "set", sounds / "hat.wav", "kit=mine")
    cli("label", "import", "--from-folders", "2", "--key", "kit")
    before = labels(index)
    again = json.loads(cli("label", "import", "--from-folders", "2", "--key", "kit", "--json"))
    assert (again["added"], again["import"]) == (0, None)
    cli("label", "import", "--from-folders", "1", "--key", "shelf")
    cli("label", "undo")
    assert labels(index) == before
    cli("label", "undo", "1")
    assert labels(index) == {("hat.wav", "kit", "mine", "human")}
    assert "nothing was imported" in cli("label", "undo", status=1)


def test_failed_import_writes_nothing(index: str, sounds: Path) -> None:
    record = one(index, sounds / "hat.wav")

    def labels_then_failure() -> object:
        yield FileLabel(record.id, Label("genre", "a", "file", 1.0))
        raise RuntimeError

    with StoreWriter(index) as store:
        with pytest.raises(RuntimeError):
            add_import(store, "file", "x", labels_then_failure())  # type: ignore[arg-type]
        assert label_imports(store) == []
        assert given_labels(store, "genre") == {}


def test_set_replaces_the_values_of_a_key_and_add_keeps_them(index: str, sounds: Path, cli: Cli) -> None:
    hat = sounds / "hat.wav"
    cli("label", "set", "Genre=rock", hat, "mood=dark")
    cli("label", "set", hat, "genre=house", "genre=techno")
    assert values(index, hat, "genre") == ["house", "techno"]
    assert values(index, hat, "mood") == ["dark"]
    cli("label", "set", "--add", hat, "genre=dub")
    assert values(index, hat, "genre") == ["dub", "house", "techno"]
    assert "KEY=VALUE" in cli("label", "set", hat, status=2)
    assert "not in the index" in cli("label", "set", sounds / "no.wav", "genre=a", status=1)


def test_folder_stands_for_the_files_below_it(index: str, sounds: Path, cli: Cli) -> None:
    cli("label", "set", sounds / "a", "genre=drums")
    assert len(labels(index)) == 3
    cli("label", "remove", sounds / "a" / "808", "genre")
    assert len(labels(index)) == 1
    cli("label", "remove", "--everywhere", "genre=DRUMS")
    assert labels(index) == set()


def test_export_can_be_imported_on_another_machine(index: str, sounds: Path, cli: Cli, tmp_path: Path) -> None:
    record = one(index, sounds / "hat.wav")
    with StoreWriter(index) as store:
        store.put_labels(record.id, [Label("genre", 'a; "b", c', "human", 0.25)])
    cli("label", "import", "--from-folders", "2", "--key", "kit")
    with Store(index) as store:
        before = {record.id: store.labels_of([record.id]) for record in store.files()}
    for name, form in (("labels.csv", []), ("labels.json", ["--json"])):
        (tmp_path / name).write_text(cli("label", "export", *form))
        cli("label", "remove", "--everywhere", "genre", "kit")
        assert labels(index) == set()
        cli("label", "import", tmp_path / name)
        with Store(index) as store:
            assert {record.id: store.labels_of([record.id]) for record in store.files()} == before


def test_undecodable_names_survive_export_and_import(index: str, library: Path, cli: Cli, tmp_path: Path) -> None:
    make_sound(os.fsencode(library) + b"/caf\xe9.wav")
    run_scan(index, library)
    cli("label", "import", "--pattern", "caf", "--key", "k", "--value", "v")
    (tmp_path / "labels.csv").write_bytes(os.fsencode(cli("label", "export")))
    cli("label", "undo")
    assert json.loads(cli("label", "import", tmp_path / "labels.csv", "--json"))["added"] == 1


def test_list_counts_files_and_sources(index: str, sounds: Path, cli: Cli) -> None:
    cli("label", "import", "--from-folders", "2", "--key", "kit")
    cli("label", "set", "--add", sounds / "a/808/kick.wav", "kit=808")
    counts = json.loads(cli("label", "list", "--json"))
    assert counts[0] == {"key": "kit", "value": "808", "files": 2, "sources": {"folders": 2, "human": 1}}
    shown = json.loads(cli("label", "list", sounds / "hat.wav", "--json"))
    assert shown == [{"path": str(sounds / "hat.wav"), "labels": []}]
    rows = list(csv.reader(io.StringIO(cli("label", "list", sounds, "--csv"))))
    assert rows[0] == ["path", "key", "value", "source", "confidence"]
    assert len(rows) == 5


def test_predictions_give_way_to_given_labels_and_never_replace_them(index: str, sounds: Path) -> None:
    kick, hat = one(index, sounds / "a/808/kick.wav").id, one(index, sounds / "hat.wav").id
    with StoreWriter(index) as store:
        add_import(store, "folders", "", [FileLabel(kick, Label("genre", "rock", "folders", 1.0))])
        _, files = put_predictions(store, "genre", "knn", "", [(kick, [("pop", 0.9)]), (hat, [("pop", 0.8)])])
        assert files == 1
        assert [label.value for label in store.labels_of([kick])[kick]] == ["rock"]
        assert store.labels_of([hat])[hat] == [Label("genre", "pop", "predicted:knn", 0.8)]
        assert hat not in given_labels(store, "genre")
        put_predictions(store, "genre", "knn", "", [(hat, [("dub", 0.5)])])
        assert [label.value for label in store.labels_of([hat])[hat]] == ["dub"]
        assert len(label_imports(store)) == 2
        add_import(store, "human", "", [FileLabel(hat, Label("genre", "jazz", "human", 1.0))])
        assert [label.value for label in store.labels_of([hat])[hat]] == ["jazz"]


def test_prediction_can_be_undone(index: str, sounds: Path) -> None:
    hat = one(index, sounds / "hat.wav").id
    with StoreWriter(index) as store:
        number, _ = put_predictions(store, "genre", "knn", "", [(hat, [("pop", 0.8)])])
        assert undo_import(store, number).labels == 1
        assert store.labels_of([hat]) == {}


@pytest.mark.parametrize(
    ("tag", "genres"),
    [
        ("Hip-Hop", ["hip hop"]),
        ("hip hop", ["hip hop"]),
        ("HIPHOP", ["hip hop"]),
        ("Drum & Bass", ["drum and bass"]),
        ("Drum'n'Bass", ["drum and bass"]),
        ("R&B", ["r&b"]),
        ("RnB", ["r&b"]),
        ("(17)", ["rock"]),
        ("9", ["metal"]),
        ("(4)Eurodisco", ["disco", "eurodisco"]),
        ("Rock; Pop/rock", ["rock", "pop"]),
        ("Folk, World, & Country", ["folk", "world", "country"]),
        ("Unknown", []),
        ("Électro", ["électro"]),
        ("", []),
    ],
)
def test_genres_of_tags_get_one_spelling(tag: str, genres: list[str]) -> None:
    assert genres_of_tag(tag) == genres


def test_what_means_the_same_is_compared_as_the_same() -> None:
    assert same("genre", "Hip-Hop") == same("genre", "hiphop") == same("genre", "Hip Hop")
    assert same("genre", "Électro") == same("genre", "electro")
    assert same("drum", "Hat_Closed") == same("drum", "hat closed")
    assert same("note", "C") != same("note", "C#")
    assert same("level", "-1") != same("level", "1")
    assert same("genre", "民謡") != same("genre", "演歌")


def test_genre_tags_of_real_files_are_imported(index: str, library: Path, cli: Cli) -> None:
    with sf.SoundFile(library / "song.flac", "w", 8000, 1) as file:
        file.genre = "Hip-Hop"
        file.write(sine(440, 0.5, 8000))
    run_scan(index, library)
    cli("label", "import", "--from-tags")
    assert values(index, library / "song.flac", "genre") == ["hip hop"]
