"""What a mistake in the user's own code looks like on the command line: one message that says where."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest

from layernet.cli.main import main
from layernet.core.blame import blame
from layernet.layers.linear import Linear
from layernet.train.experiment import Experiment

CONFIG = """
device: cpu
data:
  train: {type: TRAIN, shape: [4], classes: 3, length: 12TRANSFORMS}
  test: {type: FakeData, shape: [4], classes: 3, length: 12}
  batch_size: 4
net:
  input: [4]
  layers: [{type: Linear, name: first, out_features: 4}LAYER, {type: Linear, out_features: 3}]
loss: LOSS
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
MINE = """
import layernet as ln
import json


class Bad(ln.Layer):
    def __init__(self, where: str = "none"):
        self.where = where

    def forward(self, x, ctx):
        ctx.save(ctx.training)
        if self.where == ("forward" if ctx.training else "eval"):
            raise KeyError("gone")
        return helped(self, x)

    def backward(self, dy, ctx):
        if self.where == "backward":
            return dy @ dy[1:]
        return dy


def helped(layer, x):
    if layer.where == "json":
        json.loads("{")
    return x


class BadLoss(ln.CrossEntropy):
    def backward(self, ctx):
        raise OSError("a disk is full")


class BadData(ln.FakeData):
    def batch(self, indices):
        return [][indices[0]]


class BadTransform(ln.Transform):
    def __call__(self, x, rng):
        raise ZeroDivisionError


class BadCallback(ln.Callback):
    def on_step(self, trainer):
        assert trainer.step < 2, "two lines\\nof text"
"""
LAYER = "layer nest.bad_1 (Bad): "


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(MINE.splitlines(), 1) if text in line)


def configure(folder: Path, **places: str) -> None:
    words = {"TRAIN": "FakeData", "TRANSFORMS": "", "LAYER": "", "LOSS": "CrossEntropy"} | places
    text = CONFIG
    for name, value in words.items():
        text = text.replace(name, value)
    (folder / "c.yaml").write_text(text)
    (folder / "mine.py").write_text(MINE)


def nested(where: str) -> dict[str, str]:
    inner = f"{{type: ./mine.py:Bad, where: {where}}}"
    return {"LAYER": f", {{type: Residual, name: nest, body: [{inner}]}}"}


@pytest.mark.parametrize(
    ("places", "message", "line"),
    [
        (nested("forward"), LAYER + "forward failed: KeyError: 'gone'", 'KeyError("gone")'),
        (nested("backward"), LAYER + "backward failed: ValueError: matmul", "dy @ dy"),
        (nested("json"), LAYER + "forward failed: JSONDecodeError: Expecting property name", "json.loads"),
        ({"LOSS": "./mine.py:BadLoss"}, "BadLoss.backward failed: OSError: a disk is full", "a disk is full"),
        (
            {"TRANSFORMS": ", transforms: [./mine.py:BadTransform]"},
            "BadTransform.__call__ failed: ZeroDivisionError (",
            "raise ZeroDivisionError",
        ),
        ({"TRAIN": "./mine.py:BadData"}, "BadData.batch failed: IndexError", "[][indices[0]]"),
        (
            {"LOSS": "CrossEntropy\ncallbacks: [./mine.py:BadCallback]"},
            "BadCallback.on_step failed: AssertionError: two lines",
            "assert trainer.step",
        ),
    ],
)
def test_train_says_which_part_failed_and_where(
    places: dict[str, str],
    message: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, **places)
    assert main(["train", "c.yaml"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert f"(mine.py:{line_of(line)})" in err
    assert err.endswith("; the traceback is in runs/c-001/log.txt\n")
    assert "Traceback" not in err
    log = Path("runs/c-001/log.txt").read_text()
    assert message in log
    assert "Traceback (most recent call last)" in log
    assert line in log


def test_eval_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, **nested("none"))
    assert main(["train", "c.yaml"]) == 0
    Path("runs/c-001/mine.py").write_text(MINE.replace("self.where = where", "self.where = 'eval'"))
    capsys.readouterr()
    assert main(["eval", "runs/c-001"]) == 1
    place = f"(runs/c-001/mine.py:{line_of('KeyError')})"
    hint = "--debug shows the traceback"
    assert capsys.readouterr().err == f"error: {LAYER}forward failed: KeyError: 'gone' {place}; {hint}\n"
    with pytest.raises(KeyError):
        main(["eval", "runs/c-001", "--debug"])


def test_a_mistake_in_layernet_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's was running: that must be seen whole, on the screen and in the log."""
    monkeypatch.chdir(tmp_path)
    configure(tmp_path)
    code = compile(
        "def forward(self, x, ctx):\n    raise ValueError('a slip of ours')\n", "layernet/layers/x.py", "exec"
    )
    namespace = {"__name__": "layernet.layers.x"}
    exec(code, namespace)
    monkeypatch.setattr(Linear, "forward", namespace["forward"])
    with pytest.raises(ValueError, match="a slip of ours"):
        main(["train", "c.yaml"])
    assert re.search(r"(?s)Traceback.*layers/x.py.*a slip of ours", Path("runs/c-001/log.txt").read_text())


def test_in_python_the_exception_is_the_users_own(tmp_path: Path) -> None:
    configure(tmp_path, **nested("forward"))
    with pytest.raises(KeyError) as caught:
        Experiment.load(tmp_path / "c.yaml").train(tmp_path)
    assert "log.txt" in "".join(traceback.format_exception(caught.value))
    assert blame(caught.value) is not None


def test_what_layernet_refused_is_named_with_the_line_that_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, **nested("none"))
    Path("mine.py").write_text(MINE.replace("return helped(self, x)", "return ctx.rng.keep_mask(x.shape, 2.0)"))
    assert main(["train", "c.yaml"]) == 1
    place = rf"\(mine.py:{line_of('return helped')}, from {'.*'}backend/random.py:\d+\)"
    assert re.search(
        rf"forward failed: ValueError: keep must be a probability, got 2.0 {place}", capsys.readouterr().err
    )
