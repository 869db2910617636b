"""Keeps a run on disk: metrics.csv at every evaluation, checkpoints when they are due."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from layernet.core.duration import Interval
from layernet.errors import Interrupted, NumericsError
from layernet.train.callbacks import Callback
from layernet.train.numerics import bad_values, is_finite
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
        self._saved_at = time.monotonic()
        self._best_due = False

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        self.run.write_metrics(trainer.history)
        self._saved_step = -1  # `last` lacks this row
        name = self._policy.best
        self._best_due = bool(name and is_best(name, trainer.history, lower_is_better(name, trainer)))

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step % trainer.steps_per_epoch:  # else `on_epoch` of the others is still to come
            self._save_what_is_due(trainer)

    def on_epoch(self, trainer: Trainer) -> None:
        self._save_what_is_due(trainer)

    def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
        orderly = error is None or isinstance(error, Interrupted)
        if orderly and self._best_due:
            self._save_best(trainer)
        if orderly and (trainer.step != self._saved_step or trainer.stopped):  # that it was stopped is saved too
            self._save(trainer)

    def _save_what_is_due(self, trainer: Trainer) -> None:
        if self._best_due:
            self._save_best(trainer)
        if self._is_due(trainer):
            self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        every = self._policy.every
        if every.unit == Interval.TIME:
            return time.monotonic() - self._saved_at >= 60 * every.count
        return trainer.step % every.steps(trainer.steps_per_epoch) == 0

    def _save_best(self, trainer: Trainer) -> None:
        _refuse_bad_values(trainer)
        self.run.save_best(capture(trainer))
        self._best_due = False

    def _save(self, trainer: Trainer) -> None:
        _refuse_bad_values(trainer)
        self.run.save_last(capture(trainer), keep=self._policy.keep)
        self._saved_step, self._saved_at = trainer.step, time.monotonic()


def _refuse_bad_values(trainer: Trainer) -> None:
    """An update can overflow though its gradient is finite: what is saved already is worth more than this."""
    net = trainer.net
    if not is_finite(net.arena.data, net.device.xp) and (paths := bad_values(net)):
        raise NumericsError(
            f"{paths[0]} is not finite after step {trainer.step - 1}",
            "nothing of it was saved; lower the learning rate or add a warm-up",
        )


def is_best(name: str, history: Sequence[Row], lower: bool) -> bool:
    """Whether the last row's value of `name` beats all before it; nan never does."""
    sign = 1.0 if lower else -1.0
    *before, last = (sign * row.get(name, math.nan) for row in history)
    return not math.isnan(last) and all(last < value for value in before if not math.isnan(value))


def lower_is_better(name: str, trainer: Trainer) -> bool:
    """Losses want to fall, metrics to rise."""
    return name.partition(".")[2] in {"loss", *(objective.name for objective in trainer.config.objectives)}
