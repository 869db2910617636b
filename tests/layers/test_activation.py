import math

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ContractError, ShapeError
from layernet.layers.activation import GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from tests.layers.one_layer import check_gradients, net_of, numbers, run


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def tanh_phi(x):
    return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS = {
    "ReLU": (ReLU, lambda x: x if x > 0 else 0.0),
    "LeakyReLU": (LeakyReLU, lambda x: x if x > 0 else 0.01 * x),
    "LeakyReLU 0": (lambda: LeakyReLU(0.0), lambda x: x if x > 0 else 0.0),
    "LeakyReLU 1.5": (lambda: LeakyReLU(1.5), lambda x: x if x > 0 else 1.5 * x),
    "GELU": (GELU, lambda x: x * phi(x)),
    "GELU tanh": (lambda: GELU("tanh"), lambda x: x * tanh_phi(x)),
    "SiLU": (SiLU, lambda x: x / (1 + math.exp(-x))),
    "Sigmoid": (Sigmoid, lambda x: 1 / (1 + math.exp(-x))),
    "Tanh": (Tanh, math.tanh),
}
SHAPES = [(1,), (3, 1), (2, 5), (2, 3, 3, 4)]
LAYERS = {name: make for name, (make, _) in FORMULAS.items()} | {"PReLU": PReLU, "Softmax": Softmax}
every_layer = pytest.mark.parametrize("name", LAYERS)


def build(name, x):
    return net_of(LAYERS[name]().named("it"), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, shape):
    x = numbers(shape) * 3
    expected = np.vectorize(FORMULAS[name][1])(x)
    np.testing.assert_allclose(run(build(name, x), x).y, expected, rtol=1e-13, atol=1e-15)


@every_layer
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_gradients(name, shape):
    x = numbers(shape)
    check_gradients(build(name, x), x)


def test_prelu_like_a_loop():
    x = numbers((2, 3, 2, 4))
    net = net_of(PReLU().named("it"), x)
    slopes = net.params()["it.weight"].data
    found = run(net, x)
    dy = numbers(x.shape, 7)
    slope_gradient = np.zeros(4)
    for place in np.ndindex(x.shape):
        negative = x[place] < 0
        assert found.y[place] == (slopes[place[-1]] * x[place] if negative else x[place])
        np.testing.assert_allclose(found.dx[place], dy[place] * (slopes[place[-1]] if negative else 1), rtol=1e-14)
        slope_gradient[place[-1]] += dy[place] * x[place] * negative
    np.testing.assert_allclose(found.grads["it.weight"], slope_gradient, rtol=1e-13)


def test_prelu_starts_at_init_and_is_spared_by_decay():
    (weight,) = Net([PReLU(init=0.1)], (5, 3)).bind("cpu").params().values()
    np.testing.assert_array_equal(weight.data, np.full(3, 0.1, dtype="float32"))
    assert weight.decay_mult == 0


def test_a_frozen_slope_still_passes_the_gradient_on():
    x = numbers((4, 3))
    net = net_of(PReLU().named("it"), x)
    free = run(net, x)
    net.freeze("it.*")
    frozen = run(net, x)
    np.testing.assert_array_equal(free.dx, frozen.dx)
    assert not frozen.grads["it.weight"].any()


@every_layer
def test_float32_agrees_with_float64(name):
    x = numbers((16, 33), dtype="float32") * 4
    single, double = run(build(name, x), x), run(build(name, x.astype("float64")), x.astype("float64"))
    assert single.y.dtype == single.dx.dtype == np.float32
    np.testing.assert_allclose(single.y, double.y, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(single.dx, double.dx, rtol=1e-5, atol=1e-5)


@every_layer
def test_a_second_backward_is_an_error_that_names_the_layer(name):
    x = numbers((2, 3))
    net = build(name, x)
    tape = net.forward(x, training=True, needs_input_grad=True)
    inner = tape.root.saved[0][0]
    net.backward(tape, numbers((2, 3)))
    with pytest.raises(ContractError, match="was already gone back through"):
        net.backward(tape, numbers((2, 3)))
    with pytest.raises(ContractError, match=r"layer it \("):
        net.layers[0].backward(numbers((2, 3)), inner)


def test_bad_arguments():
    with pytest.raises(ValueError, match="negative_slope must be finite and at least 0, got -1"):
        LeakyReLU(-1)
    with pytest.raises(ValueError, match="init must be finite, got nan"):
        PReLU(math.nan)
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'fast'"):
        GELU("fast")


@pytest.mark.parametrize("layer", [PReLU, Softmax])
def test_one_number_an_example_is_refused(layer):
    with pytest.raises(ShapeError, match=f"{layer.__name__} needs at least one axis of features"):
        Net([layer()], ())
