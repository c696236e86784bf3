"""Which files are the same recording: to the byte, or at another bit rate, level or start.

Exact copies share the hash of their content. Near ones are looked for among the files of about the same length whose
mean vectors are nearest, and listened to (`embedindex.correlation`); where that cannot be, or is not wanted, their
stored vectors are compared window by window in time (`recording_likeness`). docs/duplicates.md has the measurements.
Nothing is deleted or changed.

Conventions: times are seconds; vectors are unit rows of the index's space, rows of zeros are silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.correlation import (
    MIN_WHOLE,
    SHORT_SAMPLE_RATE,
    Correlation,
    correlate,
    first_seconds,
    listening_rate,
)
from embedindex.errors import AudioError, IndexEmptyError, QueryError, UsageError, display_path
from embedindex.filters import Filters
from embedindex.index import IndexView
from embedindex.records import FileRecord
from embedindex.search import path_to_json
from embedindex.store import Store

if TYPE_CHECKING:
    import faiss

# Of the files nearest to a file so many are looked at, and of those of about its length so many compared with it.
NEAREST = 96
COMPARED_FILES = 32
# A few milliseconds late, a wave of a few milliseconds has quite another vector: such short files have more candidates.
WAVE_S = 0.05
NEAREST_TO_WAVES = 512
COMPARED_WITH_WAVES = 160
# Files whose mean vectors are less alike than this are not compared.
MIN_ALIKE = 0.3
# Up to so many files each is compared with all; above, with those of the cells that lie nearest (an inverted file).
COMPARED_WITH_ALL = 20_000
PROBED_CELLS = 32
BATCH_FILES = 1024
# The same recording may begin so much earlier or later, and differ so much in length.
MAX_OFFSET_S = 1.0
MAX_LENGTH_S = 1.0
MAX_LENGTH_SHARE = 0.02
# Of longer files so many windows, evenly spread, are compared.
COMPARED_WINDOWS = 128
# At least this share of the windows must have a partner.
MIN_PARTNERED = 0.7
LOSSLESS = ("pcm", "float", "double", "flac", "alac", "wavpack", "tta", "ape", "mlp", "truehd", "tak", "shorten", "dsd")
# The least likeness of files that are the same recording where they cannot be, or are not to be, listened to: by model,
# and of models for which nothing was measured.
LIKENESS = {"spectral": 0.97}
OTHER_LIKENESS = 0.99
# Of sounds that agree so well, but not well enough, the highs are heard, too.
NEARLY = 0.9
# So much of what was read of files is kept for the next comparisons.
KEPT_BYTES = 256 * 2**20

Kind = Literal["exact", "near"]


@dataclass(frozen=True)
class Duplicate:
    """One file of a group.

    Attributes:
        file: the file.
        likeness: its likeness to the group's first file, 1 for an exact copy of it.
        exact: whether it is to the byte the same as the group's first.
    """

    file: FileRecord
    likeness: float
    exact: bool


@dataclass(frozen=True)
class Group:
    """Files that are the same recording, the one to keep first."""

    files: tuple[Duplicate, ...]

    @property
    def kind(self) -> Kind:
        """``"exact"`` when all are the same to the byte."""
        return "exact" if all(one.exact for one in self.files) else "near"


def likeness_for(model: str) -> float:
    """Return the likeness from which on two files count as the same recording by the vectors of a model alone."""
    return LIKENESS.get(model, OTHER_LIKENESS)


def find_duplicates(
    store: Store,
    view: IndexView,
    *,
    near: bool = True,
    listen: bool = True,
    threshold: float | None = None,
    filters: Filters | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Group]:
    """Return the groups of files that are the same recording, by the path of their first file.

    Args:
        store: the index.
        view: its search index.
        near: also those that are not the same to the byte.
        listen: read the files that may be the same; those that cannot be read are decided by their vectors.
        threshold: from which correlation on (without `listen`: likeness); None for what was measured. What is asked of
            tones is more, and moves along.
        filters: only among these files.
        progress: called with the number of files looked at, now and then.

    Raises:
        IndexEmptyError: there is nothing in the index.
        UsageError: the threshold is not above 0 and at most 1.
    """
    if view.windows == 0:
        raise IndexEmptyError(
            f"{display_path(store.folder)}: there is no sound in this index yet; fill it with `embedindex scan FOLDER`"
        )
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"the threshold must be above 0 and at most 1, not {threshold:g}")
    judge = _Judge(store, view, listen, threshold)
    with store.snapshot():  # a scan may go on meanwhile
        where, values = (filters or Filters()).sql()
        by_content: dict[bytes, list[FileRecord]] = {}
        for record in store.files(f"status = 'ok' AND n_windows > n_silent AND {where}", values):
            known = record.first_window is not None and record.first_window + record.n_windows <= view.next_window
            if known and record.content_hash is not None:
                by_content.setdefault(record.content_hash, []).append(record)
        firsts = {same[0].id: same[0] for same in by_content.values()}
        groups = _Groups(firsts)
        if near:
            for first, second in _candidates(store, view, list(firsts.values()), progress):
                if not groups.together(first.id, second.id) and judge.same(first, second):
                    groups.join(first.id, second.id)
        found = []
        for members in groups.sets():
            files = [record for member in members for record in by_content[_content(firsts[member])]]
            if len(files) > 1:
                found.append(_group(store, view, files))
    return sorted(found, key=lambda group: group.files[0].file.path)


def recording_likeness(ours: Float32Array, our_hop_s: float, theirs: Float32Array, their_hop_s: float) -> float:
    """Return how much two files are the same recording, -1 to 1: the lesser of both directions.

    One file is laid over the other at every offset up to `MAX_OFFSET_S`; at the best one, the mean is taken of the
    cosine of each sounding window with that of the two windows beside its place which is more like it.

    Args:
        ours: (n, dimension) all windows of a file in order of time.
        our_hop_s: between their starts.
        theirs: (m, dimension) those of another.
        their_hop_s: between these.
    """
    return min(_one_way(ours, our_hop_s, theirs, their_hop_s), _one_way(theirs, their_hop_s, ours, our_hop_s))


def _one_way(ours: Float32Array, our_hop_s: float, theirs: Float32Array, their_hop_s: float) -> float:
    rows = np.flatnonzero(ours.any(axis=1))
    if len(rows) > COMPARED_WINDOWS:
        rows = rows[np.linspace(0, len(rows) - 1, COMPARED_WINDOWS).round().astype(np.int64)]
    if not len(rows):
        return -1.0
    cosines = ours[rows] @ theirs.T
    step_s = min(our_hop_s, their_hop_s) / 2
    steps = int(MAX_OFFSET_S / step_s)
    best = -1.0
    for offset_s in np.arange(-steps, steps + 1) * step_s:
        place = (rows * our_hop_s + offset_s) / their_hop_s
        inside = (place > -1) & (place < len(theirs))
        if inside.sum() < MIN_PARTNERED * len(rows):
            continue
        numbers = np.flatnonzero(inside)
        beside = [np.clip(at[inside].astype(np.int64), 0, len(theirs) - 1) for at in (np.floor(place), np.ceil(place))]
        best = max(best, float(np.maximum(cosines[numbers, beside[0]], cosines[numbers, beside[1]]).mean()))
    return min(1.0, best)


def quality(record: FileRecord) -> tuple[float, ...]:
    """Return what files of the same recording are ordered by, the best greatest.

    Lossless before lossy, then rate, channels, length to the tenth of a second, bits a second.
    """
    codec = (record.codec or "").lower()
    lossless = codec.startswith(LOSSLESS)
    length_s = record.duration or 0.0
    bits = 8 * record.size / length_s if length_s else 0.0
    return (float(lossless), record.sample_rate or 0, record.channels or 0, round(length_s, 1), round(bits, -3))


def group_to_json(group: Group) -> dict[str, object]:
    """Return a group as ``duplicates --json`` has it."""
    return {
        "kind": group.kind,
        "files": [
            {
                **path_to_json(one.file.path),
                "keep": number == 0,
                "exact": one.exact,
                "likeness": round(one.likeness, 6),
                "duration": one.file.duration,
                "sample_rate": one.file.sample_rate,
                "channels": one.file.channels,
                "container": one.file.container,
                "codec": one.file.codec,
                "size": one.file.size,
            }
            for number, one in enumerate(group.files)
        ],
    }


def _content(record: FileRecord) -> bytes:
    return record.content_hash or b""


def _heard(store: Store, view: IndexView, record: FileRecord) -> tuple[Float32Array, float]:
    return view.space.apply(store.vectors_of(record)), record.hop_s or view.model.hop_s


class _Judge:
    """Decides whether two files are the same recording."""

    def __init__(self, store: Store, view: IndexView, listen: bool, threshold: float | None) -> None:
        self._store = store
        self._view = view
        self._listen = listen
        usual = likeness_for(view.model.identity.name)
        self._likeness = usual if threshold is None or listen else threshold
        self._correlation = MIN_WHOLE if threshold is None else threshold
        self._kept: dict[tuple[int, int], Float32Array | None] = {}
        self._kept_bytes = 0

    def same(self, first: FileRecord, second: FileRecord) -> bool:
        if self._listen:
            rate = listening_rate(first.duration or 0.0, second.duration or 0.0)
            found = self._correlated(first, second, rate)
            if found is not None:
                if rate < SHORT_SAMPLE_RATE and found.whole >= NEARLY and not found.same_recording(self._correlation):
                    found = self._correlated(first, second, SHORT_SAMPLE_RATE) or found
                return found.same_recording(self._correlation)
        pair = (*_heard(self._store, self._view, first), *_heard(self._store, self._view, second))
        return recording_likeness(*pair) >= self._likeness

    def _correlated(self, first: FileRecord, second: FileRecord, rate: int) -> Correlation | None:
        """Return how the starts of two files agree, heard at a rate; None when one cannot be read now."""
        ours, theirs = self._start_of(first, rate), self._start_of(second, rate)
        return None if ours is None or theirs is None else correlate(ours, theirs, rate)

    def _start_of(self, record: FileRecord, rate: int) -> Float32Array | None:
        """Return the first seconds of a file, None when it cannot be read now."""
        key = (record.id, rate)
        if key in self._kept:
            self._kept[key] = samples = self._kept.pop(key)  # the latest used is the last to go
            return samples
        try:
            samples = first_seconds(record.path, rate)
        except (AudioError, QueryError):
            samples = None  # its vectors decide
        self._kept[key] = samples
        self._kept_bytes += 0 if samples is None else samples.nbytes
        while self._kept_bytes > KEPT_BYTES:
            gone = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= 0 if gone is None else gone.nbytes
        return samples


def _group(store: Store, view: IndexView, files: list[FileRecord]) -> Group:
    ranked = sorted(files, key=lambda record: ([-number for number in quality(record)], record.path))
    first = ranked[0]
    of_content: dict[bytes, float] = {_content(first): 1.0}
    for record in ranked:
        if _content(record) not in of_content:
            pair = (*_heard(store, view, first), *_heard(store, view, record))
            of_content[_content(record)] = recording_likeness(*pair)
    return Group(
        tuple(Duplicate(record, of_content[_content(record)], _content(record) == _content(first)) for record in ranked)
    )


def _candidates(
    store: Store, view: IndexView, records: list[FileRecord], progress: Callable[[int], None] | None
) -> Iterator[tuple[FileRecord, FileRecord]]:
    """Yield each pair of files once of which one is among the nearest to the other, and about as long."""
    means = np.zeros((len(records), view.model.identity.dimension), np.float32)
    for place, record in enumerate(records):
        means[place] = _mean_vector(store, view, record)
    index = _index_of(means)
    seen: set[tuple[int, int]] = set()
    for position in range(0, len(records), BATCH_FILES):
        batch = means[position : position + BATCH_FILES]
        alike, nearest = index.search(batch, min(NEAREST, len(records)))
        for own, (scores, places) in enumerate(zip(alike, nearest, strict=True), position):
            compared = COMPARED_FILES
            if (records[own].duration or 0.0) < WAVE_S:
                (scores,), (places,) = index.search(means[own : own + 1], min(NEAREST_TO_WAVES, len(records)))
                compared = COMPARED_WITH_WAVES
            others = [
                int(place)
                for place, score in zip(places, scores, strict=True)
                if place not in (-1, own) and score >= MIN_ALIKE and _same_length(records[own], records[place])
            ]
            for other in others[:compared]:
                pair = (min(own, other), max(own, other))
                if pair not in seen:
                    seen.add(pair)
                    yield records[own], records[other]
            if progress is not None:
                progress(own + 1)


def _mean_vector(store: Store, view: IndexView, record: FileRecord) -> Float32Array:
    """Return (dimension,) the direction of the mean of a file's sounding windows; zeros where they cancel out."""
    vectors = store.vectors_of(record)
    mean = view.space.apply(vectors[vectors.any(axis=1)]).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length > 0 else mean, np.float32)


def _index_of(means: Float32Array) -> faiss.Index:
    """Return an index of (n, dimension) unit rows by inner product, whose search time grows less than n."""
    import faiss

    files, dimension = means.shape
    if files <= COMPARED_WITH_ALL:
        index: faiss.Index = faiss.IndexFlatIP(dimension)
    else:
        cells = 4 * round(files**0.5)
        quantiser = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFFlat(quantiser, dimension, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = PROBED_CELLS
        index.train(means)
    index.add(means)
    return index


def _same_length(first: FileRecord, second: FileRecord) -> bool:
    longest, shortest = sorted((first.duration or 0.0, second.duration or 0.0), reverse=True)
    return longest - shortest <= MAX_LENGTH_S + MAX_LENGTH_SHARE * longest


class _Groups:
    """Numbers that are joined into sets (union-find)."""

    def __init__(self, members: Iterable[int]) -> None:
        self._parent = {member: member for member in members}

    def _root(self, member: int) -> int:
        while self._parent[member] != member:
            self._parent[member] = member = self._parent[self._parent[member]]
        return member

    def together(self, first: int, second: int) -> bool:
        return self._root(first) == self._root(second)

    def join(self, first: int, second: int) -> None:
        self._parent[self._root(second)] = self._root(first)

    def sets(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for member in self._parent:
            found.setdefault(self._root(member), []).append(member)
        return list(found.values())
