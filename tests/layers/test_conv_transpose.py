"""ConvTranspose2d against its definition as a loop, and as the transpose of Conv2d."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.ops import Ops
from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.conv import Conv2d
from layernet.layers.conv_transpose import ConvTranspose2d
from tests.layers.differences import check_gradients

OPTIONS = {
    "plain": ((3, 4, 2), {"out_channels": 3, "kernel_size": 3}),
    "doubles": ((3, 2, 2), {"out_channels": 3, "kernel_size": 4, "stride": 2, "padding": 1}),
    "stride beyond kernel": ((3, 2, 2), {"out_channels": 2, "kernel_size": 1, "stride": 3, "output_padding": [2, 0]}),
    "output padding": (
        (2, 3, 3),
        {"out_channels": 2, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    ),
    "dilated": ((2, 3, 2), {"out_channels": 2, "kernel_size": [2, 3], "dilation": [3, 2], "padding": [0, 1]}),
    "grouped": ((3, 2, 4), {"out_channels": 6, "kernel_size": 3, "stride": [1, 2], "groups": 2}),
    "depthwise": ((3, 2, 3), {"out_channels": 3, "kernel_size": 2, "groups": 3}),
    "pointwise": ((3, 2, 3), {"out_channels": 2, "kernel_size": 1}),
}
each_option = pytest.mark.parametrize(("in_shape", "arguments"), OPTIONS.values(), ids=OPTIONS)


def net_of(in_shape, **arguments):
    net = Net([ConvTranspose2d(**arguments).named("up")], in_shape).bind("cpu", "float64", seed=2)
    if "up.bias" in net.params():
        net.params()["up.bias"].data[...] = np.arange(1, arguments["out_channels"] + 1)
    return net


def loop(x, weight, bias, window, groups, size):
    """Every pixel of x puts its filter, times itself, onto the output."""
    n, height, width, channels = x.shape
    share = weight.shape[3]
    y = np.zeros((n, *size, share * groups)) + bias
    for b, r, c, i in itertools.product(range(n), range(height), range(width), range(channels)):
        first = i // (channels // groups) * share
        for j, k in itertools.product(*map(range, window.kernel)):
            h = r * window.stride[0] + j * window.dilation[0] - window.padding[0][0]
            w = c * window.stride[1] + k * window.dilation[1] - window.padding[1][0]
            if 0 <= h < size[0] and 0 <= w < size[1]:
                y[b, h, w, first : first + share] += float(x[b, r, c, i]) * weight[i, j, k]
    return y


@each_option
def test_forward_against_a_loop(in_shape, arguments):
    net = net_of(in_shape, **arguments)
    (layer,) = net.layers
    x = np.random.default_rng(0).standard_normal((2, *in_shape))
    expected = loop(x, layer.weight.data, layer.bias.data, layer.window, layer.groups, net.output_shape[:2])
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-12, atol=1e-12)


@each_option
def test_gradients_against_central_differences(in_shape, arguments):
    check_gradients(net_of(in_shape, **arguments))


@each_option
def test_the_cpus_kernels_are_the_reference(in_shape, arguments):
    net = net_of(in_shape, **arguments)
    (layer,) = net.layers
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((3, *in_shape)), rng.standard_normal((3, *net.output_shape))
    found = []
    for ops in (Ops(np), NumpyOps()):
        y, res = ops.conv_transpose2d(
            x, layer.weight.data, layer.bias.data, layer.window, net.output_shape[:2], layer.groups
        )
        found.append((y, *ops.conv_transpose2d_backward(dy, res)))
        assert ops.conv_transpose2d_backward(dy, res, need_dx=False, need_dw=False, need_db=False) == (None,) * 3
    for reference, fast in zip(*found, strict=True):
        np.testing.assert_allclose(fast, reference, rtol=1e-12, atol=1e-12)


@each_option
def test_it_is_the_transpose_of_the_convolution_with_its_weight(in_shape, arguments):
    net = net_of(in_shape, **arguments, bias=False)
    shared = {k: v for k, v in arguments.items() if k not in ("out_channels", "output_padding")}
    conv = Net([Conv2d(in_shape[2], bias=False, **shared).named("down")], net.output_shape).bind("cpu", "float64")
    assert conv.output_shape == in_shape  # output_padding says which of the sizes is meant
    conv.params()["down.weight"].data[...] = net.params()["up.weight"].data
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((1, *in_shape)), rng.standard_normal((1, *net.output_shape))
    np.testing.assert_allclose((net.predict(x) * y).sum(), (x * conv.predict(y)).sum(), rtol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_default_weights_keep_the_second_moment_through_relu(stride, groups):
    net = Net([ConvTranspose2d(64, 4, stride=stride, padding=0, groups=groups)], (12, 12, 64)).bind("cpu", seed=1)
    x = np.maximum(np.random.default_rng(0).standard_normal((4, 12, 12, 64)), 0) * np.sqrt(2)
    y = net.predict(x)[:, 4:-4, 4:-4]
    assert (y**2).mean() == pytest.approx(2, rel=0.1)


def test_shapes_and_flops():
    layer = ConvTranspose2d(6, [3, 5], stride=[2, 1], padding=1, output_padding=[1, 0], groups=2)
    net = Net([layer], (7, 6, 4))
    assert net.output_shape == (14, 8, 6)
    assert layer.weight.shape == (4, 3, 5, 3)
    assert layer.bias.shape == (6,)
    assert layer.bias.decay_mult == 0
    assert layer.flops((7, 6, 4)) == 7 * 6 * 4 * 15 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"groups": 3}, "groups must divide out_channels=4, got 3"),
        ({"padding": "same"}, "padding must be a whole number"),
        ({"output_padding": 1}, "output_padding must be below stride 1, got 1"),
        ({"output_padding": [0, 2], "stride": [3, 2]}, "output_padding must be below stride"),
        ({"output_padding": -1}, "output_padding must be at least 0, got -1"),
    ],
)
def test_arguments_it_cannot_take(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvTranspose2d(**({"out_channels": 4, "kernel_size": 3} | arguments))


@pytest.mark.parametrize(
    ("arguments", "in_shape", "message"),
    [
        ({}, (8,), "ConvTranspose2d needs an image"),
        ({"groups": 2}, (4, 4, 3), "groups=2 does not divide the 3 channels"),
        ({"padding": 2}, (1, 4, 3), "cuts off all of the output: -1 x 2"),
    ],
)
def test_inputs_it_cannot_take(arguments, in_shape, message):
    with pytest.raises(ShapeError, match=message):
        Net([ConvTranspose2d(**({"out_channels": 4, "kernel_size": 3} | arguments))], in_shape)
