"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layernet.core.net import Net
from layernet.data.loader import Batch, Loader
from layernet.errors import NumericsError
from layernet.objectives import Meter, ObjectivesPass, penalties_of, without_penalties
from layernet.train.callbacks import Callback
from layernet.train.numerics import PATIENCE, is_finite, origin
from layernet.train.signals import Signals
from layernet.train.update import Update, clip

if TYPE_CHECKING:
    from layernet.config.experiment import ExperimentConfig

Row = dict[str, Any]
"""One line of metrics.csv."""


class Trainer:
    """Trains a net: steps, evaluations and epochs, with callbacks around them.

    Where it stands is `step`, the number of updates done; epoch, batch, learning rate and randomness follow.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        net: Net,
        loaders: dict[str, Loader],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config = config
        self.net = net
        self.loaders = loaders
        self.callbacks = list(callbacks)
        self.accumulate = config.train.accumulate
        self.steps_per_epoch = -(-len(loaders["train"]) // self.accumulate)
        self.total_steps = config.train.total_steps(self.steps_per_epoch)
        self.schedule = config.schedule
        self.schedule.bind(self.total_steps, self.steps_per_epoch)
        self.optimizer = config.optimizer
        self.optimizer.attach(net)
        self.average = config.average
        if self.average is not None:
            self.average.attach(net, self.steps_per_epoch)
        self.step = 0
        self.seconds = 0.0
        """Seconds spent in training steps so far, evaluation and saving left out."""
        self.examples = 0
        """Examples trained on since the last row, and `row_seconds` how long that took."""
        self.row_seconds = 0.0
        self.history: list[Row] = []
        self.directory: Path | None = None
        """Where the run is kept; None where nothing is."""
        self.say: Callable[[str], None] = print
        """Shows a line, and keeps it in the run's log."""
        self.meter = Meter(config.objectives, config.metrics)
        self._every = config.train.eval_every.steps(self.steps_per_epoch)
        self._stopped = False
        self._row_due = False
        self.signals = Signals()
        self.skipped = 0
        """Updates left out because their loss or gradient was not finite; `skipped_in_row` of them since the last good
        one, and why the first of those was."""
        self.skipped_in_row = 0
        self.skipped_because = ""

    @property
    def epoch(self) -> float:
        """Epochs done, with the part of the current one."""
        return self.step / self.steps_per_epoch

    @property
    def epochs(self) -> float:
        """Epochs in all."""
        return self.total_steps / self.steps_per_epoch

    def stop(self) -> None:
        """Ask training to end after this step, as if it were the last: with an evaluation, and the test after it."""
        self._stopped = True

    def unstop(self) -> None:
        """Forget that a callback said stop."""
        self._stopped = False

    def fit(self) -> None:
        """Train from `step` to the end.

        Raises Interrupted on SIGINT, SIGTERM or SIGHUP: after the step or, in an evaluation, the batch at hand, at once
        where data is waited for. Raises NumericsError on a loss or gradient not finite.
        """
        error: BaseException | None = None
        # a value that is not finite shows in the loss, and ends the run there: no warnings of numpy's on the way
        with self.signals.noted(), np.errstate(all="ignore"):
            try:
                self._tell("on_start")
                if self._row_due:  # a signal had ended the evaluation after the last step
                    self._end_step()
                while self._going:
                    epoch, start = divmod(self.step, self.steps_per_epoch)
                    self._train_epoch(epoch, start)
                if self.examples:  # a callback said stop after the evaluation of its step, or between two
                    self._evaluate()
            except BaseException as caught:
                error = caught
                raise
            finally:
                self._tell_the_end(error)
            self.signals.check()  # one that came after the last step: the test is left to `resume`

    def _train_epoch(self, epoch: int, start: int) -> None:
        with closing(self.loaders["train"].batches(epoch, start * self.accumulate)) as batches:
            waited_for = self.signals.between(batches)
            clock = time.perf_counter()
            while micro_batches := list(islice(waited_for, self.accumulate)):
                self.train_step(*micro_batches)
                self.row_seconds += time.perf_counter() - clock
                self._row_due = self.step % self._every == 0 or not self._going
                self._end_step()
                if not self._going:
                    return
                clock = time.perf_counter()

    def _end_step(self) -> None:
        """What comes after an update: the evaluation where it is due, callbacks, and what a signal asked for."""
        if self._row_due:
            self._evaluate()
        self._tell("on_step")
        if self.step % self.steps_per_epoch == 0:
            self._tell("on_epoch")
        self.signals.check()

    def train_step(self, *batches: Batch) -> None:
        """Train on the micro-batches of one update: forward, loss, backward of each, then the update.

        What `fit` does of it all, for loops of your own. Raises NumericsError where loss or gradient are not finite,
        unless `train.on_nonfinite` is `skip`: then the net stays as it is.
        """
        update = Update(self.config.objectives, self.net, self.step)
        for batch in batches:
            update.forward(batch)
            if not math.isfinite(update.total):
                self._not_finite(f"the loss is {update.total}", batches)
                return
            update.backward()
        update.finish()
        self.net.arena.settle()
        if not is_finite(self.net.arena.grad, self.net.device.xp):
            self._not_finite("the gradient is not finite", batches)
            return
        clip(self.net.arena, self.config.train.clip_norm, self.config.train.clip_value)
        update.update_buffers()
        self.optimizer.step(self.schedule(self.step), self.step)
        for done in update.passes:
            self.meter.update(done.objectives, done.tape, done.batch.target)
            self.examples += len(done.batch.x)
        self.step += 1
        self.skipped_in_row = 0
        if self.average is not None:
            self.average.update(self.step)

    def _not_finite(self, what: str, batches: Sequence[Batch]) -> None:
        """Skip the step, or raise NumericsError, saying where it comes from."""
        skips = self.config.train.on_nonfinite == "skip"
        if not skips or not self.skipped_in_row:
            where = origin(self.net, self.config.objectives, self.step, batches)
            self.skipped_because = f"{what} at step {self.step} (epoch {self.epoch:.2f}){where and ': '}{where}"
        self.skipped_in_row += 1
        if not skips:
            raise NumericsError(self.skipped_because, self._cure())
        if self.skipped_in_row == PATIENCE:
            raise NumericsError(f"{self.skipped_because}; {PATIENCE} steps in a row were skipped", self._cure())
        self.skipped += 1
        self.step += 1

    def _cure(self) -> str:
        cure = "lower the learning rate or add a warm-up; the checkpoints are those of before"
        if self.step == 0:
            cure = "nothing is trained yet: look for it in the data, or for initial values that are far too large"
        own = sorted({type(part).__name__ for part in self._parts() if type(part).__module__[:9] != "layernet."})
        if own:
            cure += f"; or a gradient is wrong: `layernet gradcheck` checks {', '.join(own)}"
        return cure

    def _parts(self) -> list[object]:
        """What can make a loss that is not finite: layers and objectives."""
        return [*(layer for _, layer in self.net.root.walk()), *(o.loss for o in self.config.objectives)]

    def _evaluate(self) -> None:
        """Close the stretch of training since the last row with a row of its means and those of the validation set.

        Nothing changes before the row is whole: a signal may end it at any batch.
        """
        row: Row = {
            "epoch": round(self.epoch, 4),
            "step": self.step,
            "seconds": round(self.seconds + self.row_seconds, 3),
            "images_per_second": round(self.examples / self.row_seconds, 1) if self.row_seconds else None,
            "lr": self.optimizer.lr * self.schedule(self.step - 1),
        }
        row.update({f"train.{name}": value for name, value in self.meter.result().items()})
        if "val" in self.loaders:
            row.update({f"val.{name}": value for name, value in self.evaluate("val").items()})
        if self.config.train.on_nonfinite == "skip":
            row["skipped"] = self.skipped
        self.meter.reset()
        self.seconds += self.row_seconds
        self.examples, self.row_seconds, self._row_due = 0, 0.0, False
        self.history.append(row)
        self.schedule.observe(row)
        self._tell("on_evaluate", row)

    def evaluate(self, split: str) -> dict[str, float]:
        """Loss and metrics of the net on one split, with its averaged values where there is an average."""
        with self.averaged():
            return evaluate(self.config, self.net, self.loaders[split], self.signals.between)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it, the net has the values that are evaluated and saved: the averaged ones where there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def state(self) -> dict[str, Any]:
        """Where training stands, apart from the arrays: plain data."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "row_seconds": self.row_seconds,
            "examples": self.examples,
            "history": self.history,
            "meter": self.meter.state(),
            "average": self.average.count if self.average is not None else 0,
            "stopped": self._stopped,
            "row_due": self._row_due,
            "skipped": [self.skipped, self.skipped_in_row, self.skipped_because],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.row_seconds, self.examples = state["row_seconds"], state["examples"]
        self.history = list(state["history"])
        for row in self.history:
            self.schedule.observe(row)
        self.meter.load_state(state["meter"])
        self._stopped, self._row_due = state["stopped"], state["row_due"]
        self.skipped, self.skipped_in_row, self.skipped_because = state["skipped"]

    @property
    def stopped(self) -> bool:
        """Whether a callback ended training before its last step."""
        return self._stopped

    @property
    def _going(self) -> bool:
        return self.step < self.total_steps and not self._stopped

    def tested(self, row: Row) -> None:
        """Tell the callbacks of the row of the test set."""
        self._tell("on_test", row)

    def _tell(self, moment: str, *what: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self, *what)

    def _tell_the_end(self, error: BaseException | None) -> None:
        """`on_stop` of every callback: one that fails there keeps none from being told, the one that saves included."""
        with ExitStack() as told:
            for callback in reversed(self.callbacks):  # an exit stack goes from the last to the first
                told.callback(callback.on_stop, self, error)


def evaluate(
    config: ExperimentConfig, net: Net, loader: Loader, between: Callable[[Iterator[Batch]], Iterator[Batch]] = iter
) -> dict[str, float]:
    """Loss, objectives and metrics of a net over a whole data set, in evaluation mode.

    `between` gets the batches and gives them back; it may raise before each.
    """
    meter = Meter(config.objectives, config.metrics)
    meter.add(penalties_of(config.objectives, net))
    losses = without_penalties(config.objectives)
    with closing(loader.batches(0)) as batches, np.errstate(all="ignore"):
        for batch in between(batches):
            tape = net.forward(batch.x, recording=False)
            meter.update(ObjectivesPass(losses, net, tape, batch.target), tape, batch.target)
    return meter.result()
