"""Training: labelled files of an index, split by group, become a classifier in a file and figures that hold for others.

A fifth of the groups is the test: what is printed about the classifier comes from them alone. The methods that learn
quickly then learn once more from everything, because more is better; the neural networks and boosting are kept as they
were tested. Where no label occurs in two groups, the split goes file by file, which flatters; it is said.

Conventions: ``n`` files, ``C`` classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from embedindex import metrics
from embedindex.arrays import BoolArray, Float64Array, Int64Array
from embedindex.classifier_file import About, default_path, metadata, write_classifier
from embedindex.classifier_rows import On, Progress, Rows, load_rows
from embedindex.errors import QueryError, UsageError
from embedindex.features import Kind
from embedindex.fitting import STOPPED, Fitted, Material, Method, fit
from embedindex.labelled import Labelled, load_labelled
from embedindex.learners import need_sklearn, parts_of
from embedindex.likeness import space_of
from embedindex.store import Store

TEST_PARTS = 5
LEAST_FILES = 10
LEAST_OF_A_CLASS = 2
MAX_FILES = 20_000
COVERAGE = 0.8
_SKLEARN = ("logistic", "forest", "boosting")


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
        key: of the labels.
        method: how to learn.
        group: ``folder``, ``album``, ``artist`` or a key of labels: what is kept together.
        on: what the classifier hears; None: what suits the method.
        kind: which features.
        seed: of everything random.
        workers: processes that read files; 0: one a core.
        limit: of more labelled files so many are drawn at random.
    """

    key: str
    method: Method
    group: str = "folder"
    on: On | None = None
    kind: Kind = "classic"
    seed: int = 0
    workers: int = 0
    limit: int = MAX_FILES

    @property
    def hears(self) -> On:
        """What the classifier hears."""
        return self.on or ("segments" if self.method == "cnn" else "embeddings")


@dataclass(frozen=True, eq=False)
class Scores:
    """How well files were judged that a classifier had not learnt from. Shares are from 0 to 1.

    Attributes:
        files: how many.
        accuracy: of the most probable class.
        macro_f1: mean of the classes' F1.
        majority: accuracy of always saying the commonest class.
        ece: expected calibration error.
        ece_noise: what it would be by chance with perfect confidences.
        accuracy_at_80: accuracy of the 80 % with the greatest confidence.
        confusion: (C, C) rows: what files are, columns: what they were taken for.
    """

    files: int
    accuracy: float
    macro_f1: float
    majority: float
    ece: float
    ece_noise: float
    accuracy_at_80: float
    confusion: Float64Array


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of it.

    Attributes:
        about: what the classifier is.
        path: where it was written.
        scores: of the test part; None where there are too few files for one.
        across_groups: whether the test part are whole groups.
        parts: how many files there were to learn from and to test with.
        unusable: labelled files that could not be used.
        rare: labels of fewer files than can be learnt from, which were left out.
        history: a line for each step of learning, of the methods that have steps.
    """

    about: About
    path: str
    scores: Scores | None
    across_groups: bool
    parts: tuple[int, int]
    unusable: int
    rare: tuple[str, ...]
    history: list[dict[str, float]]


def scores_of(chances: Float64Array, truth: BoolArray) -> Scores:
    """Return how good probabilities (n, C) are; a row of zeros is a file that nothing was said about."""
    said = chances.sum(axis=1) > 0
    chosen = np.where(said, chances.argmax(axis=1), -1)
    confidence, hit = chances.max(axis=1), metrics.correct(truth, chosen)
    table = metrics.confusion(truth, chosen)
    return Scores(
        files=len(truth),
        accuracy=float(hit.mean()),
        macro_f1=metrics.macro_f1(table),
        majority=float(truth.mean(axis=0).max()),
        ece=metrics.expected_calibration_error(confidence, hit),
        ece_noise=metrics.calibration_noise(confidence),
        accuracy_at_80=metrics.accuracy_at_coverage(confidence, hit, COVERAGE),
        confusion=table,
    )


def check_plan(plan: Plan) -> None:
    """Refuse early what cannot be done.

    Raises:
        UsageError: the method cannot hear that.
        EngineMissingError: what the method needs is not installed.
    """
    if (plan.method == "cnn") != (plan.hears == "segments"):
        raise UsageError(
            f"--method {plan.method} --on {plan.hears}: the cnn hears spectrograms and nothing else, the other methods "
            "hear embeddings, features or both"
        )
    if plan.method in _SKLEARN:
        need_sklearn(plan.method)
    if plan.method in ("mlp", "cnn"):
        from embedindex.keras_learners import need_tensorflow

        need_tensorflow(plan.method)


def load_material(store: Store, plan: Plan, progress: Progress | None = None) -> tuple[Labelled, Material, int, bool]:
    """Return (labelled files that can be used, what is heard of them, how many cannot be, whether groups hold).

    Raises:
        QueryError: there are no labels, only one value, or too few files.
        UsageError: there is no such group.
    """
    labelled = load_labelled(store, space_of(store), plan.key, plan.group, limit=plan.limit, seed=plan.seed)
    heard: Rows = load_rows(store, labelled.records, plan.hears, plan.kind, workers=plan.workers, progress=progress)
    usable = labelled.take(heard.places)
    across = bool(usable.judgeable(usable.groups).mean() > 0.5)
    groups = usable.groups if across else np.arange(len(usable), dtype=np.int64)
    return (
        usable,
        Material(heard.rows, heard.owner, heard.blocks, usable.truth, groups),
        len(labelled) - len(usable),
        across,
    )


def without_rare(material: Material, classes: tuple[str, ...]) -> tuple[Material, tuple[str, ...], tuple[str, ...]]:
    """Return (material of the classes that can be learnt, these, those that have too few files).

    Raises:
        QueryError: too little is left.
    """
    enough = material.truth.sum(axis=0) >= LEAST_OF_A_CLASS
    kept = material.take(np.flatnonzero(material.truth[:, enough].any(axis=1)))
    kept = replace(kept, truth=kept.truth[:, enough])
    if enough.sum() < 2:
        raise QueryError(
            f"two labels with {LEAST_OF_A_CLASS} usable files or more are needed, {int(enough.sum())} found; label more"
        )
    if len(kept) < LEAST_FILES:
        raise QueryError(
            f"{len(kept)} labelled files are too few to learn from and to test; label {LEAST_FILES} or more"
        )
    names = np.array(classes, object)
    return kept, tuple(names[enough]), tuple(names[~enough])


def split_test(material: Material, seed: int) -> tuple[Int64Array, Int64Array]:
    """Return (files to learn from, files to test with); none to test with when groups are too few for that."""
    parts = parts_of(material.groups, material.truth, TEST_PARTS, seed + 1)
    learning, test = np.flatnonzero(parts != 0), np.flatnonzero(parts == 0)
    known = material.truth[learning].any(axis=0)
    if not len(test) or known.sum() < 2 or len(np.unique(material.groups[learning])) < 2:
        return np.arange(len(material)), np.zeros(0, np.int64)
    return learning, test


def train(store: Store, plan: Plan, out: str | None = None, progress: Progress | None = None) -> Trained:
    """Train a classifier, test it, and write it.

    Args:
        store: the index.
        plan: what to train.
        out: the file; None: in the index folder.
        progress: told what is being done, how far it is, and of how many.

    Raises:
        QueryError: there is too little to learn from.
        UsageError: the plan makes no sense, or the file cannot be written.
        EngineMissingError: what the method needs is not installed.
    """
    check_plan(plan)
    labelled, whole, unusable, across = load_material(store, plan, progress)
    material, classes, rare = without_rare(whole, labelled.classes)
    learning, test = split_test(material, plan.seed)

    def step(done: int, of: int) -> None:
        if progress is not None:
            progress("Learning", done, of)

    step(0, 1)
    fitted = fit(plan.method, material.take(learning), seed=plan.seed, step=step)
    scores = None
    if len(test):
        tested = material.take(test)
        judged = np.flatnonzero((tested.truth & material.truth[learning].any(axis=0)).any(axis=1))
        if len(judged):
            scores = scores_of(fitted.chances(tested)[judged], tested.truth[judged])
    kept = fitted if plan.method in STOPPED or not len(test) else fit(plan.method, material, seed=plan.seed)
    about = _about(store, plan, material, classes, kept, scores, across, len(learning))
    path = out or default_path(store.folder, plan.key, plan.method)
    write_classifier(path, kept.graph(len(classes), material.rows.shape[-1], metadata(about)))
    return Trained(about, path, scores, across, (len(learning), len(test)), unusable, rare, fitted.history)


def _about(
    store: Store,
    plan: Plan,
    material: Material,
    classes: tuple[str, ...],
    fitted: Fitted,
    scores: Scores | None,
    across: bool,
    learning: int,
) -> About:
    model = store.model()
    needs_model = plan.hears in ("embeddings", "both") and model is not None
    return About(
        key=plan.key,
        classes=classes,
        method=plan.method,
        on=plan.hears,
        kind=plan.kind,
        columns=int(material.rows.shape[-1]),
        model=model.identity.fingerprint if model and needs_model else "",
        model_name=model.identity.name if model and needs_model else "",
        temperature=fitted.temperature,
        far=fitted.far,
        group=plan.group if across else "",
        files=learning if plan.method in STOPPED else len(material),
        seed=plan.seed,
        accuracy=scores.accuracy if scores else None,
    )
