"""Keeps a run on disk: metrics.csv at every evaluation, checkpoints when they are due."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layernet.errors import Interrupted
from layernet.train.callbacks import Callback
from layernet.train.rundir import RunDirectory
from layernet.train.state import capture
from layernet.train.trainer import Row, Trainer


class Recorder(Callback):
    """Writes what a run must not lose. `last` is saved every `train.checkpoint.every`, at the end, and on a signal.

    It stands behind all others, so that what it saves holds their state after the step.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._saved_step = -1

    def on_start(self, trainer: Trainer) -> None:
        self._policy = trainer.config.train.checkpoint
        self._saved_step = trainer.step  # on resuming, what was loaded is what `last` holds
        self._every = self._policy.every.steps(trainer.steps_per_epoch)

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        self.run.write_metrics(trainer.history)
        self._saved_step = -1  # `last` lacks this row
        name = self._policy.best
        if name and is_best(name, trainer.history, lower_is_better(name, trainer)):
            self.run.save_best(capture(trainer))

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step % trainer.steps_per_epoch:  # else `on_epoch` of the others is still to come
            self._save_if_due(trainer)

    def on_epoch(self, trainer: Trainer) -> None:
        self._save_if_due(trainer)

    def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
        orderly = error is None or isinstance(error, Interrupted)
        if orderly and (trainer.step != self._saved_step or trainer.stopped):  # that it was stopped is saved too
            self._save(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        if trainer.step % self._every == 0:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self.run.save_last(capture(trainer), keep=self._policy.keep)
        self._saved_step = trainer.step


def is_best(name: str, history: Sequence[Row], lower: bool) -> bool:
    """Whether the last row's value of `name` beats all before it; nan never does."""
    sign = 1.0 if lower else -1.0
    *before, last = (sign * row.get(name, math.nan) for row in history)
    return not math.isnan(last) and all(last < value for value in before if not math.isnan(value))


def lower_is_better(name: str, trainer: Trainer) -> bool:
    """Losses want to fall, metrics to rise."""
    return name.partition(".")[2] in {"loss", *(objective.name for objective in trainer.config.objectives)}
