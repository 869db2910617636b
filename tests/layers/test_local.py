"""Local2d against loops, and against Conv2d where all places have the same filters."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core import init
from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.conv import Conv2d
from layernet.layers.local import Local2d
from tests import naive_images as naive
from tests.layers.differences import check_gradients

OPTIONS = {
    "plain": ((5, 4, 2), {"out_channels": 3, "kernel_size": 3}),
    "same, even kernel": ((3, 4, 2), {"out_channels": 2, "kernel_size": [2, 3], "padding": "same"}),
    "strided": ((5, 6, 2), {"out_channels": 2, "kernel_size": 3, "stride": [2, 1], "padding": [1, 0]}),
    "grouped": ((3, 4, 4), {"out_channels": 4, "kernel_size": 2, "groups": 2}),
    "ceil": ((5, 6, 2), {"out_channels": 2, "kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
}
each_option = pytest.mark.parametrize(("in_shape", "arguments"), OPTIONS.values(), ids=OPTIONS)


def net_of(in_shape, **arguments):
    net = Net([Local2d(**arguments).named("it")], in_shape).bind("cpu", "float64", seed=2)
    rng = np.random.default_rng(3)
    for param in net.params().values():
        param.data[...] = rng.standard_normal(param.shape)
    return net


@each_option
def test_forward_against_a_loop(in_shape, arguments):
    net = net_of(in_shape, **arguments)
    (layer,) = net.layers
    weight, bias, window = layer.weight.data, layer.bias.data, layer.window
    share, per_group = weight.shape[5], layer.out_channels // layer.groups
    x = np.random.default_rng(0).standard_normal((2, *in_shape))
    y = np.zeros((2, *net.output_shape))
    assert net.output_shape[:2] == naive.places(window, in_shape[:2])
    for n, (r, c) in naive.each_place(window, x):
        for o in range(layer.out_channels):
            first = o // per_group * share
            y[n, r, c, o] = bias[r, c, o] + sum(
                float(x[n, h, w, first + k]) * float(weight[r, c, o, i, j, k])
                for i, j, h, w in naive.pixels(window, in_shape[:2], (r, c))
                for k in range(share)
            )
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-12, atol=1e-12)


@each_option
def test_gradients_against_central_differences(in_shape, arguments):
    check_gradients(net_of(in_shape, **arguments))


@each_option
def test_with_the_same_filters_everywhere_it_is_a_convolution(in_shape, arguments):
    net = net_of(in_shape, **arguments)
    conv = Net([Conv2d(**arguments).named("it")], in_shape).bind("cpu", "float64")
    for name in ("it.weight", "it.bias"):
        net.params()[name].data[...] = conv.params()[name].data
    x = np.random.default_rng(0).standard_normal((2, *in_shape))
    np.testing.assert_allclose(net.predict(x), conv.predict(x), rtol=1e-12, atol=1e-12)


def test_shapes_flops_and_draws():
    layer = Local2d(32, 3, padding=1, groups=2)
    net = Net([layer], (6, 5, 8)).bind("cpu", seed=1)
    assert layer.weight.shape == (6, 5, 32, 3, 3, 4)
    assert layer.bias.shape == (6, 5, 32)
    assert layer.bias.decay_mult == 0
    assert layer.flops((6, 5, 8)) == layer.weight.size
    assert layer.weight.data.std() == pytest.approx(np.sqrt(2 / 36), rel=0.02)  # fan_in is that of one output
    assert net.output_shape == (6, 5, 32)
    assert Local2d(2, 3, bias=False, weight_init=init.constant(1.0)).use_bias is False


def test_what_it_cannot_take():
    with pytest.raises(ValueError, match="out_channels must be at least 1, got 0"):
        Local2d(0, 3)
    with pytest.raises(ValueError, match="groups must divide out_channels=4, got 3"):
        Local2d(4, 3, groups=3)
    with pytest.raises(ShapeError, match="does not fit"):
        Net([Local2d(4, 3)], (2, 5, 1))
    with pytest.raises(ShapeError, match="groups=2 does not divide the 3 channels"):
        Net([Local2d(4, 3, groups=2)], (5, 5, 3))
    with pytest.raises(ShapeError, match="Local2d needs an image"):
        Net([Local2d(4, 3)], (5,))
