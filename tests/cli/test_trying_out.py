"""What tries a config out without making a run: --dry-run, --overfit, find-lr; and --profile, average."""

from __future__ import annotations

import csv
import re
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layernet.cli.main import main
from layernet.data.loader import Batch
from layernet.errors import UsageError
from layernet.train import checkpoint
from layernet.train.average import average_of
from layernet.train.checkpoint import Checkpoint
from layernet.train.experiment import Experiment
from layernet.train.find_lr import RangeTest, range_test
from layernet.train.overfit import overfit
from layernet.train.rehearsal import rehearse
from layernet.train.trainer import Trainer

CONFIG = """
seed: 2
device: cpu
data:
  train: {type: FakeData, shape: [4, 4, 2], classes: 3, length: 60, transforms: [Normalize, RandomHorizontalFlip]}
  val: {fraction: 0.2}
  batch_size: 10
net:
  input: [4, 4, 2]
  layers:
    - Flatten
    - {type: Linear, name: body, out_features: 32}
    - BatchNorm
    - ReLU
    - {type: Dropout, p: 0.2}
    - {type: Linear, name: head, out_features: 3}
loss: [{type: CrossEntropy, label_smoothing: 0.1}, {type: L2Penalty, weight: 1e-4}]
metrics: [accuracy]
optimizer: {type: Adam, lr: 0.01}
schedule: Cosine
train: {epochs: 4, accumulate: 2, checkpoint: {keep: 4}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


MINE = """
from layernet import Callback
from layernet.errors import UsageError

class Mine(Callback):
    def check(self):
        raise UsageError("there is nowhere to post to")
"""


def folder_of(config: Path) -> list[str]:
    return sorted(path.name for path in config.parent.iterdir())


def test_a_dry_run_does_all_but_train_and_writes_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--dry-run", "--device", "cpu", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["images"].endswith("48 train, 12 val")
    assert "1219 parameters, device cpu" in lines["net"]
    assert re.search(r"train.loss \d", lines["first steps"])
    assert re.search(r"\d+\.\d kB for a batch, \d+\.\d kB for parameters", lines["memory"])
    checkpoints = r"(\d+\.\d) kB each, at most 5 kept: (\d+\.\d) kB; the disk has \d+\.\d [MGT]B free$"
    found = re.search(checkpoints, lines["checkpoints"])
    assert found
    assert float(found[2]) == pytest.approx(5 * float(found[1]), rel=0.01)
    assert re.search(r"\(3 steps of [\d.]+ ms, an evaluation [\d.e-]+ s\)", lines["an epoch"])
    assert lines["training"].endswith("(12 steps)")
    assert out.endswith("\nnothing was written\n")
    assert folder_of(config) == ["tiny.yaml"]
    told = rehearse(Experiment.load(config))
    # parameters and gradients, Adam's two moments (and its count of steps), in float32
    assert told.held == pytest.approx(4 * 4 * 1219, rel=0.1)
    assert told.total == pytest.approx(told.step * 12 + told.evaluation * 4)
    assert main(["train", str(config)]) == 0
    kept = {file.stat().st_ino: file.stat().st_size for file in Path("runs/tiny-001/checkpoints").iterdir()}
    assert len(kept) == told.checkpoints == 5
    assert max(kept.values()) <= told.checkpoint


def test_a_dry_run_looks_at_the_disk_that_runs_would_be_made_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Path] = []

    def full(path: Path) -> Any:
        looked_at.append(path)
        return namedtuple("usage", "total used free")(10**9, 10**9 - 5000, 5000)

    monkeypatch.setattr("shutil.disk_usage", full)
    Path("other").mkdir()
    assert main(["train", str(config), "--dry-run", "--runs", "other/not/there"]) == 2
    assert "its disk has 5.0 kB free" in capsys.readouterr().err
    assert looked_at == [config.parent / "other"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "data.train.shape=[5,4,2]"], "the net takes [4, 4, 2]"),
        (["--set", "callbacks=['./mine.py:Mine']"], "there is nowhere to post to"),
        (["--set", "warm_start={from: nowhere}"], "nowhere is no run directory"),
    ],
)
def test_a_dry_run_finds_what_would_stop_a_run(
    config: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(MINE)
    assert main(["train", str(config), "--dry-run", *argv]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_net_that_learns_by_heart(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--overfit", "8"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"learned by heart: loss [\d.]+ -> 0\.0\d+ in \d+ steps on 8 examples\n$", out)
    assert folder_of(config) == ["tiny.yaml"]


def test_a_net_that_cannot(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layernet.train.overfit._PASSES", 40)
    assert main(["train", str(config), "--overfit", "8", "--set", "optimizer.lr=0"]) == 1
    assert "not learned: loss" in capsys.readouterr().out
    assert main(["train", str(config), "--overfit", "49"]) == 2
    assert "train has 48 examples, 49 were asked for" in capsys.readouterr().err
    with pytest.raises(UsageError, match="1 example or more"):
        overfit(Experiment.load(config), 0)


def test_profile_shows_a_table_at_the_end(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--profile"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^body\s+Linear .*%$", out, re.M)
    assert out.splitlines()[-1].startswith("step in all")


def test_the_range_test_finds_where_a_loss_falls(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find-lr", str(config), "--csv", "lr.csv", "--steps", "60", "--high", "100"]) == 0
    out = capsys.readouterr().out
    found = re.search(r"suggestion: optimizer.lr=([\d.e-]+) \(lowest loss at", out)
    assert found
    assert 1e-4 < float(found[1]) < 1  # Adam on a small net
    assert folder_of(config) == ["lr.csv", "tiny.yaml"]
    with open("lr.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rates = [float(row["lr"]) for row in rows]
    ratio = (100 / 1e-6) ** (1 / 59)
    np.testing.assert_allclose(rates, [1e-6 * ratio**n for n in range(len(rows))], rtol=1e-9)
    mean = 0.0
    for number, row in enumerate(rows):
        mean = 0.9 * mean + 0.1 * float(row["loss"])
        assert float(row["smoothed"]) == pytest.approx(mean / (1 - 0.9 ** (number + 1)))


def test_the_range_test_leaves_the_net_as_it_was(config: Path) -> None:
    experiment = Experiment.load(config)
    before = experiment.net.state_dict()
    first, second = range_test(experiment, steps=20), range_test(experiment, steps=20)
    assert first == second
    assert all(np.array_equal(experiment.net.state_dict()[path], value) for path, value in before.items())


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_sweep_ends_where_the_loss_is_not_finite_whatever_the_config_does_then(
    config: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(CONFIG.replace("epochs: 4", f"epochs: 4, on_nonfinite: {policy}"))
    train_step, done = Trainer.train_step, []

    def overflows(trainer: Trainer, *batches: Batch) -> None:
        done.append(trainer.step)
        if trainer.step == 15:
            batches = tuple(replace(batch, x=np.full_like(batch.x, np.inf)) for batch in batches)
        train_step(trainer, *batches)

    monkeypatch.setattr(Trainer, "train_step", overflows)
    found = range_test(Experiment.load(config), steps=40)
    assert found.diverged
    assert (len(found.rates), done[-1]) == (15, 15)


def test_what_is_suggested_is_the_steepest_fall() -> None:
    rates = [10.0**n for n in range(-6, 2)]
    losses = [2.0, 2.0, 1.9, 1.2, 0.5, 0.4, 0.9, 3.0]
    found = RangeTest(rates, losses, losses, True)
    assert found.suggestion == 1e-3  # from 1.9 to 0.5 around it
    assert found.lowest == 1e-1
    assert "where the loss grew without bound" in found.verdict()
    assert RangeTest(rates, losses, [1.0 + n for n in range(8)], False).suggestion is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--low", "1", "--high", "0.1"], "the rates must grow"),
        (["--steps", "3"], "so few steps tell nothing"),
        (["--set", "optimizer.lr=0"], "optimizer.lr is 0"),
        (["--low", "1e20", "--high", "1e30"], "sweep from a lower rate"),
    ],
)
def test_a_sweep_that_makes_no_sense(
    config: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find-lr", str(config), *argv]) == 2
    assert message in capsys.readouterr().err


def test_the_average_of_a_run_s_checkpoints_can_be_evaluated(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config)]) == 0
    run = Path("runs/tiny-001")
    assert main(["average", str(run)]) == 0
    assert "average.npz: the mean of 4 checkpoints (step-00000003, step-00000006," in capsys.readouterr().out
    assert main(["eval", str(run), "--checkpoint", "average", "--split", "val"]) == 0
    assert "val.loss" in capsys.readouterr().out
    saved = [checkpoint.load(run / "checkpoints" / f"step-{n:08d}.npz") for n in (3, 6, 9, 12)]
    found = checkpoint.load(run / "checkpoints" / "average.npz")
    for name in ("net/head.weight", "net/batchnorm_1.running_var"):
        mean = sum(each.arrays[name].astype("float64") for each in saved) / 4
        np.testing.assert_array_equal(found.arrays[name], mean.astype("float32"))
    assert found.arrays["transform/0/mean"].tolist() == saved[0].arrays["transform/0/mean"].tolist()
    assert main(["average", str(run), "--checkpoints", "6", "last", "-o", "two.npz"]) == 0
    files = [str(run / "checkpoints" / f"{name}.npz") for name in ("step-00000006", "last")]
    assert main(["average", *files, "-o", "same.npz"]) == 0
    a, b = checkpoint.load(Path("two.npz")), checkpoint.load(Path("same.npz"))
    assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
    assert main(["resume", str(run)]) == 0  # the average does not stand in its way


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.npz", "b.npz"], "give one with -o"),
        (["a.npz", "-o", "c.npz"], "an average is of 2 checkpoints or more"),
        (["a.npz", "c.npz", "-o", "d.npz"], "c.npz does not fit a.npz:\n  missing: w (2,)\n  unknown: v (2,)"),
        (["a.npz", "e.npz", "-o", "d.npz"], "shape: w is (3,), expected (2,)"),
        (["a.npz", "f.npz", "-o", "d.npz"], "its transforms measured other data"),
        (["a.npz", "b.npz", "-o", "d.npz", "--checkpoints", "last"], "--checkpoints names those of one run"),
        (["nowhere"], "nowhere is no run directory"),
    ],
)
def test_what_has_no_average(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    two: Any = np.array([1.0, 3.0], "float32")
    for name, arrays in {
        "a": {"net/w": two},
        "b": {"net/w": 2 * two},
        "c": {"net/v": two},
        "e": {"net/w": np.zeros(3, "float32")},
        "f": {"net/w": two, "transform/0/mean": two},
    }.items():
        checkpoint.save(Path(f"{name}.npz"), Checkpoint(arrays, {"step": 1}))
    assert average_of([Path("a.npz"), Path("b.npz")]).arrays["net/w"].tolist() == [1.5, 4.5]
    assert main(["average", *argv]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not Path("d.npz").exists()
