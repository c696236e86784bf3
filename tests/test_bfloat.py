"""Networks for bfloat16: rounded numbers and weights, an input in parts, integers behind, and OpenVINO with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from embedindex.errors import ChecksumError, UsageError
from embedindex.models import openvino_network, quantise, selection
from embedindex.models.base import ModelIdentity, ModelRequest, same_space
from embedindex.models.bfloat import Halved, halve_network, input_in_parts, nearest_bfloat
from embedindex.models.converted import store_converted
from embedindex.models.convnet import ConvNet, run_reference
from embedindex.models.convnet_onnx import build, build_bfloat, build_integer
from embedindex.models.devices import find_devices
from embedindex.models.engines import OnnxNetwork
from embedindex.models.openl3 import load, reduce_cells
from embedindex.models.openvino_network import OpenvinoNetwork, bfloat_ladder
from embedindex.models.quantise import Ladder, select
from embedindex.models.rounding import observe, round_network, round_weights
from embedindex.models.selection import precision_parameters, selection_key
from tests.openl3_oracle import ORACLE, Array, needs_oracle, weights, write_official_file
from tests.small_nets import levels, onnx, relative, small_net

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


def has_bfloat() -> bool:
    return openvino_network.processor_has_bfloat()


def halved(net: ConvNet) -> Halved:
    seen = observe(net, levels(9, 1))
    return halve_network(round_network(net, seen), seen)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Numbers


def test_a_bfloat_is_the_nearest_of_its_neighbours_and_ties_are_even() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(5000) * np.exp(rng.uniform(-40, 40, 5000))).astype(np.float32)
    found = nearest_bfloat(values)
    bits = found.view(np.uint32)
    assert not (bits & 0xFFFF).any()
    for step in (-0x10000, 0x10000):
        other = (bits.astype(np.int64) + step).astype(np.uint32).view(np.float32)
        assert (np.abs(values.astype(float) - found) <= np.abs(values.astype(float) - other)).all()
    assert nearest_bfloat(np.array([0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8])).tolist() == [0, 1, 1 + 2**-6, -1]


def test_the_input_loses_nothing_in_parts() -> None:
    net = small_net()
    exact = levels(3, 1) * np.float64(net.input_scale) + net.input_shift
    parts = input_in_parts(net, levels(3, 1))
    assert np.array_equal(parts, nearest_bfloat(parts))
    assert np.array_equal(parts[:, 0], parts[:, 2])
    assert np.abs(parts[:, 0] - exact).max() > 1e-3
    assert np.abs(parts[:, 0] + parts[:, 1] - exact).max() < 2e-5


# Weights


def test_weights_for_bfloat_are_bfloats_and_rounded_together() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2000, 98))
    inputs = np.stack([noise[:, start : start + 8].mean(axis=1) for start in range(90)], axis=1)
    exact = rng.standard_normal((16, 90))
    rounded = round_weights(
        exact, np.cov(inputs.T, bias=True).astype(np.float32), lambda given: nearest_bfloat(given).astype(np.float64)
    )
    assert np.array_equal(rounded, nearest_bfloat(rounded))
    plain = (inputs @ (exact - nearest_bfloat(exact)).T).var(axis=0)
    assert (inputs @ (exact - rounded).T).var(axis=0).sum() < 0.3 * plain.sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_for_bfloat_is_near_the_exact_one(seed: int) -> None:
    net = small_net(seed)
    plan = halved(net)
    for layer in plan.layers:
        assert np.array_equal(layer.kernel, nearest_bfloat(layer.kernel))
    given = levels(6, 2)
    exact = run_reference(net, given)
    found = onnx(build_bfloat(plan.with_bfloats(5))).cells(input_in_parts(net, given))
    assert 1e-5 < relative(found, exact) < 5e-3


def test_what_was_lost_of_the_mean_is_in_the_bias() -> None:
    net = small_net()
    seen = observe(net, levels(9, 1))
    plan = halve_network(round_network(net, seen), seen)
    for exact, layer, inputs in zip(net.layers[1:], plan.layers[1:], seen.inputs, strict=True):
        moved = (layer.kernel.astype(np.float64) - exact.kernel).reshape(len(layer.bias), -1) @ inputs.mean
        assert np.abs(moved).max() > 1e-6
        assert np.abs(moved + layer.bias - exact.bias).max() < 1e-6


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_integers_behind_bfloats_are_those_of_the_network_in_integers(count: int) -> None:
    """Both round the same steps: but for the result, which is not rounded here, and for a step where floats differ."""
    net = small_net(2)
    plan = halved(net)
    given = levels(6, 2)
    found = onnx(build_bfloat(plan.with_bfloats(count))).cells(input_in_parts(net, given))
    integers = onnx(build_integer(plan.rounded.with_floats(count, split=False))).cells(given)
    steps = np.tile(plan.rounded.steps[-1], len(integers[0]) // len(plan.rounded.steps[-1]))
    assert np.median(np.abs(found - integers) / steps) < 1
    assert relative(found, run_reference(net, given)) < 0.03


# The ladder


@dataclass
class PartsInOnnxRuntime:
    """A network for bfloat16 in ONNX Runtime: in float32, but with all that was rounded."""

    net: ConvNet
    model: OnnxNetwork

    def cells(self, spectrograms: Array) -> Array:
        return self.model.cells(input_in_parts(self.net, spectrograms))


def test_the_fastest_variant_that_agrees_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MIN_SPEED_UP", 0.0)
    ladder = Ladder("bf16", bfloat_ladder().variants, lambda net, content, _: PartsInOnnxRuntime(net, onnx(content)))
    chosen = select(small_net(), levels(9, 1), levels(40, 2), ladder=ladder)
    assert chosen.precision == "bf16"
    assert "bf16 arithmetic agrees with float32" in chosen.message
    assert chosen.facts()["precision"] == "bf16"
    names = [trial.variant for trial in chosen.trials]
    assert names[0] == "first layer in bfloat16, then int8"
    assert [trial.agreement.passes for trial in chosen.trials] == [False] * (len(names) - 1) + [True]
    monkeypatch.setattr(quantise, "MIN_OVERLAP", 1.1)
    none = select(small_net(), levels(9, 1), levels(40, 2), ladder=ladder)
    assert none.precision == "fp32"
    assert "float32 is used: bf16 arithmetic does not" in none.message
    assert none.trials[-1].variant == "all layers in bfloat16"


def test_a_choice_is_made_once_for_each_ladder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path))
    monkeypatch.setattr(selection, "CALIBRATION_ROUNDS", 1)
    monkeypatch.setattr(selection, "JUDGED_ROUNDS", 2)
    ladder = Ladder("bf16", bfloat_ladder().variants, lambda net, content, _: PartsInOnnxRuntime(net, onnx(content)))
    subject = selection.Subject(
        "k", small_net, lambda windows: levels(len(windows), len(windows)), lambda cells: cells, 24000, 24000, 4, False
    )
    said: list[str] = []
    kept = [selection.make_selection(subject, 1, said.append, ladder=one) for one in (ladder, None)]
    assert [one.facts["precision"] for one in kept] == ["bf16", "int8"]
    for one in kept:
        stored = selection.stored_selection("k", one.facts["precision"])
        assert stored is not None
        assert stored.sha256 == one.sha256
    said.clear()
    assert selection.make_selection(subject, 1, said.append, ladder=ladder).content == kept[0].content
    assert not said


def test_a_choice_for_openvino_is_kept_beside_the_one_for_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path))
    assert selection_key("k", "bf16") != selection_key("k", "int8") == selection_key("k")
    facts = {"precision": "bf16", "variant": "first 6 layers in bfloat16, then int8", "agrees": True}
    kept = precision_parameters(store_converted(selection_key("k", "bf16"), b"model", facts))
    assert kept == {"precision": "bf16", "quantisation": facts["variant"], "agrees_with_fp32": True}
    half = ModelIdentity("m", 48000, 48000, 512, "ab", parameters=kept)
    assert same_space(half, ModelIdentity("m", 48000, 48000, 512, "ab", parameters={"precision": "fp32"}))


# The engine


def test_precisions_and_devices_that_an_engine_does_not_have_are_refused(tmp_path: Path) -> None:
    path = write_official_file(tmp_path / "w.h5")
    with pytest.raises(UsageError, match="onnxruntime computes in fp32 or int8; bf16 needs --engine openvino"):
        load(ModelRequest("openl3", weights=path, precision="bf16"))
    with pytest.raises(UsageError, match="openvino computes in fp32 or bf16; int8 needs --engine onnxruntime"):
        load(ModelRequest("openl3", weights=path, precision="int8", engine="openvino"))
    with pytest.raises(UsageError, match="tensorflow computes in fp32 only; bf16 needs --engine openvino"):
        load(ModelRequest("openl3", weights=path, precision="bf16", engine="tensorflow"))
    assert find_devices("auto", "openvino") == ()
    with pytest.raises(UsageError, match="computes on the processor"):
        find_devices("cuda", "openvino")


@needs_openvino
def test_openvino_computes_the_same_network_in_float32() -> None:
    net = small_net()
    content = build(net)
    found = OpenvinoNetwork(content, sha256(content), 2).cells(levels(3, 2))
    assert np.abs(found - run_reference(net, levels(3, 2))).max() <= 1e-4


@needs_openvino
@pytest.mark.parametrize("count", [2, 5])
def test_openvino_computes_in_bfloat_with_integers_behind(count: int) -> None:
    if not has_bfloat():
        pytest.skip("this processor has no bfloat16")
    net = small_net()
    content = build_bfloat(halved(net).with_bfloats(count))
    given = levels(4, 2)
    found = OpenvinoNetwork(content, sha256(content), 1, net=net).cells(given)
    assert 1e-5 < relative(found, run_reference(net, given)) < 0.03
    assert np.array_equal(OpenvinoNetwork(content, sha256(content), 2, net=net).cells(given[2:3])[0], found[2])


@needs_openvino
def test_openvino_does_not_load_a_model_with_other_bytes() -> None:
    with pytest.raises(ChecksumError):
        OpenvinoNetwork(b"anything", "0" * 64, 1)


@needs_oracle
@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_returns_the_official_embedding_of_the_official_spectrogram(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str
) -> None:
    """Float32 within ONNX Runtime's tolerance; bfloat16 within 2 %: it resolves 0.2 to 0.4 % of each number."""
    if precision == "bf16" and not has_bfloat():
        pytest.skip("this processor has no bfloat16")
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path))
    model = load(ModelRequest("openl3", (("input_repr", "mel128"),), weights("mel128"), "fp32", "openvino"))
    network = model._engine
    assert isinstance(network, OpenvinoNetwork)
    with np.load(ORACLE / "official" / "stages.npz") as stages:
        given = stages["mel128_kapre__noise__spec"][1:2]
        expected = stages["mel128_kapre__noise__embedding512"]
    if precision == "fp32":
        assert np.abs(reduce_cells(network.cells(given), 512) - expected).max() <= 1e-4
        return
    from embedindex.models.cache import file_sha256
    from embedindex.models.openl3_weights import read_weights, to_convnet

    net = to_convnet(read_weights(weights("mel128"), file_sha256(weights("mel128"))), "mel128")
    seen = observe(net, given)
    content = build_bfloat(halve_network(round_network(net, seen), seen).with_bfloats(len(net.layers)))
    found = OpenvinoNetwork(content, sha256(content), 1, net=net).cells(given)
    assert relative(reduce_cells(found, 512), expected) < 0.02
