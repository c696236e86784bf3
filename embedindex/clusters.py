"""Groups of files, or of windows, that sound alike, found without labels in the index's space.

Conventions: rows are unit vectors of the space, so that the mean similarity of a row to a group is its inner product
with the group's mean, and the medoid is the member where that is largest. Clusters are numbered from 0, the largest
first; -1 is none. Everything random comes from one seed; memory grows with the files of an index, not with its windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedindex.arrays import Float32Array, Int64Array
from embedindex.errors import EngineMissingError, IndexEmptyError, UsageError, display_path
from embedindex.likeness import load_files, space_of
from embedindex.space import Space
from embedindex.store import Store

By = Literal["files", "windows"]
Report = Callable[[str, int, int], None]

LEARNT_FROM = 50_000  # rows that k-means learns from
HDBSCAN_ROWS = 20_000  # rows that HDBSCAN looks at; the others follow their nearest among these
SILHOUETTE_ROWS = 2_000
CLEAR = 0.5  # L. Kaufman and P. Rousseeuw, "Finding groups in data" (1990): a reasonable structure has been found
MOST_CLUSTERS = 64  # more groups than anybody looks through are not proposed
STEPS = 14
SHARE = 0.2  # a file belongs to the clusters of so much of its windows
SHORTLIST = 40  # candidates for exemplars that are kept of each cluster


@dataclass(frozen=True)
class Exemplar:
    """A typical member: its file, its window (None for a whole file), and its mean similarity to the others."""

    file_id: int
    window: int | None
    similarity: float


@dataclass(frozen=True)
class Group:
    """A cluster: how many members, how alike they are on average, and the most typical ones, of different files."""

    size: int
    similarity: float
    exemplars: tuple[Exemplar, ...]


@dataclass(frozen=True)
class Clusters:
    """What was found.

    Attributes:
        by: what was grouped.
        groups: the clusters.
        files: for each file its clusters and what share of it belongs to each, largest first; none where empty.
        members: how many rows were grouped.
        unassigned: how many of them belong to no cluster.
        silhouette: of the clusters, measured on a sample; None when there is one only.
        chosen: why there are so many clusters, in words.
    """

    by: By
    groups: tuple[Group, ...]
    files: dict[int, tuple[tuple[int, float], ...]]
    members: int
    unassigned: int
    silhouette: float | None
    chosen: str


Batch = tuple[Int64Array, Int64Array, Float32Array]  # file ids, window numbers (-1: whole files), rows


def find_clusters(
    store: Store,
    by: By = "files",
    count: int | None = None,
    method: Literal["kmeans", "hdbscan"] = "kmeans",
    *,
    seed: int = 0,
    smallest: int = 5,
    exemplars: int = 3,
    report: Report = lambda _stage, _done, _total: None,
) -> Clusters:
    """Return the clusters of an index.

    Args:
        store: the index.
        by: what is grouped.
        count: how many clusters, None to choose (k-means only).
        method: ``"kmeans"`` (spherical, by FAISS) or ``"hdbscan"`` (scikit-learn), which leaves out what fits nowhere.
        seed: of everything random.
        smallest: HDBSCAN's smallest group.
        exemplars: typical members to name of each cluster.
        report: called with what is being done, rows done, and rows in all.

    Raises:
        IndexEmptyError: there is no sound in the index.
        UsageError: there are fewer rows than clusters.
        EngineMissingError: scikit-learn is not installed, and HDBSCAN was asked for.
    """
    space = space_of(store)
    total = _rows_in_all(store, by)
    limit = HDBSCAN_ROWS if method == "hdbscan" else LEARNT_FROM
    sample = _sample(store, space, by, total, limit, seed, report)
    if not len(sample):
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is no sound in this index; fill it with `embedindex scan`"
        )
    if count is not None and not 1 <= count <= len(sample):
        raise UsageError(f"--clusters {count}: there are only {len(sample)} {by} to group; choose fewer clusters")
    if method == "hdbscan":
        numbers = _hdbscan(sample, smallest)
        chosen = f"groups of at least {smallest}"
        centres, following = _means_of(sample, numbers), sample
    else:
        report("choosing", 0, STEPS)
        centres, chosen = _kmeans_or_choose(sample, count, seed, report)
        following = centres
        numbers = np.arange(len(centres))
    found = _Found(by, centres, exemplars)
    done = 0
    for ids, windows, rows in _batches(store, space, by):
        found.add(ids, windows, rows, _nearest(rows, following, numbers))
        done += len(rows)
        report("assigning", done, total)
    return found.finish(_silhouette(sample, _nearest(sample, following, numbers), seed), chosen)


def _rows_in_all(store: Store, by: By) -> int:
    counts = store.counts()
    return counts.ok if by == "files" else counts.windows


def _batches(store: Store, space: Space, by: By) -> Iterator[Batch]:
    if by == "files":
        for files in load_files(store, store.files("status = 'ok' AND missing_since IS NULL"), space, 1):
            yield files.ids, np.full(len(files.ids), -1, np.int64), files.rows
        return
    gone = np.array([record.id for record in store.files("missing_since IS NOT NULL")], np.int64)
    for numbers, vectors in store.vector_batches():
        owners = store.owners_of_windows(numbers)
        kept = np.flatnonzero(vectors.any(axis=1) & (owners >= 0) & ~np.isin(owners, gone))
        if len(kept):
            yield owners[kept], numbers[kept], space.apply(vectors[kept])


def _sample(store: Store, space: Space, by: By, total: int, limit: int, seed: int, report: Report) -> Float32Array:
    """Return up to `limit` rows, drawn evenly, in the order of the index."""
    drawn = np.ones(total, bool)
    if total > limit:
        drawn[:] = False
        drawn[np.random.default_rng(seed).choice(total, limit, replace=False)] = True
    parts, done = [], 0
    for _, _, rows in _batches(store, space, by):
        parts.append(rows[drawn[done : done + len(rows)]])
        done += len(rows)
        report("reading", done, total)
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _kmeans(rows: Float32Array, count: int, seed: int) -> Float32Array:
    """Return the centres (count, dimension) of spherical k-means, unit rows."""
    import faiss

    kmeans = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=25,
        nredo=3,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows) + 1,
    )
    kmeans.train(np.ascontiguousarray(rows))
    return np.asarray(kmeans.centroids, np.float32)


def _kmeans_or_choose(rows: Float32Array, count: int | None, seed: int, report: Report) -> tuple[Float32Array, str]:
    """Return centres and why there are so many.

    Where some number separates the groups clearly (mean silhouette of `CLEAR` or more), the number that does so best is
    taken. Otherwise the library is a continuum, in which a few clusters always look separated best: then it is the best
    number from half to twice the square root of half the rows, K. Mardia's rule of thumb.
    """
    if count is not None:
        return _kmeans(rows, count, seed), f"{count} asked for"
    most = min(MOST_CLUSTERS, len(rows) - 1)
    if most < 2:
        return _kmeans(rows, 1, seed), "too few to be divided"
    rule = float(np.sqrt(len(rows) / 2))
    least, top = min(most, max(2.0, rule / 2)), min(float(most), 2 * rule)
    wide = np.geomspace(2, most, STEPS)
    candidates = sorted({round(float(value)) for value in (*wide, *np.geomspace(least, max(top, least), 5))})
    tried: list[tuple[int, float, Float32Array]] = []
    for done, number in enumerate(candidates):
        centres = _kmeans(rows, number, seed)
        quality = _silhouette(rows, _nearest(rows, centres, np.arange(number)), seed)
        tried.append((number, -1.0 if quality is None else quality, centres))
        report("choosing", done + 1, len(candidates))
    clear = max(tried, key=lambda one: (one[1], -one[0]))
    if clear[1] >= CLEAR:
        return clear[2], f"{clear[0]} separate clearly (silhouette {clear[1]:.2f})"
    best = max(
        (one for one in tried if least <= one[0] <= max(top, least)), key=lambda one: (one[1], -one[0]), default=clear
    )
    return best[2], f"no clear groups; {best[0]} divide it best (silhouette {best[1]:.2f})"


def _hdbscan(rows: Float32Array, smallest: int) -> Int64Array:
    """Return (n,) the cluster of each row, -1 for none. R. Campello et al., "Hierarchical density estimates" (2015)."""
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise EngineMissingError("--method hdbscan needs scikit-learn: pip install 'embedindex[clusters]'") from error
    if len(rows) < 2:
        return np.zeros(len(rows), np.int64)
    size = max(2, min(smallest, len(rows)))
    found = HDBSCAN(min_cluster_size=size, min_samples=min(3, size), copy=True).fit_predict(rows)
    return np.asarray(found, np.int64)


def _means_of(rows: Float32Array, numbers: Int64Array) -> Float32Array:
    means = [rows[numbers == number].mean(axis=0) for number in range(int(numbers.max(initial=-1)) + 1)]
    return np.stack(means) if means else np.zeros((0, rows.shape[1]), np.float32)


def _nearest(rows: Float32Array, among: Float32Array, numbers: Int64Array) -> Int64Array:
    """Return (n,) the number of the one `among` that each row is most like."""
    found = np.empty(len(rows), np.int64)
    step = max(1, (1 << 24) // max(1, len(among)))
    for first in range(0, len(rows), step):
        found[first : first + step] = np.argmax(rows[first : first + step] @ among.T, axis=1)
    return numbers[found]


def _silhouette(rows: Float32Array, numbers: Int64Array, seed: int) -> float | None:
    """Return the mean silhouette of up to 2,000 assigned rows by cosine distance; None for fewer than two clusters.

    P. Rousseeuw, "Silhouettes: a graphical aid…" (1987); a cluster of one counts 0.
    """
    assigned = np.flatnonzero(numbers >= 0)
    if len(assigned) > SILHOUETTE_ROWS:
        assigned = np.sort(np.random.default_rng(seed).choice(assigned, SILHOUETTE_ROWS, replace=False))
    used, group = np.unique(numbers[assigned], return_inverse=True)
    if len(used) < 2:
        return None
    distances = 1.0 - rows[assigned] @ rows[assigned].T
    np.fill_diagonal(distances, 0.0)
    sizes = np.bincount(group)
    sums = np.stack([distances[:, group == number].sum(axis=1) for number in range(len(used))], axis=1)
    every = np.arange(len(group))
    inside = sums[every, group] / np.maximum(sizes[group] - 1, 1)
    means = sums / sizes
    means[every, group] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(np.maximum(inside, outside), 1e-12)
    return float(np.where(sizes[group] > 1, (outside - inside) / larger, 0.0).mean())


class _Found:
    """Members, exemplars and files of clusters, as rows come in."""

    def __init__(self, by: By, centres: Float32Array, exemplars: int) -> None:
        self._by = by
        self._centres = centres
        self._exemplars = exemplars
        self._sizes = np.zeros(len(centres), np.int64)
        self._sums = np.zeros(centres.shape, np.float64)
        self._best: list[list[tuple[float, int, int, Float32Array]]] = [[] for _ in centres]
        self._files: dict[int, dict[int, int]] = {}
        self._members = 0

    def add(self, ids: Int64Array, windows: Int64Array, rows: Float32Array, numbers: Int64Array) -> None:
        """Take rows and the clusters they are in."""
        self._members += len(rows)
        for file_id, number in zip(ids.tolist(), numbers.tolist(), strict=True):
            counts = self._files.setdefault(file_id, {})
            counts[number] = counts.get(number, 0) + 1
        for number in np.unique(numbers[numbers >= 0]).tolist():
            members = np.flatnonzero(numbers == number)
            self._sizes[number] += len(members)
            self._sums[number] += rows[members].sum(axis=0, dtype=np.float64)
            near = rows[members] @ self._centres[number]
            best = self._best[number]
            for place in np.argsort(-near, kind="stable")[:SHORTLIST].tolist():
                member = int(members[place])
                best.append((-float(near[place]), int(ids[member]), int(windows[member]), rows[member]))
            best.sort(key=lambda one: one[:3])
            del best[SHORTLIST:]

    def finish(self, silhouette: float | None, chosen: str) -> Clusters:
        """Return the clusters that have members, the largest first."""
        order = [int(number) for number in np.argsort(-self._sizes, kind="stable") if self._sizes[number]]
        new = {old: number for number, old in enumerate(order)}
        files = {}
        for file_id, counts in self._files.items():
            whole = sum(counts.values())
            shares = [(new[number], count / whole) for number, count in counts.items() if number >= 0]
            shares.sort(key=lambda one: (-one[1], one[0]))
            files[file_id] = tuple(
                one for place, one in enumerate(shares) if one[1] >= SHARE or (not place and one[1] > 0)
            )
        return Clusters(
            by=self._by,
            groups=tuple(self._group(number) for number in order),
            files=files,
            members=self._members,
            unassigned=self._members - int(self._sizes.sum()),
            silhouette=silhouette,
            chosen=chosen,
        )

    def _group(self, number: int) -> Group:
        """Return a cluster: exemplars are the members with the largest mean similarity to all, one of each file."""
        mean = self._sums[number] / self._sizes[number]
        ranked = sorted((-float(row @ mean), file_id, window) for _, file_id, window, row in self._best[number])
        taken: dict[int, Exemplar] = {}
        for similarity, file_id, window in ranked:
            taken.setdefault(file_id, Exemplar(file_id, None if window < 0 else window, -similarity))
        return Group(int(self._sizes[number]), float(mean @ mean), tuple(taken.values())[: self._exemplars])
