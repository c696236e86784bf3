"""Cutting a sound into units: on a grid, at onsets, on beats, where its colour changes, or where labels say.

Conventions: boundaries are in frames of the sound at its own rate, the first 0, the last its length; units tile the
sound without gap or overlap. A cut at an onset lies `CUT_BEFORE_S` before the attack, so that the attack stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import UsageError
from embedindex.remix.attacks import beats_s, onset_rate, onsets_s
from embedindex.remix.frames import BRIGHTNESS, CEPSTRA, FINE_S, FRAMES_PER_S, LEVEL, NOISINESS, Track
from embedindex.remix.labels import read_labels

Kind = Literal["auto", "onset", "beat", "novelty", "grid", "labels"]

SHORTEST_S, LONGEST_S = 0.12, 4.0
CUT_BEFORE_S = (0.003, 0.010)  # the quietest moment in this range before the attack
NOVELTY_S = 1.5  # mean length of a unit
NOVELTY_CELL_FRAMES = 11  # 128 ms: what novelty puts together
ONSETS_A_SECOND = 1.5  # from so many on, "auto" cuts at onsets
FALLBACK_GRID_S = 0.5


@dataclass(frozen=True)
class Cutting:
    """How to cut.

    Attributes:
        kind: the way.
        step_s: length of a unit on a grid, seconds.
        path: the file of labels.
    """

    kind: Kind = "auto"
    step_s: float = FALLBACK_GRID_S
    path: str | None = None


@dataclass(frozen=True)
class Unit:
    """One piece of a sound.

    Attributes:
        number: from 0.
        start: first frame, at the sound's own rate.
        end: the frame after its last.
        attack_s: seconds from its start to its attack; None when it does not begin with one.
        text: what its label says.
    """

    number: int
    start: int
    end: int
    attack_s: float | None = None
    text: str = ""

    @property
    def frames(self) -> int:
        """Length in frames."""
        return self.end - self.start


def parse_units(text: str) -> Cutting:
    """Return what ``auto``, ``onset``, ``beat``, ``novelty``, ``grid:250ms`` or ``labels:FILE`` asks for.

    Raises:
        UsageError: it is none of these, or the grid is finer than 0.12 s or coarser than 4 s.
    """
    kind, _, rest = text.partition(":")
    if kind == "labels" and rest:
        return Cutting("labels", path=rest)
    if kind == "grid" and rest:
        step_s = _seconds(rest, text)
        if not SHORTEST_S <= step_s <= LONGEST_S:
            raise UsageError(f"--units {text}: units are {SHORTEST_S:g} to {LONGEST_S:g} s long; try grid:250ms")
        return Cutting("grid", step_s)
    if kind == "auto" and not rest:
        return Cutting("auto")
    if kind == "onset" and not rest:
        return Cutting("onset")
    if kind == "beat" and not rest:
        return Cutting("beat")
    if kind == "novelty" and not rest:
        return Cutting("novelty")
    raise UsageError(f"--units {text}: choose auto, onset, beat, novelty, grid:250ms or labels:FILE")


def _seconds(text: str, option: str) -> float:
    number, scale = (text[:-2], 0.001) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        return float(number) * scale
    except ValueError:
        raise UsageError(f"--units {option}: {text!r} is not a length; write for example 250ms or 0.25s") from None


def cut(track: Track, frames: int, sample_rate: int, cutting: Cutting) -> tuple[list[Unit], str]:
    """Return the units of a sound, and which way they were cut (what ``auto`` came to).

    Args:
        track: the sound, described.
        frames: its length at its own rate, at least 1.
        sample_rate: its own rate, Hz.
        cutting: how to cut.

    Raises:
        UsageError: the file of labels cannot be read, or has no label within the sound.
    """
    kind = _automatic(track) if cutting.kind == "auto" else cutting.kind
    duration_s = frames / sample_rate
    attacks: Float64Array = np.zeros(0)
    texts: dict[int, str] = {}
    shortest_s, longest_s = SHORTEST_S, LONGEST_S
    if kind == "grid":
        bounds = np.round(np.arange(0.0, duration_s, cutting.step_s) * sample_rate)
    elif kind == "labels":
        labels = read_labels(cutting.path or "", duration_s)
        texts = {round(label.start_s * sample_rate): label.text for label in labels}
        bounds = np.round(np.array([time for label in labels for time in (label.start_s, label.end_s)]) * sample_rate)
        shortest_s, longest_s = 1.0 / sample_rate, np.inf  # a person knows what they do
    elif kind == "novelty":
        bounds = np.round(_novelty_s(track) * sample_rate)
    else:
        attacks = onsets_s(track)
        if kind == "beat":
            bounds = np.round(_snapped(beats_s(track), attacks, track) * sample_rate)
        else:
            bounds = np.round(np.array([cut_before(track.fine_db, time_s) for time_s in attacks]) * sample_rate)
    whole = _bounded(bounds, frames, sample_rate, shortest_s, longest_s)
    units = [
        Unit(number, start, end, _attack(attacks, start / sample_rate), texts.get(start, ""))
        for number, (start, end) in enumerate(pairwise(whole))
    ]
    return units, kind


def cut_before(fine_db: Float32Array, attack_s: float) -> float:
    """Return the quietest moment 3 to 10 ms before an attack, or the attack itself at the very start of a sound."""
    last = round((attack_s - CUT_BEFORE_S[0]) / FINE_S)
    first = round((attack_s - CUT_BEFORE_S[1]) / FINE_S)
    if first < 0 or last >= len(fine_db):
        return max(0.0, attack_s - CUT_BEFORE_S[0])
    return (first + 0.5 + int(np.argmin(fine_db[first : last + 1]))) * FINE_S


def _automatic(track: Track) -> Kind:
    if not len(track.frames) or track.frames[:, LEVEL].max() < -75.0:
        return "grid"
    if onset_rate(track) >= ONSETS_A_SECOND:
        return "onset"
    return "novelty" if track.duration_s >= 2 * NOVELTY_S else "onset"


def _attack(attacks: Float64Array, start_s: float) -> float | None:
    """Return how far behind the start of a unit its attack lies, if it begins with one."""
    place = int(np.searchsorted(attacks, start_s - 0.001))
    if place < len(attacks) and attacks[place] - start_s <= 2 * CUT_BEFORE_S[1]:
        return max(0.0, float(attacks[place]) - start_s)
    return None


def _snapped(beats: Float64Array, attacks: Float64Array, track: Track) -> Float64Array:
    """Return the cuts for beats: before the attack that falls on the beat, where there is one."""
    cuts = []
    for beat in beats:
        near = attacks[np.abs(attacks - beat) <= 0.05]
        cuts.append(cut_before(track.fine_db, float(near[np.argmin(np.abs(near - beat))])) if len(near) else beat)
    return np.array(cuts)


def _bounded(bounds: Float64Array, frames: int, sample_rate: int, shortest_s: float, longest_s: float) -> list[int]:
    """Return boundaries from 0 to `frames`: none closer than `shortest_s`, none farther apart than `longest_s`."""
    shortest = max(1, int(np.ceil(shortest_s * sample_rate - 1e-6)))
    kept = [0]
    for bound in np.unique(bounds.astype(np.int64)):
        if bound - kept[-1] >= shortest and bound < frames:
            kept.append(int(bound))
    if len(kept) > 1 and frames - kept[-1] < shortest:
        kept.pop()
    kept.append(frames)
    if not np.isfinite(longest_s):
        return kept
    whole = [0]
    longest = int(longest_s * sample_rate)
    for bound in kept[1:]:
        parts = -(-(bound - whole[-1]) // longest)
        start, length = whole[-1], bound - whole[-1]
        whole += [start + length * part // parts for part in range(1, parts + 1)]
    return whole


def _novelty_s(track: Track) -> Float64Array:
    """Return where the colour of a sound changes, by putting together the neighbours that differ least.

    Ward's criterion, neighbours only: what is lost in variance by joining two neighbouring pieces, least first, until
    pieces are `NOVELTY_S` long on average. J. H. Ward, "Hierarchical grouping…" (JASA 58, 1963); for audio: librosa's
    ``segment.agglomerative``.
    """
    import heapq

    frames = track.frames
    cells = max(1, len(frames) // NOVELTY_CELL_FRAMES)
    columns = np.r_[np.arange(CEPSTRA.start, CEPSTRA.stop), LEVEL, BRIGHTNESS, NOISINESS]
    features = frames[: cells * NOVELTY_CELL_FRAMES, columns].astype(np.float64)
    if cells < 2 or len(features) < cells * NOVELTY_CELL_FRAMES:
        return np.zeros(1)
    sums = features.reshape(cells, NOVELTY_CELL_FRAMES, -1).mean(axis=1)
    sums = (sums - sums.mean(axis=0)) / np.maximum(sums.std(axis=0), 1.0)
    wanted = max(1, round(track.duration_s / NOVELTY_S))
    longest = LONGEST_S * FRAMES_PER_S / NOVELTY_CELL_FRAMES
    counts, after = np.ones(cells), list(range(1, cells + 1))
    before = list(range(-1, cells - 1))
    version = [0] * cells

    def loss(left: int, right: int) -> float:
        gap = sums[left] / counts[left] - sums[right] / counts[right]
        return float(counts[left] * counts[right] / (counts[left] + counts[right]) * (gap @ gap))

    heap = [(loss(left, left + 1), left, left + 1, 0, 0) for left in range(cells - 1)]
    heapq.heapify(heap)
    left_over = cells
    while heap and left_over > wanted:
        _, left, right, left_version, right_version = heapq.heappop(heap)
        if (version[left], version[right]) != (left_version, right_version) or counts[left] + counts[right] > longest:
            continue
        sums[left] += sums[right]
        counts[left] += counts[right]
        after[left] = after[right]
        version[left] += 1
        version[right] = -1
        left_over -= 1
        if after[left] < cells:
            before[after[left]] = left
            heapq.heappush(heap, (loss(left, after[left]), left, after[left], version[left], version[after[left]]))
        if before[left] >= 0:
            heapq.heappush(heap, (loss(before[left], left), before[left], left, version[before[left]], version[left]))
    starts = [cell for cell in range(cells) if version[cell] >= 0]
    return np.array(starts) * (NOVELTY_CELL_FRAMES / FRAMES_PER_S)
