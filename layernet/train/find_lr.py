"""The learning rate range test: train while the rate grows, and look where the loss falls fastest."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from layernet.data.loader import Batch, Loader
from layernet.errors import NumericsError, UsageError
from layernet.optim.schedules import Schedule
from layernet.text import aligned
from layernet.train.compute import computing
from layernet.train.trainer import Trainer

if TYPE_CHECKING:
    from layernet.train.experiment import Experiment

_SMOOTHING = 0.9
_DIVERGED = 4.0  # times the lowest smoothed loss
_FEWEST = 10  # steps from which something can be told
_ROWS, _WIDTH = 24, 48
_LEAST = 1e-12


class Sweep(Schedule):
    """Grows from `low` to `high` times lr in equal steps of the exponent."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def factor(self, step: int) -> float:
        return float(self.low * (self.high / self.low) ** (step / max(1, self.total_steps - 1)))


@dataclass(frozen=True)
class RangeTest:
    """The loss by learning rate, step by step, and smoothed."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool

    @property
    def suggestion(self) -> float | None:
        """Where the smoothed loss falls fastest, by the exponent of the rate; None where it never falls."""
        bottom = int(np.argmin(self.smoothed))
        if bottom < 2:
            return None
        slopes = np.gradient(np.array(self.smoothed), np.log(self.rates))[: bottom + 1]
        steepest = int(np.argmin(slopes))
        return self.rates[steepest] if slopes[steepest] < 0 else None

    @property
    def lowest(self) -> float:
        """The rate of the lowest smoothed loss: training with so much is at the edge of what goes."""
        return self.rates[int(np.argmin(self.smoothed))]

    def csv(self) -> str:
        """Columns lr, loss, smoothed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["lr", "loss", "smoothed"])
        writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        return text.getvalue()

    def table(self) -> str:
        """For a terminal: rows of rate, smoothed loss and a bar, and what follows from them."""
        chosen = sorted({round(i) for i in np.linspace(0, len(self.rates) - 1, _ROWS)})
        low, high = min(self.smoothed), max(self.smoothed[: int(np.argmin(self.smoothed)) + 1])
        rows = [("lr", "loss", "")]
        for i in chosen:
            share = min(1.0, (self.smoothed[i] - low) / (high - low)) if high > low else 0.0
            rows.append((f"{self.rates[i]:.3g}", f"{self.smoothed[i]:.4g}", "#" * (1 + round(share * (_WIDTH - 1)))))
        return f"{aligned(rows, right={0, 1})}\n{self.verdict()}"

    def verdict(self) -> str:
        """What to do."""
        end = "where the loss grew without bound" if self.diverged else "the highest that was tried"
        tried = f"it ended at {self.rates[-1]:.3g}, {end}"
        if self.suggestion is None:
            return f"no suggestion: the loss never fell; {tried}; try a lower --low, or --steps above {len(self.rates)}"
        return f"suggestion: optimizer.lr={self.suggestion:.2g} (lowest loss at {self.lowest:.2g}; {tried})"


def range_test(experiment: Experiment, low: float = 1e-6, high: float = 10.0, steps: int = 100) -> RangeTest:
    """Train `steps` steps while the learning rate grows exponentially from `low` to `high`, or until the loss diverges.

    The loss is smoothed by an exponential mean; it has diverged at four times its lowest value. Afterwards the net has
    the values of before. Writes nothing. (Smith 2017, arXiv:1506.01186) Raises UsageError for rates or steps that make
    no sense, and where the very first steps diverge.
    """
    if not 0 < low < high < math.inf:
        raise UsageError(f"the rates must grow from a positive one, got {low:g} to {high:g}")
    if steps < _FEWEST:
        raise UsageError(f"so few steps tell nothing: {steps}", f"take {_FEWEST} or more")
    lr = experiment.config.optimizer.lr
    if not lr:
        raise UsageError("optimizer.lr is 0, which nothing can multiply", "give any other: it is only swept from")
    experiment.warm_start()
    net, before = experiment.net, experiment.net.state_dict()
    config = replace(
        experiment.config,
        schedule=Sweep(low / lr, high / lr),
        average=None,
        train=replace(experiment.config.train, epochs=None, steps=steps, on_nonfinite="stop"),
    )
    try:
        with computing(config, net), np.errstate(all="ignore"):
            return _sweep(Trainer(config, net, {"train": experiment.loaders["train"]}), steps, lr)
    finally:
        net.load_state_dict(before)


def _sweep(trainer: Trainer, steps: int, lr: float) -> RangeTest:
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    with closing(_batches(trainer.loaders["train"])) as batches:
        for number in range(steps):
            try:
                trainer.train_step(*islice(batches, trainer.accumulate))
            except NumericsError:
                diverged = True
                break
            loss = trainer.meter.result()["loss"]
            trainer.meter.reset()
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            smooth = mean / (1 - _SMOOTHING ** (number + 1))
            if not math.isfinite(smooth) or (smoothed and smooth > _DIVERGED * max(min(smoothed), _LEAST)):
                diverged = True
                break
            rates.append(lr * trainer.schedule(number))
            losses.append(loss)
            smoothed.append(smooth)
    if len(rates) < _FEWEST:
        raise UsageError(f"the loss diverged after {len(rates)} steps", "sweep from a lower rate: --low")
    return RangeTest(rates, losses, smoothed, diverged)


def _batches(loader: Loader) -> Generator[Batch, None, None]:
    """Epoch after epoch."""
    for epoch in count():
        with closing(loader.batches(epoch)) as batches:
            yield from batches
