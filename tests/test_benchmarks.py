"""Every benchmark that needs nothing but embedindex runs, in its smallest size, so that none of them rots unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# They need an index, labelled collections or weights of the user's.
NEED_MATERIAL = {
    "clusters.py",
    "find_original.py",
    "label_matrix.py",
    "labels.py",
    "neighbours.py",
    "openl3.py",
    "remix_options.py",
    "remix_quality.py",
}
SHARED = {
    "altered.py",
    "altered_copies.py",
    "label_excerpts.py",
    "label_fonts.py",
    "label_mix.py",
    "made_up_library.py",
    "measure.py",
    "same_sound.py",
}
SELF_CONTAINED = sorted({path.name for path in BENCHMARKS.glob("*.py")} - NEED_MATERIAL - SHARED)


def test_there_are_benchmarks_of_every_figure_the_readme_gives() -> None:
    assert {"cold_similar.py", "memory.py", "rescan.py", "scale.py", "scan_speed.py", "startup.py"} <= set(
        SELF_CONTAINED
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_benchmark_runs_and_names_the_machine_and_the_versions(name: str, tmp_path: Path) -> None:
    if name in {"memory.py", "scale.py"} and sys.platform != "linux":
        pytest.skip("reads peak memory from /proc, which only Linux has")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--quick"], cwd=tmp_path, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr
    parts = [part.splitlines() for part in done.stdout.split("\n\n")]
    tables = [[line for line in part if line.startswith("|")] for part in parts if part[0].startswith("|")]
    assert tables
    for table in tables:
        assert len(table) >= 3
        assert len({line.count("|") for line in table}) == 1
    assert " cores" in done.stdout
    assert "numpy " in done.stdout


@pytest.mark.parametrize("name", sorted(NEED_MATERIAL))
def test_benchmark_of_own_material_says_how_it_is_used(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--help"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
