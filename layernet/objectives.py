"""The objectives together: their values and gradients for a pass of a net, and their means over many passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from layernet import losses
from layernet.backend import Array
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.errors import UsageError, did_you_mean
from layernet.losses import Objective, Penalty
from layernet.metrics import Measure


class ObjectivesPass:
    """All objectives on one pass of the net.

    `sums` holds (sum, normaliser) by objective name: a mean is taken here and nowhere else, so class weights, ignored
    labels and short batches all average right. A penalty's normaliser is 1.
    """

    def __init__(self, objectives: Sequence[Objective], net: Net, tape: Tape, target: Array) -> None:
        self._objectives = objectives
        self._tape, self._target = tape, target
        self._params = {o.name: net.matching(o.loss.params) for o in objectives if isinstance(o.loss, Penalty)}
        self._contexts = [Context(tape) for _ in objectives]
        self.sums: dict[str, tuple[float, float]] = {}
        with tape.device.activate():
            for objective, context in zip(objectives, self._contexts, strict=True):
                if isinstance(objective.loss, Penalty):
                    value = objective.loss.forward(self._params[objective.name], context)
                    self.sums[objective.name] = (float(value), 1.0)
                else:
                    value, normaliser = losses.forward(objective.loss, _output(tape, objective.on), target, context)
                    self.sums[objective.name] = (float(value), float(normaliser))

    @property
    def total(self) -> float:
        """The weighted sum of the means."""
        return total_of(self._objectives, self.sums)

    def gradients(self, normalisers: Mapping[str, float] | None = None) -> dict[str, Array]:
        """The gradient of the total with respect to each output that an objective looks at.

        `normalisers`, by objective name, are those of a batch that this one is a part of; default: its own.
        """
        if normalisers is None:
            normalisers = {name: normaliser for name, (_, normaliser) in self.sums.items()}
        grads: dict[str, Array] = {}
        with self._tape.device.activate():
            for objective, context in zip(self._objectives, self._contexts, strict=True):
                if isinstance(objective.loss, Penalty) or objective.weight == 0:
                    continue
                outputs = _output(self._tape, objective.on)
                normaliser = normalisers.get(objective.name, 0.0)
                scale = objective.weight / normaliser if normaliser else 0.0
                dy = losses.backward(objective.loss, outputs, self._target, context) * scale
                grads[objective.on] = grads[objective.on] + dy if objective.on in grads else dy
        return grads

    def add_penalty_gradients(self) -> None:
        """Add the penalties' gradients to those of the parameters."""
        with self._tape.device.activate():
            for objective, context in zip(self._objectives, self._contexts, strict=True):
                if isinstance(objective.loss, Penalty) and objective.weight != 0:
                    objective.loss.backward(self._params[objective.name], objective.weight, context)


def total_of(objectives: Sequence[Objective], sums: dict[str, tuple[float, float]]) -> float:
    """The weighted sum of the objectives' means: one for which nothing counts adds nothing."""
    return sum(o.weight * (s / n if n else 0.0) for o in objectives for s, n in [sums[o.name]])


def without_penalties(objectives: Sequence[Objective]) -> list[Objective]:
    """Those that look at outputs: the others are equal for all batches of an evaluation."""
    return [objective for objective in objectives if not isinstance(objective.loss, Penalty)]


def penalties_of(objectives: Sequence[Objective], net: Net) -> dict[str, tuple[float, float]]:
    """(value, 1) of each penalty on a net as it stands, by objective name."""
    tape = Tape(net.device, net.dtype, recording=False)
    penalties = [objective for objective in objectives if isinstance(objective.loss, Penalty)]
    return ObjectivesPass(penalties, net, tape, None).sums


class Meter:
    """Objectives and metrics gathered over many batches."""

    def __init__(self, objectives: Sequence[Objective], measures: Sequence[Measure]) -> None:
        self.objectives = objectives
        self.measures = [replace(measure, metric=measure.metric.clone()) for measure in measures]
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self._sums = {objective.name: (0.0, 0.0) for objective in self.objectives}
        for measure in self.measures:
            measure.metric.reset()

    def update(self, objectives: ObjectivesPass, tape: Tape, target: Array) -> None:
        """Count one batch in."""
        self.add(objectives.sums)
        for measure in self.measures:
            measure.metric.update(_output(tape, measure.on), target)

    def add(self, sums: Mapping[str, tuple[float, float]]) -> None:
        """Count (sum, normaliser) of objectives in, by name."""
        for name, (value, normaliser) in sums.items():
            total, count = self._sums[name]
            self._sums[name] = (total + value, count + normaliser)

    def result(self) -> dict[str, float]:
        """`loss`, each objective by name where there are several, and the metrics; nan where nothing counted.

        The loss is the total that training minimises, over what counted for any of the objectives.
        """
        means = {name: value / count if count else math.nan for name, (value, count) in self._sums.items()}
        losses = without_penalties(self.objectives)  # a penalty counts before any batch
        counted = not losses or any(self._sums[objective.name][1] for objective in losses)
        found = {"loss": total_of(self.objectives, self._sums) if counted else math.nan}
        if len(means) > 1:
            found.update(means)
        for measure in self.measures:
            found.update(measure.result())
        return found

    def state(self) -> dict[str, Any]:
        """Plain data to go on from."""
        return {"sums": self._sums, "metrics": [measure.metric.state() for measure in self.measures]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._sums = {name: (value, count) for name, (value, count) in state["sums"].items()}
        for measure, values in zip(self.measures, state["metrics"], strict=True):
            measure.metric.load_state(values)


def _output(tape: Tape, name: str) -> Array:
    """An output of a pass. Raises UsageError where none is called so: what a user's layer emits is seen here."""
    if name not in tape.outputs:
        raise UsageError(f"the net gave no output called {name!r}", did_you_mean(name, tape.outputs))
    return tape.outputs[name]
