"""A resolved config finds its data from any working directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layernet.config.experiment import check_data, load_config_text

REST = """
net: {input: INPUT, layers: [Flatten, {type: Linear, out_features: 10}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
OWN = """
from layernet import MNIST


class Mine(MNIST):
    def __init__(self, which: str = "train"):
        super().__init__(which)
"""


def resolved(entry: str, shape: str, folder: Path) -> dict:
    text = f"data: {{train: {entry}, batch_size: 2}}" + REST.replace("INPUT", shape)
    config = load_config_text(text, folder=folder)
    assert config.text == text
    again = load_config_text(config.dump(), folder=folder)
    assert again.dump() == config.dump()
    plain = config.resolved["data"]["train"]
    return plain if isinstance(plain, dict) else {}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERNET_DATA", raising=False)
    return tmp_path


def test_a_relative_root_becomes_absolute(here: Path) -> None:
    for entry in ("{type: MNIST, root: sub/digits}", "{type: FashionMNIST, root: sub/digits}"):
        assert resolved(entry, "[28, 28, 1]", here)["root"] == str(here / "sub/digits")
    assert resolved("{type: CIFAR10, root: .}", "[32, 32, 3]", here)["root"] == str(here)
    folder = resolved("{type: ImageFolder, root: a, size: 8, cache: b}", "[8, 8, 3]", here)
    assert (folder["root"], folder["cache"]) == (str(here / "a"), str(here / "b"))
    assert resolved("{type: ImageFolder, root: a, size: 8}", "[8, 8, 3]", here)["cache"] is None


def test_what_is_absolute_stays_as_it_is_written(here: Path) -> None:
    for root in ("/data/digits", "~/digits"):
        assert resolved(f"{{type: MNIST, root: {root}}}", "[28, 28, 1]", here)["root"] == root


def test_the_place_under_layernet_data_is_pinned_where_that_is_relative(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolved("MNIST", "[28, 28, 1]", here)["root"] == str(here / "data/mnist")
    monkeypatch.setenv("LAYERNET_DATA", "elsewhere")
    assert resolved("CIFAR10", "[32, 32, 3]", here)["root"] == str(here / "elsewhere/cifar10")
    monkeypatch.setenv("LAYERNET_DATA", str(here))
    assert resolved("MNIST", "[28, 28, 1]", here)["root"] is None


def test_a_subclass_that_takes_no_root(here: Path) -> None:
    (here / "mine.py").write_text(OWN)
    assert "root" not in resolved("./mine.py:Mine", "[28, 28, 1]", here)


def test_files_are_found_from_another_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "t.csv").write_text("a,b,label\n1,2,0\n3,4,1\n")
    np.savez(here / "t.npz", x=np.zeros((2, 2), np.float32), y=np.array([0, 1]))
    for entry in ("{type: Csv, path: t.csv, label: label}", "{type: Npz, path: t.npz}"):
        config = load_config_text(f"data: {{train: {entry}, batch_size: 2}}" + REST.replace("INPUT", "[2]"))
        (here / "other").mkdir(exist_ok=True)
        monkeypatch.chdir(here / "other")
        check_data(load_config_text(config.dump()))
        monkeypatch.chdir(here)
