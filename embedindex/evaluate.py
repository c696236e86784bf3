"""How good are the labels' neighbourhoods? Every labelled file is judged by the others, and the judgement is judged.

Three protocols differ only in which files may speak about a file: all others (leave-one-out), those of other groups
(leave-one-group-out: no neighbour from the same folder, album or artist), those of the other parts of a stratified
split (k-fold). Leave-one-out flatters: files of one album share a studio, files of one pack a level and a length. The
grouped figure is the honest one. Whatever is learnt (k, weights, temperature, see `embedindex.voting`) is learnt
without the files that it judges.

Conventions: ``n`` files, ``C`` classes; likenesses are (n, n) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedindex import metrics
from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.errors import QueryError
from embedindex.labelled import Labelled, load_labelled, metadata_rows
from embedindex.likeness import FileSet, join, load_files, space_of
from embedindex.metrics import ReliabilityBin
from embedindex.space import Space
from embedindex.store import Store
from embedindex.views import learn_views, shares_of
from embedindex.voting import HUB_NEIGHBOURS, K_CHOICES, USUAL_K, cross_fitted, hub_penalties, plain_vote

# More labelled files than this are sampled: everything is compared with everything.
MAX_FILES = 6000
PRECISION_AT = 10
COVERAGE = 0.8
_RANDOM_DIMENSION = 64


@dataclass(frozen=True, eq=False)
class Figures:
    """What one protocol found. Shares are from 0 to 1.

    Attributes:
        files: how many files could be judged; the others have a label that no file outside their group has.
        groups: how many groups those files form.
        accuracy: of the most probable class.
        macro_f1: mean of the classes' F1.
        map: mean average precision of the files ranked by likeness, relevant when they share a label.
        precision_at_10: share of the 10 nearest that do.
        plain_vote: accuracy of a textbook vote of the k (unless asked for: 5) nearest files, for comparison.
        majority: accuracy of always saying the commonest class.
        ece: expected calibration error of the confidence.
        ece_noise: what `ece` perfect confidences would show by chance with so many files.
        ece_noise_groups: what confidences right on average would, with so many groups, each right or wrong together.
        accuracy_at_80: accuracy among the 80 % of the files with the greatest confidence.
        hubness: skewness of how often files are among the 10 nearest.
        k: the number of neighbours of each class: what was asked for, or the middle one of those chosen.
        ks: the numbers that cross-validation chose, for one part of the files or another.
        confusion: (C, C) rows: what files are, columns: what they were taken for.
        reliability: confidence against accuracy.
        judged: (n,) bool.
        chosen: (n,) the most probable class, -1 for none.
        confidence: (n,) its probability.
    """

    files: int
    groups: int
    accuracy: float
    macro_f1: float
    map: float
    precision_at_10: float
    plain_vote: float
    majority: float
    ece: float
    ece_noise: float
    ece_noise_groups: float
    accuracy_at_80: float
    hubness: float
    k: int
    ks: tuple[int, ...]
    confusion: Float64Array
    reliability: tuple[ReliabilityBin, ...]
    judged: BoolArray
    chosen: Int64Array
    confidence: Float64Array


@dataclass(frozen=True, eq=False)
class Method:
    """One line of a comparison: a model, a fusion of models or a control; None for a protocol that was impossible."""

    name: str
    control: bool
    grouped: Figures | None
    leave_one_out: Figures | None
    k_fold: Figures | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that was found.

    Attributes:
        key: of the labels.
        group: what made a group.
        k: the number of neighbours that was asked for, None: chosen by cross-validation.
        labelled: the files; of the first index where several were compared.
        methods: the first index's model, the others', their fusion, then the controls.
    """

    key: str
    group: str
    k: int | None
    labelled: Labelled
    methods: tuple[Method, ...]


def judge(likenesses: Float32Array, labelled: Labelled, groups: Int64Array, k: int | None, seed: int) -> Figures | None:
    """Return what files of other groups make of every file; None when no label occurs in two groups.

    Args:
        likenesses: (n, n).
        labelled: the files.
        groups: (n,) int64 from 0.
        k: neighbours; None: chosen by cross-validation.
        seed: of the dealing of groups into parts.
    """
    judged = labelled.judgeable(groups)
    if not judged.any():
        return None
    truth = labelled.truth
    allowed = groups[:, None] != groups[None, :]
    penalties = hub_penalties(likenesses, groups, groups)
    ks_asked = K_CHOICES if k is None else (k,)
    chances, ks = cross_fitted(likenesses, penalties, truth, groups, ks_asked, seed, labelled.sources(groups))
    shown_k = k or int(np.median(ks))
    votes = plain_vote(likenesses[judged], truth, allowed[judged], k or USUAL_K).argmax(axis=1)
    chosen = np.where(chances.sum(axis=1) > 0, chances.argmax(axis=1), -1)
    confidence = chances.max(axis=1)
    relevant, ranked = metrics.rankings(likenesses, truth, allowed)
    nearest = np.where(np.take_along_axis(allowed, ranked[:, :HUB_NEIGHBOURS], axis=1), ranked[:, :HUB_NEIGHBOURS], -1)
    hit = metrics.correct(truth[judged], chosen[judged])
    table = metrics.confusion(truth[judged], chosen[judged])
    return Figures(
        files=int(judged.sum()),
        groups=len(np.unique(groups[judged])),
        accuracy=float(hit.mean()),
        macro_f1=metrics.macro_f1(table),
        map=float(metrics.average_precision(relevant[judged]).mean()),
        precision_at_10=float(metrics.precision_at(relevant[judged], PRECISION_AT).mean()),
        plain_vote=metrics.accuracy(truth[judged], votes),
        majority=float(truth[judged].mean(axis=0).max()),
        ece=metrics.expected_calibration_error(confidence[judged], hit),
        ece_noise=metrics.calibration_noise(confidence[judged]),
        ece_noise_groups=metrics.calibration_noise_of_groups(confidence[judged], hit, groups[judged]),
        accuracy_at_80=metrics.accuracy_at_coverage(confidence[judged], hit, COVERAGE),
        hubness=metrics.hubness(nearest, len(truth)),
        k=shown_k,
        ks=tuple(sorted(set(ks))),
        confusion=table,
        reliability=tuple(metrics.reliability(confidence[judged], hit)),
        judged=judged,
        chosen=chosen,
        confidence=confidence,
    )


def stratified_parts(truth: BoolArray, parts: int, seed: int) -> Int64Array:
    """Return (n,) numbers of `parts` parts over which the files of every class are spread evenly, at random."""
    random = np.random.default_rng(seed)
    first = truth.argmax(axis=1)
    order = random.permutation(len(truth))
    order = order[np.argsort(first[order], kind="stable")]
    numbers = np.empty(len(truth), np.int64)
    numbers[order] = np.arange(len(truth)) % parts
    return numbers


def evaluate(
    stores: Sequence[Store],
    key: str,
    group: str = "folder",
    *,
    k: int | None = None,
    folds: int = 0,
    controls: bool = False,
    limit: int = MAX_FILES,
    seed: int = 0,
) -> Evaluation:
    """Judge the labelled files of an index; of several indexes of the same files, side by side on the same split.

    Args:
        stores: the indexes; what they are called, which labels and groups there are is the first one's.
        key: of the labels.
        group: ``folder``, ``album``, ``artist`` or a key of labels.
        k: neighbours; None: chosen by cross-validation.
        folds: also a stratified k-fold with so many parts; 0: not.
        controls: also judge by metadata only and by random numbers, which a real model must clearly beat.
        limit: of more labelled files so many are drawn at random.
        seed: of everything random.

    Raises:
        QueryError: no labels, no label that two files have, or no files that all indexes have.
    """
    first = stores[0]
    labelled = load_labelled(first, space_of(first), key, group, limit=limit, seed=seed)
    tables, labelled = _tables(stores, labelled)
    if not labelled.judgeable(np.arange(len(labelled), dtype=np.int64)).any():
        raise QueryError(f"no two labelled files have the same {key}, so that none can judge another; label more files")
    if controls:
        random = np.random.default_rng(seed).standard_normal((len(labelled), _RANDOM_DIMENSION))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        for name, rows in (("metadata only", metadata_rows(labelled.records)), ("random numbers", random)):
            tables[name] = (np.asarray(rows @ rows.T, np.float32), True)
    methods = []
    for name, (table, control) in tables.items():
        grouped = judge(table, labelled, labelled.groups, k, seed)
        alone = judge(table, labelled, np.arange(len(labelled), dtype=np.int64), k, seed)
        parts = stratified_parts(labelled.truth, folds, seed) if folds else None
        methods.append(
            Method(name, control, grouped, alone, None if parts is None else judge(table, labelled, parts, k, seed))
        )
    return Evaluation(key, group, k, labelled, tuple(methods))


def _tables(stores: Sequence[Store], labelled: Labelled) -> tuple[dict[str, tuple[Float32Array, bool]], Labelled]:
    """Return ({name: (likenesses, is it a control)} of the models and of their fusion, the files that all have)."""
    paths = [record.path for record in labelled.records]
    found: list[tuple[str, dict[bytes, int], FileSet, Space]] = [
        (
            _model_name(stores[0]),
            {path: number for number, path in enumerate(paths)},
            labelled.files,
            space_of(stores[0]),
        )
    ]
    for store in stores[1:]:
        records = [record for path in paths if (record := store.file_by_path(path)) is not None]
        space = space_of(store)
        sets = list(load_files(store, records, space))
        if not sets:
            raise QueryError(
                "an index to compare with holds none of the labelled files, by path; scan the same folders"
            )
        files = join(sets)
        path_of = {record.id: record.path for record in records}
        found.append((_model_name(store), {path_of[int(i)]: place for place, i in enumerate(files.ids)}, files, space))
    common = np.array([number for number, path in enumerate(paths) if all(path in places for _, places, *_ in found)])
    if len(common) < 2:
        raise QueryError("the indexes have fewer than two labelled files in common, by path; scan the same folders")
    labelled = labelled.take(common)
    tables: dict[str, tuple[Float32Array, bool]] = {}
    for number, (name, places, files, space) in enumerate(found, 1):
        same_files = files.take(np.array([places[paths[place]] for place in common]))
        table = learn_views(same_files, labelled.groups, space).likeness(same_files, same_files)
        tables[name if name not in tables else f"{name} ({number})"] = (table, False)
    if len(tables) > 1:
        tables[" + ".join(tables)] = (fused([table for table, _ in tables.values()], labelled.groups), False)
    return tables, labelled


def fused(tables: Sequence[Float32Array], groups: Int64Array) -> Float32Array:
    """Return the mean of likenesses (n, n), weighted so that across groups they all spread equally."""
    apart = groups[:, None] != groups[None, :]
    if not apart.any():
        apart = ~np.eye(len(groups), dtype=bool)
    total = np.zeros_like(tables[0])
    for table, share in zip(tables, shares_of([float(np.std(table[apart])) for table in tables]), strict=True):
        total = total + np.float32(share) * table
    return total


def _model_name(store: Store) -> str:
    model = store.model()
    return "?" if model is None else model.identity.name
