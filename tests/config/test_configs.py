"""The configs that come with layernet: each loads, says the same when resolved, and what to expect.

Typos in them: test_sweeps.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layernet.config.experiment import load_config, load_config_text

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_resolves_to_the_same(path: Path) -> None:
    config = load_config(path)
    again = load_config_text(config.dump(), "resolved.yaml", FOLDER)
    assert again.resolved == config.resolved
    assert list(again.net.params()) == list(config.net.params())
    assert set(config.net.layers) <= set(config.layer_marks)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_says_what_it_is_and_what_to_expect(path: Path) -> None:
    head = path.read_text().split("\nlayernet: 1")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert re.search(r"Expect .*%", head)


def test_all_that_are_promised_are_there() -> None:
    promised = [
        "cifar10_quick",
        "cifar10_resnet20",
        "custom_layer",
        "digits_convnet",
        "digits_mlp",
        "mnist_lenet",
        "mnist_mlp",
    ]
    assert {path.stem for path in CONFIGS} >= set(promised)
