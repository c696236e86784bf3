"""Tagging by neighbours: what the labelled files of an index say about the others, with a confidence one can believe.

A `Judge` is learnt from the labelled files (see `embedindex.voting` for how they vote and how the confidence is made);
it then judges any other file, and abstains on sounds that are like nothing that is labelled (`embedindex.familiarity`).
For a timeline it judges window by window.

Conventions: confidences are probabilities over the labels; times are seconds. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embedindex.arrays import BoolArray, Float16Array, Float32Array, Float64Array, Int64Array
from embedindex.familiarity import Familiarity, learn_familiarity
from embedindex.labelled import Labelled, load_labelled
from embedindex.likeness import FileSet, load_files, sounds_as_set, space_of, vectors_as_set
from embedindex.records import FileRecord
from embedindex.regression import Regression, learn_regression
from embedindex.space import Space
from embedindex.store import Store
from embedindex.views import Views, learn_views
from embedindex.voting import K_CHOICES, Voter, choose_voter, gather_evidence, hub_penalties
from embedindex.windows import window_start_s

# Files beyond these numbers are left out, at random: from all that vote, and from those the weights are learnt from.
MAX_LABELLED = 20_000
MAX_TEACHERS = 3000
SMOOTHING_S = 5.0
SHOWN_NEIGHBOURS = 5
_AT_ONCE = 512


@dataclass(frozen=True)
class Neighbour:
    """A labelled file that spoke for a judgement: its path, how alike it is, and its labels."""

    path: bytes
    likeness: float
    values: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A stretch of a file with one label."""

    start_s: float
    end_s: float
    value: str
    confidence: float


@dataclass(frozen=True)
class Judgement:
    """What the neighbours say about one file.

    Attributes:
        values: the most probable labels with their probabilities, descending.
        nearest: likeness of the nearest labelled file.
        familiarity: how much it is like anything labelled, see `embedindex.familiarity`.
        familiar: False when that is less than nearly all labelled files have.
        neighbours: who spoke, nearest first; empty unless asked for.
    """

    values: tuple[tuple[str, float], ...]
    nearest: float
    familiarity: float
    familiar: bool
    neighbours: tuple[Neighbour, ...] = ()

    def labels(self, min_confidence: float = 0.0, *, several: bool = False) -> tuple[tuple[str, float], ...]:
        """Return the labels to give the file; () for unknown.

        Args:
            min_confidence: less sure than this is unknown.
            several: also the next ones, while at least half as probable as the first.
        """
        if not self.familiar or not self.values or self.values[0][1] < min_confidence:
            return ()
        if not several:
            return self.values[:1]
        least = max(min_confidence, self.values[0][1] / 2)
        return tuple(pair for pair in self.values if pair[1] >= least)


@dataclass(frozen=True, eq=False)
class Judge:
    """Labelled files, ready to judge others.

    Attributes:
        labelled: the files that vote.
        space: the index's space.
        views: how alike files are.
        summaries: those of the labelled files, prepared by `views`.
        sources: (m,) which of them are one witness, see `embedindex.voting`.
        penalties: (m,) what is subtracted from the likeness of each, see `embedindex.voting`.
        teachers: (t,) numbers of the labelled files that the weights and the regression were learnt from.
        regression: what those say together.
        voter: k and the weights of the evidence.
        familiarity: tells what is unknown.
        across_groups: whether the confidence was learnt across groups, as opposed to file by file.
    """

    labelled: Labelled
    space: Space
    views: Views
    summaries: Float32Array
    sources: Int64Array
    penalties: Float32Array
    teachers: Int64Array
    regression: Regression
    voter: Voter
    familiarity: Familiarity
    across_groups: bool

    def judge(self, files: FileSet, *, top: int = 3, explain: bool = False) -> list[Judgement]:
        """Return what the neighbours say about each of some files; a labelled file does not judge itself.

        Args:
            files: their stretches.
            top: how many labels to name.
            explain: name the neighbours too.
        """
        alike = self._likeness(files)
        itself = np.isin(files.ids, self.labelled.files.ids)
        allowed = files.ids[:, None] != self.labelled.files.ids[None, :] if itself.any() else None
        chances = self._chances(alike, self._scores(files, alike), allowed)
        shown = alike if allowed is None else np.where(allowed, alike, -np.inf)
        best = np.argsort(-chances, axis=1, kind="stable")[:, :top]
        nearest, familiarity = shown.max(axis=1), self.familiarity.of(files, shown)
        return [
            Judgement(
                tuple((self.labelled.classes[column], float(row[column])) for column in columns if row[column] > 0),
                float(near),
                float(known),
                bool(known >= self.familiarity.far),
                self._neighbours(shown[number]) if explain else (),
            )
            for number, (row, columns, near, known) in enumerate(zip(chances, best, nearest, familiarity, strict=True))
        ]

    def _likeness(self, files: FileSet) -> Float32Array:
        return self.views.likeness_to(files, self.labelled.files, self.summaries)

    def _scores(self, files: FileSet, alike: Float32Array) -> Float64Array:
        """Return (n, C) what the regression says; of a file that it learnt from, what it says without that."""
        scores = self.regression.scores(alike[:, self.teachers])
        learnt = self.labelled.files.ids[self.teachers]
        _, own, place = np.intersect1d(files.ids, learnt, return_indices=True)
        scores[own] = self.regression.left_out[place]
        return scores

    def _chances(self, alike: Float32Array, scores: Float64Array, allowed: BoolArray | None = None) -> Float64Array:
        truth = self.labelled.truth
        (evidence,) = gather_evidence(alike - self.penalties, truth, scores, [self.voter.k], allowed, self.sources)
        return self.voter.probabilities(evidence)

    def _neighbours(self, alike: Float32Array) -> tuple[Neighbour, ...]:
        found = []
        for number in np.argsort(-(alike - self.penalties), kind="stable")[:SHOWN_NEIGHBOURS]:
            if not np.isfinite(alike[number]):  # the file itself
                continue
            values = tuple(self.labelled.classes[column] for column in np.flatnonzero(self.labelled.truth[number]))
            found.append(Neighbour(self.labelled.records[number].path, float(alike[number]), values))
        return tuple(found)

    def timeline(self, vectors: Float16Array, hop_s: float, window_s: float, duration_s: float | None) -> list[Span]:
        """Return how the label changes along a file; silent windows belong to what is before them.

        Each window is judged with those up to half of `SMOOTHING_S` before and after it, as a file of its own.

        Args:
            vectors: (windows, dimension) as stored.
            hop_s: seconds between the starts of two windows.
            window_s: length of a window.
            duration_s: length of the file; None: up to the end of its last window.
        """
        loud = np.flatnonzero(vectors.any(axis=1))
        if not len(loud):
            return []
        reach = SMOOTHING_S / 2 / hop_s
        edges_of = zip(np.searchsorted(loud, loud - reach), np.searchsorted(loud, loud + reach, "right"), strict=True)
        around = [vectors[loud[first:after]] for first, after in edges_of]
        stretches = int(np.diff(self.labelled.files.starts).max(initial=1))
        parts = []
        for first in range(0, len(around), _AT_ONCE):
            files = sounds_as_set(around[first : first + _AT_ONCE], self.space, stretches)
            alike = self._likeness(files)
            parts.append(self._chances(alike, self._scores(files, alike)))
        chances = np.concatenate(parts)
        chosen = chances.argmax(axis=1)
        changes = np.flatnonzero(np.diff(chosen)) + 1
        edges = [0, *changes.tolist(), len(loud)]
        end_s = duration_s or window_start_s(int(loud[-1]), hop_s) + window_s
        starts_s = [0.0, *(window_start_s(int(loud[edge]), hop_s) for edge in edges[1:-1]), end_s]
        return [
            Span(
                starts_s[number],
                starts_s[number + 1],
                self.labelled.classes[chosen[first]],
                float(chances[first:after, chosen[first]].mean()),
            )
            for number, (first, after) in enumerate(pairwise(edges))
        ]


def learn_judge(
    store: Store,
    key: str,
    group: str = "folder",
    *,
    k: int | None = None,
    queries: tuple[int, float] | None = None,
    seed: int = 0,
) -> Judge:
    """Return a judge learnt from the files of an index that were given a label of `key`.

    The confidence is learnt across groups where the labels allow it, so that it holds for new folders, albums or
    artists; otherwise file by file.

    Args:
        store: the index.
        key: of the labels.
        group: ``folder``, ``album``, ``artist`` or a key of labels.
        k: neighbours of each label; None: chosen by cross-validation.
        queries: how many files will be judged, and how many windows they have on average; None: a few.
        seed: of what is drawn at random where there are very many files.

    Raises:
        QueryError: there are no labels, or only one value.
        UsageError: there is no such group.
    """
    space = space_of(store)
    labelled = load_labelled(store, space, key, group, limit=MAX_LABELLED, queries=queries or (1, 16.0), seed=seed)
    place = np.arange(len(labelled), dtype=np.int64)
    if len(labelled) > MAX_TEACHERS:
        place = np.sort(np.random.default_rng(seed).choice(len(labelled), MAX_TEACHERS, replace=False))
    teachers = labelled.take(place)
    across_groups = bool(teachers.judgeable(teachers.groups).mean() > 0.5)
    groups = labelled.groups if across_groups else np.arange(len(labelled), dtype=np.int64)
    teacher_groups = groups[place]
    views = learn_views(labelled.files, groups, space, seed)
    penalties = hub_penalties(views.likeness(labelled.files, teachers.files), groups, teacher_groups)
    alike = views.likeness(teachers.files, teachers.files)
    regression = learn_regression(alike, teachers.truth, teacher_groups)
    ks = K_CHOICES if k is None else (k,)
    voter = choose_voter(alike, penalties[place], teachers.truth, teacher_groups, ks, regression.left_out)
    centre = space.kind != "standardised"
    familiarity = learn_familiarity(labelled.files, place, alike, teacher_groups, centre=centre)
    summaries = views.summaries(labelled.files)
    return Judge(
        labelled, space, views, summaries, groups, penalties, place, regression, voter, familiarity, across_groups
    )


def judge_files(
    judge: Judge, store: Store, records: Iterable[FileRecord], *, top: int = 3, explain: bool = False
) -> Iterator[tuple[int, Judgement]]:
    """Yield (file id, judgement) of files of the index; those that are silent or unusable are left out."""
    stretches = int(np.diff(judge.labelled.files.starts).max(initial=1))
    for files in load_files(store, records, judge.space, stretches):
        yield from zip(files.ids.tolist(), judge.judge(files, top=top, explain=explain), strict=True)


def judge_vectors(judge: Judge, vectors: Float16Array, *, top: int = 3, explain: bool = False) -> Judgement | None:
    """Return the judgement of a sound outside the index by its vectors (windows, dimension); None for silence."""
    loud = vectors[vectors.any(axis=1)]
    if not len(loud):
        return None
    return judge.judge(vectors_as_set(loud, judge.space), top=top, explain=explain)[0]


def unlabelled(store: Store, given: Sequence[int] | dict[int, list[str]]) -> list[FileRecord]:
    """Return the usable files of the index without a given label, by path."""
    known = set(given)
    return [record for record in store.files("status = 'ok' AND missing_since IS NULL") if record.id not in known]
