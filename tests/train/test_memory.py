"""What cannot fit into memory is refused from shapes, before anything is allocated; what fits is not."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from layernet.backend import allocation
from layernet.backend.device import available_memory
from layernet.cli.main import main
from layernet.config.experiment import ExperimentConfig, load_config, load_config_text
from layernet.core.memory import least, predict
from layernet.errors import ConfigError
from layernet.train.experiment import Experiment
from layernet.train.memory import check_memory, needs

ROOT = Path(__file__).parents[2]

CONFIG = """\
device: cpu
data:
  train: {type: FakeData, shape: [8, 8, 2], classes: 4, length: 40}
  batch_size: 16
net:
  input: [8, 8, 2]
  layers:
    - {type: Conv2d, name: conv, out_channels: 4, kernel_size: 3}
    - Flatten
    - {type: Linear, name: head, out_features: 4}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1, momentum: 0.9}
train: {epochs: 2}
"""


def config_of(*changes: tuple[str, str]) -> ExperimentConfig:
    text = CONFIG
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load_config_text(text, "c.yaml")


def test_what_is_needed_at_least() -> None:
    need = needs(config_of(), least(config_of().net))
    size = (2 * 9 * 4 + 4) + (6 * 6 * 4 * 4 + 4)
    assert need.parameters == 4 * 3 * size  # values, gradients, momentum
    assert need.example == 4 * ((8 * 8 * 2 + 6 * 6 * 4) + 6 * 6 * 4)  # what goes into conv and head; what conv gives
    assert need.evaluated == 4 * (6 * 6 * 4 + 6 * 6 * 4)
    double = config_of(("device: cpu", "device: cpu\ndtype: float64\naverage: EMA"))
    assert needs(double, least(double.net)).parameters == 8 * 4 * size


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_lenet", "digits_convnet", "cifar10_quick", "cifar10_resnet20"])
def test_it_is_less_than_what_a_step_keeps_but_not_by_much(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    estimate = 4 * least(config.net).kept * 64
    kept = sum(predict(config.net.bind("cpu"), 64).values())
    assert 0.2 * kept < estimate <= kept


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        ("{type: Concat, branches: [[{type: Linear, out_features: 3}], [{type: Linear, out_features: 5}]]}", 6),
        ("{type: Recompute, body: [{type: Linear, out_features: 50}, {type: Linear, out_features: 3}]}", 6),
        ("{type: Sequential, layers: [{type: Linear, out_features: 50}, {type: Linear, out_features: 3}]}", 56),
        ("{type: Linear, out_features: 50}, ReLU, {type: Residual, body: [{type: Linear, out_features: 50}]}", 56),
        ("ReLU", 0),
    ],
)
def test_an_input_counts_once(layers: str, kept: int) -> None:
    text = CONFIG.partition("  input")[0].replace("[8, 8, 2]", "[6]") + f"  input: [6]\n  layers: [{layers}]\n"
    text += "loss: MSE\n" + "optimizer: {type: SGD, lr: 0.1}\ntrain: {epochs: 1}\n"
    assert least(load_config_text(text.replace("classes: 4", "classes: 0"), "c").net).kept == kept


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("batch_size: 16", "batch_size: 1000000000", "c.yaml:4:15: data.batch_size", "a batch of 1000000000 ("),
        (
            "batch_size: 16",
            "batch_size: 16\n  eval_batch_size: 1000000000",
            "c.yaml:5:20: data.eval_batch_size",
            "a batch of 1000000000 (",
        ),
        ("out_channels: 4", "out_channels: 1000000000", "c.yaml:8:7: net", "the largest, layer conv (Conv2d), gives"),
        ("out_features: 4", "out_features: 100000000", "c.yaml:10:7: net", "head.weight alone has 14400000000 numbers"),
        ("[8, 8, 2]", "[90000, 90000, 2]", "c.yaml:8:7: net", "the largest, layer conv (Conv2d), gives"),
    ],
)
def test_it_is_refused_at_its_line(old: str, new: str, place: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layernet.train.memory.available_memory", lambda device: 10**10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = config_of((old, new))
    for attempt in (check_memory, Experiment):
        with pytest.raises(ConfigError) as caught:
            attempt(config)
        assert str(caught.value).startswith(f"{place}: it does not fit into memory: at least ")
        assert words in str(caught.value)
        assert "10.0 GB are free" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_the_batch_that_fits_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(("batch_size: 16", "batch_size: 100000"))
    need = needs(config, least(config.net))
    monkeypatch.setattr("layernet.train.memory.available_memory", lambda device: need.parameters + 77 * need.example)
    with pytest.raises(ConfigError, match=r"a batch of 77 fits.*; train\.accumulate"):
        check_memory(config)
    check_memory(config_of(("batch_size: 16", "batch_size: 77")))
    with pytest.raises(ConfigError):
        check_memory(config_of(("batch_size: 16", "batch_size: 78")))


def test_evaluation_needs_less_than_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(("batch_size: 16", "batch_size: 1000\n  eval_batch_size: 1"))
    monkeypatch.setattr("layernet.train.memory.available_memory", lambda device: 100_000)
    check_memory(config, training=False)
    with pytest.raises(ConfigError):
        check_memory(config)


def test_what_is_not_known_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_number", lambda *_: None)
    assert available_memory("cuda:0") is None
    monkeypatch.setattr("layernet.backend.device.available", lambda: None)
    check_memory(config_of(("out_channels: 4", "out_channels: 1000000000")))


def test_the_least_of_the_limits_counts() -> None:
    known = allocation.available()
    if known is None:
        pytest.skip("nothing tells how much memory there is")
    assert 10**6 < known < 10**15
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (known - 4096, hard))
        assert allocation.available() == known - 4096 or allocation.available() < known
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("command", ["validate", "train"])
def test_commands_refuse_it(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG)
    assert main([command, str(file), "--set", "data.batch_size=1000000000000"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --set data.batch_size: it does not fit into memory: at least ")
    assert "= help: by this estimate a batch of " in err
