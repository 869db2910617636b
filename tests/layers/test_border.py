import math

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.border import Crop, Nailbed, ReflectionPad2d, ReplicationPad2d, ZeroPad2d
from tests.layers.one_layer import check_gradients, net_of, numbers, run

MODES = {ZeroPad2d: "constant", ReflectionPad2d: "reflect", ReplicationPad2d: "edge"}


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("padding", [0, 2, [1, 0, 0, 0], [0, 3, 2, 1], [4, 4, 3, 3]])
def test_padding_is_numpys(kind, padding):
    x = numbers((2, 4, 5, 3))
    left, right, top, bottom = [padding] * 4 if isinstance(padding, int) else padding
    expected = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)], mode=MODES[kind])
    np.testing.assert_array_equal(run(net_of(kind(padding), x), x).y, expected)
    check_gradients(net_of(kind(padding), x), x)


@pytest.mark.parametrize("kind", [ZeroPad2d, ReplicationPad2d])
def test_padding_of_one_pixel(kind):
    x = numbers((2, 1, 1, 2))
    assert run(net_of(kind([3, 2, 1, 4]), x), x).y.shape == (2, 6, 6, 2)
    check_gradients(net_of(kind([3, 2, 1, 4]), x), x)


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("padding", [-1, [1, 2], [1, 2, 3, -1], 1.5])
def test_borders_they_cannot_take(kind, padding):
    with pytest.raises(ValueError, match="padding must be a number of pixels"):
        kind(padding)


def test_what_reflection_needs():
    Net([ReflectionPad2d([2, 2, 3, 3])], (4, 3, 1))
    for padding in ([3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4]):
        with pytest.raises(ShapeError, match="an image of 4 x 3 has too few pixels"):
            Net([ReflectionPad2d(padding)], (4, 3, 1))


@pytest.mark.parametrize(
    ("arguments", "top", "left"),
    [({"size": [2, 3]}, 1, 1), ({"size": [3, 3]}, 1, 1), ({"size": [2, 3], "start": [3, 0]}, 3, 0)],
)
def test_crop(arguments, top, left):
    x = numbers((2, 5, 6, 2))
    rows, columns = arguments["size"]
    np.testing.assert_array_equal(run(net_of(Crop(**arguments), x), x).y, x[:, top : top + rows, left : left + columns])
    check_gradients(net_of(Crop(**arguments), x), x)


@pytest.mark.parametrize("arguments", [{"size": 6}, {"size": 3, "start": 3}, {"size": [1, 7]}])
def test_crops_beyond_the_image(arguments):
    with pytest.raises(ShapeError, match="is not in an image of 5 x 6"):
        Net([Crop(**arguments)], (5, 6, 1))


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_nailbed_samples_centred(size, stride):
    """outputsX = ceil(imgSize / stride), start = (imgSize - stride (outputsX - 1)) / 2"""
    x = numbers((2, size, 4, 1))
    count = math.ceil(size / stride)
    start = (size - stride * (count - 1)) // 2
    expected = np.stack([x[:, start + stride * i] for i in range(count)], axis=1)
    np.testing.assert_array_equal(run(net_of(Nailbed([stride, 1]), x), x).y, expected)
    np.testing.assert_array_equal(run(net_of(Nailbed([stride, 3]), x), x).y, expected[:, :, [0, 3]])
    np.testing.assert_array_equal(
        run(net_of(Nailbed([3, stride]), x.swapaxes(1, 2)), x.swapaxes(1, 2)).y, expected[:, :, [0, 3]].swapaxes(1, 2)
    )
    check_gradients(net_of(Nailbed([stride, 3]), x), x)


def test_arguments_they_cannot_take():
    with pytest.raises(ValueError, match="stride must be at least 1"):
        Nailbed(0)
    with pytest.raises(ValueError, match="size must be at least 1"):
        Crop(0)
    with pytest.raises(ValueError, match="start must be at least 0"):
        Crop(2, -1)
