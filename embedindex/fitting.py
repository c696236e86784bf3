"""From labelled material to a classifier that believes itself rightly: prepare, learn, calibrate.

What the classifiers hear is prepared by the material they learn from alone. How surely they speak is learnt from files
of groups that they did not learn from: a temperature makes the mean confidence the share that is right. Methods that
learn quickly (knn, logistic, forest) learn from everything, and the temperature comes from a cross-validation; those
that need to be told when to stop (boosting, mlp, cnn) leave out a fifth for that, which gives the temperature, too.

Conventions: ``n`` files, each with one row or several segments; probabilities are (n, C), of a file the mean over its
segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.classifier_file import Session
from embedindex.classifier_graph import ConvClassifier, RowClassifier, Scaling, conv_graph, rows_graph
from embedindex.errors import UsageError
from embedindex.learners import LEAST_CHANCE, Step, answerable, learn, learn_boosting, parts_of

Method = Literal["knn", "logistic", "forest", "boosting", "mlp", "cnn"]
METHODS: tuple[Method, ...] = ("knn", "logistic", "forest", "boosting", "mlp", "cnn")
STOPPED = ("boosting", "mlp", "cnn")  # by a validation
LIMIT = 3.0  # standard deviations that a prepared column may be from its mean, as in the space of an index
VALIDATION_PARTS = 5
KNOWN_ROWS = 2000
FAR_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Material:
    """What there is to learn from.

    Attributes:
        rows: (m, columns) float32, or (m, frames, bands) of segments.
        owner: (m,) the file, from 0, that each row belongs to, ascending.
        blocks: columns of each kind.
        truth: (n, C) bool, of files.
        groups: (n,) int64 from 0, of files.
    """

    rows: Float32Array
    owner: Int64Array
    blocks: tuple[int, ...]
    truth: BoolArray
    groups: Int64Array

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, files: Int64Array) -> Material:
        """Return these files, which must ascend."""
        place = np.full(len(self.truth), -1, np.int64)
        place[files] = np.arange(len(files))
        kept = place[self.owner] >= 0
        groups = np.unique(self.groups[files], return_inverse=True)[1].astype(np.int64)
        return Material(self.rows[kept], place[self.owner[kept]], self.blocks, self.truth[files], groups)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier and what it needs to judge.

    Attributes:
        scaling: how rows are prepared; None for segments.
        classifier: what was learnt.
        temperature: by which log probabilities are divided.
        known: (rows, columns) prepared and of length 1: what is familiar; None for segments.
        far: less familiar than this is unknown.
        history: a line for each step of learning.
    """

    scaling: Scaling | None
    classifier: RowClassifier | ConvClassifier
    temperature: float
    known: Float32Array | None
    far: float
    history: list[dict[str, float]] = field(default_factory=list)

    def graph(self, classes: int, bands: int, metadata: dict[str, str]) -> bytes:
        """Return the classifier as an ONNX model."""
        if isinstance(self.classifier, ConvClassifier):
            return conv_graph(self.classifier, bands, classes, metadata)
        if self.scaling is None or self.known is None:
            raise ValueError("a classifier of rows needs a scaling and known rows")
        return rows_graph(self.scaling, self.classifier, self.known, classes, metadata)

    def chances(self, material: Material) -> Float64Array:
        """Return (n, C) calibrated probabilities of files."""
        return tempered(self.raw(material), self.temperature)

    def raw(self, material: Material) -> Float64Array:
        """Return (n, C) probabilities as they come."""
        content = self.graph(material.truth.shape[1], material.rows.shape[-1], {})
        return of_files(Session(content).probabilities(material.rows), material.owner, len(material))


def of_files(chances: Float64Array, owner: Int64Array, files: int) -> Float64Array:
    """Return (files, C) means of the rows' probabilities (m, C)."""
    sums = np.zeros((files, chances.shape[1]))
    np.add.at(sums, owner, chances)
    return np.asarray(sums / np.maximum(np.bincount(owner, minlength=files), 1)[:, None], np.float64)


def tempered(chances: Float64Array, temperature: float) -> Float64Array:
    """Return probabilities to the power of 1 / `temperature`, scaled to sum to 1 again."""
    raised = np.maximum(chances, LEAST_CHANCE) ** (1.0 / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float64)


def temperature_of(chances: Float64Array, truth: BoolArray) -> float:
    """Return the temperature with which the mean confidence is the share of files that are right; 1 of nothing.

    Rows of zeros, of which nothing is known, do not count.

    References:
        C. Guo et al., "On calibration of modern neural networks", ICML 2017; by moments instead of likelihood.
    """
    told = chances.sum(axis=1) > 0
    if not told.any():
        return 1.0
    chances, truth = chances[told], truth[told]
    # Shrunk towards one half by one file on each side, so that a few lucky files make no certainty.
    right = (truth[np.arange(len(truth)), chances.argmax(axis=1)].sum() + 1.0) / (len(truth) + 2.0)
    low, high = 0.1, 20.0
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        if tempered(chances, middle).max(axis=1).mean() > right:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def scaling_of(rows: Float32Array, blocks: tuple[int, ...]) -> Scaling:
    """Return how rows are prepared: columns standardised, every kind of column as long as every other."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1.0)
    scale = np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0)
    weight = np.concatenate([np.full(size, 1.0 / np.sqrt(size)) for size in blocks])
    return Scaling(mean, np.asarray(scale, np.float32), np.asarray(weight, np.float32), LIMIT)


def fit(method: Method, material: Material, *, seed: int = 0, step: Step | None = None) -> Fitted:
    """Return a classifier learnt from all of `material`, calibrated across its groups.

    Args:
        method: how to learn.
        material: at least two classes.
        seed: of everything random.
        step: told how far a neural network's learning is.

    Raises:
        UsageError: there are too few groups to leave out any.
        EngineMissingError: what the method needs is not installed.
    """
    if method in STOPPED:
        return _fit_stopped(method, material, seed, step)
    scaling = scaling_of(material.rows, material.blocks)
    rows = scaling.apply(material.rows)
    learnt = learn(method, rows, material.truth, material.groups, seed=seed)
    known, far = _familiar(rows, material.groups, seed)
    return Fitted(scaling, learnt.classifier, temperature_of(learnt.left_out, material.truth), known, far)


def _familiar(rows: Float32Array, groups: Int64Array, seed: int) -> tuple[Float32Array, float]:
    """Return (rows of length 1 that are familiar, the best cosine that all but a few have with other groups')."""
    unit = np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
    if len(unit) > KNOWN_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(len(unit), KNOWN_ROWS, replace=False))
        unit, groups = unit[kept], groups[kept]
    best = np.where(groups[:, None] != groups[None, :], unit @ unit.T, -1.0).max(axis=1)
    return unit, float(np.quantile(best, FAR_SHARE))


def _fit_stopped(method: Method, material: Material, seed: int, step: Step | None) -> Fitted:
    """Learn from four fifths of the groups, with the last fifth to say when to stop, and how sure to be."""
    parts = parts_of(material.groups, material.truth, VALIDATION_PARTS, seed)
    teachers, held = np.flatnonzero(parts != 0), np.flatnonzero(parts == 0)
    if not len(teachers) or not len(held):
        raise UsageError(f"--method {method} leaves out some groups to know when to stop: label more files or folders")
    learning, validation = material.take(teachers), material.take(held)
    history: list[dict[str, float]] = []
    truth, held_truth = learning.truth[learning.owner], validation.truth[validation.owner]
    if method == "cnn":
        from embedindex.keras_learners import learn_conv

        given = (validation.rows, held_truth)
        network = learn_conv(learning.rows, truth, given, seed=seed, history=history, step=step)
        fitted = Fitted(None, network, 1.0, None, -1.0, history)
    else:
        scaling = scaling_of(learning.rows, learning.blocks)
        rows, given = scaling.apply(learning.rows), (scaling.apply(validation.rows), held_truth)
        classifier: RowClassifier
        if method == "mlp":
            from embedindex.keras_learners import learn_dense

            classifier = learn_dense(rows, truth, given, seed=seed, history=history, step=step)
        else:
            classifier = learn_boosting(rows, truth, given, seed=seed, history=history)
        fitted = Fitted(scaling, classifier, 1.0, *_familiar(rows, learning.groups, seed), history)
    fair = answerable(validation.truth, learning.truth)
    temperature = temperature_of(fitted.raw(validation)[fair], validation.truth[fair])
    return Fitted(fitted.scaling, fitted.classifier, temperature, fitted.known, fitted.far, history)
