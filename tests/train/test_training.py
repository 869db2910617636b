"""Whole runs on small data: the same seed is the same bits, and what training does, says and measures."""

from __future__ import annotations

import gc
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import layernet as ln
from layernet.errors import CheckpointError, NumericsError, UsageError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.rundir import RunDirectory
from layernet.train.trainer import Trainer
from tests.train.small import assert_same_end, callback, quiet, rows, written


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path)


def test_the_same_seed_is_the_same_bits_with_and_without_prefetch(config: Path, tmp_path: Path) -> None:
    long = {"train.epochs": 10}  # 100 steps
    a, b, c = (
        Experiment.load(config, overrides).train(tmp_path / name, console=quiet())
        for name, overrides in [("a", long), ("b", long), ("c", {"data.prefetch": False, **long})]
    )
    assert_same_end(a, b)
    assert_same_end(a, c)
    other = Experiment.load(config, {"seed": 4}).train(tmp_path / "d", console=quiet())
    assert rows(a) != rows(other)


def test_metrics_and_evaluation_agree(config: Path, tmp_path: Path) -> None:
    experiment = Experiment.load(config)
    run = experiment.train(tmp_path, console=quiet())
    table = rows(run)
    assert [row["epoch"] for row in table[:-1]] == ["1.0", "2.0", "3.0", "4.0", "5.0"]
    assert all(float(row["train.loss"]) > 0 and row["val.accuracy"] for row in table[:-1])
    assert {"train.cross_entropy", "train.l2_penalty"} <= table[0].keys()
    assert float(table[4]["train.loss"]) < float(table[0]["train.loss"])
    best = Experiment.open(run)
    assert best.evaluate("test")["accuracy"] == float(table[-1]["test.accuracy"]) == experiment.evaluate()["accuracy"]
    top = max(float(row["val.accuracy"]) for row in table[:-1])
    assert best.evaluate("val")["accuracy"] == pytest.approx(top)
    last = Experiment.open(run, "last").evaluate("val")
    assert last["accuracy"] == pytest.approx(float(table[4]["val.accuracy"]))
    assert last["loss"] == pytest.approx(float(table[4]["val.loss"]))


def test_an_evaluation_asks_a_penalty_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    forward = ln.L2Penalty.forward

    def counted(self: ln.L2Penalty, params: Any, ctx: ln.Context) -> Any:
        asked.append(ctx.training)
        return forward(self, params, ctx)

    monkeypatch.setattr(ln.L2Penalty, "forward", counted)
    experiment = Experiment.load(config)
    found = experiment.evaluate("train")  # 10 batches
    weights = [v for path, v in experiment.net.state_dict().items() if path.endswith(".weight")]
    squares = sum(float((value.astype("float64") ** 2).sum()) for value in weights)
    assert found["l2_penalty"] == pytest.approx(0.5 * squares, rel=1e-6)
    assert found["loss"] == pytest.approx(found["cross_entropy"] + 1e-3 * found["l2_penalty"])
    assert asked == [False]


def test_a_loss_that_is_not_finite_stops_the_run(config: Path, tmp_path: Path) -> None:
    overrides: dict[str, Any] = {"optimizer": {"type": "SGD", "lr": 1e30}, "schedule.warmup": None}
    with pytest.raises(NumericsError, match="at step"):
        Experiment.load(config, overrides).train(tmp_path, console=quiet())


def test_a_loss_that_is_not_finite_may_be_that_of_ones_own_layer(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import layernet as ln\n\n\nclass Mine(ln.CrossEntropy):\n    def forward(self, outputs, target, ctx):\n"
        "        return super().forward(outputs, target, ctx)[0] * float('nan'), 1\n"
    )
    overrides: dict[str, Any] = {"loss": f"{tmp_path / 'mine.py'}:Mine"}
    with pytest.raises(NumericsError, match=r"or a gradient is wrong: `layernet gradcheck` checks Mine$"):
        Experiment.load(config, overrides).train(tmp_path, console=quiet())


def test_evaluating_a_net_that_diverged_warns_of_nothing(config: Path) -> None:
    experiment = Experiment.load(config)
    for param in experiment.net.params().values():
        param.data[...] = 3e38
    assert not np.isfinite(experiment.evaluate("val")["loss"])


def test_what_a_run_says(config: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    run = Experiment.load(config, {"train.log_every": "4 steps"}).train(tmp_path, "a:x:b", console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == (run / "log.txt").read_text().splitlines()
    assert str(run) in lines[0]
    assert lines[-1].startswith("done: test.loss")
    assert lines[-1].endswith(f"  run {run}")
    assert not any("\r" in line or "\x1b" in line for line in lines)
    assert any("train.accuracy" in line and "images/s" in line and "eta" in line for line in lines)


def test_callbacks_come_in_order(config: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    class Watch(Callback):
        def on_start(self, trainer: Trainer) -> None:
            seen.append("start")

        def on_step(self, trainer: Trainer) -> None:
            seen.append("step")

        def on_evaluate(self, trainer: Trainer, row: dict[str, Any]) -> None:
            seen.append("evaluate")

        def on_epoch(self, trainer: Trainer) -> None:
            seen.append("epoch")
            if trainer.epoch >= 2:
                trainer.stop()

        def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
            seen.append(f"stop {error}")

    experiment = Experiment.load(config)
    with callback(experiment, Watch()):
        experiment.train(tmp_path, console=quiet())
    steps = 10  # 160 examples in batches of 16
    epoch = ["step"] * (steps - 1) + ["evaluate", "step", "epoch"]
    assert seen == ["start", *epoch, *epoch, "stop None"]


def test_the_public_name_loads_an_experiment(config: Path) -> None:
    experiment = ln.load(config, overrides={"train.epochs": 2})
    assert experiment.config.train.epochs == 2
    assert experiment.net.bind("cpu").device.name == "cpu"


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.stop()


@pytest.mark.parametrize("step", [3, 7, 10])  # before the first evaluation, at a checkpoint, at an evaluation
def test_a_run_that_a_callback_stops_ends_like_any_other(config: Path, tmp_path: Path, step: int) -> None:
    experiment = Experiment.load(config, {"data.test": None})
    with callback(experiment, StopAt(step)):
        run = experiment.train(tmp_path, console=quiet())
    whole = Experiment.load(
        config, {"data.test": None, "train.steps": step, "train.epochs": None, "schedule": "Cosine"}
    )
    table = rows(run)
    assert [row["step"] for row in table] == [str(step)]
    assert table[0]["val.accuracy"]
    assert rows(whole.train(tmp_path, console=quiet()))[0].keys() == table[0].keys()
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["history"][-1]["step"] == step


@pytest.mark.parametrize("key", ["train.eval_every", "train.checkpoint.every", "train.log_every"])
def test_a_tenth_of_a_short_epoch_is_a_step(config: Path, tmp_path: Path, key: str) -> None:
    run = Experiment.load(config, {key: "0.01 epochs", "train.epochs": 1}).train(tmp_path, console=quiet())
    assert len(rows(run)) == (11 if key == "train.eval_every" else 2)  # and the row of the test set


def test_an_experiment_trains_once(config: Path, tmp_path: Path) -> None:
    experiment = Experiment.load(config, {"train.epochs": 1})
    run = experiment.train(tmp_path, console=quiet())
    for used in (experiment, Experiment.open(run)):
        with pytest.raises(UsageError, match="load its config anew"):
            used.train(tmp_path, console=quiet())
    assert len(list(tmp_path.glob("small-*"))) == 1


def test_a_metric_may_return_numbers_of_numpy(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(
        b"# -*- coding: latin-1 -*-\n# M\xfcller\nimport numpy as np\nfrom layernet import Metric\n\n\n"
        b"class mine(Metric):\n    sums = ('n',)\n\n    def update(self, outputs, target):\n"
        b"        self.add(n=len(outputs))\n\n"
        b"    def result(self):\n        return {'half': np.float32(self.total('n') / 2)}\n"
    )
    overrides = {"metrics": ["./mine.py:mine"], "train.epochs": 1, "train.checkpoint.best": "val.half"}
    run = Experiment.load(config, overrides).train(tmp_path, console=quiet())
    assert rows(run)[0]["train.half"] == "80.0"
    assert (run / "mine.py").read_bytes() == (tmp_path / "mine.py").read_bytes()
    assert Experiment.open(run).evaluate("val")["half"] == 20


def test_the_bar_is_gone_when_the_last_save_fails(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise CheckpointError("disk full")

    monkeypatch.setattr(RunDirectory, "save_last", full)
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=100)
    with pytest.raises(CheckpointError, match="disk full"):
        Experiment.load(config, {"train.checkpoint.every": "9 epochs"}).train(tmp_path, console=console)
    shown = terminal.getvalue()
    assert "epoch 5.0/5" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") > 0  # the cursor, hidden by the bar, is back


def test_memory_is_flat_over_any_number_of_steps(config: Path, tmp_path: Path) -> None:
    held: list[int] = []

    class Weigh(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step in (15, 115):  # the last evaluation, at 120, makes caches of its own
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])

    experiment = Experiment.load(config, {"train.epochs": 12, "train.eval_every": "12 epochs"})
    tracemalloc.start()
    try:
        with callback(experiment, Weigh()):
            experiment.train(tmp_path, console=quiet())
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 100 * 200  # less than any array a step, were it the smallest
