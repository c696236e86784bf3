"""What learns from labelled rows: neighbours, logistic regression, a forest, boosted trees; each becomes plain arrays.

Conventions: rows (m, columns) float32 are prepared already (`embedindex.classifier_graph.Scaling`); `truth` is (m, C)
bool, a row may have several classes and then teaches each of them by an equal share; `groups` are (m,) int64. Rare
classes are weighted up, by the square root of how much rarer they are: fully balanced weights would make them be seen
everywhere. What has to be chosen is chosen by likelihood, across groups. The seed decides whatever is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.classifier_graph import (
    NEIGHBOUR_PRIOR,
    DenseClassifier,
    Layer,
    NeighboursClassifier,
    RowClassifier,
    Tree,
    TreesClassifier,
)
from embedindex.errors import EngineMissingError

K_CHOICES = (1, 3, 5, 10, 20)
SHARPNESS_CHOICES = (2.0, 5.0, 10.0, 20.0, 40.0)
PENALTY_CHOICES = (0.3, 3.0, 30.0, 300.0)  # scikit-learn's C
FOLDS = 4
TREES = 200
BOOSTING_STEPS = 80
BOOSTING_COLUMNS = 0.2  # share of the columns that each split may look at
LEAST_CHANCE = 1e-6

Step = Callable[[int, int], None]


def class_weights(truth: BoolArray) -> Float64Array:
    """Return (C,) the weight of a row of each class; over all rows they are 1 on average."""
    counts = np.maximum(truth.sum(axis=0), 1)
    weights = 1.0 / np.sqrt(counts)
    return np.asarray(weights * counts.sum() / (weights * counts).sum(), np.float64)


def expanded(truth: BoolArray) -> tuple[Int64Array, Int64Array, Float64Array]:
    """Return (row, class, weight) of every label of every row."""
    place, label = np.nonzero(truth)
    share = 1.0 / truth.sum(axis=1)
    return place, label, share[place] * class_weights(truth)[label]


def parts_of(groups: Int64Array, truth: BoolArray, folds: int, seed: int) -> Int64Array:
    """Return (m,) the part of each row: groups stay together, and every part gets a share of every class if it can be.

    Groups are dealt one by one, the largest first, to the part whose classes then stay nearest to an even share.
    """
    count = int(groups.max(initial=-1)) + 1
    inside = np.zeros((count, truth.shape[1]))
    np.add.at(inside, groups, truth.astype(float))
    random = np.random.default_rng(seed)
    order = random.permutation(count)
    order = order[np.argsort(-inside[order].sum(axis=1), kind="stable")]
    wanted = np.maximum(inside.sum(axis=0), 1) / folds
    held = np.zeros((folds, truth.shape[1]))
    part_of = np.zeros(count, np.int64)
    for group in order:
        over = (((held + inside[group]) / wanted) ** 2 - (held / wanted) ** 2).sum(axis=1)
        part_of[group] = int(np.argmin(over + 1e-6 * held.sum(axis=1)))
        held[part_of[group]] += inside[group]
    return np.asarray(part_of[groups], np.int64)


def splits(groups: Int64Array, truth: BoolArray, folds: int, seed: int) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Yield (rows to learn from, rows to judge), groups kept together; fewer than `folds` where groups are few."""
    folds = min(folds, int(groups.max(initial=-1)) + 1)
    part = parts_of(groups, truth, folds, seed)
    for number in range(folds):
        judged = np.flatnonzero(part == number)
        teachers = np.flatnonzero(part != number)
        if len(judged) and truth[teachers].any(axis=0).sum() > 1:
            yield teachers, judged


def answerable(truth: BoolArray, teachers: BoolArray) -> BoolArray:
    """Return (n,) whether a class of each file occurs among the teachers' (m, C): the others cannot be got right.

    Left in, they would teach a classifier to be less sure of the rest than it should be.
    """
    return np.asarray((truth & teachers.any(axis=0)).any(axis=1), np.bool_)


def likelihood(chances: Float64Array, truth: BoolArray) -> float:
    """Return the mean log probability of what rows are."""
    said = (chances * truth).sum(axis=1)
    return float(np.log(np.maximum(said, LEAST_CHANCE)).mean()) if len(said) else float("-inf")


@dataclass(frozen=True, eq=False)
class Learnt:
    """A classifier, and what classifiers like it said of rows of groups that they had not learnt from.

    Attributes:
        classifier: learnt from all rows.
        left_out: (m, C) probabilities, a row of zeros where none could be had.
    """

    classifier: RowClassifier
    left_out: Float64Array


def learn(method: str, rows: Float32Array, truth: BoolArray, groups: Int64Array, *, seed: int = 0) -> Learnt:
    """Return a classifier learnt from rows, with what was said across groups.

    Args:
        method: ``knn``, ``logistic`` or ``forest``.
        rows: prepared.
        truth: (m, C).
        groups: (m,).
        seed: of whatever is random.

    Raises:
        EngineMissingError: scikit-learn is not installed.
    """
    if method == "knn":
        return _neighbours(rows, truth, groups)
    need_sklearn(method)
    return (_logistic if method == "logistic" else _forest)(rows, truth, groups, seed)


def need_sklearn(method: str) -> None:
    """Raise EngineMissingError when scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise EngineMissingError(f"--method {method} needs scikit-learn: pip install 'embedindex[train]'") from error


def _neighbours(rows: Float32Array, truth: BoolArray, groups: Int64Array) -> Learnt:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    labels = np.asarray(truth / truth.sum(axis=1, keepdims=True), np.float32)
    cosines = np.where(groups[:, None] != groups[None, :], unit @ unit.T, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : max(K_CHOICES)]
    found = np.take_along_axis(cosines, nearest, axis=1)
    inside = np.zeros((int(groups.max()) + 1, truth.shape[1]), np.int64)
    np.add.at(inside, groups, truth.astype(np.int64))
    fair = (truth & (truth.sum(axis=0)[None, :] > inside[groups])).any(axis=1)
    best, chosen, said = float("-inf"), (5, 10.0), np.zeros(truth.shape)
    for k in K_CHOICES:
        for sharpness in SHARPNESS_CHOICES:
            weights = np.exp(sharpness * (found[:, :k] - 1.0))
            votes = np.einsum("mk,mkc->mc", weights, labels[nearest[:, :k]])
            shares = votes / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
            chances = NEIGHBOUR_PRIOR / truth.shape[1] + (1.0 - NEIGHBOUR_PRIOR) * shares
            if (told := likelihood(chances[fair], truth[fair])) > best:
                best, chosen, said = told, (k, sharpness), np.where(fair[:, None], chances, 0.0)
    return Learnt(NeighboursClassifier(np.asarray(unit, np.float32), labels, *chosen), said)


def _logistic(rows: Float32Array, truth: BoolArray, groups: Int64Array, seed: int) -> Learnt:
    # Turned into the space that the rows span, where there are fewer rows than columns: the same, but quicker.
    turned, lengths, axes = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    kept = lengths > 1e-6 * lengths[0]
    turned, axes = (turned * lengths)[:, kept], axes[kept]
    folds = list(splits(groups, truth, FOLDS, seed))
    best, chosen, left_out = float("-inf"), PENALTY_CHOICES[1], np.zeros(truth.shape)
    for penalty in PENALTY_CHOICES:
        said = np.zeros(truth.shape)
        for teachers, judged in folds:
            kernel, bias = _regression(turned[teachers], truth[teachers], penalty)
            fair = judged[answerable(truth[judged], truth[teachers])]
            said[fair] = softmax(turned[fair] @ kernel + bias)
        known = said.sum(axis=1) > 0
        if known.any() and (told := likelihood(said[known], truth[known])) > best:
            best, chosen, left_out = told, penalty, said
    kernel, bias = _regression(turned, truth, chosen)
    layer = Layer(np.asarray(axes.T @ kernel, np.float32), np.asarray(bias, np.float32))
    return Learnt(DenseClassifier((layer,)), left_out)


def _regression(rows: Float64Array, truth: BoolArray, penalty: float) -> tuple[Float64Array, Float64Array]:
    """Return (kernel (columns, C), bias (C,)); classes without a row get a probability of nearly nothing."""
    from sklearn.linear_model import LogisticRegression

    place, label, weight = expanded(truth)
    found = LogisticRegression(C=penalty, max_iter=200, tol=1e-3).fit(rows[place], label, sample_weight=weight)
    known, kernel, bias = found.classes_, found.coef_, found.intercept_
    if len(known) == 2:  # scikit-learn keeps the difference of the two only
        kernel, bias = np.concatenate((-kernel, kernel)) / 2, np.concatenate((-bias, bias)) / 2
    kernels = np.zeros((truth.shape[1], rows.shape[1]))
    biases = np.full(truth.shape[1], bias.min() + np.log(LEAST_CHANCE))
    kernels[known], biases[known] = kernel, bias
    return kernels.T, biases


def softmax(scores: Float64Array) -> Float64Array:
    """Return probabilities (n, C) of scores (n, C)."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float64)


def _forest(rows: Float32Array, truth: BoolArray, groups: Int64Array, seed: int) -> Learnt:
    left_out = np.zeros(truth.shape)
    for teachers, judged in splits(groups, truth, FOLDS, seed):
        forest = _forest_of(rows[teachers], truth[teachers], seed)
        fair = judged[answerable(truth[judged], truth[teachers])]
        if len(fair):
            left_out[fair[:, None], forest.classes_[None]] = forest.predict_proba(rows[fair])
    forest = _forest_of(rows, truth, seed)
    trees = [_grown(one.tree_, forest.classes_, truth.shape[1]) for one in forest.estimators_]
    return Learnt(TreesClassifier(tuple(trees), np.full(truth.shape[1], LEAST_CHANCE), logits=False), left_out)


def _forest_of(rows: Float32Array, truth: BoolArray, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    place, label, weight = expanded(truth)
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, n_jobs=-1, random_state=seed)
    return forest.fit(rows[place], label, sample_weight=weight)


def _grown(tree: Any, classes: Int64Array, outputs: int) -> Tree:
    """Return a tree of scikit-learn's forest; its leaves hold shares of the classes, over the number of trees."""
    leaf = np.asarray(tree.children_left) < 0
    shares = np.asarray(tree.value)[:, 0]
    value = np.zeros((len(leaf), outputs))
    value[:, classes] = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12) / TREES
    return Tree(
        np.asarray(tree.feature), np.asarray(tree.threshold), tree.children_left, tree.children_right, leaf, value
    )


def learn_boosting(
    rows: Float32Array,
    truth: BoolArray,
    validation: tuple[Float32Array, BoolArray],
    *,
    seed: int,
    history: list[dict[str, float]],
) -> TreesClassifier:
    """Return boosted trees, as many as do best on the validation's rows; `history` gets a line for each step.

    Raises:
        EngineMissingError: scikit-learn is not installed.
    """
    need_sklearn("boosting")
    from sklearn.ensemble import HistGradientBoostingClassifier

    place, label, weight = expanded(truth)
    boosted = HistGradientBoostingClassifier(
        max_iter=BOOSTING_STEPS,
        learning_rate=0.15,
        max_leaf_nodes=8,
        min_samples_leaf=5,
        l2_regularization=1.0,
        max_features=BOOSTING_COLUMNS,
        early_stopping=False,
        random_state=seed,
    )
    boosted.fit(rows[place], label, sample_weight=weight)
    kept = _best_step(boosted, rows, truth, validation, history)
    return TreesClassifier(tuple(_boosted_trees(boosted, kept, truth.shape[1])), _base(boosted, truth), logits=True)


def _best_step(
    boosted: Any,
    rows: Float32Array,
    truth: BoolArray,
    validation: tuple[Float32Array, BoolArray],
    history: list[dict[str, float]],
) -> int:
    """Return after how many steps the validation's likelihood is greatest, and write down how it went."""
    known = boosted.classes_
    stages = zip(boosted.staged_predict_proba(rows), boosted.staged_predict_proba(validation[0]), strict=True)
    for inside, outside in stages:
        history.append(
            {
                "loss": -likelihood(inside, truth[:, known]),
                "accuracy": float(truth[:, known][np.arange(len(rows)), inside.argmax(axis=1)].mean()),
                "val_loss": -likelihood(outside, validation[1][:, known]),
                "val_accuracy": float(validation[1][:, known][np.arange(len(outside)), outside.argmax(axis=1)].mean()),
            }
        )
    return int(np.argmin([line["val_loss"] for line in history])) + 1


def _base(boosted: Any, truth: BoolArray) -> Float64Array:
    """Return (C,) what the scores start from; -14 for a class without a row."""
    base = np.full(truth.shape[1], np.log(LEAST_CHANCE))
    start = np.asarray(boosted._baseline_prediction).ravel()  # not public: the tests compare with predict_proba
    base[boosted.classes_] = start if len(start) > 1 else (-start[0] / 2, start[0] / 2)
    return base


def _boosted_trees(boosted: Any, steps: int, outputs: int) -> Iterator[Tree]:
    known = boosted.classes_
    for step in boosted._predictors[:steps]:
        for number, predictor in enumerate(step):
            nodes = predictor.nodes
            value = np.zeros((len(nodes), outputs))
            if len(step) == 1:  # two classes: one score, for the second
                value[:, known[0]], value[:, known[1]] = -nodes["value"] / 2, nodes["value"] / 2
            else:
                value[:, known[number]] = nodes["value"]
            yield Tree(
                nodes["feature_idx"].astype(np.int64),
                nodes["num_threshold"].astype(np.float64),
                nodes["left"].astype(np.int64),
                nodes["right"].astype(np.int64),
                nodes["is_leaf"].astype(bool),
                value,
            )
