"""Layers that share their parameters with another."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.sequential import Ref, Sequential
from layernet.errors import ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear
from tests.core.toys import Scale

X = np.random.default_rng(0).normal(size=(5, 4))


def test_a_tied_layer_shares_values_and_its_gradients_add():
    net = Net([Scale(2.0).named("a"), ReLU(), Ref("a").named("b")], (4,)).bind("cpu", "float64")
    assert list(net.params()) == ["a.weight"]
    assert net.layers[2].weight is net.layers[0].weight
    assert net.layers[2].path == "b"
    weight = net.params()["a.weight"]
    tape = net.forward(X, training=True)
    np.testing.assert_allclose(tape.output, 4 * np.maximum(X, 0))
    net.backward(tape, np.ones_like(X))
    np.testing.assert_allclose(weight.grad, (2 * 2 * np.maximum(X, 0)).sum(axis=0))


def test_a_tied_composite_and_a_tied_block_share_all_within():
    body = Sequential([Linear(4), ReLU(), Linear(4)]).named("body")
    net = Net([body, Ref("body"), Ref("body.linear_2")], (4,)).bind("cpu", "float64")
    assert len(net.params()) == 4
    assert net.layers[1].layers[2].weight is body.layers[2].weight
    assert net.layers[2].weight is body.layers[2].weight


def test_a_tied_composite_may_hold_a_tied_layer():
    net = Net([Linear(4).named("a"), Sequential([ReLU(), Ref("a")]).named("s"), Ref("s")], (4,)).bind("cpu", "float64")
    assert list(net.params()) == ["a.weight", "a.bias"]
    weight = net.params()["a.weight"].data
    expected = X
    for active in (False, True, True):
        expected = (np.maximum(expected, 0) if active else expected) @ weight.T
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-12)


def test_a_tied_composite_may_stand_before_what_it_is_tied_to():
    layers = [Ref("s"), Linear(4).named("a"), Sequential([ReLU(), Ref("a")]).named("s")]
    net = Net(layers, (4,)).bind("cpu", "float64")
    assert len(net.params()) == 2
    assert net.layers[0].layers[1].weight is net.layers[1].weight is net.layers[2].layers[1].weight


def test_a_tied_layer_may_stand_in_a_tuple():
    class Pair(Sequential):
        def __init__(self, layers: list[Layer]):
            self.layers = tuple(layers)

    net = Net([Linear(4).named("a"), Pair([ReLU(), Ref("a")])], (4,)).bind("cpu", "float64")
    assert list(net.params()) == ["a.weight", "a.bias"]
    assert net.layers[1].layers[1].weight is net.layers[0].weight


def test_a_layer_cannot_hold_itself():
    with pytest.raises(ShapeError, match="would hold itself"):
        Net([Sequential([ReLU(), Ref("s")]).named("s")], (4,))
    with pytest.raises(ShapeError, match="would hold itself"):
        Net([Sequential([Ref("t")]).named("s"), Sequential([Ref("s")]).named("t")], (4,))


def test_a_tie_to_nothing_or_to_another_shape_is_an_error():
    with pytest.raises(ShapeError, match="no layer called 'b'; known: a"):
        Net([Linear(4).named("a"), Ref("b")], (4,))
    with pytest.raises(ShapeError, match="shares weight"):
        Net([Linear(3).named("a"), Ref("a")], (4,))
