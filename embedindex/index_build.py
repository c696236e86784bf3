"""Making the lists of an approximate index: learning the centres, filling the lists, measuring what a search must read.

How many lists and candidates a search needs for its share of the true nearest is not guessed: for windows drawn from
the index, FAISS's proposals are compared with the exact answer among all windows of other files, which is computed on
the way, while the vectors come by anyhow. The same database gives the same index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedindex.arrays import Float16Array, Float32Array, Int64Array
from embedindex.cores import count_cores
from embedindex.index_centres import CentreFinder, learn_centres
from embedindex.index_file import SearchStep
from embedindex.index_lists import ivf_of, merged, preassigned, turned
from embedindex.index_plan import HELD_OUT, Plan, search_s
from embedindex.space import Space
from embedindex.store import Store
from embedindex.stored_vectors import sample_windows

if TYPE_CHECKING:
    import faiss

SEED = 1234
FAISS_WIDTH = 16  # see `index`
QUERY_BITS = 8  # how finely RaBitQ cuts a query
CODE_TRAINING = 10_000  # vectors that the range of a byte's codes is learnt from
# For how many results it is measured how much a search must read.
MEASURED_K = (10, 100)
FIRST_PROBES = 8
PROBE_SHARES = (0.625, 0.75, 0.875, 1.0)  # between so many lists and half as many
CANDIDATES = (2, 3, 4, 6, 10, 16, 30)  # a result
# So many standard errors a measured share must lie above the target.
CERTAINTY = 2.0
# And by so much of what the target lacks to 1: sounds that are still to come lie farther from the centres than those
# that they were learnt beside (measured: up to 0.015 of recall).
MARGIN = 0.2

Progress = Callable[[str, int, int], None]  # what, how many windows are done, of how many


@dataclass(frozen=True)
class Built:
    """Lists that are filled.

    Attributes:
        index: FAISS's.
        steps: what a search must read.
        closeness: mean inner product of a vector and the centre of its list: what drift is measured by.
    """

    index: faiss.Index
    steps: tuple[SearchStep, ...]
    closeness: float


def build_lists(store: Store, plan: Plan, space: Space, progress: Progress | None = None) -> Built:
    """Return the index of all vectors of a database, by a plan that is not flat."""
    import faiss

    tell = progress or (lambda *_: None)
    width = -(-plan.dimension // FAISS_WIDTH) * FAISS_WIDTH
    index = faiss.index_factory(width, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.kind == "rabitq":
        ivf_of(index).qb = QUERY_BITS
    tell("Learning the centres", 0, plan.training)
    judge = _Judge(store, plan, space)
    finder = _train(index, judge.strangers(sample_windows(store, plan.training, plan.dimension, SEED)))
    closeness = fill(
        index, space, store.vector_batches(), finder, judge, lambda done: tell("Filling", done, plan.windows)
    )
    return Built(index, judge.steps(index), closeness)


def _train(index: faiss.Index, sample: list[Float32Array]) -> CentreFinder:
    """Give an index its rotation and its centres, learnt from rows of the space; return the way to the centres.

    The list of rows is empty afterwards.
    """
    import faiss

    whole: Any = faiss.downcast_index(index)
    if isinstance(whole, faiss.IndexPreTransform):
        chain: Any = whole.chain
        chain.at(0).train(np.zeros((1, index.d), np.float32))  # a random rotation learns nothing from vectors
    ivf = ivf_of(index)
    rows = np.empty((sum(map(len, sample)), index.d), np.float32)
    done = 0
    while sample:  # each part is let go when it is turned: they are the most that building holds in memory
        part = turned(index, sample.pop(0))
        rows[done : done + len(part)] = part
        done += len(part)
    ivf.quantizer.add(learn_centres(rows, ivf.nlist, SEED))
    ivf.train(rows[:CODE_TRAINING])
    index.is_trained = True
    return finder_of(ivf)


def finder_of(ivf: Any) -> CentreFinder:
    """Return the way to the centres of an IVF index."""
    return CentreFinder.of(ivf.quantizer.reconstruct_n(0, ivf.nlist), SEED)


@dataclass(frozen=True)
class _Prepared:
    """A batch of vectors that is ready to be put into lists.

    Attributes:
        ids: (n,) window numbers.
        rows: (n, width) as the IVF index has them.
        closeness: (n,) inner products with the nearest centre.
        lists: (n,) its number.
        near: the held-out windows' neighbours among them, when there is a judge.
    """

    ids: Int64Array
    rows: Float32Array
    closeness: Float32Array
    lists: Int64Array
    near: tuple[Float32Array, Int64Array] | None


def fill(
    index: faiss.Index,
    space: Space,
    batches: Iterable[tuple[Int64Array, Float16Array]],
    finder: CentreFinder | None = None,
    judge: _Judge | None = None,
    tell: Callable[[int], None] | None = None,
) -> float:
    """Add vectors to lists; return their mean inner product with their lists' centres, NaN when there are none.

    Args:
        index: of lists.
        space: the vectors' space.
        batches: window numbers and stored vectors.
        finder: the way to its centres, when it is known already.
        judge: is to take note of all vectors.
        tell: is told how many windows are done.
    """
    import faiss

    ivf = ivf_of(index)
    way = finder or finder_of(ivf)

    def prepare(batch: tuple[Int64Array, Float16Array]) -> _Prepared:
        numbers, vectors = batch
        loud = np.flatnonzero(vectors.any(axis=1))
        unit, ids = space.apply(vectors[loud]), np.ascontiguousarray(numbers[loud])
        rows = turned(index, unit)
        closeness, lists = way.nearest(rows)
        return _Prepared(ids, rows, closeness, lists, None if judge is None else judge.nearest_of(ids, unit))

    total, count = 0.0, 0
    for done in _ahead(prepare, batches):
        if not len(done.rows):
            continue
        pointer = faiss.swig_ptr
        ivf.add_core(len(done.rows), pointer(done.rows), pointer(done.ids), pointer(done.lists))
        total, count = total + float(done.closeness.sum(dtype=np.float64)), count + len(done.rows)
        if judge is not None and done.near is not None:
            judge.note(*done.near)
        if tell is not None:
            tell(count)
    index.ntotal = ivf.ntotal
    return total / count if count else float("nan")


def _ahead(
    prepare: Callable[[tuple[Int64Array, Float16Array]], _Prepared], batches: Iterable[tuple[Int64Array, Float16Array]]
) -> Iterator[_Prepared]:
    """Yield what becomes of batches, in their order; some are prepared ahead, on all cores, while others are read."""
    workers = count_cores()
    waiting: deque[Future[_Prepared]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in batches:
            waiting.append(pool.submit(prepare, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Judge:
    """Finds the exact neighbours of some windows while all vectors come by, then measures the lists by them."""

    def __init__(self, store: Store, plan: Plan, space: Space) -> None:
        drawn = list(sample_windows(store, HELD_OUT, plan.dimension, SEED + 1, a_row=1))
        numbers = np.concatenate([numbers for numbers, _ in drawn])
        order = np.argsort(numbers)
        owners = store.owners_of_windows(numbers[order])
        records = {int(owner): store.file(int(owner)) for owner in np.unique(owners[owners >= 0])}
        runs = [records.get(int(owner)) for owner in owners]
        self._firsts = np.array([0 if run is None else run.first_window or 0 for run in runs])
        self._ends = self._firsts + np.array([0 if run is None else run.n_windows for run in runs])
        self._queries = np.concatenate([space.apply(vectors) for _, vectors in drawn])[order]
        self._space = space
        self._plan = plan
        self._aim = plan.recall + MARGIN * (1 - plan.recall)
        most = max(MEASURED_K)
        self._scores = np.full((len(numbers), most), -np.inf, np.float32)
        self._windows = np.full((len(numbers), most), -1, np.int64)

    def strangers(self, sample: Iterable[tuple[Int64Array, Float16Array]]) -> list[Float32Array]:
        """Return vectors to learn the centres from, in the space, without those of the files that are asked for.

        Lists fit the sounds they were made from: measured by these, they seem better than a new sound finds them.
        """
        known: list[Float32Array] = []
        new: list[Float32Array] = []
        for numbers, vectors in sample:
            rows = self._space.apply(vectors)
            own = ((numbers[:, None] >= self._firsts) & (numbers[:, None] < self._ends)).any(axis=1)
            known.append(rows[own])
            new.append(rows[~own])
        return new if sum(map(len, new)) > sum(map(len, known)) else known + new

    def nearest_of(self, numbers: Int64Array, rows: Float32Array) -> tuple[Float32Array, Int64Array]:
        """Return ((n, most) scores, (n, most) window numbers) of the nearest of some vectors that come by."""
        scores = self._queries @ rows.T
        # A file's own windows are near each other; what counts is what is found of other files.
        scores[(numbers >= self._firsts[:, None]) & (numbers < self._ends[:, None])] = -np.inf
        most = self._scores.shape[1]
        if scores.shape[1] <= most:
            return scores, np.broadcast_to(numbers, scores.shape)
        best = np.argpartition(-scores, most, axis=1)[:, :most]
        return np.take_along_axis(scores, best, 1), numbers[best]

    def note(self, scores: Float32Array, windows: Int64Array) -> None:
        """Take note of what `nearest_of` returned."""
        self._scores, self._windows = merged(self._scores, self._windows, scores, windows)

    def steps(self, index: faiss.Index) -> tuple[SearchStep, ...]:
        """Return what has to be read for each number of results."""
        found = []
        for k in MEASURED_K:
            enough = min(k, int(np.isfinite(self._scores).sum(axis=1).min()))
            found.append(self._step(index, k, self._windows[:, :enough]))
        return tuple(found)

    def _step(self, index: faiss.Index, k: int, truth: Int64Array) -> SearchStep:
        """Return the quickest search for `k` results that finds enough; the most thorough one if none does."""
        n_lists = ivf_of(index).nlist
        most = min(int(index.ntotal), CANDIDATES[-1] * k)
        probes = FIRST_PROBES // 2
        while True:
            probes = min(2 * probes, n_lists)
            found = self._enough(index, k, truth, probes, most)
            if found:
                fewer = {max(1, round(share * probes)) for share in PROBE_SHARES} - {probes}
                for few in sorted(fewer):
                    found += self._enough(index, k, truth, few, most)
                return min(found, key=lambda pair: pair[0])[1]
            if probes == n_lists:
                recall = float((self._ranks(index, truth, probes, most)[0] < most).mean())
                return SearchStep(k, probes, most, round(recall, 4))

    def _enough(
        self, index: faiss.Index, k: int, truth: Int64Array, probes: int, most: int
    ) -> list[tuple[float, SearchStep]]:
        """Return (expected seconds, search) of the searches of so many lists that find enough."""
        ranks, codes = self._ranks(index, truth, probes, most)
        found = []
        for factor in CANDIDATES:
            shares = (ranks < factor * k).mean(axis=1) if truth.size else np.ones(1)
            recall = float(shares.mean())
            if recall - CERTAINTY * float(shares.std()) / np.sqrt(len(shares)) >= self._aim:
                step = SearchStep(k, probes, min(factor * k, most), round(recall, 4))
                n_lists = ivf_of(index).nlist
                seconds = search_s(self._plan.kind, self._plan.dimension, n_lists, codes, step.candidates)
                found.append((seconds, step))
        return found

    def _ranks(self, index: faiss.Index, truth: Int64Array, probes: int, most: int) -> tuple[Int64Array, float]:
        """Return where each true neighbour is proposed, `most` where it is not, and how many codes are compared."""
        import faiss

        ivf = ivf_of(index)
        rows = turned(index, self._queries)
        closeness, lists = ivf.quantizer.search(rows, probes)
        ranks = np.full(truth.shape, most, np.int64)
        for place, wanted in enumerate(truth):
            own: Any = faiss.IDSelectorRange(int(self._firsts[place]), int(self._ends[place]))
            part = slice(place, place + 1)
            numbers = preassigned(ivf, rows[part], most, lists[part], closeness[part], faiss.IDSelectorNot(own))[0]
            order = np.argsort(numbers, kind="stable")
            at = np.minimum(np.searchsorted(numbers[order], wanted), most - 1)
            ranks[place] = np.where(numbers[order[at]] == wanted, order[at], most)
        return ranks, float(np.mean([ivf.invlists.list_size(int(number)) for number in lists.ravel()]) * probes)
