"""What is not finite ends a run within one step, and is traced to where it came from; or its update is left out."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from layernet.errors import NumericsError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.numerics import PATIENCE, is_finite
from layernet.train.recorder import is_best
from layernet.train.trainer import Trainer

CONFIG = """
layernet: 1
seed: 3
device: cpu
kernels: numpy
plan: {plan}
data:
  train: {{type: "./mine.py:Data", bad: {bad}}}
  val: {{type: FakeData, shape: [4, 4, 2], classes: 3, length: 20, seed: 1}}
  batch_size: 6
  shuffle: false
net:
  input: [4, 4, 2]
  layers:
    [{{type: Conv2d, out_channels: 4, kernel_size: 3, name: conv}}, ReLU, {layer}, Flatten,
     {{type: Linear, out_features: 3, name: head}}]
loss: {loss}
optimizer: {{type: SGD, lr: 0.01, momentum: 0.9}}
train: {{epochs: 2, checkpoint: {{every: 1 steps}}}}
"""

MINE = """
import numpy as np
import layernet as ln

NUMBER = 0


class Data(ln.FakeData):
    def __init__(self, bad: int | None = None) -> None:
        super().__init__(shape=[4, 4, 2], classes=3, length=60)
        self.bad = bad

    def batch(self, indices):
        x, target = super().batch(indices)
        x = x.astype("float32") / 255
        if self.bad is not None:
            x[indices == self.bad, 1] = np.nan
        return x, target


class Forward(ln.Layer):
    "Gives an infinity in the fourth step."

    def forward(self, x, ctx):
        return x * np.float32(np.inf) if ctx.training and ctx.tape.step == 3 else x

    def backward(self, dy, ctx):
        return dy


class Backward(ln.Layer):
    "A wrong gradient, in the steps from the fourth on."
    until = 4

    def forward(self, x, ctx):
        ctx.save(ctx.tape.step)
        return x

    def backward(self, dy, ctx):
        (step,) = ctx.saved
        return dy * np.float32(np.nan) if 3 <= step < self.until else dy


class Always(Backward):
    until = 10**9


class Loss(ln.CrossEntropy):
    def forward(self, outputs, target, ctx):
        value, count = super().forward(outputs, target, ctx)
        return (value * np.nan if ctx.tape.step == 3 else value), count
"""


def experiment(folder: Path, overrides: dict[str, Any] | None = None, **given: Any) -> Experiment:
    (folder / "mine.py").write_text(MINE)
    choices = {"plan": "on", "bad": "null", "layer": "ReLU", "loss": "CrossEntropy", **given}
    (folder / "small.yaml").write_text(CONFIG.format(**choices))
    return Experiment.load(folder / "small.yaml", overrides or {})


def quiet() -> Console:
    return Console(file=io.StringIO(), width=300)


@pytest.mark.parametrize(("plan", "accumulate"), [("on", 1), ("off", 1), ("on", 2)])
@pytest.mark.parametrize(
    ("given", "what", "where"),
    [
        ({"bad": 20}, "the loss is nan", "the input of example 20 of the training set is not finite"),
        (
            {"layer": "./mine.py:Forward"},
            "the loss is nan",
            "layer forward_1 (Forward) is the first whose output is not finite",
        ),
        (
            {"layer": "./mine.py:Backward"},
            "the gradient is not finite",
            "layer backward_1 (Backward) is the first on the way back whose gradient is not finite: that of its input",
        ),
        ({"loss": "./mine.py:Loss"}, "the loss is nan", "all outputs are finite, the objective loss is nan"),
    ],
)
def test_it_stops_in_the_step_and_names_the_place(
    tmp_path: Path, plan: str, accumulate: int, given: dict[str, Any], what: str, where: str
) -> None:
    trained = experiment(tmp_path, {"train.accumulate": accumulate}, plan=plan, **given)
    with pytest.raises(NumericsError) as caught:
        trained.train(tmp_path / "runs", console=quiet())
    step = 3 // accumulate if "bad" in given else 3
    assert str(caught.value).startswith(f"{what} at step {step} (epoch {step * accumulate / 10:.2f}): {where}; ")
    (last,) = tmp_path.glob("runs/*/checkpoints/last.npz")
    saved = checkpoint.load(last)
    assert saved.meta["step"] == step
    assert all(np.isfinite(array).all() for array in saved.arrays.values())
    for layer in trained.net.layers:
        assert not {"forward", "backward"} & vars(layer).keys()


def test_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    class Overflow(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 4:
                trainer.net.params()["head.bias"].data[1] = np.inf

    what = experiment(tmp_path)
    what.config.callbacks.append(Overflow())
    with pytest.raises(NumericsError, match=r"^head\.bias is not finite after step 3; nothing of it was saved"):
        what.train(tmp_path / "runs", console=quiet())
    (last,) = tmp_path.glob("runs/*/checkpoints/last.npz")
    assert checkpoint.load(last).meta["step"] == 3


def test_what_is_there_since_an_earlier_update_is_named(tmp_path: Path) -> None:
    what = experiment(tmp_path)
    what.net.params()["head.bias"].data[1] = np.nan
    trainer = Trainer(what.config, what.net, what.loaders)
    with pytest.raises(NumericsError, match=r"head\.bias is not finite, since an earlier update"):
        trainer.fit()


@pytest.mark.parametrize("fault", [{"bad": 20}, {"layer": "./mine.py:Backward"}, {"loss": "./mine.py:Loss"}])
def test_skip_leaves_the_update_out_and_counts_it(tmp_path: Path, fault: dict[str, Any]) -> None:
    states: dict[int, dict[str, Any]] = {}

    class Watch(Callback):
        def on_step(self, trainer: Trainer) -> None:
            states[trainer.step] = {**trainer.net.state_dict(), **trainer.optimizer.state_dict()}

    what, console = experiment(tmp_path, {"train.on_nonfinite": "skip"}, **fault), quiet()
    what.config.callbacks.append(Watch())
    run = what.train(tmp_path / "runs", console=console)
    for name, value in states[3].items():
        if name != "step":
            np.testing.assert_array_equal(value, states[4][name], err_msg=name)
    assert any((value != states[5][name]).any() for name, value in states[4].items())
    skipped = 2 if "bad" in fault else 1  # the example comes in every epoch
    assert "step 3 (epoch 0.30): " in console.file.getvalue()  # type: ignore[attr-defined]
    assert console.file.getvalue().count("\nskipped: ") == skipped  # type: ignore[attr-defined]
    history = checkpoint.load(run / "checkpoints" / "last.npz").meta["history"]
    assert [row["skipped"] for row in history] == [1, skipped]
    assert all(math.isfinite(row["train.loss"]) for row in history)


def test_skipping_ends_when_it_does_not_pass(tmp_path: Path) -> None:
    what = experiment(tmp_path, {"train.on_nonfinite": "skip", "train.epochs": 9}, layer="./mine.py:Always")
    with pytest.raises(NumericsError, match=f"at step 3 .* {PATIENCE} steps in a row were skipped"):
        what.train(tmp_path / "runs", console=quiet())
    (last,) = tmp_path.glob("runs/*/checkpoints/last.npz")
    assert all(np.isfinite(array).all() for array in checkpoint.load(last).arrays.values())


def test_nan_is_never_best() -> None:
    rows = [{"val.loss": value} for value in (math.nan, 2.0, math.nan, 3.0, 1.0)]
    assert [is_best("val.loss", rows[: n + 1], lower=True) for n in range(5)] == [False, True, False, False, True]
    assert [is_best("val.loss", rows[: n + 1], lower=False) for n in range(5)] == [False, True, False, True, False]
    assert not is_best("val.loss", [{"val.loss": math.nan}], lower=False)


@pytest.mark.filterwarnings("ignore:overflow")
def test_finite_is_what_numpy_calls_finite() -> None:
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-40, 3e38):  # squares of the last overflow
        values = (rng.uniform(-1, 1, size=1000) * scale).astype("float32")
        assert is_finite(values)
        for bad in (np.nan, np.inf, -np.inf):
            worse = values.copy()
            worse[rng.integers(1000)] = bad
            assert not is_finite(worse)
    assert is_finite(np.zeros(0, dtype="float32"))
