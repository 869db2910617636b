"""docs/coming-from-cuda-convnet.md: each entry and each key that it names builds, in a config that is validated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from layernet.config.experiment import load_config_text

TEXT = (Path(__file__).parents[1] / "docs" / "coming-from-cuda-convnet.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TEXT.splitlines() if line.startswith("| `")]
SNIPPETS = [(row[0], row[1].strip("`")) for row in ROWS if row[1] != "-"]
BASE = """
data: {train: {type: Digits, split: train}, batch_size: 64}
net:
  input: [8, 8, 16]
  layers: [ENTRY, Flatten, {type: Linear, name: probe, out_features: 10}]
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
OWN_DATA = """
import numpy as np
import layernet as ln
class Numbers(ln.Arrays):
    def __init__(self):
        super().__init__(np.zeros((4, 8, 8, 16), "float32"), np.zeros((4, 10), "float32"))
"""
NAMES = """data fc sfc conv local pool cmpool rnorm cmrnorm cnorm softmax eltsum eltmax sum concat pass dropout dropout2
nailbed blur resize rscale crop href rgb2yuv rgb2lab ident logistic tanh[a,b] relu brelu[a] softrelu abs square sqrt
linear[a,b] log[a] drelu[a] nrelu abstanh[a,b] cost.logreg cost.crossent cost.bce cost.dce cost.sum2 epsW momW wc wball
weightSource initW initB initWFunc=module.func(a) const[base] dexp[base;tgtFactor;numSteps]"""


@pytest.mark.parametrize(("theirs", "ours"), SNIPPETS)
def test_it_builds(theirs: str, ours: str, tmp_path: Path) -> None:
    data = yaml.safe_load(BASE.replace("ENTRY", "Tanh"))
    key, colon, rest = ours.partition(": ")
    if ours.startswith("{") or not colon:
        text = BASE.replace("ENTRY", f"Tanh, {'Flatten, ' if 'Linear' in ours else ''}{ours}")
    elif key == "data":
        text = (
            BASE.replace("ENTRY", "Tanh")
            .replace("[8, 8, 16]", "[8, 8, 1]")
            .replace("data: {train: {type: Digits, split: train}, batch_size: 64}", ours)
        )
    elif key.startswith("net."):
        text = BASE.replace("ENTRY", "Tanh")
        assert data["net"]["input"] == yaml.safe_load(rest)
    else:
        kept = [line for line in BASE.splitlines() if not line.startswith(f"{key}:")]
        text = "\n".join([*kept, ours]).replace("ENTRY", "Tanh")
    own = "{type: FakeData, shape: [8, 8, 16]}"
    if "BCE" in ours or "Squares" in ours:  # whose targets are numbers
        (tmp_path / "own.py").write_text(OWN_DATA)
        own = "{type: './own.py:Numbers'}"
    if key == "data":
        own = "{type: Digits, split: train}"
    config = load_config_text(text.replace("{type: Digits, split: train}", own), folder=tmp_path)
    assert config.net.output_shape == (10,)


def test_nothing_is_left_out() -> None:
    told = " ".join(row[0] for row in ROWS)
    assert [name for name in NAMES.split() if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", told)] == []
