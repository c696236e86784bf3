"""Formats that people have are read at the right length, pitch, level and time; what is no sound is refused."""

from __future__ import annotations

import os
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex import decoders
from embedindex.arrays import Float32Array
from embedindex.audio import AUDIO_SUFFIXES, AudioReader, probe, read_audio
from embedindex.errors import (
    AudioLimitError,
    DamagedAudioError,
    EmptyAudioError,
    NotAudioError,
    UnreadableFileError,
)
from tests import sounds

# libsndfile containers that hold sound of any length at 44.1 kHz with their default encoding.
SNDFILE_CONTAINERS = sorted(set(sf.available_formats()) - {"RAW", "SD2"})
FFMPEG_SUFFIXES = [suffix for suffix in sounds.FFMPEG_ENCODERS if suffix not in {".webm"}]


def loudest_frequency_hz(samples: Float32Array, sample_rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * sample_rate / len(samples))


def lag(heard: Float32Array, original: Float32Array) -> int:
    """Return by how many samples `heard` comes later than `original`: the place of the peak of their correlation."""
    size = 1 << int(np.ceil(np.log2(len(heard) + len(original))))
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(original, size))
    place = int(np.argmax(np.fft.irfft(product, size)))
    return place if place < size // 2 else place - size


@pytest.mark.parametrize("container", SNDFILE_CONTAINERS)
def test_each_container_of_libsndfile_gives_the_sound_back(tmp_path: Path, container: str) -> None:
    path = tmp_path / "sound.bin"  # the name says nothing
    rate = 8000 if container in {"HTK", "SDS", "WVE"} else 44100  # these keep a sample period, or know no other rate
    sf.write(path, sounds.sine(1000, 1.0, rate), rate, format=container)
    samples, facts = read_audio(path)
    assert (facts.decoder, facts.sample_rate, facts.channels) == ("libsndfile", rate, 1)
    assert len(samples) == pytest.approx(rate, abs=40 if container == "SDS" else 0)  # SDS ends on a block of 40
    assert loudest_frequency_hz(samples, rate) == pytest.approx(1000, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("subtype", sorted(set(sf.available_subtypes("WAV")) - {"MPEG_LAYER_III"}))
def test_each_encoding_of_wav_gives_the_sound_back(tmp_path: Path, subtype: str) -> None:
    rate = 8000 if subtype.startswith(("GSM", "G721", "NMS")) else 44100
    sounds.write_wav(tmp_path / "a.wav", sounds.sine(1000, 1.0, rate), rate, subtype)
    samples, facts = read_audio(tmp_path / "a.wav")
    assert facts.sample_rate == rate
    assert len(samples) == pytest.approx(rate, rel=0.06)  # ADPCM and GSM end on whole blocks
    assert loudest_frequency_hz(samples[: rate // 2], rate) == pytest.approx(1000, abs=4)
    assert np.std(samples[500 : rate // 2]) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("suffix", FFMPEG_SUFFIXES)
def test_each_container_of_ffmpeg_gives_the_sound_back(tmp_path: Path, suffix: str) -> None:
    sounds.encode(tmp_path / f"a{suffix}", sounds.sine(1000, 1.0))
    (tmp_path / f"a{suffix}").rename(tmp_path / "sound.bin")  # the name says nothing
    samples, facts = read_audio(tmp_path / "sound.bin")
    assert facts.sample_rate == 44100
    assert facts.decoder == ("libsndfile" if suffix == ".mp2" else "ffmpeg")
    assert len(samples) == pytest.approx(44100, abs=2500)  # raw streams keep the encoder's padding
    assert loudest_frequency_hz(samples[:32768], 44100) == pytest.approx(1000, abs=2)
    assert np.abs(samples[4096:40000]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".wv", None), (".tta", None), (".m4a", "alac"), (".mka", None), (".avi", None)]
)
def test_lossless_formats_give_the_exact_samples(tmp_path: Path, suffix: str, codec: str | None) -> None:
    original = np.stack([sounds.noise(0.5, seed=1), sounds.noise(0.5, seed=2)], axis=1)
    sounds.encode(tmp_path / f"a{suffix}", original, codec=codec)
    samples, _ = read_audio(tmp_path / f"a{suffix}", mono=False)
    assert samples.shape == original.shape
    assert np.abs(samples - original).max() <= 1 / 32768


def test_vorbis_wrapped_in_wav_is_unwrapped(tmp_path: Path) -> None:
    original = sounds.chirp(100, 4000, 1.0)
    sounds.encode(tmp_path / "a.ogg", original)
    ogg = (tmp_path / "a.ogg").read_bytes()
    tag, rate = 0x674F, 44100
    fmt = struct.pack("<4sIHHIIHHH", b"fmt ", 18, tag, 1, rate, 9000, 1, 16, 0)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(ogg)) + ogg
    (tmp_path / "a.wav").write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    samples, facts = read_audio(tmp_path / "a.wav")
    assert (facts.container, facts.codec) == ("ogg", "vorbis")
    assert len(samples) > 44_100 - 256  # FFmpeg may drop the last short block of Vorbis
    assert np.abs(samples - read_audio(tmp_path / "a.ogg")[0][: len(samples)]).max() < 1e-4


@pytest.mark.parametrize("suffix", [".opus", ".webm"])
def test_opus_keeps_length_and_time(tmp_path: Path, suffix: str) -> None:
    original = sounds.chirp(100, 8000, 1.0, 48000)
    sounds.encode(tmp_path / f"a{suffix}", original, 48000)
    samples, facts = read_audio(tmp_path / f"a{suffix}")
    assert (facts.codec, facts.sample_rate) == ("opus", 48000)
    assert len(samples) == 48000
    assert abs(lag(samples, original)) <= 3


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".mp3"])
def test_encoder_delay_and_padding_are_trimmed(tmp_path: Path, suffix: str) -> None:
    original = sounds.chirp(100, 8000, 1.7) + sounds.noise(1.7, level=0.1)
    sounds.encode(tmp_path / f"a{suffix}", original)
    samples, _ = read_audio(tmp_path / f"a{suffix}")
    assert len(samples) == len(original)
    assert abs(lag(samples, original)) <= 3


@pytest.mark.parametrize("seed", range(3))
def test_level_of_integers_is_scaled_to_one(tmp_path: Path, seed: int) -> None:
    original = sounds.noise(0.1, seed=seed, level=0.99)
    for subtype, step in (
        ("PCM_U8", 1 / 128),
        ("PCM_16", 2**-15),
        ("PCM_24", 2**-23),
        ("PCM_32", 2**-24),
        ("FLOAT", 0.0),
    ):
        sounds.write_wav(tmp_path / "a.wav", original, subtype=subtype)
        assert np.abs(read_audio(tmp_path / "a.wav")[0] - original).max() <= step


@pytest.mark.parametrize(
    ("codec", "step"),
    [("pcm_u8", 1 / 128), ("pcm_s16le", 2**-15), ("pcm_s24le", 2**-23), ("pcm_f32le", 0.0), ("pcm_f64le", 1e-7)],
)
def test_level_of_integers_from_ffmpeg_is_scaled_to_one(tmp_path: Path, codec: str, step: float) -> None:
    original = sounds.noise(0.1, level=0.99)
    sounds.encode(tmp_path / "a.mkv", original, codec=codec)
    samples, facts = read_audio(tmp_path / "a.mkv")
    assert facts.codec == codec
    assert np.abs(samples - original).max() <= step


def test_probe_reads_the_header_only(tmp_path: Path) -> None:
    sounds.encode(tmp_path / "a.flac", sounds.sine(440, 2.0, 32000), 32000, codec="PCM_24")
    facts = probe(os.fsencode(tmp_path / "a.flac"))
    assert (facts.container, facts.codec, facts.sample_rate, facts.channels) == ("flac", "pcm_24", 32000, 1)
    assert (facts.duration_s, facts.decoder) == (2.0, "libsndfile")


def test_eight_channels_at_192_khz_are_mixed_to_their_mean(tmp_path: Path) -> None:
    original = np.stack([sounds.noise(0.2, 192000, seed) for seed in range(8)], axis=1)
    sounds.write_wav(tmp_path / "a.wav", original, 192000)
    with AudioReader(tmp_path / "a.wav") as reader:
        samples = np.concatenate(list(reader.blocks()))
    assert reader.facts.channels == 8
    expected = original.mean(axis=1, dtype=np.float64)
    assert np.abs(samples - expected).max() < 1e-6
    assert reader.peak == pytest.approx(np.abs(expected).max(), abs=1e-6)


def test_nan_and_infinity_become_silence_and_are_counted(tmp_path: Path) -> None:
    original = sounds.sine(440, 0.1)
    original[[10, 20, 30, 40]] = [np.nan, np.inf, -np.inf, 3e38]
    sounds.write_wav(tmp_path / "a.wav", original)
    with AudioReader(tmp_path / "a.wav", sample_rate=22050) as reader:
        samples = np.concatenate(list(reader.blocks()))
    assert reader.non_finite == 4
    assert np.isfinite(samples).all()
    assert reader.peak == pytest.approx(0.5, abs=0.01)


def test_silence_is_sound(tmp_path: Path) -> None:
    sounds.write_wav(tmp_path / "a.wav", np.zeros(1000, np.float32))
    with AudioReader(tmp_path / "a.wav") as reader:
        assert [block.tolist() for block in reader.blocks()] == [[0.0] * 1000]
    assert (reader.peak, reader.native_frames, reader.note) == (0.0, 1000, None)


def test_one_sample_is_a_sound_until_nothing_is_left_of_it(tmp_path: Path) -> None:
    sounds.write_wav(tmp_path / "a.wav", np.full(1, 0.25, np.float32), 192000)
    assert read_audio(tmp_path / "a.wav")[0].tolist() == [0.25]
    with pytest.raises(EmptyAudioError, match="shorter than one sample at 48000 Hz"):
        read_audio(tmp_path / "a.wav", 48000)


@pytest.mark.parametrize(
    "name", ["🥁 kick.wav".encode(), b"two\nlines.wav", b"caf\xe9 \xff.wav", b"\x1b[31m.wav", b"x" * 251 + b".wav"]
)
@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
def test_any_name_can_be_read(tmp_path: Path, name: bytes, suffix: str) -> None:
    sounds.encode(tmp_path / f"plain{suffix}", sounds.sine(440, 0.1))
    path = os.fsencode(tmp_path) + b"/" + name
    try:
        os.rename(tmp_path / f"plain{suffix}", path)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert len(read_audio(path)[0]) == 4410
    assert len(read_audio(os.fsdecode(path))[0]) == 4410


@pytest.mark.parametrize("suffix", [".m4a", ".mka", ".wma"])
def test_text_that_is_not_utf8_in_a_header_is_no_obstacle(tmp_path: Path, suffix: str) -> None:
    sounds.encode(tmp_path / f"a{suffix}", sounds.sine(440, 1.0), title="a caf-")
    data = (tmp_path / f"a{suffix}").read_bytes()
    plain, broken = b"a caf-", b"a caf\xe9"
    if suffix == ".wma":  # UTF-16: half of a surrogate pair
        plain, broken = "f-".encode("utf-16-le"), b"f\0\x00\xd8"
    assert plain in data
    (tmp_path / f"a{suffix}").write_bytes(data.replace(plain, broken))
    assert len(read_audio(tmp_path / f"a{suffix}")[0]) > 40_000


def test_options_without_sense_are_refused(tmp_path: Path) -> None:
    sounds.write_wav(tmp_path / "a.wav", sounds.sine(440, 0.1))
    for options in ({"block_s": 0.0}, {"start_s": -1.0}, {"sample_rate": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            AudioReader(tmp_path / "a.wav", **options)


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in AUDIO_SUFFIXES)
    assert {".wav", ".mp3", ".flac", ".m4a", ".mka", ".wv", ".amr"} | set(sounds.FFMPEG_ENCODERS) <= AUDIO_SUFFIXES
    assert not AUDIO_SUFFIXES & {".m3u8", ".txt", ".jpg", ".mid", ".mat"}


# What is refused


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
    with pytest.raises(DamagedAudioError, match=r"nothing can be decoded .*encode the file again"):
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
