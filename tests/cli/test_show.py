"""`layernet show` and `layernet schema`: what a config comes to, and where each value comes from."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from layernet.cli.main import main
from layernet.config.experiment import ExperimentConfig, load_config, load_config_text
from layernet.report.resolved import show

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

BASE = """vars: {width: 16, lr: 0.1, block: {type: Linear, out_features: 5}}
data: {train: {type: FakeData, shape: [6], classes: 3}, batch_size: 10}
net:
  input: [6]
  layers: [{type: Linear, name: first, out_features: "${width}"}, ReLU, "${block}", {type: Linear, out_features: 3}]
loss: CrossEntropy
optimizer: {type: SGD, lr: "${lr}"}
train: {epochs: 2, eval_every: "${train.epochs} epochs"}
"""
TOP = """extends: sub/base.yaml
optimizer: {momentum: 0.5}
metrics: accuracy
callbacks: [{type: "./own/calls.py:Quiet", text: "$${not a variable}"}]
"""
CALLS = """
import layernet as ln


class Quiet(ln.Callback):
    def __init__(self, text: str):
        pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"sub/base.yaml": BASE, "top.yaml": TOP, "own/calls.py": CALLS}.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    return tmp_path


def same(one: ExperimentConfig, other: ExperimentConfig) -> bool:
    return one.resolved == other.resolved and list(one.net.params()) == list(other.net.params())


def sources(text: str) -> dict[str, str]:
    """The comment of each line that has one, by what stands before it."""
    return {line.partition("#")[0].strip(): line.partition("# ")[2] for line in text.splitlines() if "# " in line}


def test_every_value_says_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "top.yaml", "--set", "vars.width=32", "--set", "seed=3"]) == 0
    text = capsys.readouterr().out
    found = sources(text)
    assert found["seed: 3"] == "--set seed"
    assert found["device: auto"] == "default"
    assert found["momentum: 0.5"] == "top.yaml:2"
    assert found["lr: 0.1"] == "sub/base.yaml:7, ${lr} of sub/base.yaml:1"
    assert found["out_features: 32"] == "sub/base.yaml:5, ${width} of --set vars.width"
    assert found["out_features: 5"] == "sub/base.yaml:5, ${block} of sub/base.yaml:1"
    assert found["out_features: 3"] == "sub/base.yaml:5"
    assert found["- ReLU"] == "sub/base.yaml:5"
    assert found["eval_every: 2 epochs"] == "sub/base.yaml:8"
    assert found["- type: accuracy"] == "top.yaml:3"
    assert found["- type: CrossEntropy"] == "sub/base.yaml:6"
    assert found["- type: './own/calls.py:Quiet'"] == "top.yaml:4"
    lines = [line for line in text.splitlines() if not line.endswith(":")]
    assert all("  # " in line for line in lines)
    assert len({line.index("  # ") for line in lines}) == 1


@pytest.mark.parametrize("plain", [False, True])
def test_what_is_shown_is_the_same_experiment(plain: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "top.yaml", "--set", "vars.width=32", *["--plain"] * plain]) == 0
    text = capsys.readouterr().out
    assert ("#" in text) is not plain
    Path("shown.yaml").write_text(text)
    given, shown = load_config("top.yaml", ["vars.width=32"]), load_config("shown.yaml")
    assert same(given, shown)
    assert shown.callbacks[0].arguments["text"] == "${not a variable}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configs_are_shown_whole(path: Path) -> None:
    config = load_config(path)
    text = show(config)
    assert same(config, load_config_text(text, folder=path.parent))
    told = sources(text).values()
    pattern = rf"default|{re.escape(os.fspath(path))}:\d+"
    assert all(re.fullmatch(pattern, source) for source in told)
    assert any(source != "default" for source in told)


def test_a_config_that_is_wrong_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "top.yaml", "--set", "seed=-1"]) == 2
    assert "expected at least 0, got -1" in capsys.readouterr().err


def test_the_schema_is_printed_or_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert main(["schema", "-o", "s.json"]) == 0
    assert "# yaml-language-server: $schema=s.json\n" in capsys.readouterr().out
    assert json.loads(Path("s.json").read_text()) == schema
    assert main(["schema", "-o", "no/where.json"]) == 2
    assert "cannot write no/where.json: No such file or directory" in capsys.readouterr().err
