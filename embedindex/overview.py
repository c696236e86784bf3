"""A sound at a glance: its waveform and spectrogram in a bounded number of columns, however long it is.

Conventions: columns run along time, (columns, …). Short sounds have one column for each frame, with librosa's numbers
(`embedindex.descriptors`); longer ones the mean power of equal runs of frames. Sounds are heard at their own rate, up
to 48,000 Hz; frames are about 90 ms long and start every 512 samples. Times are seconds from the beginning of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from embedindex import descriptors
from embedindex.arrays import Float32Array, Float64Array
from embedindex.audio import AudioReader
from embedindex.errors import EmptyAudioError, UsageError
from embedindex.mel import bin_frequencies, hz_to_mel

MAX_RATE = 48_000
HOP = 512
LONG_FRAMES_FROM = 32_000  # Hz from which frames are 4096 samples long, 2048 below
MEL_BANDS = 128
LOG_ROWS = 360
LOG_MIN_HZ = 30.0
MFCCS = 20
# A spectrogram has at least so many columns (unless the sound is too short) and at most twice as many.
SPECTRUM_COLUMNS = 1200
WAVE_COLUMNS = 2000


@dataclass(frozen=True, eq=False)
class Overview:
    """What a stretch of a file looks like.

    Attributes:
        start_s: where the stretch begins in its file.
        duration_s: how long it is.
        sample_rate: Hz at which it was heard.
        n_fft: samples of a frame.
        hop: samples between two frames.
        pooled: frames in a column of `power`.
        power: (columns, n_fft // 2 + 1) float32 mean power of the mono mix.
        wave_step_s: seconds in a column of the waveform.
        lowest: (columns, lanes) float32 smallest sample; a lane is a channel, or the mix of more than two.
        highest: (columns, lanes) float32 largest sample.
        rms: (columns, lanes) float32 root mean square.
        note: what is wrong with the file, or None.
    """

    start_s: float
    duration_s: float
    sample_rate: int
    n_fft: int
    hop: int
    pooled: int
    power: Float32Array
    wave_step_s: float
    lowest: Float32Array
    highest: Float32Array
    rms: Float32Array
    note: str | None

    @property
    def step_s(self) -> float:
        """Seconds from one column of the spectrogram to the next."""
        return self.pooled * self.hop / self.sample_rate

    @property
    def times_s(self) -> Float64Array:
        """The middle of each column of the spectrogram."""
        inside = (self.pooled - 1) / 2 * self.hop / self.sample_rate
        return np.asarray(self.start_s + inside + np.arange(len(self.power)) * self.step_s, np.float64)

    @property
    def wave_times_s(self) -> Float64Array:
        """The middle of each column of the waveform."""
        return np.asarray(self.start_s + (np.arange(len(self.rms)) + 0.5) * self.wave_step_s, np.float64)


def look_at(
    path: str | bytes,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    columns: int = SPECTRUM_COLUMNS,
    report: Callable[[float, float | None], None] = lambda _done, _total: None,
) -> Overview:
    """Read a stretch of a file once, in bounded memory.

    Args:
        path: the file.
        start_s: where to begin.
        end_s: where to end, None for the end of the file.
        columns: longer sounds have between so many and twice as many columns.
        report: called with seconds done, and in all where that is known.

    Raises:
        UsageError: the stretch ends before it begins, or begins behind the end of the file.
        AudioError: the file cannot be decoded.
    """
    if start_s < 0 or (end_s is not None and end_s <= start_s):
        raise UsageError(f"--start {start_s:g} --end {end_s or 0:g}: the end must lie behind the start")
    with AudioReader(path) as probe:
        facts = probe.facts
    rate = min(facts.sample_rate, MAX_RATE)
    n_fft = 4096 if rate >= LONG_FRAMES_FROM else 2048
    spectrum = _Spectrum(n_fft, HOP, columns)
    lowest, highest = _Pool(WAVE_COLUMNS, np.minimum), _Pool(WAVE_COLUMNS, np.maximum)
    squares = _Pool(WAVE_COLUMNS, np.add)
    samples = 0
    wanted = None if end_s is None else round((end_s - start_s) * rate)
    total_s = facts.duration_s if end_s is None else end_s
    with AudioReader(path, sample_rate=rate, mono=False, start_s=start_s) as reader:
        for block in reader.blocks():
            lanes = block if block.shape[1] <= 2 else block.mean(axis=1, keepdims=True, dtype=np.float32)
            lanes = lanes if wanted is None else lanes[: wanted - samples]
            if not len(lanes):
                break
            spectrum.add(lanes.mean(axis=1, dtype=np.float32))
            lowest.add(lanes)
            highest.add(lanes)
            squares.add(np.square(lanes))
            samples += len(lanes)
            report(samples / rate, None if total_s is None else total_s - start_s)
        note = reader.note
    if not samples:
        if start_s:
            raise UsageError(f"--start {start_s:g}: the sound ends before that; choose an earlier start")
        raise EmptyAudioError(path, "there is no sound in it")
    powers, pooled = spectrum.finish()
    return Overview(
        start_s=start_s,
        duration_s=samples / rate,
        sample_rate=rate,
        n_fft=n_fft,
        hop=HOP,
        pooled=pooled,
        power=powers,
        wave_step_s=squares.size / rate,
        lowest=lowest.columns()[0],
        highest=highest.columns()[0],
        rms=np.sqrt(np.maximum(_means(squares), 0.0)),
        note=note,
    )


def mel_db(view: Overview) -> Float32Array:
    """Return the mel spectrogram (columns, 128) in dB re full scale, not more than 80 dB below its maximum."""
    return descriptors.power_to_db(descriptors.mel_spectrogram(view.power, view.sample_rate, MEL_BANDS))


def linear_db(view: Overview) -> Float32Array:
    """Return the spectrogram (columns, bins) in dB, not more than 80 dB below its maximum."""
    return descriptors.power_to_db(view.power)


def log_frequencies(view: Overview) -> Float64Array:
    """Return the frequencies (rows,) in Hz of `log_db`: equal steps on a logarithmic scale."""
    return np.geomspace(LOG_MIN_HZ, view.sample_rate / 2, LOG_ROWS)


def log_db(view: Overview) -> Float32Array:
    """Return the level (columns, rows) at the frequencies of `log_frequencies`: that of the nearest bin, in dB."""
    bins = np.round(log_frequencies(view) * view.n_fft / view.sample_rate).astype(np.int64)
    return linear_db(view)[:, bins]


def mel_position(view: Overview, frequency_hz: Float64Array) -> Float64Array:
    """Return where frequencies lie among the rows of `mel_db`, in rows from 0 (the middle of the lowest band)."""
    top = float(hz_to_mel(np.array([view.sample_rate / 2]))[0])
    return hz_to_mel(frequency_hz) / (top / (MEL_BANDS + 1)) - 1.0


def chroma(view: Overview) -> Float32Array:
    """Return pitch-class energies (columns, 12) from C, 1 for the strongest of each column, at concert pitch."""
    return descriptors.chroma(view.power, view.sample_rate)


def mfcc(view: Overview) -> Float32Array:
    """Return mel-frequency cepstral coefficients (columns, 20)."""
    return descriptors.mfcc(mel_db(view), MFCCS)


def centroid_hz(view: Overview) -> Float32Array:
    """Return the spectral centroid (columns,) in Hz, 0 in silence."""
    return descriptors.centroid_hz(np.sqrt(view.power), view.sample_rate)


def rolloff_hz(view: Overview) -> Float32Array:
    """Return the frequency (columns,) in Hz below which 85 % of the magnitudes lie."""
    return descriptors.rolloff_hz(np.sqrt(view.power), view.sample_rate)


def onset_strength(view: Overview) -> Float32Array:
    """Return the mean rise in dB over mel bands (columns,) since the column before."""
    return descriptors.onset_strength(mel_db(view), view.n_fft, view.hop * view.pooled)


def frequencies_hz(view: Overview) -> Float64Array:
    """Return the frequency of each bin of `Overview.power`."""
    return bin_frequencies(view.sample_rate, view.n_fft)


class _Pool:
    """Rows that come one after another, kept as columns: equal runs put together by `combine`, twice as long when full.

    Args:
        most: columns are put together in pairs when there are twice as many.
        combine: ``np.add``, ``np.minimum`` or ``np.maximum``.

    Attributes:
        size: rows in a column.
    """

    def __init__(self, most: int, combine: np.ufunc) -> None:
        self.size = 1
        self._most = most
        self._combine = combine
        self._whole: list[Float32Array] = []
        self._count = 0
        self._rest: Float32Array | None = None

    def add(self, rows: Float32Array) -> None:
        """Take rows (n, …)."""
        while len(rows):
            room = (2 * self._most - self._count) * self.size - (0 if self._rest is None else len(self._rest))
            self._take(rows[:room])
            rows = rows[room:]
            if self._count == 2 * self._most:
                self._whole = [self._put_together(np.concatenate(self._whole), 2)]
                self._count, self.size = self._most, 2 * self.size

    def _take(self, rows: Float32Array) -> None:
        rest = rows if self._rest is None else np.concatenate((self._rest, rows))
        count = len(rest) // self.size
        if count:
            self._whole.append(self._put_together(rest[: count * self.size], self.size))
            self._count += count
        self._rest = rest[count * self.size :]

    def columns(self) -> tuple[Float32Array, int]:
        """Return the columns, and how many rows are in the last one."""
        parts, last = list(self._whole), self.size
        if self._rest is not None and len(self._rest):
            last = len(self._rest)
            parts.append(self._put_together(self._rest, last))
        return np.concatenate(parts), last

    def _put_together(self, rows: Float32Array, size: int) -> Float32Array:
        together: Float32Array = self._combine.reduceat(rows, np.arange(0, len(rows), size), axis=0)
        return together


def _means(pool: _Pool) -> Float32Array:
    """Return the means of a pool that adds."""
    sums, last = pool.columns()
    counts = np.full((len(sums), 1), pool.size, np.float32)
    counts[-1] = last
    return np.asarray(sums / counts, np.float32)


class _Spectrum:
    """Centred power spectra of a sound that comes in blocks, pooled."""

    def __init__(self, n_fft: int, hop: int, columns: int) -> None:
        self._n_fft, self._hop = n_fft, hop
        self._pool = _Pool(columns, np.add)
        self._kept = np.zeros(n_fft // 2, np.float32)

    def add(self, block: Float32Array) -> None:
        """Take consecutive samples."""
        self._kept = np.concatenate((self._kept, block))
        for magnitudes, done in self._frames():
            self._pool.add(np.square(magnitudes))
            self._kept = self._kept[done:]

    def _frames(self) -> Iterator[tuple[Float32Array, int]]:
        if len(self._kept) >= self._n_fft:
            magnitudes = descriptors.magnitude(self._kept, self._n_fft, self._hop, centred=False)
            yield magnitudes, len(magnitudes) * self._hop

    def finish(self) -> tuple[Float32Array, int]:
        """Return the columns (columns, bins), and how many frames are in one."""
        self.add(np.zeros(self._n_fft // 2, np.float32))
        return _means(self._pool), self._pool.size
