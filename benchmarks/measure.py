"""What the benchmarks share: cold runs of a command with their time and memory, medians, and a table that names them.

Conventions: every run is a process of its own that starts from nothing, but its files may lie in the system's cache;
nothing here empties that. `wall_s` is elapsed time, which others on the machine lengthen; `cpu_s` is processor time
(user + system) of the process and of the children it waited for, which they lengthen less. Memory is the peak resident
size (VmHWM), of every process of the tree on its own; shared library pages count in each. Linux only for memory.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from embedindex import __version__
from embedindex.arrays import Float32Array
from embedindex.models.calibration import synthesise_windows

POLL_S = 0.02
LIBRARIES = ("numpy", "faiss-cpu", "soundfile", "soxr", "av", "onnxruntime")
MIB = 2.0**20
SOUND_SEED = 11


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        wall_s: elapsed seconds.
        cpu_s: seconds of processor time, children included.
        output: what it printed to stdout.
        peak_bytes: peak resident size of each process by its id, the command's own first; empty when not asked for.
        together_bytes: the most that all of them held at once, as far as looking again and again shows it.
    """

    wall_s: float
    cpu_s: float
    output: str
    peak_bytes: dict[int, int] = field(default_factory=dict)
    together_bytes: int = 0


def embedindex(*arguments: str) -> list[str]:
    """Return the command line of `embedindex` under this interpreter."""
    return [sys.executable, "-m", "embedindex", *arguments]


def run_cold(command: Sequence[str], environment: Mapping[str, str] | None = None, *, memory: bool = False) -> Run:
    """Run a command to its end and measure it.

    Args:
        command: program and arguments.
        environment: variables to set for it.
        memory: follow the peak memory of it and its children, too (costs a little processor time of ours).

    Raises:
        subprocess.CalledProcessError: it failed; what it said is on stderr.
    """
    peaks: dict[int, int] = {}
    together = 0
    used = os.times()
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        if memory:
            while process.poll() is None:
                together = max(together, note_peaks(process.pid, peaks))
                time.sleep(POLL_S)
        output = process.communicate()[0]
    wall_s = time.perf_counter() - began
    after = os.times()
    cpu_s = after.children_user + after.children_system - used.children_user - used.children_system
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Run(wall_s, cpu_s, output, peaks, together)


def note_peaks(pid: int, peaks: dict[int, int], parent: bytes = b"") -> int:
    """Raise the entries of `peaks` to the peak sizes of a process and of all below it; return their sizes now, summed.

    Args:
        pid: the process.
        peaks: bytes by process.
        parent: its parent's command line; a child that still has it has not started its own program yet, and its memory
            is its parent's.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it ended meanwhile
        return 0
    now = 0
    if command != parent:
        kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
        peaks[pid] = max(peaks.get(pid, 0), kilobytes * 1024)
        now = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0) * 1024
    return now + sum(note_peaks(child, peaks, command) for child in children)


def repeat(count: int, run: Callable[[], Run]) -> list[Run]:
    """Return the results of running something `count` times."""
    return [run() for _ in range(count)]


def median_wall_s(runs: Sequence[Run]) -> float:
    """Return the median elapsed time."""
    return statistics.median(run.wall_s for run in runs)


def median_cpu_s(runs: Sequence[Run]) -> float:
    """Return the median processor time."""
    return statistics.median(run.cpu_s for run in runs)


def library_sound(duration_s: float, sample_rate: int, seed: int = SOUND_SEED) -> Float32Array:
    """Return a sound of many kinds of second (tones, chords, drums, noise, silence…), (samples,) float32."""
    seconds = max(1, int(np.ceil(duration_s)))
    windows = synthesise_windows(min(seconds, 60), sample_rate, sample_rate, seed)
    return np.resize(windows.reshape(-1), round(duration_s * sample_rate))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _machine() -> list[str]:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"{_processor()}, {os.cpu_count()} cores{load}; {platform.system()} {platform.release()}",
        f"embedindex {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {libraries}",
    ]


def print_report(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table in Markdown under its title, with notes, the machine and the versions."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    print(f"{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print()
    for line in (*notes, *_machine()):
        print(line)


def print_results(
    as_json: bool,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    results: object,
) -> None:
    """Print a report, or what it is made of as JSON."""
    if as_json:
        print(json.dumps({"title": title, "machine": _machine(), "results": results}, indent=1))
    else:
        print_report(title, header, rows, notes)
