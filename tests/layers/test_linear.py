import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.linear import Linear
from tests.layers.one_layer import check_gradients, net_of, numbers, run

SHAPES = [(1, 1), (4, 3), (2, 3, 5), (3, 2, 2, 7)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_like_a_loop(shape, bias):
    x = numbers(shape)
    net = net_of(Linear(4, bias=bias).named("fc"), x)
    weight = net.params()["fc.weight"].data
    offset = net.params()["fc.bias"].data if bias else np.zeros(4)
    expected = np.empty((*shape[:-1], 4))
    for place in np.ndindex(shape[:-1]):
        for out in range(4):
            expected[place][out] = sum(x[place][i] * weight[out, i] for i in range(shape[-1])) + offset[out]
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-13, atol=1e-13)
    assert set(net.params()) == ({"fc.weight", "fc.bias"} if bias else {"fc.weight"})


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape):
    x = numbers(shape)
    check_gradients(net_of(Linear(3), x), x)


def test_float32_stays_float32():
    x = numbers((4, 3), dtype="float32")
    assert run(net_of(Linear(2), x), x).y.dtype == np.float32


def test_what_is_frozen_gets_no_gradient():
    x = numbers((4, 3))
    net = net_of([Linear(2).named("a"), Linear(2).named("b")], x)
    net.freeze("a.weight")
    grads = run(net, x).grads
    assert not grads["a.weight"].any()
    assert grads["a.bias"].any()


def test_bad_arguments_and_shapes():
    with pytest.raises(ValueError, match="out_features must be at least 1, got 0"):
        Linear(0)
    with pytest.raises(ShapeError, match="at least one axis"):
        Net([Linear(2)], ())


def test_multiply_adds():
    assert Linear(5).flops((7, 3)) == 7 * 3 * 5
