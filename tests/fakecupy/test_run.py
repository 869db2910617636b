"""A whole run of a config on the stand-in, in the place of a GPU."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from layernet.backend.device import host
from layernet.train.experiment import Experiment
from tests import fakecupy
from tests.fakecupy.device import fake_device

CONFIG = """
layernet: 1
seed: 3
dtype: float64
data:
  train:
    {type: FakeData, shape: [8, 8, 2], classes: 4, length: 48,
     transforms: [Normalize, {type: RandomCrop, size: 8, padding: 1}, RandomHorizontalFlip]}
  val: {fraction: 0.25}
  batch_size: 16
net:
  input: [8, 8, 2]
  layers:
    - {type: Conv2d, out_channels: 4, kernel_size: 3, padding: 1, bias: false}
    - BatchNorm
    - ReLU
    - {type: MaxPool2d, kernel_size: 2}
    - {type: Dropout, p: 0.3}
    - Flatten
    - {type: Linear, out_features: 4}
loss: [CrossEntropy, {type: L2Penalty, weight: 1e-3}]
metrics: [accuracy, {type: accuracy, top_k: 2}]
optimizer: {type: Adam, lr: 0.01, weight_decay: 1e-4}
schedule: {type: Cosine, warmup: 1 epochs}
train: {epochs: 2}
"""
FREEZE = {"type": "Freeze", "params": "linear_1.*", "until": "1 epochs"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"data.batch_size": 6, "train.accumulate": 3, "train.clip_norm": 0.5, "callbacks": [FREEZE]},
        {"train.clip_value": 0.01},
    ],
    ids=["plain", "accumulated", "clipped"],
)
def test_a_config_trains_and_evaluates_as_on_the_cpu(
    more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    results: dict[str, dict[str, Any]] = {}
    devices = {"cpu": host(), "cuda:0": fake_device()}
    for module in ("layernet.train.compute", "layernet.backend.device"):
        monkeypatch.setattr(f"{module}.get_device", lambda name, *_, **__: devices[name])
    for device in devices:
        experiment = Experiment.load(path, {"device": device, **more})
        run = experiment.train(tmp_path / device, console=Console(file=io.StringIO()))
        assert isinstance(experiment.net.arena.data, fakecupy.ndarray) == (device != "cpu")
        results[device] = Experiment.open(run, "last").evaluate("val") | experiment.evaluate("train")
    assert results["cuda:0"] == pytest.approx(results["cpu"], rel=1e-9)
