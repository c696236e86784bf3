"""Where sounds begin: onsets of a track, each with the moment of its attack, and the beats behind them.

Conventions: times are seconds from the start of the track's sound. An onset is the attack's start, to 1 ms.
"""

from __future__ import annotations

import numpy as np

from embedindex.arrays import Float32Array, Float64Array, Int64Array
from embedindex.remix.frames import FINE_S, FLUX, FRAMES_PER_S, Track

# Peak picking after S. Böck, F. Krebs, M. Schedl, "Evaluating the online capabilities of onset detection methods"
# (ISMIR 2012): a frame is an onset when it is the largest nearby and stands out from the mean around it.
LARGEST_S = 0.03
MEAN_BEFORE_S, MEAN_AFTER_S = 0.1, 0.07
STANDS_OUT_DB = 1.5  # mean rise of the mel bands
STANDS_OUT_SHARE = 0.08  # … and this share of the strong onsets' rise
SHORTEST_GAP_S = 0.05

# The attack is looked for from this long before an onset's frame to this long after it.
BEFORE_S, AFTER_S = 0.045, 0.03
RISE_STEPS = 3  # envelope steps (ms) that a rise is measured over
BACKTRACK_STEPS = 20
STILL_RISING_DB = 2.0  # a step; noise wavers by less
RISE_DB = 4.0  # a smaller rise of level is a change of colour, not an attack

BEAT_CENTRE_BPM, BEAT_SPREAD_OCTAVES = 120.0, 0.9
BEAT_RANGE_BPM = (50.0, 220.0)
BEAT_TIGHTNESS = 100.0  # Ellis's alpha


def onsets_s(track: Track) -> Float64Array:
    """Return the times (n,) at which sounds begin, ascending, backtracked to where the attack starts."""
    flux = track.frames[:, FLUX].astype(np.float64)
    peaks = _peaks(flux)
    times = np.array([attack_near(track.fine_db, peak / FRAMES_PER_S) for peak in peaks])
    if not len(times):
        return times
    times = np.unique(times)
    gaps = np.diff(times, prepend=-1.0)
    return np.asarray(times[gaps >= SHORTEST_GAP_S / 2], np.float64)


def onset_rate(track: Track) -> float:
    """Return how many strong onsets the track has a second, those within 12 dB … of the strongest tenth."""
    flux = track.frames[:, FLUX].astype(np.float64)
    peaks = _peaks(flux)
    if not len(peaks) or not track.samples:
        return 0.0
    strong = flux[peaks] >= max(4.0, 0.25 * float(np.quantile(flux[peaks], 0.9)))
    return float(strong.sum()) / track.duration_s


def _peaks(flux: Float64Array) -> Int64Array:
    if len(flux) < 3:
        return np.zeros(0, np.int64)
    near = round(LARGEST_S * FRAMES_PER_S)
    padded = np.pad(flux, near)
    largest = np.lib.stride_tricks.sliding_window_view(padded, 2 * near + 1).max(axis=1)
    before, after = round(MEAN_BEFORE_S * FRAMES_PER_S), round(MEAN_AFTER_S * FRAMES_PER_S)
    around = np.convolve(np.pad(flux, (before, after), mode="edge"), np.ones(before + after + 1), "valid")
    mean = around / (before + after + 1)
    strong = float(np.quantile(flux, 0.98))
    stands_out = max(STANDS_OUT_DB, STANDS_OUT_SHARE * strong)
    found = np.flatnonzero((flux >= largest) & (flux > mean + stands_out))
    kept: list[int] = []
    for peak in found:
        if not kept or peak - kept[-1] >= SHORTEST_GAP_S * FRAMES_PER_S:
            kept.append(int(peak))
        elif flux[peak] > flux[kept[-1]]:
            kept[-1] = int(peak)
    return np.array(kept, np.int64)


def attack_near(fine_db: Float32Array, time_s: float) -> float:
    """Return when the attack near an onset's frame starts: before its steepest rise, where the level is lowest."""
    first = max(0, round((time_s - BEFORE_S) / FINE_S))
    last = min(len(fine_db) - 1, round((time_s + AFTER_S) / FINE_S))
    if last - first <= RISE_STEPS:
        return max(0.0, time_s)
    level = np.maximum(fine_db[first : last + 1], -70.0)
    rise = level[RISE_STEPS:] - level[:-RISE_STEPS]
    # A louder rise counts for more: the flutter of a decay is steep, too, but ends low.
    steepest = int(np.argmax(rise * (level[RISE_STEPS:] + 71.0)))
    if rise[steepest] < RISE_DB:
        return max(0.0, time_s)
    half_way = (level[steepest] + level[steepest + RISE_STEPS]) / 2
    place = steepest
    while level[place + 1] < half_way:
        place += 1
    for _ in range(BACKTRACK_STEPS):
        if place == 0 or level[place - 1] >= level[place] - STILL_RISING_DB:
            break
        place -= 1
    return (first + place) * FINE_S


def beats_s(track: Track) -> Float64Array:
    """Return the times (n,) of the beats; none where there is no pulse.

    D. Ellis, "Beat tracking by dynamic programming" (Journal of New Music Research 36, 2007).
    """
    flux = track.frames[:, FLUX].astype(np.float64)
    if len(flux) < 4 * FRAMES_PER_S or flux.std() < 1e-6:
        return np.zeros(0)
    strength = flux / flux.std()
    period = _beat_period(strength)
    kernel = np.exp(-0.5 * (np.arange(-round(period), round(period) + 1) * 32.0 / period) ** 2)
    local = np.convolve(strength, kernel, "same")
    shortest, longest = round(period / 2), round(2 * period)
    lags = np.arange(longest, shortest - 1, -1)
    penalty = -BEAT_TIGHTNESS * np.log(lags / period) ** 2
    score = local.copy()
    back = np.full(len(local), -1)
    for place in range(longest, len(local)):
        options = score[place - longest : place - shortest + 1] + penalty
        best = int(np.argmax(options))
        if options[best] > 0:
            score[place] += options[best]
            back[place] = place - lags[best]
    place = len(score) - longest + int(np.argmax(score[-longest:]))
    beats = []
    while place >= 0:
        beats.append(place / FRAMES_PER_S)
        place = int(back[place])
    return np.array(beats[::-1])


def _beat_period(strength: Float64Array) -> float:
    """Return the likeliest beat period in frames: autocorrelation under a log-normal prior around 120 a minute."""
    centred = strength - strength.mean()
    points = 1 << (2 * len(centred)).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, points)) ** 2)[: len(centred)]
    shortest = int(60 * FRAMES_PER_S / BEAT_RANGE_BPM[1])
    longest = min(len(centred) // 2, int(60 * FRAMES_PER_S / BEAT_RANGE_BPM[0]))
    lags = np.arange(shortest, longest)
    octaves = np.log2(60 * FRAMES_PER_S / lags / BEAT_CENTRE_BPM)
    best = int(lags[np.argmax(correlation[lags] * np.exp(-0.5 * (octaves / BEAT_SPREAD_OCTAVES) ** 2))])
    left, mid, right = correlation[best - 1 : best + 2]
    bend = left - 2 * mid + right
    return best + (0.5 * (left - right) / bend if bend < 0 else 0.0)
