"""Queries: which vectors a sound is searched with, inside the index and outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.audio import read_audio
from embedindex.embed import embed_blocks, embed_file
from embedindex.errors import (
    EmbeddingError,
    ModelMismatchError,
    NotAudioError,
    PathNotFoundError,
    QueryError,
    UnreadableFileError,
)
from embedindex.hearing import PHASES
from embedindex.index import load_view
from embedindex.models import Model, ModelRequest, load_model
from embedindex.query import MAX_WINDOWS, Part, QueryMaker
from embedindex.search import search
from embedindex.store import Store
from tests.indexing import TINY, TINY_RATE, age, make_sound, run_scan, write_samples
from tests.sounds import chirp, noise, sine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of a small library, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("query")
    for number in range(4):
        make_sound(folder / "library" / f"{number}.wav", 300 + 400 * number, 1.5)
    write_samples(folder / "library" / "melody.wav", chirp(200, 3500, 12.0, TINY_RATE))
    write_samples(folder / "library" / "silent.wav", np.zeros(TINY_RATE, np.float32))
    (folder / "library" / "text.wav").write_text("no sound")
    age(folder / "library" / "text.wav")
    run_scan(str(folder / "index"), folder / "library")
    return folder


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    with Store(str(place / "index")) as store:
        yield store


def never_loaded(_: ModelRequest) -> Model:
    raise AssertionError("the model was loaded")


def maker(store: Store, **options: Any) -> QueryMaker:
    model = store.model()
    assert model is not None
    return QueryMaker(store, model, **options)


def test_file_of_the_index_is_asked_about_with_its_stored_vectors(store: Store, place: Path) -> None:
    path = place / "library" / "1.wav"
    query = maker(store, load=never_loaded).from_file(str(path))
    assert query.record is not None
    assert query.record.path == query.path == os.fsencode(path)
    assert len(query.vectors) == 1
    stored = store.vectors_of(query.record)
    np.testing.assert_array_equal(query.vectors[0], stored[stored.any(axis=1)])


def test_relative_path_with_detours_is_the_same_file(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "library")
    query = maker(store, load=never_loaded).from_file("../library/./1.wav")
    assert query.path == os.fsencode(place / "library" / "1.wav")
    assert query.record is not None


@pytest.mark.parametrize("kind", ["link to the file", "link to its folder", "hard link"])
def test_file_of_the_index_is_known_by_another_name(store: Store, place: Path, tmp_path: Path, kind: str) -> None:
    path = place / "library" / "1.wav"
    alias = tmp_path / "alias.wav"
    if kind == "link to its folder":
        (tmp_path / "folder").symlink_to(path.parent)
        alias = tmp_path / "folder" / "1.wav"
    elif kind == "hard link":
        alias.hardlink_to(path)
    else:
        alias.symlink_to(path)
    query = maker(store, load=never_loaded).from_file(str(alias))
    assert query.record is not None
    assert query.record.path == os.fsencode(path)
    view = load_view(store)
    assert os.fsencode(path) not in [hit.file.path for hit in search(store, view, [query], k=50)]


def test_sound_from_outside_is_embedded_from_several_starting_points(store: Store, tmp_path: Path) -> None:
    samples = chirp(300, 3000, 3.0, TINY_RATE)
    path = write_samples(tmp_path / "clip.wav", samples)
    query = maker(store).from_file(str(path))
    assert query.record is None
    assert len(query.vectors) == PHASES // 2
    hop = 0.5  # of long sounds: the windows of the clip, which is short, lie half as far apart
    for number, vectors in enumerate(query.vectors):
        start = round(number * hop / PHASES * TINY_RATE)
        rest = samples[start:] / np.abs(samples).max()  # the level is that of the whole sound
        wanted = load_model(TINY).embed(
            np.stack([rest[first : first + TINY_RATE] for first in range(0, len(rest) - TINY_RATE + 1, 2000)])
        )
        np.testing.assert_allclose(vectors[: len(wanted)], wanted, rtol=2e-3, atol=2e-3)


def test_copy_of_a_file_is_found_with_score_one(store: Store, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.wav"
    path.write_bytes((place / "library" / "melody.wav").read_bytes())
    hit = search(store, load_view(store), [maker(store).from_file(str(path))])[0]
    assert hit.file.path == os.fsencode(place / "library" / "melody.wav")
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_clip_cut_out_of_a_long_sound_is_found_at_its_place(store: Store, tmp_path: Path) -> None:
    samples = chirp(200, 3500, 12.0, TINY_RATE)
    path = write_samples(tmp_path / "clip.wav", samples[round(6.13 * TINY_RATE) : round(8.13 * TINY_RATE)])
    hit = search(store, load_view(store), [maker(store).from_file(str(path))])[0]
    assert os.path.basename(hit.file.path) == b"melody.wav"
    assert 5.5 <= hit.start_s <= 8.13


def test_very_short_clip_has_at_least_one_window(store: Store, tmp_path: Path) -> None:
    query = maker(store).from_file(str(write_samples(tmp_path / "click.wav", sine(500, 0.02, TINY_RATE))))
    assert 1 <= len(query.vectors) <= PHASES
    assert all(len(vectors) for vectors in query.vectors)


def test_long_sound_is_embedded_once_and_thinned_out(store: Store, tmp_path: Path) -> None:
    path = write_samples(tmp_path / "long.wav", noise(300.0, TINY_RATE))
    query = maker(store).from_file(str(path))
    (vectors,) = query.vectors
    assert len(vectors) == MAX_WINDOWS
    wanted = embed_file(str(path), load_model(TINY), 0.5).vectors
    np.testing.assert_array_equal(vectors[[0, -1]], wanted[[0, -1]])


def test_file_that_changed_since_the_scan_is_read_again(store: Store, place: Path) -> None:
    path = place / "library" / "2.wav"
    before = path.read_bytes()
    try:
        make_sound(path, 3333, 1.0)
        query = maker(store).from_file(str(path))
        assert query.record is not None  # still not its own result
        assert not np.array_equal(query.vectors[0], store.vectors_of(query.record))
    finally:
        path.write_bytes(before)
        age(path, 1_100_000)


def test_file_that_is_away_can_still_be_asked_about(store: Store, place: Path) -> None:
    path = place / "library" / "3.wav"
    path.rename(place / "away")
    try:
        query = maker(store, load=never_loaded).from_file(str(path))
        assert query.record is not None
    finally:
        (place / "away").rename(path)


def test_silence_is_no_question(store: Store, place: Path, tmp_path: Path) -> None:
    outside = write_samples(tmp_path / "silence.wav", np.zeros(TINY_RATE, np.float32))
    for path in (outside, place / "library" / "silent.wav"):
        with pytest.raises(QueryError, match=r"wav: there is nothing but silence in it; give another sound"):
            maker(store).from_file(str(path))


def test_what_is_no_sound_is_refused(store: Store, place: Path, tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError, match="there is no such file; give the path of a sound"):
        maker(store).from_file(str(tmp_path / "nowhere.wav"))
    with pytest.raises(QueryError, match="is a folder; give the path of a sound"):
        maker(store).from_file(str(tmp_path))
    with pytest.raises(NotAudioError):
        maker(store).from_file(str(place / "library" / "text.wav"))
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        maker(store).from_file(str(tmp_path / "pipe.wav"))
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(UnreadableFileError, match=r"loop\.wav: cannot be read"):
        maker(store).from_file(str(tmp_path / "loop.wav"))
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        maker(store).from_file(str(tmp_path / ("n" * 300 + ".wav")))


def test_model_that_is_not_that_of_the_index_is_refused(store: Store, tmp_path: Path) -> None:
    path = write_samples(tmp_path / "clip.wav", sine(500, 1.0, TINY_RATE))

    def load(request: ModelRequest) -> Model:
        return load_model(replace(request, options=(("version", "2"),)))

    with pytest.raises(
        ModelMismatchError, match=r"made with.*version=1.*is now.*version=2.*another index with --index"
    ):
        maker(store, load=load).from_file(str(path))


def test_vectors_that_are_no_numbers_are_refused(store: Store, tmp_path: Path) -> None:
    class Broken:
        default_hop_s = 0.5
        identity = load_model(TINY).identity

        def embed(self, windows: Float32Array) -> Float32Array:
            return np.full((len(windows), self.identity.dimension), np.nan, np.float32)

    path = write_samples(tmp_path / "clip.wav", sine(500, 1.0, TINY_RATE))
    with pytest.raises(EmbeddingError, match=r"clip\.wav: the model tiny made vectors of it that are not numbers"):
        maker(store, load=lambda _: Broken()).from_file(str(path))


def test_silence_in_front_of_a_sound_does_not_keep_it_from_being_found(
    store: Store, place: Path, tmp_path: Path
) -> None:
    original = place / "library" / "2.wav"
    samples, _ = read_audio(str(original), sample_rate=TINY_RATE)
    late = write_samples(
        tmp_path / "late.wav", np.concatenate((np.zeros(round(0.31 * TINY_RATE), np.float32), samples))
    )
    query = maker(store).from_file(str(late))
    assert min(abs(starts_s[0] - 0.31) for starts_s in query.starts_s) < 1e-3
    as_it_is = replace(query, vectors=query.vectors[: PHASES // 2], starts_s=query.starts_s[: PHASES // 2])
    (hit,), (worse,) = (search(store, load_view(store), [one], k=1) for one in (query, as_it_is))
    assert hit.file.path == os.fsencode(original)
    assert hit.score > worse.score + 0.02


def test_a_noisy_sound_is_heard_without_its_noise(store: Store, tmp_path: Path) -> None:
    tune = chirp(300, 1500, 3.0, TINY_RATE)
    hiss = np.random.default_rng(1).normal(0, 1, len(tune)).astype(np.float32)
    clean, noisy, rain, faint = (
        maker(store).from_file(str(write_samples(tmp_path / f"{level}.wav", tune + np.float32(level) * hiss)))
        for level in (0.0, 0.07, 0.7, 0.01)
    )
    assert len(clean.vectors) == len(noisy.vectors) == PHASES // 2
    # What may be the sound itself, or its background, is heard with and without.
    assert len(rain.vectors) == len(faint.vectors) == PHASES
    samples = read_audio(str(tmp_path / "0.07.wav"), sample_rate=TINY_RATE)[0]
    as_it_is, _ = embed_blocks([samples], float(np.abs(samples).max()), load_model(TINY), TINY_RATE // 4)
    space = load_view(store).space
    wanted, cleaned, with_noise = (space.apply(one) for one in (clean.vectors[0], noisy.vectors[0], as_it_is))
    assert np.mean(np.sum(cleaned * wanted, axis=1)) > np.mean(np.sum(with_noise * wanted, axis=1))


def test_query_knows_its_length(store: Store, place: Path, tmp_path: Path) -> None:
    inside = maker(store).from_file(str(place / "library" / "2.wav"))
    assert inside.record is not None
    assert inside.length_s == inside.record.duration
    path = str(write_samples(tmp_path / "three.wav", chirp(300, 3000, 3.0, TINY_RATE)))
    assert maker(store).from_file(path).length_s == pytest.approx(3.0)
    part = maker(store).from_file(path, Part(1.0, 2.5))
    assert part.length_s == pytest.approx(1.5)
    assert part.offset_s == 1.0
    long = str(write_samples(tmp_path / "forty.wav", noise(40.0, TINY_RATE)))
    assert maker(store).from_file(long).length_s == pytest.approx(40.0)
    assert maker(store).from_file(long, Part(2.0, 38.0)).length_s == pytest.approx(36.0)
    assert maker(store).from_file(long, Part(2.0)).length_s is None
