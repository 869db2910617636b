"""`layernet gradcheck`: exit codes, and what it says of a layer that is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from layernet.cli.main import main

LAYERS = '''
from layernet import Layer, Param, init, sum_to

class Scale(Layer):
    def __init__(self, start: float = 1.0):
        self.start = start

    def build(self, in_shape):
        self.weight = Param(in_shape[-1:], init.constant(self.start))
        return in_shape

    def forward(self, x, ctx):
        ctx.save(x)
        return x * self.weight.data

    def backward(self, dy, ctx):
        (x,) = ctx.saved
        ctx.add_grad(self.weight, sum_to(dy * x, self.weight.shape))
        return dy * self.weight.data

class Unscaled(Scale):
    """The gradient of x leaves out the weight."""

    def backward(self, dy, ctx):
        super().backward(dy, ctx)
        return dy

class Hoarder(Scale):
    """Right gradients, and a cache on itself."""

    def forward(self, x, ctx):
        self.x = x
        return super().forward(x, ctx)
'''

CONFIG = """
data: {train: {type: FakeData, shape: [5], classes: 3}, batch_size: 4}
net: {input: [5], layers: [{type: "./mine.py:LAYER"}, {type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)


def test_a_right_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mine.py:Scale", "--shape", "4,3", "--arg", "start=0.5"]) == 0
    out = capsys.readouterr().out
    assert "contract rules asked" in out
    assert out.splitlines()[-1].startswith("Scale: ok: ")


def test_a_wrong_gradient_is_named_with_its_place_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mine.py:Unscaled", "--shape", "4,3"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"Unscaled: input\[\d, \d, \d\] \(train\): gradient: .*analytic -?[\d.]+, numeric -?[\d.]+", out)
    assert out.splitlines()[-1].startswith("Unscaled: FAILED")


def test_a_broken_promise_fails_though_every_gradient_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mine.py:Hoarder", "--shape", "3"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^Hoarder: \(contract\): self untouched: ", out, re.M)
    assert "ctx.save" in out


@pytest.mark.parametrize(("layer", "code"), [("Scale", 0), ("Unscaled", 1)])
def test_json(layer: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", f"mine.py:{layer}", "--shape", "3", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["title"] == layer
    assert found["ok"] is (code == 0)
    assert bool(found["failures"]) is (code == 1)
    assert {tensor["tensor"] for tensor in found["tensors"]} == {"input", "weight"}


@pytest.mark.parametrize(("layer", "code"), [("Scale", 0), ("Unscaled", 1)])
def test_a_config(layer: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.yaml").write_text(CONFIG.replace("LAYER", layer))
    assert main(["gradcheck", "net.yaml"]) == code
    assert ("scale_1" in capsys.readouterr().out) or code == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mine.py:Scale"], "needs --shape"),
        (["mine.py:Scale", "--shape", "4,"], "--shape must be the shape of one input example, got '4,'"),
        (["mine.py:Scale", "--shape", "a"], "for example --shape 8,8,4"),
        (["mine.py:Scale", "--shape", "4,0"], "--shape must be"),
        (["mine.py:Scale", "--shape", "4", "--arg", "stort=1"], "did you mean 'start'?"),
        (["mine.py:Scale", "--shape", "4", "--arg", "start=high"], "expected a number"),
        (
            ["mine.py:Scale", "--shape", "4", "--arg", "start"],
            "error: --arg takes name=value, got 'start'; for example start=3",
        ),
        (["mine.py:Scale", "--shape", "4", "--arg", "stort=1"], "error: --arg stort: unknown key 'stort'"),
        (["mine.py:Scale", "--shape", "4", "--arg", "start=["], "error: --arg start: cannot read the value '['"),
        (["Linear", "--shape", "4"], "error: Linear needs 'out_features'; give it with --arg out_features=VALUE"),
        (["Lineer", "--shape", "4"], "error: there is no layer called 'Lineer'; did you mean 'Linear'?"),
        (["MSE", "--shape", "4"], "error: MSE is a loss, expected a layer; `layernet layers` lists all"),
        (["qqqq", "--shape", "4"], "more: `layernet layers` lists all; one of your own is"),
        (
            ["mine.py", "--shape", "4"],
            "'mine.py' is a file, and which class in it is meant is not said; write mine.py:Class",
        ),
        (["mine.py:Scle", "--shape", "4"], "did you mean 'Scale'?"),
        (["Conv2d", "--shape", "4", "--arg", "out_channels=2", "--arg", "kernel_size=3"], "Conv2d"),
        (["mine.py:Scale", "--shape", "4", "--set", "seed=1"], "--set is for a config"),
        (["net.yaml", "--shape", "4"], "--shape and --arg are for a layer"),
    ],
)
def test_mistakes_exit_with_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.yaml").write_text(CONFIG.replace("LAYER", "Scale"))
    assert main(["gradcheck", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
