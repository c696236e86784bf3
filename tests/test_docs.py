"""The commands in the documentation work.

Convention: in ``console`` blocks of docs/{scan,similar,duplicates,index-files}.md every line that starts with ``$ `` is
run, from top to bottom, in a folder that holds a small library; ``/music`` stands for a folder of it and ``~`` for the
folder itself. Each must exit with 0. ``sql`` blocks are run on the database, ``python`` blocks in the index folder.
Anything that is not to be run stands in a ``text`` block or in a table.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedindex import Filters, Index
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.command_line import command
from tests.indexing import age
from tests.sounds import drum_hit, pad, sine, write_wav

DOCS = Path(__file__).parents[1] / "docs"
HOURGLASS_S = 600


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page that are in a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """Return the command lines of a page."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small library, scanned with the built-in model, and a label."""
    folder = tmp_path_factory.mktemp("docs")
    sounds = {
        "music/drums/kick.wav": drum_hit("kick"),
        "music/drums/hat.wav": drum_hit("hat"),
        "music/ambient/drone.wav": pad([110.0, 165.0], 2.0),
        "samples/pad.flac": pad([220.0, 277.0, 330.0], 1.5),
        "clip.wav": sine(165.0, 1.0),
    }
    for name, samples in sounds.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, samples)
        age(path)
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        ran = command("scan", folder / "music", folder / "samples", "-j", "1", "--quiet")
    assert ran.status == 0, ran.error
    with StoreWriter(str(folder / "index")) as store:
        record = store.file_by_path(os.fsencode(folder / "music" / "ambient" / "drone.wav"))
        assert record is not None
        store.put_labels(record.id, [Label("genre", "drone", "human", 1.0)])
    return folder


def _enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("HOME", str(folder))
    patch.setenv("EMBEDINDEX_INDEX", str(folder / "index"))
    patch.setenv("EMBEDINDEX_MODELS", str(folder / "models"))
    patch.setenv("EMBEDINDEX_OFFLINE", "1")


@pytest.mark.parametrize("page", ["scan.md", "similar.md", "duplicates.md", "index-files.md", "export.md", "map.md"])
def test_commands_of_the_page_work(page: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _enter(home, monkeypatch)
    lines = commands(page)
    assert lines
    for line in lines:
        real = line.replace("/music", str(home / "music")).replace("~", str(home))
        if "|" in real or ">" in real:
            real = real.replace("embedindex", f"{shlex.quote(sys.executable)} -m embedindex", 1)
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", real], capture_output=True, text=True, timeout=HOURGLASS_S
            )
            assert done.returncode == 0, (line, done.stderr)
        else:
            words = shlex.split(real)
            assert words[0] == "embedindex", line
            ran = command(*words[1:])
            assert ran.status == 0, (line, ran.error)


def test_every_option_of_the_pages_commands_is_explained() -> None:
    pages = {
        "scan": ["scan.md"],
        "similar": ["similar.md"],
        "duplicates": ["duplicates.md"],
        "list": ["index-files.md", "similar.md"],
    }
    for name, explained_in in pages.items():
        shown = command(name, "--help").text
        options = set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", shown, re.MULTILINE)) - {"--help"}
        text = "".join((DOCS / page).read_text(encoding="utf-8") for page in explained_in)
        assert options
        assert {option for option in options if option not in text} == set()


def _lines_of_commands(page: Path) -> list[list[str]]:
    """Return the words of all command lines of a page, whether they are run here or not."""
    text = page.read_text(encoding="utf-8")
    fenced = "".join(re.findall(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    lines = re.findall(r"^(?:\$ )?(embedindex .+)$", fenced, re.MULTILINE)
    lines += re.findall(r"^ {4}(embedindex .+)$", text, re.MULTILINE)
    return [shlex.split(re.split(r" [|>] ", line)[0], comments=True) for line in lines]


def test_every_option_in_any_pages_commands_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    helped: dict[tuple[str, ...], set[str]] = {}
    seen = 0
    for page in [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]:
        for words in _lines_of_commands(page):
            name = tuple(words[1:3] if words[1] in ("label", "models") else words[1:2])
            if name not in helped:
                ran = command(*name, "--help")
                assert ran.status == 0, (page.name, words)
                helped[name] = set(re.findall(r"(?<![\w-])--?[a-z0-9][a-z0-9-]*", ran.text)) | {"--debug"}
            options = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z0]", word)}
            assert options <= helped[name] | {"-0", "-I"}, (page.name, words)
            seen += len(options)
    assert seen > 100


def test_queries_of_the_page_answer(home: Path) -> None:
    queries = blocks("index-files.md", "sql")
    assert len(queries) == 2
    database = sqlite3.connect(f"file:{home / 'index' / 'embedindex.db'}?mode=ro", uri=True)
    assert database.execute(queries[0]).fetchall() == [(None, 4, pytest.approx(0.1, abs=0.01))]
    assert database.execute(queries[1]).fetchall() == []
    database.close()


def test_python_of_the_page_reads_the_vectors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _enter(home, monkeypatch)
    monkeypatch.chdir(home / "index")
    by_hand, with_library = blocks("index-files.md", "python")
    got: dict[str, object] = {}
    exec(by_hand, got)  # noqa: S102 - our own documentation
    exec(with_library, got)  # noqa: S102
    with Store(str(home / "index")) as store:
        wanted = store.vectors_of(store.file(int(str(got["file_id"]))))
    assert (got["vectors"] == wanted).all()
    assert len(got["unit_vectors"]) == got["record"].n_windows  # type: ignore[arg-type, attr-defined]


def test_pages_named_in_links_are_there() -> None:
    for page in ("scan.md", "similar.md", "duplicates.md", "index-files.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text(encoding="utf-8")):
            assert (DOCS / target).exists(), f"{page} links to {target}"


def test_python_of_the_library_page_finds_and_reads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _enter(home, monkeypatch)
    monkeypatch.setenv("EMBEDINDEX_OFFLINE", "1")
    example, second = blocks("python.md", "python")
    got: dict[str, Any] = {}
    exec(example, got)  # noqa: S102 - our own documentation
    vectors = got["vectors"]
    exec(second, got)  # noqa: S102
    assert {os.path.basename(file.path) for file in got["files"]} == {b"kick.wav", b"hat.wav"}
    assert got["likeness"].shape == (2, 2)
    assert {os.path.basename(path) for path in np.load("house.npz")["paths"]} == {"kick.wav", "hat.wav"}
    assert (got["summary"].added, got["summary"].unchanged) == (0, 3)
    with Index.open("new index") as index:
        assert index.labels("music/drums/kick.wav") == {"genre": ["house"], "mood": ["dark", "dry"]}
        index.label("music/drums/kick.wav", genre="techno", add=True)
        assert sorted(index.labels("music/drums/kick.wav")["genre"]) == ["house", "techno"]
        assert index.tempo_key("music/drums/kick.wav").bpm is None
        assert index.duplicates() == []
        record, row = (part[0] for part in index.matrix(Filters(path="drone.wav")))
        stored = index.vectors(record).astype(np.float32)
        assert row == pytest.approx(stored[stored.any(axis=1)].mean(axis=0), rel=1e-3, abs=1e-4)
    found = command("similar", "clip.wav", "-k", "3", "--max-duration", "5", "--json").json["results"]
    assert [(hit.file.text_path, round(hit.score, 6)) for hit in got["hits"]] == [
        (result["path"], result["score"]) for result in found
    ]
    with Store(str(home / "index")) as store:
        assert vectors.keys() == {record.text_path for record in store.files("status = 'ok'")}
        record = store.file_by_path(os.fsencode(home / "music" / "ambient" / "drone.wav"))
        assert record is not None
        assert (vectors[record.text_path] == store.vectors_of(record)).all()


def test_example_finds_the_most_alike(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _enter(home, monkeypatch)
    example = Path(__file__).parents[1] / "examples" / "nearest_pairs.py"
    done = subprocess.run(
        [sys.executable, str(example), "music", "--workers", "1"], capture_output=True, text=True, timeout=HOURGLASS_S
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3  # of three files
    assert "kick.wav" in done.stdout


def test_importing_the_library_stays_light() -> None:
    code = "import sys, embedindex; print('numpy' in sys.modules, 'Index' in embedindex.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HOURGLASS_S)
    assert done.stdout == "False True\n"
