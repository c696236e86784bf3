"""Is a short, damaged clip found in the long track that it was cut from, and at the right time?

    python benchmarks/planted_clips.py --index DIR [--index DIR…] [--count 200] [--seed 1]
    python benchmarks/planted_clips.py ~/Music --model aisfx --model spectral --hop 1
    python benchmarks/planted_clips.py --each --model aisfx+spectral --hop 1 ~/Music ~/Tracker …  # one by one

Clips of 2 to 4 seconds are cut at random from tracks of at least 20 s, at any sample, made up to 6 dB louder or softer
(clipped where that goes beyond full scale), covered with white noise 20 dB below them, and encoded to MP3 at 64 kbit/s.
Clips quieter than -50 dB (RMS) are not drawn: there is nothing in them but noise. *File*: the first hit is the track;
*place*: and its start is not more than 1 s from where the clip was cut; *or the same again*: or the track has there, to
0.6 s, what was cut: its waveform correlates with the clip's by 0.7 or more at 8 kHz, as sequenced music repeats itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from altered import add_index_options, collections, encode_mp3, model_name, with_gain, with_noise
from measure import print_report

from embedindex.index import load_view
from embedindex.query import Part, QueryMaker, part_blocks
from embedindex.records import FileRecord
from embedindex.search import search
from embedindex.store import Store

MIN_TRACK_S = 20.0
QUIETEST = 10 ** (-50 / 20)
RATE = 44100
BIT_RATE = 64_000
GAIN_DB = 6.0
SNR_DB = 20.0
RIGHT_S = 1.0
REPEAT_RATE = 8000
REPEAT_WITHIN_S = 0.6
REPEAT_CORRELATION = 0.7


@dataclass(frozen=True)
class Clip:
    """A clip, the track it was cut from, and where it starts there in seconds."""

    path: Path
    track: bytes
    start_s: float
    length_s: float


def cut_clips(folder: Path, tracks: Sequence[FileRecord], count: int, seed: int) -> list[Clip]:
    """Return `count` clips, written to a folder; a track is drawn as often as its length says."""
    random = np.random.default_rng(seed)
    lengths = np.array([track.duration for track in tracks], np.float64)
    clips: list[Clip] = []
    for _ in range(20 * count):
        if len(clips) == count:
            break
        track = tracks[int(random.choice(len(tracks), p=lengths / lengths.sum()))]
        length_s = float(random.uniform(2.0, 4.0))
        start_s = float(random.uniform(0.0, (track.duration or 0.0) - length_s))
        gain_db = float(random.uniform(-GAIN_DB, GAIN_DB))
        blocks = part_blocks(track.path, RATE, Part(start_s, start_s + length_s), mono=False)
        samples = np.concatenate([block.reshape(len(block), -1)[:, :2] for block in blocks])
        if float(np.sqrt(np.mean(samples**2))) < QUIETEST:
            continue
        altered = np.clip(with_noise(with_gain(samples, gain_db), SNR_DB, random), -1.0, 1.0)
        path = folder / f"clip {len(clips):03d}.mp3"
        encode_mp3(path, altered, RATE, BIT_RATE)
        clips.append(Clip(path, track.path, start_s, length_s))
    return clips


def is_repeat(clip: Clip, start_s: float) -> bool:
    """Return whether the track has at `start_s` the very sound that a clip was cut from."""
    first_s = max(0.0, start_s - REPEAT_WITHIN_S)
    parts = (
        Part(clip.start_s, clip.start_s + clip.length_s),
        Part(first_s, start_s + clip.length_s + REPEAT_WITHIN_S),
    )
    own, there = (np.concatenate(list(part_blocks(clip.track, REPEAT_RATE, part))).astype(np.float64) for part in parts)
    if len(there) < len(own):
        return False
    sums = np.concatenate(([0.0], np.cumsum(there**2)))
    energy = sums[len(own) :] - sums[: -len(own)]
    likeness = np.abs(np.correlate(there, own, "valid")) / np.sqrt(np.maximum(energy, 1e-9) * np.sum(own**2))
    return bool(likeness.max() >= REPEAT_CORRELATION)


def ask(store: Store, clips: Sequence[Clip]) -> list[str]:
    """Return the line of the table for one index."""
    view = load_view(store)
    maker = QueryMaker(store, view.model)
    files = places = repeats = ten = 0
    errors_s, search_s = [], []
    for clip in clips:
        query = maker.from_file(str(clip.path))
        began = time.perf_counter()
        hits = search(store, view, [query], k=10)
        search_s.append(time.perf_counter() - began)
        ten += any(hit.file.path == clip.track for hit in hits)
        if hits and hits[0].file.path == clip.track:
            files += 1
            errors_s.append(abs(hits[0].start_s - clip.start_s))
            right = errors_s[-1] <= RIGHT_S
            places += right
            repeats += not right and is_repeat(clip, hits[0].start_s)
    count = len(clips)
    middle_s = statistics.median(errors_s) if errors_s else float("nan")
    return [
        model_name(store),
        f"{view.windows:,}",
        f"{files / count:.3f}",
        f"{places / count:.3f}",
        f"{(places + repeats) / count:.3f}",
        f"{ten / count:.3f}",
        f"{middle_s:.2f} s",
        f"{1000 * statistics.median(search_s):.0f} ms",
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_index_options(parser)
    options = parser.parse_args()
    count = min(options.count, 10) if options.quick else options.count
    rows, notes = [], []
    for name, stores in collections(options, sounds=4, sound_s=30):
        with TemporaryDirectory(prefix="embedindex-clips-") as folder:
            found = stores[0].files("status = 'ok' AND duration >= ?", (MIN_TRACK_S,))
            tracks = sorted(found, key=lambda one: one.path)
            clips = cut_clips(Path(folder), tracks, count, options.seed)
            rows += [[name, *ask(store, clips)] for store in stores]
        hours = sum(track.duration or 0.0 for track in tracks) / 3600
        notes.append(f"{name}: {len(clips)} clips of {len(tracks)} tracks ({hours:.1f} hours), seed {options.seed}.")
    header = ["collection", "index", "windows", "file", "place", "or the same again", "in first 10", "median error",
              "search"]  # fmt: skip
    notes.append("Targets: file 0.95, place 0.90.")
    print_report("Clips planted in long tracks", header, rows, notes)


if __name__ == "__main__":
    main()
