"""A library of made-up vectors that lie as those of real sounds do, written into a real index without any sound file.

Fitted to 3,830 windows of the model `aisfx` (512 dimensions, hop 2.3 s) of 1,734 sounds: drum kits, Sonic Pi's
samples, LMMS's, effects and music of a game, as Debian packages them. What was fitted to the sounds:

- the mean of the unit vectors (length 0.866), and the variance around it: 0.234 between files, 0.10 within one;
- their spectra, power laws of the rank: (i + 3)^-1.4 between files, (i + 3)^-1.2 within (mean error of the logarithm
  0.07 and 0.04);
- neighbours: files lie around centres, 20 to each, which hold 0.6 of the variance between files; how widely varies from
  file to file (log-normal, 0.5). The cosine of a window's nearest one in another file has quartiles 0.914, 0.945, 0.976
  in the sounds, and the intrinsic dimension of the files (Levina and Bickel, 2004) is 9; made up with a share of 0.7,
  the nearest to it that was tried, they are 0.921, 0.953, 0.971 and 7;
- time: consecutive windows of a file differ as an autoregression of order 1 does (0.5).

The axes are the principal ones, which is harder on an index than the model's own: what codes each dimension alike
has to turn them first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedindex.arrays import Float32Array, Int64Array

DIMENSION = 512
MEAN_LENGTH = 0.866
BETWEEN_VARIANCE, BETWEEN_POWER = 0.234, 1.4
WITHIN_VARIANCE, WITHIN_POWER = 0.10, 1.2
RANK_OFFSET = 3.0
CENTRE_SHARE = 0.6
FILES_A_CENTRE = 20
SPREAD = 0.5
CORRELATION = 0.5
WINDOWS_A_FILE = 30
MAX_WINDOWS = 200
BATCH_FILES = 2000
HOP_S = 1.0
SEED = 7


def _deviations(variance: float, power: float) -> Float32Array:
    spectrum = (np.arange(1, DIMENSION + 1) + RANK_OFFSET) ** -power
    deviations: Float32Array = np.sqrt(variance * spectrum / spectrum.sum()).astype(np.float32)
    return deviations


class MadeUpLibrary:
    """Vectors of files around centres; the same number of windows has the same centres.

    Args:
        windows: about how many windows the library has.
    """

    def __init__(self, windows: int) -> None:
        random = np.random.default_rng(SEED)
        mean = np.abs(random.standard_normal(DIMENSION))
        self._mean = (MEAN_LENGTH * mean / np.linalg.norm(mean)).astype(np.float32)
        between = _deviations(BETWEEN_VARIANCE, BETWEEN_POWER)
        self._file = between * np.float32(np.sqrt(1 - CENTRE_SHARE))
        self._window = _deviations(WITHIN_VARIANCE, WITHIN_POWER)
        centres = max(1, windows // WINDOWS_A_FILE // FILES_A_CENTRE)
        self._centres = random.standard_normal((centres, DIMENSION), np.float32) * between
        self._centres *= np.float32(np.sqrt(CENTRE_SHARE))

    def files(self, lengths: Int64Array, random: np.random.Generator) -> list[Float32Array]:
        """Return the vectors of files of `lengths` windows, (length, 512) unit rows each."""
        spread = np.exp(SPREAD * random.standard_normal((len(lengths), 1), np.float32)) / np.float32(np.exp(SPREAD**2))
        files = self._centres[random.integers(0, len(self._centres), len(lengths))]
        files = files + random.standard_normal(files.shape, np.float32) * self._file * spread
        owner = np.repeat(np.arange(len(lengths)), lengths)
        rows = random.standard_normal((len(owner), DIMENSION), np.float32)
        starts = np.concatenate(([0], np.cumsum(lengths)))
        times = np.arange(len(owner)) - starts[owner]
        for time in range(1, int(lengths.max())):
            places = np.flatnonzero(times == time)
            rows[places] = CORRELATION * rows[places - 1] + np.float32(np.sqrt(1 - CORRELATION**2)) * rows[places]
        rows *= self._window * spread[owner]
        rows += files[owner] + self._mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return np.split(rows, starts[1:-1])

    def batches(self, windows: int, seed: int = 1) -> Iterator[list[Float32Array]]:
        """Yield files, in batches, until there are at least `windows` windows."""
        random = np.random.default_rng(seed)
        while windows > 0:
            wanted = min(BATCH_FILES, -(-windows // WINDOWS_A_FILE))
            lengths = np.minimum(random.geometric(1 / WINDOWS_A_FILE, wanted), MAX_WINDOWS)
            windows -= int(lengths.sum())
            yield self.files(lengths, random)

    def queries(self, count: int) -> Float32Array:
        """Return windows of sounds that are not in the library, (count, 512) unit rows."""
        return np.concatenate(self.files(np.ones(count, np.int64), np.random.default_rng(99)))


def write_library(folder: str, windows: int) -> int:
    """Write an index of about so many windows, without its search index; return how many they are."""
    from embedindex.audio import AudioFacts
    from embedindex.embed import FileEmbedding
    from embedindex.file_stat import FileStat
    from embedindex.models import ModelIdentity, ModelRequest
    from embedindex.tags import Tags
    from embedindex.writer import StoreWriter

    identity = ModelIdentity("made-up", 44_100, 44_100, DIMENSION)
    facts = AudioFacts("WAV", "PCM_16", 44_100, 1, None, "soundfile")
    written = number = 0
    with StoreWriter(folder) as store:
        store.use_model(identity, ModelRequest("made-up"), HOP_S)
        root_id = store.put_root(b"/library", None)
        for batch in MadeUpLibrary(windows).batches(windows):
            with store.transaction():
                for vectors in batch:
                    seconds = len(vectors) * HOP_S
                    content = FileEmbedding(
                        number.to_bytes(16, "little"),
                        vectors.astype(np.float16),
                        0,
                        HOP_S,
                        facts,
                        Tags(),
                        seconds,
                        1.0,
                    )
                    path = b"/library/%04d/%07d.wav" % (number // 1000, number)
                    store.put_file(path, root_id, FileStat(1, 1, 1, number + 1), content)
                    number += 1
                    written += len(vectors)
    return written
