"""``embedindex map``: where points lie, what the page holds, and that names cannot break out of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.index import load_view
from embedindex.map_layout import METHODS, choose_method, lay_out
from embedindex.map_points import MAX_COLOURS, NONE, OTHER, Point, Points, colour_groups, colour_numbers, gather_points
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal
from tests.indexing import make_sound, one, run_scan
from tests.processes import PATIENCE_S
from tests.zips import pack_tree

NASTY = "</script><b>ü.wav"


def clusters(count: int = 3, each: int = 40) -> tuple[Float32Array, list[int]]:
    """Return unit rows in clusters, and the cluster of each."""
    rng = np.random.default_rng(1)
    rows = np.concatenate(
        [middle + 0.3 * rng.standard_normal((each, 20)) for middle in rng.standard_normal((count, 20))]
    )
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32), [number for number in range(count) for _ in range(each)]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_alike_lies_together_and_the_map_can_be_made_again(method: Any) -> None:
    packages = {"pacmap": "pacmap", "opentsne": "openTSNE"}
    if method in packages:
        pytest.importorskip(packages[method], reason="needs embedindex[map]")
    vectors, cluster = clusters()
    places = lay_out(vectors, method, seed=3)
    assert (places == lay_out(vectors, method, seed=3)).all()
    assert places.min() >= 0
    assert places.max() <= 1
    assert np.ptp(places, axis=0).max() == pytest.approx(1, abs=1e-5)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    assert np.mean(np.array(cluster)[nearest] == cluster) > 0.95


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_points_are_laid_out_too(count: int) -> None:
    assert np.isfinite(lay_out(clusters(1, count)[0], "pca")).all()


def test_methods_that_are_not_there_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedindex.map_layout.find_spec", lambda _: None)
    assert choose_method(None) == "pca"
    assert "pip install 'embedindex[map]'" in refusal("map", "m.html", "--method", "pacmap")
    assert "choose pacmap, opentsne or pca" in refusal("map", "m.html", "--method", "som", status=2)


def test_frequent_groups_have_colours_and_the_rest_share_one() -> None:
    names = [f"group {number:02}" for number in range(MAX_COLOURS + 3) for _ in range(20 - number)] + [NONE]
    points = Points(tuple(Point(b"", 0, 1, name, ()) for name in names), np.zeros((len(names), 2), np.float32), 0)
    groups = colour_groups(points)
    assert groups == [f"group {number:02}" for number in range(MAX_COLOURS)] + [OTHER, NONE]
    numbers = colour_numbers(points, groups)
    assert numbers[0] == 0
    assert numbers[-1] == groups.index(NONE)
    assert numbers[-2] == groups.index(OTHER)


# -- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of a few tones, one with a name that means mischief."""
    folder = tmp_path_factory.mktemp("map")
    library, index = folder / "library", str(folder / "index")
    for number in range(6):
        make_sound(library / f"kind{number % 2}" / f"{number}.wav", 300 + 200 * number, 1.0 + number)
    make_sound(library / "kind0" / NASTY.replace("/", "∕"), 2500, 1.0)
    run_scan(index, library)
    with StoreWriter(index) as store:
        store.put_labels(one(index, library / "kind0" / "0.wav").id, [Label("genre", "</script>", "human", 1.0)])
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def data_of(page: Path) -> Any:
    """Return what the page's script reads."""
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    return json.loads(text)


def test_page_holds_every_file_with_its_place_name_labels_and_address(place: Path, tmp_path: Path) -> None:
    assert "7 files, laid out with pca" in command("map", tmp_path / "m.html", "--method", "pca").error
    data = data_of(tmp_path / "m.html")
    assert len(data["x"]) == len(data["y"]) == len(data["file"]) == len(data["files"]) == 7
    assert all(0 <= value <= 1 for value in data["x"] + data["y"])
    zero = next(file for file in data["files"] if file["name"] == "0.wav")
    assert zero["url"] == "file://" + quote(str(place / "library" / "kind0" / "0.wav"))
    assert zero["labels"] == ["genre=</script>"]
    assert set(data["groups"]) == {"kind0", "kind1"}
    kinds = {
        data["files"][file]["path"].split("/")[-2]: data["groups"][c]
        for file, c in zip(data["file"], data["colour"], strict=True)
    }
    assert kinds == {"kind0": "kind0", "kind1": "kind1"}


def test_page_stands_alone_and_nothing_of_the_library_is_html(tmp_path: Path) -> None:
    command("map", tmp_path / "m.html", "--method", "pca", "--colour", "genre", "--quiet")
    text = (tmp_path / "m.html").read_text("utf-8")
    assert text.count("</script>") == 2
    assert "http" not in text
    assert "innerHTML" not in text
    data = data_of(tmp_path / "m.html")
    assert data["groups"] == ["</script>", NONE]
    assert "src=" not in text.replace("audio.src =", "")


def test_sound_in_an_archive_has_no_address(tmp_path: Path) -> None:
    library, index = tmp_path / "library", str(tmp_path / "index")
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 200 * number)
    pack_tree(library, tmp_path / "packed.zip")
    for folder in (library, tmp_path / "packed.zip"):
        run_scan(index, folder)
    command("map", tmp_path / "m.html", "--method", "pca", "--quiet", "-I", index)
    files = data_of(tmp_path / "m.html")["files"]
    assert len(files) == 6
    assert {bool(file["url"]) for file in files if "packed.zip" in file["path"]} == {False}
    assert {bool(file["url"]) for file in files if "packed.zip" not in file["path"]} == {True}


# What a browser has, for the page's script: everything there is to call does nothing. `made` are the elements made.
BROWSER = """
const nothing = new Proxy(function () {}, {
  get: (_, name) => name === Symbol.toPrimitive ? () => 0 : nothing, set: () => true, apply: () => nothing,
  construct: () => nothing,
});
const made = [];
const document = {
  getElementById: id => id === "data" ? { textContent: DATA } : nothing,
  createElement: () => made[made.push({ style: {}, append() {}, addEventListener() {}, classList: nothing }) - 1],
  createTextNode: () => nothing,
};
const window = { innerWidth: 1000, innerHeight: 1000, addEventListener: () => {} };
const Audio = nothing, requestAnimationFrame = () => {};
"""


def in_the_page(page: Path, expression: str) -> Any:
    """Return the value of an expression in a page's script, a window of 1000 × 1000 pixels open."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here to run the script with")
    script = re.findall(r"<script>\n(.*?)</script>", page.read_text("utf-8"), re.DOTALL)[0]
    text = f"const DATA = {json.dumps(json.dumps(data_of(page)))};{BROWSER}"
    (page.parent / "m.js").write_text(f"{text}{script}\nconsole.log(JSON.stringify({expression}));", "utf-8")
    done = subprocess.run([node, str(page.parent / "m.js")], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_copies_of_a_file_are_told_of_and_played_in_turn(tmp_path: Path) -> None:
    library, index = tmp_path / "library", str(tmp_path / "index")
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 700 * number)
    for name in ("again.wav", "and again.wav"):
        shutil.copy(library / "2.wav", library / name)
    run_scan(index, library)
    command("map", tmp_path / "m.html", "--method", "pca", "--quiet", "-I", index)
    names = [file["name"] for file in data_of(tmp_path / "m.html")["files"]]
    copies = [names.index(name) for name in ("2.wav", "again.wav", "and again.wav")]

    def page(expression: str) -> Any:
        return in_the_page(tmp_path / "m.html", expression)

    assert page(f"together({copies[1]})") == sorted(copies)
    assert page(f"together({names.index('0.wav')})") == [names.index("0.wav")]
    at = f"{{ clientX: toScreen({copies[0]})[0], clientY: toScreen({copies[0]})[1] }}"
    told = page(f"(hover({at}), made.slice(-3).map(one => one.textContent))")
    first = told[0]
    others = [names[one] for one in sorted(copies) if names[one] != first]
    assert first in ("2.wav", "again.wav", "and again.wav")
    assert told[2] == f"and 2 more in this place (click again for the next): {', '.join(others)}"
    clicks = page(f"[1, 2, 3, 4].map(() => turn(nearest(...toScreen({copies[0]}))))")
    assert sorted(clicks[:3]) == sorted(copies)
    assert clicks[3] == clicks[0]
    # Elsewhere a click plays what is clicked; what is not shown is not in the way.
    assert page(f"[turn({copies[0]}), turn({names.index('0.wav')})]") == [copies[0], names.index("0.wav")]
    assert page(f"(found = new Set([{copies[2]}]), together({copies[0]}))") == [copies[2]]


def test_windows_have_their_times_and_too_many_are_thinned_out_evenly(place: Path, tmp_path: Path) -> None:
    said = command("map", tmp_path / "m.html", "--by", "windows", "--method", "pca", "--points", "10").error
    with Store(str(place / "index")) as store:
        windows = sum(record.n_windows for record in store.files())
        few = gather_points(store, load_view(store), by="window", most=10)
        everything = gather_points(store, load_view(store), by="window")
    assert f"10 of {windows} windows, evenly spread" in said
    assert (len(few.points), len(everything.points), few.available) == (10, windows, windows)
    assert len({point.path for point in few.points}) >= 5
    starts = [point.start_s for point in everything.points if point.path.endswith(b"5.wav")]
    assert starts == sorted(set(starts))
    assert max(data_of(tmp_path / "m.html")["start"]) > 0


def test_picture_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib (embedindex[plots])")
    command("map", tmp_path / "m.html", "--png", tmp_path / "m.png", "--method", "pca", "--quiet")
    command("map", tmp_path / "only.PNG", "--png", tmp_path / "only.PNG", "--method", "pca", "--quiet")
    for name in ("m.png", "only.PNG"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG"), name


def test_nothing_is_written_over_and_wrong_usage_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.html").write_text("mine")
    assert "is not written over" in refusal("map", tmp_path / "m.html", status=2)
    assert "ends in .html" in refusal("map", tmp_path / "m.wav", status=2)
    assert "choose file or window" in refusal("map", tmp_path / "n.html", "--by", "bar", status=2)
    assert "cannot be written" in refusal("map", tmp_path / "no" / "n.html", "--method", "pca", status=2)
    assert "passes these filters" in refusal("map", tmp_path / "n.html", "--path", "*.nothing")
