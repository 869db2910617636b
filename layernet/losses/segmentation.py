"""Losses on maps of labels."""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.errors import ShapeError
from layernet.losses.base import LabelLoss, Number, as_array, like_outputs


class Dice(LabelLoss):
    """1 - (2 sum p t + smooth) / (sum p + sum t + smooth), sums over the positions: how little p and t overlap.

    Shape: outputs (N, ..., C), logits. For integer class labels (N, ...), p = softmax(outputs) and t is one-hot; for
    float targets t in 0..1 of the outputs' shape, p = sigmoid(outputs). The mean is over examples and channels.
    `squared` sums p^2 and t^2 below the line, as V-Net (Milletari et al. 2016, arXiv:1606.04797). Positions labelled
    `ignore_index` are left out of the sums.

    Raises ShapeError for outputs without positions or shapes that differ; DataError for a label that is no class,
    where the target is on the host.
    """

    def __init__(self, smooth: float = 1.0, squared: bool = False, ignore_index: int | None = -100) -> None:
        if not 0.0 < smooth < math.inf:
            raise ValueError(f"smooth must be positive, got {smooth}")
        self.smooth, self.squared, self.ignore_index = smooth, squared, ignore_index

    def check(self, output_shape: Shape) -> None:
        if len(output_shape) < 2:
            raise ShapeError(f"Dice needs outputs of shape (N, positions ..., C), got (N, {output_shape})")

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        self.check(outputs.shape[1:])
        xp, target = ctx.xp, as_array(target)
        n, classes = len(outputs), outputs.shape[-1]
        counted = None
        with ctx.ops.quiet():
            if target.dtype.kind == "f":
                t = like_outputs(self, outputs, target, ctx)
                small = xp.exp(-abs(outputs))
                p = xp.where(outputs >= 0, 1, small) / (1 + small)
            else:
                rows, labels, weight = self.rows(outputs, target, ctx, self.ignore_index)
                counted = weight[:, None]  # 1, 0 where ignored, NaN for what is no class
                t = (xp.arange(classes) == labels[:, None]) * counted
                exp = xp.exp(rows - rows.max(axis=1, keepdims=True))
                p = exp / exp.sum(axis=1, keepdims=True)
            p, t = p.reshape(n, -1, classes), t.reshape(n, -1, classes)
            counted = 1.0 if counted is None else counted.reshape(n, -1, 1)
            size = (p * p + t * t if self.squared else p + t) * counted
            above = 2 * (p * t).sum(axis=1, keepdims=True) + self.smooth
            below = size.sum(axis=1, keepdims=True) + self.smooth
            ctx.save(p, t, counted, above, below, target.dtype.kind == "f", outputs.shape)
            return (1 - above / below).sum(), n * classes

    def backward(self, ctx: Context) -> Array:
        # of the quotient: (2 t below - above (1 or 2 p)) / below^2, negated; then through the sigmoid or the softmax
        p, t, counted, above, below, sigmoid, shape = ctx.saved
        with ctx.ops.quiet():
            dp = counted * (above / below * (2 * p if self.squared else 1.0) - 2 * t) / below
            dz = dp * p * (1 - p) if sigmoid else p * (dp - (dp * p).sum(axis=2, keepdims=True))
        return dz.reshape(shape)
