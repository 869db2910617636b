"""scripts/gradcheck.py passes on what is right, fails on what is wrong; scripts/overhead.py prints its figures."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from layernet.layers.activation import Tanh
from layernet.testing import check_config, suite
from layernet.testing.configcheck import sample
from layernet.testing.engine import Settings

SCRIPTS = Path(__file__).parents[2] / "scripts"

CONFIG = """
layernet: 1
data:
  train: {type: FakeData, shape: [4, 3, 2], classes: 3}
  batch_size: 4
net:
  input: [4, 3, 2]
  layers:
    - {type: Conv2d, out_channels: 3, kernel_size: 2}
    - BatchNorm
    - Tanh
    - Flatten
    - {type: Dropout, p: 0.3}
    - {type: Linear, out_features: 3}
loss: [{type: CrossEntropy, label_smoothing: 0.1}, {type: L2Penalty, weight: 1e-2}]
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""


def script(name: str) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def test_everything_built_in_and_every_config(config, capsys, monkeypatch):
    monkeypatch.setattr(suite, "CASES", [case for case in suite.CASES if case.name in ("Tanh", "MSE")])
    assert script("gradcheck").main([], config.parent) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:4]] == ["case", "Tanh", "MSE", "small.yaml"]
    assert out[-1].startswith("3 cases, 0 wrong, worst relative error")
    monkeypatch.setattr(Tanh, "backward", lambda self, dy, ctx: 2 * dy)
    assert script("gradcheck").main(["--seed", "3"], config.parent) == 1
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines()[1:4]] == ["WRONG", "ok", "WRONG"]
    assert "Tanh: input[" in out
    assert "tanh_1 (Tanh): input[" in out
    assert "2 wrong" in out


def test_a_broken_config_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suite, "CASES", [])
    (tmp_path / "bad.yaml").write_text("layernet: 1\n")
    assert script("gradcheck").main([], tmp_path) == 2
    assert "bad.yaml" in capsys.readouterr().err


def test_a_config_is_checked_layer_by_layer_and_as_a_whole(config):
    from layernet.config.experiment import load_config

    report = check_config(load_config(config))
    assert report.ok, report
    assert report.title == "small"
    subjects = {t.subject for t in report.tensors}
    assert {"conv2d_1 (Conv2d)", "batchnorm_1 (BatchNorm)", "dropout_1 (Dropout)", "net"} <= subjects
    assert {t.mode for t in report.tensors} == {"train", "eval"}
    x, labels = sample(load_config(config), Settings(batch=5))
    assert x.shape == (5, 4, 3, 2)
    assert labels.shape == (5,)
    assert set(labels) <= {0, 1, 2}


def test_the_overhead_is_printed(capsys):
    assert script("overhead").main(["--layers", "10", "--repeats", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["forward", "backward", "predict"]


def test_the_share_outside_kernels_is_printed():
    root = Path(__file__).parents[2]  # in a process of its own: the kernels' threads are limited for the rest of it
    command = [sys.executable, "scripts/overhead.py", "--config", "scripts/bench/lenet.yaml", "--kernels", "numpy"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    shown = subprocess.run([*command, "--repeats", "1"], cwd=root, env=environment, capture_output=True, text=True)
    found = re.fullmatch(r"a step takes (.*) ms, (.*) ms of it \((.*) %\) outside kernels\n", shown.stdout)
    assert found, shown.stderr
    step, outside, _ = map(float, found.groups())
    assert 0 < outside < step
