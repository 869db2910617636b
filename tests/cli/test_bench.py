"""`layernet bench`: figures of steps, and nothing left behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from layernet.backend import compiled
from layernet.cli.main import main

CONFIG = """
device: cpu
data:
  train: {type: FakeData, shape: [6], classes: 3, length: 60}
  val: {fraction: 0.2}
  batch_size: 12
net: {input: [6], layers: [{type: Linear, name: head, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1, momentum: 0.9}
train: {epochs: 2, eval_every: 1 steps}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("layers", [[], ["--layers"]])
def test_figures(layers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tiny.yaml", "--steps", "5", "--kernels", "numpy", "--json", *layers]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["kernels"].startswith("numpy")
    assert (found["batch"], found["steps"], found["device"]) == (12, 5, "cpu")
    assert 0 < found["fastest"] <= found["median"] < 1
    assert found["images_per_second"] == pytest.approx(12 / found["median"])
    # weights, their gradient and momentum, at least: 21 numbers of 4 bytes each
    assert 3 * 21 * 4 <= found["memory"] < 10_000
    paths = [layer["path"] for layer in found["layers"]["layers"]] if layers else None
    assert paths == (["head"] if layers else None)
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


def test_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tiny.yaml", "--steps", "2", "--layers", "--kernels", "numpy"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^head +Linear ", out, re.M)
    assert out.splitlines()[-1] == "tiny.yaml: medians of 2 steps, batch of 12, device cpu"


@pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
def test_both_kernels_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tiny.yaml", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["numpy", "numba"]
    assert re.search(r"compiled kernels: [\d.]+ times as fast$", out, re.M)


@pytest.mark.usefixtures("without_numba")
def test_without_numba(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tiny.yaml", "--steps", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tiny.yaml", "--steps", "0"]) == 2
    assert "--steps must be at least 1" in capsys.readouterr().err
    assert main(["bench", "tiny.yml"]) == 2
