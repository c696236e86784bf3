"""Shared by the tests of commands: run a command line in this process, which spares each a second of imports."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import TypeAlias

import pytest

from embedindex.cli import main

Cli: TypeAlias = Callable[..., str]


def command_line(index: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs ``embedindex ARGUMENTS…`` on an index.

    It returns stdout, or what was said on stderr when another exit status than 0 is expected; undecodable bytes are
    surrogate escapes.
    """
    monkeypatch.setenv("EMBEDINDEX_INDEX", index)

    def run(*arguments: object, status: int = 0) -> str:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        monkeypatch.setattr(sys, "argv", ["embedindex", *(str(argument) for argument in arguments)])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        said = [os.fsdecode(bytes(stream.buffer.getvalue())) for stream in (out, err)]
        assert int(ended.value.code or 0) == status, said
        return said[1] if status else said[0]

    return run
