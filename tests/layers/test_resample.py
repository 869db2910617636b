import math

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.border import Crop, ReflectionPad2d
from layernet.layers.resample import GaussianBlur, Resize, RGBToLab, RGBToYUV, Upsample
from tests.layers.one_layer import check_gradients, net_of, numbers, run


def read(x, places):
    """The images read at (row, column) places between pixels: the outermost are repeated beyond the edge."""
    rows, columns = places
    y = np.zeros((len(x), len(rows), len(columns), x.shape[3]))
    for (i, r), (j, c) in ((a, b) for a in enumerate(rows) for b in enumerate(columns)):
        top, left = math.floor(r), math.floor(c)
        for h, w in ((h, w) for h in (top, top + 1) for w in (left, left + 1)):
            weight = (1 - abs(r - h)) * (1 - abs(c - w))
            y[:, i, j] += weight * x[:, min(max(h, 0), x.shape[1] - 1), min(max(w, 0), x.shape[2] - 1)]
    return y


@pytest.mark.parametrize("new", [(1, 1), (3, 4), (6, 8), (5, 2), (7, 9)])
def test_upsample_to_a_size(new):
    x = numbers((2, 3, 4, 2))
    sizes = list(zip(x.shape[1:3], new, strict=True))
    centres = [[(i + 0.5) * old / n - 0.5 for i in range(n)] for old, n in sizes]
    corners = [[i * (old - 1) / max(n - 1, 1) for i in range(n)] for old, n in sizes]
    nearest = [[i * old // n for i in range(n)] for old, n in sizes]
    for layer, places in [
        (Upsample(list(new)), nearest),
        (Upsample(list(new), mode="bilinear"), centres),
        (Upsample(list(new), mode="bilinear", align_corners=True), corners),
    ]:
        np.testing.assert_allclose(run(net_of(layer, x), x).y, read(x, places), rtol=1e-12, atol=1e-14)
        check_gradients(net_of(layer.clone(), x), x)


def test_upsample_by_a_factor_goes_by_the_factor():
    x = numbers((1, 5, 5, 1))
    places = [(i + 0.5) / 1.7 - 0.5 for i in range(8)]  # not 5 / 8
    found = run(net_of(Upsample(scale_factor=1.7, mode="bilinear"), x), x).y
    np.testing.assert_allclose(found, read(x, (places, places)), rtol=1e-12)
    doubled = run(net_of(Upsample(scale_factor=[2, 1]), x), x).y
    np.testing.assert_array_equal(doubled, x.repeat(2, axis=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either size or scale_factor, got size None, scale_factor None"),
        ({"size": 2, "scale_factor": 2}, "give either size or scale_factor"),
        ({"size": 0}, "size must be at least 1"),
        ({"scale_factor": 0}, "scale_factor must be a number above 0 or two of them"),
        ({"scale_factor": [2, 2, 2]}, "scale_factor must be a number above 0 or two of them"),
        ({"size": 2, "mode": "bicubic"}, "mode must be nearest or bilinear, got 'bicubic'"),
        ({"size": 2, "align_corners": True}, "align_corners is for mode bilinear"),
    ],
)
def test_upsample_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Upsample(**arguments)


def test_nothing_left():
    with pytest.raises(ShapeError, match="nothing is left of an image of 3 x 4"):
        Net([Upsample(scale_factor=0.3)], (3, 4, 1))
    with pytest.raises(ShapeError, match="nothing is left of an image of 1 x 4 shrunk by 2"):
        Net([Resize(2)], (1, 4, 1))


@pytest.mark.parametrize(
    ("scale", "size"), [(0.5, (7, 6)), (0.7, (7, 6)), (1, (7, 6)), (1.3, (7, 6)), (2, (7, 6)), (0.5, (1, 2))]
)
def test_resize_is_cuda_convnets(scale, size):
    x = numbers((2, *size, 2))
    places = [[max(0, min(n - 1.01, i * scale + (scale - 1) / 2)) for i in range(math.floor(n / scale))] for n in size]
    np.testing.assert_allclose(run(net_of(Resize(scale), x), x).y, read(x, places), rtol=1e-12, atol=1e-14)
    check_gradients(net_of(Resize(scale), x), x)


@pytest.mark.parametrize("scale", [0.49, 2.01, -1])
def test_resize_refuses(scale):
    with pytest.raises(ValueError, match=r"scale must be from 0\.5 to 2"):
        Resize(scale)


@pytest.mark.parametrize(("kernel_size", "sigma"), [(1, 1.0), (3, 0.5), (5, 2), (9, 1.5)])
def test_blur_against_loops(kernel_size, sigma):
    x = numbers((2, 6, 5, 2))
    radius = kernel_size // 2
    bell = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(bell, bell) / bell.sum() ** 2
    padded = np.pad(x, [(0, 0), (radius, radius), (radius, radius), (0, 0)])
    expected = np.zeros_like(x)
    for i, j in np.ndindex(kernel.shape):
        expected += kernel[i, j] * padded[:, i : i + 6, j : j + 5]
    np.testing.assert_allclose(run(net_of(GaussianBlur(kernel_size, sigma), x), x).y, expected, rtol=1e-12)
    check_gradients(net_of(GaussianBlur(kernel_size, sigma), x), x)


def test_blur_of_a_reflected_image_keeps_a_constant():
    x = np.full((1, 6, 5, 1), 3.0)
    layers = [ReflectionPad2d(2), GaussianBlur(5, 1.0), Crop([6, 5])]
    np.testing.assert_allclose(run(net_of(layers, x), x).y, x, rtol=1e-13)
    assert run(net_of(GaussianBlur(5, 1.0), x), x).y[0, 0, 0, 0] < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((4, 1.0), "kernel_size must be odd"), ((0, 1.0), "kernel_size must be odd"), ((3, 0.0), "sigma must be more")],
)
def test_blur_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianBlur(*arguments)


def test_yuv():
    x = np.eye(3).reshape(1, 1, 3, 3)  # red, green and blue
    y = run(net_of(RGBToYUV(), x), x).y[0, 0]
    np.testing.assert_allclose(y[:, 0], [0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(y[:, 1], [-0.09991, -0.33609, 0.436])
    np.testing.assert_allclose(y[:, 2], [0.615, -0.55861, -0.05639])
    np.testing.assert_allclose(y.sum(axis=0), [1, 0, 0], atol=1e-15)  # white
    x = numbers((2, 3, 4, 3))
    check_gradients(net_of(RGBToYUV(), x), x)
    with pytest.raises(ShapeError, match="RGBToYUV needs 3 channels, got 1"):
        Net([RGBToYUV()], (4, 4, 1))


def test_lab():
    # white, black, a grey on the line, and red by hand: X 0.49, Y 0.17697, Z 0
    x = np.array([[1, 1, 1], [0, 0, 0], [0.001, 0.001, 0.001], [1, 0, 0]], dtype=float).reshape(1, 1, 4, 3)
    y = run(net_of(RGBToLab(), x), x).y[0, 0]
    line = 0.001 * 841 / 108 + 4 / 29
    f = [0.49 ** (1 / 3), 0.17697 ** (1 / 3), 4 / 29]
    expected = [[100, 0, 0], [0, 0, 0], [116 * line - 16, 0, 0]]
    expected.append([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(run(net_of(RGBToLab(center=True), x), x).y[0, 0], y - [50, 0, 0], atol=1e-11)
    x = np.random.default_rng(0).uniform(size=(2, 3, 4, 3)) ** 3  # on both sides of the knee
    check_gradients(net_of(RGBToLab(), x), x)
    with pytest.raises(ShapeError, match="RGBToLab needs 3 channels, got 1"):
        Net([RGBToLab()], (4, 4, 1))
