"""8-bit arithmetic: what judges it says no when it should, and its decision is made once and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex.models import quantise, rounding, selection
from embedindex.models.base import ModelIdentity, ModelRequest, same_space
from embedindex.models.calibration import KINDS, synthesise_windows
from embedindex.models.convnet import run_reference
from embedindex.models.openl3 import Openl3Options, load, prepare
from embedindex.models.quantise import Agreement, measure_agreement, select
from embedindex.models.weights import find_openl3
from tests.openl3_oracle import write_official_file
from tests.small_nets import levels, onnx, relative, small_net

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
    """What flows differs by less than 8 bits resolve: a large constant with a little signal on it."""
    net = small_net()
    third = net.layers[2]
    buried = replace(third, kernel=third.kernel * np.float32(1e-4), bias=np.full_like(third.bias, 100.0))
    chosen = select(net.with_layers([*net.layers[:2], buried, *net.layers[3:]]), levels(9, 1), levels(40, 2))
    assert chosen.precision == "fp32"
    assert not chosen.best.agreement.passes
    assert "float32 is used" in chosen.message


def test_selection_reports_what_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MIN_SPEED_UP", 0.0)
    said: list[str] = []
    shares: list[float] = []
    chosen = select(small_net(), levels(9, 1), levels(40, 2), report=said.append, advance=shares.append)
    assert shares == sorted(set(shares))
    assert len(shares) > 10
    assert 0 < shares[0] < shares[-1] <= 1
    assert chosen.fp32_windows_per_s > 0
    assert chosen.trials[-1].agreement.passes or len(chosen.trials) == 5
    assert f"{chosen.best.agreement.overlap:.3f}" in chosen.message
    assert json.loads(json.dumps(chosen.facts()))["chosen"] == chosen.precision
    assert len(said) == 2 + len(chosen.trials)
    found = onnx(chosen.content).cells(levels(40, 2))
    exact = run_reference(small_net(), levels(40, 2)).astype(np.float32)
    assert measure_agreement(exact, found).overlap == pytest.approx(chosen.best.agreement.overlap, abs=0.02)


def test_when_none_passes_the_nearest_variant_is_kept_for_those_who_insist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MIN_OVERLAP", 1.1)
    chosen = select(small_net(spread=2.0), levels(9, 1), levels(40, 2))
    assert chosen.precision == "fp32"
    assert chosen.best.agreement.overlap == max(trial.agreement.overlap for trial in chosen.trials)


def test_the_fastest_variant_that_passes_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MIN_OVERLAP", 0.5)
    monkeypatch.setattr(quantise, "MIN_SPEED_UP", 0.0)
    (trial,) = select(small_net(), levels(9, 1), levels(40, 2)).trials
    assert trial.variant == "first layer in float32"


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
    monkeypatch.setattr(quantise, "VARIANTS", ((1, False),))
    monkeypatch.setattr(rounding, "PLACES", 32)
    return tmp_path


def test_precision_is_chosen_once_and_kept(small_selection: Path) -> None:
    path = write_official_file(small_selection / "w.h5")
    weights = find_openl3("mel128", "music", weights=path)
    said: list[str] = []
    shares: list[float] = []
    prepared = prepare(weights, Openl3Options("mel128"), progress=said.append, advance=shares.append)
    assert said
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
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
    assert not list((small_selection / "models" / "converted").glob(".*.part"))
