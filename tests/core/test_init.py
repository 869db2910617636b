"""Initialisers: moments against closed forms, bounds, and the variance they keep through fifty layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.errors import ContractError
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear

SHAPE = (60, 3, 5, 20)  # out 60, fan_in 300, fan_out 900
COUNT = math.prod(SHAPE)


def stream(*parts: int | str) -> Stream:
    return Stream(key_of(*(parts or (0,))), host().ops, "float64")


def draw(initializer, shape=SHAPE, *key) -> np.ndarray:
    return np.asarray(initializer(shape, stream(*key)))


def truncated_std(cut: float) -> float:
    """Standard deviation of N(0, 1) restricted to +-cut: var = 1 - 2 c phi(c) / (2 Phi(c) - 1)."""
    density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * cut * density / math.erf(cut / math.sqrt(2)))


MOMENTS = [
    (init.normal(0.02, 0.5), 0.5, 0.02),
    (init.uniform(-1, 3), 1.0, 4 / math.sqrt(12)),
    (init.truncated_normal(0.1, -1.0), -1.0, 0.1 * truncated_std(2.0)),
    (init.truncated_normal(2.0, cut=1.0), 0.0, 2.0 * truncated_std(1.0)),
    (init.xavier_normal(), 0.0, math.sqrt(2 / 1200)),
    (init.xavier_uniform(gain=3.0), 0.0, 3 * math.sqrt(2 / 1200)),
    (init.kaiming_normal(), 0.0, math.sqrt(2 / 300)),
    (init.kaiming_normal("fan_out"), 0.0, math.sqrt(2 / 900)),
    (init.kaiming_normal(nonlinearity="linear"), 0.0, math.sqrt(1 / 300)),
    (init.kaiming_normal(nonlinearity="leaky_relu", slope=0.5), 0.0, math.sqrt(2 / 1.25 / 300)),
    (init.kaiming_uniform("fan_out", "tanh"), 0.0, 5 / 3 / math.sqrt(900)),
]


@pytest.mark.parametrize(("initializer", "mean", "std"), MOMENTS, ids=[repr(case[0]) for case in MOMENTS])
def test_moments(initializer, mean, std):
    values = draw(initializer)
    assert values.shape == SHAPE
    # five standard errors: of the mean std/sqrt(n), of the standard deviation at most that of a normal
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(COUNT)
    assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * COUNT)


def test_normals_are_normal():
    values = np.sort(draw(init.normal(1.0)).ravel())
    expected = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in values])
    distance = abs(expected - np.arange(COUNT) / COUNT).max()  # Kolmogorov and Smirnov
    assert distance < 1.95 / math.sqrt(COUNT)  # exceeded by one fair sample in a thousand


def test_bounds():
    values = draw(init.uniform(-1, 3))
    assert -1 < values.min() < -0.99
    assert 2.99 < values.max() < 3
    for cut in (0.5, 2.0):
        values = (draw(init.truncated_normal(0.1, 1.0, cut)) - 1.0) / 0.1
        assert 0.99 * cut < abs(values).max() <= cut * (1 + 1e-12)
    bound = math.sqrt(6 / 300)
    assert 0.999 * bound < abs(draw(init.kaiming_uniform())).max() < bound
    assert_array_equal(draw(init.constant(2.5), (2, 3)), np.full((2, 3), 2.5))


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (7, 7), (8, 2, 3, 4), (30, 2, 2, 3)])
def test_orthogonal_is_orthogonal(shape):
    values = draw(init.orthogonal(gain=1.5), shape)
    assert values.shape == shape
    matrix = values.reshape(shape[0], -1) / 1.5
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert_allclose(product, np.eye(min(matrix.shape)), atol=1e-13)


def test_orthogonal_prefers_no_sign():
    # without the correction by R's diagonal, LAPACK's Q has a diagonal of mostly one sign
    corners = np.array([draw(init.orthogonal(), (3, 3), seed)[0, 0] for seed in range(400)])
    assert abs((corners > 0).mean() - 0.5) < 5 * 0.5 / math.sqrt(400)
    assert abs((corners**2).mean() - 1 / 3) < 0.07


@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_equal_torch(nonlinearity):
    torch = pytest.importorskip("torch")
    assert init.gain_of(nonlinearity) == pytest.approx(torch.nn.init.calculate_gain(nonlinearity), rel=1e-15)


@pytest.mark.parametrize("shape", [(4, 5), (6, 3, 3, 2)])
def test_fans_equal_torch(shape):
    torch = pytest.importorskip("torch")
    tensor = torch.empty(shape).movedim(-1, 1)  # ours is output first, input last
    assert init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(tensor)


def net(**options) -> Net:
    return Net([Linear(6, **options).named("a"), ReLU(), Linear(6, **options).named("b")], (6,))


def test_values_are_a_function_of_seed_and_path_alone():
    first = net().bind("cpu", "float64", seed=5).state_dict()
    again = net().bind("cpu", "float64", seed=5).state_dict()
    other = net().bind("cpu", "float64", seed=6).state_dict()
    single = net().bind("cpu", "float32", seed=5).state_dict()
    for path in first:
        assert_array_equal(first[path], again[path])
        assert_allclose(first[path], single[path], rtol=1e-6)
    assert not np.array_equal(first["a.weight"], other["a.weight"])
    assert not np.array_equal(first["a.weight"], first["b.weight"])
    longer = Net([Linear(6).named("z"), Linear(6).named("b")], (6,)).bind("cpu", "float64", seed=5)
    assert_array_equal(longer.params()["b.weight"].data, first["b.weight"])  # whatever else the net holds


def test_a_function_of_ones_own():
    def ramp(shape, rng):
        return np.arange(math.prod(shape), dtype=float).reshape(shape) + rng.uniform(shape, 0, 1e-9)

    found = net(weight_init=ramp, bias_init=init.constant(3.0)).bind("cpu").state_dict()
    assert_allclose(found["a.weight"], np.arange(36).reshape(6, 6), atol=1e-6)
    assert_array_equal(found["a.bias"], np.full(6, 3.0))


def test_a_function_that_returns_another_shape_is_named():
    with pytest.raises(ContractError, match=r"initialiser of Param a\.weight \(6, 6\) returned shape \(6,\)"):
        net(weight_init=lambda shape, rng: np.zeros(shape[0])).bind("cpu")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.normal(0.0), "std must be positive, got 0.0"),
        (lambda: init.truncated_normal(cut=-1.0), "cut must be positive, got -1.0"),
        (lambda: init.uniform(1.0, 1.0), "low must be below high, got 1.0 and 1.0"),
        (lambda: init.xavier_normal(gain=0.0), "gain must be positive"),
        (lambda: init.kaiming_uniform(mode="fan_avg"), "mode must be 'fan_in' or 'fan_out', got 'fan_avg'"),
        (lambda: init.kaiming_normal(nonlinearity="rleu"), "unknown nonlinearity 'rleu'; did you mean 'relu'"),
        (lambda: draw(init.kaiming_normal(), (5,)), r"at least two axes, got shape \(5,\)"),
        (lambda: draw(init.orthogonal(), (5,)), r"at least two axes, got shape \(5,\)"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


WIDTH, DEPTH = 512, 50


class Probe(Layer):
    """Notes the mean square of what passes."""

    def __init__(self, found):
        self.found = found

    def forward(self, x, ctx):
        self.found.append(float((x * x).mean()))
        return x


def energy_ratios(seeds: range, examples: int = 4) -> np.ndarray:
    """E[y_l^2] / E[y_(l-1)^2], by seed and layer, of DEPTH layers y = ReLU(Linear(x)) with default weights."""
    found: list[float] = []
    layers = [layer for _ in range(DEPTH + 1) for layer in (Linear(WIDTH), ReLU(), Probe(found))]
    deep = Net(layers, (WIDTH,)).bind("cpu")
    for seed in seeds:
        deep.initialize(seed)
        deep.forward(stream(seed, "x").normal((examples, WIDTH)), recording=False)
    energies = np.array(found).reshape(len(seeds), DEPTH + 1)
    return energies[:, 1:] / energies[:, :-1]


def test_defaults_keep_the_variance_through_relu_layers():
    # a layer's ratio is 1 on average and scatters by 9 %, so the mean of 250 has a standard error of 0.6 %
    assert abs(energy_ratios(range(5)).mean() - 1) < 0.02


@pytest.mark.slow
def test_defaults_keep_the_variance_through_relu_layers_over_fifty_seeds():
    ratios = energy_ratios(range(50))
    assert abs(ratios.mean() - 1) < 0.02
    assert abs(ratios.mean(axis=0) - 1).max() < 0.1  # at every depth
