"""kNN voting with believable probabilities: what the nearest labelled files say about a file.

Each class is asked for three pieces of evidence: how alike its nearest file is, the mean over its `k` nearest sources,
and what a regression on all likenesses says (`embedindex.regression`). A source is a group of files (folder, album,
artist), which speaks by the mean of its two nearest files of the class: files that were made together are one witness,
and that many sources agree says more than that many files do. Asking every class for the same number of sources keeps a
big class from winning by numbers. Files that are near to everything (hubs) count for less: half of a labelled file's
mean likeness to its own 10 nearest is subtracted (as in cross-domain similarity local scaling). A softmax over the
weighted sums gives the probabilities; its three weights are learnt from the labelled files themselves, each predicted
by files of other groups only, and a temperature then makes the mean confidence equal to the accuracy. Files of one
group are right or wrong together, so that the weights move away from the usual ones by the number of groups, not of
files.

Conventions: ``n`` queries, ``m`` labelled files, ``C`` classes. Likenesses are (n, m) float32, see
`embedindex.likeness`; `truth` is (m, C) bool; `allowed` (n, m) says which files may speak; `groups` and `sources` are
(m,) int64.

References:
    D. McFadden, "Conditional logit analysis of qualitative choice behavior" (1974): the softmax with shared weights.
    A. Conneau et al., "Word translation without parallel data", ICLR 2018: CSLS.
    C. Guo et al., "On calibration of modern neural networks", ICML 2017: temperature scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.regression import cross_scores

K_CHOICES = (1, 3, 5, 10, 20)
# Another number than the usual must explain the labels so much better, in nats a file: the choice is noisy, and costs
# calibration where it goes wrong.
USUAL_K = 5
USUAL_SOURCES = 20  # where a source is more than a file: the more witnesses, the better calibrated
K_GAIN = 0.1
HUB_NEIGHBOURS = 10
HUB_SHARE = 0.5
PIECES = 3  # of evidence: nearest file, mean of the k nearest sources, regression
# Where little is known the weights stay near these: a unit of evidence is a standard deviation of the nearest one, of
# the regression's one of its own.
USUAL_WEIGHTS = np.array([1.0, 0.7, 0.7])
RIDGE = 2.0  # as many groups' worth of doubt
MAX_STEPS = 50
FOLDS = 10
_FAR = -2.0  # less alike than any two files


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the classes have to say for themselves.

    Attributes:
        pieces: (n, C, 3) float64.
        present: (n, C) whether any file of the class may speak.
    """

    pieces: Float64Array
    present: BoolArray


@dataclass(frozen=True, eq=False)
class Voter:
    """How evidence becomes probabilities.

    Attributes:
        k: how many sources of each class make its second piece of evidence.
        weights: (3,) of the pieces, temperature included.
        log_likelihood: mean over the files it was learnt from; the higher the better.
    """

    k: int
    weights: Float64Array
    log_likelihood: float = float("-inf")

    def probabilities(self, evidence: Evidence) -> Float64Array:
        """Return (n, C) probabilities that sum to 1 over the classes that are present; all 0 where none is."""
        return _softmax(evidence.pieces @ self.weights, evidence.present)


def hub_penalties(likenesses: Float32Array, groups: Int64Array, other_groups: Int64Array) -> Float32Array:
    """Return (m,) what to subtract from the likeness of each labelled file, by how near it is to all others.

    Args:
        likenesses: (m, others) of the labelled files with the same files or some of them.
        groups: (m,).
        other_groups: (others,); those of a file's own group do not count.
    """
    penalties = np.empty(len(groups), np.float32)
    for number, row in enumerate(likenesses):
        others = row[other_groups != groups[number]]
        count = min(HUB_NEIGHBOURS, len(others))
        nearest = np.partition(others, len(others) - count)[len(others) - count :]
        penalties[number] = HUB_SHARE * nearest.mean() if count else 0.0
    return penalties


def gather_evidence(
    likenesses: Float32Array,
    truth: BoolArray,
    scores: Float64Array,
    ks: Sequence[int],
    allowed: BoolArray | None = None,
    sources: Int64Array | None = None,
) -> list[Evidence]:
    """Return the evidence for each of several numbers of neighbours `ks`.

    Args:
        likenesses: (n, m), hub penalties subtracted.
        truth: (m, C).
        scores: (n, C) what the regression says.
        ks: numbers of nearest sources of a class.
        allowed: (n, m); None: all files may speak.
        sources: (m,) which files are one witness; None: each for itself.
    """
    queries, classes = len(likenesses), truth.shape[1]
    results = [np.full((queries, classes, PIECES), _FAR) for _ in ks]
    present = np.zeros((queries, classes), bool)
    sources = np.arange(len(truth), dtype=np.int64) if sources is None else sources
    for number in range(classes):
        members = np.flatnonzero(truth[:, number])
        if not len(members):
            continue
        nearest, said = _witnesses(likenesses, allowed, members, sources[members])
        counts = np.isfinite(said).sum(axis=1)
        there = counts > 0
        present[:, number] = there
        top = _largest(said, max(ks))
        running = np.cumsum(top, axis=1, dtype=np.float64)
        for result, k in zip(results, ks, strict=True):
            used = np.clip(counts, 1, min(k, top.shape[1]))
            mean = np.take_along_axis(running, used[:, None] - 1, axis=1)[:, 0] / used
            pieces = np.stack([nearest, mean, scores[:, number]], axis=1)
            result[there, number] = pieces[there]
    return [Evidence(result, present) for result in results]


def _witnesses(
    likenesses: Float32Array, allowed: BoolArray | None, members: Int64Array, sources: Int64Array
) -> tuple[Float32Array, Float32Array]:
    """Return how alike the nearest file of a class is (n,), and what its sources say (n, count): mean of two.

    Args:
        likenesses: (n, m).
        allowed: (n, m) or None.
        members: numbers of the files of the class.
        sources: theirs; one of which no file may speak says -inf.
    """
    _, starts, sizes = np.unique(np.sort(sources), return_index=True, return_counts=True)
    members = members[np.argsort(sources, kind="stable")]
    nearest, said = np.full(len(likenesses), -np.inf, np.float32), []
    for size in np.unique(sizes):  # sources of one size are heard at once
        theirs = members[starts[sizes == size][:, None] + np.arange(size)]
        values = likenesses[:, theirs]
        if allowed is not None:
            values = np.where(allowed[:, theirs], values, np.float32(-np.inf))
        if size > 2:
            values = np.partition(values, size - 2, axis=2)[:, :, -2:]
        high, low = np.maximum(values[:, :, 0], values[:, :, -1]), np.minimum(values[:, :, 0], values[:, :, -1])
        nearest = np.maximum(nearest, high.max(axis=1))
        said.append(np.where(np.isfinite(low), (high + low) / 2, high))
    return nearest, np.concatenate(said, axis=1)


def _largest(values: Float32Array, count: int) -> Float32Array:
    """Return the `count` largest values of each row, descending."""
    count = min(count, values.shape[1])
    if count == 1:
        return np.asarray(values.max(axis=1, keepdims=True), np.float32)
    least = values.shape[1] - count
    return np.asarray(np.sort(np.partition(values, least, axis=1)[:, least:], axis=1)[:, ::-1], np.float32)


def _softmax(scores: Float64Array, present: BoolArray) -> Float64Array:
    masked = np.where(present, scores, -np.inf)
    top = masked.max(axis=1, keepdims=True, initial=-np.inf)
    raised = np.where(present, np.exp(masked - np.where(np.isfinite(top), top, 0.0)), 0.0)
    return np.asarray(raised / np.maximum(raised.sum(axis=1, keepdims=True), 1e-300), np.float64)


def learn_voter(evidence: Evidence, truth: BoolArray, groups: Int64Array, k: int) -> Voter:
    """Return the voter that explains best what the files are, by Newton's method, then made to believe itself rightly.

    Args:
        evidence: of n files whose classes are known.
        truth: (n, C).
        groups: (n,).
        k: the number of neighbours that `evidence` was made with.
    """
    known = (truth & evidence.present).any(axis=1) & (evidence.present.sum(axis=1) > 1)
    pieces, present = evidence.pieces[known], evidence.present[known]
    unit = _unit_of(evidence)
    if not known.any():
        return Voter(k, USUAL_WEIGHTS / unit)
    pieces = np.where(present[..., None], pieces, 0.0) / unit
    wanted = (truth[known] & present).astype(np.float64)
    wanted /= wanted.sum(axis=1, keepdims=True)
    doubt = RIDGE * known.sum() / len(np.unique(groups[known]))
    weights = _newton(pieces, present, wanted, doubt)
    weights = weights * _temperature(pieces, present, truth[known], weights)
    chances = np.maximum(_softmax(pieces @ weights, present), 1e-12)
    return Voter(k, weights / unit, float((wanted * np.log(chances)).sum(axis=1).mean()))


def _unit_of(evidence: Evidence) -> Float64Array:
    """Return (3,) the standard deviations of the first and of the last piece: weights mean the same for every model."""
    known = evidence.pieces[evidence.present]
    if not len(known):
        return np.ones(PIECES)
    nearest, said = known[:, 0].std(), known[:, -1].std()
    return np.maximum([nearest, nearest, said], 1e-3)


def _newton(pieces: Float64Array, present: BoolArray, wanted: Float64Array, doubt: float) -> Float64Array:
    """Return the weights (3,) of the largest penalised likelihood."""
    weights = USUAL_WEIGHTS
    loss = _loss(pieces, present, wanted, doubt, weights)
    for _ in range(MAX_STEPS):
        chances = _softmax(pieces @ weights, present)
        mean = np.einsum("nc,ncd->nd", chances, pieces)
        gradient = (mean - np.einsum("nc,ncd->nd", wanted, pieces)).sum(axis=0) + doubt * (weights - USUAL_WEIGHTS)
        apart = pieces - mean[:, None]
        curvature = np.einsum("nc,ncd,nce->de", chances, apart, apart, optimize=True) + doubt * np.eye(PIECES)
        step = np.linalg.solve(curvature, gradient)
        # Far from the optimum the softmax is flat and a whole step overshoots.
        while (lower := _loss(pieces, present, wanted, doubt, weights - step)) > loss and np.abs(step).max() > 1e-9:
            step = step / 2
        weights, gain, loss = weights - step, loss - lower, lower
        if gain < 1e-9 * max(1.0, abs(loss)):
            break
    return weights


def _loss(pieces: Float64Array, present: BoolArray, wanted: Float64Array, doubt: float, weights: Float64Array) -> float:
    """Return the penalised negative log likelihood; convex in the weights."""
    scores = np.where(present, pieces @ weights, -np.inf)
    top = scores.max(axis=1)
    normaliser = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    said = (wanted * np.where(present, scores, 0.0)).sum(axis=1)
    return float((normaliser - said).sum() + doubt / 2 * ((weights - USUAL_WEIGHTS) ** 2).sum())


def _temperature(pieces: Float64Array, present: BoolArray, truth: BoolArray, weights: Float64Array) -> float:
    """Return the factor of the weights with which the mean confidence is the share of files that are right."""
    scores = pieces @ weights
    chosen = _softmax(scores, present).argmax(axis=1)
    # Shrunk towards one half by one file on each side, so that a few lucky files make no certainty.
    right = (truth[np.arange(len(chosen)), chosen].sum() + 1.0) / (len(chosen) + 2.0)
    low, high = 0.2, 5.0
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        if _softmax(scores * middle, present).max(axis=1).mean() < right:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def choose_voter(
    likenesses: Float32Array,
    penalties: Float32Array,
    truth: BoolArray,
    groups: Int64Array,
    ks: Sequence[int],
    scores: Float64Array,
    sources: Int64Array | None = None,
) -> Voter:
    """Return the voter learnt from labelled files, each predicted by those of other groups.

    Of several `ks` the usual one is taken unless another is clearly better.

    Args:
        likenesses: (m, m).
        penalties: (m,) of hubs.
        truth: (m, C).
        groups: (m,).
        ks: numbers of neighbours to choose from, by likelihood.
        scores: (m, C) what a regression says of each without its group.
        sources: (m,) which files are one witness; None: those of a group.
    """
    sources = groups if sources is None else sources
    allowed = groups[:, None] != groups[None, :]
    found = gather_evidence(likenesses - penalties, truth, scores, ks, allowed, sources)
    voters = {k: learn_voter(evidence, truth, groups, k) for evidence, k in zip(found, ks, strict=True)}
    best = max(voters.values(), key=lambda voter: voter.log_likelihood)
    usual_k = USUAL_K if len(np.unique(sources)) == len(sources) else USUAL_SOURCES
    usual = voters.get(usual_k, best)
    return usual if best.log_likelihood < usual.log_likelihood + K_GAIN else best


def cross_fitted(
    likenesses: Float32Array,
    penalties: Float32Array,
    truth: BoolArray,
    groups: Int64Array,
    ks: Sequence[int],
    seed: int = 0,
    sources: Int64Array | None = None,
) -> tuple[Float64Array, list[int]]:
    """Return what labelled files would be taken for by files of other groups, with a voter that never saw their group.

    The groups are dealt into up to 10 parts. For each part a voter (k, weights, temperature) is learnt from the files
    of the other parts alone, then it judges the files of this part by all files of other groups than their own.

    Args:
        likenesses: (m, m).
        penalties: (m,) of hubs.
        truth: (m, C).
        groups: (m,) int64 from 0.
        ks: numbers of neighbours to choose from.
        seed: of the dealing.
        sources: (m,) which files are one witness; None: those of a group.

    Returns:
        ((m, C) probabilities, the k that was chosen for each part).
    """
    sources = groups if sources is None else sources
    count = int(groups.max()) + 1 if len(groups) else 0
    dealt = np.random.default_rng(seed).permutation(np.arange(count) % max(1, min(FOLDS, count)))[groups]
    chances = np.zeros(truth.shape)
    chosen = []
    parts = [np.flatnonzero(dealt == part) for part in range(int(dealt.max(initial=-1)) + 1)]
    for inside, (taught, told) in zip(parts, cross_scores(likenesses, truth, groups, parts, sources), strict=True):
        outside = np.setdiff1d(np.arange(len(groups)), inside)
        square = likenesses[np.ix_(outside, outside)]
        taught_by = penalties[outside], truth[outside], groups[outside]
        voter = choose_voter(square, *taught_by, ks, taught, sources[outside])
        allowed = groups[inside][:, None] != groups[None, :]
        (evidence,) = gather_evidence(likenesses[inside] - penalties, truth, told, [voter.k], allowed, sources)
        chances[inside] = voter.probabilities(evidence)
        chosen.append(voter.k)
    return chances, chosen


def plain_vote(likenesses: Float32Array, truth: BoolArray, allowed: BoolArray, k: int) -> Float64Array:
    """Return the shares (n, C) of a textbook kNN vote: the `k` nearest count 1 each, nearer ones decide ties."""
    masked = np.where(allowed, likenesses, -np.inf)
    nearest = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(masked, nearest, axis=1)
    counts = np.where(np.isfinite(values), 1.0 + 1e-3 * np.where(np.isfinite(values), values, 0.0), 0.0)
    shares = truth / np.maximum(truth.sum(axis=1, keepdims=True), 1)
    votes = np.einsum("nk,nkc->nc", counts, shares[nearest])
    return np.asarray(votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-12), np.float64)
