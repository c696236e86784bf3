"""``embedindex verify`` and ``rebuild``, and what holds for the command line as a whole."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from embedindex.cli import _COMMANDS, _app
from embedindex.index import budget_of
from embedindex.index_file import index_path
from embedindex.index_plan import DEFAULT_MEMORY_BYTES, DEFAULT_RECALL
from embedindex.store import Store
from tests.command_line import command, refusal
from tests.indexing import make_sound, run_scan
from tests.processes import PATIENCE_S


def commands_of(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and sub-command that ``embedindex`` has."""
    if not hasattr(command, "commands"):
        yield words
        return
    for name, inner in command.commands.items():
        yield from commands_of(inner, (*words, name))


COMMANDS = tuple(commands_of(get_command(_app([]))))
HEAVY = ("numpy", "faiss", "librosa", "scipy", "tensorflow", "onnxruntime", "soundfile", "av", "sqlite_utils", "rich")


@pytest.fixture
def filled(index: str, library: Path) -> str:
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 500 * number, 1.0)
    run_scan(index, library)
    return index


def test_verify_of_a_whole_index_succeeds(filled: str) -> None:
    ran = command("verify", "-I", filled)
    assert (ran.status, ran.error) == (0, "")
    assert ran.text == "All is well: 3 files, 12 windows.\n"
    assert command("verify", "-I", filled, "--json").json == {"ok": True, "files": 3, "windows": 12, "problems": []}
    assert command("verify", "-I", filled, "--quiet").out == b""


def test_verify_finds_a_damaged_search_index_and_rebuild_mends_it(filled: str) -> None:
    path = Path(index_path(filled))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    ran = command("verify", "-I", filled)
    assert (ran.status, ran.out) == (1, b"")
    assert "the search index is damaged" in ran.error
    assert "`embedindex rebuild`" in ran.error
    ran = command("verify", "-I", filled, "--json")
    assert ran.status == 1
    (problem,) = json.loads(ran.out)["problems"]
    assert problem["where"] == "index"
    built = command("rebuild", "-I", filled)
    assert built.text.startswith("Built from 12 windows in ")
    assert command("verify", "-I", filled).status == 0


def test_verify_finds_a_missing_search_index_and_rebuild_makes_it(filled: str) -> None:
    os.unlink(index_path(filled))
    assert "there is no search index on disk; run `embedindex rebuild`" in command("verify", "-I", filled).error
    assert command("rebuild", "-I", filled, "--quiet").out == b""
    assert command("verify", "-I", filled).status == 0


def test_verify_finds_damaged_vectors_and_names_the_file(filled: str) -> None:
    database = sqlite3.connect(os.path.join(filled, "embedindex.db"))
    database.execute("UPDATE vectors SET data = zeroblob(length(data)) WHERE file_id = 2")
    database.commit()
    database.close()
    ran = command("verify", "-I", filled)
    assert ran.status == 1
    assert "1.wav: its vectors are damaged" in ran.error


def test_commands_on_a_missing_index_say_what_to_run_and_make_nothing(tmp_path: Path) -> None:
    for name in ("info", "list", "errors", "verify", "rebuild"):
        message = refusal(name, "-I", tmp_path / "none")
        assert message.endswith("none: there is no index here; make one with `embedindex scan FOLDER`\n")
    assert not (tmp_path / "none").exists()


def test_commands_on_an_empty_index_work(index: str, library: Path) -> None:
    run_scan(index, library)
    assert command("list", "-I", index, "--json").json == []
    assert command("info", "-I", index, "--json").json["files"] == 0
    assert command("errors", "-I", index, "--json").json == []
    assert command("verify", "-I", index).status == 0
    ran = command("rebuild", "-I", index)
    assert (ran.status, ran.out) == (0, b"")
    assert "fill it with `embedindex scan FOLDER`" in ran.error


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "embedindex.db")
    database.execute("CREATE TABLE photos (id)")
    database.close()
    for name in ("info", "similar", "verify", "rebuild"):
        arguments = [name, "x.wav"] if name == "similar" else [name]
        assert "is not an embedindex index; choose another folder" in refusal(*arguments, "-I", tmp_path)
    (tmp_path / "embedindex.db").write_bytes(b"not a database at all, but long enough to look at" * 50)
    assert "the database is damaged" in refusal("info", "-I", tmp_path)


# -- the command line as a whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example(words: tuple[str, ...]) -> None:
    ran = command(*words, "--help")
    assert (ran.status, ran.error) == (0, "")
    assert f"Example: embedindex {' '.join(words)}" in " ".join(ran.text.split())
    assert command(*words, "-h").out == ran.out


def test_commands_of_the_design_are_there() -> None:
    wanted = {"scan", "similar", "info", "list", "errors", "verify", "rebuild", "embed", "models"}
    assert wanted <= {words[0] for words in COMMANDS}
    assert {("models", name) for name in ("list", "fetch", "verify", "import")} <= set(COMMANDS)


def test_unknown_command_and_no_command_are_wrong_usage() -> None:
    ran = command("nonsense")
    assert (ran.status, ran.out) == (2, b"")
    assert "nonsense" in ran.error
    assert command().status == 2


def test_unexpected_error_is_called_a_defect_in_one_line(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> str:
        raise RuntimeError("something\x1b\nnobody thought of")

    monkeypatch.setattr("embedindex.locations.index_folder", broken)
    message = refusal("info")
    assert "unexpected RuntimeError: something\\x1b\\nnobody thought of" in message
    assert "(this is a defect; `--debug` shows where)" in message
    with pytest.raises(RuntimeError):
        command("info", "--debug")


def test_debug_after_two_dashes_is_a_name(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    assert "--debug: there is no such file" in refusal("similar", "-I", index, "--", "--debug")


def test_version_is_printed() -> None:
    from embedindex import __version__

    assert command("--version").text == f"embedindex {__version__}\n"


def _modules_after(code: str) -> set[str]:
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not _modules_after("import embedindex") & {*HEAVY, "typer"}


@pytest.mark.parametrize("words", [["--help"], ["similar", "--help"], ["scan", "--nonsense"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"sys.argv = {['embedindex', *words]}; from embedindex.cli import main; main()"
    assert not _modules_after(code) & set(HEAVY)


@pytest.mark.parametrize("name", _COMMANDS)
def test_command_that_is_asked_for_is_there_without_the_others(name: str) -> None:
    alone = [words[0] for words in commands_of(get_command(_app([name, "--help"])))]
    assert name in alone
    assert {_COMMANDS[word] for word in alone} == {_COMMANDS[name]}


def test_without_a_command_or_with_a_wrong_one_all_are_there() -> None:
    for arguments in ([], ["--help"], ["simila"]):
        assert list(dict.fromkeys(words[0] for words in commands_of(get_command(_app(arguments))))) == list(_COMMANDS)
    assert "Did you mean 'similar'?" in command("simila").error


def test_plan_is_shown_and_nothing_is_written(filled: str) -> None:
    before = Path(index_path(filled)).read_bytes()
    shown = command("rebuild", "--plan", "--memory", "1.5G", "--recall", "0.9", "-I", filled)
    assert shown.status == 0
    for word in ("exact", "1,500 MB", "asked for: 0.9", "ms a query window", "on two idle cores"):
        assert word in shown.text
    assert Path(index_path(filled)).read_bytes() == before
    with Store(filled) as store:
        assert budget_of(store) == (DEFAULT_MEMORY_BYTES, DEFAULT_RECALL)
    assert command("rebuild", "--plan", "--json", "-I", filled).json["kind"] == "flat"


def test_budget_given_to_rebuild_is_kept(filled: str) -> None:
    assert command("rebuild", "--memory", "500M", "--recall", "0.9", "-I", filled).status == 0
    with Store(filled) as store:
        assert budget_of(store) == (500_000_000, 0.9)
    assert command("rebuild", "--memory", "1G", "-I", filled).status == 0
    with Store(filled) as store:
        assert budget_of(store) == (1_000_000_000, 0.9)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--memory", "much", "500M or 2G"), ("--memory", "0", "500M or 2G"), ("--recall", "1.5", "0.5 to 1")],
)
def test_budget_that_makes_no_sense_is_refused(filled: str, option: str, value: str, word: str) -> None:
    assert word in refusal("rebuild", option, value, "-I", filled, status=2)
