"""Oscillators, envelopes, filters and effects that the instruments are built from.

Every linear filter is its transfer function evaluated on the grid of a zero-padded FFT: no loop over samples, no
tuning error, and stable by construction. Signals are `(n,)` or `(n, 2)`; `rate` is in hertz.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Signal: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]
Spectrum: TypeAlias = npt.NDArray[Any]  # complex
Response: TypeAlias = Callable[[Signal], Spectrum]
Rng: TypeAlias = np.random.Generator

TAU = 2.0 * np.pi
FRAME_SAMPLES = 1024  # of moving filters: 23 ms at 44.1 kHz, short enough to follow speech
HOP_SAMPLES = FRAME_SAMPLES // 2  # Hann windows half a frame apart add up to 1


def amplitude(level_db: float) -> float:
    """Turn decibels into a factor."""
    return float(10.0 ** (level_db / 20.0))


def hertz(note: float) -> float:
    """Turn a MIDI note number (69 = A4 = 440 Hz) into hertz."""
    return float(440.0 * 2.0 ** ((note - 69.0) / 12.0))


def times(duration_s: float, rate: int) -> Signal:
    """Return the time of every sample, in seconds, `(n,)`."""
    seconds: Signal = np.arange(max(2, round(duration_s * rate))) / rate
    return seconds


def cycles(frequency_hz: float | Signal, t: Signal) -> Signal:
    """Return the running phase, in cycles, of an oscillator whose frequency may change from sample to sample."""
    step = np.broadcast_to(np.asarray(frequency_hz) * (t[1] - t[0]), t.shape)
    phase: Signal = np.cumsum(step) - step[0]
    return phase


def sine(phase: Signal) -> Signal:
    """Return a sine at a phase in cycles."""
    return np.sin(TAU * phase)


def saw(phase: Signal) -> Signal:
    """Return a rising saw with its step rounded by a polynomial (PolyBLEP: Välimäki and Huovilainen, 2007)."""
    step = np.maximum(np.diff(phase, prepend=2 * phase[0] - phase[1]), 1e-9)
    ramp = phase % 1.0
    after = np.minimum(ramp / step, 1.0)
    before = np.minimum((1.0 - ramp) / step, 1.0)
    return 2.0 * ramp - 1.0 + (1.0 - after) ** 2 - (1.0 - before) ** 2


def pulse(phase: Signal, width: float | Signal = 0.5) -> Signal:
    """Return a pulse wave without its mean: the difference of two saws; `width` is the part of a cycle spent high."""
    return saw(phase) - saw(phase + width)


def noise(rng: Rng, t: Signal, slope_db_per_octave: float = 0.0) -> Signal:
    """Return noise of unit RMS: 0 dB an octave is white, -3 pink, -6 brown (flat below 20 Hz)."""
    white = rng.standard_normal(t.size)
    if slope_db_per_octave == 0.0:
        return white
    rate = 1.0 / (t[1] - t[0])
    exponent = slope_db_per_octave / (20.0 * np.log10(2.0))
    shaped = filtered(white, round(rate), lambda f: (np.maximum(f, 20.0) / 1000.0) ** exponent + 0j)
    out: Signal = shaped / np.sqrt(np.mean(shaped**2))
    return out


def drift(rng: Rng, t: Signal, speed_hz: float) -> Signal:
    """Return a smooth random curve between about -1 and 1 that changes direction `speed_hz` times a second."""
    points = 24  # of the cosine from knot to knot: lines between so many are smooth enough, and far quicker
    values = rng.uniform(-1.0, 1.0, int(t[-1] * speed_hz) + 4)
    bend = 0.5 - 0.5 * np.cos(np.pi * np.arange(points) / points)
    curve = (values[:-1, None] * (1.0 - bend) + values[1:, None] * bend).ravel()
    return np.interp(t * (speed_hz * points), np.arange(curve.size), curve)


def fall(t: Signal, decay_s: float) -> Signal:
    """Return an exponential that has fallen by 60 dB after `decay_s`."""
    level: Signal = np.exp(-6.9078 * t / decay_s)
    return level


def swell(t: Signal, attack_s: float, release_s: float) -> Signal:
    """Return an envelope that rises and falls like half a cosine at its two ends and is 1 between."""
    rise = np.clip(t / max(attack_s, 1e-6), 0.0, 1.0)
    tail = np.clip((t[-1] - t) / max(release_s, 1e-6), 0.0, 1.0)
    level: Signal = (0.5 - 0.5 * np.cos(np.pi * rise)) * (0.5 - 0.5 * np.cos(np.pi * tail))
    return level


def lowpass(cutoff_hz: float | Signal, q: float | Signal = 0.7071) -> Response:
    """Return the response of a two-pole low-pass; an array of cut-offs `(frames, 1)` gives a row for each."""
    return lambda f: 1.0 / (1.0 + 1j * f / (cutoff_hz * q) - (f / cutoff_hz) ** 2)


def highpass(cutoff_hz: float | Signal, q: float = 0.7071) -> Response:
    """Return the response of a two-pole high-pass."""
    return lambda f: -((f / cutoff_hz) ** 2) / (1.0 + 1j * f / (cutoff_hz * q) - (f / cutoff_hz) ** 2)


def bandpass(centre_hz: float | Signal, q: float = 1.0) -> Response:
    """Return the response of a two-pole band-pass with 0 dB at its centre."""
    return lambda f: 1j * f / (centre_hz * q) / (1.0 + 1j * f / (centre_hz * q) - (f / centre_hz) ** 2)


def string(frequency_hz: float, decay_s: float, softness: float) -> Response:
    """Return the response of a plucked string's loop (Karplus and Strong, 1983) with an exact, fractional length.

    `decay_s` is the fundamental's time to -60 dB; `softness` (0..1) is how much sooner the high partials die.
    """
    per_cycle = 10.0 ** (-3.0 / (decay_s * frequency_hz))
    loop_s = 1.0 / frequency_hz

    def response(f: Signal) -> Spectrum:
        f = f.astype(np.float64)  # a long loop turns the phase by thousands of radians
        # a symmetric averager has no phase, so it does not detune the string; the same at every sample rate
        damping = 1.0 - softness * (0.5 - 0.5 * np.cos(np.pi * np.minimum(f / 22050.0, 1.0)))
        loop: Spectrum = 1.0 / (1.0 - per_cycle * damping * np.exp(-1j * TAU * f * loop_s))
        return loop

    return response


def fast_size(n: int) -> int:
    """Return a length of at least `n` whose FFT is quick."""
    power = 1 << max(3, int(n - 1).bit_length() - 1)
    return next(power * k // 8 for k in (8, 9, 10, 12, 15, 16) if power * k // 8 >= n)


def frequencies(size: int, rate: int) -> Signal:
    """Return the frequency of every bin of an FFT, in hertz, in single precision: filters need no more."""
    f: Signal = np.fft.rfftfreq(size, 1.0 / rate).astype(np.float32)
    return f


def filtered(x: Signal, rate: int, *responses: Response, tail_s: float = 0.25) -> Signal:
    """Pass a signal through filters, one after the other; `tail_s` is how long they may ring past its end unheard."""
    size = fast_size(x.shape[0] + round(tail_s * rate))
    f = frequencies(size, rate)
    spectrum = np.fft.rfft(x.T.astype(np.float32), size)
    for response in responses:
        spectrum *= response(f).astype(spectrum.dtype)
    return np.fft.irfft(spectrum, size)[..., : x.shape[0]].T.astype(np.float64)


def moving(x: Signal, rate: int, response: Callable[[Signal, Indices], Spectrum]) -> Signal:
    """Pass a mono signal through a filter that changes: overlapping Hann frames, each with its own response.

    `response` gets frequencies `(bins,)` and the samples at the frames' centres `(frames,)`; returns `(frames, bins)`.
    """
    frames = x.size // HOP_SAMPLES + 5
    padded = np.pad(x, (FRAME_SAMPLES, frames * HOP_SAMPLES + FRAME_SAMPLES - x.size))
    starts = np.arange(frames) * HOP_SAMPLES
    window = 0.5 - 0.5 * np.cos(TAU * np.arange(FRAME_SAMPLES) / FRAME_SAMPLES)
    cut = np.lib.stride_tricks.sliding_window_view(padded, FRAME_SAMPLES)[starts] * window
    centres = np.clip(starts - FRAME_SAMPLES // 2, 0, x.size - 1)
    size = 2 * FRAME_SAMPLES
    spectra = np.fft.rfft(cut.astype(np.float32), size)
    shaped = np.fft.irfft(spectra * response(frequencies(size, rate), centres).astype(np.complex64), size)
    parts = size // HOP_SAMPLES
    out = np.zeros((frames + parts, HOP_SAMPLES))
    for part in range(parts):
        out[part : part + frames] += shaped[:, part * HOP_SAMPLES : (part + 1) * HOP_SAMPLES]
    return out.ravel()[FRAME_SAMPLES : FRAME_SAMPLES + x.size]


def convolve(x: Signal, kernel: Signal) -> Signal:
    """Convolve along time, channel by channel, at full length."""
    n = x.shape[0] + kernel.shape[0] - 1
    size = fast_size(n)
    spectrum = np.fft.rfft(x.T.astype(np.float32), size) * np.fft.rfft(kernel.T.astype(np.float32), size)
    return np.fft.irfft(spectrum, size)[:, :n].T.astype(np.float64)


def stereo(x: Signal, position: float = 0.0) -> Signal:
    """Place a mono signal between left (-1) and right (1) at constant power; a stereo one is returned as it is."""
    if x.ndim == 2:
        return x
    angle = (position + 1.0) * np.pi / 4.0
    return np.stack([x * np.cos(angle), x * np.sin(angle)], axis=1)


def room(rng: Rng, rate: int, decay_s: float, brightness_hz: float = 6000.0, predelay_s: float = 0.012) -> Signal:
    """Return a room's stereo impulse response `(n, 2)`: decaying noise whose treble dies first, of unit energy."""
    t = times(decay_s * 1.1, rate)
    white = np.stack([noise(rng, t), noise(rng, t)], axis=1)
    split = lowpass(brightness_hz / 3)
    body = filtered(white, rate, highpass(140.0), split) * fall(t, decay_s)[:, None]
    body += (
        filtered(white, rate, lambda f: (1.0 - split(f)) * lowpass(brightness_hz)(f)) * fall(t, decay_s * 0.45)[:, None]
    )
    body *= np.minimum(t / 0.004, 1.0)[:, None]
    body /= np.sqrt(np.sum(body**2, axis=0))
    return np.pad(body, ((round(predelay_s * rate), 0), (0, 0)))


def reverb(x: Signal, rate: int, rng: Rng, decay_s: float, wet: float, brightness_hz: float = 6000.0) -> Signal:
    """Put a signal into a room and let the room ring out; returns stereo, longer than `x` by the decay."""
    dry = stereo(x)
    out = convolve(dry, room(rng, rate, decay_s, brightness_hz)) * wet
    out[: dry.shape[0]] += dry
    return out


def echoes(x: Signal, rate: int, interval_s: float, feedback: float, wet: float, repeats: int = 8) -> Signal:
    """Add a ping-pong delay that grows darker with each repeat; returns stereo, as long as `x`."""
    dry = stereo(x)
    out = dry.copy()
    repeat = filtered(dry, rate, highpass(180.0))
    for number in range(1, repeats + 1):
        repeat = filtered(repeat, rate, lowpass(4500.0))[:, ::-1]
        shift = round(number * interval_s * rate)
        if shift >= out.shape[0]:
            break
        gains = np.array([1.0, 0.6]) if number % 2 else np.array([0.6, 1.0])
        out[shift:] += repeat[:-shift] * gains * wet * feedback ** (number - 1)
    return out


def drive(x: Signal, amount: float) -> Signal:
    """Soften peaks with a tanh; small amounts thicken, 3 and more distort. The output stays within ±1."""
    soft: Signal = np.tanh(amount * x) / np.tanh(max(amount, 1e-9))
    return soft


def unit(x: Signal) -> Signal:
    """Scale to a peak of 1 (silence stays silent)."""
    peak = float(np.max(np.abs(x)))
    return x / peak if peak > 0.0 else x


def ducked(t: Signal, hits_s: Signal, depth: float, recovery_s: float) -> Signal:
    """Return the gain of a side-chain: it dips by `depth` (0..1) at each hit and recovers smoothly."""
    hits = np.sort(hits_s)
    if hits.size == 0:
        return np.ones_like(t)
    last = np.searchsorted(hits, t, side="right") - 1
    since = np.where(last >= 0, t - hits[np.maximum(last, 0)], np.inf)
    until = np.where(last + 1 < hits.size, hits[np.minimum(last + 1, hits.size - 1)] - t, np.inf)
    dip = 0.5 + 0.5 * np.cos(np.pi * np.minimum(since / recovery_s, 1.0))
    return 1.0 - depth * np.maximum(dip, 1.0 - np.minimum(until / 0.006, 1.0))


def place(canvas: Signal, rate: int, sound: Signal, at_s: float, gain: float | Signal = 1.0) -> None:
    """Add a stereo sound to a canvas `(n, 2)`, which is changed in place; what sticks out of the canvas is cut off."""
    start = round(at_s * rate)
    room_left = canvas.shape[0] - start
    if room_left > 0:
        canvas[start : start + sound.shape[0]] += sound[:room_left] * gain


def faded(x: Signal, rate: int, attack_s: float, release_s: float) -> Signal:
    """Fade both ends linearly to exact zeros."""
    attack, release = (min(max(2, round(s * rate)), x.shape[0] // 2) for s in (attack_s, release_s))
    out = x.T.copy()
    out[..., :attack] *= np.linspace(0.0, 1.0, attack)
    out[..., -release:] *= np.linspace(1.0, 0.0, release)
    return out.T


def finished(x: Signal, rate: int, peak_db: float = -1.0, fade_s: float = 0.004) -> Signal:
    """Master a sound: remove what lies below 20 Hz, fade both ends to zero and set the peak."""
    return unit(faded(filtered(x, rate, highpass(20.0)), rate, 0.0005, fade_s)) * amplitude(peak_db)
