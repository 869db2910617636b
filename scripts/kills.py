"""Kills training at random moments and resumes it until it is done: `kills.py [KILLS] [--jobs N] [--seed S]`.

SIGKILL, so that nobody can tidy up. Every run must end with the weights, optimizer state, statistics and metrics of
the run that nobody killed, bit for bit; only columns of time may differ. Each run is killed up to MOST times. Half of
the kills come at a moment drawn from the time that a run takes, half at one drawn within a phase that seldom lasts (a
save, an evaluation, before the first save). Processes are forked from one that has imported everything, so that most
of their life is training. Exit code 1 where a run ends otherwise.
"""

from __future__ import annotations

import argparse
import csv
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # a process with threads must not be forked

from layernet.cli.main import main as layernet  # noqa: E402
from layernet.train import checkpoint, experiment, recorder, trainer  # noqa: E402

MOST = 6
TIMES = ("seconds", "row_seconds", "images_per_second")
PARTS = ("resolved.yaml", "last", "best", "metrics.csv")
PHASES = ("before its first save", "in a step", "in an evaluation", "in a save", "in the test")

CONFIG = """
layernet: 1
seed: 3
device: cpu
kernels: numpy
data:
  train:
    type: FakeData
    shape: [8, 8, 2]
    classes: 4
    length: 220
    transforms: [Normalize, {type: RandomCrop, size: 8, padding: 1}, RandomHorizontalFlip, ColorNoise]
  val: {fraction: 0.2}
  test: {type: FakeData, shape: [8, 8, 2], classes: 4, length: 60, seed: 1}
  batch_size: 8
net:
  input: [8, 8, 2]
  layers:
    - {type: Conv2d, out_channels: 4, kernel_size: 3, padding: 1}
    - BatchNorm
    - ReLU
    - {type: Dropout, p: 0.3}
    - Flatten
    - {type: Linear, out_features: 4}
loss: [CrossEntropy, {type: L2Penalty, weight: 1e-3}]
metrics: [accuracy]
optimizer: {type: Adam, lr: 0.003, weight_decay: 1e-4}
schedule: {type: Cosine, warmup: 1 epochs}
average: {type: EMA, decay: 0.9}
callbacks: [{type: EarlyStopping, watch: val.accuracy, patience: 3, min_delta: 0.01}]
train: {epochs: 14, accumulate: 2, clip_norm: 1.0, eval_every: 7 steps, checkpoint: {every: 5 steps, best: val.loss}}
"""


class Phase:
    """What a child is doing, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    @property
    def now(self) -> str:
        """One of PHASES."""
        return PHASES[self._shared[0]]

    @now.setter
    def now(self, phase: str) -> None:
        self._shared[0] = PHASES.index(phase)

    def during(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the phase set while it runs."""

        def run(*args: Any, **kwargs: Any) -> Any:
            before, self.now = self.now, name
            try:
                return function(*args, **kwargs)
            finally:
                self.now = "in a step" if name == "in a save" else before

        return run


def watch(phase: Phase) -> None:
    """Make training say what it is doing: in a child, before it runs."""
    trainer.Trainer._evaluate = phase.during("in an evaluation", trainer.Trainer._evaluate)
    recorder.Recorder._save_what_is_due = phase.during("in a save", recorder.Recorder._save_what_is_due)
    experiment.Experiment._finish = phase.during("in the test", experiment.Experiment._finish)


def start(arguments: list[str], phase: Phase, log: Path) -> int:
    """A child that runs the command line; its process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        watch(phase)
        code = layernet(arguments)
        sys.stdout.flush()
    finally:
        os._exit(code)


def result(run: Path) -> tuple[Any, ...]:
    """All that must be equal, of a run that is done."""
    parts: list[Any] = [(run / "resolved.yaml").read_bytes()]
    for name in ("last", "best"):
        saved = checkpoint.load(run / "checkpoints" / f"{name}.npz")
        meta = {key: value for key, value in saved.meta.items() if key not in (*TIMES, "config")}
        meta["history"] = [without_times(row) for row in meta["history"]]
        parts.append((repr(meta), [(key, x.dtype, x.shape, x.tobytes()) for key, x in saved.arrays.items()]))
    with open(run / "metrics.csv", newline="") as stream:
        parts.append([without_times(row) for row in csv.DictReader(stream)])
    return tuple(parts)


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMES}


def one_run(folder: Path, rng: random.Random, kills: int, whole: float) -> Counter[str]:
    """A run with so many kills, to its end; the phases they came in. Raises RuntimeError where it does not end well."""
    phase, log, found = Phase(), folder / "log", Counter[str]()
    (folder / "small.yaml").write_text(CONFIG)
    while True:
        run = folder / "runs" / "small-001"
        begun = (run / "resolved.yaml").exists()
        if not begun and run.exists():
            found["before its run was begun"] += 1
            run.rename(folder / f"not-begun-{time.monotonic_ns()}")
        phase.now = "in a step" if list(run.glob("checkpoints/*.npz")) else "before its first save"
        arguments = ["resume", str(run)] if begun else ["train", str(folder / "small.yaml"), "--runs", str(run.parent)]
        pid = start(arguments, phase, log)
        if kills and killed(pid, phase, rng, whole, found):
            kills -= 1
            continue
        if not kills:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code:
                raise RuntimeError(f"exit code {code}:\n{log.read_text()}")
            return found
        kills = 0  # it was done before its time


def killed(pid: int, phase: Phase, rng: random.Random, whole: float, found: Counter[str]) -> bool:
    """Kill the child at a random moment; False where it was done before."""
    wanted = rng.choice([None, None, None, "in a save", "in an evaluation", "before its first save"])
    moment = time.monotonic() + rng.uniform(0, 0.6 * whole)
    while time.monotonic() < moment or (wanted and phase.now != wanted):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        if wanted and time.monotonic() > moment + whole:
            break
        time.sleep(0 if wanted else 0.001)
    if wanted:
        until = time.monotonic() + rng.uniform(0, 0.01)
        while time.monotonic() < until:
            pass
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    found[phase.now] += 1
    return True


def worker(folder: Path, kills: int, seed: int) -> int:
    """Runs until so many kills were made; prints what they hit. The exit code."""
    rng, found, resumed, runs = random.Random(seed), Counter[str](), 0, 0
    folder.mkdir()
    began = time.monotonic()
    (folder / "whole").mkdir()
    one_run(folder / "whole", rng, 0, 0.0)
    whole = time.monotonic() - began
    expected = result(folder / "whole" / "runs" / "small-001")
    while (done := sum(count for phase, count in found.items() if phase in PHASES)) < kills:
        place = folder / f"run-{runs}"
        place.mkdir()
        found += one_run(place, rng, min(rng.randint(1, MOST), kills - done), whole)
        runs += 1
        resumed += (place / "log").read_text().count("resumed at step")
        for name, value, wanted in zip(PARTS, result(place / "runs" / "small-001"), expected, strict=True):
            if value != wanted:
                print(f"DIFFERS: {name}\n{(place / 'log').read_text()}\n{str(wanted)[:4000]}\n{str(value)[:4000]}")
                return 1
        if list(place.glob("runs/small-001/**/.*.tmp")):
            print(f"LITTER: {place}", flush=True)
            return 1
        shutil.rmtree(place)
    hits = ", ".join(f"{count} {phase}" for phase, count in sorted(found.items()))
    print(f"{done} kills ({hits}), {runs} runs, all equal to the one of {whole:.1f} s; {resumed} resumed from a save")
    return 0


def main() -> int:
    """Run the workers side by side; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began, children = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for job in range(args.jobs):
            pid = os.fork()
            if not pid:
                code = 70
                try:
                    share = args.kills // args.jobs + (job < args.kills % args.jobs)
                    code = worker(Path(folder) / str(job), share, args.seed + job)
                    sys.stdout.flush()
                finally:
                    os._exit(code)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(f"{time.monotonic() - began:.0f} s")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
