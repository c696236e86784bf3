"""A scan on a Ray cluster against one on this machine, on the same cores; and how much a coordinator can write.

    python benchmarks/cluster.py [--files 2000] [--seconds 10] [--model spectral] [--pairs 1] [--only overhead]
        [-- --weights FILE and other options of `scan`]
    python benchmarks/cluster.py --only coordinator [--minutes 10] [--rate 5000] [--dimension 512]

The cluster is two raylets of one core each on this machine, beside a head without cores; the scan on one machine has
two workers. A second scan on the cluster has a third raylet, which is killed midway. Vectors are compared bit for bit.
Target: at most 10 % more time. Processor time is that of all processes, Ray's own included, as far as looking at them
five times a second shows it; `--only overhead` leaves the third raylet and the coordinator out.

The coordinator is then fed by workers that make nothing but random vectors, as fast as 5,000 windows a second come, for
`--minutes`. Target: it keeps up, and its memory is flat.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from measure import MIB, embedindex, library_sound, print_report, run_cold

from embedindex.audio import AudioFacts
from embedindex.embed import FileEmbedding
from embedindex.file_stat import file_stat
from embedindex.models import parse_request
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store
from embedindex.tags import Tags
from embedindex.worker import Embedded
from embedindex.workers import Event, Finished

# What processes are, by a part of their command line.
PROGRAMS = (
    ("multiprocessing", "workers"),
    ("-m embedindex", "scan"),
    ("ray::Node", "machines"),
    ("ray::", "Ray's idle workers"),
    ("raylet/raylet", "raylets"),
    ("gcs_server", "GCS"),
)
LONG_AGO_NS = 1_500_000_000_123_456_789
WINDOWS_A_FILE = 300


def make_library(folder: Path, files: int, seconds: float) -> None:
    """Write different sounds of the same length."""
    sound = library_sound(seconds + 60, 44100)
    for number in range(files):
        path = folder / f"{number // 50:03d}" / f"{number:05d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = number * 997 % (60 * 44100)
        sf.write(path, sound[start : start + round(seconds * 44100)], 44100)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def vectors(index: Path) -> dict[bytes, bytes]:
    """Return all vectors of an index by path."""
    with Store(str(index)) as store:
        return {record.path: store.vectors_of(record).tobytes() for record in store.files("status = 'ok'")}


def kill_midway(index: Path, raylet: int, files: int, done: threading.Event) -> None:
    """Kill a machine when half of the files are done."""
    while not done.wait(0.05):
        try:
            with Store(str(index)) as store:
                if store.counts().ok >= files // 2:
                    os.kill(raylet, signal.SIGKILL)
                    return
        except Exception:  # noqa: BLE001, S112 - the index is not there yet
            continue


class ProcessorTime:
    """Adds up the processor time of this process's descendants while it is open; those of others do not count.

    Attributes:
        used_s: seconds, of those that began before only what they used meanwhile.
        by_program: the same by what the processes are.
    """

    def __init__(self) -> None:
        self.used_s = 0.0
        self.by_program: dict[str, float] = {}
        self._before: dict[int, float] = {}
        self._now: dict[int, float] = {}
        self._programs: dict[int, str] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> ProcessorTime:
        note_times(os.getpid(), self._before)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for process, seconds in self._now.items():
            used_s = seconds - self._before.get(process, 0.0)
            self.used_s += used_s
            program = self._programs.get(process, "others")
            self.by_program[program] = self.by_program.get(program, 0.0) + used_s

    def _look(self) -> None:
        while not self._end.wait(0.2):
            note_times(os.getpid(), self._now, self._programs)
        note_times(os.getpid(), self._now, self._programs)


def note_times(process: int, times: dict[int, float], programs: dict[int, str] | None = None) -> None:
    """Note the processor time of all descendants of a process, in seconds by process id, and what they are."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            for child in map(int, path.read_text().split()):
                note_times(child, times, programs)
                ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
                times[child] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                line = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                if programs is not None and line:  # it has none when it is over
                    programs[child] = program(line)


def program(command_line: str) -> str:
    """Return what a process is."""
    return next((name for part, name in PROGRAMS if part in command_line), "others")


def compare_engines(
    files: int, seconds: float, model: str, pairs: int, *, more: list[str], only: bool
) -> tuple[list[list[str]], list[str]]:
    """Return the rows of the table of scans, and lines on where their processor time went."""
    os.environ.setdefault("RAY_health_check_failure_threshold", "3")
    os.environ.setdefault("RAY_health_check_period_ms", "1000")
    from ray.cluster_utils import Cluster

    rows: list[list[str]] = []
    notes: list[str] = []
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_library(folder / "library", files, seconds)

        def timed(name: str, *engine: str) -> None:
            index = folder / name
            with ProcessorTime() as cpu:
                options = ("--index", str(index), "--model", model, "-q", *more, *engine)
                run = run_cold(embedindex("scan", str(folder / "library"), *options))
            same = (
                "" if not rows else ("equal" if vectors(index) == vectors(folder / "this-machine-0") else "DIFFERENT")
            )
            times.append((run.wall_s, cpu.used_s))
            wall, used = (f"{now:.1f} s" for now in times[-1])
            ratios = [f"{now / first:.2f}" for now, first in zip(times[-1], times[0], strict=True)]
            rows.append([name.replace("-", " "), wall, ratios[0], used, ratios[1], same])
            largest = sorted(cpu.by_program.items(), key=lambda item: -item[1])
            notes.append(f"{name}: " + ", ".join(f"{program} {used_s:.1f} s" for program, used_s in largest))

        timed("this-machine-0", "--workers", "2")
        cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            timed("cluster-0", "--engine", "ray", "--address", cluster.address)
            for pair in range(1, pairs):
                timed(f"this-machine-{pair}", "--workers", "2")
                timed(f"cluster-{pair}", "--engine", "ray", "--address", cluster.address)
            if only:
                return rows, notes
            doomed = cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            done = threading.Event()
            raylet = doomed.all_processes["raylet"][0].process.pid
            name = "cluster,-one-of-three-killed"
            killer = threading.Thread(target=kill_midway, args=(folder / name, raylet, files, done))
            killer.start()
            timed(name, "--engine", "ray", "--address", cluster.address)
            done.set()
            killer.join()
        finally:
            cluster.shutdown()
    return rows, notes


class StubPool:
    """Workers that finish a file of 300 windows whenever its turn has come at a given rate."""

    def __init__(self, dimension: int, rate: float) -> None:
        self._rate = rate
        self._random = np.random.default_rng(1)
        self._vectors = self._random.standard_normal((WINDOWS_A_FILE, dimension)).astype(np.float16)
        self._tasks: deque[tuple[int, bytes]] = deque()
        self._began = 0.0
        self.windows = 0
        self.behind_s = 0.0
        self.memory: list[float] = []
        self.crashes = 0

    @property
    def busy(self) -> int:
        """How many files are in hand."""
        return len(self._tasks)

    @property
    def has_room(self) -> bool:
        """Whether it takes another."""
        return len(self._tasks) < 64

    def in_hand(self) -> list[bytes]:
        """Return the paths in hand."""
        return [path for _, path in self._tasks]

    def submit(self, task: int, path: bytes, _size: int = 0) -> None:
        """Take a file."""
        self._tasks.append((task, path))

    def answer(self, task: int, *, embed: bool) -> None:
        """Never asked."""

    def abandon(self) -> None:
        """Give up what is in hand."""
        self._tasks.clear()

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield one finished file at its time."""
        now = time.perf_counter()
        self._began = self._began or now
        due = self._began + self.windows / self._rate
        if due > now:
            time.sleep(min(timeout_s, due - now))
        if time.perf_counter() < due or not self._tasks:
            return
        self.behind_s = max(self.behind_s, time.perf_counter() - due)
        task, path = self._tasks.popleft()
        facts = AudioFacts("WAV", "PCM_16", 44100, 2, 300.0, "")
        embedding = FileEmbedding(
            self._random.bytes(16), self._vectors, 0, 1.0, facts, Tags(None, None, None, None, None), 300.0, 1.0
        )
        self.windows += WINDOWS_A_FILE
        if self.windows % (WINDOWS_A_FILE * 500) == 0:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            self.memory.append(int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1]) / 1024)
        yield Finished(task, Embedded(file_stat(path), embedding))


STUB_MODEL = """
from embedindex.models import ModelIdentity

class Stub:
    default_hop_s = 1.0

    def __init__(self, dimension):
        self.identity = ModelIdentity("stub", 48000, 48000, dimension)

def load(request):
    return Stub(int(dict(request.options)["dimension"]))
"""


def install_stub_model(folder: Path) -> None:
    """Make a plug-in of a model that has nothing but a dimension."""
    about = folder / "stub_model-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "stub_model.py").write_text(STUB_MODEL, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stub-model\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[embedindex.models]\nstub = stub_model:load\n", encoding="utf-8")
    sys.path.insert(0, str(folder))


def feed_coordinator(minutes: float, rate: float, dimension: int) -> list[list[str]]:
    """Return the row of what a coordinator took."""
    files = max(20, round(minutes * 60 * rate / WINDOWS_A_FILE))
    with tempfile.TemporaryDirectory() as temporary:
        library = Path(temporary, "library")
        for number in range(files):
            path = library / f"{number // 100:04d}" / f"{number:06d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        install_stub_model(Path(temporary, "plugin"))
        request = parse_request(f"stub:dimension={dimension}")
        pool: Any = StubPool(dimension, rate)
        began = time.perf_counter()
        index = Path(temporary, "index")

        class NoIndex(Exception):  # noqa: N818 - building the FAISS index is not measured here
            pass

        def report(progress: Any) -> None:
            if progress.stage in ("sweep", "index"):
                raise NoIndex

        used = time.process_time()
        with contextlib.suppress(NoIndex):
            scan(str(index), [str(library)], ScanOptions(request=request), pool=pool, report=report)
        wall_s = time.perf_counter() - began
        used = time.process_time() - used
        size = sum(path.stat().st_size for path in index.iterdir())
    half = len(pool.memory) // 2
    early, late = (max(part, default=0.0) for part in (pool.memory[:half], pool.memory[half:]))
    speed, load = f"{pool.windows / wall_s:,.0f}", f"{100 * used / wall_s:.0f} %"
    memory = [f"{early:.0f} MiB", f"{late:.0f} MiB"]
    return [[f"{pool.windows:,}", speed, f"{pool.behind_s:.1f} s", load, *memory, f"{size / MIB / 1024:.1f} GiB"]]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model", default="spectral")
    parser.add_argument("scan", nargs="*", help="after --: options of `embedindex scan`", metavar="OPTION")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=5000.0, help="windows a second that the workers make")
    parser.add_argument("--dimension", type=int, default=512, help="numbers of a vector that the workers make")
    parser.add_argument("--pairs", type=int, default=1, help="how often the two engines take turns")
    parser.add_argument("--only", choices=("overhead", "coordinator"), help="only this part")
    parser.add_argument("--quick", action="store_true", help="a few files and seconds: only to see that it works")
    options = parser.parse_args()
    files, seconds, minutes = (20, 1.0, 0.05) if options.quick else (options.files, options.seconds, options.minutes)
    if options.only != "coordinator":
        only = options.only == "overhead"
        rows, notes = compare_engines(files, seconds, options.model, options.pairs, more=options.scan, only=only)
        print_report(
            f"A scan of {files:,} files of {seconds:g} s, {options.model}",
            ("engine", "time", "ratio", "processor", "ratio", "vectors"),
            rows,
            notes,
        )
    if options.only != "overhead":
        print_report(
            f"\nA coordinator fed with {options.rate:,.0f} vectors of {options.dimension} a second, {minutes:g} min",
            ("windows", "windows/s", "most behind", "one core", "memory, first half", "second half", "database"),
            feed_coordinator(minutes, options.rate, options.dimension),
        )


if __name__ == "__main__":
    main()
