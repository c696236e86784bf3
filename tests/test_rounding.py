"""Rounding a network to integers: weights together rather than one by one, steps that fit, sums that are exact."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from embedindex.models import rounding
from embedindex.models.convnet import ConvLayer, ConvNet, run_reference
from embedindex.models.convnet_onnx import IntegerLayer, IntegerNet, build_integer
from embedindex.models.rounding import RANGE_MARGIN, Observed, observe, round_network, round_weights
from tests.openl3_oracle import Array
from tests.small_nets import levels, onnx, relative, small_net

# Weights


def alike_inputs(count: int, size: int, seed: int) -> Array:
    """Return (count, size) inputs of which neighbours are alike, as a spectrogram's are."""
    noise = np.random.default_rng(seed).standard_normal((count, size + 8))
    return np.stack([noise[:, start : start + 8].mean(axis=1) for start in range(size)], axis=1)


def output_variance(inputs: Array, error: Array) -> Array:
    """Return how much each output moves on `inputs` when the weights are wrong by `error`."""
    return np.asarray((inputs @ error.T).var(axis=0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "size"), [(2000, 90), (40, 90), (1, 20)])
def test_rounding_never_moves_an_output_more_than_plain_rounding(seed: int, count: int, size: int) -> None:
    inputs = alike_inputs(count, size, seed)
    exact = np.random.default_rng(seed).uniform(-127, 127, (16, size))
    rounded = round_weights(exact, np.cov(inputs.T, bias=True).astype(np.float32))
    assert np.array_equal(rounded, np.rint(rounded))
    assert np.abs(rounded).max() <= 127
    plain = output_variance(inputs, exact - np.rint(exact))
    assert (output_variance(inputs, exact - rounded) <= plain * (1 + 1e-4) + 1e-6).all()


def test_rounding_moves_outputs_far_less_where_inputs_are_alike() -> None:
    inputs = alike_inputs(2000, 90, 0)
    exact = np.random.default_rng(0).uniform(-127, 127, (16, 90))
    rounded = round_weights(exact, np.cov(inputs.T).astype(np.float32))
    ratio = output_variance(inputs, exact - rounded).sum() / output_variance(inputs, exact - np.rint(exact)).sum()
    assert ratio < 0.2


@pytest.mark.parametrize("block", [7, 30, 512])
def test_factor_by_blocks_is_the_factor(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(rounding, "CHOLESKY_BLOCK", block)
    matrix = np.cov(alike_inputs(500, 60, 2).T) + 0.01 * np.eye(60)
    found = np.triu(rounding.cholesky_above(matrix.astype(np.float32)))
    assert np.abs(found - np.linalg.cholesky(matrix).T).max() < 1e-5
    assert np.abs(found.T @ found - matrix).max() < 1e-6


def test_rounding_is_near_the_best_of_all() -> None:
    """Of six weights, every combination of the two whole numbers next to each is tried."""
    inputs = alike_inputs(500, 6, 1)
    exact = np.random.default_rng(1).uniform(-20, 20, (30, 6))
    rounded = round_weights(exact, np.cov(inputs.T).astype(np.float32))
    choices = np.array(list(itertools.product((0, 1), repeat=6)))
    best = [output_variance(inputs, row - (np.floor(row) + choices)).min() for row in exact]
    found = output_variance(inputs, exact - rounded).mean()
    plain = output_variance(inputs, exact - np.rint(exact)).mean()
    assert found < np.mean(best) + 0.3 * (plain - np.mean(best))


def test_weights_of_unrelated_inputs_are_rounded_plainly() -> None:
    exact = np.random.default_rng(0).uniform(-127, 127, (5, 130))
    assert np.array_equal(round_weights(exact, np.diag(np.arange(1.0, 131.0)).astype(np.float32)), np.rint(exact))


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = alike_inputs(500, 70, 0)
    exact = np.random.default_rng(0).uniform(-127, 127, (8, 70))
    found = []
    for block in (1, 17, 64, 100):
        monkeypatch.setattr(rounding, "BLOCK", block)
        found.append(round_weights(exact, np.cov(inputs.T).astype(np.float32)))
    assert all(np.array_equal(found[0], other) for other in found[1:])


# What is observed


def two_layers() -> ConvNet:
    net = small_net()
    first = replace(net.layers[0], pool=(4, 4))
    return replace(net, layers=(first, replace(net.layers[1], pool=None)), cell=(4, 3))


def test_inputs_are_observed_as_they_are_under_the_kernel() -> None:
    """Few enough places for all to be looked at: the moments are those of every patch, cut out one by one."""
    net, given = two_layers(), levels(4, 1)
    seen = observe(net, given)
    flow = np.stack([run_reference(one_channel(net, channel), given).reshape(4, 8, 6) for channel in range(16)], axis=1)
    padded = np.pad(flow, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.array(
        [padded[n, :, r : r + 3, c : c + 3].reshape(-1) for n in range(4) for r in range(8) for c in range(6)]
    )
    assert np.allclose(seen.inputs[0].mean, patches.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert np.allclose(seen.inputs[0].covariance, np.cov(patches.T, bias=True), rtol=1e-3, atol=1e-4)
    assert np.allclose(seen.highest[0], flow.max(axis=(0, 2, 3)), rtol=1e-4)


def one_channel(net: ConvNet, channel: int) -> ConvNet:
    """Return the first layer of `net` with one of its channels, its cells being all places."""
    first = net.layers[0]
    layer = replace(first, kernel=first.kernel[channel : channel + 1], bias=first.bias[channel : channel + 1])
    return replace(net, layers=(layer,), cell=(1, 1))


def test_what_rests_is_what_leaves_where_nothing_sounds() -> None:
    net, given = two_layers(), levels(4, 1)
    floor = np.full((1, 32, 24), given.min(), np.float32)
    expected = [run_reference(one_channel(net, channel), floor).reshape(8, 6)[4, 3] for channel in range(16)]
    assert np.allclose(observe(net, given).resting[0], expected, rtol=1e-4, atol=1e-5)


# Steps


def test_resting_values_are_whole_steps_and_all_that_was_seen_fits() -> None:
    net = small_net(spread=2.0)
    seen = observe(net, levels(6, 2))
    rounded = round_network(net, seen)
    for steps, resting, highest in list(zip(rounded.steps, seen.resting, seen.highest, strict=True))[:-1]:
        number = resting / steps
        assert np.abs(number - np.rint(number))[number > 0.99].max() < 1e-6
        assert (255 * steps >= highest * RANGE_MARGIN * (1 - 0.5 / 8)).all()


def test_a_constant_under_the_result_costs_no_resolution() -> None:
    net = small_net()
    last = net.layers[-1]
    raised = net.with_layers([*net.layers[:-1], replace(last, bias=last.bias + np.float32(1000.0))])
    given = levels(8, 1)
    exact = run_reference(net, given)
    errors = []
    for changed, constant in ((net, 0.0), (raised, 1000.0)):
        plan = round_network(changed, observe(changed, levels(9, 2))).with_floats(1, split=False)
        errors.append(relative(onnx(build_integer(plan)).cells(given) - constant, exact))
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


# Integers


def test_integer_layers_compute_what_their_numbers_say() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)
    bias, scales = np.array([500, -3000, 0], np.int32), np.array([0.01, 0.002, 0.005], np.float32)
    steps, lows = np.array([0.5, 2.0, 1.0], np.float32), np.array([-3.0, 0.0, 7.0], np.float32)
    whole = np.array([[[[1.0]]], [[[2.0]]]], np.float32)  # two channels: the spectrogram, and twice that
    front = ConvLayer(whole, np.zeros(2, np.float32))
    net = ConvNet(6, 5, 1.0, 0.0, (front,), "max", (1, 1))
    layer = IntegerLayer(kernel, np.zeros_like(kernel), bias, scales, None)
    given = rng.integers(0, 100, (2, 6, 5)).astype(np.float32)
    found = onnx(build_integer(IntegerNet(net, (front,), (layer,), False, steps, lows))).cells(given)
    padded = np.pad(np.stack([given, 2 * given], axis=1), ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.int64)
    sums = np.array(
        [
            [
                [(padded[n, :, r : r + 3, c : c + 3] * kernel.astype(np.int64)).sum(axis=(1, 2, 3)) for c in range(5)]
                for r in range(6)
            ]
            for n in range(2)
        ]
    )
    expected = np.clip(np.rint(scales.astype(np.float64) * (sums + bias)), 0, 255) * steps + lows
    off = np.abs(found.reshape(expected.shape) - expected) / steps
    assert off.max() <= 1.0 + 1e-6  # a sum in the middle between two whole numbers may go either way
    assert (off > 1e-6).mean() < 0.01


def test_a_split_layer_sees_sixteenths_of_steps() -> None:
    front = ConvLayer(np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32))
    net = ConvNet(4, 4, 1.0, 0.0, (front,), "max", (1, 1))
    kernel = np.full((1, 1, 1, 1), 112, np.int8)
    layer = IntegerLayer(
        kernel, np.full((1, 1, 1, 1), 7, np.int8), np.zeros(1, np.int32), np.full(1, 1 / 7, np.float32), None
    )
    given = (np.arange(32).reshape(2, 4, 4) / 16).astype(np.float32)
    one = np.ones(1, np.float32)
    found = onnx(build_integer(IntegerNet(net, (front,), (layer,), True, one, 0 * one))).cells(given)
    assert np.array_equal(found.reshape(given.shape), 16 * given)


@pytest.fixture(scope="module")
def observed() -> Observed:
    return observe(small_net(), levels(18, 2))


def test_less_is_lost_the_more_is_in_float(observed: Observed) -> None:
    net, given = small_net(), levels(12, 1)
    rounded = round_network(net, observed)
    exact = run_reference(net, given)
    errors = [
        relative(onnx(build_integer(rounded.with_floats(count, split=True))).cells(given), exact) for count in (1, 4)
    ]
    assert 0.02 > errors[0] > errors[1]


def test_the_same_network_gives_the_same_bytes(observed: Observed) -> None:
    net = small_net()
    first, second = (
        build_integer(round_network(net, seen).with_floats(1, split=True))
        for seen in (observed, observe(net, levels(18, 2)))
    )
    assert first == second
