"""``embedindex models`` as users type it: list, fetch, verify, import; what they say and their exit status."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from embedindex.cli import main
from embedindex.errors import WeightsMissingError
from embedindex.models.aisfx_weights import find_aisfx
from embedindex.models.download import Patience
from embedindex.models.weights import HDF5_MAGIC

SEEDED = Path(__file__).parents[2] / "shared" / "openl3" / "weights"
needs_seeded = pytest.mark.skipif(not SEEDED.is_dir(), reason="../shared/openl3 oracle files are not here")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty models folder; OpenL3's home refuses connections, and the installer knows no wheels."""
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("EMBEDINDEX_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr("embedindex.models.auto.PIP_QUICK", Patience(open_s=600, read_s=600))  # pip starts slowly
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        yield tmp_path / "models"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console script's function in this process, which spares each test a second of imports."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = sys.argv
    sys.argv = ["embedindex", "models", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    said = [bytes(stream.buffer.getvalue()).decode() for stream in (out, err)]
    return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), *said)


def done(*arguments: str) -> str:
    finished = run(*arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def failed(*arguments: str) -> str:
    finished = run(*arguments)
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1, "one line"
    return finished.stderr


def as_json(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))


def test_list_names_every_model_with_its_facts(models: Path) -> None:
    lines = [line.split("\t") for line in done("list").splitlines()]
    assert ["openl3", "512", "48,000 Hz", "1.00 s", "CC BY 4.0", "not fetched"] in lines
    assert ["aisfx", "512", "44,100 Hz", "2.35 s", "CC BY 4.0", "not fetched"] in lines
    assert ["aisfx+spectral", "719", "44,100 Hz", "2.35 s", "CC BY 4.0", "not fetched"] in lines
    assert sum(line[0].startswith("openl3") for line in lines) == 7
    listed = as_json("list")
    assert listed["folder"] == str(models)
    spectral = next(item for item in listed["models"] if item["model"] == "spectral")
    assert (spectral["here"], spectral["weights"], spectral["licence"]) == (True, None, "")


def test_every_command_has_help_with_an_example() -> None:
    for command in ("list", "fetch", "verify", "import"):
        assert f"Example: embedindex models {command}" in done(command, "--help")


def test_fetch_that_fails_says_what_to_do(models: Path) -> None:
    said = failed("fetch", "openl3")
    assert "openl3_audio_mel256_music-v0_4_0.h5.gz could not be fetched: connection refused (127.0.0.1:" in said
    assert "on another machine and run 'embedindex models import" in said
    assert "No matching distribution found for aisfx==0.1.2" in failed("fetch", "aisfx")


def test_fetch_without_a_name_takes_what_auto_would(models: Path) -> None:
    finished = run("fetch")
    assert finished.returncode == 0
    assert finished.stdout == "spectral: none needed\n"
    assert "the model is the built-in spectral one (openl3: not fetched, connection refused" in finished.stderr


def test_unknown_names_are_errors(models: Path) -> None:
    assert "there is no model 'openl4'; 'embedindex models list' shows the models here" in failed("fetch", "openl4")
    finished = run("fetch", "openl3:content_type=speech")
    assert finished.returncode == 2
    assert "content_type is one of" in finished.stderr


def test_verify_of_absent_weights_fails_and_says_how_to_get_them(models: Path) -> None:
    assert "they were not fetched yet" in failed("verify", "openl3")
    assert "embedindex models fetch aisfx" in failed("verify", "aisfx")


def test_import_refuses_what_it_cannot_check(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "openl3_audio_mel128_env.h5"
    file.write_bytes(HDF5_MAGIC + bytes(1000))
    assert "cannot be checked" in failed("import", str(file))
    assert "there is no such file" in failed("import", str(tmp_path / "absent.h5"))
    assert "not a readable HDF5 weights file" in failed("import", "--trust", str(file))
    assert "not fetched" in done("list").splitlines()[4], "nothing of it was kept"


@needs_seeded
def test_trusted_weights_are_imported_listed_and_verified(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "openl3_audio_mel128_env.h5"
    shutil.copy(SEEDED / "openl3_audio_mel128_music.h5", file)
    name = "openl3:input_repr=mel128,content_type=env"
    assert done("import", "--trust", "--no-prepare", str(file)).startswith(
        f"{name}: here, imported from {file}, unchecked"
    )
    listed = next(item for item in as_json("list")["models"] if item["model"] == name)
    assert listed["here"]
    assert Path(listed["weights"]["path"]).read_bytes() == file.read_bytes()
    verdict = as_json("verify")
    assert [item["model"] for item in verdict][:2] == [name, "spectral"], "only what is here is checked"
    assert all(item["ok"] for item in verdict)
    assert any("it loads; there are no reference values" in check for check in verdict[0]["checks"])


@needs_seeded
def test_weights_that_compute_something_else_do_not_pass(models: Path, tmp_path: Path) -> None:
    # Seeded weights under the name of trained ones: the layout is right, the numbers are not.
    file = tmp_path / "openl3_audio_linear_env.h5"
    shutil.copy(SEEDED / "openl3_audio_linear_music.h5", file)
    done("import", "--trust", "--no-prepare", str(file))
    finished = run("verify", "openl3:input_repr=linear,content_type=env")
    assert finished.returncode == 1
    assert "NOT WELL" in finished.stdout
    assert "relative distance to the reference values" in finished.stdout


@needs_seeded
def test_changed_weights_do_not_pass(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "openl3_audio_mel128_env.h5"
    shutil.copy(SEEDED / "openl3_audio_mel128_music.h5", file)
    file.chmod(0o644)
    placed = Path(as_json("import", "--trust", "--no-prepare", str(file))[0]["weights"]["path"])
    with open(placed, "r+b") as opened:
        opened.seek(1_000_000)
        opened.write(b"\0\1\2\3")
    finished = run("verify")
    assert finished.returncode == 1
    assert "openl3:input_repr=mel128,content_type=env: NOT WELL; " in finished.stdout
    assert f"kept as {placed}.damaged" in finished.stdout
    assert "spectral: well" in finished.stdout


@pytest.mark.network
def test_aisfx_is_imported_and_verified(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as own:
        for name in ("EMBEDINDEX_MODELS", "PIP_NO_INDEX", "PIP_CONFIG_FILE", "PIP_FIND_LINKS"):
            own.delenv(name)
        try:
            kept = find_aisfx()
        except WeightsMissingError as problem:
            pytest.skip(f"aisfx's weights cannot be had: {problem}")
    assert done("import", "--no-prepare", kept.path) == f"aisfx: here, imported from {kept.path}\n"
    line = done("verify", "aisfx")
    assert line.startswith("aisfx: well; SHA-256 499ea75909c9… is right")
    assert done("verify", "aisfx+spectral") == line.replace("aisfx", "aisfx+spectral", 1)
    assert "aisfx+spectral" not in done("verify")
    assert "relative distance to the reference values 0.0000" in line


@pytest.mark.network
def test_openl3_computes_the_official_reference_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDINDEX_OFFLINE", raising=False)
    fetched = run("fetch", "openl3", "--no-prepare")
    if fetched.returncode:
        pytest.skip(f"OpenL3's weights cannot be had: {fetched.stderr}")
    assert done("verify", "openl3").startswith("openl3: well")
