"""Parameters in flat arrays, gradients in them, and constructor arguments as descriptions."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from layernet.core import init
from layernet.core.configurable import Configurable
from layernet.core.duration import Duration
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Buffer, Param
from layernet.core.sequential import Sequential
from layernet.errors import ContractError
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear
from tests.core.toys import Scale


def test_parameters_are_views_into_two_flat_arrays():
    net = Net([Linear(5), Linear(3)], (4,)).bind("cpu", "float32")
    arena = net.arena
    assert arena.data.shape == arena.grad.shape
    for param, span in zip(arena.params, arena.spans, strict=True):
        assert np.shares_memory(param.data, arena.data)
        assert np.shares_memory(param.grad_buffer(), arena.grad)
        assert (arena.data[span] == param.data.ravel()).all()
        assert span.start % 16 == 0
        assert span.stop - span.start == param.size
    arena.data += 1
    assert (net.params()["linear_1.bias"].data == 1).all()


def test_parameters_that_do_not_decay_stand_behind_the_others():
    net = Net([Linear(5), Scale(decay_mult=0.5), Linear(3)], (4,)).bind("cpu")
    assert [param.path for param in net.arena.params] == [
        "linear_1.weight",
        "scale_1.weight",
        "linear_2.weight",
        "linear_1.bias",
        "linear_2.bias",
    ]
    assert list(net.params())[:2] == ["linear_1.weight", "linear_1.bias"]


def test_padding_is_zero_and_stays_zero():
    net = Net([Linear(5), Linear(3)], (4,)).bind("cpu", "float64")
    arena = net.arena
    used = np.zeros(arena.data.shape, bool)
    for span in arena.spans:
        used[span] = True
    assert not used.all()
    net.backward(net.forward(np.ones((2, 4))), np.ones((2, 3)))
    arena.settle()
    assert not arena.data[~used].any()
    assert not arena.grad[~used].any()
    assert arena.like().shape == arena.data.shape
    assert not arena.like().any()


def test_a_gradient_that_was_never_given_reads_as_zero():
    net = Net([Linear(5)], (4,)).bind("cpu")
    weight = net.params()["linear_1.weight"]
    weight.grad_buffer()[...] = np.nan
    assert not weight.has_grad
    assert (weight.grad == 0).all()


def test_unbound_tensors_say_so_by_name():
    net = Net([Linear(5)], (4,))
    weight = net.params()["linear_1.weight"]
    with pytest.raises(ContractError, match=r"Param linear_1.weight \(5, 4\) has no values yet.*bind"):
        _ = weight.data
    with pytest.raises(ContractError, match="no gradient yet"):
        _ = weight.grad
    assert repr(Buffer((3,), init.constant(0))) == "Buffer (unnamed) (3,)"
    assert Param((2, 3), init.constant(0)).size == 6


def test_matching_by_shell_patterns():
    net = Net([Linear(5), Sequential([Linear(4), ReLU()]).named("s")], (4,))
    assert [p.path for p in net.matching("*.weight")] == ["linear_1.weight", "s.linear_1.weight"]
    assert [p.path for p in net.matching("s.*")] == ["s.linear_1.weight", "s.linear_1.bias"]


# constructor arguments


class Plain(Layer):
    def __init__(self, size: int, name_of: str = "x", inner: list[Layer] | None = None):
        self.inner = inner or []


def test_arguments_are_kept_as_given():
    assert Plain(3, name_of="y").arguments == {"size": 3, "name_of": "y"}
    assert Plain(size=4).arguments == {"size": 4}
    assert repr(Plain(3, name_of="y")) == "Plain(size=3, name_of='y')"
    assert ReLU().arguments == {}


def test_a_wrong_argument_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword"):
        Plain(3, colour="red")
    with pytest.raises(TypeError, match="size"):
        Plain()


def test_a_clone_is_new_all_the_way_down_and_unbuilt():
    inner = Linear(4).named("inner")
    layer = Plain(3, inner=[inner]).named("outer")
    net = Net([layer], (4,))
    assert layer.path == "outer"
    twin = layer.clone()
    assert type(twin) is Plain
    assert twin.name == "outer"
    assert twin.inner[0] is not inner
    assert twin.inner[0].name == "inner"
    assert twin.inner[0].arguments == inner.arguments
    assert twin.path == ""
    assert "in_shape" not in vars(twin)
    assert net.layers == [layer]


def test_clones_of_nested_containers():
    class Holder(Configurable):
        def __init__(self, parts: dict[str, list[Linear]], pair: tuple[Linear, int]):
            self.parts, self.pair = parts, pair

    one = Holder({"a": [Linear(2)]}, (Linear(3), 7))
    two = one.clone()
    assert two.parts["a"][0] is not one.parts["a"][0]
    assert two.pair[0] is not one.pair[0]
    assert two.pair[1] == 7
    assert repr(two) == repr(one)


def test_a_configurable_can_be_copied_and_pickled():
    layer = Linear(5, bias=False)
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.arguments == {"out_features": 5, "bias": False}


@pytest.mark.parametrize(
    ("text", "steps"), [("5 epochs", 50), ("1 epoch", 10), ("0.25 epochs", 2), ("300 steps", 300), ("1 step", 1)]
)
def test_durations(text, steps):
    assert Duration.parse(text).steps(10) == steps


@pytest.mark.parametrize("text", ["5", "epochs", "-1 epochs", "1.5 steps", "5 days", "", None])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(text)
