"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from layernet.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_config_and_the_layer_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import layernet as ln

    (config,), layer = blocks("yaml"), blocks("python")[0]
    (tmp_path / "my_layers.py").write_text(layer)
    (tmp_path / "example.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    run = ln.load("example.yaml", {"train.epochs": 3}).train()
    assert run == Path("runs/example-001")
    assert ln.Experiment.open(run).evaluate("test")["accuracy"] > 0.8


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (code,) = blocks("python")[1:]
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["loss"], float)
    assert np.isfinite(names["loss"])
    assert "accuracy" in capsys.readouterr().out.splitlines()[-1]


def test_the_commands_it_names_exist() -> None:
    for command in re.findall(r"layernet ([\w-]+)", " ".join(blocks("sh"))):
        assert command in COMMANDS


def test_the_shown_config_is_yaml_that_pyyaml_reads_too() -> None:
    assert yaml.safe_load(blocks("yaml")[0])["net"]["input"] == [8, 8, 1]


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
