"""Are two sounds the same recording, whatever their level, encoding, start and tone control? Told from their waveforms.

One is laid over the other to a sixteenth of a sample; then each of a dozen bands of the spectrum is correlated by
itself, so that gain and mild equalisation cost nothing, while other partials, phases or noise cost all. Tones agree by
chance, noise does not: the fewer lines a sound's spectrum is made of, the more is asked for. docs/duplicates.md has the
measurements.

Conventions: samples are (n,) float32 mono at one rate; correlations are at the best lag, at most 1; the sign of the
waveform does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedindex.arrays import Float32Array, Float64Array, Int64Array
from embedindex.query import Part, part_blocks

SAMPLE_RATE = 8_000
# Sounds shorter than this are read at a higher rate: there must be samples enough to tell waveforms apart.
SHORT_S = 0.5
SHORT_SAMPLE_RATE = 16_000
LISTEN_S = 10.0
MAX_LAG_S = 1.0
# Upper edges of the bands, Hz: gain may differ from band to band, as a tone control makes it.
BAND_EDGES_HZ = (60, 130, 200, 300, 450, 650, 900, 1200, 1600, 2000, 2500, 3000, 3500, 4000, 5000, 6000, 8000)
# Bands this far below the strongest are left to the codecs, which leave nothing of them.
QUIET_BAND = 1e-4
# Pairs whose waveforms, differentiated, correlate less than this at every lag are not looked at any closer.
MIN_PEAK = 0.3
# Fewer samples than this are alike by chance.
MIN_SAMPLES = 16
# What the same recording has at the least, by the lines of its spectrum (up to so many, whole, detail): few lines agree
# by chance, and codecs keep them well.
LIMITS = ((4.0, 0.99, 0.945), (24.0, 0.98, 0.945), (float("inf"), 0.93, 0.9))
MIN_WHOLE = LIMITS[-1][1]
# The spread of the bands' gains that still is mild equalisation, and the energy that may lie outside of the overlap.
MAX_TILT_DB = 3.0
MAX_OUTSIDE = 0.1
ComplexArray = npt.NDArray[np.complexfloating[Any, Any]]  # of either precision
_SIXTEENTHS = np.arange(-48, 49) / 16.0
_LINES = 512


@dataclass(frozen=True)
class Correlation:
    """How two waveforms agree when one lies over the other.

    Attributes:
        whole: correlation of the bands, weighted by their energy.
        detail: the same, weighted by the root of their energy: weak bands count for more.
        tilt_db: standard deviation of the bands' gains.
        outside: share of the energy, of the one that has more there, that the other does not cover.
        lines: of how many lines, as narrow as the sound is long, its spectrum is made: one for a tone, thousands
            for noise.
    """

    whole: float
    detail: float
    tilt_db: float
    outside: float
    lines: float

    def same_recording(self, threshold: float = MIN_WHOLE) -> bool:
        """Return whether they are the same recording.

        Args:
            threshold: the least `whole` of noise that counts as that; what is asked of tones moves along.
        """
        whole, detail = next(least for lines, *least in LIMITS if self.lines <= lines)
        room = (1 - threshold) / (1 - MIN_WHOLE)
        return (
            self.whole >= 1 - room * (1 - whole)
            and self.detail >= detail
            and self.tilt_db <= MAX_TILT_DB
            and self.outside <= MAX_OUTSIDE
        )


NOTHING_ALIKE = Correlation(0.0, 0.0, 0.0, 1.0, 1.0)


def listening_rate(first_s: float, second_s: float) -> int:
    """Return the rate at which two sounds of these lengths are compared, Hz."""
    return SHORT_SAMPLE_RATE if min(first_s, second_s) < SHORT_S else SAMPLE_RATE


def first_seconds(path: bytes, sample_rate: int = SAMPLE_RATE) -> Float32Array:
    """Return (n,) the start of a file.

    Raises:
        AudioError: it cannot be decoded.
        QueryError: there is nothing in it.
    """
    return np.concatenate(list(part_blocks(path, sample_rate, Part(0.0, LISTEN_S))))


def correlate(first: Float32Array, second: Float32Array, sample_rate: int = SAMPLE_RATE) -> Correlation:
    """Return how two sounds agree at the lag, up to `MAX_LAG_S` either way, at which they do most."""
    lag, peak = _best_lag(first, second, round(MAX_LAG_S * sample_rate))
    if peak < MIN_PEAK:
        return NOTHING_ALIKE
    ours, theirs = first[max(0, -lag) :], second[max(0, lag) :]
    length = min(len(ours), len(theirs))
    whole_read = max(len(first), len(second)) < round(LISTEN_S * sample_rate)
    outside = max(_lost(first, ours[:length]), _lost(second, theirs[:length])) if whole_read else 0.0
    return _in_bands(ours[:length], theirs[:length], sample_rate, outside)


def _in_bands(ours: Float32Array, theirs: Float32Array, sample_rate: int, outside: float) -> Correlation:
    size = max(1024, 1 << (2 * len(ours) - 1).bit_length())
    own, other = np.fft.rfft(ours, size), np.fft.rfft(theirs, size)
    hertz = np.asarray(np.fft.rfftfreq(size, 1 / sample_rate), np.float64)
    band = np.digitize(hertz, BAND_EDGES_HZ).astype(np.int64)
    band[0] = len(BAND_EDGES_HZ)  # a constant is no sound; the last band is beyond the edges
    cross: ComplexArray = np.conj(own) * other
    cross = cross * _fraction(cross, hertz, band, sample_rate)
    powers = [_per_band(np.square(np.abs(one)), band) for one in (own, other)]
    weakest = [power > QUIET_BAND * power.max() for power in powers]
    heard = (weakest[0] | weakest[1]) & (powers[0] > 0) & (powers[1] > 0)
    if not heard.any():
        return NOTHING_ALIKE
    energy = [power[heard] for power in powers]
    agreed = _per_band(cross.real, band)[heard] / np.sqrt(energy[0] * energy[1])
    shares = (energy[0] / energy[0].sum() + energy[1] / energy[1].sum()) / 2
    roots = np.sqrt(np.maximum(energy[0] / energy[0].max(), energy[1] / energy[1].max()))
    gain_db = 10 * np.log10(energy[1] / energy[0])
    return Correlation(
        whole=float(shares @ agreed),
        detail=float(roots @ agreed / roots.sum()),
        tilt_db=float(np.sqrt(shares @ np.square(gain_db - shares @ gain_db))),
        outside=outside,
        lines=_lines(np.square(np.abs(own))) * len(ours) / size,
    )


def _per_band(values: npt.NDArray[np.floating[Any]], band: Int64Array) -> Float64Array:
    return np.asarray(np.bincount(band, values, len(BAND_EDGES_HZ) + 1)[:-1], np.float64)


def _best_lag(first: Float32Array, second: Float32Array, most: int) -> tuple[int, float]:
    """Return the lag by which `second` is later, and the correlation there, of the differences between samples."""
    rises = [np.diff(samples, prepend=np.float32(0)) for samples in (first, second)]
    energy = float(np.prod([np.square(rise, dtype=np.float64).sum() for rise in rises]))
    if energy <= 0 or min(len(first), len(second)) < MIN_SAMPLES:
        return 0, 0.0
    size = 1 << (len(first) + len(second)).bit_length()
    cross = np.conj(np.fft.rfft(rises[0], size)) * np.fft.rfft(rises[1], size)
    lags = np.abs(np.fft.irfft(cross, size))
    sooner, later = min(most, len(first) - 1), min(most, len(second) - 1)
    around = np.concatenate((lags[size - sooner :], lags[: later + 1]))
    place = int(around.argmax())
    return place - sooner, float(around[place]) / float(np.sqrt(energy))


def _fraction(cross: ComplexArray, hertz: Float64Array, band: Int64Array, sample_rate: int) -> ComplexArray:
    """Return the factors, of magnitude 1, that bring a cross spectrum to the best lag within three samples, and sign.

    Looked for in a few hundred lines of the spectrum, of which each is the sum of its neighbours: over three samples
    their phases part little.
    """
    power = _per_band(np.abs(cross), band)
    strong = np.flatnonzero(power > QUIET_BAND * power.max())
    level = np.zeros(len(BAND_EDGES_HZ) + 1)
    level[strong] = 1 / np.sqrt(power[strong])  # neither the strongest band alone decides, nor the weakest
    starts = np.unique(np.linspace(0, len(cross), min(_LINES, len(cross)), endpoint=False).astype(np.int64))
    lines = np.add.reduceat(cross * level[band], starts)
    middles = np.add.reduceat(hertz, starts) / np.diff(starts, append=len(cross))
    turns = np.exp(2j * np.pi * np.outer(_SIXTEENTHS, middles) / sample_rate)
    found = (turns @ lines).real
    place = int(np.abs(found).argmax())
    factors: ComplexArray = np.sign(found[place]) * np.exp(2j * np.pi * hertz * _SIXTEENTHS[place] / sample_rate)
    return factors


def _lines(powers: Float64Array) -> float:
    """Return how many values share a sum: 1 when one has all of it, all when they are equal."""
    total = float(powers.sum())
    return total**2 / float(np.square(powers).sum()) if total > 0 else 0.0


def _lost(whole: Float32Array, part: Float32Array) -> float:
    energy = float(np.square(whole, dtype=np.float64).sum())
    return 1 - float(np.square(part, dtype=np.float64).sum()) / energy if energy > 0 else 1.0
