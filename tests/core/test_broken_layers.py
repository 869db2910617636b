"""A layer that breaks its contract in a pass is named, with what it did."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.errors import ContractError
from layernet.layers.linear import Linear
from tests.core.toys import Scale

X = np.random.default_rng(0).normal(size=(5, 4))


def net_of(*layers):
    return Net(list(layers), (4,)).bind("cpu", "float64")


def returning(y=None, dx=None):
    class Returns(Layer):
        def forward(self, x, ctx):
            ctx.save(None)
            return x if y is None else y

        def backward(self, dy, ctx):
            return dx

    return Returns().named("bad")


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros((5, 3)), r"float64 of shape \(5, 3\), expected float64 of shape \(5, 4\)"),
        (np.zeros((4, 4)), r"shape \(4, 4\)"),
        (np.zeros((5, 4), "float32"), "float32"),
    ],
)
def test_a_wrong_output_is_named(y, words):
    with pytest.raises(ContractError, match=rf"bad \(Returns\): forward returned .*{words}"):
        net_of(returning(y)).forward(X)


def test_an_output_that_was_not_returned_is_named():
    class Silent(Layer):
        def forward(self, x, ctx):
            ctx.save(x)

    with pytest.raises(ContractError, match=r"silent_1 \(Silent\): forward returned None, expected float64"):
        net_of(Silent()).forward(X)


@pytest.mark.parametrize("shape", [None, 4])
def test_a_build_that_returns_no_shape_is_named(shape):
    class Shapeless(Layer):
        def build(self, in_shape):
            return shape

    with pytest.raises(ContractError, match=rf"a Shapeless layer: build returned {shape}; .*output shape"):
        Net([Shapeless()], (4,))


@pytest.mark.parametrize(
    ("dx", "words"),
    [
        (None, "None"),
        (np.zeros((5, 3)), r"float64 of shape \(5, 3\)"),
        (np.zeros((5, 4), "float32"), "float32 of shape"),
    ],
)
def test_a_wrong_input_gradient_is_named(dx, words):
    net = net_of(Linear(4), returning(dx=dx))
    with pytest.raises(ContractError, match=rf"bad \(Returns\): backward returned {words}"):
        net.backward(net.forward(X), X)


def test_a_wrong_gradient_of_the_output_is_named():
    net = net_of(Linear(4))
    with pytest.raises(ContractError, match=r"gradient of its output has shape \(5, 3\), expected \(5, 4\)"):
        net.backward(net.forward(X), X[:, :3])


def test_a_wrong_parameter_gradient_is_named():
    class Wrong(Scale):
        def backward(self, dy, ctx):
            ctx.add_grad(self.weight, np.zeros((2, 4)))
            return dy

    net = net_of(Wrong().named("bad"))
    with pytest.raises(
        ContractError, match=r"bad \(Wrong\): the gradient of Param bad.weight \(4,\) has shape \(2, 4\); .*sum_to"
    ):
        net.backward(net.forward(X), X)
