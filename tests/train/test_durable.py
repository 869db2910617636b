"""What a run survives: signals at any moment, another process beside it, damaged files, disks full or closed."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import layernet as ln
from layernet.cli.main import main
from layernet.data.loader import Loader
from layernet.errors import CheckpointError, Interrupted, LayernetError, UsageError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.experiment import Experiment
from layernet.train.files import write_text
from layernet.train.rundir import RunDirectory
from layernet.train.trainer import Trainer
from tests.train.conftest import Uncut

ROOT = Path(__file__).parents[2]

CONFIG = """
layernet: 1
seed: 3
device: cpu
kernels: numpy
threads: 1
data:
  train: {type: FakeData, shape: [4, 4, 2], classes: 3, length: 60, transforms: [Normalize, RandomHorizontalFlip]}
  val: {fraction: 0.2}
  test: {type: FakeData, shape: [4, 4, 2], classes: 3, length: 20, seed: 1}
  batch_size: 6
net: {input: [4, 4, 2], layers: [{type: Dropout, p: 0.2}, Flatten, BatchNorm, {type: Linear, out_features: 3}]}
loss: CrossEntropy
metrics: [accuracy]
optimizer: {type: Adam, lr: 0.01}
train: {epochs: 4, checkpoint: {every: 3 steps}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def end_of(run: Path) -> tuple[Any, ...]:
    """What two equal runs have in common."""
    saved = checkpoint.load(run / "checkpoints" / "last.npz")
    with open(run / "metrics.csv", newline="") as stream:
        rows = [
            {k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in csv.DictReader(stream)
        ]
    return rows, {name: (array.dtype, array.tobytes()) for name, array in saved.arrays.items()}, saved.meta["meter"]


def layernet(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "layernet", *map(str, arguments)]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=there, **pipes, **options)


class Cut(Callback):
    """Ends a run as SIGKILL would, as far as one process can: nothing is told to anybody."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise SystemExit


def cut(config: Path, runs: Path, step: int, overrides: dict[str, Any] | None = None) -> Path:
    """A run that ended without a word."""
    experiment = Experiment.load(config, overrides or {})
    experiment.config.callbacks.append(Cut(step))
    with pytest.raises(SystemExit):
        experiment.train(runs, console=quiet())
    return max(runs.glob("small-*"))


# ends of any kind


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(config: Path, tmp_path: Path, uncut: Uncut) -> None:
    whole = uncut(config)
    run, console = cut(config, tmp_path / "cut", 2), quiet()
    assert RunDirectory(run).checkpoints() == []
    Experiment.resume(run, console)
    assert "no checkpoint was saved yet: it begins anew\n" in said(console)
    assert end_of(run) == end_of(whole)


def test_a_run_that_ended_before_it_had_begun_says_so(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    with pytest.raises(UsageError, match="it was ended before it had begun; train again"):
        Experiment.resume(run.path)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(
    config: Path, tmp_path: Path, uncut: Uncut
) -> None:
    whole = uncut(config)
    run = RunDirectory(cut(config, tmp_path / "cut", 11))
    assert run.checkpoints() == ["best", "last", "step-00000006", "step-00000009"]
    content = run.checkpoint("last").read_bytes()
    run.checkpoint("last").write_bytes(content[:-100])  # and with it step-9, which is the same file
    console = quiet()
    Experiment.resume(run.path, console)
    assert f"{run.checkpoint('last')} cannot be read: " in said(console)
    assert "going on from checkpoint step-00000006 in its place\n" in said(console)
    assert end_of(run.path) == end_of(whole)


def test_best_is_a_checkpoint_to_go_on_from_like_any_other(config: Path, tmp_path: Path, uncut: Uncut) -> None:
    whole = uncut(config)
    run = RunDirectory(cut(config, tmp_path / "cut", 11))
    for name in ("last", "step-00000006", "step-00000009"):
        run.checkpoint(name).unlink()
    Experiment.resume(run.path, quiet())
    assert end_of(run.path) == end_of(whole)


def test_when_all_are_damaged_each_is_named(config: Path, tmp_path: Path) -> None:
    run = RunDirectory(Experiment.load(config).train(tmp_path, console=quiet()))
    run.checkpoint("last").write_bytes(b"")
    with pytest.raises(CheckpointError, match="beside it are best, step-"):
        Experiment.open(run.path, "last")
    for name in run.checkpoints():
        run.checkpoint(name).write_bytes(b"half")
    with pytest.raises(CheckpointError) as caught:
        Experiment.resume(run.path, quiet())
    assert all(str(run.checkpoint(name)) in str(caught.value) for name in run.checkpoints())


def test_files_that_were_edited_since_are_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW.format(ticks=0))
    run = RunDirectory(cut(config, tmp_path / "runs", 11, {"callbacks": ["./slow.py:Slow"]}))

    def resumed(*overrides: str) -> list[str]:
        console = quiet()
        Experiment.resume(run.path, console, overrides)
        return [line for line in said(console).splitlines() if line.startswith("warning:")]

    assert resumed() == []
    assert resumed("train.epochs=5") == []
    assert resumed() == []  # what --set changes is no edit
    for name, old, new in (
        ("config.yaml", "seed: 3", "seed: 4"),
        ("resolved.yaml", "epochs: 5", "epochs: 6"),
        ("slow.py", "0.05", "0.04"),
    ):
        text = (run.path / name).read_text()
        assert old in text
        (run.path / name).write_text(text.replace(old, new))
    since = "was edited since the run was begun"
    assert sorted(resumed()) == [
        f"warning: {run.path}/config.yaml {since}; it goes by resolved.yaml: change that with --set",
        f"warning: {run.path}/resolved.yaml {since}; it goes on as that says",
        f"warning: {run.path}/slow.py {since}; it goes on as that says",
    ]
    assert checkpoint.load(run.checkpoint("last")).meta["step"] == 48
    (run.path / "run.json").unlink()  # nothing is known, nothing said
    assert resumed() == []


def test_what_does_not_fit_is_listed_whole_and_nothing_is_loaded(config: Path, tmp_path: Path) -> None:
    run = RunDirectory(cut(config, tmp_path / "runs", 11))
    saved = checkpoint.load(run.checkpoint("last"))
    saved.arrays["net/linear_1.weight"] = np.zeros((3, 5), dtype="float32")
    del saved.arrays["net/batchnorm_1.running_mean"]
    del saved.arrays["optimizer/exp_avg/linear_1.bias"]
    saved.add("net", {"old.weight": np.ones(2)})
    saved.add("gone", {"x": np.ones(2)})
    experiment = Experiment.load(config)
    trainer = Trainer(experiment.config, experiment.net, experiment.loaders)
    before = experiment.net.state_dict(), trainer.optimizer.state_dict()
    with pytest.raises(CheckpointError) as caught:
        ln.train.state.restore(saved, trainer)
    for line in (
        "missing: batchnorm_1.running_mean (32,)",
        "unknown: old.weight (2,)",
        "shape: linear_1.weight is (3, 5), the net has (3, 32)",
        "of the optimizer, missing: exp_avg/linear_1.bias (3,)",
        "unknown: gone/x",
    ):
        assert f"\n  {line}" in str(caught.value)
    for kept, now in zip(before, (experiment.net.state_dict(), trainer.optimizer.state_dict()), strict=True):
        for name, value in kept.items():
            np.testing.assert_array_equal(value, now[name])
    saved = checkpoint.load(run.checkpoint("last"))
    del saved.meta["meter"]
    with pytest.raises(CheckpointError, match="does not say where training stood: KeyError: 'meter'"):
        ln.train.state.restore(saved, trainer)


def test_weights_that_are_not_finite_are_warned_of(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(Experiment.load(config).train(tmp_path, console=quiet()))
    saved = checkpoint.load(run.checkpoint("last"))
    saved.arrays["net/linear_1.bias"][1] = np.nan
    checkpoint.save(run.checkpoint("last"), saved)
    warning = "warning: the checkpoint holds NaN or infinity: linear_1.bias\n"
    Experiment.open(run.path, "last")
    assert capsys.readouterr().err == f"{run.path}: {warning}"
    console = quiet()
    Experiment.resume(run.path, console)
    assert warning in said(console)


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_change_nothing(kills: int) -> None:
    command = [sys.executable, "scripts/kills.py", str(kills), "--seed", "1"]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=there)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.startswith(f"{kills} kills")


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_faults_at_system_calls_of_a_save_lose_nothing(every: int) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    command = [sys.executable, "scripts/faults.py", "--every", str(every)]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=there)
    if "strace cannot trace" in found.stderr:
        pytest.skip("strace may not trace here")
    assert found.returncode == 0, found.stdout + found.stderr


# signals


class SignalIn(Callback):
    """Sends a signal in the third batch of the evaluation after `step`, or of the test at its end."""

    def __init__(self, number: int, step: int, split: str = "val") -> None:
        self.number, self.at, self.split = number, step, split

    def on_start(self, trainer: Trainer) -> None:
        loader, batches, number = trainer.loaders[self.split], trainer.loaders[self.split].batches, self.number

        def sending(epoch: int) -> Iterator[Any]:
            for index, batch in enumerate(batches(epoch)):
                if index == 1 and trainer.step == self.at:
                    os.kill(os.getpid(), number)
                yield batch
                assert index < 2 or trainer.step != self.at, "it was not answered between two batches"

        vars(loader)["batches"] = sending


@pytest.mark.parametrize(
    ("name", "split", "code"),
    [("SIGINT", "val", 130), ("SIGTERM", "val", 143), ("SIGHUP", "val", 129), ("SIGTERM", "test", 143)],
)
def test_a_signal_in_an_evaluation_is_answered_before_its_next_batch(
    config: Path, tmp_path: Path, name: str, split: str, code: int, uncut: Uncut
) -> None:
    overrides = {"data.eval_batch_size": 2}
    whole = uncut(config, overrides)
    experiment = Experiment.load(config, overrides)
    step = 16 if split == "val" else 32
    experiment.config.callbacks.append(SignalIn(getattr(signal, name), step, split))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        experiment.train(tmp_path / "cut", console=quiet())
    assert caught.value.exit_code == code
    assert signal.getsignal(signal.SIGTERM) is before
    run = tmp_path / "cut" / "small-001"
    saved = checkpoint.load(run / "checkpoints" / "last.npz").meta
    assert saved["step"] == step
    assert saved["row_due"] == (split == "val")
    assert len(saved["history"]) == (1 if split == "val" else 4)
    Experiment.resume(run, quiet())
    assert end_of(run) == end_of(whole)


def test_what_was_ignored_stays_ignored(config: Path, tmp_path: Path) -> None:
    class Nohup(Callback):
        def on_step(self, trainer: Trainer) -> None:
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        experiment = Experiment.load(config, {"train.epochs": 1})
        experiment.config.callbacks.append(Nohup())
        experiment.train(tmp_path, console=quiet())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Sends(Callback):
    """Sends SIGINT, a moment after a step or when it is told to."""

    def __init__(self, step: int | None = None) -> None:
        self.step, self.sent = step, 0.0

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            threading.Timer(0.05, self.send).start()

    def send(self) -> None:
        self.sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)


def interrupted(config: Path, runs: Path, sends: Sends, overrides: dict[str, Any]) -> tuple[Path, float]:
    """A run that got a signal, and the seconds until it had saved and ended."""
    experiment = Experiment.load(config, overrides)
    experiment.config.callbacks.append(sends)
    with pytest.raises(Interrupted) as caught:
        experiment.train(runs, console=quiet())
    assert caught.value.exit_code == 130
    return max(runs.glob("small-*")), time.monotonic() - sends.sent


def test_a_signal_in_a_slow_step_is_answered_after_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step, sends = Trainer.train_step, Sends()

    def slow(trainer: Trainer, *batches: Any) -> None:
        if trainer.step == 4:
            sends.send()
            time.sleep(0.5)
        train_step(trainer, *batches)

    monkeypatch.setattr(Trainer, "train_step", slow)
    run, seconds = interrupted(config, tmp_path, sends, {})
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 5
    assert 0.5 <= seconds < 4


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize(("split", "step"), [("train", 4), ("val", 8)])
def test_a_signal_while_data_is_waited_for_is_answered_at_once(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, step: int, prefetch: bool, uncut: Uncut
) -> None:
    sends, make, late = Sends(4 if split == "train" else None), Loader._make, threading.Event()

    def slow(loader: Loader, indices: Any, epoch: int, number: int) -> Any:
        if number == 4 and loader.augment and split == "train":
            late.wait(30)
        if number == 1 and loader.batch_size == 2 and split == "val":
            sends.send()
            late.wait(30)
        return make(loader, indices, epoch, number)

    overrides = {"data.eval_batch_size": 2, "data.prefetch": prefetch}
    whole = uncut(config, overrides)
    with monkeypatch.context() as patch:
        patch.setattr(Loader, "_make", slow)
        run, seconds = interrupted(config, tmp_path / "cut", sends, overrides)
    late.set()
    assert seconds < 4
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == step
    Experiment.resume(run, quiet())
    assert end_of(run) == end_of(whole)


def test_a_signal_in_a_save_is_answered_after_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uncut: Uncut
) -> None:
    whole = uncut(config)
    experiment, fsync, saves = Experiment.load(config), os.fsync, []

    def sending(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(f".last.npz.{os.getpid()}.tmp"):
            saves.append(descriptor)
            if len(saves) == 2:
                os.kill(os.getpid(), signal.SIGINT)
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sending)
        with pytest.raises(Interrupted):
            experiment.train(tmp_path / "cut", console=quiet())
    run = tmp_path / "cut" / "small-001"
    assert len(saves) == 2  # what was being saved is all there is to save
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 6
    assert not list(run.rglob("*.tmp"))
    Experiment.resume(run, quiet())
    assert end_of(run) == end_of(whole)


SLOW = """
import time
import layernet as ln

class Slow(ln.Callback):
    def on_step(self, trainer):
        for _ in range({ticks}):
            print("tick", flush=True)
            time.sleep(0.05)

class Late(ln.Transform):
    calls = 0

    def __call__(self, x, rng):
        if rng is not None:
            self.calls += 1
            if self.calls > 2:  # the loader's thread is in it while the net is in its first step
                time.sleep(60)
        return x
"""


def test_the_first_signal_saves_and_the_second_ends_at_once(config: Path, tmp_path: Path) -> None:
    text = CONFIG.replace("epochs: 4", "epochs: 400").replace("HorizontalFlip]", "HorizontalFlip, ./slow.py:Late]")
    config.write_text(text + "callbacks: ['./slow.py:Slow']\n")
    runs = tmp_path / "runs with spaces"
    ends = [(signal.SIGHUP, 129, False), (signal.SIGTERM, -signal.SIGTERM, True), (signal.SIGINT, 130, True)]
    for number, code, twice in ends:
        (tmp_path / "slow.py").write_text(SLOW.format(ticks=1000 if twice else 2))
        process = layernet("train", config, "--runs", runs)
        assert process.stdout is not None
        while process.stdout.readline() != "tick\n":
            assert process.poll() is None
        began = time.monotonic()
        process.send_signal(number)
        if twice:
            assert [process.stdout.readline() for _ in range(3)] == ["tick\n"] * 3  # the first has come
            began = time.monotonic()
            process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == code, err
        assert time.monotonic() - began < (1.5 if twice else 4)  # 0.1 s on a machine that has nothing else to do
        run = max(runs.iterdir())
        if not twice:
            assert err == f"interrupted by SIGHUP; go on with `layernet resume '{run}'`\n"
            assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] >= 1


def test_ctrl_c_before_there_is_a_run_says_that_there_is_none(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "_open_data", interrupted)
    assert main(["train", str(config), "--runs", str(tmp_path / "runs")]) == 130
    assert capsys.readouterr().err == "interrupted; no run was begun, and nothing was written\n"
    assert not (tmp_path / "runs").exists()


# locks


def test_a_run_in_use_names_its_process(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Experiment.load(config).train(tmp_path, console=quiet())
    assert (run / ".lock").read_text() == ""
    with RunDirectory(run).locked():
        assert (run / ".lock").read_text() == f"{os.getpid()}\n"
        process = layernet("resume", run)
        _, err = process.communicate()
        assert process.returncode == 2
        assert err == (
            f"error: {run} is in use by process {os.getpid()}; wait until it has ended, or end it: kill {os.getpid()}\n"
        )
        assert main(["resume", str(run)]) == 2  # twice in one process, too
        assert Experiment.open(run).evaluate("val")  # who reads, waits for nobody
    capsys.readouterr()
    Experiment.resume(run, quiet())


def test_the_lock_of_a_process_that_was_killed_is_nobodys(config: Path, tmp_path: Path) -> None:
    run = cut(config, tmp_path / "runs", 5)
    code = "from layernet.train.files import locked; import pathlib, os\n"
    code += f"with locked(pathlib.Path({str(run)!r})): os.kill(os.getpid(), 9)"
    dead = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert dead.returncode == -signal.SIGKILL
    assert (run / ".lock").read_text().strip().isdigit()
    Experiment.resume(run, quiet())
    assert (run / ".lock").read_text() == ""


def test_a_file_system_without_locks_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunDirectory.create(tmp_path, "x").locked():
        pass


# disks


def test_a_disk_without_room_is_refused_before_training(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5000, 5000))
    assert main(["train", str(config), "--runs", str(tmp_path / "runs")]) == 2
    assert "its disk has 5.0 kB free; free some, " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


class Refuses(Callback):
    """Ends a run as wrong usage does, at its start or after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_start(self, trainer: Trainer) -> None:
        self.on_step(trainer)

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise UsageError("not here")


def test_a_run_that_is_refused_leaves_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(step: int) -> None:
        experiment = Experiment.load(config)
        experiment.config.callbacks.append(Refuses(step))
        with pytest.raises(UsageError, match="not here"):
            experiment.train(tmp_path / "deep" / "runs", console=quiet())

    refused(0)
    assert os.listdir(tmp_path) == ["small.yaml"]
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == "run.json":
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert main(["train", str(config), "--runs", str(tmp_path / "runs")]) == 1
    assert "run.json cannot be written: No space left on device; " in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["small.yaml"]
    (tmp_path / "deep" / "runs").mkdir(parents=True)
    refused(0)
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "runs"]  # it was there before
    refused(9)  # there is an evaluation and a checkpoint: what was trained stays
    assert RunDirectory(tmp_path / "deep" / "runs" / "small-001").checkpoints()


def test_what_checkpoints_take_is_known_before_there_is_one(config: Path, tmp_path: Path) -> None:
    for overrides in ({}, {"average": "EMA"}, {"optimizer": {"type": "SGD", "lr": 0.1}}):
        experiment = Experiment.load(config, {**overrides, "net.layers.3.out_features": 3000, "train.epochs": 1})
        expected = ln.train.state.size_of(experiment.config, experiment.net)
        run = experiment.train(tmp_path, console=quiet())
        size = (run / "checkpoints" / "last.npz").stat().st_size
        assert size <= expected < 1.02 * size + (1 << 16)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_directory_that_cannot_be_written_is_refused_before_training(config: Path, tmp_path: Path) -> None:
    run = Experiment.load(config, {"train.epochs": 1}).train(tmp_path / "runs", console=quiet())
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and str(path).startswith(str(Path(os.environ.get("TMPDIR", "/tmp")) / "")):
            path.chmod(0o755)
    for path in (run / "checkpoints").iterdir():
        path.chmod(0o644)
    code = (
        "import os\nfrom layernet.cli.main import main\nfrom layernet.train.experiment import Experiment\n"
        f"Experiment.load({str(config)!r})\nos.setuid(65534)\nprint(main(['resume', {str(run)!r}]))\n"
        f"print(main(['train', {str(config)!r}, '--runs', {str(tmp_path / 'runs')!r}]))"
    )
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=there)
    assert found.stdout == "2\n2\n", found.stderr
    assert found.stderr.count("Permission denied") == len(found.stderr.splitlines()) == 2
    assert os.listdir(tmp_path / "runs") == [run.name]


@pytest.mark.parametrize("name", ["metrics.csv", "last.npz", "best.npz"])
def test_a_disk_that_fills_up_is_one_line(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    uncut: Uncut,
) -> None:
    whole = uncut(config)
    replace, written = os.replace, []

    def full(source: Any, target: Any) -> None:
        if Path(target).name == name:
            written.append(target)
            if len(written) == 2:
                raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert main(["train", str(config), "--runs", str(tmp_path / "runs")]) == 1
    run = tmp_path / "runs" / "small-001"
    err = capsys.readouterr().err
    assert err.startswith(f"error: {written[0]} cannot be written: No space left on device; ")
    assert len(err.splitlines()) == 1
    assert not list(run.rglob("*.tmp"))
    Experiment.resume(run, quiet())
    assert end_of(run) == end_of(whole)


class Fills(Callback):
    """Lets no file grow beyond that of a log after a step, as a full disk does: part of a line still fits."""

    def __init__(self, pattern: str, step: int) -> None:
        self.pattern, self.at = pattern, step

    def on_evaluate(self, trainer: Trainer, row: Any) -> None:
        assert trainer.directory is not None
        if trainer.step == self.at:
            (file,) = trainer.directory.glob(self.pattern)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 20, hard))


@pytest.mark.parametrize(
    ("callback", "pattern"), [("JSONLines", "metrics.jsonl"), ("TensorBoard", "tensorboard/events.*")]
)
def test_a_disk_that_fills_up_under_a_log_is_one_line(
    config: Path, tmp_path: Path, callback: str, pattern: str, uncut: Uncut
) -> None:
    overrides = {"callbacks": [callback], "train.checkpoint.best": None}
    whole = uncut(config, overrides)
    experiment = Experiment.load(config, overrides)
    experiment.config.callbacks.insert(0, Fills(pattern, 16))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(LayernetError) as caught:
            experiment.train(tmp_path / "runs", console=quiet())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run = RunDirectory(tmp_path / "runs" / "small-001")
    (file,) = run.path.glob(pattern)
    assert str(caught.value) == f"{file} cannot be written: File too large; what was saved before is untouched"
    assert caught.value.exit_code == 1
    assert not list(run.path.rglob("*.tmp"))
    assert [checkpoint.load(run.checkpoint(name)).meta["step"] for name in run.checkpoints()] == [15, 12, 15]
    Experiment.resume(run.path, quiet())
    assert end_of(run.path) == end_of(whole)
    if callback == "JSONLines":
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [8, 16, 24, 32, 32]


def test_a_log_that_cannot_be_written_ends_nothing(config: Path, tmp_path: Path) -> None:
    class Full(Callback):
        def on_start(self, trainer: Trainer) -> None:
            assert trainer.directory is not None
            (trainer.directory / "log.txt").unlink()
            (trainer.directory / "log.txt").symlink_to("/dev/full")

    experiment = Experiment.load(config, {"train.epochs": 1})
    experiment.config.callbacks.append(Full())
    run = experiment.train(tmp_path, console=quiet())
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 8


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_text(pipe, "told")
        assert read.result() == "told"
    assert pipe.is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for text in ("new", "newer"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_text() == text
    with open(tmp_path / "out", "w") as stream:  # /dev/fd/N is then a file, and no place to rename anything to
        write_text(Path(f"/dev/fd/{stream.fileno()}"), "told")
    assert (tmp_path / "out").read_text() == "told"
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "out", "pipe"]


@pytest.mark.parametrize("place", ["with spaces", "ümläut-走", "'quoted' \"twice\" $HOME", "x" * 200])
def test_directories_may_be_called_anything(
    config: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / place).symlink_to(tmp_path / "target", target_is_directory=True)
    moved = config.rename(tmp_path / place / f"{place[:40]}.yaml")
    runs = tmp_path / place / "runs"
    assert main(["train", str(moved), "--runs", str(runs), "--set", "train.epochs=1"]) == 0
    (run,) = runs.iterdir()
    assert main(["resume", str(run), "--set", "train.epochs=2"]) == 0
    assert main(["eval", str(run)]) == 0
    assert capsys.readouterr().err == ""


# policies


def test_checkpoints_by_the_clock(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 7))
    monkeypatch.setattr("layernet.train.recorder.time.monotonic", lambda: next(clock))
    saved: list[int] = []
    save_last = RunDirectory.save_last

    def noted(self: RunDirectory, state: checkpoint.Checkpoint, keep: int) -> None:
        saved.append(state.meta["step"])
        save_last(self, state, keep)

    monkeypatch.setattr(RunDirectory, "save_last", noted)
    run = Experiment.load(config, {"train.checkpoint.every": "0.5 minutes"}).train(tmp_path, console=quiet())
    assert saved == [5, 10, 15, 20, 25, 30, 32]  # every fifth look at the clock, and at the end
    assert "every: 0.5 minutes" in (run / "resolved.yaml").read_text()


def test_saving_takes_little_memory(config: Path, tmp_path: Path) -> None:
    layers = [{"type": "Flatten"}, *({"type": "Linear", "out_features": n} for n in (300, 300, 300, 3))]
    experiment = Experiment.load(config, {"net.layers": layers})
    trainer = Trainer(experiment.config, experiment.net, experiment.loaders)
    run = RunDirectory.create(tmp_path, "x")
    run.save_last(ln.train.state.capture(trainer), keep=1)  # all that is imported at the first time
    tracemalloc.start()
    try:
        run.save_last(ln.train.state.capture(trainer), keep=1)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * 300 * 300 * 4
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        saved = checkpoint.load(run.checkpoint("last"))
        held = sum(array.nbytes for array in saved.arrays.values())
        assert tracemalloc.get_traced_memory()[1] - before < held + 2.2 * 300 * 300 * 4
    finally:
        tracemalloc.stop()


def test_best_by_any_metric(config: Path, tmp_path: Path) -> None:
    for best in ("val.loss", "val.accuracy"):
        run = Experiment.load(config, {"train.checkpoint.best": best}).train(tmp_path, console=quiet())
        history = checkpoint.load(run / "checkpoints" / "best.npz").meta["history"]
        values = [row[best] for row in checkpoint.load(run / "checkpoints" / "last.npz").meta["history"]]
        top = min(values) if best == "val.loss" else max(values)
        assert history[-1][best] == top


def long_run(config: Path, tmp_path: Path, steps: int) -> list[tuple[int, int]]:
    """(resident pages, open files) at a tenth and at the end of a run with saves and evaluations all along."""
    held: list[tuple[int, int]] = []

    class Weigh(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.step in (steps // 10, steps - 1):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                held.append((pages, len(os.listdir("/proc/self/fd"))))

    overrides = {
        "train.epochs": None,
        "train.steps": steps,
        "train.eval_every": f"{steps // 20} steps",
        "train.checkpoint.every": f"{steps // 20} steps",
        "train.log_every": f"{steps // 5} steps",
        "data.prefetch": steps > 10**4,
    }
    experiment = Experiment.load(config, overrides)
    experiment.config.callbacks.append(Weigh())
    experiment.train(tmp_path, console=quiet())
    return held


@pytest.mark.parametrize("steps", [2000, pytest.param(10**5, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_memory_and_open_files_are_flat(config: Path, tmp_path: Path, steps: int) -> None:
    (before, files), (after, files_after) = long_run(config, tmp_path, steps)
    assert files_after == files
    assert (after - before) * os.sysconf("SC_PAGE_SIZE") < max(steps, 4000) / 1000 * 2**20
