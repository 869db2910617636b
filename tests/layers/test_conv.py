"""Conv2d in a net: shapes, arguments and messages, and gradients by differences."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core import init
from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.conv import Conv2d
from tests import naive_images as naive
from tests.layers.differences import check_gradients


def conv_net(shape, **arguments):
    return Net([Conv2d(**arguments).named("conv")], shape).bind("cpu", "float64")


@pytest.mark.parametrize(
    ("arguments", "in_shape", "out_shape", "weight_shape"),
    [
        ({"out_channels": 20, "kernel_size": 5}, (28, 28, 1), (24, 24, 20), (20, 5, 5, 1)),
        ({"out_channels": 32, "kernel_size": 5, "padding": 2}, (32, 32, 3), (32, 32, 32), (32, 5, 5, 3)),
        ({"out_channels": 8, "kernel_size": [3, 5], "stride": [2, 1]}, (9, 8, 4), (4, 4, 8), (8, 3, 5, 4)),
        ({"out_channels": 8, "kernel_size": 3, "padding": "same"}, (7, 6, 2), (7, 6, 8), (8, 3, 3, 2)),
        ({"out_channels": 8, "kernel_size": 4, "padding": "same", "dilation": 3}, (7, 6, 2), (7, 6, 8), (8, 4, 4, 2)),
        ({"out_channels": 8, "kernel_size": 3, "padding": "valid"}, (7, 6, 2), (5, 4, 8), (8, 3, 3, 2)),
        ({"out_channels": 8, "kernel_size": 3, "groups": 4}, (7, 6, 4), (5, 4, 8), (8, 3, 3, 1)),
        (
            {"out_channels": 64, "kernel_size": 7, "stride": 2, "padding": 3},
            (224, 224, 3),
            (112, 112, 64),
            (64, 7, 7, 3),
        ),
    ],
)
def test_shapes_and_flops(arguments, in_shape, out_shape, weight_shape):
    layer = Conv2d(**arguments)
    net = Net([layer], in_shape)
    assert net.output_shape == out_shape
    assert layer.weight.shape == weight_shape
    assert layer.bias.shape == weight_shape[:1]
    assert layer.bias.decay_mult == 0
    taps = weight_shape[1] * weight_shape[2] * weight_shape[3]
    assert layer.flops(in_shape) == out_shape[0] * out_shape[1] * out_shape[2] * taps


def test_even_kernel_same_has_its_odd_zero_at_the_end():
    net = Net([Conv2d(1, 2, padding="same", bias=False, weight_init=init.constant(1.0))], (1, 3, 1)).bind("cpu")
    y = net.predict(np.array([1.0, 10.0, 100.0], dtype="float32").reshape(1, 1, 3, 1))
    np.testing.assert_array_equal(y.ravel(), [11, 110, 100])


def test_without_bias_there_is_no_such_parameter():
    net = conv_net((5, 5, 2), out_channels=3, kernel_size=3, bias=False)
    assert list(net.params()) == ["conv.weight"]
    check_gradients(net)


@pytest.mark.parametrize(
    ("arguments", "in_shape", "message"),
    [
        ({}, (784,), r"needs an image \(H, W, C\), got an input of shape \(784,\).*Reshape"),
        ({}, (28, 28), r"give the image its axis of channels: \[28, 28, 1\]"),
        ({"groups": 3, "out_channels": 6}, (8, 8, 32), "groups=3 does not divide the 32 channels"),
        ({"groups": 4, "out_channels": 8}, (8, 8, 6), "use groups: 2"),
        ({"kernel_size": 5}, (4, 9, 3), "a kernel of 5 x 5 does not fit into the image of 4 x 9; use a smaller kernel"),
        ({"kernel_size": 7, "padding": 1}, (4, 9, 3), "into the image of 4 x 9, 6 x 11 with its padding"),
        ({"kernel_size": 3, "dilation": 4}, (8, 9, 3), "a kernel of 3 x 3, 9 x 9 with its dilation,"),
        ({"kernel_size": 5}, (3, 32, 32), "channels last"),
    ],
)
def test_inputs_it_cannot_take(arguments, in_shape, message):
    layer = Conv2d(**({"out_channels": 4, "kernel_size": 3} | arguments))
    with pytest.raises(ShapeError, match=message) as caught:
        Net([layer], in_shape)
    assert caught.value.layer is layer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": [3, 3, 3]}, r"kernel_size must be a whole number or two of them .* got \[3, 3, 3\]"),
        ({"kernel_size": "3"}, "kernel_size must be a whole number"),
        ({"kernel_size": None}, "kernel_size must be a whole number"),
        ({"stride": [1, 0]}, "stride must be at least 1"),
        ({"dilation": 1.5}, "dilation must be a whole number"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": "full"}, "padding must be a number of pixels, 'same' or 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, "padding 'same' needs stride 1, got stride 2"),
        ({"groups": 3}, "groups must divide out_channels=4, got 3"),
        ({"groups": 0}, "groups must divide out_channels=4, got 0"),
    ],
)
def test_arguments_it_cannot_take(arguments, message):
    with pytest.raises(ValueError, match=message):
        Conv2d(**({"out_channels": 4, "kernel_size": 3} | arguments))


OPTIONS = {
    "plain": ((5, 6, 2), {"out_channels": 3, "kernel_size": 3}),
    "same, even kernel": ((5, 4, 2), {"out_channels": 3, "kernel_size": [2, 4], "padding": "same"}),
    "strided": ((7, 6, 2), {"out_channels": 3, "kernel_size": 3, "stride": 2, "padding": 1}),
    "dilated": ((8, 7, 2), {"out_channels": 2, "kernel_size": [2, 3], "dilation": [3, 2], "padding": [0, 1]}),
    "grouped": ((4, 5, 4), {"out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 2}),
    "depthwise": ((5, 5, 3), {"out_channels": 3, "kernel_size": 3, "stride": 2, "groups": 3}),
    "pointwise": ((3, 3, 4), {"out_channels": 5, "kernel_size": 1}),
}


@pytest.mark.parametrize(("in_shape", "arguments"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_against_central_differences(in_shape, arguments, batch):
    check_gradients(conv_net(in_shape, **arguments), batch=batch)


@pytest.mark.parametrize(("in_shape", "arguments"), OPTIONS.values(), ids=OPTIONS)
def test_forward_against_loops(in_shape, arguments):
    net = conv_net(in_shape, **arguments)
    (layer,) = net.layers
    layer.bias.data[...] = np.arange(layer.out_channels)
    x = np.random.default_rng(0).standard_normal((2, *in_shape))
    expected = naive.conv2d(x, layer.weight.data, layer.bias.data, layer.window, layer.groups)
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frozen", ["conv.weight", "conv.bias", "conv.*"])
@pytest.mark.parametrize("needs_input_grad", [True, False])
def test_the_kernel_is_asked_only_for_what_is_needed(frozen, needs_input_grad, monkeypatch):
    net = conv_net((5, 5, 2), out_channels=3, kernel_size=3)
    net.freeze(frozen)
    ops, asked = net.device.ops, []
    kernel = ops.conv2d_backward

    def spy(dy, res, **flags):
        asked.append(flags)
        return kernel(dy, res, **flags)

    monkeypatch.setattr(ops, "conv2d_backward", spy)
    net.backward(net.forward(np.ones((1, 5, 5, 2)), True, needs_input_grad=needs_input_grad), np.ones((1, 3, 3, 3)))
    expected = {
        "need_dx": needs_input_grad,
        "need_dw": frozen == "conv.bias",
        "need_db": frozen == "conv.weight",
    }
    assert asked == ([expected] if any(expected.values()) else [])


def test_a_frozen_layer_gets_no_gradients_and_passes_its_own_on():
    net = conv_net((5, 5, 2), out_channels=3, kernel_size=3)
    net.freeze("conv.weight")
    tape = net.forward(np.ones((1, 5, 5, 2)), training=True, needs_input_grad=True)
    assert net.backward(tape, np.ones((1, 3, 3, 3))).shape == (1, 5, 5, 2)
    assert not net.params()["conv.weight"].has_grad
    np.testing.assert_array_equal(net.params()["conv.bias"].grad, 9)
