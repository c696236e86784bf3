"""``--model auto``: openl3+spectral, else aisfx+spectral, else spectral; said in one line; quick without a network."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedindex.models.aisfx_weights import AISFX
from embedindex.models.auto import choose_model, forget_failures
from embedindex.models.base import ModelRequest
from embedindex.models.download import Patience
from embedindex.models.weights import HDF5_MAGIC, RELEASES, import_weights


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


def put(folder: Path, name: str, content: bytes, sha256: str) -> None:
    """Place a file as a fetch would."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    record = {"path": str(folder / name), "sha256": sha256, "source": "test"}
    (folder / name).with_suffix(".json").write_text(json.dumps(record))


def test_without_any_weights_the_built_in_model_is_used_and_why_is_said(models: Path) -> None:
    request, line = choose_model()
    assert request.name == "spectral"
    assert line.startswith(
        "the model is the built-in spectral one (openl3: not fetched, connection refused (127.0.0.1:"
    )
    assert "No matching distribution found" in line
    assert "\n" not in line
    assert "embedindex models list" in line


def test_what_failed_lately_is_not_tried_again_for_ten_minutes(models: Path) -> None:
    _, line = choose_model()
    assert choose_model()[1] == line
    for name in ("openl3", "aisfx"):
        (models / f"{name}.unreachable").write_text("remembered")
    assert choose_model()[1].count("remembered") == 2
    for name in ("openl3", "aisfx"):
        os.utime(models / f"{name}.unreachable", (0, time.time() - 601))
    assert choose_model()[1] == line


def test_explicit_fetch_forgets_what_failed(models: Path) -> None:
    models.mkdir()
    (models / "openl3.unreachable").write_text("remembered")
    (models / "aisfx.unreachable").write_text("remembered")
    forget_failures()
    forget_failures()
    assert "remembered" not in choose_model()[1]


def test_offline_and_no_fetch_ask_nobody(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "openl3: not on this machine; aisfx: not on this machine" in choose_model(fetch=False)[1]
    monkeypatch.setenv("EMBEDINDEX_OFFLINE", "1")
    assert "openl3: $EMBEDINDEX_OFFLINE is set" in choose_model()[1]
    assert not models.exists()


def test_silent_home_of_openl3_costs_a_few_seconds_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.mkdir()
    (models / "aisfx.unreachable").write_text("no")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "in 5 s" in choose_model()[1]


def test_damaged_openl3_weights_are_not_chosen(models: Path) -> None:
    put(models, "openl3_audio_mel256_music.h5", HDF5_MAGIC, hashlib.sha256(HDF5_MAGIC).hexdigest())
    request, _ = choose_model(fetch=False)
    assert request.name == "spectral"
    assert (models / "openl3_audio_mel256_music.h5.damaged").exists()


def test_openl3_comes_first_where_its_weights_are(models: Path, tmp_path: Path) -> None:
    content = HDF5_MAGIC + b"stands for the official file"
    music = replace(RELEASES[-1], h5_sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / "w.h5").write_bytes(content)
    import_weights(str(tmp_path / "w.h5"), releases=(music,))
    assert choose_model(releases=(music,)) == (ModelRequest("openl3+spectral"), "the model is openl3+spectral")


@pytest.mark.network
def test_aisfx_is_the_second_choice(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedindex.errors import WeightsMissingError
    from embedindex.models.aisfx_weights import find_aisfx

    with monkeypatch.context() as own:
        for name in ("EMBEDINDEX_MODELS", "PIP_NO_INDEX", "PIP_CONFIG_FILE", "PIP_FIND_LINKS"):
            own.delenv(name)
        try:
            kept = find_aisfx()
        except WeightsMissingError as problem:
            pytest.skip(f"aisfx's weights cannot be had: {problem}")
    put(models, AISFX.file_name, Path(kept.path).read_bytes(), kept.sha256)
    request, line = choose_model()
    assert request.name == "aisfx+spectral"
    assert line.startswith("the model is aisfx+spectral (openl3: not fetched, connection refused (127.0.0.1:")


def test_choosing_loads_nothing_heavy(models: Path) -> None:
    script = (
        "import sys; from embedindex.models.auto import choose_model; choose_model(fetch=False);"
        "print([m for m in ('onnx', 'onnxruntime', 'h5py', 'soundfile', 'rich', 'filelock') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
