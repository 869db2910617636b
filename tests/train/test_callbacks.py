"""Callbacks: what one knows comes back with the checkpoint; the built-in ones do what they say."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from layernet.errors import ContractError, Interrupted
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
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
