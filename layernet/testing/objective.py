"""The scalar functions whose gradients are checked: a random projection of the outputs, or the real objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from layernet.backend import Array
from layernet.backend.device import Device
from layernet.core.context import Tape
from layernet.core.net import Net
from layernet.errors import UsageError
from layernet.losses import Objective, named
from layernet.objectives import ObjectivesPass
from layernet.testing.sampling import projection, stream

Outputs = Mapping[str, Array]


class Scalar(Protocol):
    """A function of a net's outputs (and parameters)."""

    scale: float
    """The size of the numbers that are added up in it: what its rounding error is relative to."""

    def value(self, tape: Tape) -> float:
        """For a pass."""

    def gradients(self, tape: Tape) -> dict[str, Array]:
        """With respect to each output of a recorded pass."""

    def add_gradients(self, tape: Tape) -> None:
        """Add what does not come through the outputs to the parameters' gradients."""


class Projection:
    """f = sum(r (y - y0)) over all outputs y, with fixed random r and y0 = y at the point that is checked.

    Without y0 the gradient would be the same, but the difference of two large sums would lose digits.
    """

    def __init__(self, outputs: Outputs, device: Device, seed: int) -> None:
        self._origin = {name: y.copy() for name, y in outputs.items()}  # a layer may give its input back
        self._weights = {
            name: device.asarray(projection(y.shape, stream(seed, "projection", name)), "float64")
            for name, y in outputs.items()
        }
        squares = (float(((r * self._origin[name]) ** 2).sum()) for name, r in self._weights.items())
        self.scale = math.sqrt(sum(squares))

    def value(self, tape: Tape) -> float:
        """The projection of the pass's outputs."""
        return sum(float((r * (tape.outputs[name] - self._origin[name])).sum()) for name, r in self._weights.items())

    def gradients(self, tape: Tape) -> dict[str, Array]:
        """The weights r, a copy for every pass."""
        return {name: r.copy() for name, r in self._weights.items()}

    def add_gradients(self, tape: Tape) -> None:
        """Nothing: all of it comes through the outputs."""


class Weighted:
    """The objectives of a training: the weighted sum of the means of losses, and of penalties."""

    def __init__(self, objectives: Sequence[Objective], net: Net, target: Any) -> None:
        self._objectives = named(objectives)
        self._net = net
        self._target = target
        self.scale = 0.0

    def value(self, tape: Tape) -> float:
        """The total of the pass."""
        sums = self._pass(tape).sums
        for objective in self._objectives:
            if not sums[objective.name][1] > 0:
                raise UsageError(f"nothing in the batch counts for {objective.loss!r}")
        terms = [o.weight * total / count for o in self._objectives for total, count in [sums[o.name]]]
        self.scale = max(self.scale, sum(map(abs, terms)))
        return math.fsum(terms)

    def gradients(self, tape: Tape) -> dict[str, Array]:
        """Of the total, with respect to the outputs that a loss looks at."""
        return self._pass(tape).gradients()

    def add_gradients(self, tape: Tape) -> None:
        """Those of the penalties."""
        self._pass(tape).add_penalty_gradients()

    def _pass(self, tape: Tape) -> ObjectivesPass:
        """What training runs."""
        return ObjectivesPass(self._objectives, self._net, tape, self._target)


def finite(array: Array) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(np.isfinite(float(abs(array).max()))) if array.size else True
