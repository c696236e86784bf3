"""A short sound asked about → its windows, from several starting points and less what was done to it.

Conventions: vectors are (n, dimension) float16 as the store keeps them, all-zero rows for silence; times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedindex.arrays import Float16Array, Float32Array, Float64Array
from embedindex.cleaning import onset_sample, without_noise
from embedindex.embed import embed_blocks, hop_samples
from embedindex.errors import EmbeddingError
from embedindex.models import Model
from embedindex.windows import count_windows, dense_hop

# So many starting points to the hop of long sounds; the windows of short queries lie closer, and need fewer.
PHASES = 4
# Silence in front of a sound that is longer than this is also left out.
LEAST_SILENCE_S = 0.01


@dataclass(frozen=True)
class Heard:
    """The windows of a sound from one starting point.

    Attributes:
        vectors: (n, dimension) float16.
        starts_s: (n,) their starts, seconds.
        noisy: whether there was noise in it beyond doubt, which was taken away.
    """

    vectors: Float16Array
    starts_s: Float64Array
    noisy: bool = False

    def useful(self, most: int) -> Heard:
        """Return the windows that are not silence; of too many `most`, evenly spread."""
        rows = np.flatnonzero(self.vectors.any(axis=1))
        if len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
        return Heard(self.vectors[rows], self.starts_s[rows], self.noisy)


def hear(path: bytes, samples: Float32Array, peak: float, model: Model, hop_s: float, first_s: float) -> list[Heard]:
    """Return a short sound as heard from several starting points, from where it really begins, and less its noise.

    Args:
        path: where it is from, for messages.
        samples: (n,) the sound at the model's rate.
        peak: its greatest magnitude.
        model: the model of the index.
        hop_s: seconds between the windows of long sounds there.
        first_s: where it begins in its file.
    """
    rate, window = model.identity.sample_rate, model.identity.window_samples
    usual = hop_samples(hop_s, rate)
    hop = dense_hop(len(samples), window, usual)
    points = range(0, hop, max(1, usual // PHASES))
    starts = [start for start in points if not start or count_windows(len(samples) - start, window, hop)]
    onset = onset_sample(samples)
    cleaned = without_noise(samples, evenly=not (model.identity.standardise or model.identity.blocks))
    noisy = cleaned is not None and cleaned.plain
    variants = [(samples, peak, starts)]
    if onset > LEAST_SILENCE_S * rate and onset not in starts:
        variants.append((samples, peak, [onset]))
    if cleaned is not None and cleaned.samples.any():
        # With plain noise in it, a sound is like all that is noisy: then it is heard without only.
        variants = [] if noisy else variants
        variants.append((cleaned.samples, float(np.abs(cleaned.samples).max()), starts))
    heard = []
    for sound, top, beginnings in variants:
        for start in beginnings:
            vectors, _ = embed_blocks([sound[start:]], top, model, hop)
            starts_s = window_starts_s(len(vectors), hop / rate, first_s + start / rate)
            heard.append(Heard(as_stored(path, vectors, model), starts_s, noisy))
    return heard


def window_starts_s(windows: int, hop_s: float, first_s: float = 0.0) -> Float64Array:
    """Return (windows,) the starts of windows, seconds."""
    return np.asarray(first_s + np.arange(windows) * hop_s, np.float64)


def as_stored(path: bytes, vectors: Float32Array, model: Model) -> Float16Array:
    """Return vectors as the store keeps them, so that a sound compared with itself scores 1.

    Raises:
        EmbeddingError: they are not numbers.
    """
    if not np.isfinite(vectors).all():
        raise EmbeddingError(path, f"the model {model.identity.name} made vectors of it that are not numbers")
    limit = float(np.finfo(np.float16).max)
    return np.clip(vectors, -limit, limit).astype(np.float16)
