"""Thousands of damaged sound files, and headers that claim a machine's memory, through a real scan."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedindex.progress import ScanSummary
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from embedindex.verify import verify
from tests.indexing import TINY
from tests.processes import ENVIRONMENT, PATIENCE_S
from tests.sounds import encode, sine
from tests.torture.mutants import LIBSNDFILE_SUFFIXES, SUFFIXES, originals, write_archives, write_mutants

STALL_S = 60.0


def check_mutants(index: str, library: Path, count: int, seed: int, capfd: pytest.CaptureFixture[str]) -> ScanSummary:
    write_mutants(library, count, seed)
    options = ScanOptions(request=TINY, workers=2, niceness=0, stall_s=STALL_S)
    summary = scan(index, [str(library)], options)
    assert summary.found == count
    assert capfd.readouterr() == ("", "")  # of the workers, too
    with Store(index) as store:
        found = list(store.files())
        assert len(found) == count
        for record in found:
            if record.status == "failed":
                assert record.error_kind, record
                assert record.error_reason, record
                assert record.error_kind not in ("timeout", "unexpected", "memory"), record
            else:
                assert record.status == "ok"
                assert record.n_windows >= 1
                assert np.isfinite(store.vectors_of(record)).all(), record
        assert verify(store).problems == ()
        outcomes = {record.status for record in found}
    assert outcomes == {"ok", "failed"}
    again = scan(index, [str(library)], options)
    assert again.added == again.changed == 0
    return summary


def test_damaged_files_end_as_ok_or_failed_with_a_reason(
    index: str, library: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check_mutants(index, library, 168, 1, capfd)


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(10, 20))
def test_thousands_of_damaged_files_end_as_ok_or_failed_with_a_reason(
    index: str, library: Path, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    summary = check_mutants(index, library, 500, seed, capfd)
    with capfd.disabled():
        print(  # noqa: T201
            f"\nseed {seed}: {summary.added} heard, failures {summary.failures}, {summary.crashes} workers replaced,"
            f" {summary.elapsed_s:.0f} s"
        )


def check_archives(index: str, library: Path, count: int, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    write_archives(library, count, seed)
    options = ScanOptions(request=TINY, workers=2, niceness=0, stall_s=STALL_S)
    scan(index, [str(library)], options)
    assert capfd.readouterr() == ("", "")
    with Store(index) as store:
        found = list(store.files())
        for record in found:
            assert record.status == "ok" or record.error_reason, record
            assert record.error_kind not in ("timeout", "unexpected", "memory", "crashed"), record
        assert verify(store).problems == ()
        assert {record.path.endswith(b".zip") for record in found} == {True, False}
        assert {record.status for record in found} == {"ok", "failed"}
    again = scan(index, [str(library)], options)
    assert (again.added, again.changed, again.failed) == (0, 0, 0)


def test_damaged_archives_end_as_ok_or_failed_with_a_reason(
    index: str, library: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check_archives(index, library, 24, 1, capfd)


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(20, 25))
def test_many_damaged_archives_end_as_ok_or_failed_with_a_reason(
    index: str, library: Path, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    check_archives(index, library, 200, seed, capfd)


def test_every_container_is_mutated_from_a_whole_sound(library: Path) -> None:
    from embedindex.audio import read_audio

    for suffix, data in originals(library).items():
        (library / f"a{suffix}").write_bytes(data)
        samples, _ = read_audio(library / f"a{suffix}")
        assert np.abs(samples).max() > 0.1, suffix


# -- claims ----------------------------------------------------------------------------------------------------

Edit = Callable[[bytearray], None]


def put(place: int, layout: str, *numbers: int) -> Edit:
    def edit(data: bytearray) -> None:
        struct.pack_into(layout, data, place, *numbers)

    return edit


def after(tag: bytes, offset: int, layout: str, *numbers: int) -> Edit:
    def edit(data: bytearray) -> None:
        struct.pack_into(layout, data, data.index(tag) + offset, *numbers)

    return edit


FLAC_TOTAL = 18  # 20 bits of rate, 3 of channels, 5 of depth, 36 of length: the last 32 bits of them begin at 22
CLAIMS: list[tuple[str, str, Edit]] = [
    ("channels.wav", ".wav", put(22, "<H", 65_535)),
    ("frames.wav", ".wav", after(b"data", 4, "<I", 2**32 - 1)),
    ("block.wav", ".wav", put(32, "<H", 65_535)),
    ("channels.aiff", ".aiff", after(b"COMM", 8, ">H", 65_535)),
    ("frames.aiff", ".aiff", after(b"COMM", 10, ">I", 2**31)),
    ("size.aiff", ".aiff", after(b"SSND", 4, ">I", 2**32 - 1)),
    ("channels.au", ".au", put(20, ">I", 65_535)),
    ("frames.au", ".au", put(8, ">I", 2**32 - 2)),
    ("channels.caf", ".caf", after(b"desc", 36, ">I", 65_535)),
    ("size.caf", ".caf", after(b"data", 4, ">Q", 2**62)),
    ("frames.flac", ".flac", put(FLAC_TOTAL + 4, ">I", 2**31)),
    ("channels.tta", ".tta", put(6, "<H", 65_535)),
    ("frames.tta", ".tta", put(14, "<I", 2**31)),
    ("frames.wv", ".wv", after(b"wvpk", 12, "<I", 2**31)),
    ("channels.w64", ".w64", after(b"fmt ", 26, "<H", 65_535)),
]
# Scans the folder with one worker and prints how much memory it and that worker ever held.
MEASURED_SCAN = """
import json, re, resource, sys
from embedindex.progress import ScanSummary
from embedindex.scan import ScanOptions, scan
from tests.indexing import TINY
summary = scan(sys.argv[1], [sys.argv[2]], ScanOptions(request=TINY, workers=1, niceness=0, stall_s=60.0))
# Not ru_maxrss for this process: that counts the process it was forked from, too.
own = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([summary.found, summary.crashes, own * 1024, children * 1024]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux counts it")
def test_headers_that_claim_the_machine_get_no_memory_for_it(index: str, library: Path) -> None:
    for name, suffix, edit in CLAIMS:
        path = library / name
        encode(path, sine(300, 0.5, 8000), 8000)
        assert suffix in SUFFIXES
        data = bytearray(path.read_bytes())
        edit(data)
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED_SCAN, index, str(library)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, crashes, parent_bytes, worker_bytes = json.loads(done.stdout)
    assert (found, crashes) == (len(CLAIMS), 0)
    assert parent_bytes < 300e6
    assert worker_bytes < 400e6
    with Store(index) as store:
        for record in store.files():
            assert record.status == "ok" or record.error_reason, record
        outcome = {record.text_path.rsplit("/", 1)[1]: record.error_kind for record in store.files()}
    assert all(kind != "unexpected" for kind in outcome.values()), outcome
    assert all(outcome[name] for name in outcome if name.startswith("channels.")), outcome


def test_mutated_containers_are_all_that_the_encoders_write() -> None:
    assert len(SUFFIXES) == len(set(SUFFIXES)) >= 24
    assert len(LIBSNDFILE_SUFFIXES) == 11
