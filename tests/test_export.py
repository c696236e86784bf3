"""``embedindex export``: what is in the tables, in both formats, and that nothing is left half written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedindex import export as export_module
from embedindex.analysis_store import Wanted, put_analysis
from embedindex.errors import IndexEmptyError, UsageError
from embedindex.export import export
from embedindex.filters import Filters
from embedindex.records import Label
from embedindex.store import Store
from embedindex.tempo_key import TempoKey
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal
from tests.indexing import TINY_RATE, make_sound, one, records, run_scan, write_samples
from tests.sounds import sine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three sounds, one of them with silence in it, with a label and a tempo."""
    folder = tmp_path_factory.mktemp("export")
    library, index = folder / "library", str(folder / "index")
    make_sound(library / "a.wav", 300, 2.5)
    make_sound(library / "b.wav", 900, 0.5)
    gap = np.concatenate([sine(600, 2.0, TINY_RATE), np.zeros(3 * TINY_RATE, np.float32), sine(500, 2.0, TINY_RATE)])
    write_samples(library / "gap ü.wav", gap)
    run_scan(index, library)
    with StoreWriter(index) as store:
        record = one(index, library / "b.wav")
        store.put_labels(record.id, [Label("genre", "house", "human", 1.0)])
        put_analysis(store, record.content_hash or b"", Wanted(), TempoKey(120.0, 0.9, "F minor", 0.8))
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def test_npz_of_files_has_means_paths_and_attributes(place: Path, tmp_path: Path) -> None:
    done = command("export", tmp_path / "out.npz", "--json").json
    assert (done["files"], done["rows"]) == (3, 3)
    table = np.load(tmp_path / "out.npz")
    known = records(str(place / "index"))
    assert table["paths"].tolist() == sorted(known)
    with Store(str(place / "index")) as store:
        for row, path in zip(table["vectors"], table["paths"], strict=True):
            stored = store.vectors_of(known[path]).astype(np.float32)
            assert row == pytest.approx(stored[stored.any(axis=1)].mean(axis=0))
    assert table["durations"].tolist() == [2.5, 0.5, 7.0]
    assert table["sample_rates"].tolist() == [8000.0] * 3
    assert np.isnan(table["bpms"]).tolist() == [True, False, True]
    assert table["keys"].tolist() == ["", "F minor", ""]
    assert [json.loads(text) for text in table["labels"]] == [{}, {"genre": ["house"]}, {}]


def test_npz_of_windows_leads_from_each_to_its_file_and_time(place: Path, tmp_path: Path) -> None:
    command("export", tmp_path / "out.npz", "--by", "window", "--quiet")
    table = np.load(tmp_path / "out.npz")
    known = records(str(place / "index"))
    row = 0
    with Store(str(place / "index")) as store:
        for number, path in enumerate(table["paths"]):
            stored = store.vectors_of(known[path]).astype(np.float32)
            for window in np.flatnonzero(stored.any(axis=1)):
                assert (table["vectors"][row] == stored[window]).all()
                assert table["starts"][row] == pytest.approx(int(window) * (known[path].hop_s or 0))
                assert table["file"][row] == number
                row += 1
    assert row == len(table["vectors"])
    assert row < sum(record.n_windows for record in known.values())  # silence is left out


@pytest.mark.parametrize("rows_at_once", [1, 2, 4096])
@pytest.mark.parametrize("by", ["file", "window"])
def test_parquet_holds_the_same(
    place: Path, tmp_path: Path, by: str, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (embedindex[parquet])")
    monkeypatch.setattr(export_module, "ROWS_AT_ONCE", rows_at_once)
    command("export", tmp_path / "out.parquet", "--by", by, "--quiet")
    command("export", tmp_path / "out.npz", "--by", by, "--quiet")
    table, arrays = pq.read_table(tmp_path / "out.parquet").to_pylist(), np.load(tmp_path / "out.npz")
    assert (np.array([row["vector"] for row in table], np.float32) == arrays["vectors"]).all()
    files = arrays["file"] if by == "window" else np.arange(3)
    assert [row["path"] for row in table] == arrays["paths"][files].tolist()
    if by == "window":
        assert [row["start"] for row in table] == arrays["starts"].tolist()
    house = next(row for row in table if row["path"].endswith("b.wav"))
    assert house["labels"] == [("genre", ["house"])]
    assert (house["bpm"], house["key"], house["sample_rate"]) == (120.0, "F minor", 8000)


def test_filters_choose_and_no_file_is_an_error(place: Path, tmp_path: Path) -> None:
    command("export", tmp_path / "house", "--to", "npz", "--label", "genre=house", "--quiet")
    with open(tmp_path / "house", "rb") as file:
        assert [Path(path).name for path in np.load(file)["paths"]] == ["b.wav"]
    with Store(str(place / "index")) as store, pytest.raises(IndexEmptyError, match="passes these filters"):
        export(store, str(tmp_path / "none.npz"), filters=Filters(path="*.nothing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["house"]


def test_nothing_is_written_over_or_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.npz").write_text("mine")
    assert "is there already and is not written over" in refusal("export", tmp_path / "there.npz", status=2)
    assert (tmp_path / "there.npz").read_text() == "mine"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "_write_texts", interrupted)
    assert command("export", tmp_path / "new.npz").status == 130
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.txt"], "end the name in .npz or .parquet"),
        (["out.npz", "--by", "bar"], "--by bar: choose file or window"),
        (["out.npz", "--to", "csv"], "--to csv: choose npz or parquet"),
        (["nowhere/out.npz"], "cannot be written"),
    ],
)
def test_wrong_usage_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal("export", *arguments, status=2)


def test_what_another_program_wrote_meanwhile_stays(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.npz"

    def another_writes(_: int, __: int) -> None:
        target.write_bytes(b"theirs")

    with Store(str(place / "index")) as store, pytest.raises(UsageError, match="is not written over"):
        export(store, str(target), progress=another_writes)
    assert target.read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.npz"]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'embedindex[parquet]'" in refusal("export", tmp_path / "out.parquet")
