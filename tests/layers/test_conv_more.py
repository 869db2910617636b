"""What stands beside Conv2d: its depthwise use, cuda-convnet's sizes, Conv1d and SeparableConv2d."""

from __future__ import annotations

import math

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.conv import Conv1d, Conv2d
from layernet.layers.separable import SeparableConv2d
from tests import naive_images as naive
from tests.layers.differences import check_gradients


def bound(layer, shape):
    net = Net([layer.named("it")], shape).bind("cpu", "float64", seed=1)
    for param in net.params().values():
        param.data[...] += np.random.default_rng(param.size).standard_normal(param.shape)
    return net


def batch(shape, n=2):
    return np.random.default_rng(0).standard_normal((n, *shape))


def test_depthwise_is_one_filter_a_channel():
    net = bound(Conv2d(3, 3, padding=1, groups=3), (5, 4, 3))
    weight, bias = (net.params()[f"it.{name}"].data for name in ("weight", "bias"))
    x, y = batch((5, 4, 3)), np.zeros((2, 5, 4, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for c in range(3):
        y[..., c] = bias[c]
        for i in range(3):
            for j in range(3):
                y[..., c] += padded[:, i : i + 5, j : j + 4, c] * weight[c, i, j, 0]
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", range(5, 12))
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (5, 3, 2), (2, 3, 0), (3, 1, 1)])
def test_ceil_mode_has_cuda_convnets_sizes_and_reads_zeros(size, kernel, stride, padding):
    net = bound(Conv2d(2, kernel, stride, padding, ceil_mode=True), (size, 6, 2))
    places = 1 + math.ceil((2 * padding + size - kernel) / stride)
    assert net.output_shape[0] == places
    (layer,) = net.layers
    x = batch((size, 6, 2))
    wide = np.pad(x, ((0, 0), (padding, padding + stride), (padding, padding + stride), (0, 0)))
    bare = naive.conv2d(wide, layer.weight.data, layer.bias.data, naive.window(kernel, stride), 1)
    y = net.predict(x)
    np.testing.assert_allclose(y, bare[:, : y.shape[1], : y.shape[2]], rtol=1e-12, atol=1e-12)


def test_ceil_mode_gives_alexnet_its_55():
    assert Net([Conv2d(64, 11, stride=4, ceil_mode=True)], (224, 224, 3)).output_shape == (55, 55, 64)
    assert Net([Conv2d(64, 11, stride=4)], (224, 224, 3)).output_shape == (54, 54, 64)
    assert Net([Conv2d(1, 2, stride=[2, 3], ceil_mode=True)], (5, 9, 3)).output_shape == (3, 4, 1)
    assert Net([Conv2d(1, 2, stride=[3, 2], ceil_mode=True)], (5, 9, 3)).output_shape == (2, 5, 1)


def test_a_kernel_that_does_not_fit_is_refused_in_ceil_mode_too():
    with pytest.raises(ShapeError, match="does not fit"):
        Net([Conv2d(2, 5, stride=3, ceil_mode=True)], (4, 4, 1))


SEQUENCES = {
    "plain": ((6, 2), {"out_channels": 3, "kernel_size": 3}),
    "strided": ((7, 2), {"out_channels": 3, "kernel_size": 2, "stride": 3, "padding": 2}),
    "same": ((5, 2), {"out_channels": 2, "kernel_size": 4, "padding": "same", "dilation": 2}),
    "valid, grouped": ((6, 4), {"out_channels": 6, "kernel_size": 2, "padding": "valid", "groups": 2}),
    "depthwise": ((6, 3), {"out_channels": 3, "kernel_size": 3, "groups": 3}),
}


@pytest.mark.parametrize(("shape", "arguments"), SEQUENCES.values(), ids=SEQUENCES)
def test_conv1d_against_a_loop(shape, arguments):
    net = bound(Conv1d(**arguments), shape)
    weight, bias = (net.params()[f"it.{name}"].data for name in ("weight", "bias"))
    stride, groups = arguments.get("stride", 1), arguments.get("groups", 1)
    dilation, padding = arguments.get("dilation", 1), arguments.get("padding", 0)
    before = {"same": dilation * (weight.shape[1] - 1) // 2, "valid": 0}.get(padding, padding)
    x = batch(shape)
    y = np.zeros((2, *net.output_shape)) + bias
    share = shape[1] // groups
    for n, t, o in np.ndindex(*y.shape):
        for i in range(weight.shape[1]):
            at = t * stride + i * dilation - before
            if 0 <= at < shape[0]:
                first = o // (len(weight) // groups) * share
                y[n, t, o] += float(x[n, at, first : first + share] @ weight[o, i])
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-12, atol=1e-12)
    check_gradients(net)


def test_conv1d_shapes_and_flops():
    layer = Conv1d(8, 5, stride=2, padding=2, groups=2)
    assert Net([layer], (20, 4)).output_shape == (10, 8)
    assert layer.weight.shape == (8, 5, 2)
    assert layer.flops((20, 4)) == 10 * 8 * 5 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": [3]}, r"kernel_size must be a whole number, got \[3\]"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"padding": [1, 2]}, "padding must be a number of steps"),
        ({"padding": "full"}, "padding must be a number of pixels, 'same' or 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, "padding 'same' needs stride 1"),
        ({"groups": 3}, "groups must divide out_channels=4, got 3"),
    ],
)
def test_arguments_conv1d_cannot_take(arguments, message):
    with pytest.raises(ValueError, match=message):
        Conv1d(**({"out_channels": 4, "kernel_size": 3} | arguments))


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (5,), r"needs a sequence \(T, C\).*give the sequence its axis of channels: \[5, 1\]"),
        ({}, (5, 5, 2), r"needs a sequence \(T, C\), got an input of shape \(5, 5, 2\)"),
        ({"dilation": 3}, (4, 2), "a kernel that reaches over 7 steps does not fit into the sequence of 4"),
        ({"groups": 2}, (5, 3), "groups=2 does not divide the 3 channels"),
    ],
)
def test_inputs_conv1d_cannot_take(arguments, shape, message):
    with pytest.raises(ShapeError, match=message):
        Net([Conv1d(**({"out_channels": 4, "kernel_size": 3} | arguments))], shape)


def test_separable_is_one_convolution_with_products_for_filters():
    net = bound(SeparableConv2d(4, 3, stride=2, padding=1, depth_multiplier=2), (6, 5, 3))
    assert {path: p.shape for path, p in net.params().items()} == {
        "it.depthwise.weight": (6, 3, 3, 1),
        "it.pointwise.weight": (4, 1, 1, 6),
        "it.pointwise.bias": (4,),
    }
    deep, point, bias = (param.data for param in net.params().values())
    weight = np.einsum("omc,mijc->oijm", point.reshape(4, 6, 1), deep.reshape(6, 3, 3, 1))
    weight = weight[..., 0::2] + weight[..., 1::2]  # filters 2c and 2c + 1 see channel c
    x = batch((6, 5, 3))
    expected = naive.conv2d(x, weight, bias, naive.window(3, 2, 1), 1)
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-12, atol=1e-12)
    check_gradients(net)


def test_separable_default_weights_keep_the_second_moment_through_relu():
    net = Net([SeparableConv2d(256, 3)], (10, 10, 64)).bind("cpu", seed=1)
    x = np.maximum(np.random.default_rng(0).standard_normal((2, 10, 10, 64)), 0) * np.sqrt(2)
    assert (net.predict(x) ** 2).mean() == pytest.approx(2, rel=0.25)


def test_separable_refuses_what_conv2d_does():
    with pytest.raises(ValueError, match="padding 'same' needs stride 1"):
        SeparableConv2d(4, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="depth_multiplier must be at least 1, got 0"):
        SeparableConv2d(4, 3, depth_multiplier=0)
    with pytest.raises(ShapeError, match="SeparableConv2d needs an image"):
        Net([SeparableConv2d(4, 3)], (8,))
    with pytest.raises(ShapeError, match="does not fit"):
        Net([SeparableConv2d(4, 3)], (2, 8, 1))
