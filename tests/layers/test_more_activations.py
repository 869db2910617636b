"""Rectifiers, squashes and arithmetic."""

import math

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.arithmetic import Abs, Affine, Exp, Log, Power, Sqrt, Square
from layernet.layers.rectifier import ELU, SELU, Hardswish, Hardtanh, Mish, ReLU6, Softplus
from layernet.layers.squash import GLU, LogSigmoid, LogSoftmax, ScaledTanh, Softsign, Tanhshrink
from tests.layers.one_layer import check_gradients, net_of, numbers, run

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
FORMULAS = {
    "Hardtanh": (Hardtanh, lambda x: min(max(x, -1), 1)),
    "Hardtanh, brelu": (lambda: Hardtanh(0, 2.5), lambda x: min(2.5, max(0, x))),
    "ReLU6": (ReLU6, lambda x: min(max(x, 0), 6)),
    "ELU": (ELU, lambda x: x if x > 0 else math.exp(x) - 1),
    "ELU 2.5": (lambda: ELU(2.5), lambda x: x if x > 0 else 2.5 * (math.exp(x) - 1)),
    "ELU 0": (lambda: ELU(0.0), lambda x: max(x, 0)),
    "SELU": (SELU, lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * (math.exp(x) - 1))),
    "Hardswish": (Hardswish, lambda x: x * min(max(x + 3, 0), 6) / 6),
    "Mish": (Mish, lambda x: x * math.tanh(math.log(1 + math.exp(x)))),
    "Softplus": (Softplus, lambda x: math.log(1 + math.exp(x))),
    "Softplus, beta": (lambda: Softplus(2.5, 99), lambda x: math.log(1 + math.exp(2.5 * x)) / 2.5),
    "Softplus, softrelu": (lambda: Softplus(threshold=4), lambda x: x if x > 4 else math.log(1 + math.exp(x))),
    "Softplus, both": (lambda: Softplus(2, 3), lambda x: x if 2 * x > 3 else math.log(1 + math.exp(2 * x)) / 2),
    "ScaledTanh": (ScaledTanh, lambda x: 1.7159 * math.tanh(2 * x / 3)),
    "ScaledTanh, a b": (lambda: ScaledTanh(-2, 0.5), lambda x: -2 * math.tanh(0.5 * x)),
    "Tanhshrink": (Tanhshrink, lambda x: x - math.tanh(x)),
    "Tanhshrink, drelu": (lambda: Tanhshrink(2), lambda x: x - 2 * math.tanh(x / 2)),
    "Softsign": (Softsign, lambda x: x / (1 + abs(x))),
    "LogSigmoid": (LogSigmoid, lambda x: math.log(1 / (1 + math.exp(-x)))),
    "Affine": (lambda: Affine(-2, 3), lambda x: 3 - 2 * x),
    "Abs": (Abs, abs),
    "Square": (Square, lambda x: x * x),
    "Sqrt": (lambda: Sqrt(20), lambda x: math.sqrt(20 + x)),
    "Log": (lambda: Log(20), lambda x: math.log(20 + x)),
    "Exp": (Exp, math.exp),
    "Power": (lambda: Power(-1.5, 0.5, 10), lambda x: (0.5 * x + 10) ** -1.5),
    "Power, cube": (lambda: Power(3), lambda x: x**3),
    "Power, line": (lambda: Power(scale=2, shift=1), lambda x: 2 * x + 1),
    "Power, constant": (lambda: Power(0), lambda x: 1.0),
}
LAYERS = {name: make for name, (make, _) in FORMULAS.items()} | {"LogSoftmax": LogSoftmax, "GLU": GLU}
every_layer = pytest.mark.parametrize("name", LAYERS)
SHAPES = [(1,), (3, 2), (2, 6), (2, 3, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, shape):
    make, formula = FORMULAS[name]
    x = numbers(shape) * 4
    expected = np.array([formula(float(v)) for v in x.reshape(-1)]).reshape(shape)
    np.testing.assert_allclose(run(net_of(make(), x), x).y, expected, rtol=1e-12, atol=1e-14)


@every_layer
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_gradients(name, shape):
    x = numbers(shape)
    check_gradients(net_of(LAYERS[name](), x), x)


@every_layer
def test_float32_agrees_with_float64(name):
    x = numbers((16, 34), dtype="float32") * 4
    single, double = (run(net_of(LAYERS[name](), v), v) for v in (x, x.astype("float64")))
    assert single.y.dtype == single.dx.dtype == np.float32
    tolerance = 5e-7 * max(1, abs(double.y).max())  # found: an eighth of it, of dx a sixth
    np.testing.assert_allclose(single.y, double.y, rtol=5e-7, atol=tolerance)
    np.testing.assert_allclose(single.dx, double.dx, rtol=1e-6, atol=2 * tolerance)


KINKS = [
    (Hardtanh(-1, 2), [-1, 2], [0, 0]),
    (ReLU6(), [0, 6], [0, 0]),
    (ELU(0.5), [0], [0.5]),
    (SELU(), [0], [SELU_ALPHA * SELU_SCALE]),
    (Hardswish(), [-3, 3], [0, 1]),
    (Softplus(threshold=4), [4, np.nextafter(4, 5)], [1 / (1 + math.exp(-4)), 1]),
    (Abs(), [0], [0]),
    (Sqrt(), [0, 4], [math.inf, 0.25]),
    (Power(0), [0], [0]),
    (Power(0.5), [0], [math.inf]),
    (Log(), [0, 2], [math.inf, 0.5]),
]


@pytest.mark.parametrize(("layer", "x", "slopes"), KINKS, ids=lambda value: repr(value))
def test_gradient_at_a_kink(layer, x, slopes):
    x = np.array([x], dtype="float64")
    net = Net([layer.clone()], x.shape[1:]).bind("cpu", "float64")
    np.testing.assert_allclose(run(net, x, np.ones_like(x)).dx, [slopes], rtol=1e-14)


EXTREME = [3e38, 1e30, 1e10, 1000.0, 100.0, 88.8, 20.0, 4.0, 3.0, 1.0, 1e-20, 1e-40, 0.0]
UNBOUNDED = ("Affine", "Square", "Sqrt", "Log", "Exp", "Power")
BOUNDED = {name: make for name, make in LAYERS.items() if name.partition(",")[0] not in UNBOUNDED}
BOUNDED |= {"Softplus, steep": lambda: Softplus(50.0), "ScaledTanh, steep": lambda: ScaledTanh(2, 3)}


@pytest.mark.parametrize("name", BOUNDED)
def test_extremes_stay_finite_and_silent(name):
    x = np.array([EXTREME + [-v for v in EXTREME]], dtype="float32")
    found = run(net_of(BOUNDED[name](), x), x, np.ones((1, 13 if name == "GLU" else 26), dtype="float32"))
    assert np.isfinite(found.y).all()
    assert np.isfinite(found.dx).all()


@pytest.mark.parametrize("layer", [Affine(1e30), Square(), Sqrt(), Log(), Exp(), Power(0.5), Power(7)])
def test_arithmetic_without_a_finite_value_is_silent(layer):
    x = np.array([EXTREME + [-v for v in EXTREME]], dtype="float32")
    assert not np.isfinite(run(net_of(layer.clone(), x), x).y).all()


def test_log_softmax_like_a_loop():
    x = numbers((3, 4, 5)) * 3
    found = run(net_of(LogSoftmax(), x), x)
    for place in np.ndindex(3, 4):
        total = sum(math.exp(v) for v in x[place])
        np.testing.assert_allclose(found.y[place], [math.log(math.exp(v) / total) for v in x[place]], rtol=1e-12)


def test_glu_gates_the_first_half_by_the_second():
    x = numbers((2, 3, 6))
    expected = x[..., :3] / (1 + np.exp(-x[..., 3:]))
    np.testing.assert_allclose(run(net_of(GLU(), x), x).y, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hardtanh(1, 1), "min_val must be below max_val, got 1 and 1"),
        (lambda: Hardtanh(math.nan), "min_val must be below max_val, got nan"),
        (lambda: ELU(-1), "alpha must be finite and at least 0, got -1"),
        (lambda: Softplus(0), "beta must be finite and above 0, got 0"),
        (lambda: Softplus(threshold=math.nan), "threshold must be a number, got nan"),
        (lambda: ScaledTanh(b=math.inf), "b must be finite, got inf"),
        (lambda: Tanhshrink(0), "a must not be 0, got 0"),
        (lambda: Affine(scale=math.nan), "scale must be finite, got nan"),
        (lambda: Sqrt(math.inf), "shift must be finite, got inf"),
        (lambda: Log(math.inf), "shift must be finite, got inf"),
        (lambda: Power(math.inf), "power must be finite, got inf"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_shapes():
    with pytest.raises(ShapeError, match="GLU halves the last axis, which has 5 channels"):
        Net([GLU()], (4, 5))
    for layer in (GLU(), LogSoftmax()):
        with pytest.raises(ShapeError, match="needs at least one axis of features"):
            Net([layer], ())
