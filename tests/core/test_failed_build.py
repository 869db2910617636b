"""A net that cannot be built leaves its layers as they were, so that the next attempt is like a first one."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.sequential import Ref, Sequential
from layernet.errors import ContractError, ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.conv import Conv2d
from layernet.layers.linear import Linear
from layernet.layers.local import Local2d
from layernet.layers.pool import AvgPool2d
from layernet.layers.shape import Reshape


def test_a_net_that_cannot_be_built_leaves_its_layers_free():
    layers = [Linear(3), Reshape([5])]
    with pytest.raises(ShapeError):
        Net(layers, (4,))
    layers[1] = Reshape([3, 1])
    assert Net(layers, (4,)).output_shape == (3, 1)


@pytest.mark.parametrize(
    "layer",
    [AvgPool2d(3, 3, ceil_mode=True), Conv2d(1, 3, stride=3, ceil_mode=True), Local2d(1, 3, stride=3, ceil_mode=True)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_window_is_placed_anew(layer):
    with pytest.raises(ShapeError):
        Net([layer, Linear(7), Reshape([5])], (4, 4, 1))
    second, fresh = (Net([each], (5, 5, 1)).bind("cpu", "float64") for each in (layer, layer.clone()))
    assert second.output_shape == fresh.output_shape
    second.load_state_dict(fresh.state_dict())
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 1))
    np.testing.assert_array_equal(second.predict(x), fresh.predict(x))


def test_a_tie_within_a_composite_is_made_anew():
    layers = [Linear(4).named("a"), Sequential([Ref("a")])]
    with pytest.raises(ShapeError):
        Net([*layers, Reshape([5])], (4,))
    assert list(Net(layers, (4,)).params()) == ["a.weight", "a.bias"]


def test_a_layer_of_another_net_stays_there():
    used = ReLU()
    Net([used], (4,))
    for _ in range(2):
        with pytest.raises(ContractError, match="already part of a net"):
            Net([used], (4,))
