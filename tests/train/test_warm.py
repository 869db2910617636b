"""A run that starts from the values of another."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from layernet.errors import CheckpointError, ConfigError, UsageError
from layernet.train import checkpoint
from layernet.train.experiment import Experiment

CONFIG = """
seed: 3
device: cpu
data:
  train: {type: FakeData, shape: [4, 4, 1], classes: 3, length: 40}
  batch_size: 8
net:
  input: [4, 4, 1]
  layers:
    - {type: Conv2d, name: stem, out_channels: 2, kernel_size: 3}
    - {type: BatchNorm, name: norm}
    - Flatten
    - {type: Linear, name: head, out_features: 3}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
SIX = (
    CONFIG.replace("classes: 3", "classes: 6")
    .replace("out_features: 3", "out_features: 6")
    .replace("seed: 3", "seed: 4")
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "first.yaml").write_text(CONFIG)
    return Experiment.load(tmp_path / "first.yaml").train(tmp_path / "runs", console=quiet())


def quiet() -> Console:
    return Console(file=io.StringIO())


def second(source: Path, warm: dict[str, Any], text: str = SIX) -> Experiment:
    path = source.parent.parent / "second.yaml"
    path.write_text(text)
    return Experiment.load(path, {"warm_start": {"from": str(source), **warm}, "optimizer.lr": 0.0})


def test_what_is_chosen_is_taken_and_the_rest_starts_from_the_seed(source: Path, tmp_path: Path) -> None:
    experiment = second(source, {"exclude": "head.*"})
    fresh = experiment.net.state_dict()
    run = experiment.train(tmp_path / "runs", console=quiet())
    file = source / "checkpoints" / "last.npz"
    theirs = checkpoint.load(file).group("net")
    mine = checkpoint.load(run / "checkpoints" / "last.npz").group("net")
    assert not np.array_equal(fresh["stem.weight"], theirs["stem.weight"])
    for path in ("stem.weight", "stem.bias", "norm.weight"):  # a learning rate of 0 moves statistics alone
        np.testing.assert_array_equal(mine[path], theirs[path])
    for path in ("head.weight", "head.bias"):
        np.testing.assert_array_equal(mine[path], fresh[path])
    log = (run / "log.txt").read_text()
    assert f"warm start from {file}, step 5: 6 of 8 taken" in log
    assert "  starts from the seed: head.weight, head.bias\n  not used of it: head.weight, head.bias\n" in log
    facts = json.loads((run / "run.json").read_text())["warm_start"]
    assert facts["file"] == str(file)
    assert facts["taken"] == [
        "stem.weight",
        "stem.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
    ]


def test_a_resumed_run_does_not_start_again(source: Path, tmp_path: Path) -> None:
    run = second(source, {"exclude": ["head.*"]}).train(tmp_path / "runs", console=quiet())
    before = checkpoint.load(run / "checkpoints" / "last.npz").arrays
    for file in (source / "checkpoints").iterdir():
        file.unlink()
    Experiment.resume(run, console=quiet())
    after = checkpoint.load(run / "checkpoints" / "last.npz").arrays
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with pytest.raises(UsageError, match=r"warm_start\.exclude cannot change"):
        Experiment.resume(run, quiet(), ["warm_start.exclude=[]"])


def test_all_that_does_not_fit_is_named_before_there_is_a_run(source: Path, tmp_path: Path) -> None:
    text = SIX.replace("name: norm", "name: bn")
    with pytest.raises(CheckpointError) as caught:
        second(source, {}, text).train(tmp_path / "more", console=quiet())
    for line in (
        "missing: bn.weight (2,)",
        "missing: bn.running_var (2,)",
        "shape: head.weight is (3, 8) there, (6, 8) here",
        "leave these out with exclude; its other paths are norm.bias, norm.running_mean",
    ):
        assert line in str(caught.value)
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("warm", "message"),
    [
        (
            {"include": "stme.*"},
            r"warm_start\.include: no parameter or statistic matches 'stme.\*'; did you mean 'stem.\*'",
        ),
        ({"exclude": "*"}, "exclude leaves nothing of what include matches"),
        ({"form": "x"}, r"unknown key 'form'.*did you mean 'from'"),
    ],
)
def test_mistakes_are_answered_in_the_config(source: Path, warm: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        second(source, warm)


def test_a_run_that_is_not_there(source: Path, tmp_path: Path) -> None:
    missing = source.with_name("first-01")
    with pytest.raises(UsageError, match=f"{re.escape(str(missing))} is no run directory.*did you mean"):
        second(missing, {}).train(tmp_path / "runs", console=quiet())
    experiment = second(source / "checkpoints" / "last.npz", {"include": "stem.*"})
    experiment.warm_start()
    theirs = checkpoint.load(source / "checkpoints" / "last.npz").group("net")
    np.testing.assert_array_equal(experiment.net.state_dict()["stem.bias"], theirs["stem.bias"])
