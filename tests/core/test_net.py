"""How a net is built, named, bound and run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from layernet.backend.device import Device, host
from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Const, Param
from layernet.core.sequential import Sequential
from layernet.errors import CheckpointError, ContractError, ShapeError, UsageError
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear
from tests.core.toys import Scale, Side, Track, Twice

X = np.random.default_rng(0).normal(size=(5, 4))


def mlp(**options):
    return Net([Linear(6), ReLU(), Linear(3)], (4,)).bind("cpu", "float64", **options)


def reference(net, x):
    """The mlp's outputs, and a function from their gradient to those of the parameters and x, by hand."""
    w1, b1, w2, b2 = (param.data for param in net.params().values())
    hidden = x @ w1.T + b1
    active = np.maximum(hidden, 0)

    def backward(dy):
        dhidden = (dy @ w2) * (hidden > 0)
        return [dhidden.T @ x, dhidden.sum(0), dy.T @ active, dy.sum(0)], dhidden @ w1

    return active @ w2.T + b2, backward


def test_building_computes_shapes_and_makes_no_array():
    net = Net([Linear(6), ReLU(), Linear(3)], (4,))
    assert [layer.out_shape for layer in net.layers] == [(6,), (6,), (3,)]
    assert net.output_shape == (3,)
    assert net.size == 4 * 6 + 6 + 6 * 3 + 3
    assert not net.bound
    assert not any(param.bound for param in net.params().values())
    for ask in (lambda: net.device, lambda: net.forward(X), lambda: net.params()["linear_1.weight"].data):
        with pytest.raises(ContractError, match="bind"):
            ask()


def test_forward_and_backward_agree_with_formulas_by_hand():
    net = mlp()
    y, back = reference(net, X)
    dy = np.random.default_rng(1).normal(size=y.shape)
    tape = net.forward(X, training=True, needs_input_grad=True)
    np.testing.assert_allclose(tape.output, y, rtol=1e-13)
    dx = net.backward(tape, dy)
    grads, expected = back(dy)
    np.testing.assert_allclose(dx, expected, rtol=1e-12)
    for param, g in zip(net.params().values(), grads, strict=True):
        np.testing.assert_allclose(param.grad, g, rtol=1e-12, atol=1e-14)


def test_an_empty_net_is_the_identity():
    net = Net([], (4,)).bind("cpu", "float64")
    assert (net.predict(X) == X).all()
    assert (net.backward(net.forward(X, needs_input_grad=True), X) == X).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_become_the_nets_float_type(dtype):
    net = Net([Linear(3)], (4,)).bind("cpu", dtype)
    for x in (X, X.astype("float32"), (X * 10).astype("int64"), X.tolist(), np.asfortranarray(X)):
        assert net.forward(x).output.dtype == dtype


def test_a_wrong_input_shape_is_an_error_that_names_both():
    with pytest.raises(UsageError, match=r"\(5, 3\).*\(N, \*\(4,\)\)"):
        mlp().forward(X[:, :3])


def test_an_unknown_float_type_is_an_error():
    with pytest.raises(UsageError, match="float16"):
        Net([Linear(3)], (4,)).bind("cpu", "float16")


# names


def test_unnamed_layers_are_numbered_by_type_and_container():
    net = Net(
        [Linear(4), ReLU(), Linear(4).named("mid"), Linear(4), Sequential([Linear(4), Linear(4)]).named("tail")], (4,)
    )
    weights = [path for path in net.params() if path.endswith("weight")]
    assert weights == [
        "linear_1.weight",
        "mid.weight",
        "linear_3.weight",
        "tail.linear_1.weight",
        "tail.linear_2.weight",
    ]
    assert net.layers[4].layers[1].path == "tail.linear_2"
    assert all(param.path == path for path, param in net.params().items())


def test_two_layers_of_one_name_are_refused():
    with pytest.raises(ContractError, match="'a'"):
        Net([Linear(4).named("a"), Linear(4).named("a")], (4,))


def test_parameters_in_lists_are_found():
    class Many(Layer):
        def build(self, in_shape):
            self.steps = [Param((2,), init.constant(float(i))) for i in range(3)]
            return in_shape

    assert list(Net([Many()], (2,)).params()) == ["many_1.steps.0", "many_1.steps.1", "many_1.steps.2"]


def test_a_layer_object_has_one_place():
    layer = Linear(4)
    with pytest.raises(UsageError, match="twice"):
        Net([layer, ReLU(), layer], (4,))
    net = Net([layer], (4,))
    assert net.layers == [layer]
    with pytest.raises(ContractError, match="already part of a net"):
        Net([layer], (4,))


def test_what_is_no_layer_is_refused():
    with pytest.raises(UsageError, match=r"layers\[1\] is 'ReLU'"):
        Net([Linear(3), "ReLU"], (4,))


def test_a_shape_that_does_not_fit_names_the_layer():
    class Picky(Layer):
        def build(self, in_shape):
            raise ShapeError("too picky")

    picky = Picky()
    with pytest.raises(ShapeError, match="too picky") as raised:
        Net([Linear(3), Sequential([picky])], (4,))
    assert raised.value.layer is picky


def test_an_empty_output_is_refused():
    class Shrink(Layer):
        def build(self, in_shape):
            return (in_shape[0] - 4,)

    with pytest.raises(ShapeError, match=r"\(0,\)"):
        Net([Shrink()], (4,))


# values


def test_values_depend_on_seed_and_path_alone():
    one, other = mlp(seed=1), mlp(seed=1)
    assert all((a == other.state_dict()[path]).all() for path, a in one.state_dict().items())
    assert (mlp(seed=2).params()["linear_1.weight"].data != one.params()["linear_1.weight"].data).all()
    longer = Net([Linear(6), ReLU(), Linear(3), Linear(3)], (4,)).bind("cpu", "float64", seed=1)
    assert (longer.params()["linear_2.weight"].data == one.params()["linear_2.weight"].data).all()
    single = Net([Linear(6), ReLU(), Linear(3)], (4,)).bind("cpu", "float32", seed=1)
    assert (single.params()["linear_1.weight"].data == one.params()["linear_1.weight"].data.astype("float32")).all()


def test_binding_again_moves_the_values():
    net = mlp(seed=1)
    net.params()["linear_1.bias"].data[...] = 0.5
    before = net.state_dict()
    net.bind("cpu", "float32", seed=9)
    assert net.dtype == "float32"
    for path, value in net.state_dict().items():
        assert value.dtype == np.float32
        assert (value == before[path].astype("float32")).all()
    assert net.arena.data.dtype == np.float32
    assert np.shares_memory(net.params()["linear_1.bias"].data, net.arena.data)


def test_an_initialiser_of_the_wrong_shape_is_named():
    net = Net([Linear(3, weight_init=lambda shape, rng: np.zeros(7))], (4,))
    with pytest.raises(ContractError, match=r"linear_1.weight.*\(7,\)"):
        net.bind("cpu")


def test_constants_are_made_on_the_device_in_the_nets_type_and_not_saved():
    class Offset(Layer):
        def build(self, in_shape):
            self.offset = Const(lambda xp, dtype: xp.arange(in_shape[0], dtype=dtype))
            return in_shape

        def forward(self, x, ctx):
            return x + self.offset.data

    net = Net([Offset()], (4,))
    with pytest.raises(ContractError, match="bind"):
        _ = net.layers[0].offset.data
    net.bind("cpu", "float32")
    assert net.layers[0].offset.data.dtype == np.float32
    assert not net.state_dict()
    assert (net.predict(np.zeros((1, 4))) == np.arange(4)).all()


def test_values_are_made_on_the_nets_own_device_whoever_asks():
    inside = []

    class Second(Device):
        """One that is not current unless it is activated, as `cuda:1`."""

        @contextmanager
        def activate(self):
            inside.append(True)
            yield
            inside.pop()

        def asarray(self, value, dtype=None):
            assert inside
            return super().asarray(value, dtype)

    net = Net([Linear(3), Track()], (4,)).bind(Second("second", host().ops))
    net.initialize(seed=1)
    net.load_state_dict(net.state_dict())
    tape = net.forward(X, training=True)
    (buffer, value, momentum) = tape._updates[0]

    class Watched:
        def __rmul__(self, factor):
            assert inside
            return factor * value

    tape._updates[0] = (buffer, Watched(), momentum)
    net.backward(tape, np.zeros((5, 3)), update_buffers=False)
    tape.update_buffers()
    assert buffer.data.any()


def test_a_state_is_a_copy_and_comes_back_whole():
    net, other = mlp(seed=1), mlp(seed=2)
    state = net.state_dict()
    other.load_state_dict(state)
    assert (other.predict(X) == net.predict(X)).all()
    state["linear_1.weight"][...] = 0
    assert net.params()["linear_1.weight"].data.any()


def test_running_statistics_are_part_of_the_state():
    net = Net([Track()], (4,)).bind("cpu", "float64")
    net.backward(net.forward(X, training=True), X)
    state = net.state_dict()
    assert list(state) == ["track_1.mean"]
    other = Net([Track()], (4,)).bind("cpu", "float64")
    other.load_state_dict(state)
    assert (other.buffers()["track_1.mean"].data == X.mean(axis=0) / 2).all()


def test_a_state_that_does_not_fit_is_told_whole_and_changes_nothing():
    net = mlp(seed=1)
    before = net.state_dict()
    wrong = {**mlp(seed=2).state_dict(), "linear_2.bias": np.zeros(9), "linear_9.weight": np.zeros(1)}
    del wrong["linear_1.bias"]
    with pytest.raises(CheckpointError) as raised:
        net.load_state_dict(wrong)
    message = str(raised.value)
    assert "missing: linear_1.bias (6,)" in message
    assert "unknown: linear_9.weight (1,)" in message
    assert "shape: linear_2.bias is (9,), the net has (3,)" in message
    assert all((value == before[path]).all() for path, value in net.state_dict().items())


# inference


def test_predict_is_in_parts_what_it_is_whole():
    net = mlp()
    whole = net.forward(X).output
    for size in (None, 1, 2, 5, 100):
        np.testing.assert_allclose(net.predict(X, batch_size=size), whole, rtol=1e-13)
    assert net.predict(X[:0]).shape == (0, 3)


@pytest.mark.parametrize("size", [0, -2])
def test_a_batch_size_below_one_is_refused(size):
    with pytest.raises(UsageError, match=f"batch_size must be at least 1, got {size}"):
        mlp().predict(X, batch_size=size)


def test_inference_writes_nothing_to_the_net(monkeypatch):
    net = mlp()
    written = []
    monkeypatch.setattr(Net, "__setattr__", lambda self, name, value: written.append(name))
    net.predict(X)
    assert not written


def test_many_threads_may_predict_at_once():
    net = Net([Linear(50), ReLU(), Twice(Linear(50)), Linear(3)], (4,)).bind("cpu", "float64")
    inputs = [np.random.default_rng(i).normal(size=(64, 4)) for i in range(40)]
    expected = [net.predict(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(net.predict, inputs))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_predicting_between_forward_and_backward_changes_nothing():
    net, other = mlp(), mlp()
    tape, alone = net.forward(X, training=True), other.forward(X, training=True)
    net.predict(X * 2)
    net.backward(tape, tape.output)
    other.backward(alone, alone.output)
    assert (net.arena.grad == other.arena.grad).all()


# named outputs


def test_an_emitted_output_gets_its_gradient_back():
    net = Net([Scale(2.0), Side(), Scale(5.0)], (4,)).bind("cpu", "float64")
    tape = net.forward(X, training=True, needs_input_grad=True)
    assert set(tape.outputs) == {"output", "side"}
    np.testing.assert_allclose(tape.outputs["side"], 6 * X)
    dy, dside = np.ones_like(X), np.full_like(X, 10.0)
    both = net.backward(tape, {"output": dy, "side": dside})
    np.testing.assert_allclose(both, 10 * dy + 6 * dside)
    one = net.backward(net.forward(X, needs_input_grad=True), dy)
    np.testing.assert_allclose(one, 10 * dy)
    other = net.backward(net.forward(X, needs_input_grad=True), {"side": dside})
    np.testing.assert_allclose(other, 6 * dside)


def test_an_unknown_output_is_an_error_with_a_suggestion():
    net = Net([Side()], (4,)).bind("cpu", "float64")
    with pytest.raises(UsageError, match="did you mean 'side'"):
        net.backward(net.forward(X, needs_input_grad=True), {"sid": X})


def test_two_outputs_of_one_name_are_an_error():
    with pytest.raises(ContractError, match="already has an output called 'side'"):
        Net([Side(), Side()], (4,)).bind("cpu", "float64").forward(X)
    with pytest.raises(ContractError, match="'output'"):
        Net([Side("output")], (4,)).bind("cpu", "float64").forward(X)


def test_one_layer_called_twice_adds_both_gradients():
    net = Net([Twice(Scale(3.0))], (4,)).bind("cpu", "float64")
    tape = net.forward(X, needs_input_grad=True)
    np.testing.assert_allclose(net.backward(tape, np.ones_like(X)), np.full_like(X, 9.0))
    np.testing.assert_allclose(net.params()["twice_1.body.weight"].grad, (2 * 3 * X).sum(axis=0))


def test_a_tape_of_another_net_is_refused():
    one, other = (Net([Linear(2)], (3,)).bind("cpu") for _ in range(2))
    tape = one.forward(np.ones((1, 3)))
    with pytest.raises(UsageError, match="the tape is of another net"):
        other.backward(tape, np.ones((1, 2)))


def test_frozen_is_changed_by_freeze_alone():
    net = Net([Linear(2)], (3,)).bind("cpu")
    with pytest.raises(AttributeError):
        net.params()["linear_1.weight"].frozen = True
    net.freeze("*")
    assert net.params()["linear_1.weight"].frozen


def test_an_initialiser_that_does_not_suit_names_the_parameter():
    net = Net([Linear(2, bias_init=init.kaiming_normal())], (3,))
    with pytest.raises(UsageError, match=r"linear_1\.bias \(2,\) cannot be initialised: .*two axes"):
        net.bind("cpu")
