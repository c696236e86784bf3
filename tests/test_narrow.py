"""Sounds at a low sample rate find their originals: compared by what both hold; all other sounds as ever."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soxr

from embedindex.arrays import Float32Array
from embedindex.comparing import space_for
from embedindex.explanation import explain
from embedindex.index import load_view
from embedindex.models import ModelRequest, load_model
from embedindex.models.spectral import BANDED, FORMS, dimension_names, dimensions_below
from embedindex.narrow import NarrowSpace, narrow_space
from embedindex.query import QueryMaker
from embedindex.search import Hit, search
from embedindex.store import Store
from tests.indexing import run_scan, write_samples
from tests.sounds import noise, sine

RATE = 22050
SPECTRAL = ModelRequest("spectral")
KINDS = 8


def bright(kind: int, seconds: float = 1.0) -> Float32Array:
    """A chord of its own below 3 kHz, under hiss that is the same for all and mostly lies above."""
    tones = sum(sine(frequency, seconds, RATE, 0.1) for frequency in (200 + 90 * kind, 1000 + 210 * kind))
    hiss = np.diff(noise(seconds, RATE, seed=kind, level=0.3), prepend=np.float32(0))
    return np.asarray(tones + hiss, np.float32)


def dull(kind: int) -> Float32Array:
    """Chords without anything above 3.5 kHz, which is what a copy at 8 kHz looks like."""
    tones = sum(sine(frequency, 1.0, RATE, 0.1) for frequency in (245 + 90 * kind, 1100 + 210 * kind))
    hiss = soxr.resample(soxr.resample(noise(1.0, RATE, seed=50 + kind, level=0.05), RATE, 7000), 7000, RATE)
    return np.asarray(tones + np.resize(hiss, RATE), np.float32)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of bright sounds and dull ones by the built-in model, which no test changes."""
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "library").mkdir()
    for kind in range(KINDS):
        write_samples(folder / "library" / f"bright {kind}.wav", bright(kind), RATE)
        write_samples(folder / "library" / f"dull {kind}.wav", dull(kind), RATE)
    run_scan(str(folder / "index"), folder / "library", request=SPECTRAL)
    return str(folder / "index")


def at(samples: Float32Array, rate: int, path: Path) -> Path:
    return write_samples(path, np.asarray(soxr.resample(samples, RATE, rate), np.float32), rate)


def hits(index: str, *paths: Path, unlike: tuple[Path, ...] = (), **options: object) -> list[Hit]:
    with Store(index) as store:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        asked, away = ([maker.from_path(str(path)) for path in some] for some in (paths, unlike))
        return search(store, view, asked, unlike=away, **options)  # type: ignore[arg-type]


def name(hit: Hit) -> str:
    return Path(hit.file.text_path).stem


@pytest.mark.parametrize("rate", [8000, 16000])
def test_copies_at_a_low_rate_find_their_originals_not_what_is_dull(filled: str, tmp_path: Path, rate: int) -> None:
    for kind in (1, 4, 7):
        copy = at(bright(kind), rate, tmp_path / f"{kind}.wav")
        found = hits(filled, copy, k=3)
        assert name(found[0]) == f"bright {kind}"
        assert found[0].score > 0.9
        assert name(hits(filled, copy, k=3, by="window")[0]) == f"bright {kind}"


def test_without_that_they_would_find_dull_ones(filled: str, tmp_path: Path) -> None:
    """What the module is for: shows that the sounds above are a test of it."""
    with Store(filled) as store:
        view = load_view(store)
        query = QueryMaker(store, view.model).from_file(str(at(bright(3), 8000, tmp_path / "copy.wav")))
        rows = view.space.apply(query.vectors[0])
        _, windows = view.search(rows[:1], 1)
        owner = store.file(int(store.owners_of_windows(windows[0])[0]))
    assert Path(owner.text_path).stem.startswith("dull")


def test_sounds_with_room_for_highs_are_compared_in_the_index_own_space_however_dull(
    filled: str, tmp_path: Path
) -> None:
    with Store(filled) as store:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        for rate in (22050, 32000, 44100, 96000):
            query = maker.from_file(str(at(dull(1), rate, tmp_path / f"{rate}.wav")))
            assert query.bandwidth_hz == rate / 2
            assert space_for(store, view, [query]) is view.space
        low = maker.from_file(str(at(dull(1), 21000, tmp_path / "low.wav")))
        assert isinstance(space_for(store, view, [query, low]), NarrowSpace)


def test_where_most_sounds_are_at_the_low_rate_nothing_is_left_out(library: Path, index: str, tmp_path: Path) -> None:
    for kind in range(3):
        at(bright(kind), 8000, library / f"{kind}.wav")
    write_samples(library / "bright.wav", bright(5), RATE)
    run_scan(index, library, request=SPECTRAL)
    with Store(index) as store:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        outside = maker.from_file(str(at(bright(1), 8000, tmp_path / "copy.wav")))
        inside = maker.from_file(str(library / "1.wav"))
        assert inside.bandwidth_hz == outside.bandwidth_hz == 4000
        assert space_for(store, view, [outside]) is space_for(store, view, [inside]) is view.space
        lower = maker.from_file(str(at(bright(1), 7000, tmp_path / "lower.wav")))
        assert isinstance(space_for(store, view, [lower]), NarrowSpace)


def test_a_folder_holds_what_its_widest_file_holds(filled: str, tmp_path: Path) -> None:
    folder = tmp_path / "asked"
    folder.mkdir()
    at(bright(1), 8000, folder / "a.wav")
    at(bright(2), 16000, folder / "b.wav")
    with Store(filled) as store:
        assert QueryMaker(store, load_view(store).model).from_folder(str(folder)).bandwidth_hz == 8000


def test_dimensions_that_are_kept_do_not_change_when_the_highs_go() -> None:
    model = load_model(SPECTRAL)
    whole = np.stack([bright(kind) / np.abs(bright(kind)).max() for kind in range(KINDS)])
    low = np.stack([soxr.resample(soxr.resample(sound, RATE, 8000), 8000, RATE)[:RATE] for sound in whole])
    before, after = model.embed(whole), model.embed(low)
    spread = before.std(axis=0)
    kept = dimensions_below(0.9 * 4000)
    for group in BANDED:
        columns = kept[group]
        one, other = before[:, columns], after[:, columns]
        if group in FORMS:
            one, other = (rows - rows.mean(axis=1, keepdims=True) for rows in (one, other))
        assert np.abs(one - other).mean() < 1.0, group  # dB
    names = dimension_names()
    assert [names[number] for number in kept["contrast_mean"]] == [f"contrast_mean_0{band}" for band in range(5)]
    left_out = np.setdiff1d(np.arange(before.shape[1]), np.concatenate(list(kept.values())))
    assert np.median(np.abs(before - after)[:, left_out].mean(axis=0) / np.maximum(spread[left_out], 1e-3)) > 1.0


def to_mel(frequency_hz: float) -> float:
    """Slaney's scale: linear up to 1 kHz, above it 27 steps to a factor of 6.4."""
    return frequency_hz * 3 / 200 if frequency_hz < 1000 else 15 + 27 * math.log(frequency_hz / 1000, 6.4)


@pytest.mark.parametrize("edge_hz", [1800.0, 3600.0, 7200.0, 9899.0])
def test_bands_are_kept_up_to_the_frequency_and_all_beyond_the_last(edge_hz: float) -> None:
    kept = dimensions_below(edge_hz)
    step = (to_mel(9900.0) - to_mel(30.0)) / 41
    assert len(kept["mel_mean"]) == int((to_mel(edge_hz) - to_mel(30.0)) / step) - 1
    assert all(len(group) for group in kept.values())
    assert sum(map(len, dimensions_below(20000.0).values())) == 2 * 40 + 4 * 7 + 6 + 5 + 4


def test_what_is_looked_for_in_the_index_has_the_inner_products_of_the_narrow_space(filled: str) -> None:
    with Store(filled) as store:
        view = load_view(store)
        narrow = narrow_space(view.model.identity, view.space, 4000.0)
        assert narrow is not None
        stored = np.concatenate([rows for _, rows in store.vector_batches()])
    assert view.space.mean is not None
    assert view.space.scale is not None
    unlimited = NarrowSpace(narrow.dimension, narrow.columns, narrow.forms, narrow.mean, narrow.scale, None)
    rows = unlimited.apply(stored)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    asked = unlimited.proposals(rows[:5])
    # In the index's space, before anything is cut off or scaled to length 1.
    standardised = (stored.astype(np.float64) - view.space.mean) * view.space.scale
    products = asked @ standardised.T
    lengths = products[:, :1] / (rows[:5] @ rows[:1].T)  # of one row in either space: the same for all others
    of_rows = np.linalg.norm((standardised[:, narrow.columns]), axis=1)
    assert of_rows.min() > 0
    ratio = products / (rows[:5] @ rows.T) / lengths
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), rtol=2e-2)


def test_a_sound_asked_about_with_others_is_explained_and_kept_away_from_in_one_space(
    filled: str, tmp_path: Path
) -> None:
    low = at(bright(2), 8000, tmp_path / "low.wav")
    wide = write_samples(tmp_path / "wide.wav", bright(2) * np.float32(0.5), RATE)
    assert name(hits(filled, low, wide, k=1)[0]) == "bright 2"
    away = hits(filled, wide, unlike=(low,), unlike_weight=2.0, k=2 * KINDS)
    assert name(away[-1]) == "bright 2"
    assert away[-1].score == pytest.approx(-1.0, abs=0.1)
    with Store(filled) as store:
        view = load_view(store)
        query = QueryMaker(store, view.model).from_file(str(low))
        hit = search(store, view, [query], k=1)[0]
        assert explain(store, view, hit, [query])[0].score == pytest.approx(hit.score, abs=1e-6)


def test_fused_model_leaves_out_its_network(library: Path, index: str, tmp_path: Path) -> None:
    for kind in range(KINDS):
        write_samples(library / f"bright {kind}.wav", bright(kind), RATE)
    run_scan(index, library, request=ModelRequest("tiny+spectral"))
    assert name(hits(index, at(bright(4), 6000, tmp_path / "copy.wav"), k=1)[0]) == "bright 4"
    with Store(index) as store:
        view = load_view(store)
        narrow = narrow_space(view.model.identity, view.space, 3000.0)
        assert narrow is not None
        assert narrow.columns.min() >= 16
        assert narrow_space(load_model(ModelRequest("tiny")).identity, view.space, 3000.0) is None


def test_silence_stays_like_nothing(filled: str) -> None:
    with Store(filled) as store:
        view = load_view(store)
        narrow = narrow_space(view.model.identity, view.space, 4000.0)
    assert narrow is not None
    assert not narrow.apply(np.zeros((2, 207), np.float16)).any()
