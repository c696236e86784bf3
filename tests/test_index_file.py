"""The file of the search index: whole or refused, never half, and replaced in one step."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import xxhash

from embedindex import index_file
from embedindex.errors import DiskFullError, IndexDamagedError, IndexReadOnlyError, StoreError
from embedindex.index_file import (
    MAGIC,
    TAIL_BYTES,
    Trailer,
    index_path,
    read_index_file,
    read_trailer,
    remove_leftover,
    write_index_file,
)
from tests.processes import PATIENCE_S

CHECKOUT = Path(__file__).parents[1]
TRAILER = Trailer("d" * 32, 5, 40, "f" * 64, "a" * 16, "00", 40, 0, 40)
QUERY = np.eye(8, dtype=np.float32)[:3]


def some_index(seed: int = 0, windows: int = 40) -> Any:
    index = faiss.IndexIDMap(faiss.IndexScalarQuantizer(8, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT))
    vectors = np.random.default_rng(seed).normal(size=(windows, 8)).astype(np.float32)
    index.add_with_ids(vectors, np.arange(windows, dtype=np.int64) * 3)
    return index


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with an index file."""
    write_index_file(str(tmp_path), some_index(), TRAILER)
    return str(tmp_path)


def trailer_of(folder: str) -> Trailer:
    trailer = read_trailer(folder)
    assert trailer is not None
    return trailer


@pytest.mark.parametrize("mapped", [True, False])
def test_what_was_written_comes_back(folder: str, mapped: bool) -> None:
    found = read_index_file(folder, mapped=mapped)
    assert found is not None
    index, trailer = found
    wanted = some_index().search(QUERY, 5)
    for got, expected in zip(index.search(QUERY, 5), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert trailer == trailer_of(folder)
    assert dataclasses.replace(trailer, faiss_bytes=0, faiss_hash="") == TRAILER
    assert trailer.faiss_bytes + TAIL_BYTES < os.path.getsize(index_path(folder))


def test_hash_is_that_of_the_bytes_faiss_wrote(folder: str) -> None:
    trailer = trailer_of(folder)
    data = Path(index_path(folder)).read_bytes()[: trailer.faiss_bytes]
    assert xxhash.xxh3_128(data).hexdigest() == trailer.faiss_hash
    assert faiss.deserialize_index(np.frombuffer(data, np.uint8)).ntotal == 40


def test_no_file_is_no_index(tmp_path: Path) -> None:
    assert read_index_file(str(tmp_path)) is None
    assert read_trailer(str(tmp_path)) is None


def mutants(data: bytes, other: bytes) -> list[tuple[str, bytes]]:
    """Return copies of an index file, each damaged in another way."""
    size = len(data)
    made = [(f"cut at {cut}", data[:cut]) for cut in range(0, size, max(1, size // 90))]
    made += [(f"cut by {end}", data[: size - end]) for end in range(1, 40)]
    for place in [*range(0, size, max(1, size // 150)), *range(size - TAIL_BYTES - 2, size)]:
        made.append((f"bit at {place}", data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]))
    for start in range(0, size - 64, max(1, size // 30)):
        made.append((f"zeros at {start}", data[:start] + bytes(64) + data[start + 64 :]))
        made.append((f"lost at {start}", data[:start] + data[start + 64 :]))
        made.append((f"twice at {start}", data[: start + 64] + data[start:]))
    made.append(("longer", data + b"\0"))
    made.append(("other's beginning", other[: size // 2] + data[size // 2 :]))
    made.append(("other's end", data[: size // 2] + other[size // 2 :]))
    made.append(("nothing but an end", data[-TAIL_BYTES:]))
    made.append(("huge description", data[: -TAIL_BYTES + 8] + (2**62).to_bytes(8, "little") + MAGIC))
    return [(name, mutant) for name, mutant in made if mutant != data]


def test_damaged_file_is_refused_before_faiss_sees_it(folder: str, tmp_path: Path, monkeypatch: Any) -> None:
    data = Path(index_path(folder)).read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    write_index_file(str(other), some_index(1), TRAILER)
    # A damaged index can crash FAISS, and this process with it.
    monkeypatch.setattr(index_file, "_load_faiss", lambda *_, **__: pytest.fail("FAISS was given damaged bytes"))
    made = mutants(data, Path(index_path(str(other))).read_bytes())
    assert len(made) > 350
    for name, mutant in made:
        Path(index_path(folder)).write_bytes(mutant)
        with pytest.raises(
            IndexDamagedError, match=r"windows\.faiss: the search index is damaged .*`embedindex rebuild`"
        ):
            pytest.fail(f"{name}: {read_index_file(folder)}")


def test_trailer_alone_is_checked_too(folder: str) -> None:
    path = Path(index_path(folder))
    data = path.read_bytes()
    size = len(data) - trailer_of(folder).faiss_bytes
    for place in range(1, size):
        path.write_bytes(data[:-place] + bytes([data[-place] ^ 64]) + data[len(data) - place + 1 :])
        with pytest.raises(IndexDamagedError):
            read_trailer(folder)


def with_trailer(folder: str, change: dict[str, Any], drop: str | None = None) -> None:
    """Write another trailer that is as whole as the one before."""
    path = Path(index_path(folder))
    trailer = trailer_of(folder)
    values = {**dataclasses.asdict(trailer), **change}
    values.pop(drop or "", None)
    text = json.dumps(values).encode()
    tail = text + xxhash.xxh3_64_digest(text) + len(text).to_bytes(8, "little") + MAGIC
    path.write_bytes(path.read_bytes()[: trailer.faiss_bytes] + tail)


@pytest.mark.parametrize(
    ("change", "drop", "reason"),
    [
        ({"colour": "red"}, None, "another version of embedindex made it"),
        ({}, "stamp", "another version of embedindex made it"),
        ({"windows": 41}, None, "it does not hold as many vectors as it says"),
        ({"faiss_bytes": 10}, None, "its length is wrong"),
        ({"faiss_hash": "0" * 32}, None, "its bytes are not those that were written"),
    ],
)
def test_description_that_does_not_fit_is_refused(
    folder: str, change: dict[str, Any], drop: str | None, reason: str
) -> None:
    with_trailer(folder, change, drop)
    with pytest.raises(IndexDamagedError, match=reason):
        read_index_file(folder)


def test_index_that_this_faiss_does_not_know_is_refused(folder: str) -> None:
    path = Path(index_path(folder))
    data = b"Iz99" + path.read_bytes()[4 : trailer_of(folder).faiss_bytes]
    text = json.dumps(
        {**dataclasses.asdict(trailer_of(folder)), "faiss_hash": xxhash.xxh3_128(data).hexdigest()}
    ).encode()
    path.write_bytes(data + text + xxhash.xxh3_64_digest(text) + len(text).to_bytes(8, "little") + MAGIC)
    with pytest.raises(IndexDamagedError, match="FAISS cannot read it"):
        read_index_file(folder)


def test_folder_in_place_of_the_file_is_damage(tmp_path: Path) -> None:
    os.mkdir(index_path(str(tmp_path)))
    for read in (read_trailer, read_index_file):
        with pytest.raises(IndexDamagedError, match="Is a directory"):
            read(str(tmp_path))
    with pytest.raises(StoreError):
        write_index_file(str(tmp_path), some_index(), TRAILER)
    assert os.listdir(tmp_path) == ["windows.faiss"]


@pytest.mark.parametrize("proc", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_file_that_is_replaced_while_it_is_opened_is_still_the_one_that_was_checked(
    folder: str, monkeypatch: Any, proc: bool, mapped: bool
) -> None:
    load = index_file._load_faiss

    def replace_then_load(*arguments: Any, **options: Any) -> Any:
        write_index_file(folder, some_index(2, 50), dataclasses.replace(TRAILER, windows=50))
        return load(*arguments, **options)

    monkeypatch.setattr(index_file, "_load_faiss", replace_then_load)
    if not proc:  # as on systems without /proc
        exists = os.path.exists
        monkeypatch.setattr(os.path, "exists", lambda path: not path.startswith("/proc/") and exists(path))
    found = read_index_file(folder, mapped=mapped)
    assert found is not None
    assert found[1] == dataclasses.replace(TRAILER, faiss_bytes=found[1].faiss_bytes, faiss_hash=found[1].faiss_hash)
    assert found[0].ntotal == TRAILER.windows
    np.testing.assert_array_equal(found[0].search(QUERY, 5)[1], some_index().search(QUERY, 5)[1])


def test_open_index_outlives_its_replacement(folder: str) -> None:
    found = read_index_file(folder)
    assert found is not None
    write_index_file(folder, some_index(3, 50), dataclasses.replace(TRAILER, windows=50))
    wanted = some_index().search(QUERY, 5)
    np.testing.assert_array_equal(found[0].search(QUERY, 5)[1], wanted[1])


def test_leftover_is_harmless_overwritten_and_removed(folder: str) -> None:
    leftover = Path(index_path(folder) + ".part")
    leftover.write_bytes(b"x" * 10**6)
    assert read_index_file(folder) is not None
    remove_leftover(folder)
    remove_leftover(folder)  # there is none
    assert os.listdir(folder) == ["windows.faiss"]
    leftover.write_bytes(b"x" * 10**6)
    write_index_file(folder, some_index(), TRAILER)
    assert os.listdir(folder) == ["windows.faiss"]
    assert read_index_file(folder) is not None


# -- a disk that is full ---------------------------------------------------------------------------------------

FULL = """
import os, resource, signal, sys
sys.path[:0] = [sys.argv[2]]
from tests.test_index_file import TRAILER, some_index
from embedindex.index_file import write_index_file
index = some_index(5, 4000)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    write_index_file(sys.argv[1], index, TRAILER)
finally:  # whoever measures this process wants to write too
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def whole_size(tmp_path: Path) -> int:
    folder = tmp_path / "whole"
    folder.mkdir()
    write_index_file(str(folder), some_index(5, 4000), TRAILER)
    return os.path.getsize(index_path(str(folder)))


@pytest.mark.parametrize("room", [0, 5000, 65536, -1])  # -1: one byte less than needed
def test_full_disk_keeps_the_old_file_and_says_so(folder: str, tmp_path: Path, room: int) -> None:
    limit = room if room >= 0 else whole_size(tmp_path) - 1
    before = Path(index_path(folder)).read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL, folder, str(CHECKOUT), str(limit)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("embedindex.errors.DiskFullError"), done.stderr
    for word in (
        "windows.faiss: no space left on the disk",
        "the vectors are safe in the database",
        "embedindex rebuild",
    ):
        assert word in done.stderr
    assert Path(index_path(folder)).read_bytes() == before
    assert not os.path.exists(index_path(folder) + ".part")


def test_full_disk_in_this_process_is_said_too(folder: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(DiskFullError, match=r"windows\.faiss: no space left on the disk for the search index"):
            write_index_file(folder, some_index(5, 4000), TRAILER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(folder) == ["windows.faiss"]
    write_index_file(folder, some_index(), TRAILER)


def test_folder_that_cannot_be_written_is_said(folder: str) -> None:
    mode = os.stat(folder).st_mode
    os.chmod(folder, 0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("permissions do not bind this user")
        with pytest.raises(IndexReadOnlyError, match=r"windows\.faiss: cannot be written \(Permission denied\)"):
            write_index_file(folder, some_index(), TRAILER)
        remove_leftover(folder)
    finally:
        os.chmod(folder, mode)
    assert read_index_file(folder) is not None


def test_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"windows\.faiss: No such file or directory"):
        write_index_file(str(tmp_path / "gone"), some_index(), TRAILER)
