"""Names for clusters: the label that most of their files were given, else what their typical sounds are like.

Conventions: words are relative to the library: a cluster is "bright" when its typical sounds are as bright as the
brightest quarter of all clusters' typical sounds, counted by the sizes of their clusters. Levels are dB, times seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedindex import descriptors
from embedindex.arrays import Float32Array, Float64Array
from embedindex.audio import AudioReader
from embedindex.clusters import Clusters, Exemplar
from embedindex.errors import AudioError
from embedindex.labels import is_predicted
from embedindex.records import FileRecord
from embedindex.store import Store
from embedindex.windows import window_start_s

RATE = 22_050
HEARD_S = 5.0  # of a whole file, so much from its beginning
LABELLED = 3  # a label names a cluster from so many labelled files on …
MAJORITY = 0.5  # … of which more than this share has it …
LIFT = 1.5  # … so many times as often as in the whole library …
SUPPORT = 0.25  # … and if so many of all its files have it, labelled or not
LABELS_AT_ONCE = 500
MOST_WORDS = 3
# (more, less) of what `describe` measures, in this order.
WORDS = (("bright", "dark"), ("long", "short"), ("noisy", "tonal"), ("loud", "quiet"), ("struck", "steady"))


@dataclass(frozen=True)
class Name:
    """What a cluster is called, what it sounds like, and the commonest label of its files with its share."""

    name: str
    words: tuple[str, ...]
    label: tuple[str, str, float] | None


def name_clusters(
    store: Store, clusters: Clusters, key: str, report: Callable[[int, int], None] = lambda _done, _total: None
) -> list[Name]:
    """Return a name for each cluster, no two alike.

    Args:
        store: the index.
        clusters: what was found in it.
        key: of the clusters' own labels, which do not count.
        report: called with clusters done, and in all.
    """
    labels = _labels(store, clusters, key)
    tables, sizes = [], []
    for number, group in enumerate(clusters.groups):
        tables.append(_heard(store, clusters, group.exemplars))
        sizes.append(group.size)
        report(number + 1, len(clusters.groups))
    words = _words(tables, sizes)
    names: list[Name] = []
    used: set[str] = set()
    for label, described in zip(labels, words, strict=True):
        plain = " ".join(described)
        base = label[1] if label else plain or "medium"
        choices = [base, f"{base} ({plain})"] if label and plain else [base]
        choices += [f"{base} {number}" for number in range(2, len(words) + 2)]
        chosen = next(choice for choice in choices if choice.casefold() not in used)
        used.add(chosen.casefold())
        names.append(Name(chosen, described, label))
    return names


def _labels(store: Store, clusters: Clusters, key: str) -> list[tuple[str, str, float] | None]:
    """Return the label that fits each cluster: (key, value, its share among the files with labels of the key)."""
    inside: list[Counter[tuple[str, str]]] = [Counter() for _ in clusters.groups]
    labelled: list[Counter[str]] = [Counter() for _ in clusters.groups]
    everywhere: Counter[tuple[str, str]] = Counter()
    files_with: Counter[str] = Counter()
    sizes = Counter(groups[0][0] for groups in clusters.files.values() if groups)
    ids = list(clusters.files)
    for first in range(0, len(ids), LABELS_AT_ONCE):
        for file_id, given in store.labels_of(ids[first : first + LABELS_AT_ONCE]).items():
            pairs = {(one.key, one.value) for one in given if one.key != key and not is_predicted(one.source)}
            everywhere.update(pairs)
            files_with.update({pair[0] for pair in pairs})
            if clusters.files[file_id]:
                number = clusters.files[file_id][0][0]
                inside[number].update(pairs)
                labelled[number].update({pair[0] for pair in pairs})
    found: list[tuple[str, str, float] | None] = []
    for number, (counts, having) in enumerate(zip(inside, labelled, strict=True)):
        fitting = []
        for (name, value), count in counts.items():
            share = count / having[name]
            lift = share / (everywhere[name, value] / files_with[name])
            enough = having[name] >= LABELLED and count >= SUPPORT * sizes[number]
            if enough and share > MAJORITY and lift >= LIFT:
                fitting.append((-share, -count, name, value))
        best = min(fitting, default=None)
        found.append(None if best is None else (best[2], best[3], -best[0]))
    return found


def _heard(store: Store, clusters: Clusters, exemplars: Sequence[Exemplar]) -> Float64Array:
    """Return (exemplars, len(WORDS)) what the typical sounds that can still be read are like."""
    rows = []
    for exemplar in exemplars:
        record = store.file(exemplar.file_id)
        start_s, length_s = span_of(store, record, exemplar)
        try:
            with AudioReader(record.path, sample_rate=RATE, start_s=start_s, block_s=min(length_s, HEARD_S)) as reader:
                sound = next(iter(reader.blocks()), None)
        except AudioError:
            continue  # gone since the scan: the others tell what the cluster is like
        if sound is not None and len(sound):
            length_s = record.duration or length_s
            rows.append(describe(sound, length_s if clusters.by == "files" else 1.0))
    return np.array(rows).reshape(-1, len(WORDS))


def span_of(store: Store, record: FileRecord, exemplar: Exemplar) -> tuple[float, float]:
    """Return where in its file an exemplar begins, and how long it is, in seconds."""
    duration_s = record.duration or 0.0
    model = store.model()
    if exemplar.window is None or model is None:
        return 0.0, max(duration_s, 0.1)
    start_s = window_start_s(exemplar.window - (record.first_window or 0), record.hop_s or model.hop_s)
    window_s = model.identity.window_samples / model.identity.sample_rate
    return start_s, max(0.1, min(window_s, duration_s - start_s))


def describe(sound: Float32Array, length_s: float) -> list[float]:
    """Return what `WORDS` are about: log2 of the centroid, log2 of the length, flatness, level and crest in dB.

    Means over frames are weighted by energy, so that silence around a hit does not count.
    """
    magnitudes = descriptors.magnitude(sound)
    power = magnitudes**2
    energy = power.sum(axis=1) + 1e-12
    weight = energy / energy.sum()
    centroid = float((descriptors.centroid_hz(magnitudes, RATE) * weight).sum())
    flatness = float((descriptors.flatness(power) * weight).sum())
    level = np.square(descriptors.rms(sound)) + 1e-10
    return [
        float(np.log2(max(centroid, 20.0))),
        float(np.log2(max(length_s, 0.01))),
        10.0 * float(np.log10(max(flatness, 1e-8))),
        10.0 * float(np.log10(level.max())),
        10.0 * float(np.log10(level.max() / level.mean())),
    ]


def _words(tables: Sequence[Float64Array], sizes: Sequence[int]) -> list[tuple[str, ...]]:
    """Return up to three words for each cluster: where it lies outside the middle half of the library."""
    heard = [(table, size) for table, size in zip(tables, sizes, strict=True) if len(table)]
    if len(heard) < 2:
        return [() for _ in tables]
    values = np.concatenate([table for table, _ in heard])
    weights = np.concatenate([np.full(len(table), size / len(table)) for table, size in heard])
    low, middle, high = (_quantile(values, weights, share) for share in (0.25, 0.5, 0.75))
    found = []
    for table in tables:
        own = np.median(table, axis=0) if len(table) else middle
        away = np.where((own >= high) | (own <= low), own - middle, 0.0)
        strength = away / np.maximum(high - low, 1e-6)
        strongest = np.argsort(-np.abs(strength), kind="stable")[:MOST_WORDS]
        chosen = sorted(int(axis) for axis in strongest if abs(strength[axis]) > 0)
        found.append(tuple(WORDS[axis][0 if strength[axis] > 0 else 1] for axis in chosen))
    return found


def _quantile(values: Float64Array, weights: Float64Array, share: float) -> Float64Array:
    """Return the weighted quantile of each column of (n, columns)."""
    columns = []
    for column in values.T:
        order = np.argsort(column, kind="stable")
        upto = np.cumsum(weights[order])
        columns.append(column[order][min(len(column) - 1, int(np.searchsorted(upto, share * upto[-1])))])
    return np.array(columns)
