"""What the gradient check accepts, what it leaves untouched, and what it reports."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from layernet.backend.device import host
from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Buffer, Param
from layernet.core.sequential import Ref, Sequential
from layernet.errors import UsageError
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.composite import AuxiliaryHead
from layernet.layers.conv import Conv2d
from layernet.layers.dropout import Dropout
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm
from layernet.layers.pool import MaxPool2d
from layernet.layers.shape import Flatten
from layernet.losses import MSE, CrossEntropy, L2Penalty, Objective
from layernet.testing import Settings, check_net, gradcheck
from layernet.testing.engine import Prober, Variable
from layernet.testing.passes import Runner
from layernet.testing.sampling import stream, tie_free


def small_net():
    """Convolution, statistics, dropout, a side head and a tied layer."""
    return Net(
        [
            Conv2d(4, 3).named("conv"),
            BatchNorm().named("norm"),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(6).named("fc1"),
            Tanh(),
            AuxiliaryHead("aux", [Linear(3)]).named("aux"),
            Dropout(0.4),
            Linear(6).named("fc2"),
            Tanh(),
            Ref("fc2"),
            Linear(3).named("head"),
        ],
        (8, 6, 2),
    )


OBJECTIVES = [
    Objective(CrossEntropy(label_smoothing=0.1)),
    Objective(CrossEntropy(), on="aux", weight=0.3),
    Objective(L2Penalty("fc2.*"), weight=0.1),
]
TARGETS = np.array([0, 2, 1])


def batch(net, n=3):
    return tie_free((n, *net.input_shape), stream("test"))


@pytest.mark.parametrize("seed", range(4))
def test_a_training_passes_layer_by_layer_and_as_a_whole(seed):
    net = small_net().bind("cpu", "float64", seed)
    report = check_net(net, OBJECTIVES, batch(net), TARGETS, seed=seed)
    assert report.ok, report
    whole = {(t.layer, t.tensor, t.mode) for t in report.tensors if t.subject == "net"}
    named = {("net", "input"), ("conv (Conv2d)", "weight"), ("norm (BatchNorm)", "bias"), ("fc2 (Linear)", "weight")}
    assert {(*place, mode) for place in named for mode in ("train", "eval")} <= whole
    assert any(t.layer.endswith("linear_1 (Linear)") and "aux" in t.layer for t in report.tensors if t.subject == "net")
    alone = {t.subject for t in report.tensors} - {"net"}
    assert {"conv (Conv2d)", "norm (BatchNorm)", "fc2 (Linear)", "aux (AuxiliaryHead)"} <= alone
    assert report.worst < 1e-6
    assert max(t.norm_error for t in report.tensors) < 1e-5
    assert min(t.cosine for t in report.tensors) > 1 - 1e-9


def test_equal_layers_are_checked_alone_once():
    net = Net([Linear(4), Tanh(), Linear(4), Tanh(), Linear(3)], (4,)).bind("cpu", "float64")
    report = check_net(net, [Objective(MSE())], batch(net), np.zeros((3, 3)))
    assert report.ok, report
    alone = [t.subject for t in report.tensors if t.subject != "net" and t.tensor == "input" and t.mode == "train"]
    assert alone == ["linear_1 (Linear)", "tanh_1 (Tanh)", "linear_3 (Linear)"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_check_leaves_a_net_as_it_was(dtype):
    net = small_net().bind("cpu", dtype, seed=3)
    before, passes = net.state_dict(), net.passes
    x = batch(net).astype(dtype)
    given = x.copy()
    report = check_net(net, OBJECTIVES, x, TARGETS)
    assert report.ok, report
    assert net.dtype == dtype
    assert net.passes == passes
    assert (x == given).all()
    after = net.state_dict()
    for path, values in before.items():
        assert after[path].dtype == values.dtype
        np.testing.assert_array_equal(after[path], values, err_msg=path)
    assert not any(param.grad.any() for param in net.params().values())


def test_a_net_without_values_gets_them():
    net = Net([Linear(3)], (4,))
    assert gradcheck(net).ok
    assert net.bound


def test_values_are_put_back_when_the_check_is_cut_short():
    class Trap(Layer):
        calls = 0

        def forward(self, x, ctx):
            Trap.calls += 1
            if Trap.calls == 20:
                raise KeyboardInterrupt
            return x * 1.0

        def backward(self, dy, ctx):
            return dy

    net = Net([Linear(3), Trap()], (4,)).bind("cpu", "float64")
    before = net.state_dict()
    with pytest.raises(KeyboardInterrupt):
        gradcheck(net)
    assert all((net.state_dict()[path] == values).all() for path, values in before.items())


def test_an_element_is_put_back_exactly():
    values = np.array([0.1, 1 / 3, 1e-9, 1e5])
    variable = Variable("layer", "x", values.copy(), np.zeros(4), lambda: 0.0)
    prober = Prober(variable, host())
    for index in range(4):
        for t in (1e-5, -0.7, 3e-7):
            prober.element(index)(t)
            assert (variable.data == values).all()
    prober.direction(np.array([1.0, -2.0, 3.0, 1 / 3]))(1e-5)
    assert (variable.data == values).all()


def test_statistics_stand_still_while_a_mode_is_checked():
    class Follows(Layer):
        """Takes its running mean off, in training too."""

        def build(self, in_shape):
            self.mean = Buffer(in_shape, init.constant(0.0))
            return in_shape

        def forward(self, x, ctx):
            ctx.update_buffer(self.mean, x.mean(axis=0), 0.5)
            ctx.save(self.mean.data.copy())
            return (x - self.mean.data) ** 3

        def backward(self, dy, ctx):
            (mean,) = ctx.saved
            seen.append(mean)
            return 3 * (x - mean) ** 2 * dy

    seen = []
    x = np.random.default_rng(0).normal(size=(3, 4))
    report = gradcheck(Follows(), x=x)
    assert report.ok, report
    assert seen[0].any()  # not where they start
    assert all((mean == seen[0]).all() for mean in seen)


def test_frozen_parameters_are_left_out():
    net = Net([Linear(4).named("a"), Tanh(), Linear(3).named("b")], (4,)).bind("cpu", "float64")
    net.freeze("a.*")
    report = gradcheck(net)
    assert report.ok, report
    assert {t.layer for t in report.tensors} == {"net", "b (Linear)"}


def test_a_layer_in_use_can_be_checked():
    layer = Linear(3).named("fc")
    net = Net([layer], (4,)).bind("cpu")
    values = layer.weight.data.copy()
    assert gradcheck(layer, (4,)).ok
    assert (layer.weight.data == values).all()
    assert net.params()["fc.weight"] is layer.weight


def test_composites_are_named_by_their_own_paths():
    report = gradcheck(Sequential([Linear(3), Tanh(), Linear(2).named("head")]), (4,))
    assert {t.layer for t in report.tensors} == {"Sequential", "linear_1 (Linear)", "head (Linear)"}


def test_a_layer_that_refers_to_another_is_checked_in_its_net_only():
    net = Net([Linear(4).named("a"), Sequential([Tanh(), Ref("a")]).named("again")], (4,)).bind("cpu", "float64")
    report = check_net(net, [Objective(MSE())], batch(net), np.zeros((3, 4)))
    assert report.ok, report
    assert len(report.notes) == 1
    assert "again" in report.notes[0]


class Lookup(Layer):
    """Rows of a table: integers in, floats out."""

    integer_input = True

    def __init__(self, rows=5):
        self.rows = rows

    def build(self, in_shape):
        self.table = Param((self.rows, 3), init.normal(1.0))
        return (*in_shape, 3)

    def forward(self, x, ctx):
        ctx.save(x)
        return self.table.data[x]

    def backward(self, dy, ctx):
        (x,) = ctx.saved
        g = ctx.xp.zeros(self.table.shape)
        np.add.at(g, x, dy)
        ctx.add_grad(self.table, g)


def test_integer_inputs_are_given_and_not_differentiated():
    x = np.array([[0, 2], [4, 4], [2, 1]])
    report = gradcheck(Lookup(), x=x)
    assert report.ok, report
    assert {t.tensor for t in report.tensors} == {"table"}
    with pytest.raises(UsageError, match="integers"):
        gradcheck(Lookup(), (2,))
    net = Net([Lookup(), Flatten(), Linear(2)], (2,)).bind("cpu", "float64")
    assert check_net(net, [Objective(MSE())], x, np.zeros((3, 2))).ok


def test_dropout_keeps_its_mask_in_training():
    (train, evaluate) = gradcheck(Dropout(0.5), (50,)).tensors
    assert train.tiny > 10  # dropped: zero on both sides
    assert evaluate.tiny == 0


def test_large_tensors_are_sampled_and_small_ones_are_not():
    by_name = {t.tensor: t for t in gradcheck(Linear(20), (30,), modes=("train",)).tensors}
    assert (by_name["weight"].elements, by_name["weight"].directions) == (64, 4)
    assert (by_name["bias"].elements, by_name["bias"].directions) == (20, 0)
    assert by_name["weight"].shape == (20, 30)


def test_running_a_part_of_a_net_is_running_the_net():
    net = small_net().bind("cpu", "float64")
    x = batch(net)
    for training in (True, False):
        runner = Runner(net, x, training)
        whole = net.forward(x, training=training, step=0, recording=False)
        for start in range(len(runner.steps)):
            part = runner.run(start)
            assert part.outputs.keys() == whole.outputs.keys()
            assert all((part.outputs[name] == y).all() for name, y in whole.outputs.items())


def test_parts_are_run_again_only_from_the_changed_parameter_on(monkeypatch):
    net = Net([Linear(4).named("a"), Tanh(), Linear(3).named("b")], (4,)).bind("cpu", "float64")
    runner = Runner(net, batch(net), True)
    calls = []
    forward = Linear.forward
    monkeypatch.setattr(Linear, "forward", lambda self, x, ctx: calls.append(self.name) or forward(self, x, ctx))
    runner.run(runner.first_use(net.params()["b.weight"]))
    assert calls == ["b"]


def test_the_report_is_text_and_plain_data():
    report = gradcheck(Linear(3), (4,))
    lines = str(report).splitlines()
    assert lines[0].split()[:5] == ["layer", "tensor", "mode", "shape", "elements"]
    assert lines[0].split()[5:] == ["dirs", "kinks", "ill", "unproven", "tiny", "worst"]
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["Linear", "input", "train", "3x4"],
        ["Linear", "weight", "train", "3x4"],
        ["Linear", "bias", "train", "3"],
    ]
    assert report.summary() == lines[-1]
    assert lines[-1].startswith("Linear: ok: 6 tensors, 54 elements")
    data = json.loads(json.dumps(report.as_dict()))
    assert data["ok"] is True
    assert len(data["tensors"]) == 6
    assert data["tensors"][0]["shape"] == [3, 4]
    assert math.isclose(data["worst"], report.worst)


def test_a_check_of_nothing_is_not_ok():
    report = gradcheck(Lookup(), x=np.array([[1]]), modes=("eval",))
    assert report.ok
    report.tensors.clear()
    assert not report.ok
    assert "nothing checked" in report.summary()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradcheck(Linear(3)), "needs the shape"),
        (lambda: gradcheck(MSE(), (3,)), "targets"),
        (lambda: gradcheck("Linear", (3,)), "takes a Layer"),
    ],
)
def test_what_is_missing_is_said(call, words):
    with pytest.raises(UsageError, match=words):
        call()


@pytest.mark.parametrize("options", [{"rtol": 0}, {"modes": ()}, {"modes": ("test",)}, {"batch": 0}])
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Settings(**options)
