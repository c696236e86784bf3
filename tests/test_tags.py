"""Tags: what real files say comes out clean and short; damage there is never a reason to refuse a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.errors import UnreadableFileError
from embedindex.tags import MAX_TEXT, Tags, read_tags
from tests import sounds


def write_tagged(path: Path, **fields: str) -> None:
    """Write a short file of the kind that the suffix names, with tags, by FFmpeg."""
    import av

    codecs = {".mp3": "libmp3lame", ".flac": "flac", ".m4a": "aac", ".ogg": "flac", ".wma": "wmav2"}
    with av.open(str(path), "w") as container:
        container.metadata.update(fields)
        if path.suffix == ".wma" and "date" in fields:
            container.metadata["WM/Year"] = fields["date"]  # what players write there
        stream = container.add_stream(codecs[path.suffix], rate=44100, layout="mono")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(sounds.sine(440, 0.05)[None], format="fltp", layout="mono")
        frame.sample_rate = 44100
        fifo = av.AudioFifo()
        for piece in av.AudioResampler(format=stream.format, layout="mono", rate=44100).resample(frame):
            fifo.write(piece)
        while (chunk := fifo.read(stream.codec_context.frame_size or 4096, partial=True)) is not None:
            container.mux(stream.encode(chunk))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".m4a", ".ogg", ".wma"])
def test_tags_of_each_format_are_read(tmp_path: Path, suffix: str) -> None:
    write_tagged(
        tmp_path / f"a{suffix}", artist="Björk", album="Vespertine", title="雪 ☃", genre="Electronic", date="2001-08-27"
    )
    (tmp_path / f"a{suffix}").rename(tmp_path / "sound.bin")  # the content decides
    tags = read_tags(tmp_path / "sound.bin")
    assert tags == Tags("Björk", "Vespertine", "雪 ☃", "Electronic", 2001)


@pytest.mark.parametrize(("text", "year"), [("2003-05-01", 2003), ("20030501", 2003), ("(P) 1998", 1998), ("99", None)])
def test_year_is_taken_out_of_dates(tmp_path: Path, text: str, year: int | None) -> None:
    write_tagged(tmp_path / "a.flac", date=text)
    assert read_tags(tmp_path / "a.flac").year == year


def test_text_is_stripped_cut_and_free_of_what_databases_refuse(tmp_path: Path) -> None:
    write_tagged(tmp_path / "a.flac", title="  a title " + "x" * 3000, artist="    ", album="no NUL herX")
    data = (tmp_path / "a.flac").read_bytes().replace(b"no NUL herX", b"no NUL her\0")
    (tmp_path / "a.flac").write_bytes(data)
    tags = read_tags(tmp_path / "a.flac")
    assert tags.title is not None
    assert tags.title.startswith("a title xxx")
    assert len(tags.title) == MAX_TEXT
    assert tags.artist is None
    assert tags.album == "no NUL her"


def test_several_values_of_one_tag_stay_apart(tmp_path: Path) -> None:
    write_tagged(tmp_path / "a.flac", genre="RockXPop")
    data = (tmp_path / "a.flac").read_bytes().replace(b"RockXPop", b"Rock\0Pop")
    (tmp_path / "a.flac").write_bytes(data)
    assert read_tags(tmp_path / "a.flac").genre == "Rock; Pop"


@pytest.mark.parametrize(
    "content", [b"", b"x", b"no sound at all" * 99, bytes(5000), b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + b"T" * 99]
)
def test_files_without_readable_tags_have_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    assert read_tags(tmp_path / "a.mp3") == Tags()


@settings(max_examples=150, deadline=None)
@given(suffix=st.sampled_from([".mp3", ".flac", ".m4a", ".ogg", ".wma"]), seed=st.integers(0, 2**32))
def test_damaged_tags_never_raise(tmp_path_factory: pytest.TempPathFactory, suffix: str, seed: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / f"tagged{suffix}"
    if not path.exists():
        write_tagged(path, artist="Somebody", title="Something", date="1999")
    data = bytearray(path.read_bytes()[:3000])
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, min(400, len(data)), 6):
        data[place] = rng.integers(256)
    broken = folder / "broken.bin"
    broken.write_bytes(data[: rng.integers(1, len(data))])
    tags = read_tags(broken)
    for text in (tags.artist, tags.album, tags.title, tags.genre):
        assert text is None or (text.encode("utf-8") and "\0" not in text and len(text) <= MAX_TEXT)


def test_undecodable_name_is_no_obstacle(tmp_path: Path) -> None:
    write_tagged(tmp_path / "a.flac", title="Here")
    path = os.fsencode(tmp_path) + b"/caf\xe9.flac"
    try:
        os.rename(tmp_path / "a.flac", path)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert read_tags(path).title == read_tags(os.fsdecode(path)).title == "Here"


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file whose reads fail: /proc/self/mem")
def test_input_output_error_is_not_taken_for_missing_tags() -> None:
    with pytest.raises(UnreadableFileError, match="input/output error"):
        read_tags("/proc/self/mem")


def test_missing_file_folder_and_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")
    for path in (tmp_path / "gone.mp3", tmp_path, tmp_path / "pipe.mp3"):
        with pytest.raises(UnreadableFileError):
            read_tags(path)
