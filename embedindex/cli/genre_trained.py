"""``embedindex genre --method``: judging by a trained classifier instead of by the nearest files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedindex.cli.console import progress_bar
from embedindex.cli.genre_output import Judged, Result

if TYPE_CHECKING:
    from embedindex.classifier_file import Classifier
    from embedindex.records import FileRecord
    from embedindex.store import Store


def judge_by(
    name: str,
    store: Store,
    key: str,
    inside: list[FileRecord],
    outside: list[bytes],
    given: dict[int, list[str]],
    top: int,
    min_confidence: float,
    *,
    several: bool,
    quiet: bool,
) -> tuple[Judged, list[Result]]:
    """Return (who judged, what was said) of files of the index, and of sounds outside it.

    Raises:
        UsageError: there is no classifier of that name.
        ModelError: the file is none.
    """
    from embedindex.trained import judge_records, open_classifier

    classifier = open_classifier(store, key, name)
    about = classifier.about
    by_id = {record.id: record for record in inside}
    results = []
    with progress_bar(quiet=quiet) as bar:
        task = None if bar is None else bar.add_task("Judging", total=len(inside), note="")
        for file_id, judgement in judge_records(classifier, store, inside, top=top):
            labels = judgement.labels(min_confidence, several=several)
            record = by_id.pop(file_id)
            results.append(Result(record.path, file_id, judgement, labels, tuple(given.get(file_id, ()))))
            if bar is not None and task is not None:
                bar.advance(task)
    results += [Result(one.path, number, None, (), tuple(given.get(number, ()))) for number, one in by_id.items()]
    results += _outside(classifier, store, outside, top, min_confidence, several=several)
    return Judged(about.method, None, about.classes, about.files, bool(about.group)), results


def _outside(
    classifier: Classifier, store: Store, paths: list[bytes], top: int, min_confidence: float, *, several: bool
) -> list[Result]:
    """Judge sounds that the index does not hold; where the classifier hears embeddings, they are embedded first."""
    from embedindex.classifier_rows import blocks_in
    from embedindex.embed import embed_file
    from embedindex.query import QueryMaker
    from embedindex.trained import judge_sound, needs_vectors

    known = store.model()
    wanted = bool(paths) and needs_vectors(classifier.about) and known is not None
    model = QueryMaker(store, known).model() if wanted and known is not None else None
    results = []
    for path in paths:
        vectors = embed_file(path, model, known.hop_s, content_hash=b"").vectors if model and known else None
        judgement = judge_sound(classifier, path, vectors, blocks_in(store), top=top)
        labels = () if judgement is None else judgement.labels(min_confidence, several=several)
        results.append(Result(path, None, judgement, labels))
    return results
