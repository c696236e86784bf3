"""Writing genres into files' tags: read back by another reader, the sound untouched, killed at any moment unharmed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.audio import read_audio
from embedindex.errors import PathNotFoundError
from embedindex.tags import read_tags
from tests.sounds import encode, noise, sine

pytest.importorskip("mutagen", reason="tags are written with mutagen, an extra")
from embedindex.write_tags import read_genres, restore, write_genres

RATE = 44100
FORMATS = (".mp3", ".flac", ".ogg", ".m4a", ".aiff", ".wav", ".opus")


def make(path: Path, duration_s: float = 0.7) -> Path:
    rate = 48000 if path.suffix == ".opus" else RATE
    encode(path, sine(440, duration_s, rate), rate)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_another_reader_finds_the_genre_and_the_sound_is_the_same(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"song{suffix}")
    before = read_audio(path)[0]
    mode = path.stat().st_mode
    (change,) = write_genres([(os.fsencode(path), ["hip hop"])], str(tmp_path / "backup.jsonl"))
    assert change.problem is None
    assert read_tags(path).genre == "hip hop"
    np.testing.assert_array_equal(read_audio(path)[0], before)
    assert path.stat().st_mode == mode
    assert sorted(os.listdir(tmp_path)) == ["backup.jsonl", path.name]
    assert list(write_genres([(os.fsencode(path), ["hip hop"])], str(tmp_path / "backup.jsonl"))) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_backup_puts_back_what_was_there(tmp_path: Path, suffix: str) -> None:
    path, backup = make(tmp_path / f"song{suffix}"), str(tmp_path / "backup.jsonl")
    name = os.fsencode(path)
    list(write_genres([(name, ["jazz", "funk"])], str(tmp_path / "other.jsonl")))
    assert read_genres(name) == ("jazz", "funk")
    list(write_genres([(name, ["pop"])], backup))
    list(write_genres([(name, ["rock"])], backup))
    assert [json.loads(line)["before"] for line in Path(backup).read_text().splitlines()] == [["jazz", "funk"], ["pop"]]
    list(restore(backup))
    assert read_genres(name) == ("jazz", "funk")
    list(restore(str(tmp_path / "other.jsonl")))
    assert read_genres(name) == ()


def test_other_tags_stay(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    with sf.SoundFile(path, "w", RATE, 1) as file:
        file.title, file.artist = "Title", "Artist"
        file.write(sine(440, 0.2, RATE))
    list(write_genres([(os.fsencode(path), ["rock"])], str(tmp_path / "backup.jsonl")))
    tags = read_tags(path)
    assert (tags.title, tags.artist, tags.genre) == ("Title", "Artist", "rock")


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "song.mp3")
    content = path.read_bytes()
    (change,) = write_genres([(os.fsencode(path), ["rock"])], None, dry_run=True)
    assert (change.before, change.after) == ((), ("rock",))
    assert path.read_bytes() == content


def test_file_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    wrong = tmp_path / "text.mp3"
    wrong.write_text("no sound" * 100)
    other = tmp_path / "song.au"
    sf.write(other, sine(440, 0.1, RATE), RATE)
    named = make(tmp_path / "really.flac").rename(tmp_path / "flac named.mp3")
    contents = {path: path.read_bytes() for path in (wrong, other, named)}
    changes = list(write_genres([(os.fsencode(path), ["rock"]) for path in contents], str(tmp_path / "b.jsonl")))
    assert all(change.problem for change in changes)
    assert len(changes) == 3
    assert {path: path.read_bytes() for path in contents} == contents
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@pytest.mark.slow
def test_killed_at_any_moment_no_file_is_damaged(tmp_path: Path) -> None:
    chance = random.Random(1)
    paths = [make(tmp_path / f"song{suffix}", 3.0) for suffix in FORMATS]
    before = {path: read_audio(path)[0] for path in paths}
    list(write_genres([(os.fsencode(path), ["genre of the start"]) for path in paths], str(tmp_path / "backup.jsonl")))
    program = (
        "import itertools, sys\n"
        "from embedindex.write_tags import write_genres\n"
        "paths = [path.encode() for path in sys.argv[2:]]\n"
        "print('ready', flush=True)\n"
        "for number in itertools.count():\n"
        "    for change in write_genres([(path, [f'genre {number}']) for path in paths], sys.argv[1]):\n"
        "        print(change.path, flush=True)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "backup.jsonl"), *map(str, paths)]
    for _ in range(50):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(1, 2 * len(FORMATS))):  # by files, so that a busy machine gets as far
                process.stdout.readline()
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        for path in paths:
            read_genres(os.fsencode(path))
    for path in paths:
        np.testing.assert_array_equal(read_audio(path)[0], before[path])
        assert (read_tags(path).genre or "").startswith("genre ")
    list(write_genres([(os.fsencode(path), ["end"]) for path in paths], str(tmp_path / "backup.jsonl")))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_command_writes_the_tags_of_what_it_labelled(
    index: str, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.command_line import command_line
    from tests.indexing import run_scan

    cli = command_line(index, monkeypatch)
    for number in range(3):
        encode(library / f"low{number}.flac", sine(300 + number, 0.6, 8000), 8000)
        encode(library / f"hiss{number}.flac", noise(0.6, 8000, seed=number), 8000)
    run_scan(index, library)
    cli("label", "import", "--pattern", r"(?P<genre>low|hiss)[01]")
    assert "hiss\t" in cli("genre", "--write-tags", "--dry-run")
    assert read_tags(library / "low2.flac").genre is None
    cli("genre", "--write-tags")
    assert read_tags(library / "low2.flac").genre == "low"
    assert read_tags(library / "hiss2.flac").genre == "hiss"
    assert read_tags(library / "low0.flac").genre is None  # it was given its label; nothing was predicted
    (backup,) = Path(index).glob("tags-*.jsonl")
    assert "2 files" in cli("genre", "--restore-tags", backup)
    assert read_tags(library / "low2.flac").genre is None
    assert "genre only" in cli("genre", "--key", "mood", "--write-tags", status=2)


def test_backup_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError) as said:
        list(restore(str(tmp_path / "tags-1.jsonl")))
    reason = "is no backup of tags (No such file or directory); give a tags-….jsonl of the index folder"
    assert str(said.value) == f"{tmp_path}/tags-1.jsonl: {reason}"
