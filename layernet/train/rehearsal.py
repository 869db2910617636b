"""Everything but the training: reads data, does a few steps, and says what a run would take. Writes nothing."""

from __future__ import annotations

import shutil
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layernet.core.memory import predict
from layernet.objectives import ObjectivesPass, without_penalties
from layernet.text import aligned, size
from layernet.train import state
from layernet.train.compute import computing, facts, in_words
from layernet.train.console import duration, values
from layernet.train.rundir import RunDirectory
from layernet.train.trainer import Trainer

if TYPE_CHECKING:
    from layernet.data.loader import Loader
    from layernet.train.experiment import Experiment

_STEPS = 20
_SECONDS = 3.0
"""Steps, and batches of an evaluation, that are tried: as many as fit this time, but two, since the first compiles."""


@dataclass(frozen=True)
class Rehearsal:
    """What a run would take. Times are in seconds, sizes in bytes."""

    images: dict[str, int]
    computes: str
    parameters: int
    first: dict[str, float]
    """Loss and metrics of the steps that were tried."""
    kept: int
    """What a micro-batch keeps from forward to backward."""
    held: int
    """Parameters, gradients, what the optimizer and the average keep."""
    checkpoint: int
    """About what one takes on disk, and `checkpoints`: how many files of them a run keeps at most."""
    checkpoints: int
    free: int
    """On the disk where runs are to be made."""
    step: float
    steps: int
    """Updates in all, and `steps_per_epoch` of them in an epoch."""
    steps_per_epoch: int
    evaluation: float
    evaluations: int
    warm: list[str]

    @property
    def epoch(self) -> float:
        """An epoch with its share of the evaluations."""
        return self.total * self.steps_per_epoch / self.steps

    @property
    def total(self) -> float:
        """All of training."""
        return self.step * self.steps + self.evaluation * self.evaluations

    def table(self) -> str:
        """For a terminal."""
        images = ", ".join(f"{count} {name}" for name, count in self.images.items())
        steps = f"{self.steps_per_epoch} steps of {1e3 * self.step:.1f} ms"
        evaluation = f", an evaluation {self.evaluation:.2g} s" if self.evaluations else ""
        files = (
            f"{size(self.checkpoint)} each, at most {self.checkpoints} kept: {size(self.checkpoint * self.checkpoints)}"
        )
        rows = [
            ("images", images),
            ("net", f"{self.parameters} parameters, {self.computes}"),
            ("first steps", values(self.first)),
            ("memory", f"{size(self.kept)} for a batch, {size(self.held)} for parameters and what follows them"),
            ("checkpoints", f"{files}; the disk has {size(self.free)} free"),
            ("an epoch", f"{duration(self.epoch)} ({steps}{evaluation})"),
            ("training", f"{duration(self.total)} ({self.steps} steps)"),
        ]
        return "\n".join([*self.warm, aligned(rows), "nothing was written"])


def rehearse(experiment: Experiment, runs: str | Path = "runs") -> Rehearsal:
    """Try the experiment out on its own net, which is spoilt for training after it.

    `runs` is where its run would be made. Raises UsageError where the disk has no room for its checkpoints.
    """
    config, net, loaders = experiment.config, experiment.net, experiment.loaders
    for callback in config.callbacks:
        callback.check()
    folder = next(path for path in (Path(runs).absolute(), *Path(runs).absolute().parents) if path.is_dir())
    checkpoint, checkpoints = state.size_of(config, net), config.train.checkpoint.files
    RunDirectory(folder).check_space(checkpoint, checkpoints)
    warm = experiment.warm_start()
    trainer = Trainer(config, net, loaders)
    with computing(config, net), np.errstate(all="ignore"):
        step = _time_of_steps(trainer)
        evaluation = _time_of_evaluation(trainer, loaders["val"]) if "val" in loaders else 0.0
        moments = sum(array.nbytes for array in trainer.optimizer.state_dict().values())
        copies = 2 if trainer.average is None else 3
        return Rehearsal(
            images={name: len(loader.dataset) for name, loader in loaders.items() if name != "train_eval"},
            computes=f"device {net.device.name}, kernels {in_words(facts(config, net))}",
            parameters=net.size,
            first={f"train.{name}": value for name, value in trainer.meter.result().items()},
            kept=sum(predict(net, config.data.batch_size).values()),
            held=copies * net.arena.data.nbytes + moments,
            checkpoint=checkpoint,
            checkpoints=checkpoints,
            free=shutil.disk_usage(folder).free,
            step=step,
            steps=trainer.total_steps,
            steps_per_epoch=trainer.steps_per_epoch,
            evaluation=evaluation,
            evaluations=trainer.total_steps // config.train.eval_every.steps(trainer.steps_per_epoch),
            warm=warm.lines() if warm else [],
        )


def _time_of_steps(trainer: Trainer) -> float:
    """Seconds of a step, its data included, once it is warm."""
    times: list[float] = []
    with closing(trainer.loaders["train"].batches(0)) as batches:
        clock = time.perf_counter()
        while _wants_more(times) and (micro_batches := list(islice(batches, trainer.accumulate))):
            trainer.train_step(*micro_batches)
            trainer.net.device.synchronize()
            times.append(time.perf_counter() - clock)
            clock = time.perf_counter()
    return _typical(times)


def _time_of_evaluation(trainer: Trainer, loader: Loader) -> float:
    """Seconds of a whole evaluation, from a few batches of it."""
    losses = without_penalties(trainer.config.objectives)
    times: list[float] = []
    with closing(loader.batches(0)) as batches:
        clock = time.perf_counter()
        for batch in batches:
            tape = trainer.net.forward(batch.x, recording=False)
            ObjectivesPass(losses, trainer.net, tape, batch.target)
            times.append(time.perf_counter() - clock)
            clock = time.perf_counter()
            if not _wants_more(times):
                break
    return _typical(times) * len(loader)


def _wants_more(times: list[float]) -> bool:
    return len(times) < 2 or (len(times) < _STEPS and sum(times) < _SECONDS)


def _typical(times: list[float]) -> float:
    """The mean of the faster half: those that compiled, allocated or were disturbed are left out."""
    return statistics.fmean(sorted(times)[: (len(times) + 1) // 2])
