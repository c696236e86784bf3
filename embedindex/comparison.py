"""Methods side by side: every one learns anew in every fold, on the same split, and judges the same files.

Two protocols: without the own group (each group a fold; of more than `MAX_GROUPS` groups, `FOLDS` folds of several),
and a stratified split into `FOLDS` parts. The first line is what `genre` does without ``--method``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedindex.arrays import Float32Array, Float64Array, Int64Array
from embedindex.classifier_rows import Progress
from embedindex.evaluate import stratified_parts
from embedindex.fitting import Material, Method, fit
from embedindex.labelled import Labelled, metadata_rows
from embedindex.learners import parts_of
from embedindex.likeness import space_of
from embedindex.space import Space
from embedindex.store import Store
from embedindex.train import Plan, Scores, check_plan, load_material, scores_of
from embedindex.views import learn_views
from embedindex.voting import K_CHOICES, cross_fitted, hub_penalties

MAX_GROUPS = 20
FOLDS = 10
NEIGHBOURS = "neighbours"


@dataclass(frozen=True, eq=False)
class Line:
    """One method: its name, what it hears, its scores by protocol (None where impossible), and the seconds it took."""

    name: str
    on: str
    control: bool
    grouped: Scores | None
    k_fold: Scores | None
    wall_s: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """All lines, and how the files were split: classes, files, groups, folds of either protocol."""

    lines: tuple[Line, ...]
    classes: tuple[str, ...]
    files: int
    groups: int
    grouped_folds: int
    k_folds: int


Chances = Callable[[Int64Array], Float64Array]


def compare(
    store: Store, plans: Sequence[Plan], *, controls: bool = False, progress: Progress | None = None
) -> Comparison:
    """Return how methods do on the labelled files of an index.

    Args:
        store: the index.
        plans: the methods; key, group, seed and limit are the first one's.
        controls: also judge by metadata only and by random numbers, with logistic regression.
        progress: told what is being done, how far it is, and of how many.

    Raises:
        QueryError: there is too little to learn from.
        EngineMissingError: what a method needs is not installed.
    """
    for plan in plans:
        check_plan(plan)
    first = plans[0]
    loaded = {}
    for plan in plans:
        hears = (plan.hears, plan.kind)
        if hears not in loaded:
            loaded[hears] = load_material(store, plan, progress)
    paths = [{record.path for record in labelled.records} for labelled, *_ in loaded.values()]
    common = set.intersection(*paths)
    narrowed = {hears: _only(labelled, material, common) for hears, (labelled, material, _, _) in loaded.items()}
    labelled = narrowed[first.hears, first.kind][0]
    groups = labelled.groups
    grouped = groups if groups.max() < MAX_GROUPS else parts_of(groups, labelled.truth, FOLDS, first.seed)
    parts = stratified_parts(labelled.truth, FOLDS, first.seed)
    jobs: list[tuple[str, str, bool, Chances]] = [
        (NEIGHBOURS, "embeddings", False, _neighbours(labelled, space_of(store), first.seed))
    ]
    for plan in plans:
        material = narrowed[plan.hears, plan.kind][1]
        jobs.append((plan.method, _hearing(plan), False, learning(plan.method, material, groups, first.seed)))
    if controls:
        random = np.random.default_rng(first.seed).standard_normal((len(labelled), 64)).astype(np.float32)
        for name, rows in (("metadata only", metadata_rows(labelled.records)), ("random numbers", random)):
            jobs.append((name, "", True, learning("logistic", material_of(labelled, rows), groups, first.seed)))
    lines = []
    for number, (name, on, control, chances) in enumerate(jobs):
        if progress is not None:
            progress(f"Judging ({name})", number, len(jobs))
        started = time.monotonic()
        scores = [_scores(labelled, split, chances) for split in (grouped, parts)]
        lines.append(Line(name, on, control, scores[0], scores[1], time.monotonic() - started))
    counts = int(groups.max()) + 1, int(grouped.max()) + 1
    return Comparison(tuple(lines), labelled.classes, len(labelled), *counts, FOLDS)


def _hearing(plan: Plan) -> str:
    names = {"embeddings": "embeddings", "segments": "spectrograms", "features": f"{plan.kind} features"}
    return names.get(plan.hears, f"embeddings + {plan.kind} features")


def _only(labelled: Labelled, material: Material, common: set[bytes]) -> tuple[Labelled, Material]:
    place = np.array([number for number, record in enumerate(labelled.records) if record.path in common])
    return labelled.take(place), material.take(place)


def material_of(labelled: Labelled, rows: Float32Array) -> Material:
    """Return what there is to learn from rows (n, columns), one for each file."""
    owner = np.arange(len(labelled), dtype=np.int64)
    return Material(rows, owner, (rows.shape[1],), labelled.truth, labelled.groups)


def _scores(labelled: Labelled, split: Int64Array, chances: Chances) -> Scores | None:
    judged = labelled.judgeable(split)
    if not judged.any():
        return None
    return scores_of(chances(split)[judged], labelled.truth[judged])


def _neighbours(labelled: Labelled, space: Space, seed: int) -> Chances:
    def chances(split: Int64Array) -> Float64Array:
        views = learn_views(labelled.files, labelled.groups, space, seed)
        alike = views.likeness(labelled.files, labelled.files)
        penalties = hub_penalties(alike, split, split)
        return cross_fitted(alike, penalties, labelled.truth, split, K_CHOICES, seed, labelled.sources(split))[0]

    return chances


def learning(method: Method, material: Material, groups: Int64Array, seed: int) -> Chances:
    """Return what judges every part of a split by a method that learnt from the other parts."""

    def chances(split: Int64Array) -> Float64Array:
        found = np.zeros(material.truth.shape)
        # In a split by groups what is learnt inside a fold (penalties, temperature) keeps groups apart, too.
        nested = len(np.unique(split)) < 2 or _keeps_together(split, groups)
        inner = groups if nested else np.arange(len(material), dtype=np.int64)
        for part in np.unique(split):
            teachers = replace(material, groups=inner).take(np.flatnonzero(split != part))
            judged = np.flatnonzero(split == part)
            if teachers.truth.any(axis=0).sum() < 2:
                continue
            fitted = fit(method, teachers, seed=seed)
            found[judged] = fitted.chances(material.take(judged))
        return found

    return chances


def _keeps_together(split: Int64Array, groups: Int64Array) -> bool:
    return all(len(np.unique(split[groups == group])) == 1 for group in np.unique(groups))
