"""Ctrl-C is heard whenever it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ENVIRONMENT, PATIENCE_S

LOST = """
import os, signal, sys, time, weakref
from embedindex.cli import main

sys.argv = ["embedindex", "--version"]
try:
    main()
except SystemExit:
    pass

class Thing:
    pass

thing = Thing()
# What is raised in there, Python says it ignores, and goes on.
gone = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(600)))
try:
    del thing
    time.sleep(600)
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_while_python_clears_away_an_object_is_heard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE_S, check=False
    )
    assert done.stdout.splitlines()[1:] == ["heard"]
    assert done.stderr == ""
