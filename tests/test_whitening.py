"""A sound that held noise is compared, where a network is alone, by what tells the index's windows apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.arrays import Float16Array, Float32Array, Float64Array
from embedindex.cleaning import without_noise
from embedindex.comparing import space_for
from embedindex.embed import embed_blocks
from embedindex.explanation import explain
from embedindex.hearing import hear
from embedindex.index import IndexView, load_view
from embedindex.models import load_model
from embedindex.query import Query, QueryMaker
from embedindex.search import in_space, search
from embedindex.store import Store
from embedindex.whitening import RUNS, SHRINKAGE, WINDOWS, WhitenedSpace, _some_windows
from tests.indexing import TINY, TINY_RATE, run_scan, write_samples
from tests.sounds import chirp, noise

STANDARDISED = replace(TINY, options=(("standardise", "yes"),))


def tune(number: int, seconds: float = 4.0) -> Float32Array:
    """Four glides of half a second, over and over, with a soft noise of its own."""
    random = np.random.default_rng(number)
    glides = [chirp(random.uniform(200, 3500), random.uniform(200, 3500), 0.5, TINY_RATE) for _ in range(4)]
    once = np.concatenate([glide * np.hanning(len(glide)).astype(np.float32) for glide in glides])
    whole = np.resize(once, round(seconds * TINY_RATE))
    return np.asarray(whole + noise(seconds, TINY_RATE, seed=number, level=0.002), np.float32)


def hissing(samples: Float32Array, seed: int = 1) -> Float32Array:
    """The sound with white noise 20 dB below it."""
    hiss = np.random.default_rng(seed).standard_normal(len(samples))
    return np.asarray(samples + 0.1 * np.sqrt(np.mean(samples**2)) * hiss, np.float32)


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of tunes, which no test changes."""
    folder = tmp_path_factory.mktemp("tunes")
    (folder / "library").mkdir()
    for number in range(12):
        write_samples(folder / "library" / f"{number}.wav", tune(number))
    for name, request in (("index", TINY), ("standardised", STANDARDISED)):
        run_scan(str(folder / name), folder / "library", request=request)
    return str(folder)


@contextmanager
def asked(index: str, samples: Float32Array, path: Path) -> Iterator[tuple[Store, IndexView, Query]]:
    write_samples(path, samples)
    with Store(index) as store:
        view = load_view(store)
        yield store, view, QueryMaker(store, view.model).from_file(str(path))


def unit(rows: Float16Array | Float32Array | Float64Array) -> Float64Array:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def mahalanobis(rows: Float64Array, own: Float16Array, theirs: Float16Array) -> Float64Array:
    """Cosines with respect to the inverse covariance of some rows, the slow way: by its eigenvectors."""
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    values += SHRINKAGE * values.mean()
    a, b = (((unit(one) - mean) @ vectors) / np.sqrt(values) for one in (own, theirs))
    return unit(a) @ unit(b).T


def test_a_noisy_sound_is_compared_by_mahalanobis_cosines_with_the_whole_index(tunes: str, tmp_path: Path) -> None:
    with asked(f"{tunes}/index", hissing(tune(3)[4000:24000]), tmp_path / "noisy.wav") as (store, view, query):
        assert query.noisy
        space = space_for(store, view, [query])
        assert isinstance(space, WhitenedSpace)
        records = {record.id: store.vectors_of(record) for record in store.files()}
        everything = unit(np.concatenate(list(records.values())))
        for theirs in records.values():
            wanted = mahalanobis(everything, query.vectors[0], theirs)
            assert space.apply(query.vectors[0]) @ space.apply(theirs).T == pytest.approx(wanted, abs=2e-3)
        hits = search(store, view, [query], k=12)
        score = max(hit.score for hit in hits)
        phases = in_space(view, [query], space)[0]
        best = [
            max(
                float(mahalanobis(everything, vectors, records[hit.file.id]).max(axis=1).mean())
                for vectors in query.vectors
            )
            for hit in hits
        ]
        # In any order a file scores that; in its own order less.
        assert all(hit.score <= most + 2e-3 for hit, most in zip(hits, best, strict=True))
        assert score > max(best) - 0.3
        assert len(phases) == len(query.vectors)
        explained = explain(store, view, hits[0], [query])[0]
        assert explained.score == pytest.approx(hits[0].score, abs=1e-5)


def test_noisy_clips_find_their_tune_and_its_place(tunes: str, tmp_path: Path) -> None:
    for number in (0, 5, 11):
        clip = hissing(tune(number)[5000:25000], seed=number)
        with asked(f"{tunes}/index", clip, tmp_path / "noisy.wav") as (store, view, query):
            assert query.noisy
            hit = search(store, view, [query], k=1)[0]
            assert Path(hit.file.text_path).stem == str(number)
            assert hit.start_s == pytest.approx(5000 / TINY_RATE, abs=2e-3)


def test_what_the_index_is_asked_for_ranks_windows_as_they_are_compared(tunes: str, tmp_path: Path) -> None:
    with asked(f"{tunes}/index", hissing(tune(7)), tmp_path / "noisy.wav") as (store, view, query):
        space = space_for(store, view, [query])
        assert isinstance(space, WhitenedSpace)
        rows = space.apply(query.vectors[0])
        theirs = np.concatenate([store.vectors_of(record) for record in store.files()])
        offered = space.proposals(rows) @ (unit(theirs) - space.mean).T
        values, vectors = np.linalg.eigh(space.covariance)
        lengths = np.linalg.norm((unit(theirs) - space.mean) @ vectors / np.sqrt(values), axis=1)
        ratio = offered / (rows @ space.apply(theirs).T * lengths)
        assert np.linalg.norm(space.proposals(rows), axis=1) == pytest.approx(1, abs=1e-5)
        for one in ratio:
            assert one == pytest.approx(np.median(one), rel=0.02)
        assert (np.median(ratio, axis=1) > 0).all()


def test_silence_stays_silent() -> None:
    space = WhitenedSpace(np.full(4, 0.1, np.float32), np.eye(4))
    assert not space.apply(np.zeros((2, 4), np.float16)).any()


def test_clean_sounds_descriptors_and_small_indexes_are_compared_as_ever(tunes: str, tmp_path: Path) -> None:
    quiet = tune(3)[4000:24000]
    with asked(f"{tunes}/standardised", hissing(quiet), tmp_path / "noisy.wav") as (store, view, query):
        assert query.noisy
        assert space_for(store, view, [query]) is view.space
    clean = np.concatenate([chirp(300, 900, 0.5, TINY_RATE)] * 4)
    with asked(f"{tunes}/index", clean, tmp_path / "clean.wav") as (store, view, query):
        assert not query.noisy
        assert space_for(store, view, [query]) is view.space
    (tmp_path / "few").mkdir()
    write_samples(tmp_path / "few" / "one.wav", tune(1, 1.0))
    run_scan(str(tmp_path / "index"), tmp_path / "few")
    with asked(str(tmp_path / "index"), hissing(quiet), tmp_path / "noisy.wav") as (store, view, query):
        assert query.noisy
        assert space_for(store, view, [query]) is view.space


def test_in_a_big_index_some_windows_of_all_of_it_stand_for_all(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    for number in range(3):
        write_samples(tmp_path / "library" / f"{number}.wav", tune(number, 60.0))
    run_scan(str(tmp_path / "index"), tmp_path / "library", hop_s=0.02)
    with Store(str(tmp_path / "index")) as store:
        everything = np.concatenate([vectors for _, vectors in store.vector_batches()])
        assert len(everything) > 2 * WINDOWS
        some = _some_windows(store, store.next_window)
        assert len(some) == pytest.approx(WINDOWS, rel=0.1)
        places = {row.tobytes(): number for number, row in enumerate(everything)}
        numbers = np.array([places[row.tobytes()] for row in some])
        assert len(set(numbers.tolist())) > 0.99 * len(some)  # two windows of a tune may be the same
        assert np.unique(numbers * RUNS // len(everything)).tolist() == list(range(RUNS))


@pytest.mark.parametrize(("request_", "evenly"), [(TINY, True), (STANDARDISED, False)])
def test_networks_hear_the_noise_taken_away_more_evenly(request_: object, evenly: bool) -> None:
    model = load_model(request_)  # type: ignore[arg-type]
    samples = hissing(tune(2, 1.0))
    heard = hear(b"noisy.wav", samples, float(np.abs(samples).max()), model, 0.5, 0.0)
    cleaned, other = (without_noise(samples, evenly=one) for one in (evenly, not evenly))
    assert cleaned is not None
    assert other is not None
    assert cleaned.plain
    assert all(one.noisy for one in heard)
    wanted, others = (
        embed_blocks([one.samples], float(np.abs(one.samples).max()), model, 4000)[0] for one in (cleaned, other)
    )
    assert heard[0].vectors[0] == pytest.approx(wanted[0], rel=2e-3, abs=1e-2)
    assert heard[0].vectors[0] != pytest.approx(others[0], rel=2e-3, abs=1e-2)
