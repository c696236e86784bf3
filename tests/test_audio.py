"""Formats that people have are read at the right length, pitch, level and time; what is no sound is refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.arrays import Float32Array
from embedindex.audio import AUDIO_SUFFIXES, AudioReader, probe, read_audio
from embedindex.errors import EmptyAudioError
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


def test_a_reader_keeps_what_it_reads_as_the_file_has_it_when_asked(tmp_path: Path) -> None:
    original = np.stack([sounds.noise(1.5, 32000, seed) for seed in range(2)], axis=1)
    sounds.write_wav(tmp_path / "a.wav", original, 32000)
    expected = sf.read(tmp_path / "a.wav", dtype="float32")[0][8000:]
    for keep in (True, False):
        with AudioReader(tmp_path / "a.wav", sample_rate=8000, start_s=0.25, keep_native=keep) as reader:
            samples = np.concatenate(list(reader.blocks()))
        assert samples.shape == (10000,)
        assert bool(reader.native) == keep
        if keep:
            np.testing.assert_array_equal(np.concatenate(reader.native), expected)


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
