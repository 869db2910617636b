"""The profile of training: every part is counted once, the training is the same, and nothing of it stays behind."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layernet.config.experiment import load_config_text
from layernet.train.experiment import Experiment
from layernet.train.profile import LayerTime, Profile, StepTimes
from layernet.train.trainer import Trainer

CONFIG = """
layernet: 1
seed: 3
data:
  train: {type: FakeData, shape: [6, 6, 2], classes: 3, length: 24, transforms: [RandomHorizontalFlip]}
  batch_size: 4
net:
  input: [6, 6, 2]
  layers:
    - {type: Conv2d, name: first, out_channels: 4, kernel_size: 3, padding: 1}
    - {type: BasicBlock, name: block, channels: 4}
    - {type: Recompute, name: again, body: [Tanh]}
    - GlobalAvgPool2d
    - {type: Linear, name: head, out_features: 3}
loss: [CrossEntropy, {type: L2Penalty, weight: 1e-3}]
metrics: [accuracy]
optimizer: {type: SGD, lr: 0.1, momentum: 0.9}
train: {steps: 10, eval_every: 4 steps}
"""


def trained(profile: Profile | None) -> tuple[Experiment, Trainer]:
    experiment = Experiment(load_config_text(CONFIG))
    loaders = {"train": experiment.loaders["train"]}
    trainer = Trainer(experiment.config, experiment.net, loaders, [profile] if profile else [])
    trainer.fit()
    return experiment, trainer


def timed(profile: Profile) -> StepTimes:
    times = profile.result()
    assert times is not None
    return times


def test_parts_add_up_and_layers_are_all_there() -> None:
    profile = Profile(skip=1)
    trained(profile)
    times = timed(profile)
    assert times.steps == 3  # of steps 2 to 10, without 4, 8 and the last, the faster half
    paths = [layer.path for layer in times.layers]
    assert paths[0] == "first"
    assert {"block.conv1", "block.bn1+relu1", "again.tanh_1", "head"} <= set(paths)
    assert "block.residual_1+bn2+relu2" in paths  # one step of the plan
    assert "block" not in paths  # it only runs layers
    for layer in times.layers:
        assert layer.forward > 0
        assert layer.backward > 0
    parts = times.loss, times.optimizer, times.metrics, times.data, times.framework
    assert all(part > 0 for part in parts)
    assert times.forward + times.backward + sum(parts) == pytest.approx(times.step)
    table = times.table()
    assert [line.split()[0] for line in table.splitlines()[1:3]] == paths[:2]
    assert table.splitlines()[-1].endswith("100.0 %")


def test_training_is_the_same_and_nothing_stays() -> None:
    profile = Profile()
    experiment, trainer = trained(profile)
    plain, _ = trained(None)
    for path, value in plain.net.state_dict().items():
        np.testing.assert_array_equal(experiment.net.state_dict()[path], value)
    seen: list[Any] = [
        trainer,
        trainer.optimizer,
        trainer.loaders["train"],
        *(measure.metric for measure in trainer.meter.measures),
    ]
    seen += [layer for _, layer in experiment.net.root.walk()]
    seen += [objective.loss for objective in experiment.config.objectives]
    for thing in seen:
        assert not [name for name, value in vars(thing).items() if inspect.isfunction(value)]


TICKING = """
import layernet as ln

now = 0.0


class Ticking(ln.Layer):
    def forward(self, x, ctx):
        global now
        now += 2
        return x

    def backward(self, dy, ctx):
        global now
        now += 3
        return dy
"""


def test_time_goes_to_the_innermost_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ticking.py").write_text(TICKING)
    config = load_config_text(CONFIG.replace("[Tanh]", "['ticking:Ticking']"))
    clock = SimpleNamespace(perf_counter=lambda: sys.modules["ticking"].now)
    monkeypatch.setattr("layernet.train.profile.time", clock)
    experiment, profile = Experiment(config), Profile(skip=1)
    Trainer(config, experiment.net, {"train": experiment.loaders["train"]}, [profile]).fit()
    times = timed(profile)
    assert [layer for layer in times.layers if layer.forward or layer.backward] == [
        LayerTime("again.ticking_1", "Ticking", 4.0, 3.0)  # Recompute runs its forward twice
    ]
    assert (times.step, times.framework, times.loss, times.data) == (7.0, 0.0, 0.0, 0.0)


def test_no_step_no_result() -> None:
    profile = Profile(skip=10)
    trained(profile)
    assert profile.result() is None
    with pytest.raises(ValueError, match="skip must not be negative, got -1"):
        Profile(skip=-1)
