"""An exception in the checked code is a failure with its rule and its place, and the other rules still run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from layernet import CrossEntropy, Layer, Linear, Loss, Net, Objective, Param, Sequential, init, sum_to
from layernet.cli.main import main
from layernet.errors import ContractError
from layernet.layers.activation import Tanh
from layernet.losses import named
from layernet.objectives import ObjectivesPass
from layernet.testing import CheckFailed, check_layer, gradcheck
from layernet.testing.check_layer import inspect_layer
from layernet.testing.check_loss import inspect_loss
from layernet.testing.contract import RULES


class Raises(Layer):
    """The identity; raises a KeyError where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def build(self, in_shape):
        self._at("build")
        return in_shape

    def forward(self, x, ctx):
        self._at("training" if ctx.training else "evaluation")
        if self.where == "strides" and not x.flags.c_contiguous:
            x.shape = (-1,)
        return 1 * x

    def backward(self, dy, ctx):
        self._at("backward")
        if self.where == "shape":
            return dy[:, :-1]
        return 1 * dy

    def _at(self, place):
        if self.where == place:
            raise KeyError("gone")


class RaisingLoss(CrossEntropy):
    def backward(self, ctx):
        raise KeyError("gone")


HERE = r"KeyError: 'gone' \(\S*test_raised\.py:\d+\)"


@pytest.mark.parametrize("where", ["build", "training", "evaluation", "backward"])
def test_an_exception_is_one_failure(where: str) -> None:
    method = {"training": "forward", "evaluation": "forward"}.get(where, where)
    report = inspect_layer(Raises(where), (3,))
    (failure,) = report.failures
    assert re.search(rf"layer Raises: {method} failed: {HERE}; so ended \d+ more checks$", str(failure))
    assert f"{len(RULES)} contract rules asked" in str(report)
    with pytest.raises(CheckFailed):
        check_layer(Raises(where), (3,))
    report = gradcheck(Raises(where), (3,))
    assert not report.ok
    assert {failure.rule for failure in report.failures} == {"exception"}
    assert all(re.search(HERE, failure.message) for failure in report.failures)


def test_other_rules_and_modes_still_run() -> None:
    report = inspect_layer(Raises("strides"), (3,))
    assert {failure.rule for failure in report.failures} == {"strided arrays", "called twice"}
    assert {tensor.mode for tensor in report.tensors} >= {"train", "eval"}
    assert {tensor.mode for tensor in gradcheck(Raises("evaluation"), (3,)).tensors} == {"train"}


def test_a_broken_promise_seen_by_the_core_is_a_failure_too() -> None:
    report = gradcheck(Raises("shape"), (3,))
    assert {failure.rule for failure in report.failures} == {"contract"}


def test_the_layer_inside_is_named() -> None:
    report = gradcheck(Sequential([Tanh(), Raises("backward").named("inner")]), (3,))
    assert "inner (Raises): backward failed" in str(report)
    net = Net([Linear(3), Raises("training").named("here"), Linear(2)], (4,))
    assert "layer here (Raises): forward failed" in str(gradcheck(net))


def test_losses_too() -> None:
    report = gradcheck(RaisingLoss(), (3,), targets=np.array([0, 1, 2]))
    assert re.search(f"RaisingLoss.backward failed: {HERE}", str(report))


def test_a_mistake_in_layernet_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": "layernet.layers.x"}
    exec("def backward(self, dy, ctx):\n    raise ValueError('a slip of ours')\n", namespace)
    monkeypatch.setattr(Tanh, "backward", namespace["backward"])
    with pytest.raises(ValueError, match="a slip of ours"):
        gradcheck(Tanh(), (3,))


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from layernet import Layer\n\n\nclass Bad(Layer):\n    def forward(self, x, ctx):\n        return x.nothing\n"
    )
    assert main(["gradcheck", "mine.py:Bad", "--shape", "3"]) == 1
    printed = capsys.readouterr()
    assert (
        "forward failed: AttributeError: 'numpy.ndarray' object has no attribute 'nothing' (mine.py:6)" in printed.out
    )
    assert "Traceback" not in printed.out + printed.err


class Slips(Layer):
    """One mistake at a time, which every rule of the contract meets."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def build(self, in_shape):
        start = np.ones(3) if self.kind == "array" else init.constant(1.0)
        self.w = Param(in_shape[-1] if self.kind == "flat" else in_shape[-1:], start)
        return {"no shape": None, "other shape": (*in_shape, 1)}.get(self.kind, in_shape)

    def forward(self, x, ctx):
        ctx.save(x)
        if self.kind == "no data either":
            return x * (2.0 * self.w)
        return x * (self.w if self.kind == "no data" else self.w.data)

    def backward(self, dy, ctx):
        (x,) = ctx.saved
        ctx.add_grad(self.w, dy * x if self.kind == "no sum" else sum_to(dy * x, self.w.shape))
        return None if self.kind == "no return" else dy * self.w.data


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no shape", "build returned None; it must return the output shape, without N"),
        ("other shape", r"forward returned .*: for inputs \(4, 3\), build promised \(4, 3, 1\)"),
        ("no data", r"forward failed: TypeError: a Param is no array: its array is .data \(.*"),
        ("no data either", r"forward failed: TypeError: unsupported .*; a Param's array is .data \(.*"),
        ("flat", r"build failed: TypeError: a Param takes a shape, got 3; one axis is \(3,\) \(.*"),
        ("array", r"build failed: TypeError: a Param takes an initialiser, such as .*, got ndarray \(.*"),
        ("no sum", r"the gradient of Param .*: sum_to\(g, param.shape\)"),
        ("no return", r"backward returned None, expected .*, as its input"),
    ],
)
def test_a_slip_that_every_rule_meets_is_told_once(kind: str, message: str) -> None:
    (failure,) = inspect_layer(Slips(kind), (4, 3)).failures
    assert re.search(rf": layer Slips: {message}; so ended \d\d more checks$", str(failure))


class OneNumber(Loss):
    def forward(self, outputs, target, ctx):
        ctx.save(outputs - target)
        return (ctx.saved[0] ** 2).mean()

    def backward(self, ctx):
        return 2 * ctx.saved[0]


class Broadcast(OneNumber):
    def forward(self, outputs, target, ctx):
        super().forward(outputs, target, ctx)
        return (ctx.saved[0] ** 2).sum(), ctx.saved[0].size


def flat(shape, rng):
    return rng.uniform(shape[:1])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (OneNumber(), r"OneNumber.forward must return \(sum, normaliser\), two numbers, got float"),
        (
            Broadcast(),
            r"Broadcast.backward must return a gradient of the outputs' shape \(3, 1\), got one of shape \(3, 3\); "
            r"outputs \(3, 1\) and target \(3,\) broadcast: reshape one of them",
        ),
    ],
)
def test_a_loss_that_returns_something_else_is_told_once_and_named(loss: Loss, message: str) -> None:
    (failure,) = inspect_loss(loss, (1,), flat).failures
    assert re.search(rf"{message}.*; so ended \d\d more checks$", str(failure))
    net = Net([Linear(1)], (2,)).bind("cpu")
    tape = net.forward(np.ones((3, 2), "float32"), training=True)
    target = np.ones(3, "float32")
    with pytest.raises(ContractError, match=message):
        ObjectivesPass(named([Objective(loss)]), net, tape, target).gradients()
    with pytest.raises(ContractError, match=message):
        loss(tape.output, target)
