import itertools

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.local_norm import LocalContrastNorm, LocalResponseNorm
from tests.layers.one_layer import check_gradients, net_of, numbers, run

SIZES = [1, 2, 3, 4, 5, 8]
sizes = pytest.mark.parametrize("size", SIZES)


def across(place, size, shape, blocked=False):
    """The channels around one, as cuda-convnet's kernels walk them."""
    *where, c = place
    start = c // size * size if blocked else -(size // 2) + c
    return [(*where, i) for i in range(max(0, start), min(shape[-1], start + size))]


def within(place, size, shape):
    n, row, column, c = place
    top, left = row - size // 2, column - size // 2
    rows = range(max(0, top), min(shape[1], top + size))
    columns = range(max(0, left), min(shape[2], left + size))
    return [(n, i, j, c) for i, j in itertools.product(rows, columns)]


def naive_response(x, neighbours, scale, beta, k):
    y = np.empty_like(x)
    for place in np.ndindex(x.shape):
        y[place] = x[place] * (k + scale * sum(x[p] ** 2 for p in neighbours(place))) ** -beta
    return y


@sizes
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("shape", [(2, 1), (2, 7), (1, 2, 2, 6)])
def test_across_channels_like_cuda_convnets_loop(size, blocked, shape):
    x = numbers(shape)
    layer = LocalResponseNorm(size, alpha=0.9, beta=0.75, k=1.5, blocked=blocked)
    expected = naive_response(x, lambda p: across(p, size, shape, blocked), 0.9 / size, 0.75, 1.5)
    net = net_of(layer, x)
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-13)
    check_gradients(net, x)


@sizes
def test_within_a_channel_like_cuda_convnets_loop(size):
    x = numbers((2, 5, 3, 2))
    net = net_of(LocalResponseNorm(size, 0.9, 0.6, region="within_channel"), x)
    expected = naive_response(x, lambda p: within(p, size, x.shape), 0.9 / size**2, 0.6, 1.0)
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-13)
    check_gradients(net, x)


def test_alpha_of_a_sum_is_the_papers():
    x = numbers((2, 3, 3, 8))
    paper = LocalResponseNorm(5, 1e-2, 0.75, 2.0, average=False)
    torchs = LocalResponseNorm(5, 5e-2, 0.75, 2.0)
    np.testing.assert_allclose(run(net_of(paper, x), x).y, run(net_of(torchs, x), x).y, rtol=1e-14)


@sizes
def test_contrast_norm_like_cuda_convnets_loop_with_its_whole_gradient(size):
    x = numbers((2, 5, 3, 2)) + 0.5
    net = net_of(LocalContrastNorm(size, alpha=2.0, beta=0.75, k=1.5), x)
    e = np.empty_like(x)
    for place in np.ndindex(x.shape):
        around = [x[p] for p in within(place, size, x.shape)]
        e[place] = x[place] - sum(around) / len(around)
    expected = np.empty_like(x)
    for place in np.ndindex(x.shape):
        total = sum(e[p] ** 2 for p in within(place, size, x.shape))
        expected[place] = x[place] * (1.5 + 2.0 / size**2 * total) ** -0.75
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-13)
    check_gradients(net, x)


LAYERS = [
    lambda: LocalResponseNorm(5),
    lambda: LocalResponseNorm(4, blocked=True),
    lambda: LocalResponseNorm(9, region="within_channel"),
    lambda: LocalContrastNorm(9),
]


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("size", [1e18, 1.0, 0.0])
def test_finite_for_large_and_small_numbers(make, size):
    x = (size * np.clip(numbers((2, 9, 9, 6)), -1, 1)).astype("float32")
    found = run(net_of(make(), x), x)
    assert np.isfinite(found.y).all()
    assert np.isfinite(found.dx).all()


@pytest.mark.parametrize("make", LAYERS)
def test_float32_agrees_with_float64(make):
    x = (numbers((2, 9, 9, 6)) * 20).astype("float32")
    single, double = run(net_of(make(), x), x), run(net_of(make(), x.astype("float64")), x.astype("float64"))
    np.testing.assert_allclose(single.y, double.y, rtol=1e-6, atol=1e-6)  # found: a quarter of it
    np.testing.assert_allclose(single.dx, double.dx, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 3, "alpha": -1.0}, "alpha must be finite and at least 0, got -1.0"),
        ({"size": 3, "beta": float("inf")}, "beta must be finite and at least 0, got inf"),
        ({"size": 3, "k": 0.0}, "k must be finite and above 0, got 0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    for layer in (LocalResponseNorm, LocalContrastNorm):
        with pytest.raises(ValueError, match=message):
            layer(**arguments)


def test_bad_regions_and_shapes():
    with pytest.raises(ValueError, match="region must be 'across_channels' or 'within_channel', got 'map'"):
        LocalResponseNorm(3, region="map")
    with pytest.raises(ValueError, match="blocked is for region 'across_channels'"):
        LocalResponseNorm(3, region="within_channel", blocked=True)
    with pytest.raises(ShapeError, match="needs at least one axis"):
        Net([LocalResponseNorm(3)], ())
    for layer in (LocalResponseNorm(3, region="within_channel"), LocalContrastNorm(3)):
        with pytest.raises(ShapeError, match="needs an image"):
            Net([layer], (4, 3))
