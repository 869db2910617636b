"""Callbacks: what one knows comes back with the checkpoint; the built-in ones do what they say."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from layernet.errors import ConfigError, ContractError, Interrupted, UsageError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.logs import _line
from layernet.train.stopping import EarlyStopping
from layernet.train.trainer import Trainer

CONFIG = """
seed: 3
device: cpu
data:
  train: {type: FakeData, shape: [4, 4, 1], classes: 3, length: 40}
  val: {type: FakeData, shape: [4, 4, 1], classes: 3, length: 12, seed: 1}
  batch_size: 8
net:
  input: [4, 4, 1]
  layers:
    - {type: Conv2d, name: stem, out_channels: 2, kernel_size: 3}
    - BatchNorm
    - ReLU
    - Flatten
    - {type: Linear, name: head, out_features: 3}
loss: CrossEntropy
metrics: [accuracy]
optimizer: {type: Adam, lr: 0.01}
train: {epochs: 4, checkpoint: {every: 3 steps}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def quiet() -> Console:
    return Console(file=io.StringIO())


def with_callbacks(config: Path, *callbacks: Callback, **overrides: Any) -> Experiment:
    experiment = Experiment.load(config, {key.replace("__", "."): value for key, value in overrides.items()})
    experiment.config.callbacks.extend(callbacks)
    return experiment


COUNTING = """
import layernet as ln


class Counting(ln.Callback):
    def __init__(self, word: str = "one"):
        self.word, self.seen = word, []

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"]

    def on_step(self, trainer):
        self.seen.append(f"{self.word} step {trainer.step}")

    def on_evaluate(self, trainer, row):
        self.seen.append(f"{self.word} row {row['step']}")

    def on_epoch(self, trainer):
        self.seen.append(f"{self.word} epoch {trainer.epoch:g}")


class Other(Counting):
    pass
"""


class InterruptAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Crash(Callback):
    """Ends a run as a killed process does: nothing is saved at the end."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise RuntimeError("killed")


@pytest.mark.parametrize("ending", [InterruptAt(4), InterruptAt(5), InterruptAt(15), Crash(7), Crash(16)])
def test_a_callback_goes_on_with_its_state(config: Path, tmp_path: Path, ending: Callback) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    given = ["./counting.py:Counting", "./counting.py:Other", {"type": "./counting.py:Counting", "word": "two"}]

    def states(run: Path) -> Any:
        return checkpoint.load(run / "checkpoints" / "last.npz").meta["callbacks"]

    whole = with_callbacks(config, callbacks=given).train(tmp_path / "whole", console=quiet())
    assert [entry["type"] for entry in states(whole)] == ["Counting", "Other", "Counting"]
    seen = states(whole)[2]["state"]["seen"]
    assert seen[:7] == [*(f"two step {n}" for n in range(1, 5)), "two row 5", "two step 5", "two epoch 1"]
    assert len(seen) == 20 + 4 + 4
    with pytest.raises((Interrupted, RuntimeError)):
        with_callbacks(config, ending, callbacks=given).train(tmp_path / "cut", console=quiet())
    cut = tmp_path / "cut" / "small-001"
    Experiment.resume(cut, console=quiet())
    assert states(cut) == states(whole)


def test_state_that_is_not_plain_data_is_refused_by_name(config: Path, tmp_path: Path) -> None:
    class Odd(Callback):
        def state(self) -> dict[str, Any]:
            return {"when": {1, 2}}

    with pytest.raises(ContractError, match=r"Odd\.state\(\) is not plain data: Object of type set"):
        with_callbacks(config, Odd()).train(tmp_path, console=quiet())


def test_a_callback_that_fails_at_the_end_keeps_no_other_from_being_told(config: Path, tmp_path: Path) -> None:
    class Fails(Callback):
        def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
            raise RuntimeError("at the end")

    with pytest.raises(RuntimeError, match="at the end"):
        with_callbacks(config, Fails(), train__checkpoint__every="9 epochs").train(tmp_path, console=quiet())
    assert checkpoint.load(tmp_path / "small-001" / "checkpoints" / "last.npz").meta["step"] == 20


# what is built in


def keras_stops_at(values: list[float], patience: int, min_delta: float, mode: str) -> int | None:
    """The evaluation after which Keras' EarlyStopping (3.x, on_epoch_end) stops, counted from 0."""
    best, wait = (math.inf if mode == "min" else -math.inf), 0
    for number, value in enumerate(values):
        wait += 1
        better = value + min_delta < best if mode == "min" else value - min_delta > best
        if better:
            best, wait = value, 0
        elif wait >= patience and number > 0:
            return number
    return None


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan]), min_size=1, max_size=12),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from(["min", "max"]),
    st.integers(0, 12),
)
@settings(deadline=None)
def test_early_stopping_is_keras_s(values: list[float], patience: int, min_delta: float, mode: Any, cut: int) -> None:
    stopping = EarlyStopping(patience, min_delta, "val.loss", mode)
    rows = [{"step": number, "val.loss": value} for number, value in enumerate(values)]
    stopped: list[int] = []
    trainer = cast(Trainer, SimpleNamespace(history=[], say=lambda line: None, stop=lambda: stopped.append(1)))
    stopping.on_start(trainer)
    found = None
    for number, row in enumerate(rows):
        if number == cut:  # as a resumed run begins
            stopping = stopping.clone()
            trainer.history[:] = rows[:number]
            stopping.on_start(trainer)
            assert not stopped
        stopping.on_evaluate(trainer, row)
        if stopped:
            found = number
            break
    assert found == keras_stops_at(values, patience, min_delta, mode)


def test_a_run_that_stops_early_says_so_and_stays_stopped(config: Path, tmp_path: Path) -> None:
    stopping = {"type": "EarlyStopping", "patience": 2, "min_delta": 1e3}
    experiment = Experiment.load(config, {"callbacks": [stopping], "train.checkpoint.best": "val.loss"})
    assert experiment.config.resolved["callbacks"][0] == {**stopping, "watch": "val.loss", "mode": "min"}
    run = experiment.train(tmp_path, console=quiet())
    log = (run / "log.txt").read_text()
    assert "stopped: val.loss has not got better for 2 evaluations (best " in log
    assert " at step 5)" in log
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 15
    Experiment.resume(run, console=quiet())
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 15
    Experiment.resume(run, quiet(), [f"callbacks={[{**stopping, 'patience': 9}]}"])
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("EarlyStoping", r"callbacks.0: there is no callback called 'EarlyStoping'; did you mean 'EarlyStopping'"),
        ({"type": "EarlyStopping", "patience": 0}, r"callbacks\.0\.patience: patience must be at least 1, got 0"),
        ({"type": "EarlyStopping", "watch": "val.los"}, r"callbacks\.0\.watch: .*did you mean 'val.loss'"),
        (
            {"type": "Freeze", "params": "stme.*", "until": "1 epochs"},
            r"callbacks\.0\.params: .*did you mean 'stem.\*'",
        ),
        ({"type": "Freeze", "params": "stem.*"}, r"start or until must be given"),
    ],
)
def test_mistakes_are_answered_in_the_config(config: Path, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment.load(config, {"callbacks": [given]})


def weights_by_step(config: Path, tmp_path: Path, callbacks: list[Any]) -> list[dict[str, Any]]:
    seen = []

    class Watch(Callback):
        def on_step(self, trainer: Trainer) -> None:
            seen.append(trainer.net.state_dict())

    with_callbacks(config, Watch(), callbacks=callbacks).train(tmp_path, console=quiet())
    return seen


def test_what_is_frozen_for_a_while_learns_at_all_other_times(config: Path, tmp_path: Path) -> None:
    given = [
        {"type": "Freeze", "params": "stem.*", "until": "6 steps"},
        {"type": "Freeze", "params": "batchnorm_1.*", "start": "1 epochs", "until": "9 steps"},
        {"type": "Freeze", "params": "head.*", "start": "2 epochs"},
    ]
    weights = weights_by_step(config, tmp_path, given)
    frozen = {
        path: [
            step
            for step in range(1, 20)  # update number `step` takes weights[step - 1] to weights[step]
            if np.array_equal(weights[step - 1][path], weights[step][path])
        ]
        for path in ("stem.weight", "batchnorm_1.weight", "batchnorm_1.running_mean", "head.weight")
    }
    assert frozen == {
        "stem.weight": [1, 2, 3, 4, 5],
        "batchnorm_1.weight": [5, 6, 7, 8],
        "batchnorm_1.running_mean": [5, 6, 7, 8],
        "head.weight": list(range(10, 20)),
    }


def test_a_parameter_is_frozen_by_one_schedule(config: Path, tmp_path: Path) -> None:
    freeze = {"type": "Freeze", "params": "stem.*", "until": "6 steps"}
    both = [freeze, {**freeze, "params": "*.weight"}]
    with pytest.raises(UsageError, match=r"both freeze stem.weight; let each parameter match one of them"):
        Experiment.load(config, {"callbacks": both}).train(tmp_path, console=quiet())
    groups = {"callbacks": [freeze], "optimizer.groups": {"stem.bias": {"frozen": True}}}
    with pytest.raises(UsageError, match=r"optimizer.groups 'stem.bias' both freeze stem.bias"):
        Experiment.load(config, groups).train(tmp_path, console=quiet())


def rows_of(run: Path) -> list[dict[str, Any]]:
    with open(run / "metrics.csv", newline="") as stream:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]


def test_json_lines_are_the_rows_also_of_a_run_that_was_killed(config: Path, tmp_path: Path) -> None:
    test = {"type": "FakeData", "shape": [4, 4, 1], "classes": 3, "length": 12, "seed": 2}
    overrides = {"callbacks": ["JSONLines"], "train__checkpoint__every": "9 steps", "data__test": test}
    with pytest.raises(RuntimeError, match="killed"):
        with_callbacks(config, Crash(16), **overrides).train(tmp_path, console=quiet())
    run = tmp_path / "small-001"
    assert [row["step"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())] == [5, 10, 15]
    Experiment.resume(run, console=quiet())  # from step 9
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == rows_of(run)
    assert [row["step"] for row in lines[:-1]] == [5, 10, 15, 20]
    assert "test.loss" in lines[-1]


def test_a_value_that_is_not_finite_is_null() -> None:
    assert json.loads(_line({"step": 1, "a": math.nan, "b": np.float32(0.5), "c": None})) == {
        "step": 1,
        "a": None,
        "b": 0.5,
        "c": None,
    }


def test_tensorboard_gets_every_number(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    told: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, **how: Any) -> None:
            made.append(how)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=SummaryWriter))
    with pytest.raises(RuntimeError, match="killed"):
        with_callbacks(config, Crash(7), callbacks=["TensorBoard"]).train(tmp_path, console=quiet())
    run = tmp_path / "small-001"
    Experiment.resume(run, console=quiet())
    assert made == [
        {"logdir": str(run / "tensorboard"), "purge_step": None, "filename_suffix": ".0"},
        {"logdir": str(run / "tensorboard"), "purge_step": 7, "filename_suffix": ".6"},
    ]
    assert [step for name, _, step in told if name == "val/accuracy"] == [5, 10, 15, 20]
    assert {name for name, _, _ in told} >= {"lr", "train/loss", "val/loss"}


def test_tensorboard_that_is_not_installed_is_said_before_there_is_a_run(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match="pip install tensorboardX"):
        Experiment.load(config, {"callbacks": ["TensorBoard"]}).train(tmp_path / "runs", console=quiet())
    assert not (tmp_path / "runs").exists()


def test_the_real_tensorboardx_keeps_the_files_of_a_second_apart(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    test = {"type": "FakeData", "shape": [4, 4, 1], "classes": 3, "length": 12, "seed": 2}
    run = with_callbacks(config, callbacks=["TensorBoard"], data__test=test).train(tmp_path, console=quiet())
    files = {path.suffix: path.stat().st_size for path in (run / "tensorboard").iterdir()}
    assert files.keys() == {".0", ".test"}
    assert files[".0"] > files[".test"] > 0
