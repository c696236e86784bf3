"""Sounds for the tests: made from numbers, written by real encoders. Shared by all test files.

Conventions: samples are float32 in [-1, 1], (n,) or (n, channels); lengths in seconds unless a name says otherwise;
random sounds take a seed. `encode` picks the container by suffix, libsndfile where it can write it, FFmpeg elsewhere.
"""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import soundfile as sf

from embedindex.arrays import Float32Array

RATE = 44100

# Suffix → (FFmpeg muxer, codec) for what libsndfile does not write.
FFMPEG_ENCODERS = {
    ".m4a": ("ipod", "aac"),
    ".mp4": ("mp4", "aac"),
    ".mov": ("mov", "pcm_s16le"),
    ".aac": ("adts", "aac"),
    ".wma": ("asf", "wmav2"),
    ".wv": ("wv", "wavpack"),
    ".tta": ("tta", "tta"),
    ".ac3": ("ac3", "ac3"),
    ".mp2": ("mp2", "mp2"),
    ".mka": ("matroska", "flac"),
    ".mkv": ("matroska", "aac"),
    ".webm": ("webm", "libopus"),
    ".avi": ("avi", "pcm_s16le"),
}


def sine(frequency_hz: float, duration_s: float, sample_rate: int = RATE, level: float = 0.5) -> Float32Array:
    """Return a steady tone of peak `level`."""
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    return (level * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def noise(duration_s: float, sample_rate: int = RATE, seed: int = 0, level: float = 0.5) -> Float32Array:
    """Return white noise, uniform in ±`level`."""
    samples = np.random.default_rng(seed).uniform(-level, level, round(duration_s * sample_rate))
    return samples.astype(np.float32)


def chirp(
    start_hz: float, end_hz: float, duration_s: float, sample_rate: int = RATE, level: float = 0.5
) -> Float32Array:
    """Return a tone whose frequency moves linearly from `start_hz` to `end_hz`."""
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    phase = 2 * np.pi * (start_hz * time_s + (end_hz - start_hz) / (2 * duration_s) * time_s**2)
    return (level * np.sin(phase)).astype(np.float32)


def click_train(times_s: list[float], duration_s: float, sample_rate: int = RATE, level: float = 0.9) -> Float32Array:
    """Return silence with a 2 ms decaying click at each time."""
    samples = np.zeros(round(duration_s * sample_rate), np.float32)
    click = level * np.exp(-np.arange(round(0.002 * sample_rate)) / (0.0005 * sample_rate))
    for time_s in times_s:
        start = round(time_s * sample_rate)
        end = min(start + len(click), len(samples))
        samples[start:end] += click[: end - start].astype(np.float32)
    return samples


def drum_hit(
    kind: Literal["kick", "snare", "hat"], seed: int = 0, duration_s: float = 0.4, sample_rate: int = RATE
) -> Float32Array:
    """Return one drum-like sound; each seed is another drum of the same kind."""
    rng = np.random.default_rng([seed, ord(kind[0])])
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    hiss = rng.standard_normal(len(time_s))
    if kind == "kick":
        frequency_hz = rng.uniform(45, 60) * (1 + 2 * np.exp(-time_s * rng.uniform(25, 40)))
        samples = np.sin(2 * np.pi * np.cumsum(frequency_hz) / sample_rate) * np.exp(-time_s * rng.uniform(8, 14))
    elif kind == "snare":
        body = np.sin(2 * np.pi * rng.uniform(170, 220) * time_s) * np.exp(-time_s * 25)
        samples = 0.5 * body + 0.5 * hiss * np.exp(-time_s * rng.uniform(14, 22))
    else:
        samples = np.diff(hiss, n=2, prepend=[0.0, 0.0]) * np.exp(-time_s * rng.uniform(40, 80))
    scaled: Float32Array = (0.8 * samples / np.abs(samples).max()).astype(np.float32)
    return scaled


def pad(frequencies_hz: list[float], duration_s: float, sample_rate: int = RATE, level: float = 0.5) -> Float32Array:
    """Return a chord of tones with three harmonics each and slow fades."""
    samples = np.zeros(round(duration_s * sample_rate))
    for frequency_hz in frequencies_hz:
        for harmonic in (1, 2, 3):
            samples += sine(harmonic * frequency_hz, duration_s, sample_rate, 1 / harmonic)
    fade = np.minimum(1, np.linspace(0, 10, len(samples)))
    samples *= fade * fade[::-1]
    scaled: Float32Array = (level * samples / np.abs(samples).max()).astype(np.float32)
    return scaled


def write_wav(
    path: str | bytes | os.PathLike[str], samples: Float32Array, sample_rate: int = RATE, subtype: str = "FLOAT"
) -> None:
    """Write a WAV file, the same sound always as the same bytes; any path will do, also one that is not UTF-8."""
    with open(path, "w+b") as file:
        sf.write(file, samples, sample_rate, subtype=subtype, format="WAV")
        file.seek(0)
        peak = file.read(128).find(b"PEAK")  # a chunk of floating-point files that holds the time of day in seconds
        if peak >= 0:
            file.seek(peak + 12)
            file.write(bytes(4))


def encode(
    path: str | os.PathLike[str],
    samples: Float32Array,
    sample_rate: int = RATE,
    *,
    codec: str | None = None,
    bit_rate: int | None = None,
    title: str | None = None,
) -> None:
    """Write `samples` in the container that the suffix of `path` names.

    Args:
        path: where to; ``.opus`` becomes Opus in Ogg.
        samples: (n,) or (n, channels) float32, 1 or 2 channels for FFmpeg's encoders.
        sample_rate: Hz; Opus takes 48000.
        codec: libsndfile subtype (``"PCM_24"``) or FFmpeg encoder (``"alac"``) instead of the usual one.
        bit_rate: bits a second, FFmpeg only; 128,000 if None.
        title: kept in the file's tags, FFmpeg only.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix in FFMPEG_ENCODERS:
        muxer, usual = FFMPEG_ENCODERS[suffix]
        _encode_with_ffmpeg(os.fspath(path), samples, sample_rate, muxer, codec or usual, bit_rate, title)
    elif suffix == ".opus":
        sf.write(path, samples, sample_rate, format="OGG", subtype=codec or "OPUS")
    else:
        sf.write(path, samples, sample_rate, subtype=codec)


def _encode_with_ffmpeg(
    path: str, samples: Float32Array, sample_rate: int, muxer: str, codec: str, bit_rate: int | None, title: str | None
) -> None:
    import av

    planar = np.ascontiguousarray(np.atleast_2d(samples.T), np.float32)
    layout = "mono" if len(planar) == 1 else "stereo"
    with av.open(path, "w", format=muxer) as container:
        if title:
            container.metadata["title"] = title
        stream: Any = container.add_stream(codec, rate=sample_rate, layout=layout)
        stream.bit_rate = bit_rate or 128_000
        if codec in {"wavpack", "tta"}:  # they would take 8 bits
            stream.format = "s16p" if stream.format.is_planar else "s16"
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        frame.pts, frame.time_base = 0, Fraction(1, sample_rate)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=sample_rate)
        fifo = av.AudioFifo()
        for piece in resampler.resample(frame):
            fifo.write(piece)
        size = stream.codec_context.frame_size or 4096
        while True:
            chunk = fifo.read(size, partial=True)
            if chunk is None:
                break
            container.mux(stream.encode(chunk))
        container.mux(stream.encode(None))
