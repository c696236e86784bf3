"""Sound → a compact track of what an ear follows: timbre, level, brightness, noisiness, pitch, attacks. Pure numpy.

Conventions: mono float32 at `RATE`. Frame ``i`` is centred on sample ``i * HOP`` (11.6 ms apart); its row has the
columns `CEPSTRA` (without the level), `LEVEL`, `BRIGHTNESS`, `NOISINESS`, `PITCH`, `VOICING` and `FLUX`. Beside the
frames there is an envelope, the energy in dB of every `FINE` samples (1 ms), which tells attacks from one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.mel import bin_frequencies, dct_basis, hann, mel_bank
from embedindex.remix.loudness import k_weighting_power

RATE = 22050
N_FFT = 1024
HOP = 256
FINE = 22  # samples of the envelope's step: 1 ms
FRAMES_PER_S = RATE / HOP
FINE_S = FINE / RATE

CEPSTRA = slice(0, 13)
LEVEL, BRIGHTNESS, NOISINESS, PITCH, VOICING, FLUX = range(13, 19)
WIDTH = 19

MEL_BANDS = 40
MEL_MIN_HZ = 40.0
RANGE_DB = 60.0  # mel bands this far below the frame's loudest are level with it: a gain must not change timbre
FLOOR = 1e-10  # -100 dB
LOWEST_DB = -100.0
SHORTEST_LAG, LONGEST_LAG = 20, 400  # 1100 Hz down to 55 Hz
CHUNK_FRAMES = 512


@dataclass(frozen=True, eq=False)
class Track:
    """What `describe` heard.

    Attributes:
        frames: (n, `WIDTH`) float32.
        fine_db: (m,) float32 energy of each `FINE` samples in dB re full scale, at least `LOWEST_DB`.
        samples: length of the sound at `RATE`.
    """

    frames: Float32Array
    fine_db: Float32Array
    samples: int

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return self.samples / RATE


def describe_blocks(blocks: Iterable[Float32Array]) -> Track:
    """Return the track of a sound that comes as consecutive mono blocks at `RATE`; zeros lie beyond its ends."""
    kept = np.zeros(N_FFT // 2, np.float32)
    last_mel: Float32Array | None = None
    rows: list[Float32Array] = []
    fine: list[Float32Array] = []
    rest = np.zeros(0, np.float32)
    samples = 0
    for block in blocks:
        samples += len(block)
        kept = np.concatenate((kept, block))
        rest = np.concatenate((rest, block))
        whole = len(rest) - len(rest) % FINE
        fine.append(fine_envelope_db(rest[:whole]))
        rest = rest[whole:]
        count = max(0, 1 + (len(kept) - N_FFT) // HOP)
        if count:
            made, last_mel = _describe_frames(kept, count, last_mel)
            rows.append(made)
            kept = kept[count * HOP :]
    total = 1 + samples // HOP if samples else 0
    left = total - sum(map(len, rows))
    if left > 0:
        made, _ = _describe_frames(np.pad(kept, (0, N_FFT + left * HOP)), left, last_mel)
        rows.append(made)
    if len(rest):
        fine.append(fine_envelope_db(np.pad(rest, (0, FINE - len(rest)))))
    frames = np.concatenate(rows)[:total] if rows else np.zeros((0, WIDTH), np.float32)
    return Track(frames, np.concatenate(fine) if fine else np.zeros(0, np.float32), samples)


def describe(samples: Float32Array) -> Track:
    """Return the track of a whole sound (n,) float32 at `RATE`."""
    return describe_blocks([samples])


def fine_envelope_db(samples: Float32Array) -> Float32Array:
    """Return the energy of each `FINE` samples in dB; `samples` is a whole number of them long."""
    energy = np.square(samples.reshape(-1, FINE)).mean(axis=1)
    level: Float32Array = 10 * np.log10(np.maximum(energy, np.float32(FLOOR)))
    return level


def _describe_frames(
    samples: Float32Array, count: int, before: Float32Array | None
) -> tuple[Float32Array, Float32Array | None]:
    """Return rows (count, WIDTH) of frames that start every HOP of `samples`, and the last frame's mel bands."""
    parts = []
    view = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP][:count]
    for start in range(0, count, CHUNK_FRAMES):
        made, before = _describe_chunk(view[start : start + CHUNK_FRAMES], before)
        parts.append(made)
    return np.concatenate(parts), before


def _describe_chunk(frames: Float32Array, before: Float32Array | None) -> tuple[Float32Array, Float32Array]:
    spectrum = np.fft.rfft(frames * hann(N_FFT)).astype(np.complex64)
    power: Float32Array = (spectrum.real**2 + spectrum.imag**2) * _power_scale()
    rows = np.zeros((len(frames), WIDTH), np.float32)
    mel_db = 10 * np.log10(np.maximum(power @ _mel(), np.float32(FLOOR)))
    limited = np.maximum(mel_db, mel_db.max(axis=1, keepdims=True) - np.float32(RANGE_DB))
    rows[:, CEPSTRA] = (limited @ dct_basis(MEL_BANDS, 14))[:, 1:] / np.float32(np.sqrt(MEL_BANDS))
    weighted = power @ _k_weights()
    rows[:, LEVEL] = np.maximum(10 * np.log10(np.maximum(weighted, np.float32(FLOOR))), LOWEST_DB)
    magnitude = np.sqrt(power) + np.float32(1e-9)
    frequencies = bin_frequencies(RATE, N_FFT).astype(np.float32)
    rows[:, BRIGHTNESS] = np.log2(np.maximum((magnitude @ frequencies) / magnitude.sum(axis=1), 50.0) / 1000.0)
    floored = power[:, 2:] + np.float32(1e-12)
    rows[:, NOISINESS] = 10 * np.log10(np.exp(np.log(floored).mean(axis=1)) / floored.mean(axis=1))
    rows[:, PITCH], rows[:, VOICING] = _pitch(power)
    previous = np.concatenate(((mel_db[:1] if before is None else before[None]), mel_db[:-1]))
    # From 30 dB below full scale down, rises count less and less: the onset of a noise floor is no onset.
    weight = np.clip((np.maximum(mel_db, previous) + 90) / 40, 0, 1)
    rows[:, FLUX] = (np.maximum(mel_db - previous, 0) * weight).mean(axis=1)
    return rows, mel_db[-1]


def _pitch(power: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return pitch in semitones (MIDI numbers) and how sure it is (0 to 1), by autocorrelation.

    P. Boersma, "Accurate short-term analysis of the fundamental frequency…" (IFA Proceedings 17, 1993): the frame's
    autocorrelation over that of its window; the shortest lag that comes near the best one avoids octave errors.
    """
    own = np.fft.irfft(power, axis=1)[:, : LONGEST_LAG + 2]
    correlation = own / (np.maximum(own[:, :1], FLOOR) * _window_correlation())
    inner = correlation[:, SHORTEST_LAG : LONGEST_LAG + 1]
    peak = (inner >= correlation[:, SHORTEST_LAG - 1 : LONGEST_LAG]) & (
        inner >= correlation[:, SHORTEST_LAG + 1 : LONGEST_LAG + 2]
    )
    heights = np.where(peak, inner, -1.0)
    best = heights.max(axis=1)
    lag = SHORTEST_LAG + np.argmax(heights >= 0.9 * best[:, None], axis=1)
    pitch = 69.0 + 12.0 * np.log2(RATE / lag / 440.0)
    sure = np.clip((best - 0.4) / 0.5, 0.0, 1.0) * (own[:, 0] > FLOOR)
    return pitch.astype(np.float32), sure.astype(np.float32)


@lru_cache(maxsize=1)
def _window_correlation() -> Float32Array:
    own = np.fft.irfft(np.abs(np.fft.rfft(hann(N_FFT))) ** 2)[: LONGEST_LAG + 2]
    return np.asarray(own / own[0], np.float32)


@lru_cache(maxsize=1)
def _power_scale() -> np.float32:
    """What makes the power of a frame's bins add up to twice the mean square of its samples."""
    return np.float32(2.0 / (N_FFT * float(np.square(hann(N_FFT)).sum())))


@lru_cache(maxsize=1)
def _mel() -> Float32Array:
    bank = mel_bank(RATE, N_FFT, MEL_BANDS, MEL_MIN_HZ, RATE / 2.0)
    return np.asarray(bank / bank.max(axis=0), np.float32)


@lru_cache(maxsize=1)
def _k_weights() -> Float32Array:
    return k_weighting_power(RATE, N_FFT).astype(np.float32)
