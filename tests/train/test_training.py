"""Whole runs on small data: the same seed is the same bits, and an interrupted run ends as if it had not been."""

from __future__ import annotations

import csv
import gc
import io
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import layernet as ln
from layernet.cli.main import main
from layernet.errors import CheckpointError, Interrupted, NumericsError, UsageError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.rundir import RunDirectory
from layernet.train.trainer import Trainer
from tests.train.conftest import Uncut

CONFIG = """
layernet: 1
seed: 3
device: cpu
data:
  train:
    {type: FakeData, shape: [8, 8, 2], classes: 4, length: 200,
     transforms: [Normalize, {type: RandomCrop, size: 8, padding: 1}, RandomHorizontalFlip]}
  val: {fraction: 0.2}
  test: {type: FakeData, shape: [8, 8, 2], classes: 4, length: 40, seed: 1}
  batch_size: 16
net:
  input: [8, 8, 2]
  layers:
    - {type: Conv2d, out_channels: 4, kernel_size: 3, padding: 1}
    - BatchNorm
    - ReLU
    - {type: Dropout, p: 0.3}
    - Flatten
    - {type: Linear, out_features: 4}
loss: [CrossEntropy, {type: L2Penalty, weight: 1e-3}]
metrics: [accuracy]
optimizer: {type: Adam, lr: 0.01, weight_decay: 1e-4}
schedule: {type: Cosine, warmup: 1 epochs}
train: {epochs: 5, checkpoint: {every: 7 steps, best: val.accuracy}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def quiet() -> Console:
    return Console(file=io.StringIO())


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without its columns of time."""
    with open(run / "metrics.csv", newline="") as stream:
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
            for row in csv.DictReader(stream)
        ]


def files_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}


def assert_same_end(a: Path, b: Path) -> None:
    first, second = (checkpoint.load(run / "checkpoints" / "last.npz") for run in (a, b))
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)
    assert rows(a) == rows(b)


class InterruptAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def callback(experiment: Experiment, what: Callback) -> Iterator[None]:
    experiment.config.callbacks.append(what)
    yield
    experiment.config.callbacks.remove(what)


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


@pytest.mark.parametrize(
    "step", [1, 7, 10, 23, 49]
)  # in and at the end of an epoch, at a checkpoint, just before the end
def test_an_interrupted_run_resumes_to_the_same_bits(config: Path, tmp_path: Path, step: int, uncut: Uncut) -> None:
    whole = uncut(config)
    experiment = Experiment.load(config)
    handler = signal.getsignal(signal.SIGINT)
    with callback(experiment, InterruptAt(step)), pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path / "cut", console=quiet())
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    cut = tmp_path / "cut" / "small-001"
    assert checkpoint.load(cut / "checkpoints" / "last.npz").meta["step"] == step
    Experiment.resume(cut, console=quiet())
    assert_same_end(whole, cut)
    files = files_of(cut)
    Experiment.resume(cut, console=quiet())  # a finished run stays as it is
    assert_same_end(whole, cut)
    assert files_of(cut) == files


def test_an_interrupted_run_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    experiment = Experiment.load(config)
    with callback(experiment, InterruptAt(3)), pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path / "a b", console=quiet())
    run = tmp_path / "a b" / "small-001"
    assert str(caught.value) == f"interrupted by SIGINT; go on with `layernet resume '{run}'`"
    assert (run / "log.txt").read_text().endswith(f"\n{caught.value}\n")


@pytest.mark.parametrize(("step", "cure"), [(3, "go on with `layernet resume"), (8, "go on with `layernet resume")])
def test_a_second_signal_says_what_is_left(
    config: Path, tmp_path: Path, step: int, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "twice.py").write_text(
        "import layernet as ln\n\n\nclass Twice(ln.Callback):\n    def on_step(self, trainer):\n"
        f"        if trainer.step == {step}:\n            raise KeyboardInterrupt\n"
    )
    config.write_text(config.read_text() + f"callbacks: ['{tmp_path / 'twice.py'}:Twice']\n")
    assert main(["train", str(config), "--runs", str(tmp_path / "runs")]) == 130
    assert capsys.readouterr().err.startswith(f"interrupted; {cure}")


def test_a_signal_after_the_last_step_is_not_lost(config: Path, tmp_path: Path, uncut: Uncut) -> None:
    class InterruptAtTheEnd(Callback):
        def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    whole = uncut(config)
    experiment = Experiment.load(config)
    with callback(experiment, InterruptAtTheEnd()), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    cut = tmp_path / "cut" / "small-001"
    assert len(rows(cut)) == len(rows(whole)) - 1  # the test is still to come
    Experiment.resume(cut, console=quiet())
    assert_same_end(whole, cut)


@pytest.mark.parametrize("step", [7, 10])  # between two checkpoints, and at one
def test_a_run_that_a_callback_stopped_stays_stopped(config: Path, tmp_path: Path, step: int) -> None:
    class StopAt(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == step:
                trainer.stop()

    experiment = Experiment.load(config)
    with callback(experiment, StopAt()):
        run = experiment.train(tmp_path, console=quiet())
    before = rows(run)
    Experiment.resume(run, console=quiet())
    assert rows(run) == before
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == step


def test_a_run_goes_on_for_longer_as_if_it_had_been_meant_to(config: Path, tmp_path: Path, uncut: Uncut) -> None:
    constant: dict[str, Any] = {"schedule": "Constant", "data.val": {"fraction": 0.2}}
    whole = uncut(config, {**constant, "train.epochs": 4})

    class StopAt(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 15:
                trainer.stop()

    experiment = Experiment.load(config, {**constant, "train.epochs": 2})
    with callback(experiment, StopAt()):
        cut = experiment.train(tmp_path / "cut", console=quiet())
    console = Console(file=io.StringIO(), width=80)
    Experiment.resume(cut, console, {"train.epochs": 4})
    assert "train.epochs: 2 -> 4\n" in console.file.getvalue()  # type: ignore[attr-defined]
    first, second = (checkpoint.load(run / "checkpoints" / "last.npz") for run in (whole, cut))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)
    assert Experiment.open(cut).config.resolved["train"]["epochs"] == 4


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["data.batch_size=5"], "data.batch_size"),
        (["optimizer={type: SGD, lr: 0.1}"], "optimizer.type"),
        (["seed=4", "optimizer.lr=1e-3"], "seed"),
    ],
)
def test_what_a_run_cannot_change_is_refused_by_name(
    config: Path, tmp_path: Path, overrides: list[str], refused: str
) -> None:
    run = Experiment.load(config).train(tmp_path, console=quiet())
    before = (run / "resolved.yaml").read_bytes(), files_of(run)
    with pytest.raises(UsageError, match=f"{re.escape(refused)}.* cannot change when a run goes on; what can: train,"):
        Experiment.resume(run, quiet(), overrides)
    with pytest.raises(CheckpointError, match="the config trains 10 steps"):
        Experiment.resume(run, quiet(), ["train.epochs=1"])
    assert ((run / "resolved.yaml").read_bytes(), files_of(run)) == before


def test_resume_sweeps_away_what_a_killed_process_was_writing(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config).train(tmp_path, console=quiet())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    places = [run / "checkpoints" / f".last.npz.{dead.pid}.tmp", run / f".metrics.csv.{dead.pid}.tmp"]
    places.append(run / "checkpoints" / f".best.npz.{os.getpid()}.tmp")  # numbers come again, in containers soon
    for place in places:
        place.write_bytes(b"half of it")
    Experiment.resume(run, console=quiet())
    assert not any(place.exists() for place in places)


def test_a_checkpoint_is_called_as_people_call_it(config: Path, tmp_path: Path) -> None:
    run = RunDirectory.open(Experiment.load(config, {"train.checkpoint.keep": 2}).train(tmp_path, console=quiet()))
    (name, *_) = [name for name in run.checkpoints() if name.startswith("step-")]
    number = int(name.removeprefix("step-"))
    for spelt in (name, f"{name}.npz", f"step-{number}", str(number)):
        assert run.find(spelt) == run.checkpoint(name)
    assert run.find("last.npz") == run.checkpoint("last")
    with pytest.raises(UsageError, match="has no checkpoint 'lst'; did you mean 'last'"):
        run.find("lst")
    for file in (run.path / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="it ended before its first one; train again"):
        Experiment.open(run.path)


def test_after_the_first_signal_any_second_acts_as_always(config: Path, tmp_path: Path) -> None:
    class Watch(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                handlers.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    handlers = [[signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]]
    experiment = Experiment.load(config)
    with callback(experiment, Watch()), pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path, console=quiet())
    assert caught.value.exit_code == 143
    assert handlers[1] == handlers[0]


AVERAGES = ["{type: EMA, decay: 0.9}", "{type: SWA, start: 2 epochs, every: 3 steps}"]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("step", [1, 23])  # before SWA starts, and after
def test_averages_are_evaluated_and_saved_and_resume_to_the_same_bits(
    tmp_path: Path, config: Path, average: str, step: int
) -> None:
    config.write_text(config.read_text() + f"average: {average}\n")
    first = Experiment.load(config, {"train.checkpoint.best": None})
    whole = first.train(tmp_path / "whole", console=quiet())
    experiment = Experiment.load(config, {"train.checkpoint.best": None})
    with callback(experiment, InterruptAt(step)), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    resumed = Experiment.resume(tmp_path / "cut" / "small-001", console=quiet())
    assert_same_end(whole, tmp_path / "cut" / "small-001")
    # what is saved as the net is what was evaluated and tested, and is not what trained on
    saved = checkpoint.load(whole / "checkpoints" / "last.npz")
    assert any((saved.group("net")[path] != value).any() for path, value in saved.group("trained").items())
    for each in (first, resumed, Experiment.open(whole)):
        for path, value in each.net.state_dict().items():
            np.testing.assert_array_equal(value, saved.group("net")[path])
    *_, last, test = rows(whole)
    assert float(last["val.loss"]) == Experiment.open(whole).evaluate("val")["loss"]
    assert float(test["test.loss"]) == Experiment.open(whole).evaluate("test")["loss"]
    plain = Experiment.load(config, {"average": None}).train(tmp_path / "plain", console=quiet())
    for path, value in checkpoint.load(plain / "checkpoints" / "last.npz").group("net").items():
        np.testing.assert_array_equal(saved.group("trained")[path], value)  # training knows nothing of it


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


@pytest.mark.parametrize("step", [12, 23, 30])  # before a lowering, between two, at an evaluation that lowers
def test_a_plateau_lowers_and_resumes_to_the_same_bits(config: Path, tmp_path: Path, step: int, uncut: Uncut) -> None:
    # nothing is ever better by 90 %: every second evaluation after the first lowers
    schedule = {"type": "Plateau", "factor": 0.5, "patience": 1, "watch": "val.loss", "threshold": 0.9}
    overrides = {"schedule": schedule, "data.val": {"fraction": 0.2}}
    whole = uncut(config, overrides)
    assert [float(row["lr"]) for row in rows(whole)[:-1]] == [0.01, 0.01, 0.01, 0.005, 0.005]
    experiment = Experiment.load(config, overrides)
    with callback(experiment, InterruptAt(step)), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    Experiment.resume(tmp_path / "cut" / "small-001", console=quiet())
    assert_same_end(whole, tmp_path / "cut" / "small-001")


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


def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config, {"train.epochs": 1}).train(tmp_path, console=quiet())
    with pytest.raises(UsageError, match="has no checkpoint 'bst'; did you mean 'best'"):
        Experiment.open(run, "bst")
    with pytest.raises(UsageError, match=r"no data\.tset; did you mean 'test'"):
        Experiment.open(run).evaluate("tset")


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
