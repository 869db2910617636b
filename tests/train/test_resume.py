"""Runs that were interrupted, stopped or are to go on for longer: resumed, they end as if nothing had happened."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from layernet.cli.main import main
from layernet.errors import CheckpointError, Interrupted, UsageError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.rundir import RunDirectory
from layernet.train.trainer import Trainer
from tests.train.conftest import Uncut
from tests.train.small import InterruptAt, assert_same_end, callback, files_of, quiet, rows, written


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path)


@pytest.mark.parametrize(
    "step", [1, 7, 10, 23, 49]
)  # in and at the end of an epoch, at a checkpoint, just before the end
def test_an_interrupted_run_resumes_to_the_same_bits(config: Path, tmp_path: Path, step: int, uncut: Uncut) -> None:
    whole = uncut(config)
    experiment = Experiment.load(config)
    handler = signal.getsignal(signal.SIGINT)
    with callback(experiment, InterruptAt(step)), pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path / "cut", console=quiet())
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    cut = tmp_path / "cut" / "small-001"
    assert checkpoint.load(cut / "checkpoints" / "last.npz").meta["step"] == step
    Experiment.resume(cut, console=quiet())
    assert_same_end(whole, cut)
    files = files_of(cut)
    Experiment.resume(cut, console=quiet())  # a finished run stays as it is
    assert_same_end(whole, cut)
    assert files_of(cut) == files


def test_an_interrupted_run_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    experiment = Experiment.load(config)
    with callback(experiment, InterruptAt(3)), pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path / "a b", console=quiet())
    run = tmp_path / "a b" / "small-001"
    assert str(caught.value) == f"interrupted by SIGINT; go on with `layernet resume '{run}'`"
    assert (run / "log.txt").read_text().endswith(f"\n{caught.value}\n")


@pytest.mark.parametrize(("step", "cure"), [(3, "go on with `layernet resume"), (8, "go on with `layernet resume")])
def test_a_second_signal_says_what_is_left(
    config: Path, tmp_path: Path, step: int, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "twice.py").write_text(
        "import layernet as ln\n\n\nclass Twice(ln.Callback):\n    def on_step(self, trainer):\n"
        f"        if trainer.step == {step}:\n            raise KeyboardInterrupt\n"
    )
    config.write_text(config.read_text() + f"callbacks: ['{tmp_path / 'twice.py'}:Twice']\n")
    assert main(["train", str(config), "--runs", str(tmp_path / "runs")]) == 130
    assert capsys.readouterr().err.startswith(f"interrupted; {cure}")


def test_a_signal_after_the_last_step_is_not_lost(config: Path, tmp_path: Path, uncut: Uncut) -> None:
    class InterruptAtTheEnd(Callback):
        def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    whole = uncut(config)
    experiment = Experiment.load(config)
    with callback(experiment, InterruptAtTheEnd()), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    cut = tmp_path / "cut" / "small-001"
    assert len(rows(cut)) == len(rows(whole)) - 1  # the test is still to come
    Experiment.resume(cut, console=quiet())
    assert_same_end(whole, cut)


@pytest.mark.parametrize("step", [7, 10])  # between two checkpoints, and at one
def test_a_run_that_a_callback_stopped_stays_stopped(config: Path, tmp_path: Path, step: int) -> None:
    class StopAt(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == step:
                trainer.stop()

    experiment = Experiment.load(config)
    with callback(experiment, StopAt()):
        run = experiment.train(tmp_path, console=quiet())
    before = rows(run)
    Experiment.resume(run, console=quiet())
    assert rows(run) == before
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == step


def test_a_run_goes_on_for_longer_as_if_it_had_been_meant_to(config: Path, tmp_path: Path, uncut: Uncut) -> None:
    constant: dict[str, Any] = {"schedule": "Constant", "data.val": {"fraction": 0.2}}
    whole = uncut(config, {**constant, "train.epochs": 4})

    class StopAt(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 15:
                trainer.stop()

    experiment = Experiment.load(config, {**constant, "train.epochs": 2})
    with callback(experiment, StopAt()):
        cut = experiment.train(tmp_path / "cut", console=quiet())
    console = Console(file=io.StringIO(), width=80)
    Experiment.resume(cut, console, {"train.epochs": 4})
    assert "train.epochs: 2 -> 4\n" in console.file.getvalue()  # type: ignore[attr-defined]
    first, second = (checkpoint.load(run / "checkpoints" / "last.npz") for run in (whole, cut))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)
    assert Experiment.open(cut).config.resolved["train"]["epochs"] == 4


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["data.batch_size=5"], "data.batch_size"),
        (["optimizer={type: SGD, lr: 0.1}"], "optimizer.type"),
        (["seed=4", "optimizer.lr=1e-3"], "seed"),
    ],
)
def test_what_a_run_cannot_change_is_refused_by_name(
    config: Path, tmp_path: Path, overrides: list[str], refused: str
) -> None:
    run = Experiment.load(config).train(tmp_path, console=quiet())
    before = (run / "resolved.yaml").read_bytes(), files_of(run)
    with pytest.raises(UsageError, match=f"{re.escape(refused)}.* cannot change when a run goes on; what can: train,"):
        Experiment.resume(run, quiet(), overrides)
    with pytest.raises(CheckpointError, match="the config trains 10 steps"):
        Experiment.resume(run, quiet(), ["train.epochs=1"])
    assert ((run / "resolved.yaml").read_bytes(), files_of(run)) == before


def test_resume_sweeps_away_what_a_killed_process_was_writing(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config).train(tmp_path, console=quiet())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    places = [run / "checkpoints" / f".last.npz.{dead.pid}.tmp", run / f".metrics.csv.{dead.pid}.tmp"]
    places.append(run / "checkpoints" / f".best.npz.{os.getpid()}.tmp")  # numbers come again, in containers soon
    for place in places:
        place.write_bytes(b"half of it")
    Experiment.resume(run, console=quiet())
    assert not any(place.exists() for place in places)


def test_a_checkpoint_is_called_as_people_call_it(config: Path, tmp_path: Path) -> None:
    run = RunDirectory.open(Experiment.load(config, {"train.checkpoint.keep": 2}).train(tmp_path, console=quiet()))
    (name, *_) = [name for name in run.checkpoints() if name.startswith("step-")]
    number = int(name.removeprefix("step-"))
    for spelt in (name, f"{name}.npz", f"step-{number}", str(number)):
        assert run.find(spelt) == run.checkpoint(name)
    assert run.find("last.npz") == run.checkpoint("last")
    with pytest.raises(UsageError, match="has no checkpoint 'lst'; did you mean 'last'"):
        run.find("lst")
    for file in (run.path / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="it ended before its first one; train again"):
        Experiment.open(run.path)


def test_after_the_first_signal_any_second_acts_as_always(config: Path, tmp_path: Path) -> None:
    class Watch(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                handlers.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    handlers = [[signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]]
    experiment = Experiment.load(config)
    with callback(experiment, Watch()), pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path, console=quiet())
    assert caught.value.exit_code == 143
    assert handlers[1] == handlers[0]


AVERAGES = ["{type: EMA, decay: 0.9}", "{type: SWA, start: 2 epochs, every: 3 steps}"]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("step", [1, 23])  # before SWA starts, and after
def test_averages_are_evaluated_and_saved_and_resume_to_the_same_bits(
    tmp_path: Path, config: Path, average: str, step: int
) -> None:
    config.write_text(config.read_text() + f"average: {average}\n")
    first = Experiment.load(config, {"train.checkpoint.best": None})
    whole = first.train(tmp_path / "whole", console=quiet())
    experiment = Experiment.load(config, {"train.checkpoint.best": None})
    with callback(experiment, InterruptAt(step)), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    resumed = Experiment.resume(tmp_path / "cut" / "small-001", console=quiet())
    assert_same_end(whole, tmp_path / "cut" / "small-001")
    # what is saved as the net is what was evaluated and tested, and is not what trained on
    saved = checkpoint.load(whole / "checkpoints" / "last.npz")
    assert any((saved.group("net")[path] != value).any() for path, value in saved.group("trained").items())
    for each in (first, resumed, Experiment.open(whole)):
        for path, value in each.net.state_dict().items():
            np.testing.assert_array_equal(value, saved.group("net")[path])
    *_, last, test = rows(whole)
    assert float(last["val.loss"]) == Experiment.open(whole).evaluate("val")["loss"]
    assert float(test["test.loss"]) == Experiment.open(whole).evaluate("test")["loss"]
    plain = Experiment.load(config, {"average": None}).train(tmp_path / "plain", console=quiet())
    for path, value in checkpoint.load(plain / "checkpoints" / "last.npz").group("net").items():
        np.testing.assert_array_equal(saved.group("trained")[path], value)  # training knows nothing of it


@pytest.mark.parametrize("step", [12, 23, 30])  # before a lowering, between two, at an evaluation that lowers
def test_a_plateau_lowers_and_resumes_to_the_same_bits(config: Path, tmp_path: Path, step: int, uncut: Uncut) -> None:
    # nothing is ever better by 90 %: every second evaluation after the first lowers
    schedule = {"type": "Plateau", "factor": 0.5, "patience": 1, "watch": "val.loss", "threshold": 0.9}
    overrides = {"schedule": schedule, "data.val": {"fraction": 0.2}}
    whole = uncut(config, overrides)
    assert [float(row["lr"]) for row in rows(whole)[:-1]] == [0.01, 0.01, 0.01, 0.005, 0.005]
    experiment = Experiment.load(config, overrides)
    with callback(experiment, InterruptAt(step)), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    Experiment.resume(tmp_path / "cut" / "small-001", console=quiet())
    assert_same_end(whole, tmp_path / "cut" / "small-001")


def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config, {"train.epochs": 1}).train(tmp_path, console=quiet())
    with pytest.raises(UsageError, match="has no checkpoint 'bst'; did you mean 'best'"):
        Experiment.open(run, "bst")
    with pytest.raises(UsageError, match=r"no data\.tset; did you mean 'test'"):
        Experiment.open(run).evaluate("tset")
