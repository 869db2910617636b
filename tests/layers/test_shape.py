import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.shape import Flatten, Reshape
from tests.layers.one_layer import check_gradients, net_of, numbers, run


@pytest.mark.parametrize("shape", [(1, 4), (3, 2, 5), (2, 3, 1, 2), (3,)])
def test_flatten_keeps_the_order(shape):
    x = numbers(shape)
    found = run(net_of(Flatten(), x), x)
    assert found.y.shape == (shape[0], max(1, x[0].size))
    np.testing.assert_array_equal(found.y.ravel(), x.ravel())
    np.testing.assert_array_equal(found.dx.ravel(), numbers(found.y.shape, 7).ravel())
    assert found.dx.shape == shape
    check_gradients(net_of(Flatten(), x), x)


@pytest.mark.parametrize(
    ("given", "expected"),
    [([6, 2], (6, 2)), ([-1, 3], (4, 3)), ([-1], (12,)), ([2, -1, 1], (2, 6, 1)), ([12, -1], (12, 1))],
)
def test_reshape(given, expected):
    x = numbers((5, 3, 4))
    found = run(net_of(Reshape(given), x), x)
    assert found.y.shape == (5, *expected)
    np.testing.assert_array_equal(found.y.ravel(), x.ravel())
    assert found.dx.shape == x.shape
    np.testing.assert_array_equal(found.dx.ravel(), numbers(found.y.shape, 7).ravel())


def test_reshape_to_one_number_an_example():
    x = numbers((4, 1))
    assert run(net_of(Reshape([]), x), x).y.shape == (4,)


@pytest.mark.parametrize(
    ("shape", "need"),
    [([5, 2], "12 elements, the new shape needs 10"), ([-1, 5], "12 elements.*multiple of 5"), ([], "needs 1")],
)
def test_a_shape_that_does_not_fit_names_both(shape, need):
    with pytest.raises(ShapeError, match=rf"cannot make shape .*of an input of shape \[3, 4\].*{need}"):
        Net([Reshape(shape)], (3, 4))


@pytest.mark.parametrize("shape", [[-1, -1], [0], [-2, 3]])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="shape must be positive sizes, of which one may be -1"):
        Reshape(shape)
