"""Every shipped config: it loads, its net is as described, and it trains two steps on invented data of its shape."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import layernet as ln
from layernet.config.experiment import load_config
from layernet.core.summary import summarize

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
TOO_LARGE = {"alexnet"}  # 61 million parameters, and a checkpoint of them; tests/test_alexnet.py looks at its layers

# parameters, counted by hand from the published nets
PARAMETERS = {
    "mnist_lenet": 431_080,  # Caffe's LeNet: 520 + 25 050 + 400 500 + 5 010
    "cifar10_quick": 145_578,  # 2 432 + 25 632 + 51 264 + 65 600 + 650
    "cifar10_resnet20": 272_474,  # He et al. 2015 give 0.27 M; projections of 1x1 and their norms add 2 752
}


def on_fake_data(path: Path) -> dict[str, Any]:
    """Overrides that put FakeData of the same shape and classes in the place of the config's data."""
    config = load_config(path)
    data = config.data.train
    fake = {"type": "FakeData", "shape": list(data.shape), "classes": len(data.classes or []), "length": 40}
    train = {**fake, "transforms": config.resolved["data"]["train"].get("transforms") or []}
    return {
        "data.train": train,
        "data.test": {**fake, "seed": 1},
        "data.batch_size": 8,
        "train.epochs": None,
        "train.steps": 2,
    }


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem not in TOO_LARGE], ids=lambda path: path.stem)
def test_two_steps_on_invented_data(path: Path, tmp_path: Path) -> None:
    experiment = ln.load(path, on_fake_data(path))
    before = experiment.net.state_dict()
    run = experiment.train(tmp_path, console=Console(file=io.StringIO()))
    assert (run / "checkpoints" / "last.npz").exists()
    moved = [name for name, value in experiment.net.state_dict().items() if (value != before[name]).any()]
    assert moved == list(before)
    again = type(experiment).open(run)
    assert again.evaluate("test") == experiment.evaluate("test")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_comment_on_top_says_what_it_is_and_what_to_expect(path: Path) -> None:
    head = path.read_text().split("layernet: 1")[0]
    assert head.startswith("# ")
    assert "Expect" in head


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_published_sizes(name: str) -> None:
    config = load_config(Path(__file__).parents[1] / "configs" / f"{name}.yaml")
    assert config.net.size == PARAMETERS[name]
    assert sum(row.params for row in summarize(config.net) if row.depth == 0) == PARAMETERS[name]
