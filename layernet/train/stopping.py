"""Ending a run when what it measures has stopped getting better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from layernet.errors import ContractError, UsageError, did_you_mean
from layernet.optim.plateau import Best
from layernet.train.callbacks import Callback

if TYPE_CHECKING:
    from layernet.train.trainer import Row, Trainer


class EarlyStopping(Callback):
    """Ends training after `patience` evaluations in a row that have not made the watched value better.

    `watch` is a column of metrics.csv such as `val.loss`; in a config, `auto` is what `best` is chosen by. `mode` says
    whether less is better (`min`) or more (`max`); in a config, `auto` is min for losses, max for metrics. Better is
    what goes beyond the best so far by more than `min_delta`. As Keras' EarlyStopping with an evaluation for its epoch;
    the test set is run with the values of `best`, so there are none to restore. It has no state of its own: on
    resuming it looks at all rows so far again.

    Raises UsageError when an evaluation has no such value.
    """

    watch: str

    def __init__(
        self,
        patience: int = 10,
        min_delta: float = 0.0,
        watch: str = "auto",
        mode: Literal["auto", "min", "max"] = "auto",
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        if not 0.0 <= min_delta < math.inf:
            raise ValueError(f"min_delta must be finite and not negative, got {min_delta}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be auto, min or max, got {mode!r}")
        self.patience, self.min_delta, self.watch, self.mode = patience, min_delta, watch, mode

    def on_start(self, trainer: Trainer) -> None:
        if self.mode == "auto" or self.watch == "auto":
            raise ContractError(
                f"{self!r} does not know what it follows",
                "outside a config give watch, as val.loss, and mode, min or max",
            )
        self._best, self._best_step, self._bad = Best(self.mode, self.min_delta, "abs"), 0, 0
        for row in trainer.history:
            self._look(row)

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        self._look(row)
        if self._bad >= self.patience:
            trainer.say(
                f"stopped: {self.watch} has not got better for {self._bad} evaluations "
                f"(best {self._best.value:.4g} at step {self._best_step})"
            )
            trainer.stop()

    def _look(self, row: Row) -> None:
        if self.watch not in row:
            measured = [name for name in row if name.startswith("val.")]
            raise UsageError(
                f"{type(self).__name__} follows {self.watch!r}, which is not measured",
                did_you_mean(self.watch, measured),
            )
        if self._best.improved(row[self.watch]):
            self._best_step, self._bad = row["step"], 0
        else:
            self._bad += 1
