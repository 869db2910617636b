"""Losses on the difference of outputs and targets."""

from __future__ import annotations

import math
from typing import Any

from layernet.backend import Array
from layernet.core.context import Context
from layernet.losses.base import Loss, Number, like_outputs


class _OfDifference(Loss):
    """A function of the differences alone, summed over all elements; the mean is over them, too."""

    targets = "numbers"

    def values(self, difference: Array, xp: Any) -> Array:
        """The loss of each difference."""
        raise NotImplementedError(f"{type(self).__name__} has no values")

    def slopes(self, difference: Array, xp: Any) -> Array:
        """The derivative of each value."""
        raise NotImplementedError(f"{type(self).__name__} has no slopes")

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        with ctx.ops.quiet():
            difference = outputs - like_outputs(self, outputs, target, ctx)
            ctx.save(difference)
            return self.values(difference, ctx.xp).sum(), outputs.size

    def backward(self, ctx: Context) -> Array:
        (difference,) = ctx.saved
        with ctx.ops.quiet():
            return self.slopes(difference, ctx.xp)


class MSE(_OfDifference):
    """(outputs - target)^2, the mean over all elements as in torch.nn.MSELoss.

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def values(self, difference: Array, xp: Any) -> Array:
        return difference * difference

    def slopes(self, difference: Array, xp: Any) -> Array:
        return 2 * difference


class L1(_OfDifference):
    """|outputs - target|, the mean over all elements as in torch.nn.L1Loss; the gradient where they are equal is 0.

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def values(self, difference: Array, xp: Any) -> Array:
        return abs(difference)

    def slopes(self, difference: Array, xp: Any) -> Array:
        return xp.sign(difference)


class SumOfSquares(MSE):
    """The sum of (outputs - target)^2 over each example, without a half: cuda-convnet's cost.sum2.

    The mean is over the examples (MSE's is over all elements, so this is MSE times the outputs an example has); the
    gradient is 2 (outputs - target) / N. cuda-convnet took the difference in a layer before; here it is the loss's.

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        return super().forward(outputs, target, ctx)[0], len(outputs)


class Huber(_OfDifference):
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), for d = outputs - target.

    The mean is over all elements, as in torch.nn.HuberLoss (Huber 1964). `SmoothL1(beta)` is this divided by delta =
    beta.

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not 0.0 < delta < math.inf:
            raise ValueError(f"delta must be positive and finite, got {delta}")
        self.delta = delta

    def values(self, difference: Array, xp: Any) -> Array:
        size = abs(difference)
        inner = xp.minimum(size, self.delta)  # both cases are inner (|d| - inner / 2): no square can overflow
        return inner * (size - 0.5 * inner)

    def slopes(self, difference: Array, xp: Any) -> Array:
        return xp.clip(difference, -self.delta, self.delta)


class SmoothL1(_OfDifference):
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, for d = outputs - target; beta 0 is L1.

    The mean is over all elements, as in torch.nn.SmoothL1Loss (Girshick 2015, arXiv:1504.08083).

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def __init__(self, beta: float = 1.0) -> None:
        if not 0.0 <= beta < math.inf:
            raise ValueError(f"beta must be a finite number of at least 0, got {beta}")
        self.beta = beta

    def values(self, difference: Array, xp: Any) -> Array:
        size = abs(difference)
        if self.beta == 0:
            return size
        inner = xp.minimum(size, self.beta)
        return inner / self.beta * (size - 0.5 * inner)

    def slopes(self, difference: Array, xp: Any) -> Array:
        return xp.sign(difference) if self.beta == 0 else xp.clip(difference / self.beta, -1, 1)
