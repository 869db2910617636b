"""A small experiment, and what its runs leave behind."""

from __future__ import annotations

import csv
import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.trainer import Trainer

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


def written(folder: Path) -> Path:
    """The experiment as a file in this folder."""
    path = folder / "small.yaml"
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


@contextmanager
def callback(experiment: Experiment, what: Callback) -> Iterator[None]:
    experiment.config.callbacks.append(what)
    yield
    experiment.config.callbacks.remove(what)


class InterruptAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
