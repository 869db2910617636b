"""Everything that has a state at once: a run cut anywhere resumes to the bits of the one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layernet.errors import Interrupted
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from tests.train.conftest import Uncut
from tests.train.small import CONFIG, assert_same_end, callback, quiet
from tests.train.test_callbacks import COUNTING, Crash, InterruptAt

STEPS = (
    40  # 160 examples in micro-batches of 6, 4 of them in an update: 7 updates an epoch, the last of 3 micro-batches
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "source.yaml").write_text(CONFIG)
    return Experiment.load(folder / "source.yaml", {"train.epochs": 1, "seed": 9}).train(folder, console=quiet())


def overrides(source: Path) -> dict[str, Any]:
    return {
        "data.batch_size": 6,
        "train": {
            "steps": STEPS,
            "accumulate": 4,
            "clip_norm": 0.5,
            "eval_every": "3 steps",
            "checkpoint": {"every": "5 steps", "best": "val.loss"},
        },
        "schedule": {"type": "Plateau", "factor": 0.5, "patience": 2, "warmup": "1 epochs"},
        "average": {"type": "EMA", "decay": 0.8},
        "warm_start": {"from": str(source), "exclude": "linear_1.*"},
        "callbacks": [
            {"type": "EarlyStopping", "patience": 9, "min_delta": 0.01},
            {"type": "Freeze", "params": "conv2d_1.*", "until": "1.5 epochs"},
            {"type": "Freeze", "params": "batchnorm_1.*", "start": "12 steps", "until": "20 steps"},
            "JSONLines",
            "./counting.py:Counting",
        ],
    }


@pytest.mark.parametrize(
    "ending",
    [InterruptAt(1), InterruptAt(6), InterruptAt(10), InterruptAt(13), InterruptAt(21), Crash(17), Crash(23)],
    ids=repr,
)
def test_all_together_resumes_to_the_same_bits(source: Path, tmp_path: Path, ending: Callback, uncut: Uncut) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    config = tmp_path / "small.yaml"
    config.write_text(CONFIG)
    whole = uncut(config, overrides(source))
    experiment = Experiment.load(config, overrides(source))
    with callback(experiment, ending), pytest.raises((Interrupted, RuntimeError)):
        experiment.train(tmp_path / "cut", console=quiet())
    cut = tmp_path / "cut" / "small-001"
    Experiment.resume(cut, console=quiet())
    assert_same_end(whole, cut)
    first, second = (checkpoint.load(run / "checkpoints" / "last.npz").meta for run in (whole, cut))
    assert first["step"] == second["step"] > 24
    assert first["callbacks"] == second["callbacks"]
    best = [checkpoint.load(run / "checkpoints" / "best.npz").arrays for run in (whole, cut)]
    assert all(np.array_equal(best[0][name], best[1][name]) for name in best[0])
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_second")}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (whole, cut)
    ]
    assert rows[0] == rows[1]
