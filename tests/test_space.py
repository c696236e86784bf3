"""The space of an index: unit rows, silence that stays silent, statistics that do not depend on how they were fed."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedindex.arrays import Float16Array, Float32Array
from embedindex.errors import IndexDamagedError, IndexTooNewError
from embedindex.models.base import Block, ModelIdentity
from embedindex.space import SCORE_LIMIT, Part, Space, learn_space

DIMENSION = 6
STANDARDISED = ModelIdentity("test", 22050, 22050, DIMENSION, standardise=True)
PLAIN = ModelIdentity("test", 22050, 22050, DIMENSION, standardise=False)
BLOCKS = ModelIdentity(
    "test", 22050, 22050, DIMENSION, blocks=(Block(2, False, 0.25), Block(DIMENSION - 2, True, 0.75))
)

any_float16 = hnp.arrays(
    np.float16,
    st.tuples(st.integers(1, 12), st.just(DIMENSION)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=16) | st.just(0.0),
)


def some_vectors(count: int = 200, seed: int = 0) -> Float16Array:
    rng = np.random.default_rng(seed)
    scales = np.array([1.0, 100.0, 1e-3, 5000.0, 1.0, 3.0])
    vectors: Float16Array = (rng.standard_normal((count, DIMENSION)) * scales + 10 * scales).astype(np.float16)
    return vectors


def learnt(vectors: Float16Array | Float32Array) -> tuple[Float32Array, Float32Array]:
    space = learn_space(STANDARDISED, [vectors])
    assert space.mean is not None
    assert space.scale is not None
    return space.mean, space.scale


@settings(deadline=None, max_examples=50)
@given(any_float16)
def test_rows_come_out_finite_and_of_length_one_unless_they_have_no_direction(vectors: Float16Array) -> None:
    for space in (learn_space(STANDARDISED, [vectors]), learn_space(STANDARDISED, [some_vectors()]), Space("plain")):
        rows = space.apply(vectors)
        assert rows.dtype == np.float32
        assert rows.shape == vectors.shape
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))
        assert not lengths[~vectors.any(axis=1)].any()


@settings(deadline=None, max_examples=50)
@given(any_float16)
def test_in_a_plain_space_every_sounding_row_has_length_one(vectors: Float16Array) -> None:
    lengths = np.linalg.norm(Space("plain").apply(vectors), axis=1)
    np.testing.assert_allclose(lengths, vectors.any(axis=1).astype(float), atol=1e-5)


def test_silence_stays_zero_in_a_space_whose_mean_is_not() -> None:
    rows = learn_space(STANDARDISED, [some_vectors()]).apply(np.zeros((2, DIMENSION), np.float16))
    assert not rows.any()


def test_dimensions_are_centred_scaled_and_cut_off() -> None:
    vectors = some_vectors(500)
    mean, scale = learnt(vectors)
    exact = vectors.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, 1 / exact.std(axis=0), rtol=1e-5)
    z = np.clip((exact - exact.mean(axis=0)) / exact.std(axis=0), -SCORE_LIMIT, SCORE_LIMIT)
    expected = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(learn_space(STANDARDISED, [vectors]).apply(vectors), expected, atol=1e-5)


def test_the_caller_keeps_its_vectors() -> None:
    vectors = some_vectors().astype(np.float32)
    before = vectors.copy()
    learn_space(STANDARDISED, [vectors]).apply(vectors)
    Space("plain").apply(vectors)
    np.testing.assert_array_equal(vectors, before)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 60), max_size=6), st.randoms(use_true_random=False))
def test_neither_the_split_into_batches_nor_their_order_matters(cuts: list[int], random: Random) -> None:
    vectors = some_vectors(60)
    batches = np.split(vectors, sorted(cuts))
    random.shuffle(batches)
    space = learn_space(STANDARDISED, iter(batches))
    mean, scale = learnt(vectors)
    assert space.mean is not None
    assert space.scale is not None
    np.testing.assert_allclose(space.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(space.scale, scale, rtol=1e-6)


def test_variance_survives_a_large_mean() -> None:
    small = np.random.default_rng(2).standard_normal((1000, DIMENSION)).astype(np.float32)
    shifted = (small.astype(np.float64) + 60000.0).astype(np.float32)
    space = learn_space(STANDARDISED, np.split(shifted, 10))
    assert space.scale is not None
    np.testing.assert_allclose(space.scale, 1 / shifted.astype(np.float64).std(axis=0), rtol=1e-5)


def test_silence_teaches_nothing() -> None:
    vectors = some_vectors()
    padded = np.concatenate((np.zeros((50, DIMENSION), np.float16), vectors))
    np.testing.assert_array_equal(learnt(padded)[0], learnt(vectors)[0])


def test_a_constant_dimension_contributes_nothing() -> None:
    vectors = some_vectors()
    vectors[:, 2] = 7.1
    assert learnt(vectors)[1][2] == 0
    query = vectors[:1].copy()
    query[:, 2] = 500.0
    space = learn_space(STANDARDISED, [vectors])
    np.testing.assert_array_equal(space.apply(query), space.apply(vectors[:1]))


@pytest.mark.parametrize("vectors", [some_vectors(0), some_vectors(1), np.repeat(some_vectors(1), 5, axis=0)])
def test_with_nothing_to_learn_from_a_sound_is_still_similar_to_itself(vectors: Float16Array) -> None:
    space = learn_space(STANDARDISED, [vectors])
    assert space.kind == "plain"
    query = some_vectors(1)
    np.testing.assert_allclose(space.apply(query) @ space.apply(query).T, [[1.0]], rtol=1e-5)


def test_a_model_that_asks_for_no_standardising_gets_a_plain_space() -> None:
    assert learn_space(PLAIN, [some_vectors()]).kind == "plain"


def test_a_vector_that_is_not_finite_is_refused() -> None:
    vectors = some_vectors()
    vectors[3, 1] = np.nan
    with pytest.raises(IndexDamagedError, match="not finite; run `embedindex verify`"):
        learn_space(STANDARDISED, [vectors])


def test_vectors_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\) are not \(n, 6\)"):
        learn_space(STANDARDISED, [some_vectors()]).apply(np.ones((2, 5), np.float32))


def test_a_space_without_its_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        Space("standardised")
    with pytest.raises(ValueError, match="different shapes"):
        Space("standardised", np.zeros(3, np.float32), np.ones(4, np.float32))
    with pytest.raises(ValueError, match="0 parts makes no sense"):
        Space("blocks")
    with pytest.raises(ValueError, match=r"add up to 0\.5, not 1"):
        Space("blocks", parts=(Part(3, 0.5, Space("plain")),))


@settings(deadline=None, max_examples=50)
@given(any_float16)
def test_round_trip_keeps_every_bit(vectors: Float16Array) -> None:
    spaces = [learn_space(identity, [vectors, some_vectors()]) for identity in (STANDARDISED, BLOCKS)]
    for space in (*spaces, Space("plain")):
        again = Space.from_bytes(space.to_bytes())
        assert again.to_bytes() == space.to_bytes()
        assert again.fingerprint == space.fingerprint
        assert (again.kind, again.limit) == (space.kind, space.limit)
        np.testing.assert_array_equal(again.apply(vectors), space.apply(vectors))


def test_fingerprints_tell_spaces_apart() -> None:
    spaces = [learn_space(identity, [some_vectors(seed=n)]) for identity in (STANDARDISED, BLOCKS) for n in (0, 1)]
    assert len({space.fingerprint for space in [*spaces, Space("plain")]}) == 5


def test_each_block_is_treated_as_if_it_were_alone() -> None:
    vectors = some_vectors()
    both = learn_space(BLOCKS, [vectors[:50], vectors[50:]]).apply(vectors)
    first = Space("plain").apply(vectors[:, :2])
    second_identity = ModelIdentity("test", 22050, 22050, DIMENSION - 2, standardise=True)
    second = learn_space(second_identity, [vectors[:, 2:]]).apply(vectors[:, 2:])
    np.testing.assert_allclose(both, np.hstack([first * 0.5, second * np.sqrt(0.75)]), atol=1e-6)
    np.testing.assert_allclose(both @ both.T, 0.25 * first @ first.T + 0.75 * second @ second.T, atol=1e-6)


def damaged_spaces() -> list[bytes]:
    good = learn_space(STANDARDISED, [some_vectors()]).to_bytes()
    line, _, raw = good.partition(b"\n")
    header = json.loads(line)

    def with_header(**changes: object) -> bytes:
        return json.dumps({**header, **changes}).encode() + b"\n" + raw

    return [
        b"",
        b"\n",
        b"\xff\xfe\n" + raw,
        b"[1]\n" + raw,
        line,
        good[:-1],
        good + b"\0",
        with_header(format="something else"),
        with_header(version="1"),
        with_header(version=0),
        with_header(kind="whitened"),
        with_header(kind="plain"),
        with_header(dimension=-6),
        with_header(dimension=0),
        with_header(dimension=6.0),
        with_header(limit=0),
        with_header(limit=float("nan")),
        with_header(limit="2"),
        line + b"\n" + np.full(2 * DIMENSION, np.nan, "<f4").tobytes(),
    ]


def damaged_blocks() -> list[bytes]:
    good = learn_space(BLOCKS, [some_vectors()]).to_bytes()
    line, _, raw = good.partition(b"\n")
    header = json.loads(line)

    def with_parts(**changes: object) -> bytes:
        first = {**header["parts"][0], **changes}
        return json.dumps({**header, "parts": [first, header["parts"][1]]}).encode() + b"\n" + raw

    def with_header(**changes: object) -> bytes:
        return json.dumps({**header, **changes}).encode() + b"\n" + raw

    swapped = [header["parts"][1], header["parts"][0]]
    return [
        good[:-1],
        good + b"\0",
        good.replace(b'"kind":"plain"', b'"kind":"plane"'),
        with_header(dimension=DIMENSION + 1),
        with_header(parts=None),
        with_header(parts=[]),
        with_header(parts=[7]),
        with_header(parts=swapped),
        with_parts(share=0),
        with_parts(share=0.5),
        with_parts(share="0.25"),
        with_parts(share=float("nan")),
        with_parts(dimension=3),
        with_parts(dimension=-2),
        with_parts(bytes=0),
        with_parts(bytes=1.5),
        with_parts(bytes=10**9),
    ]


@pytest.mark.parametrize("content", damaged_spaces() + damaged_blocks())
def test_damaged_bytes_are_refused_with_the_way_out(content: bytes) -> None:
    with pytest.raises(IndexDamagedError, match=r"damaged \(.*\); run `embedindex rebuild`"):
        Space.from_bytes(content)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_junk_is_never_a_space(content: bytes) -> None:
    with pytest.raises(IndexDamagedError):
        Space.from_bytes(content)


def test_a_later_format_is_refused_as_such() -> None:
    with pytest.raises(IndexTooNewError, match="upgrade embedindex"):
        Space.from_bytes(b'{"format":"embedindex-space","version":3}\n')
