"""The built-in model: statistics of the classic descriptors over a second of sound. No weights; it is always there.

Conventions: a window is 1 s at 22,050 Hz, cut into frames of 93 ms every 23 ms that lie wholly inside it. Apart from
two dimensions of loudness, a vector does not depend on gain. Statistics are taken over the active frames, those within
`ACTIVE_DB` of the loudest, so that what fills up a short sound is not described. Values are in dB, octaves or shares,
so that standardising them makes sense. docs/spectral.md says what they mean to a musician,
docs/decisions/spectral-model.md what was measured. Whoever changes a number that comes out must raise `VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex import descriptors
from embedindex.arrays import Float32Array, Int64Array
from embedindex.errors import UsageError
from embedindex.mel import hz_to_mel, mel_to_hz
from embedindex.models.base import ModelIdentity, ModelRequest

VERSION = 1
SAMPLE_RATE = 22050
WINDOW_SAMPLES = 22050
DEFAULT_HOP_S = 0.5

MEL_BANDS = 40
MEL_MIN_HZ = 30.0
MEL_MAX_HZ = 9900.0  # below the edge of any resampling filter, and far below the 16 kHz where MP3 encoders stop
MFCCS = 20  # the first, which is loudness, is left out
ACTIVE_DB = 50.0
RANGE_DB = 60.0  # what lies this far below the window's loudest mel band and frame is level with it
# The spectrum ends this far below the window's loudest bin: deeper down lie only rounding errors of float32, which what
# measures valleys (contrast, flatness) would describe.
FLOOR_DB = 110.0
ENVELOPE_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
ONSET_DB = 2.0  # a frame is an onset when its mel bands rise this much more than the window's frames do on average
# Keeps the arrays of one step near the caches, and off the sizes that the system takes back and clears every time.
CHUNK_WINDOWS = 8

SHAPES = ("centroid", "bandwidth", "rolloff", "zero_crossings", "flatness")
SHAPE_FLOOR_HZ = 50.0  # frequencies are told apart on a logarithmic scale only above this
CONTRAST_BANDS = 7
CONTRAST_MIN_HZ = 200.0  # the first band ends here, each further one an octave higher

GROUPS: tuple[tuple[str, int], ...] = (
    ("mel_mean", MEL_BANDS),
    ("mel_energy", MEL_BANDS),
    ("mfcc_mean", MFCCS - 1),
    ("mfcc_std", MFCCS - 1),
    ("chroma_mean", 12),
    ("chroma_energy", 12),
    ("shape_mean", len(SHAPES)),
    ("shape_std", len(SHAPES)),
    ("shape_energy", len(SHAPES)),
    ("shape_delta", len(SHAPES)),
    ("contrast_mean", CONTRAST_BANDS),
    ("contrast_std", CONTRAST_BANDS),
    ("contrast_energy", CONTRAST_BANDS),
    ("contrast_delta", CONTRAST_BANDS),
    ("loudness", 2),
    ("dynamics", 6),
    ("envelope", len(ENVELOPE_QUANTILES)),
    ("onsets", 4),
)
DIMENSION = sum(size for _, size in GROUPS)
# Groups that are a spectrum in dB less its own mean.
FORMS = ("mel_mean", "mel_energy")
# Groups of a number for each band: what they say of one does not depend on what is in the others.
BANDED = (*FORMS, "contrast_mean", "contrast_std", "contrast_energy", "contrast_delta")
# Groups that tell how a sound goes on in time, which its highs change little.
COURSE = ("dynamics", "envelope", "onsets")

TINY = np.float32(1e-12)


@dataclass(frozen=True)
class _Weights:
    """How much each frame of n windows counts: (n, frames), and (n, frames - 1) for steps between neighbours.

    Attributes:
        active: 1 for a frame within `ACTIVE_DB` of the loudest, else 0; never all 0.
        mean: `active` scaled to sum 1.
        energy: the energy of active frames scaled to sum 1.
        step: both neighbours active, scaled to sum 1, or all 0 where there are no two such neighbours.
    """

    active: Float32Array
    mean: Float32Array
    energy: Float32Array
    step: Float32Array


class SpectralModel:
    """Statistics of log-mel, cepstral, chroma, spectral-shape, contrast, loudness and onset descriptors."""

    @property
    def identity(self) -> ModelIdentity:
        """Which vectors these are."""
        return ModelIdentity(
            name="spectral",
            sample_rate=SAMPLE_RATE,
            window_samples=WINDOW_SAMPLES,
            dimension=DIMENSION,
            level="peak",
            filling="zero",
            standardise=True,
            parameters={"version": VERSION},
        )

    @property
    def default_hop_s(self) -> float:
        """Seconds between the starts of two windows that an index uses unless told otherwise."""
        return DEFAULT_HOP_S

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, 207) float32 descriptors of `windows` (n, 22050) float32; a window of zeros gives zeros.

        Raises:
            ValueError: `windows` has another shape.
        """
        if windows.ndim != 2 or windows.shape[1] != WINDOW_SAMPLES:
            raise ValueError(f"windows of shape {windows.shape} are not (n, {WINDOW_SAMPLES})")
        vectors = np.zeros((len(windows), DIMENSION), np.float32)
        peaks = np.maximum(windows.max(axis=1), -windows.min(axis=1))
        sounding = np.flatnonzero(peaks > 0)
        for start in range(0, len(sounding), CHUNK_WINDOWS):
            chosen = sounding[start : start + CHUNK_WINDOWS]
            vectors[chosen] = np.concatenate(list(describe(windows[chosen], peaks[chosen]).values()), axis=1)
        return vectors


def load(request: ModelRequest) -> SpectralModel:
    """Return the model.

    Raises:
        UsageError: the request asks for something the model does not have.
    """
    if request.options:
        keys = ", ".join(key for key, _ in request.options)
        raise UsageError(f"the model spectral has no options, but {keys} was given; write just --model spectral")
    if request.weights is not None:
        raise UsageError("the model spectral has no weights; leave --weights out, or choose another --model")
    if request.precision not in ("auto", "fp32"):
        raise UsageError(f"the model spectral has no precision {request.precision!r}; it computes in fp32")
    if request.engine not in ("auto", "numpy"):
        raise UsageError(f"the model spectral does not run on {request.engine!r}; leave --engine out")
    return SpectralModel()


def dimension_names() -> list[str]:
    """Return a name for each dimension, such as ``mel_mean_00`` or ``shape_std_centroid``, in the vectors' order."""
    special = {
        "loudness": ("mean", "max"),
        "dynamics": ("std", "max_over_mean", "active", "spread", "trend", "crest"),
        "onsets": ("mean", "std", "max", "share"),
        "envelope": tuple(f"{round(100 * quantile):02d}" for quantile in ENVELOPE_QUANTILES),
    }
    names = []
    for group, size in GROUPS:
        parts = SHAPES if group.startswith("shape") else special.get(group)
        names += [f"{group}_{part}" for part in parts or (f"{number:02d}" for number in range(size))]
    return names


def dimensions_below(edge_hz: float) -> dict[str, Int64Array]:
    """Return the numbers of the dimensions, by group, that stay what they are when all above a frequency is taken away.

    Of `FORMS` that holds but for the mean of the bands that are left.
    """
    lowest, highest = hz_to_mel(np.array([MEL_MIN_HZ, MEL_MAX_HZ])).tolist()
    points_mel = np.linspace(lowest, highest, MEL_BANDS + 2)
    tops_hz = {
        "mel": mel_to_hz(points_mel)[2:],
        "contrast": CONTRAST_MIN_HZ * 2.0 ** np.arange(CONTRAST_BANDS),
    }
    tops_hz["contrast"][-1] = SAMPLE_RATE / 2  # the last one has all that is left
    found = {}
    first = 0
    for name, size in GROUPS:
        numbers = np.arange(first, first + size, dtype=np.int64)
        if name in BANDED:
            found[name] = numbers[tops_hz[name.partition("_")[0]] <= edge_hz]
        elif name in COURSE:
            found[name] = numbers
        first += size
    return found


def describe(windows: Float32Array, peaks: Float32Array) -> dict[str, Float32Array]:
    """Return the groups of `GROUPS`, in their order, of sounding windows.

    Args:
        windows: (n, WINDOW_SAMPLES) float32.
        peaks: (n,) largest magnitude of each, above 0.
    """
    scaled = windows / peaks[:, None]
    magnitudes = descriptors.magnitude(scaled, centred=False)
    magnitudes = np.maximum(magnitudes, magnitudes.max(axis=(1, 2), keepdims=True) * np.float32(10 ** (-FLOOR_DB / 20)))
    power = magnitudes * magnitudes
    mel = descriptors.mel_spectrogram(power, SAMPLE_RATE, MEL_BANDS, MEL_MIN_HZ, MEL_MAX_HZ)
    mel_db = descriptors.power_to_db(mel, RANGE_DB)
    level = descriptors.rms(scaled, centred=False)
    level_db = descriptors.power_to_db(level * level, None, axes=1)
    weights = _frame_weights(level, level_db)
    cepstra = descriptors.mfcc(mel_db, MFCCS)[..., 1:]
    chroma = descriptors.chroma(power, SAMPLE_RATE)
    shape = _shape(scaled, magnitudes, power)
    contrast = descriptors.contrast_db(magnitudes, SAMPLE_RATE)
    groups = {
        "mel_mean": _centred(_mean(mel_db, weights.mean)),
        "mel_energy": _centred(descriptors.power_to_db(mel.mean(axis=1), RANGE_DB, axes=1)),
        "mfcc_mean": _mean(cepstra, weights.mean),
        "mfcc_std": _deviation(cepstra, weights.mean),
        "chroma_mean": _mean(chroma, weights.mean),
        "chroma_energy": _mean(chroma, weights.energy),
    }
    for name, values in (("shape", shape), ("contrast", contrast)):
        groups[f"{name}_mean"] = _mean(values, weights.mean)
        groups[f"{name}_std"] = _deviation(values, weights.mean)
        groups[f"{name}_energy"] = _mean(values, weights.energy)
        groups[f"{name}_delta"] = _mean(np.abs(np.diff(values, axis=1)), weights.step)
    peaks_db = np.clip(20.0 * np.log10(np.maximum(peaks, TINY)), -100.0, 40.0).astype(np.float32)
    groups["loudness"] = np.stack([_mean(level_db[..., None], weights.mean)[:, 0], level_db.max(axis=1)], axis=1)
    groups["loudness"] += peaks_db[:, None]
    groups["dynamics"] = _dynamics(scaled, level_db, weights)
    groups["envelope"] = _envelope(level_db)
    groups["onsets"] = _onsets(mel_db, weights)
    return groups


def _frame_weights(level: Float32Array, level_db: Float32Array) -> _Weights:
    """Return the weights of frames of RMS `level` (n, frames), which is `level_db` in dB."""
    active = (level_db >= level_db.max(axis=1, keepdims=True) - np.float32(ACTIVE_DB)).astype(np.float32)
    energy = (level * level + TINY) * active
    step = active[:, 1:] * active[:, :-1]
    return _Weights(
        active=active,
        mean=active / active.sum(axis=1, keepdims=True),
        energy=energy / energy.sum(axis=1, keepdims=True),
        step=step / np.maximum(step.sum(axis=1, keepdims=True), np.float32(1.0)),
    )


def _shape(scaled: Float32Array, magnitudes: Float32Array, power: Float32Array) -> Float32Array:
    """Return `SHAPES` of each frame, (n, frames, 5): octaves for all but flatness, which is in dB."""
    centroid = descriptors.centroid_hz(magnitudes, SAMPLE_RATE)
    first = descriptors.N_FFT // 2 // descriptors.HOP  # its frames are centred: this one starts with the sound
    crossings = descriptors.zero_crossing_rate(scaled)[:, first : first + centroid.shape[1]]
    frequencies = np.stack(
        [
            centroid,
            descriptors.bandwidth_hz(magnitudes, SAMPLE_RATE, centroid),
            descriptors.rolloff_hz(magnitudes, SAMPLE_RATE),
            crossings * np.float32(SAMPLE_RATE / 2),  # a tone of f Hz crosses 2 f times a second
        ],
        axis=-1,
    )
    octaves = np.log2(frequencies + np.float32(SHAPE_FLOOR_HZ))
    flatness_db = 10.0 * np.log10(descriptors.flatness(power))
    return np.concatenate([octaves, flatness_db[..., None]], axis=-1).astype(np.float32, copy=False)


def _dynamics(scaled: Float32Array, level_db: Float32Array, weights: _Weights) -> Float32Array:
    """Return (n, 6) how level moves.

    Standard deviation in dB, maximum over mean in dB, log2 of the number of active frames, log2 of the energy's spread
    in time in frames, mean change from frame to frame in dB, crest factor in dB.
    """
    mean_db = _mean(level_db[..., None], weights.mean)
    time = np.arange(level_db.shape[1], dtype=np.float32)
    centre = weights.energy @ time
    spread = np.sqrt(np.sum(weights.energy * (time - centre[:, None]) ** 2, axis=1))
    root_mean_square = np.sqrt(np.mean(scaled * scaled, axis=1))  # the scaled peak is 1
    columns = [
        _deviation(level_db[..., None], weights.mean)[:, 0],
        level_db.max(axis=1) - mean_db[:, 0],
        np.log2(weights.active.sum(axis=1)),
        np.log2(spread + np.float32(0.5)),
        np.sum(np.diff(level_db, axis=1) * weights.step, axis=1),
        -20.0 * np.log10(root_mean_square),
    ]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


def _envelope(level_db: Float32Array) -> Float32Array:
    """Return (n, 5) `ENVELOPE_QUANTILES` over all frames of the level below the loudest frame, not under -RANGE_DB."""
    below = np.maximum(level_db - level_db.max(axis=1, keepdims=True), np.float32(-RANGE_DB))
    ranks = np.rint(np.array(ENVELOPE_QUANTILES) * (below.shape[1] - 1)).astype(np.int64)
    return np.asarray(np.sort(below, axis=1)[:, ranks], np.float32)


def _onsets(mel_db: Float32Array, weights: _Weights) -> Float32Array:
    """Return (n, 4): mean, standard deviation and maximum of spectral flux in dB, share of frames that are onsets."""
    flux = np.asarray(np.maximum(np.float32(0.0), np.diff(mel_db, axis=1)).mean(axis=-1), np.float32)
    mean = np.sum(flux * weights.step, axis=1)
    onset = flux > mean[:, None] + np.float32(ONSET_DB)
    columns: list[Float32Array] = [
        mean,
        _deviation(flux[..., None], weights.step)[:, 0],
        flux.max(axis=1),
        np.sum(onset * weights.step, axis=1),
    ]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


def _mean(values: Float32Array, weights: Float32Array) -> Float32Array:
    """Return the weighted mean (n, k) over the frames of `values` (n, frames, k)."""
    mean: Float32Array = np.matmul(weights[:, None, :], values)[:, 0]
    return mean


def _deviation(values: Float32Array, weights: Float32Array) -> Float32Array:
    """Return the weighted standard deviation (n, k) over the frames of `values` (n, frames, k)."""
    distance = values - _mean(values, weights)[:, None]
    return np.asarray(np.sqrt(_mean(distance * distance, weights)), np.float32)


def _centred(values: Float32Array) -> Float32Array:
    """Return `values` (n, k) less the mean of each row: a spectrum's form without its level."""
    form: Float32Array = values - values.mean(axis=1, keepdims=True)
    return form
