"""`layernet gradcheck`: exit codes, and what it says of a layer that is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from layernet.cli.main import main
from layernet.config.names import BUILT_IN
from layernet.layers.activation import Tanh
from layernet.testing import suite

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

class Gainless(Scale):
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

LOSSES = """
from layernet import Loss, Penalty

class Squares(Loss):
    def __init__(self, width: float = 1.0):
        self.width = width

    def forward(self, outputs, target, ctx):
        d = (outputs - ctx.xp.asarray(target, dtype=ctx.dtype)) / self.width
        ctx.save(d)
        return 0.5 * (d * d).sum(), len(d)

    def backward(self, ctx):
        return ctx.saved[0] / self.width

class Unscaled(Squares):
    def backward(self, ctx):
        return ctx.saved[0]

class Widens(Squares):
    def forward(self, outputs, target, ctx):
        ctx.save(outputs - target)
        return 0.5 * (ctx.saved[0] ** 2).sum(), len(target)

class Perceptron(Loss):
    def forward(self, outputs, target, ctx):
        rows, best = ctx.xp.arange(len(outputs)), outputs.argmax(axis=1)
        ctx.save(rows, target, best, outputs.shape)
        return (outputs[rows, best] - outputs[rows, target]).sum(), len(rows)

    def backward(self, ctx):
        rows, labels, best, shape = ctx.saved
        dy = ctx.xp.zeros(shape, ctx.dtype)
        dy[rows, best] += 1
        dy[rows, labels] -= 1
        return dy

class Declared(Perceptron):
    targets = "classes"

class Cubes(Penalty):
    def forward(self, params, ctx):
        return sum((abs(p.data) ** 3).sum() for p in params)

    def backward(self, params, scale, ctx):
        for p in params:
            ctx.add_grad(p, 3 * scale * p.data * abs(p.data))

class OddCubes(Cubes):
    def backward(self, params, scale, ctx):
        for p in params:
            ctx.add_grad(p, 3 * scale * p.data**2)
"""

CONFIG = """
data: {train: {type: FakeData, shape: [5], classes: 3}, batch_size: 4}
net: {input: [5], layers: [{type: "./mine.py:LAYER"}, {type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(LAYERS + LOSSES)
    monkeypatch.chdir(tmp_path)


def test_a_right_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mine.py:Scale", "--shape", "4,3", "--arg", "start=0.5"]) == 0
    out = capsys.readouterr().out
    assert "contract rules asked" in out
    assert out.splitlines()[-1].startswith("Scale: ok: ")


def test_a_wrong_gradient_is_named_with_its_place_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mine.py:Gainless", "--shape", "4,3"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"Gainless: input\[\d, \d, \d\] \(train\): gradient: .*analytic -?[\d.]+, numeric -?[\d.]+", out)
    assert out.splitlines()[-1].startswith("Gainless: FAILED")


def test_a_broken_promise_fails_though_every_gradient_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mine.py:Hoarder", "--shape", "3"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^Hoarder: \(contract\): self untouched: ", out, re.M)
    assert "ctx.save" in out


@pytest.mark.parametrize(("layer", "code"), [("Scale", 0), ("Gainless", 1)])
def test_json(layer: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", f"mine.py:{layer}", "--shape", "3", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["cases"], found["wrong"], found["ok"]) == (1, code, code == 0)
    (report,) = found["reports"]
    assert report["title"] == layer
    assert {tensor["tensor"] for tensor in report["tensors"]} == {"input", "weight"}
    for name in ("worst", "elements", "kinks", "ill_conditioned", "unproven"):
        assert found[name] == report[name]
    if code:
        wrong = next(failure for failure in report["failures"] if failure["rule"] == "gradient")
        assert (wrong["layer"], wrong["tensor"], len(wrong["index"])) == ("Gainless", "input", 2)
        assert wrong["analytic"] != wrong["numeric"][0]
        assert wrong["steps"][1] == wrong["steps"][0] / 2
        assert "one factor for each entry of the last axis" in wrong["cause"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["mine.py:Squares", "--shape", "4", "--targets", "values", "--arg", "width=2"], 0, "Squares: ok"),
        (["mine.py:Unscaled", "--shape", "4", "--targets", "values", "--arg", "width=2"], 1, "by a factor of 2"),
        (["mine.py:Widens", "--shape", "4", "--targets", "values"], 1, "make the gradient float64 in a net of float32"),
        (["mine.py:Perceptron", "--shape", "4", "--targets", "labels"], 0, "15 contract rules asked"),
        (["mine.py:Declared", "--shape", "4"], 0, "Declared: ok"),
        (["MSE"], 0, "15 contract rules asked"),
        (["mine.py:Cubes", "--arg", "params=second.*"], 0, "Cubes: ok"),
        (["mine.py:OddCubes"], 1, "points differ"),
        (["CrossEntropy", "--shape", "2,5", "--targets", "distributions"], 0, "CrossEntropy: ok"),
    ],
)
def test_a_loss_or_penalty(argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", *argv]) == code
    assert words in capsys.readouterr().out


def test_a_report_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "MSE", "--json-file", "no/where.json"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write no/where.json: No such file")


def test_built_in_by_name_with_a_row_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.yaml").write_text(CONFIG.replace("LAYER", "Scale"))
    argv = ["gradcheck", "Linear", "MSE", "L2Penalty", "net.yaml", "--json-file", "found.json"]
    assert main(argv) == 0
    out = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.out.splitlines()[:6]] == [
        "case",
        "Linear",
        "Linear (sequence, no bias)",
        "MSE",
        "L2Penalty",
        "net.yaml",
    ]
    assert "note: 2 cases: " in out.out  # the contract, of layers alone
    assert out.out.splitlines()[-1].startswith("5 cases, 0 wrong, worst relative error ")
    assert out.err == ""  # no terminal, no progress
    found = json.loads(Path("found.json").read_text())
    assert [report["title"] for report in found["reports"]] == [
        "Linear",
        "Linear (sequence, no bias)",
        "MSE",
        "L2Penalty",
        "net.yaml",
    ]


def test_all_is_every_case(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [case for case in suite.CASES if case.name in ("Tanh", "MSE")]
    assert {case.name for case in suite.CASES} == {*BUILT_IN["layer"], *BUILT_IN["loss"]}
    monkeypatch.setattr(suite, "CASES", chosen)
    monkeypatch.setattr(Tanh, "backward", lambda self, dy, ctx: 2 * dy)
    assert main(["gradcheck", "all"]) == 1
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines()[:3]] == ["seconds", "WRONG", "ok"]
    assert "Tanh: input[" in out
    assert "2 cases, 1 wrong" in out


def test_progress_is_for_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.yaml").write_text(CONFIG.replace("LAYER", "Scale"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["gradcheck", "net.yaml", "--json"]) == 0
    out = capsys.readouterr()
    lines = [line.removeprefix("\x1b[K") for line in out.err.split("\r")]
    assert [line for line in lines if line] == [
        "net.yaml",
        "layer 1 of 2, scale_1 (Scale)",
        "layer 2 of 2, linear_1 (Linear)",
        "the whole net",
    ]
    assert lines[-1] == ""
    json.loads(out.out)


@pytest.mark.parametrize(("layer", "code"), [("Scale", 0), ("Gainless", 1)])
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
        (["accuracy", "--shape", "4"], "error: accuracy is a metric, expected a layer; `layernet layers` lists all"),
        (["qqqq", "--shape", "4"], "more: `layernet layers` lists all; one of your own is"),
        (
            ["mine.py", "--shape", "4"],
            "is a file, and which class in it is meant is not said; write mine.py:Scale or mine.py:Gainless or ",
        ),
        (["mine.py:Scle", "--shape", "4"], "did you mean 'Scale'?"),
        (["Conv2d", "--shape", "4", "--arg", "out_channels=2", "--arg", "kernel_size=3"], "Conv2d"),
        (["mine.py:Scale", "--shape", "4", "--set", "seed=1"], "--set is for a config"),
        (["net.yaml", "--shape", "4"], "--shape, --arg and --targets are for a class"),
        (["all", "--arg", "a=1"], "--shape, --arg and --targets are for a class"),
        (["Tanh", "MSE", "--shape", "4"], "one by one"),
        (["SGD"], "SGD is an optimizer, which has no gradients to check; layers, losses and penalties do"),
        (["Tan"], "no built-in layer, loss or penalty called 'Tan'; did you mean 'Tanh'?"),
        (["accuracy"], "accuracy is a metric, which has no gradients to check"),
        (["qqqq"], "`layernet layers` lists them"),
        (["mine.py:Scale", "--shape", "4", "--targets", "labels"], "--targets is for a loss"),
        (["mine.py:Squares", "--targets", "values"], "a loss needs --shape"),
        (["mine.py:Perceptron", "--shape", "4"], 'or let Perceptron say targets = "classes" (labels)'),
        (["mine.py:Squares", "--shape", "4"], "one of labels, values, signs, distributions; for example"),
        (["mine.py:Squares", "--shape", "4", "--targets", "images"], "distributions, got 'images'"),
        (["mine.py:Cubes", "--shape", "4"], "a penalty takes neither --shape nor --targets"),
        (["mine.py:Squares", "--arg", "wide=2"], "did you mean 'width'?"),
    ],
)
def test_mistakes_exit_with_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.yaml").write_text(CONFIG.replace("LAYER", "Scale"))
    assert main(["gradcheck", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
