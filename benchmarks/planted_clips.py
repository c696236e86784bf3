"""Is a short, damaged clip found in the long track that it was cut from, and at the right time?

    python benchmarks/planted_clips.py --index DIR [--index DIR…] [--count 200] [--seed 1] [--json]
    python benchmarks/planted_clips.py ~/Music --model aisfx --model spectral --hop 1
    python benchmarks/planted_clips.py --each --model aisfx+spectral --hop 1 ~/Music ~/Tracker …  # one by one

Clips of 2 to 4 seconds are cut at random from tracks of at least 20 s, at any sample, made up to 6 dB louder or softer
(clipped where that goes beyond full scale), covered with white noise 20 dB below them, and encoded to MP3 at 64 kbit/s.
Clips quieter than -50 dB (RMS) are not drawn: there is nothing in them but noise.

*File*: the first hit is the track; *place*: and its start is not more than 1 s from where the clip was cut. In
brackets, where it is more, what counts when music repeats itself: *file* also when another file has the very samples
that the clip was cut from within 1 s of the place given, *place* also when that file, or the track itself, has them
there (`same_sound.py`: a correlation of 0.999 at the file's own rate). All that is not strictly right is listed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from altered import add_index_options, both_shares, collections, encode_mp3, model_name, with_gain, with_noise
from measure import print_results
from same_sound import SAME, holds

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


@dataclass(frozen=True)
class Answer:
    """What was found for a clip, as ``--json`` lists it where it is not strictly right.

    Attributes:
        clip: the track's name and where the clip begins in it.
        found: those of the first hit.
        file: whether it is the track.
        place: whether it is the right place, too.
        correlation: how much of what was cut is at the place that was found.
    """

    clip: str
    found: str
    file: bool
    place: bool
    correlation: float

    @property
    def same(self) -> bool:
        """Whether the very samples are there."""
        return self.correlation >= SAME


@dataclass(frozen=True)
class Result:
    """What an index found, as ``--json`` has it: shares of all clips, strictly and with the same samples elsewhere."""

    collection: str
    index: str
    windows: int
    clips: int
    file: float
    file_counted: float
    place: float
    place_counted: float
    in_first_10: float
    median_error_s: float
    search_ms: float
    search_cpu_ms: float
    not_strictly_right: list[Answer]

    @property
    def row(self) -> list[str]:
        """The line of the table."""
        return [
            self.collection,
            self.index,
            f"{self.windows:,}",
            both_shares(self.file, self.file_counted),
            both_shares(self.place, self.place_counted),
            f"{self.in_first_10:.3f}",
            f"{self.median_error_s:.3f} s",
            f"{self.search_ms:.0f} ms ({self.search_cpu_ms:.0f} ms)",
        ]


def ask(name: str, store: Store, clips: Sequence[Clip]) -> Result:
    """Return what one index finds."""
    view = load_view(store)
    maker = QueryMaker(store, view.model)
    answers: list[Answer] = []
    ten = 0
    errors_s, search_s, search_cpu_s = [], [], []
    for clip in clips:
        query = maker.from_file(str(clip.path))
        began, used = time.perf_counter(), time.process_time()
        hits = search(store, view, [query], k=10)
        search_s.append(time.perf_counter() - began)
        search_cpu_s.append(time.process_time() - used)
        ten += any(hit.file.path == clip.track for hit in hits)
        first = hits[0]
        file = first.file.path == clip.track
        if file:
            errors_s.append(abs(first.start_s - clip.start_s))
        place = file and errors_s[-1] <= RIGHT_S
        there = 1.0 if place else holds(first.file.path, first.start_s, clip.track, clip.start_s, clip.length_s)
        answers.append(
            Answer(
                f"{os.path.basename(os.fsdecode(clip.track))} {clip.start_s:.1f} s",
                f"{os.path.basename(first.file.text_path)} {first.start_s:.1f} s",
                file,
                place,
                round(there, 4),
            )
        )
    count = len(clips)
    return Result(
        name,
        model_name(store),
        view.windows,
        count,
        sum(answer.file for answer in answers) / count,
        sum(answer.file or answer.same for answer in answers) / count,
        sum(answer.place for answer in answers) / count,
        sum(answer.place or answer.same for answer in answers) / count,
        ten / count,
        statistics.median(errors_s) if errors_s else float("nan"),
        1000 * statistics.median(search_s),
        1000 * statistics.median(search_cpu_s),
        [answer for answer in answers if not answer.place],
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_index_options(parser)
    options = parser.parse_args()
    count = min(options.count, 10) if options.quick else options.count
    results: list[Result] = []
    notes = []
    for name, stores in collections(options, sounds=4, sound_s=30):
        with TemporaryDirectory(prefix="embedindex-clips-") as folder:
            found = stores[0].files("status = 'ok' AND duration >= ?", (MIN_TRACK_S,))
            tracks = sorted(found, key=lambda one: one.path)
            clips = cut_clips(Path(folder), tracks, count, options.seed)
            results += [ask(name, store, clips) for store in stores]
        hours = sum(track.duration or 0.0 for track in tracks) / 3600
        notes.append(f"{name}: {len(clips)} clips of {len(tracks)} tracks ({hours:.1f} hours), seed {options.seed}.")
    for result in results:
        notes.append(f"Not strictly right, {result.collection}, {result.index}:")
        for answer in result.not_strictly_right:
            what = "same samples" if answer.same else f"correlation {answer.correlation:.3f}"
            notes.append(f"  {'place' if answer.file else 'file '}: {answer.clip} -> {answer.found}: {what}")
    header = ["collection", "index", "windows", "file", "place", "in first 10", "median error", "search"]
    notes.append("Targets: file 0.95, place 0.90. In brackets: counting the very samples elsewhere; processor time.")
    rows = [result.row for result in results]
    print_results(options.json, "Clips planted in long tracks", header, rows, notes, [asdict(one) for one in results])


if __name__ == "__main__":
    main()
