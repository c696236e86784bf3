"""Convolutions by tiles, against a plain convolution in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from embedindex.models.convnet import ConvLayer, ConvNet, run_reference
from embedindex.models.convnet_onnx import build
from embedindex.models.winograd import SPAN, TILE, pays, transforms
from tests import small_nets
from tests.openl3_oracle import Array


def layer(inputs: int, outputs: int, seed: int, *, relu: bool = True, pool: tuple[int, int] | None = None) -> ConvLayer:
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((outputs, inputs, 3, 3)) * (2 / 9 / inputs) ** 0.5
    return ConvLayer(kernel.astype(np.float32), rng.standard_normal(outputs).astype(np.float32), relu, pool)


def levels(net: ConvNet, count: int) -> Array:
    return (-80 * np.random.default_rng(3).random((count, net.rows, net.columns))).astype(np.float32)


def greatest_difference(net: ConvNet, count: int = 1) -> float:
    """Return how far the network computed by tiles is from the exact one."""
    given = levels(net, count)
    return float(np.abs(small_nets.onnx(build(net, tiled=True)).cells(given) - run_reference(net, given)).max())


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


def test_four_results_of_a_kernel_of_three_come_from_six_products() -> None:
    results, kernels, inputs = transforms()
    rng = np.random.default_rng(0)
    given, kernel = rng.standard_normal(SPAN), rng.standard_normal(3)
    by_products = results @ ((kernels @ kernel) * (inputs @ given))
    assert np.allclose(by_products, np.correlate(given, kernel, "valid"), rtol=0, atol=1e-12)
    assert by_products.shape == (TILE,)


# Sizes that tiles fit and do not fit; 65 x 50 has more tiles than one round takes, 5 x 3 fewer than there are channels.
@pytest.mark.parametrize(("rows", "columns"), [(16, 24), (65, 90), (23, 17), (5, 3)])
@pytest.mark.parametrize("pool", [(2, 2), None])
def test_a_network_by_tiles_computes_what_a_plain_convolution_does(
    rows: int, columns: int, pool: tuple[int, int] | None
) -> None:
    layers = (layer(1, 64, 0), layer(64, 64, 1, pool=pool), layer(64, 96, 2), layer(96, 64, 3, relu=False))
    net = ConvNet(rows, columns, 0.05, 2.0, layers, "max", (2, 1))
    assert greatest_difference(net) <= 1e-4


def test_windows_of_one_call_do_not_mix() -> None:
    net = ConvNet(
        19, 21, 0.05, 2.0, (layer(1, 64, 0), layer(64, 128, 1, pool=(2, 2)), layer(128, 64, 2)), "max", (3, 3)
    )
    assert greatest_difference(net, 3) <= 1e-4


def test_layers_by_tiles_and_plain_ones_follow_each_other() -> None:
    layers = (layer(1, 64, 0), layer(64, 64, 1), layer(64, 16, 2, pool=(2, 2)), layer(16, 64, 3), layer(64, 64, 4))
    net = ConvNet(18, 22, 0.05, 2.0, layers, "max", (3, 5))
    found = operators(build(net, tiled=True))
    assert found.count("Conv") == 3
    assert greatest_difference(net) <= 1e-4


def test_beyond_the_edges_are_zeros_after_a_layer_without_relu_too() -> None:
    layers = (layer(1, 64, 0), layer(64, 64, 1, relu=False), layer(64, 64, 2))
    assert greatest_difference(ConvNet(14, 15, 0.05, 2.0, layers, "max", (2, 3))) <= 1e-4


def test_a_mean_over_rows_can_follow() -> None:
    layers = (layer(1, 64, 0), layer(64, 64, 1, pool=(2, 2)), layer(64, 64, 2))
    assert greatest_difference(ConvNet(20, 26, 0.05, 2.0, layers, "mean-max"), 2) <= 1e-4


def test_what_cannot_be_done_by_tiles_is_not() -> None:
    plain = layer(64, 64, 0)
    assert pays(plain)
    assert not pays(replace(plain, pool=(2, 1)))
    assert not pays(replace(plain, kernel=plain.kernel[:, :, :1]))
    assert not pays(replace(plain, kernel=plain.kernel[:, :1]))
    assert "Conv" in operators(build(ConvNet(8, 8, 1.0, 0.0, (layer(1, 64, 0),), "max", (1, 1)), tiled=True))
