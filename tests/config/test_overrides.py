# ruff: noqa: E501 (tables of messages)
"""`--set`: the same checks as for the file, and errors that say which override they come from."""

from __future__ import annotations

from typing import Any

import pytest

from layernet.config.experiment import ExperimentConfig, load_config_text
from layernet.errors import ConfigError

TEXT = """
data: {train: {type: FakeData, shape: [6], classes: 3}, batch_size: 10}
net:
  input: [6]
  layers:
    - {type: Linear, name: hidden, out_features: 8}
    - ReLU
    - {type: Linear, name: head, out_features: 3}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1, groups: {"head.*": {lr_mult: 2}}}
train: {epochs: 2}
"""


def load(*overrides: str) -> ExperimentConfig:
    return load_config_text(TEXT, "f.yaml", overrides=overrides)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("train.epochs=3", lambda c: c.train.epochs == 3),
        ("optimizer.lr=1e-3", lambda c: c.optimizer.lr == 1e-3),
        ("optimizer.lr = 5E-4", lambda c: c.optimizer.lr == 5e-4),
        ("train.checkpoint.every=7 steps", lambda c: str(c.train.checkpoint.every) == "7 steps"),  # made on the way
        ("net.layers.0.out_features=5", lambda c: c.net.layers[0].out_shape == (5,)),
        ("net.layers.hidden.out_features=5", lambda c: c.net.layers[0].out_shape == (5,)),  # a layer by its name
        ("net.layers.1=Tanh", lambda c: type(c.net.layers[1]).__name__ == "Tanh"),
        ("loss.label_smoothing=0.1", lambda c: c.objectives[0].loss.label_smoothing == 0.1),  # into a bare name
        ("optimizer.groups.head.*.lr_mult=3", lambda c: c.optimizer.groups["head.*"]["lr_mult"] == 3),
        ('optimizer.groups."hidden.*"={frozen: true}', lambda c: "hidden.*" in c.optimizer.groups),
        ("optimizer={type: Adam, lr: 1}", lambda c: type(c.optimizer).__name__ == "Adam"),
        ("data.val={fraction: 0.5}", lambda c: c.data.val == 0.5),
        ("train={steps: 7}", lambda c: c.train.total_steps(100) == 7),
        ("seed=4", lambda c: c.seed == 4),
    ],
)
def test_an_override_takes_effect(override: str, found: Any) -> None:
    assert not found(load())
    config = load(override)
    assert found(config)
    assert load_config_text(config.dump()).resolved == config.resolved


def test_overrides_from_python_are_values() -> None:
    config = load_config_text(TEXT, overrides={"train.epochs": 3, "net.input": (6,), "optimizer.groups": {}})
    assert config.train.epochs == 3
    assert config.optimizer.groups == {}
    with pytest.raises(ConfigError, match=r"--set train.epochs: expected an integer, got '3'"):
        load_config_text(TEXT, overrides={"train.epochs": "3"})
    with pytest.raises(ConfigError, match=r"--set seed: expected an integer, got "):
        load_config_text(TEXT, overrides={"seed": object()})


def test_the_last_one_wins() -> None:
    assert load("train.epochs=3", "train.epochs=4").train.epochs == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "--set train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("trian.epochs=3", "--set trian.epochs: trian: unknown key 'trian'; did you mean 'train'?"),
        ("train.epochs=three", "--set train.epochs: expected an integer, got 'three'"),
        ("net.layers.9.out_features=5", "--set net.layers.9.out_features: net.layers has no entry '9'; it has 3 entries, 0 to 2"),
        ("net.layers.-1=ReLU", "--set net.layers.-1: net.layers has no entry '-1'; "),
        ("net.layers.hiden.out_features=5", "net.layers has no entry 'hiden'; did you mean 'hidden'?"),
        ("train.epochs.x=5", "--set train.epochs.x: train.epochs is 2: there is nothing in it to set"),
        ("net.layers.0.out_features=0", "--set net.layers.0.out_features: out_features must be at least 1"),
        ("net.layers.1={type: Conv2d, out_channels: 1, kernel_size: 1}", "--set net.layers.1: layer conv2d_1 (Conv2d): "),
        ("epochs", "--set takes path=value, got 'epochs'"),
        ("=3", "--set takes path=value, got '=3'"),
        ("seed=[1", "--set seed: cannot read the value '[1'"),
        ("..=1", "unknown key ''"),
    ],
)  # fmt: skip
def test_an_override_that_is_wrong_says_so(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(override)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_all_overrides_that_lead_nowhere_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load("epochs", "net.layers.9=ReLU", "train.epochs.x=1")
    assert len(caught.value.problems) == 3


def test_an_override_mends_the_file() -> None:
    broken = TEXT.replace("epochs: 2", "epochs: two")
    assert load_config_text(broken, overrides=["train.epochs=2"]).train.epochs == 2
