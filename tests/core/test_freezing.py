"""Parameters that are frozen, and the statistics of their layers."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Buffer, Param
from layernet.errors import UsageError
from layernet.layers.linear import Linear
from tests.core.toys import Scale

X = np.random.default_rng(0).normal(size=(5, 4))


def net_of(*layers):
    return Net(list(layers), (4,)).bind("cpu", "float64")


def test_a_frozen_prefix_costs_no_backward():
    layers = [Scale().named(name) for name in "abcd"]
    net = net_of(*layers)
    net.freeze("a.*")
    net.freeze("b.weight")
    net.backward(net.forward(X, training=True), X)
    assert [layer.calls[1:] for layer in layers] == [[], [], ["backward without input"], ["backward"]]
    assert not net.params()["a.weight"].grad.any()
    assert net.params()["c.weight"].grad.any()
    net.freeze("*", frozen=False)
    net.zero_grad()
    net.backward(net.forward(X, training=True), X)
    assert net.params()["a.weight"].grad.any()


def test_a_frozen_layer_above_a_trained_one_passes_the_gradient_on():
    below, frozen = Scale(3.0).named("below"), Scale(5.0).named("frozen")
    net = net_of(below, frozen)
    net.freeze("frozen.*")
    net.backward(net.forward(X), np.ones_like(X))
    np.testing.assert_allclose(net.params()["below.weight"].grad, (5 * X).sum(axis=0))
    assert not net.params()["frozen.weight"].grad.any()


def test_a_wholly_frozen_net_has_no_backward_work():
    layer = Scale()
    net = net_of(layer)
    net.freeze("*")
    assert net.backward(net.forward(X, training=True), X) is None
    assert layer.calls == ["forward"]


def test_freezing_what_is_not_there_is_an_error():
    with pytest.raises(UsageError, match="no parameter matches 'lin'"):
        net_of(Linear(3)).freeze("lin")


class Normish(Layer):
    """A gain, and a running mean."""

    def build(self, in_shape):
        self.weight = Param(in_shape, init.constant(1.0))
        self.bias = Param(in_shape, init.constant(0.0))
        self.mean = Buffer(in_shape, init.constant(0.0))
        return in_shape

    def forward(self, x, ctx):
        ctx.save(x, ctx.needs_update(self.mean))
        ctx.update_buffer(self.mean, x.mean(axis=0), 0.5)
        return x * self.weight.data + self.bias.data

    def backward(self, dy, ctx):
        x, _ = ctx.saved
        ctx.add_grads((self.weight, (dy * x).sum(axis=0)), (self.bias, None))
        return dy * self.weight.data


def test_statistics_of_a_frozen_layer_stay():
    net = net_of(Normish().named("norm"), Linear(4))
    mean = net.buffers()["norm.mean"].data
    net.freeze("norm.weight")
    net.backward(net.forward(X, training=True), X)
    assert mean.any()  # its bias is still trained
    before = mean.copy()
    net.freeze("norm.*")
    net.backward(net.forward(X, training=True), X)
    assert (mean == before).all()
    net.freeze("norm.*", frozen=False)
    net.backward(net.forward(X, training=True), X)
    assert (mean != before).all()
