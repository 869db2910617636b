"""WeightNorm: its formula, what it changes at first (nothing), and extremes."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.sequential import Ref
from layernet.core.summary import summarize
from layernet.layers.activation import Tanh
from layernet.layers.conv import Conv1d, Conv2d
from layernet.layers.linear import Linear
from layernet.layers.weight_norm import WeightNorm
from tests.layers.one_layer import check_gradients, net_of, numbers, run

LAYERS = {
    "Linear": (lambda: Linear(4), (5,)),
    "Linear without bias": (lambda: Linear(4, bias=False), (3, 5)),
    "Conv1d": (lambda: Conv1d(4, 3), (5, 2)),
    "Conv2d": (lambda: Conv2d(4, 3, padding=1, groups=2), (3, 4, 2)),
}
each_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


@each_layer
def test_it_is_the_layer_with_the_weight_of_its_formula(make, shape):
    x = numbers((3, *shape))
    net = net_of(WeightNorm(make()).named("it"), x)
    plain = Net([make().named("it")], shape).bind("cpu", "float64")
    values = {path: param.data for path, param in net.params().items()}
    g, v = values.pop("it.weight_g"), values.pop("it.weight_v")
    weight = np.array([g_o.item() * v_o / np.sqrt((v_o**2).sum()) for g_o, v_o in zip(g, v, strict=True)])
    assert values.keys() <= {"it.bias"}
    plain.load_state_dict({**values, "it.weight": weight})
    mine, other = run(net, x), run(plain, x)
    np.testing.assert_allclose(mine.y, other.y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mine.dx, other.dx, rtol=1e-12, atol=1e-12)
    along = (mine.grads["it.weight_v"] * v).reshape(4, -1).sum(axis=1)
    np.testing.assert_allclose(along, 0, atol=1e-12)  # at right angles


@each_layer
def test_gradients(make, shape):
    x = numbers((2, *shape))
    check_gradients(net_of(WeightNorm(make()), x), x)


@each_layer
@pytest.mark.parametrize("frozen", ["*_g", "*_v", "*weight_?"])
def test_what_is_frozen_changes_no_other_gradient(make, shape, frozen):
    x = numbers((2, *shape))
    net = net_of(WeightNorm(make()).named("it"), x)
    whole = run(net, x)
    net.freeze(frozen)
    part = run(net, x)
    for path, g in part.grads.items():
        if net.params()[path].frozen:
            assert not g.any()
        else:
            np.testing.assert_array_equal(g, whole.grads[path])
    np.testing.assert_array_equal(part.dx, whole.dx)


@each_layer
def test_at_first_nothing_is_changed(make, shape):
    net = Net([WeightNorm(make()).named("it")], shape).bind("cpu", "float64", seed=4)
    v = net.params()["it.weight_v"].data
    g = net.params()["it.weight_g"].data
    np.testing.assert_allclose(g.ravel() ** 2, (v**2).reshape(4, -1).sum(axis=1), rtol=1e-12)
    assert g.shape == (4, *(1 for _ in v.shape[1:]))


def test_names_counts_and_sharing():
    net = Net([WeightNorm(Linear(5)).named("a"), Tanh(), Ref("a").named("b")], (5,)).bind("cpu", "float64")
    assert list(net.params()) == ["a.weight_v", "a.weight_g", "a.bias"]
    assert net.size == 25 + 5 + 5
    rows = {row.path: row for row in summarize(net)}
    assert rows["a"].params == 35
    assert rows["a"].flops == 25
    x = numbers((2, 5))
    check_gradients(net, x)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e18, 1e30])
def test_extremes(size):
    net = Net([WeightNorm(Linear(2, bias=False)).named("it")], (3,)).bind("cpu")
    net.params()["it.weight_v"].data[...] = np.array([[3, 0, 4], [0, 0, 0]]) * size
    net.params()["it.weight_g"].data[...] = 2
    tape = net.forward(np.ones((1, 3), dtype="float32"), training=True, needs_input_grad=True)
    np.testing.assert_allclose(tape.output, [[2 * 7 / 5, 0]], rtol=1e-6)
    dx = net.backward(tape, np.full((1, 2), 1e-20, dtype="float32"))
    assert np.isfinite(dx).all()
    for param in net.params().values():
        assert np.isfinite(param.grad).all()


def test_layers_it_does_not_know():
    with pytest.raises(ValueError, match=r"layer must be a Linear, Conv1d or Conv2d, got Tanh\(\)"):
        WeightNorm(Tanh())
