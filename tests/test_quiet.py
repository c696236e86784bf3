"""What C libraries write to the terminal on their own account stays off it; what the program says does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.command_line import started
from tests.sounds import sine


@pytest.fixture
def damaged_mp3(tmp_path: Path) -> Path:
    """An MP3 that libmpg123 has something to say about."""
    path = tmp_path / "damaged.mp3"
    sf.write(path, sine(440, 4, 44100), 44100, format="MP3")
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(1)
    for place in random.integers(2000, len(data), 200):
        data[place] ^= 0xFF
    path.write_bytes(data)
    return path


def test_remarks_of_libraries_are_not_the_users_business(damaged_mp3: Path, tmp_path: Path) -> None:
    reading = "import soundfile, sys; soundfile.read(sys.argv[1])"
    alone = subprocess.run([sys.executable, "-c", reading, damaged_mp3], capture_output=True, check=False)
    assert b"mpg123" in alone.stderr  # or there is nothing to be quiet about
    process = started(["embed", damaged_mp3, "--model", "spectral", "-o", tmp_path / "out", "--quiet"])
    _, said = process.communicate()
    assert process.returncode == 0
    assert said == b""
    assert os.listdir(tmp_path / "out")


def test_what_the_program_says_is_said_and_debug_hides_nothing(damaged_mp3: Path, tmp_path: Path) -> None:
    process = started(["similar", damaged_mp3, "--index", tmp_path / "none"])
    assert b"embedindex scan FOLDER" in process.communicate()[1]
    process = started(["embed", damaged_mp3, "--model", "spectral", "-o", tmp_path / "out", "--quiet", "--debug"])
    assert b"mpg123" in process.communicate()[1]


def test_program_without_a_standard_error_works(damaged_mp3: Path, tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m embedindex embed {damaged_mp3} --model spectral -o {tmp_path}/out 2>&-"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0
