"""Runs the command line as users type it: in this process, which spares a second of imports, or in one of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from embedindex.cli import main

Cli: TypeAlias = Callable[..., str]


@dataclass(frozen=True)
class Ran:
    """How a command ended: its exit status, and what it wrote."""

    status: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        """What it wrote to stdout."""
        return self.out.decode("utf-8", "surrogateescape")

    @property
    def json(self) -> Any:
        """What it wrote to stdout, parsed."""
        assert self.status == 0, self.error
        return json.loads(self.out)


def command(*arguments: str | bytes | os.PathLike[str]) -> Ran:
    """Run ``embedindex ARGUMENTS`` in this process."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    error = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    before = sys.argv
    sys.argv = ["embedindex", *map(os.fsdecode, arguments)]
    status: Any = 0
    try:
        with redirect_stdout(out), redirect_stderr(error):
            main()
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        sys.argv = before
    assert isinstance(out.buffer, io.BytesIO)
    assert isinstance(error.buffer, io.BytesIO)
    return Ran(int(status), out.buffer.getvalue(), error.buffer.getvalue().decode())


def command_line(index: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs ``embedindex ARGUMENTS…`` on an index.

    It returns stdout, or what was said on stderr when another exit status than 0 is expected.
    """
    monkeypatch.setenv("EMBEDINDEX_INDEX", index)

    def run(*arguments: object, status: int = 0) -> str:
        ran = command(*map(str, arguments))
        assert ran.status == status, (ran.text, ran.error)
        return ran.error if status else ran.text

    return run


def started(arguments: Sequence[str | bytes | os.PathLike[str]], **options: Any) -> subprocess.Popen[bytes]:
    """Start ``embedindex ARGUMENTS`` as a process of its own, with pipes for what it writes."""
    words = [sys.executable, "-m", "embedindex", *map(os.fsdecode, arguments)]
    return subprocess.Popen(words, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def refusal(*arguments: str | bytes | os.PathLike[str], status: int = 1) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout; return that line."""
    ran = command(*arguments)
    assert (ran.status, ran.out) == (status, b""), ran
    assert ran.error.startswith("embedindex: "), ran.error
    assert ran.error.count("\n") == 1, ran.error
    return ran.error


ODD_NAMES = (
    "🥁 kick.wav".encode(),
    b"two\nlines.wav",
    b"cr\rname.wav",
    b"tab\tname.wav",
    b"\x1b[2J\x1b[31mred.wav",
    "עברית\u202efdp.wav".encode(),
    b"\xff\xfe\xfa.wav",
    b"[red]mark[bold].wav",
    b'comma, "quote".wav',
    b" blank .wav",
    b"-k.wav",
)
