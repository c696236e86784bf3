"""Make a library of sounds to try embedindex on: drums, basses, voices, places and whole pieces, from numpy alone.

    python examples/demo_library.py ~/demo-library
    python examples/demo_library.py ~/demo-library --query ~/query.wav

The second call finds the library complete, makes nothing again, and writes a snare that is not in it, to look for.
Each sound's chance comes from the seed and the file's own name, so neither the order nor the number of processes
matters, and an interrupted run goes on where it stopped: a file appears under its name only when it is whole.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from synthesis.catalogue import KINDS, Kind, sound
from synthesis.dsp import Rng, Signal, amplitude, finished
from synthesis.pieces import PIECES

VERSION = 1  # raise it when any sound changes: libraries made before are then not taken for this one
MANIFEST = "LIBRARY.json"
ALBUM, ARTIST = "embedindex demo library", "numpy"
BLOCK_FRAMES = 65536  # libsndfile's Vorbis encoder overflows its stack on very long writes
LOSSY_PEAK_DB = -3.0  # MP3 and Vorbis overshoot: what is decoded must stay within ±1
PEAK_DB = -1.0


@dataclass(frozen=True)
class Encoding:
    """A file format with its libsndfile subtype, and a sample rate in hertz; `mono` mixes a stereo sound down."""

    format: str
    subtype: str
    rate: int
    mono: bool = False

    @property
    def extension(self) -> str:
        """Return the usual file name extension."""
        return self.format.lower()


@dataclass(frozen=True)
class Settings:
    """What decides every sound of a library; `scale` makes fewer and shorter ones, for tests."""

    seed: int = 1
    pieces_minutes: float = 4.0
    scale: float = 1.0
    version: int = VERSION


@dataclass(frozen=True)
class Job:
    """One file to make: sound `number` of KINDS[`kind`], or a piece of PIECES where `kind` is None."""

    path: str
    title: str
    genre: str
    encoding: Encoding
    kind: int | None = None
    number: int = 0


WAV, WAV24, FLAC = ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("FLAC", "PCM_16")
FLAC24, OGG, MP3 = ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")
SHORT_ENCODINGS = tuple(
    Encoding(*codec, rate)
    for codec, rate in (
        (WAV, 44100),
        (FLAC, 48000),
        (WAV24, 48000),
        (OGG, 44100),
        (WAV, 44100),
        (MP3, 44100),
        (FLAC24, 96000),
        (WAV, 22050),
    )
)
LONG_ENCODINGS = tuple(
    Encoding(*codec, rate)
    for codec, rate in ((FLAC, 44100), (OGG, 32000), (WAV, 22050), (OGG, 48000), (MP3, 32000), (WAV, 32000))
)
PIECE_ENCODINGS = (  # in the order of PIECES
    Encoding(*FLAC, 44100),
    Encoding(*MP3, 22050, mono=True),
    Encoding(*OGG, 44100),
    Encoding(*FLAC, 22050),
    Encoding(*WAV, 22050, mono=True),
    Encoding(*OGG, 32000),
    Encoding(*OGG, 48000),
)


def jobs_of(settings: Settings) -> list[Job]:
    """Return every file of the library: the pieces first, since they take longest."""
    pieces = [
        Job(f"pieces/{title}.{encoding.extension}", title, genre, encoding)
        for (title, (genre, _)), encoding in zip(PIECES.items(), PIECE_ENCODINGS, strict=True)
    ]
    jobs = pieces[: max(2, round(len(pieces) * settings.scale))]
    for index, kind in enumerate(KINDS):
        encodings = LONG_ENCODINGS if kind.long else SHORT_ENCODINGS
        for number in range(max(2, round(kind.count * settings.scale))):
            encoding = encodings[number % len(encodings)]
            title = f"{kind.name} {number + 1:02d}"
            jobs.append(Job(f"{kind.folder}/{title}.{encoding.extension}", title, kind.genre, encoding, index, number))
    return jobs


def chance(seed: int, path: str) -> Rng:
    """Return the generator of one file, the same on every machine."""
    return np.random.default_rng([seed, zlib.crc32(path.encode())])


def samples(job: Job, settings: Settings) -> Signal:
    """Make a job's sound, mastered, `(n,)` or `(n, 2)`, within ±1 even after a lossy codec."""
    rng, rate = chance(settings.seed, job.path), job.encoding.rate
    peak_db = LOSSY_PEAK_DB if job.encoding.format in ("OGG", "MP3") else PEAK_DB
    if job.kind is None:
        piece = PIECES[job.title][1]
        mix = piece(rng, rate, settings.pieces_minutes * 60.0)
        return (mix.mean(axis=1) if job.encoding.mono else mix) * amplitude(peak_db)
    kind = KINDS[job.kind]
    fade_s = 0.25 if kind.long else 0.004
    return finished(sound(kind, job.number, rng, rate, settings.scale), rate, peak_db, fade_s)


def write(path: Path, x: Signal, encoding: Encoding, title: str, genre: str) -> None:
    """Encode a sound with its tags beside its place, then move it there whole."""
    part = path.with_name(path.name + ".part")
    channels = 1 if x.ndim == 1 else x.shape[1]
    with sf.SoundFile(part, "w", encoding.rate, channels, encoding.subtype, format=encoding.format) as file:
        file.title, file.genre, file.album, file.artist = title, genre, ALBUM, ARTIST
        for start in range(0, x.shape[0], BLOCK_FRAMES):
            file.write(x[start : start + BLOCK_FRAMES])
    os.replace(part, path)


def make(task: tuple[str, Job, Settings]) -> tuple[str, float]:
    """Make one file of the library in a folder; returns the file's path and its seconds of sound."""
    folder, job, settings = task
    x = samples(job, settings)
    write(Path(folder, job.path), x, job.encoding, job.title, job.genre)
    return job.path, x.shape[0] / job.encoding.rate


def made(tasks: list[tuple[str, Job, Settings]], processes: int) -> Iterator[tuple[str, float]]:
    """Make all files, in this process or in several, and yield each as it is done."""
    if processes <= 1 or len(tasks) <= 1:
        yield from map(make, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(tasks))) as pool:
        yield from pool.imap_unordered(make, tasks)


def read_manifest(folder: Path, settings: Settings) -> dict[str, int]:
    """Return the finished files of a folder with their sizes in bytes; an empty one where nothing was begun.

    Raises:
        SystemExit: the folder holds something else, or a library of other settings.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        if folder.exists() and any(folder.iterdir()):
            sys.exit(f"{folder} is not empty and holds no {MANIFEST}. Name a new or empty folder.")
        return {}
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        found, sizes = content["settings"], dict(content["files"])
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{manifest} cannot be read ({error}). Delete the folder, or name another.")
    if found != asdict(settings):
        sys.exit(f"{folder} holds a demo library with other settings: {found}. Delete it, or name another folder.")
    return sizes


def write_manifest(folder: Path, settings: Settings, paths: Iterable[str]) -> None:
    """Write down the settings and the files made so far with their sizes in bytes."""
    sizes = {path: (folder / path).stat().st_size for path in sorted(paths)}
    part = folder / (MANIFEST + ".part")
    text = json.dumps({"settings": asdict(settings), "files": sizes}, indent=1, ensure_ascii=False)
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, folder / MANIFEST)


def build(folder: Path, settings: Settings, processes: int = 1) -> int:
    """Make what a library lacks; returns the number of files made, 0 where it was complete."""
    sizes = read_manifest(folder, settings)
    jobs = jobs_of(settings)
    whole = {
        path for path, size in sizes.items() if (folder / path).exists() and (folder / path).stat().st_size == size
    }
    if not sizes and (folder / MANIFEST).exists():  # begun and interrupted: what bears its name is whole
        whole = {job.path for job in jobs if (folder / job.path).exists()}
    missing = [job for job in jobs if job.path not in whole]
    if not missing:
        print(f"{folder}: the demo library is complete ({len(jobs)} files); nothing to do.")
        return 0
    for parent in {(folder / job.path).parent for job in missing}:
        parent.mkdir(parents=True, exist_ok=True)
    if not sizes:
        write_manifest(folder, settings, ())
    print(f"{folder}: making {len(missing)} of {len(jobs)} sounds.", flush=True)
    started_s = time.monotonic()
    total_s = report(missing, made([(str(folder), job, settings) for job in missing], processes))
    write_manifest(folder, settings, (job.path for job in jobs))
    size_mb = sum((folder / job.path).stat().st_size for job in jobs) / 1e6
    took_s = time.monotonic() - started_s
    print(
        f"Made {len(missing)} files, {total_s / 60:.1f} minutes of sound, in {took_s:.0f} s; {size_mb:.0f} MB in all."
    )
    return len(missing)


def report(jobs: list[Job], results: Iterable[tuple[str, float]]) -> float:
    """Print a line for each folder when its last file is done; returns the seconds of sound made."""
    left = Counter(os.path.dirname(job.path) for job in jobs)
    count = dict(left)
    seconds = dict.fromkeys(left, 0.0)
    for path, length_s in results:
        parent = os.path.dirname(path)
        left[parent] -= 1
        seconds[parent] += length_s
        if left[parent] == 0:
            print(f"  {parent + '/':24} {count[parent]:3} files {seconds[parent]:7.1f} s", flush=True)
    return sum(seconds.values())


def write_query(path: Path, kind: Kind, seed: int) -> None:
    """Write a sound of a kind that no library of this seed holds."""
    encodings = {"wav": WAV, "flac": FLAC, "ogg": OGG, "mp3": MP3}
    extension = path.suffix.lower().lstrip(".")
    if extension not in encodings:
        sys.exit(
            f"{path}: cannot write a query as {path.suffix or 'a file without extension'}. Use {', '.join(encodings)}."
        )
    encoding = Encoding(*encodings[extension], 44100)
    x = finished(sound(kind, 0, chance(seed, f"query/{kind.name}"), encoding.rate), encoding.rate, LOSSY_PEAK_DB)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, x, encoding, f"{kind.name} query", kind.genre)
    print(f"{path}: a new {kind.name}, not in the library; sounds like it are in {kind.folder}/.")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make the library, and a query where one is asked for."""
    kinds = {kind.name: kind for kind in KINDS}
    parser = argparse.ArgumentParser(description="Make a library of sounds to try embedindex on.")
    parser.add_argument("folder", type=Path, help="where to make it: a new or empty folder, or one made before")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other sounds (default: 1)")
    parser.add_argument("--pieces-minutes", type=float, default=4.0, help="length of each of the pieces (default: 4)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="0.1 makes a tenth of the sounds, shorter (default: 1)"
    )
    parser.add_argument(
        "--processes", type=int, default=min(2, os.cpu_count() or 1), help="processes to use (default: 2)"
    )
    parser.add_argument("--query", type=Path, help="also write a new sound here, to search the library with")
    parser.add_argument("--query-kind", choices=sorted(kinds), default="snare", help="what it is (default: snare)")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.pieces_minutes <= 0 or not 0 < options.scale <= 1:
        parser.error("--seed must be 0 or more, --pieces-minutes above 0, --scale above 0 and at most 1")
    build(options.folder, Settings(options.seed, options.pieces_minutes, options.scale), options.processes)
    if options.query:
        write_query(options.query, kinds[options.query_kind], options.seed)


if __name__ == "__main__":
    main()
