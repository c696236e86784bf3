"""Shared by the tests of faults: embedindex as processes of its own, and what an index holds when they are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from embedindex.store import Store
from embedindex.verify import verify

CHECKOUT = Path(__file__).parents[1]
# What has not come about by then does not come about; nothing else is meant by it, least of all a speed.
PATIENCE_S = 180.0
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(CHECKOUT), str(CHECKOUT / "tests" / "plugin"), os.environ.get("PYTHONPATH", "")]
    ),
}


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a command line of embedindex in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "embedindex", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        env=ENVIRONMENT, cwd=CHECKOUT, text=True,
    )  # fmt: skip


def start_scan(index: str, library: Path, model: str = "tiny", **options: Any) -> subprocess.Popen[str]:
    return start("scan", str(library), "--index", index, "--model", model, "--workers", "2", "--nice", "0", **options)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def problems(index: str) -> list[str]:
    with Store(index) as store:
        return [problem.what for problem in verify(store).problems]


def lives(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def children(process_id: int) -> list[int]:
    try:
        return [int(number) for number in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    except OSError:
        return []


def wait_until(condition: Any) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it does not come about"
        time.sleep(0.005)


def files_done(index: str) -> int:
    try:
        with Store(index) as store:
            return store.counts().files
    except Exception:  # noqa: BLE001  # not made yet
        return 0
