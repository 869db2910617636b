import math

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.pool_to_size import AdaptiveAvgPool2d, AdaptiveMaxPool2d, GlobalMaxPool2d, Maxout
from tests.layers.one_layer import check_gradients, net_of, numbers, run


@pytest.mark.parametrize("out", [(1, 1), (3, 2), (7, 5), (9, 4)])
@pytest.mark.parametrize(("kind", "reduce"), [(AdaptiveAvgPool2d, np.mean), (AdaptiveMaxPool2d, np.max)])
def test_adaptive_against_loops(out, kind, reduce):
    x = numbers((2, 7, 5, 3))
    y = run(net_of(kind(list(out)), x), x).y
    assert y.shape == (2, *out, 3)
    for i in range(out[0]):
        rows = slice(math.floor(i * 7 / out[0]), math.ceil((i + 1) * 7 / out[0]))
        for j in range(out[1]):
            columns = slice(math.floor(j * 5 / out[1]), math.ceil((j + 1) * 5 / out[1]))
            np.testing.assert_allclose(y[:, i, j], reduce(x[:, rows, columns], axis=(1, 2)), rtol=1e-13, atol=1e-15)
    check_gradients(net_of(kind(list(out)), x), x)


@pytest.mark.parametrize("kind", [AdaptiveAvgPool2d, AdaptiveMaxPool2d])
def test_adaptive_sizes(kind):
    assert Net([kind(2)], (7, 5, 3)).output_shape == (2, 2, 3)
    assert Net([kind([None, 2])], (7, 5, 3)).output_shape == (7, 2, 3)
    assert Net([kind(None)], (7, 5, 3)).output_shape == (7, 5, 3)
    for wrong in (0, [2], [2, -1], [2, 2, 2], 1.5):
        with pytest.raises(ValueError, match="output_size must be a positive number or two"):
            kind(wrong)
    with pytest.raises(ShapeError, match="needs an image"):
        Net([kind(2)], (7, 5))


def test_global_max_gives_the_gradient_to_the_first():
    x = np.array([[1.0, 3.0], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    found = run(net_of(GlobalMaxPool2d(), x), x, np.array([[5.0]]))
    assert found.y.tolist() == [[3.0]]
    assert found.dx.ravel().tolist() == [0, 5, 0, 0]
    x = numbers((3, 4, 5, 2))
    np.testing.assert_array_equal(run(net_of(GlobalMaxPool2d(), x), x).y, x.max(axis=(1, 2)))
    check_gradients(net_of(GlobalMaxPool2d(), x), x)


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 8), (2, 2, 3, 6)])
@pytest.mark.parametrize(("size", "stride", "start"), [(2, None, 0), (3, 2, 0), (3, 1, -1), (3, 3, -2)])
def test_maxout_against_loops(shape, size, stride, start):
    x = numbers(shape)
    layer = Maxout(size, stride, start)
    y, channels, stride = run(net_of(layer, x), x).y, shape[-1], stride or size
    assert y.shape == (*shape[:-1], math.ceil((channels - start - size) / stride) + 1)
    for k in range(y.shape[-1]):
        first = start + k * stride
        np.testing.assert_array_equal(y[..., k], x[..., max(first, 0) : first + size].max(axis=-1))
    check_gradients(net_of(layer.clone(), x), x)


def test_maxout_ties():
    x = np.array([[2.0, 2.0, 1.0, 1.0]])
    assert run(net_of(Maxout(2), x), x, np.array([[3.0, 4.0]])).dx.tolist() == [[3, 0, 4, 0]]
    assert run(net_of(Maxout(2, ties="all"), x), x, np.array([[3.0, 4.0]])).dx.tolist() == [[3, 3, 4, 4]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 2, "stride": 3}, "stride must be from 1 to size 2.*got 3"),
        ({"size": 2, "start": 1}, "start must be 0, or negative by less than size 2, got 1"),
        ({"size": 2, "start": -2}, "start must be 0, or negative by less than size 2, got -2"),
        ({"size": 2, "ties": "none"}, "ties must be first or all"),
    ],
)
def test_maxout_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Maxout(**arguments)


def test_maxout_of_too_few_channels():
    with pytest.raises(ShapeError, match="a group of 5 channels does not fit into 4"):
        Net([Maxout(5)], (4,))
