"""A class of the user's is read before it runs: methods that are missing, or that cannot be called."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import layernet as ln
from layernet.cli.main import main
from layernet.core.blame import place
from layernet.core.duties import faults
from layernet.data.dataset import InMemory
from layernet.layers.composite import Block
from layernet.testing import check_layer, check_loss, gradcheck


class NoCtx(ln.Layer):
    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


class BareBuild(ln.Layer):
    def build(self):
        return (1,)

    def forward(self, x, ctx):
        return x


class TwoArguments(ln.Loss):
    def forward(self, outputs, target):
        return outputs.sum(), 1

    def backward(self, ctx):
        return 0


class NoRow(ln.Callback):
    def on_evaluate(self, trainer):
        pass


class NoMethods(ln.Metric):
    pass


class Data(ln.Dataset):
    pass


class Loads(InMemory):
    pass


class MyBlock(Block):
    pass


class MyConv(ln.Conv2d):
    def backward(self, dy):
        return dy


class Jitter(ln.Transform):
    def __call__(self, x):
        return x


class Rule(ln.Optimizer):
    def update(self, w, g):
        w -= g


class Falling(ln.Schedule):
    def factor(self):
        return 1.0


WRONG = {
    NoCtx: ["NoCtx.forward must take (self, x, ctx), it takes (self, x)", "NoCtx.backward must take (self, dy, ctx)"],
    BareBuild: ["BareBuild.build must take (self, in_shape), it takes (self)"],
    TwoArguments: ["TwoArguments.forward must take (self, outputs, target, ctx)"],
    NoRow: ["NoRow.on_evaluate must take (self, trainer, row)"],
    NoMethods: ["NoMethods needs update, result"],
    Data: ["Data needs shape, __len__, batch"],
    Loads: ["Loads needs shape, load"],
    MyBlock: ["MyBlock needs layers"],
    MyConv: ["MyConv.backward must take (self, dy, ctx)"],
    Jitter: ["Jitter.__call__ must take (self, x, rng)"],
    Rule: ["Rule.update must take (self, w, g, state, lr, decay, t)"],
    Falling: ["Falling.factor must take (self, step)"],
}


@pytest.mark.parametrize("cls", WRONG, ids=lambda cls: cls.__name__)
def test_what_a_class_owes_is_said_with_its_line(cls: type) -> None:
    found = faults(cls)
    assert [fault[: len(wanted)] for fault, wanted in zip(found, WRONG[cls], strict=True)] == WRONG[cls]
    assert all(f"{place(__file__, None).removesuffix(':None')}:" in fault for fault in found)
    line = inspect.getsourcelines(cls)[1]
    assert 0 <= int(found[0].rpartition(":")[2].rstrip(")")) - line < 9


class Any(ln.Layer):
    def forward(self, *args):
        return args[0]


class More(ln.Layer):
    """No backward: right before the first layer that learns."""

    @staticmethod
    def helper(a):
        return a

    def forward(self, input, context, scale=1.0):
        return input


class OwnCall(ln.Schedule):
    def __call__(self, step):
        return 1.0


class Mixed(ln.Transform):
    def with_target(self, x, target, rng=None):
        return x, target


class Sized(ln.Dataset):
    def __init__(self, n: int = 3):
        self.shape = (n,)

    def __len__(self):
        return 3

    def batch(self, indices):
        return indices, indices


@pytest.mark.parametrize("cls", [Any, More, OwnCall, Mixed, Sized, ln.Linear, ln.Callback])
def test_what_can_be_called_is_left_alone(cls: type) -> None:
    assert faults(cls) == []


def test_checks_say_it_once() -> None:
    for report in (gradcheck(NoCtx(), (3,)), gradcheck(ln.Residual([NoCtx()]), (3,)), gradcheck(TwoArguments(), (3,))):
        assert not report.ok
        assert "must take" in str(report)
    with pytest.raises(AssertionError, match=r"NoCtx.forward must take \(self, x, ctx\)"):
        check_layer(NoCtx(), (3,))
    with pytest.raises(AssertionError, match=r"TwoArguments\.forward must take"):
        check_loss(TwoArguments(), (3,))


CONFIG = """
data: {train: {type: FakeData, shape: [4], classes: 3, length: 12}, batch_size: 4}
net: {input: [4], layers: [./mine.py:NoCtx, {type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
MINE = "import layernet as ln\n" + inspect.getsource(NoCtx)


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "c.yaml"],
        ["train", "c.yaml"],
        ["gradcheck", "c.yaml"],
        ["gradcheck", "mine.py:NoCtx", "--shape", "3"],
    ],
)
def test_the_command_line_refuses_it_before_anything_is_made(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CONFIG)
    Path("mine.py").write_text(MINE)
    assert main(command) == 2
    message = (
        "NoCtx.forward must take (self, x, ctx), it takes (self, x) (mine.py:3); "
        "NoCtx.backward must take (self, dy, ctx), it takes (self, dy) (mine.py:6)"
    )
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()
