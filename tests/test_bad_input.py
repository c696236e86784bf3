"""One scan over all that a messy library holds: each file becomes a result or a readable error, and none stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.search import search
from embedindex.store import Store
from embedindex.verify import verify
from tests.indexing import age, names, one, records, run_scan
from tests.sounds import encode, noise, sine, write_wav

UNDECODABLE = b"not utf-8 \xff\xfe.wav"


def fill(folder: Path) -> None:
    """Make the messy library."""
    tone = sine(500, 3.0)
    write_wav(folder / "good.wav", tone)
    (folder / "zero bytes.wav").write_bytes(b"")
    (folder / "text.wav").write_text("Dear diary, today I recorded nothing.\n" * 50)
    (folder / "page.mp3").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (folder / "picture.flac").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(2000))
    encode(folder / "whole.mp3", tone)
    encode(folder / "whole.flac", tone)
    for name in ("mp3", "flac"):
        whole = (folder / f"whole.{name}").read_bytes()
        (folder / f"truncated.{name}").write_bytes(whole[: len(whole) // 2])
    with_nan = tone.copy()
    with_nan[1000:1100] = np.nan
    with_nan[5000] = np.inf
    write_wav(folder / "nan.wav", with_nan)
    write_wav(folder / "8 channels.wav", np.stack([sine(100.0 * (n + 1), 1.5) for n in range(8)], axis=1))
    write_wav(folder / "192 kHz.wav", sine(500, 1.5, 192_000), 192_000)
    write_wav(folder / "8 bit.wav", tone, subtype="PCM_U8")
    write_wav(folder / "32 bit float.wav", tone * np.float32(3), subtype="FLOAT")
    write_wav(folder / "short.wav", noise(0.003))
    write_wav(folder / "one sample.wav", np.full(1, 0.5, np.float32))
    write_wav(folder / "silence.wav", np.zeros(44100, np.float32))
    write_wav(folder / "🥁 drum\nsolo.wav", sine(333, 1.0))
    write_wav(os.path.join(os.fsencode(folder), UNDECODABLE), sine(777, 1.0))
    (folder / "deep" / "loop").mkdir(parents=True)
    (folder / "deep" / "loop" / "up").symlink_to(folder / "deep")
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    write_wav(folder / "folder.wav" / "inside.wav", sine(888, 1.0))
    for place, _, files in os.walk(os.fsencode(folder)):
        for file in files:
            if os.path.isfile(os.path.join(place, file)):
                age(os.path.join(place, file))


GOOD = {
    "good.wav", "whole.mp3", "whole.flac", "truncated.mp3", "truncated.flac", "nan.wav", "8 channels.wav",
    "192 kHz.wav", "8 bit.wav", "32 bit float.wav", "short.wav", "silence.wav", "🥁 drum\nsolo.wav", "inside.wav",
    os.fsdecode(UNDECODABLE),
}  # fmt: skip
BAD = {
    "zero bytes.wav": "empty", "one sample.wav": "empty", "text.wav": "not-audio", "page.mp3": "not-audio",
    "picture.flac": "not-audio",
}  # fmt: skip


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A messy library and its index."""
    top = tmp_path_factory.mktemp("messy")
    library = top / "library"
    library.mkdir()
    fill(library)
    index = str(top / "index")
    summary = run_scan(index, library, workers=2)
    assert summary.crashes == 0
    return library, index


def test_every_good_file_is_in_and_every_bad_one_has_a_reason(messy: tuple[Path, str]) -> None:
    _, index = messy
    assert names(index) == GOOD
    failed = {os.path.basename(path): record for path, record in records(index).items() if record.status == "failed"}
    assert {name: record.error_kind for name, record in failed.items()} == BAD
    for record in failed.values():
        assert record.error_reason
        assert "Traceback" not in record.error_reason
        assert record.error_reason[0].islower()  # the second half of a sentence that begins with the path


def test_index_of_a_messy_library_is_sound(messy: tuple[Path, str]) -> None:
    _, index = messy
    with Store(index) as store:
        assert verify(store).problems == ()
        for record in store.files("status = 'ok'"):
            assert np.isfinite(store.vectors_of(record)).all()


def test_damage_is_noted(messy: tuple[Path, str]) -> None:
    library, index = messy
    assert "not numbers" in (one(index, library / "nan.wav").note or "")
    assert one(index, library / "truncated.flac").note
    assert one(index, library / "good.wav").note is None
    duration = one(index, library / "truncated.mp3").duration
    assert duration is not None
    assert 1.0 < duration < 2.0


def test_every_good_file_finds_itself(messy: tuple[Path, str]) -> None:
    _, index = messy
    with Store(index) as store:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        for record in store.files("status = 'ok' AND n_silent < n_windows"):
            hits = search(store, view, [maker.from_file(record.path)], k=3, include_self=True)
            best = [hit.file.path for hit in hits if hit.score >= hits[0].score - 1e-6]
            assert record.path in best
            assert hits[0].score == pytest.approx(1, abs=1e-3)


def test_second_scan_of_a_messy_library_finds_nothing_to_do(messy: tuple[Path, str]) -> None:
    library, index = messy
    summary = run_scan(index, library)
    assert summary.unchanged == summary.found == len(GOOD) + len(BAD)
    reasons = {os.path.basename(path): reason for path, reason in summary.unseen}
    assert reasons == {"dangling.wav": "is a link that leads nowhere"}


def test_command_line_shows_no_traceback(messy: tuple[Path, str]) -> None:
    library, index = messy
    command = [sys.executable, "-m", "embedindex"]
    listed = subprocess.run([*command, "errors", "--index", index, "--json"], capture_output=True, check=True)
    shown = {os.path.basename(entry["path"]): entry["kind"] for entry in json.loads(listed.stdout)}
    assert shown == {**BAD, "dangling.wav": "unseen"}
    for query in ("text.wav", "zero bytes.wav", "pipe.wav", "nowhere.wav", "silence.wav"):
        done = subprocess.run(
            [*command, "similar", library / query, "--index", index], capture_output=True, check=False
        )
        assert done.returncode == 1
        assert done.stdout == b""
        message = done.stderr.decode()
        assert message.startswith("embedindex: ")
        assert query in message
        assert message.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_an_error_and_comes_back_when_it_may(library: Path, index: str) -> None:
    write_wav(library / "locked.wav", sine(500, 1.0))
    (library / "closed").mkdir()
    write_wav(library / "closed" / "inside.wav", sine(600, 1.0))
    (library / "locked.wav").chmod(0)
    (library / "closed").chmod(0)
    try:
        summary = run_scan(index, library)
        assert summary.failures == {"io": 1}
        assert one(index, library / "locked.wav").error_reason == (
            "cannot be read (permission denied); check that the file is there, readable, and its disk well"
        )
        assert [(os.path.basename(path), reason) for path, reason in summary.unseen] == [
            ("closed", "Permission denied")
        ]
        assert run_scan(index, library).unchanged == 1
    finally:
        (library / "locked.wav").chmod(0o644)
        (library / "closed").chmod(0o755)
    assert run_scan(index, library).failed == 0
    assert names(index) == {"locked.wav", "inside.wav"}
