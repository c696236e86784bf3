"""Shared by the tests of scanning and searching: the test model, scans with it, and what an index then holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.models import ModelRequest
from embedindex.progress import ScanSummary
from embedindex.records import FileRecord
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from tests.sounds import sine, write_wav

TINY = ModelRequest("tiny")
TINY_RATE = 8000
OPTIONS = ScanOptions(request=TINY, workers=1, niceness=0)
LONG_AGO_NS = 1_500_000_000_123_456_789


def run_scan(index: str, *roots: str | bytes | Path, **options: object) -> ScanSummary:
    """Scan with the test model and one worker."""
    from dataclasses import replace

    paths = [os.fsencode(root) for root in roots]
    return scan(index, paths, replace(OPTIONS, **options))  # type: ignore[arg-type]


def make_sound(path: str | bytes | Path, frequency_hz: float = 440.0, duration_s: float = 0.5) -> Path:
    """Write a tone at the test model's rate, with a time of change long ago; folders are made."""
    os.makedirs(os.path.dirname(os.fsencode(path)), exist_ok=True)
    write_wav(path, sine(frequency_hz, duration_s, TINY_RATE), TINY_RATE)
    age(path, round(frequency_hz * 1000))
    return Path(os.fsdecode(path))


def write_samples(path: str | bytes | Path, samples: Float32Array, sample_rate: int = TINY_RATE) -> Path:
    """Write samples as a float WAV, with a time of change long ago."""
    write_wav(path, samples, sample_rate)
    age(path)
    return Path(os.fsdecode(path))


def age(path: str | bytes | Path, later_ns: int = 0) -> None:
    """Set a file's time of change to a fixed time long ago, plus some nanoseconds: fresh times are not trusted."""
    os.utime(path, ns=(LONG_AGO_NS + later_ns, LONG_AGO_NS + later_ns))


def records(index: str) -> dict[str, FileRecord]:
    """Return all files of an index by path."""
    with Store(index) as store:
        return {record.text_path: record for record in store.files()}


def names(index: str, status: str = "ok") -> set[str]:
    """Return the base names of the files of an index that have a status."""
    return {os.path.basename(path) for path, record in records(index).items() if record.shown_status == status}


def one(index: str, path: str | bytes | Path) -> FileRecord:
    """Return the file of an index with that path."""
    with Store(index) as store:
        record = store.file_by_path(os.fsencode(path))
    assert record is not None
    return record


def constant(level: float, duration_s: float = 0.5) -> Float32Array:
    """Return a constant sound: a positive one kills the test model's process, a negative one hangs it."""
    return np.full(round(duration_s * TINY_RATE), level, np.float32)
