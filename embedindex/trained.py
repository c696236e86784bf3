"""Tagging with a trained classifier: files of an index, or any sound, as `Judgement`s like those of the neighbours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from embedindex.arrays import Float16Array, Float64Array
from embedindex.classifier_file import SUFFIX, About, Classifier, default_path, read_classifier
from embedindex.classifier_rows import On, load_rows, sound_row
from embedindex.errors import ModelMismatchError, QueryError, UsageError, display_path
from embedindex.features import Kind
from embedindex.fitting import METHODS, of_files, tempered
from embedindex.genre import Judgement
from embedindex.records import FileRecord
from embedindex.store import Store

# Of files whose sound is read again many are given to the processes together; of stored vectors few fit in memory.
FILES_AT_ONCE = 512


def open_classifier(store: Store, key: str, name: str) -> Classifier:
    """Return the classifier that `name` stands for: a method that was trained for this index, or a file.

    Raises:
        UsageError: it is neither, or it gives labels of another key.
        QueryError: no such classifier was trained yet.
        ModelMismatchError: it hears the embeddings of another model than the index holds.
        ModelError: the file is no classifier.
    """
    if name in METHODS:
        path = default_path(store.folder, key, name)
        if not os.path.exists(path):
            raise QueryError(
                f"no classifier {name} was trained for {key} yet: embedindex train --key {key} --method {name}"
            )
    elif os.path.exists(name) or name.endswith(SUFFIX):
        path = name
    else:
        raise UsageError(f"--method {name}: choose {', '.join(METHODS)}, or name a file that `embedindex train` wrote")
    classifier = read_classifier(path)
    about = classifier.about
    if about.key != key:
        raise UsageError(f"{display_path(path)} gives labels of the key {about.key}; add --key {about.key}")
    model = store.model()
    if about.model and (model is None or model.identity.fingerprint != about.model):
        held = "nothing" if model is None else f"vectors of {model.identity.name}"
        raise ModelMismatchError(
            f"{display_path(path)} hears embeddings of {about.model_name} as they were when it was trained, and this "
            f"index holds {held} of another making; train one for this index"
        )
    return classifier


def _judgement(about: About, chances: Float64Array, familiarity: float, top: int) -> Judgement:
    best = np.argsort(-chances, kind="stable")[:top]
    values = tuple((about.classes[column], float(chances[column])) for column in best if chances[column] > 0)
    return Judgement(values, familiarity, familiarity, bool(familiarity >= about.far))


def judge_records(
    classifier: Classifier, store: Store, records: Sequence[FileRecord], *, top: int = 3, workers: int = 0
) -> Iterator[tuple[int, Judgement]]:
    """Yield (file id, judgement) of files of the index; those that are silent or cannot be read are left out."""
    about = classifier.about
    on, kind = _hears(about)
    for first in range(0, len(records), FILES_AT_ONCE):
        chunk = records[first : first + FILES_AT_ONCE]
        try:
            heard = load_rows(store, chunk, on, kind, workers=workers)
        except QueryError:  # none of these few can be used; others may
            continue
        chances, known = classifier.session.run(heard.rows)
        whole = tempered(of_files(chances, heard.owner, len(heard.places)), about.temperature)
        familiar = np.full(len(heard.places), -1.0)
        np.maximum.at(familiar, heard.owner, known)
        for place, row, near in zip(heard.places, whole, familiar, strict=True):
            yield chunk[place].id, _judgement(about, row, float(near), top)


def judge_sound(
    classifier: Classifier, path: bytes, vectors: Float16Array | None, blocks: tuple[int, ...] = (), *, top: int = 3
) -> Judgement | None:
    """Return the judgement of a sound outside the index; None for silence.

    Args:
        classifier: what judges.
        path: the sound.
        vectors: (windows, dimension) by the index's model, where the classifier hears embeddings.
        blocks: see `embedindex.classifier_rows.blocks_in`.
        top: how many labels to name.

    Raises:
        AudioError: it cannot be decoded.
    """
    about = classifier.about
    on, kind = _hears(about)
    heard = sound_row(path, vectors, on, kind, blocks)
    if heard is None:
        return None
    chances, known = classifier.session.run(heard)
    return _judgement(about, tempered(chances.mean(axis=0)[None], about.temperature)[0], float(known.max()), top)


def needs_vectors(about: About) -> bool:
    """Return whether the classifier hears embeddings."""
    return about.on in ("embeddings", "both")


def _hears(about: About) -> tuple[On, Kind]:
    on: On = about.on if about.on in ("embeddings", "features", "both", "segments") else "embeddings"  # type: ignore[assignment]
    kind: Kind = "rich" if about.kind == "rich" else "classic"
    return on, kind
