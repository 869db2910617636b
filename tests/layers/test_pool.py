"""Pooling layers in a net: shapes, arguments and messages, and gradients by differences."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxAbsPool2d, MaxPool2d
from tests.layers.differences import check_gradients


def net_of(layer, shape):
    return Net([layer], shape).bind("cpu", "float64")


def distinct(shape, seed=0):
    """Values that differ by at least 0.1, so that no maximum changes hands within a difference step."""
    count = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(count) * 0.1 - count * 0.05).reshape(shape)


@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d])
@pytest.mark.parametrize(
    ("arguments", "in_shape", "out_shape"),
    [
        ({"kernel_size": 2}, (28, 28, 5), (14, 14, 5)),
        ({"kernel_size": 2}, (5, 7, 1), (2, 3, 1)),
        ({"kernel_size": 2, "ceil_mode": True}, (5, 7, 1), (3, 4, 1)),
        ({"kernel_size": 3, "stride": 2}, (32, 32, 4), (15, 15, 4)),
        ({"kernel_size": 3, "stride": 2, "ceil_mode": True}, (32, 32, 4), (16, 16, 4)),
        ({"kernel_size": [3, 2], "stride": [1, 2], "padding": [1, 0]}, (6, 6, 2), (6, 3, 2)),
        ({"kernel_size": 2, "stride": 3, "ceil_mode": True}, (3, 4, 2), (1, 2, 2)),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (6, 5, 2), (4, 3, 2)),
    ],
)
def test_shapes(kind, arguments, in_shape, out_shape):
    assert Net([kind(**arguments)], in_shape).output_shape == out_shape


@pytest.mark.parametrize("arguments", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}])
def test_one_description_builds_for_many_shapes(arguments):
    layer = MaxPool2d(**arguments, ceil_mode=True)
    assert Net([layer], (5, 5, 1)).output_shape == Net([layer.clone()], (5, 5, 1)).output_shape


@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d])
@pytest.mark.parametrize(
    ("arguments", "in_shape", "message"),
    [
        ({}, (100,), r"needs an image \(H, W, C\), got an input of shape \(100,\)"),
        ({}, (8, 8), r"\[8, 8, 1\]"),
        ({"kernel_size": 5}, (4, 4, 2), "a kernel of 5 x 5 does not fit into the image of 4 x 4"),
    ],
)
def test_inputs_it_cannot_take(kind, arguments, in_shape, message):
    layer = kind(**({"kernel_size": 2} | arguments))
    with pytest.raises(ShapeError, match=message) as caught:
        Net([layer], in_shape)
    assert caught.value.layer is layer


def test_max_refuses_windows_of_nothing_but_padding():
    with pytest.raises(ShapeError, match="nothing but padding in an image of 1 x 4"):
        Net([MaxPool2d(2, stride=1, padding=1, dilation=2)], (1, 4, 1))


@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"padding": [0, -1]}, r"padding must be at least 0, got \[0, -1\]"),
        ({"padding": 2}, "padding must be at most half of the kernel, got padding 2, kernel 3"),
        ({"kernel_size": [2, 3, 4]}, "kernel_size must be a whole number or two"),
    ],
)
def test_arguments_it_cannot_take(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**({"kernel_size": 3} | arguments))


def test_the_first_of_equal_pixels_gets_the_gradient():
    net = net_of(MaxPool2d(2), (2, 4, 1))
    x = np.array([[1.0, 3.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
    tape = net.forward(x, training=True, needs_input_grad=True)
    dx = net.backward(tape, np.array([5.0, 7.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 5, 7, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # a row of 4 ones: windows of 3, stride 2, padding 1 start at -1, 1 and, with ceil_mode, 3
        ({"count_include_pad": True}, [2 / 3, 1.0]),
        ({"count_include_pad": False}, [1.0, 1.0]),
        ({"count_include_pad": True, "ceil_mode": True}, [2 / 3, 1.0, 1 / 2]),  # pixel 3, and the padding behind it
        ({"count_include_pad": False, "ceil_mode": True}, [1.0, 1.0, 1.0]),
    ],
)
def test_what_the_mean_divides_by(arguments, expected):
    net = net_of(AvgPool2d([1, 3], stride=[1, 2], padding=[0, 1], **arguments), (1, 4, 1))
    np.testing.assert_allclose(net.predict(np.ones((1, 1, 4, 1))).ravel(), expected, rtol=1e-15)


GEOMETRIES = [
    ((4, 6, 2), {"kernel_size": 2}),
    ((7, 6, 2), {"kernel_size": 3, "stride": 2}),
    ((7, 6, 2), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((6, 5, 1), {"kernel_size": [2, 3], "stride": [3, 1], "padding": [1, 0], "ceil_mode": True}),
]


@pytest.mark.parametrize(
    ("layer", "in_shape"),
    [(MaxPool2d(**arguments), shape) for shape, arguments in GEOMETRIES]
    + [(MaxPool2d(2, stride=1, dilation=[2, 3]), (6, 7, 2))]
    + [
        (AvgPool2d(**arguments, count_include_pad=count), shape)
        for shape, arguments in GEOMETRIES
        for count in (True, False)
    ]
    + [(GlobalAvgPool2d(), (3, 5, 2)), (GlobalAvgPool2d(), (1, 1, 1))],
    ids=repr,
)
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_against_central_differences(layer, in_shape, batch):
    check_gradients(net_of(layer.clone(), in_shape), x=distinct((batch, *in_shape)))


def test_global_average_is_the_mean_of_each_channel():
    net = net_of(GlobalAvgPool2d(), (2, 3, 2))
    x = np.arange(24.0).reshape(2, 2, 3, 2)
    assert net.output_shape == (2,)
    np.testing.assert_array_equal(net.predict(x), [[5, 6], [17, 18]])


def test_global_average_gradient_is_the_receivers_own():
    net = net_of(GlobalAvgPool2d(), (2, 2, 1))
    dx = net.backward(net.forward(np.ones((1, 2, 2, 1)), training=True, needs_input_grad=True), np.ones((1, 1)))
    dx[0, 0, 0, 0] = 9.0  # a broadcast view would refuse, or change every pixel
    np.testing.assert_array_equal(dx.ravel(), [9, 0.25, 0.25, 0.25])
    with pytest.raises(ShapeError, match="GlobalAvgPool2d needs an image"):
        Net([GlobalAvgPool2d()], (10,))


POOLS = [MaxPool2d, AvgPool2d, MaxAbsPool2d]


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize(("kernel", "stride", "start"), [(3, 2, 0), (3, 2, -1), (4, 3, -2), (2, 1, -1), (3, 3, -2)])
def test_cuda_convnet_sizes(kind, size, kernel, stride, start):
    """outputsX = ceil((imgSize - start - sizeX) / stride) + 1"""
    layer = kind(kernel, stride, ceil_mode=True, start=start)
    expected = int(np.ceil((size - start - kernel) / stride)) + 1
    assert Net([layer], (size, size, 1)).output_shape == (expected, expected, 1)


def test_cuda_convnet_mean_is_that_of_the_clipped_window():
    layer = AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False, start=-1)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 2))
    y = net_of(layer, (6, 6, 2)).predict(x)
    assert y.shape == (1, 3, 3, 2)
    for r in range(3):
        for c in range(3):
            window = x[0, max(0, 2 * r - 1) : 2 * r + 2, max(0, 2 * c - 1) : 2 * c + 2]
            np.testing.assert_allclose(y[0, r, c], window.mean(axis=(0, 1)), rtol=1e-13)


def test_all_ties_get_all_of_the_gradient():
    x = np.array([[1.0, 3.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
    tape = (net := net_of(MaxPool2d(2, ties="all"), (2, 4, 1))).forward(x, training=True, needs_input_grad=True)
    dx = net.backward(tape, np.array([5.0, 7.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 5, 7, 7], [5, 5, 7, 7]])


def test_max_abs_keeps_the_sign_and_takes_the_later_of_opposites():
    x = np.array([[-3.0, 2.0, -4.0, 4.0]]).reshape(1, 1, 4, 1)
    np.testing.assert_array_equal(net_of(MaxAbsPool2d([1, 2]), (1, 4, 1)).predict(x).ravel(), [-3, 4])
    assert net_of(MaxAbsPool2d([1, 2]), (1, 4, 1)).predict(-x).ravel().tolist() == [3, -4]


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 1}, "start must be 0, or negative by less than the kernel 3, got 1"),
        ({"start": [0, -3]}, r"negative by less than the kernel 3, got \[0, -3\]"),
        ({"start": -1, "padding": 1}, "give start or padding, not both: got start -1, padding 1"),
    ],
)
def test_starts_it_cannot_take(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(3, **arguments)


def test_ties_and_divisors_they_cannot_take():
    for kind in (MaxPool2d, MaxAbsPool2d):
        with pytest.raises(ValueError, match="ties must be first or all, got 'last'"):
            kind(3, ties="last")
    with pytest.raises(ValueError, match="divisor_override must be at least 1, got 0"):
        AvgPool2d(3, divisor_override=0)
    assert net_of(AvgPool2d(2, divisor_override=1), (2, 2, 1)).predict(np.ones((1, 2, 2, 1))).item() == 4
