"""What a run computes with: recorded, shown, taken up again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from layernet.backend import compiled
from layernet.backend.numpy_ops import NumpyOps
from layernet.cli.main import main
from layernet.config.experiment import load_config_text
from layernet.errors import ConfigError
from layernet.train import compute
from layernet.train.experiment import Experiment

needs_numba = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
CONFIG = """
device: cpu
data: {train: {type: FakeData, shape: [8, 8, 16], classes: 3, length: 40}, batch_size: 20}
net:
  input: [8, 8, 16]
  layers: [{type: Conv2d, out_channels: 16, kernel_size: 3, padding: 1}, ReLU, Flatten, {type: Linear, out_features: 3}]
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.01}
train: {epochs: 2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def facts(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def test_run_json_says_what_computed(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config, {"kernels": "numpy"}).train(tmp_path, console=console())
    assert facts(run)["kernels"] == "numpy"
    assert facts(run)["threads"] == 1  # the net is small
    assert "lanes" not in facts(run)
    assert "kernels numpy (threads: 1)" in (run / "log.txt").read_text().splitlines()[0]


@needs_numba
def test_run_json_says_how_wide_and_on_how_many_threads(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config, {"threads": 2}).train(tmp_path, console=console())
    found = facts(run)
    assert (found["kernels"], found["threads"], found["precise"]) == ("numba", 2, False)
    assert found["lanes"] in (4, 8, 16)
    assert facts(Experiment.load(config).train(tmp_path, console=console()))["threads"] == 1  # it is small


@needs_numba
def test_a_run_goes_on_with_the_threads_it_began_with(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config, {"threads": 2, "train.epochs": 1}).train(tmp_path, console=console())
    other = {**facts(run), "lanes": 99}
    (run / "run.json").write_text(json.dumps(other))
    out = console()
    resumed = Experiment.resume(run, out)
    assert resumed.config.threads == 2
    assert resumed.config.kernels == "numba"
    assert "it began with lanes 99" in out.file.getvalue()  # type: ignore[attr-defined]
    out = console()
    resumed = Experiment.resume(run, out, {"kernels": "numpy", "threads": 1})
    assert type(resumed.net.device.ops) is NumpyOps
    assert "kernels numba, now numpy, threads 2, now 1" in out.file.getvalue()  # type: ignore[attr-defined]


@needs_numba
def test_a_run_that_numba_began_goes_on_without_it_and_says_so(
    config: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"threads": 2, "train.epochs": 1}
    left_open, chosen = (
        Experiment.load(config, {**first, **kernels}).train(tmp_path, console=console())
        for kernels in ({}, {"kernels": "numba"})
    )
    whole = Experiment.load(config, {"threads": 2}).train(tmp_path, console=console())
    request.getfixturevalue("without_numba")
    out = console()
    resumed = Experiment.resume(left_open, out, {"train.epochs": 2})
    assert type(resumed.net.device.ops) is NumpyOps
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "it began with kernels numba, now numpy" in said
    assert "it began with kernels numba, now numpy" in (left_open / "log.txt").read_text()
    for name, value in Experiment.open(whole).net.state_dict().items():
        # the rounding of other kernels; found: 1.5e-8
        np.testing.assert_allclose(resumed.net.state_dict()[name], value, rtol=0, atol=1e-6, err_msg=name)
    before = (chosen / "log.txt").read_text()
    assert main(["resume", str(chosen), "--set", "train.epochs=2"]) == 2
    told = capsys.readouterr().err
    assert "kernels 'numba' cannot be used: numba cannot be imported" in told
    assert "pip install 'layernet[fast]', or take kernels: numpy" in told
    assert (chosen / "log.txt").read_text() == before
    assert main(["resume", str(chosen), "--set", "train.epochs=2", "--kernels", "numpy"]) == 0
    assert "it began with kernels numba, now numpy" in capsys.readouterr().out


@needs_numba
def test_runs_on_compiled_kernels_are_the_same_to_the_bit(config: Path, tmp_path: Path) -> None:
    for threads in (1, 2):
        runs = [
            Experiment.load(config, {"kernels": "numba", "threads": threads}).train(tmp_path, console=console())
            for _ in range(2)
        ]
        first, second = (Experiment.open(run).net.state_dict() for run in runs)
        assert all((first[name] == second[name]).all() for name in first)


@needs_numba
def test_a_tiny_net_is_numpys_unless_told_otherwise(config: Path) -> None:
    tiny = {"data.batch_size": 5, "net.layers": ["Flatten", {"type": "Linear", "out_features": 3}]}
    assert Experiment.load(config, tiny).net.device.facts()["kernels"] == "numpy"
    assert Experiment.load(config, {**tiny, "kernels": "numba"}).net.device.facts()["kernels"] == "numba"
    assert Experiment.load(config).net.device.facts()["kernels"] == "numba"


def test_what_is_missing_is_said_once_where_it_matters(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.load(config, {"kernels": "numpy"})
    experiment.config.kernels = "auto"
    monkeypatch.setattr(compiled, "problem", lambda: "numba is not there")
    assert compute.hint(experiment.config, experiment.net) == ""  # small
    monkeypatch.setattr(compute, "_SMALL", {"numpy": 1})
    experiment.config.kernels = "numpy"
    assert compute.hint(experiment.config, experiment.net) == ""  # chosen
    experiment.config.kernels = "auto"
    out = console()
    monkeypatch.setattr(Experiment, "_fresh", True, raising=False)
    experiment.train(tmp_path, console=out)
    said = [line for line in out.file.getvalue().splitlines() if "hint" in line]  # type: ignore[attr-defined]
    assert len(said) == 1
    assert said[0].endswith("numba is not there; pip install 'layernet[fast]'")


def test_float64_and_numba_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="kernels numba are of float32, dtype is float64; use kernels: auto"):
        load_config_text(CONFIG, overrides={"kernels": "numba", "dtype": "float64"})


def test_numba_that_is_not_there_is_one_error(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled, "problem", lambda: "numba cannot be imported (gone)")
    monkeypatch.setattr("layernet.backend.device._find", compute.get_device.__globals__["_find"].__wrapped__)
    assert main(["train", str(config), "--kernels", "numba"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: kernels 'numba' cannot be used: numba cannot be imported (gone); pip install")
    assert "Traceback" not in err


def test_the_command_line(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(config), "--kernels", "numpy", "--threads", "1"]) == 0
    assert "it computes with device cpu, kernels numpy (threads: 1)" in capsys.readouterr().out
    assert main(["inspect", str(config), "--set", "device=cuda"]) in (0, 2)
    runs = str(tmp_path / "runs")
    assert main(["train", str(config), "--runs", runs, "--set", "kernels=numpy", "--threads", "1"]) == 0
    run = tmp_path / "runs" / "small-001"
    assert facts(run)["kernels"] == "numpy"
    assert main(["eval", str(run), "--split", "train", "--kernels", "auto"]) == 0
    assert main(["resume", str(run), "--threads", "1"]) == 0
    assert main(["train", str(config), "--threads", "0"]) == 2
    assert "threads" in capsys.readouterr().err
