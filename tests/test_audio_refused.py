"""What is refused, and why: what is no sound, is not there, claims too much or leads elsewhere."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from embedindex import decoders
from embedindex.audio import AudioReader, probe, read_audio
from embedindex.errors import (
    AudioLimitError,
    DamagedAudioError,
    EmptyAudioError,
    NotAudioError,
    UnreadableFileError,
)
from tests import sounds


def test_missing_file_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"gone.wav: cannot be read \(no such file"):
        probe(tmp_path / "gone.wav")


def test_folder_and_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        probe(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableFileError, match="it is a folder"):
        probe(tmp_path)


def test_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no file can have that name"):
        probe(f"{tmp_path}/a\0.wav")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file whose reads fail: /proc/self/mem")
def test_input_output_error_is_not_taken_for_damage() -> None:
    with pytest.raises(UnreadableFileError, match="input/output error"):
        probe("/proc/self/mem")


def test_file_without_bytes_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(EmptyAudioError, match="0 bytes"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".flac"])
def test_file_without_samples_is_empty(tmp_path: Path, suffix: str) -> None:
    sounds.encode(tmp_path / f"a{suffix}", np.zeros(0, np.float32))
    with pytest.raises(EmptyAudioError):
        read_audio(tmp_path / f"a{suffix}")


def jpeg() -> bytes:
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 240, "yuvj420p"
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.m4a"])
@pytest.mark.parametrize("kind", ["text", "utf16", "html", "jpeg", "zip", "random", "zeros", "pdf"])
def test_other_files_named_like_audio_are_not_audio(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(len(name) + len(kind)).bytes(300_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.bin", noise)
    else:
        contents = {
            "text": b"Dear diary, no sound today.\n" * 1000,
            "utf16": ("Dear diary, no sound today.\n" * 1000).encode("utf-16"),
            "html": b"<!doctype html><title>404</title><p>Not found</p>" * 100,
            "jpeg": jpeg(),
            "random": noise,
            "zeros": bytes(300_000),
            "pdf": b"%PDF-1.7\n" + noise,
        }
        path.write_bytes(contents[kind])
    with pytest.raises(NotAudioError, match="not audio"):
        read_audio(path)


def test_film_without_soundtrack_is_not_audio(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "silent.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            film.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        film.mux(stream.encode(None))
    with pytest.raises(NotAudioError, match="no soundtrack"):
        probe(tmp_path / "silent.mp4")


@pytest.mark.parametrize("name", ["list.flac", "list.m3u8"])
def test_playlist_cannot_make_us_read_another_file(tmp_path: Path, name: str) -> None:
    sounds.write_wav(tmp_path / "private.wav", sounds.sine(440, 1.0))
    private = tmp_path / "private.wav"
    for text in (
        f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{private}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{private}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(NotAudioError):
            read_audio(tmp_path / name)


def test_no_second_file_is_opened_even_if_a_demuxer_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "DEMUXERS", decoders.DEMUXERS + ",concat,hls")  # as if one had slipped in
    sounds.write_wav(tmp_path / "private.wav", sounds.sine(440, 1.0))
    (tmp_path / "a.flac").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/private.wav'\n")
    with pytest.raises(NotAudioError):
        read_audio(tmp_path / "a.flac")


def test_playlist_cannot_make_us_call_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "a.mp3").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n")
        with pytest.raises(NotAudioError):
            probe(tmp_path / "a.mp3")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("rate", [1, 3999, 768_001, 2**31 - 1])
def test_claimed_rate_beyond_reason_is_refused(tmp_path: Path, rate: int) -> None:
    sounds.write_wav(tmp_path / "a.wav", sounds.sine(440, 0.1))
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(AudioLimitError, match=f"claims {rate} Hz"):
        probe(tmp_path / "a.wav")


def test_limits_hold_for_what_ffmpeg_reads(tmp_path: Path) -> None:
    sounds.encode(tmp_path / "a.tta", sounds.sine(440, 1.0, 2000), 2000)
    with pytest.raises(AudioLimitError, match="claims 2000 Hz"):
        probe(tmp_path / "a.tta")


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    sounds.write_wav(tmp_path / "a.wav", np.zeros((10, 1024), np.float32))
    with pytest.raises(AudioLimitError, match="claims 1024 channels"):
        probe(tmp_path / "a.wav")


def test_too_long_is_refused_by_the_header_and_while_reading(tmp_path: Path) -> None:
    sounds.encode(tmp_path / "a.flac", sounds.sine(440, 2.0))
    with pytest.raises(AudioLimitError, match="cut it into pieces"):
        AudioReader(tmp_path / "a.flac", max_duration_s=1.9)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the 36-bit number of samples: 0 is "unknown"
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    with AudioReader(tmp_path / "a.flac", max_duration_s=1.9) as reader, pytest.raises(AudioLimitError, match="long"):
        list(reader.blocks())


def test_movie_atom_missing_is_damage(tmp_path: Path) -> None:
    sounds.encode(tmp_path / "a.m4a", sounds.sine(440, 2.0))
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data[: data.index(b"moov") - 100])
    with pytest.raises(DamagedAudioError, match=r"cannot be decoded: .*encode the file again"):
        probe(tmp_path / "a.m4a")


@pytest.mark.parametrize("tag", [b"drms", b"enca"])
def test_encrypted_sound_is_refused_and_not_read_as_noise(tmp_path: Path, tag: bytes) -> None:
    sounds.encode(tmp_path / "a.m4a", sounds.sine(440, 1.0))
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data.replace(b"mp4a", tag))  # what a protected purchase calls its codec
    with pytest.raises(DamagedAudioError, match="it is encrypted"):
        probe(tmp_path / "a.m4a")


def test_unknown_codec_is_named_as_the_reason(tmp_path: Path) -> None:
    sounds.write_wav(tmp_path / "a.wav", sounds.sine(440, 1.0))
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[20:22] = b"\x34\x12"
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DamagedAudioError, match="no decoder for its codec"):
        probe(tmp_path / "a.wav")
