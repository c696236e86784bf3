"""Sound files → ``.npz`` files with the arrays ``embedding`` and ``timestamps``, as ``openl3 audio`` writes them.

Conventions: OpenL3 models follow the official package to the letter (`embedindex.models.openl3_pipeline`); of any other
model a window starts every `hop_s` seconds and its timestamp is its start. A file gets its name when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedindex.archives import archive_of, exists, is_archive
from embedindex.arrays import Float32Array, Float64Array
from embedindex.audio import read_audio
from embedindex.crawl import is_audio_name, list_archive
from embedindex.embed import embed_blocks, hop_samples
from embedindex.errors import PathNotFoundError, UsageError, display_path
from embedindex.models.base import Model
from embedindex.models.openl3 import Openl3Model
from embedindex.models.openl3_pipeline import embed_audio
from embedindex.opening import entries_of, is_real_folder
from embedindex.remote_paths import is_remote
from embedindex.whole_files import whole_file
from embedindex.windows import window_start_s

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """One file to embed.

    Attributes:
        source: the sound.
        target: the ``.npz`` file.
    """

    source: str
    target: str


@dataclass(frozen=True)
class Settings:
    """How to cut sounds into windows.

    Attributes:
        hop_s: seconds between two windows.
        center: OpenL3 only: timestamps are middles of windows.
        batch: windows handed to the model at once.
    """

    hop_s: float = 0.1
    center: bool = True
    batch: int = 32


def plan_jobs(inputs: Sequence[str], output_dir: str | None = None, suffix: str | None = None) -> list[Job]:
    """Return what to do for files, and for the audio files directly in folders, in order of their names.

    Args:
        inputs: files and folders.
        output_dir: where the results go; None: beside each sound.
        suffix: put after the name, with an underscore between.

    Raises:
        PathNotFoundError: an input does not exist.
        UsageError: there is nothing in them, or two would write the same file.
    """
    sources = [source for given in inputs for source in _sources(given)]
    if not sources:
        raise UsageError(f"no audio files in {', '.join(map(display_path, inputs))}; give files or folders with sounds")
    jobs = [Job(source, _target(source, output_dir, suffix)) for source in dict.fromkeys(sources)]
    seen: dict[str, str] = {}
    for job in jobs:
        other = seen.setdefault(job.target, job.source)
        if other != job.source:
            raise UsageError(
                f"{display_path(other)} and {display_path(job.source)} would both be written to "
                f"{display_path(job.target)}; run them apart, with another --suffix or --output-dir"
            )
    return jobs


def _sources(given: str) -> list[str]:
    if is_archive(given):
        return [os.path.join(given, os.fsdecode(one.name)) for one in list_archive(os.fsencode(given)) or []]
    if is_real_folder(given):
        entries = entries_of(os.fsencode(given))
        return [os.fsdecode(entry.path) for entry in entries if is_audio_name(entry.name) and entry.is_file()]
    if not exists(given):
        raise PathNotFoundError(f"{display_path(given)}: does not exist; give files or folders with sounds")
    return [given]


def _target(source: str, output_dir: str | None, suffix: str | None) -> str:
    name = os.path.splitext(os.path.basename(source))[0] + (f"_{suffix}" if suffix else "")
    archive = archive_of(source)  # beside it, as nothing is written into one
    if output_dir is None and is_remote(source):
        raise UsageError(f"{display_path(source)}: lies on a server, on which nothing is written; add --output-dir")
    beside = os.path.dirname(source if archive is None else os.fsdecode(archive))
    return os.path.join(output_dir or beside, f"{name}.npz")


def embed_sound(
    path: str, model: Model, settings: Settings, progress: Progress | None = None
) -> tuple[Float32Array, Float64Array]:
    """Return (embedding (windows, dimension) float32, timestamps (windows,) float64 in seconds) of a file.

    Raises:
        AudioError: the file cannot be used.
        UsageError: the hop is too short.
    """
    if isinstance(model, Openl3Model):
        samples, facts = read_audio(path, mono=False)
        return embed_audio(
            samples,
            facts.sample_rate,
            model,
            center=settings.center,
            hop_s=settings.hop_s,
            batch=settings.batch,
            progress=progress,
        )
    if not settings.hop_s > 0:
        raise UsageError(f"the hop size must be a positive number of seconds, not {settings.hop_s}")
    samples, _ = read_audio(path, sample_rate=model.identity.sample_rate, mono=True)
    hop = hop_samples(settings.hop_s, model.identity.sample_rate)
    vectors, _ = embed_blocks([samples], float(np.abs(samples).max()), model, hop)
    starts = [window_start_s(number, hop / model.identity.sample_rate) for number in range(len(vectors))]
    return vectors, np.array(starts, np.float64)


def write_result(target: str, embedding: Float32Array, timestamps: Float64Array) -> None:
    """Write the two arrays to `target`, atomically; its folder is made.

    Raises:
        DiskFullError: no space is left.
        UsageError: it cannot be written there.
    """
    with whole_file(target, "choose another folder with --output-dir") as temporary:
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, embedding=embedding, timestamps=timestamps)
