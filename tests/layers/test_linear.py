import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.linear import Bias, Linear, Scale
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


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_and_bias(shape):
    x = numbers(shape)
    net = net_of([Scale(bias=True).named("a"), Bias().named("b"), Scale().named("c")], x)
    p = {path: param.data for path, param in net.params().items()}
    assert list(p) == ["a.weight", "a.bias", "b.bias", "c.weight"]
    expected = np.empty(shape)
    for place in np.ndindex(shape):
        c = place[-1]
        expected[place] = (x[place] * p["a.weight"][c] + p["a.bias"][c] + p["b.bias"][c]) * p["c.weight"][c]
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-13, atol=1e-13)
    check_gradients(net, x)
    assert all(param.decay_mult == 0 for param in net.params().values())


def test_scale_and_bias_change_nothing_at_first():
    x = numbers((2, 3))
    np.testing.assert_array_equal(Net([Scale(bias=True), Bias()], (3,)).bind("cpu", "float64").predict(x), x)
    for layer in (Scale(), Bias()):
        with pytest.raises(ShapeError, match="at least one axis"):
            Net([layer], ())


def test_frozen_gains_get_no_gradient():
    x = numbers((2, 3))
    net = net_of([Scale(bias=True).named("a"), Bias().named("b")], x)
    net.freeze("*.bias")
    grads = run(net, x).grads
    assert grads["a.weight"].any()
    assert not grads["a.bias"].any()
    assert not grads["b.bias"].any()
