"""8-bit arithmetic: what prepares a network for it is exact, and what judges it says no when it should."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.models import quantise, selection
from embedindex.models.base import ModelIdentity, ModelRequest, same_space
from embedindex.models.calibration import KINDS, synthesise_windows
from embedindex.models.convnet import ConvLayer, ConvNet, run_reference
from embedindex.models.convnet_onnx import ActivationRange, IntegerPlan, build, quantise_kernel
from embedindex.models.engines import OnnxNetwork
from embedindex.models.openl3 import Openl3Options, load, prepare
from embedindex.models.quantise import (
    Agreement,
    _Flow,
    _observe,
    correct_biases,
    equalise,
    measure_agreement,
    select,
)
from embedindex.models.weights import find_openl3
from tests.openl3_oracle import Array, write_official_file


def small_net(seed: int = 0, *, spread: float = 1.0, contrast: float = 0.0) -> ConvNet:
    """Return a net of five small layers; `spread` makes the scales of its channels uneven."""
    rng = np.random.default_rng(seed)
    layers = []
    for number, (inputs, outputs) in enumerate([(1, 16), (16, 16), (16, 24), (24, 24), (24, 32)]):
        kernel = rng.standard_normal((outputs, inputs, 3, 3)) * (2 / 9 / inputs) ** 0.5
        kernel *= np.exp(rng.uniform(-spread, spread, (outputs, 1, 1, 1)))
        bias = 0.1 * rng.standard_normal(outputs) - contrast
        last = number == 4
        layers.append(
            ConvLayer(
                kernel.astype(np.float32), bias.astype(np.float32), not last, (2, 2) if number in (1, 3) else None
            )
        )
    return ConvNet(32, 24, 0.05, 2.0, tuple(layers), "max", (4, 3))


def levels(count: int, seed: int) -> Array:
    """Return smooth random spectrograms in [-80, 0] dB."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 8, 6))
    fine = np.kron(coarse, np.ones((1, 4, 4))) + 0.2 * rng.random((count, 32, 24))
    return (-80 * np.clip(fine, 0, 1)).astype(np.float32)


def onnx(content: bytes) -> OnnxNetwork:
    import hashlib

    return OnnxNetwork(content, hashlib.sha256(content).hexdigest(), 1)


def relative(found: Array, exact: Array) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


# What is exact


def test_rounding_keeps_the_sum_of_each_patch_to_half_a_step() -> None:
    kernel = np.random.default_rng(0).standard_normal((8, 5, 3, 3)).astype(np.float32)
    rounded, scales = quantise_kernel(kernel)
    steps = kernel / scales[:, None, None, None]
    assert np.abs(rounded.sum(axis=(2, 3)) - steps.sum(axis=(2, 3))).max() <= 0.5 + 1e-3
    assert np.abs(rounded - steps).max() <= 1.5
    assert np.abs(rounded).max() == 127


def test_rounding_by_patches_errs_less_on_smooth_inputs_than_plain_rounding() -> None:
    net = small_net()
    smooth = levels(4, 1)
    plain, patches = [], []
    for layer in net.layers:
        rounded, scales = quantise_kernel(layer.kernel)
        step = scales[:, None, None, None]
        plain.append(replace(layer, kernel=(np.rint(layer.kernel / step) * step).astype(np.float32)))
        patches.append(replace(layer, kernel=(rounded * step).astype(np.float32)))
    exact = run_reference(net, smooth)
    errors = [relative(run_reference(net.with_layers(layers), smooth), exact) for layers in (patches, plain)]
    assert errors[0] < 0.7 * errors[1]


def test_equalisation_leaves_the_function_as_it_was() -> None:
    net = small_net(spread=2.0)
    given = levels(3, 1)
    changed, _ = equalise(net, _observe(net, levels(6, 2), 1), 0.5)
    assert not np.allclose(changed.layers[0].kernel, net.layers[0].kernel, rtol=0.1)
    assert relative(run_reference(changed, given), run_reference(net, given)) < 1e-5


def test_equalisation_knows_what_then_flows() -> None:
    net = small_net(spread=2.0)
    calibration = levels(6, 2)
    changed, flows = equalise(net, _observe(net, calibration, 1), 0.5)
    again = _observe(changed, calibration, 1)
    for predicted, seen in zip(flows, again, strict=True):
        assert np.allclose(predicted.channel_max, seen.channel_max, rtol=1e-3, atol=1e-5)
        assert np.allclose(predicted.channel_mean, seen.channel_mean, rtol=1e-3, atol=1e-5)


def test_bias_correction_takes_the_mean_error_away() -> None:
    kernel = np.array([[[[1.0, 0.0039]]]], np.float32)  # the second weight is just under half a step: it is lost
    net = ConvNet(4, 4, 1.0, 0.0, (ConvLayer(kernel, np.zeros(1, np.float32), relu=False),), "max", (1, 1))
    (corrected,) = correct_biases(net, [np.array([10.0])], [True]).layers
    assert corrected.bias[0] == pytest.approx(0.039, rel=1e-3)
    (kept,) = correct_biases(net, [np.array([10.0])], [False]).layers
    assert kept.bias[0] == 0


def test_integer_layers_compute_what_their_rounded_numbers_say() -> None:
    """A net whose weights and inputs are whole steps already loses nothing but the rounding of its output."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (3, 1, 3, 3)).astype(np.float32)
    kernel[:, 0, 0, 0] = 127
    net = ConvNet(6, 5, 1.0, 0.0, (ConvLayer(kernel, np.zeros(3, np.float32), relu=False),), "max", (1, 1))
    given = rng.integers(0, 256, (2, 6, 5)).astype(np.float32)
    exact = run_reference(net, given)
    span = ActivationRange(float(exact.min()), float(exact.max()))
    found = onnx(build(net, IntegerPlan((True,), ActivationRange(0.0, 255.0), (span,)))).cells(given)
    assert np.abs(found - exact).max() <= 1.01 * float(span.scale)


def test_layers_left_in_float_are_in_float() -> None:
    net = small_net()
    given = levels(4, 1)
    flows = [ActivationRange(-8.0, 8.0)] * 5
    plans = [
        IntegerPlan(tuple(number >= first for number in range(5)), ActivationRange(-3, 3), tuple(flows))
        for first in (0, 5)
    ]
    exact = run_reference(net, given)
    integer, floating = (relative(onnx(build(net, plan)).cells(given), exact) for plan in plans)
    assert floating < 1e-6 < integer


# What judges


def test_agreement_of_equal_vectors_is_perfect_and_of_unrelated_ones_fails() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 16)).astype(np.float32)
    same = measure_agreement(vectors, 3 * vectors)
    assert same.overlap == 1.0
    assert same.cosine_p5 == pytest.approx(1.0)
    assert not measure_agreement(vectors, rng.standard_normal((60, 16)).astype(np.float32)).passes


def test_agreement_counts_common_neighbours() -> None:
    angles = np.linspace(0, 1, 40)
    line = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    swapped = line.copy()
    swapped[[0, 39]] = swapped[[39, 0]]
    agreement = measure_agreement(line, swapped)
    assert agreement.overlap < 0.98
    assert agreement.cosine_p5 < 0.995


@pytest.mark.parametrize(
    ("overlap", "cosine", "passes"), [(0.98, 0.995, True), (0.9799, 1.0, False), (1.0, 0.9949, False)]
)
def test_both_criteria_have_to_hold(overlap: float, cosine: float, passes: bool) -> None:
    assert Agreement(overlap, cosine).passes is passes


def test_a_network_whose_int8_does_not_agree_stays_in_float32() -> None:
    """Vectors that differ by less than 8 bits resolve: a large constant with a little signal on it."""
    net = small_net()
    last = net.layers[-1]
    buried = replace(last, kernel=last.kernel * np.float32(1e-4), bias=np.full_like(last.bias, 100.0))
    chosen = select(net.with_layers([*net.layers[:-1], buried]), levels(9, 1), levels(40, 2))
    assert chosen.precision == "fp32"
    assert not chosen.best.agreement.passes
    assert "float32 is used" in chosen.message


def test_selection_reports_what_it_measured() -> None:
    said: list[str] = []
    chosen = select(small_net(), levels(9, 1), levels(40, 2), report=said.append)
    assert chosen.fp32_windows_per_s > 0
    assert len(chosen.trials) >= 4
    assert f"{chosen.best.agreement.overlap:.3f}" in chosen.message
    assert json.loads(json.dumps(chosen.facts()))["chosen"] == chosen.precision
    assert len(said) == 1 + len(chosen.trials)
    found = onnx(chosen.content).cells(levels(40, 2))
    exact = run_reference(small_net(), levels(40, 2)).astype(np.float32)
    assert measure_agreement(exact, found).overlap == pytest.approx(chosen.best.agreement.overlap, abs=0.02)


def test_when_none_passes_the_nearest_variant_is_kept_for_those_who_insist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MIN_OVERLAP", 1.1)
    chosen = select(small_net(spread=2.0), levels(9, 1), levels(40, 2))
    assert chosen.precision == "fp32"
    assert chosen.best.agreement.overlap == max(trial.agreement.overlap for trial in chosen.trials)


def test_int8_that_is_no_faster_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MIN_OVERLAP", 0.0)
    monkeypatch.setattr(quantise, "MIN_COSINE_P5", 0.0)
    monkeypatch.setattr(quantise, "MIN_SPEED_UP", 1e6)
    assert select(small_net(), levels(9, 1), levels(40, 2)).precision == "fp32"
    monkeypatch.setattr(quantise, "MIN_SPEED_UP", 0.0)
    assert select(small_net(), levels(9, 1), levels(40, 2)).precision == "int8"


# Sounds


def test_calibration_sounds_are_finite_loud_and_repeatable() -> None:
    windows = synthesise_windows(2 * len(KINDS), 48000, 48000, 7)
    assert np.isfinite(windows).all()
    peaks = np.abs(windows).max(axis=1)
    assert peaks.min() > 0.09
    assert peaks.max() <= 1.0 + 1e-6
    assert np.array_equal(windows[3], synthesise_windows(4, 48000, 48000, 7)[3])


def test_judged_sounds_are_not_the_calibration_sounds() -> None:
    first, second = (
        synthesise_windows(9, 24000, 24000, seed) for seed in (selection.CALIBRATION_SEED, selection.JUDGED_SEED)
    )
    cosines = (
        np.abs(np.einsum("nd,nd->n", first, second)) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    )
    assert cosines.max() < 0.9


# Precision in a model's identity


def identity(**parameters: str | bool) -> ModelIdentity:
    return ModelIdentity("m", 48000, 48000, 512, "ab", parameters={"version": 1, **parameters})


def test_precisions_are_one_space_only_where_they_were_measured_to_agree() -> None:
    exact = identity(precision="fp32")
    agreeing = identity(precision="int8", quantisation="a", agrees_with_fp32=True)
    differing = identity(precision="int8", quantisation="a", agrees_with_fp32=False)
    assert same_space(exact, agreeing)
    assert same_space(agreeing, exact)
    assert same_space(differing, differing)
    assert not same_space(exact, differing)
    assert not same_space(agreeing, replace(exact, weights_sha256="cd"))
    assert not same_space(agreeing, identity(precision="fp32", frontend="librosa"))


# Through the model


@pytest.fixture
def small_selection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Few windows to calibrate and judge on, and a models folder of its own."""
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(selection, "CALIBRATION_ROUNDS", 1)
    monkeypatch.setattr(selection, "JUDGED_ROUNDS", 2)
    monkeypatch.setattr(quantise, "FLOAT_LAYERS", (1,))
    return tmp_path


def test_precision_is_chosen_once_and_kept(small_selection: Path) -> None:
    path = write_official_file(small_selection / "w.h5")
    weights = find_openl3("mel128", "music", weights=path)
    said: list[str] = []
    prepared = prepare(weights, Openl3Options("mel128"), progress=said.append)
    assert said
    assert prepared.precision in ("fp32", "int8")
    said.clear()
    assert prepare(weights, Openl3Options("mel128"), progress=said.append) == prepared
    assert not said
    options = (("input_repr", "mel128"),)
    auto = load(ModelRequest("openl3", options, path), said.append)
    assert auto.identity.parameters["precision"] == prepared.precision
    assert not said
    integer = load(ModelRequest("openl3", options, path, "int8"))
    floating = load(ModelRequest("openl3", options, path, "fp32"))
    assert integer.identity.parameters["precision"] == "int8"
    assert integer.identity.parameters["agrees_with_fp32"] is (prepared.precision == "int8")
    assert integer.identity.fingerprint != floating.identity.fingerprint
    windows = synthesise_windows(9, 48000, 48000, 5)
    difference = relative(integer.embed(windows), floating.embed(windows))
    assert 1e-6 < difference < 0.1
    assert not list((small_selection / "models" / "converted").glob("*.tmp"))


def test_flow_keeps_shapes() -> None:
    flow = _observe(small_net(), levels(6, 2), 1)[0]
    assert isinstance(flow, _Flow)
    assert flow.channel_max.shape == flow.channel_mean.shape == (16,)
    assert len(flow.samples) == 16
