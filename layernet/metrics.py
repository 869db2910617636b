"""Metrics: what is measured on outputs and targets but not trained for.

A metric is sums over examples, so those of batches, of epochs' parts and of processes merge by adding up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.device import device_of
from layernet.core.configurable import Configurable
from layernet.core.targets import check_labels
from layernet.errors import CheckpointError, ShapeError, UsageError


class Metric(Configurable):
    """Base of all metrics. A subclass names its `sums`, feeds them in `update` and makes `result` of them."""

    sums: tuple[str, ...] = ()
    """The names of the running sums."""

    def update(self, outputs: Array, target: Array) -> None:
        """Take in a batch: outputs (N, ...) and their targets."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def result(self) -> dict[str, float]:
        """The value, or several, by the name that logs use; NaN where nothing was counted."""
        raise NotImplementedError(f"{type(self).__name__} has no result")

    def add(self, **amounts: Any) -> None:
        """Add to the running sums: numbers, or arrays of no axes, which stay on their device."""
        sums = self._sums
        for name, amount in amounts.items():
            sums[name] = sums[name] + amount

    def total(self, name: str) -> float:
        """A running sum."""
        return float(self._sums[name])

    def reset(self) -> None:
        """Forget everything."""
        self.__dict__["_running"] = dict.fromkeys(self.sums, 0)

    def merge(self, other: Metric) -> None:
        """Take in everything that another metric of the same type and arguments has seen."""
        if type(other) is not type(self) or other.arguments != self.arguments:
            raise UsageError(f"{self!r} cannot take in what {other!r} has counted")
        self.add(**{name: other.total(name) for name in self.sums})

    def state(self) -> dict[str, float]:
        """The running sums as plain numbers."""
        return {name: self.total(name) for name in self.sums}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from a `state`. Raises CheckpointError when it belongs to another metric."""
        if set(state) != set(self.sums):
            raise CheckpointError(f"{type(self).__name__} has the sums {list(self.sums)}, the state {sorted(state)}")
        self.reset()
        self.add(**state)

    @property
    def _sums(self) -> dict[str, Any]:
        if "_running" not in self.__dict__:  # so that a subclass owes no super().__init__()
            self.reset()
        return self.__dict__["_running"]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Measure:
    """A metric on one of the net's outputs: `on` is the output's name."""

    metric: Metric
    on: str = "output"

    def result(self) -> dict[str, float]:
        """What the metric found, by log name: its own, after that of an output beside the net's own: `aux_accuracy`."""
        prefix = "" if self.on == "output" else f"{self.on}_"
        # a user's metric may return numpy's numbers, which JSON, and so a checkpoint, cannot hold
        return {prefix + name: float(value) for name, value in self.metric.result().items()}


class accuracy(Metric):
    """The share of examples whose label is among the `top_k` largest outputs: `accuracy`, or `top5_accuracy`.

    Shape: outputs (N, ..., C); the target is class labels (N, ...), or soft labels (N, ..., C), which stand for their
    largest class. Among equal outputs the first class comes first, so the answer depends on nothing but the numbers. A
    row with a NaN in it is wrong. Labels equal to `ignore_index` do not count, as in CrossEntropy.

    Raises DataError for a label that is no class, ShapeError for shapes that differ or fewer than top_k classes.
    """

    sums = ("correct", "counted")

    def __init__(self, top_k: int = 1, ignore_index: int | None = -100) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.top_k = top_k
        self.ignore_index = ignore_index

    def update(self, outputs: Array, target: Array) -> None:
        device = device_of(outputs)
        outputs = device.asarray(outputs)
        target = target if hasattr(target, "dtype") else np.asarray(target)
        if outputs.ndim < 2 or outputs.shape[-1] < self.top_k:
            raise ShapeError(f"{self!r} needs outputs (N, ..., classes >= {self.top_k}), got shape {outputs.shape}")
        if target.dtype.kind == "f" and target.shape == outputs.shape:
            target = target.argmax(axis=-1)
        check_labels(target, outputs.shape, self.ignore_index)
        xp, classes = device.xp, outputs.shape[-1]
        with device.activate():
            scores = outputs.reshape(-1, classes)
            labels = device.asarray(target, "int64").reshape(-1, 1)
            counted = (labels >= 0) & (labels < classes)
            if self.ignore_index is not None:
                counted &= labels != self.ignore_index
            labels = xp.where(counted, labels, 0)
            own = xp.take_along_axis(scores, labels, axis=1)
            ahead = (scores > own) | ((scores == own) & (xp.arange(classes) < labels))
            right = counted[:, 0] & (ahead.sum(axis=1) < self.top_k) & ~xp.isnan(scores).any(axis=1)
            self.add(correct=right.sum(), counted=counted.sum())

    def result(self) -> dict[str, float]:
        counted = self.total("counted")
        name = "accuracy" if self.top_k == 1 else f"top{self.top_k}_accuracy"
        return {name: self.total("correct") / counted if counted else math.nan}
