"""Losses that ask yes or no of every output by itself: one label or several an example."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.errors import DataError, ShapeError
from layernet.losses.base import Loss, Number, as_array, like_outputs


class BCEWithLogits(Loss):
    """Binary cross-entropy of each output by itself, with p = sigmoid(outputs): -(w y log p + (1 - y) log(1 - p)).

    Shape: outputs and float targets y in 0..1 of one shape (N, ...); an example may have any number of labels, a 1 for
    each (torch's MultiLabelSoftMarginLoss is this loss). `pos_weight` w, a number or a list with one for
    each entry of the last axis, makes positives count more. The mean is over all elements, as in
    torch.nn.BCEWithLogitsLoss. Raises ShapeError for shapes that differ, DataError for targets that are no floats.
    """

    targets = "numbers"

    def __init__(self, pos_weight: float | list[float] | None = None) -> None:
        weights = pos_weight if isinstance(pos_weight, list) else [1.0 if pos_weight is None else pos_weight]
        if not all(0.0 <= w < math.inf for w in weights):
            raise ValueError(f"pos_weight must be finite and not negative, got {pos_weight}")
        self.pos_weight = pos_weight

    def check(self, output_shape: Shape) -> None:
        if isinstance(self.pos_weight, list) and output_shape[-1:] != (len(self.pos_weight),):
            raise ShapeError(f"pos_weight has {len(self.pos_weight)} numbers, the outputs have shape {output_shape}")

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        self.check(outputs.shape[1:])
        xp, y, weight = ctx.xp, like_outputs(self, outputs, target, ctx), None
        if self.pos_weight is not None:
            weight = xp.zeros(outputs.shape[-1:], ctx.dtype) + xp.asarray(self.pos_weight, dtype=ctx.dtype)
        total, res = ctx.ops.binary_cross_entropy(outputs, y, weight)
        ctx.save(res)
        return total, outputs.size

    def backward(self, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.binary_cross_entropy_backward(res)


class SigmoidFocal(Loss):
    """a (1 - q)^gamma times the BCE of each output, q = p y + (1 - p)(1 - y), p = sigmoid(outputs).

    Shape: outputs and float targets y in 0..1 of one shape (N, ...). `alpha` weighs: a = alpha y + (1 - alpha)(1 - y),
    and None does not. The mean is over all elements; the paper divides by the number of objects instead (Lin et al.
    2017, arXiv:1708.02002). As torchvision.ops.sigmoid_focal_loss(reduction="mean"), whose alpha -1 is our None.

    Raises ShapeError for shapes that differ, DataError for targets that are no floats.
    """

    targets = "numbers"

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25) -> None:
        if not 0.0 <= gamma < math.inf:
            raise ValueError(f"gamma must be a finite number of at least 0, got {gamma}")
        if alpha is not None and not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must lie in 0..1, got {alpha}")
        self.gamma, self.alpha = gamma, alpha

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        xp, z, y = ctx.xp, outputs, like_outputs(self, outputs, target, ctx)
        weight = 1.0 if self.alpha is None else self.alpha * y + (1 - self.alpha) * (1 - y)
        with ctx.ops.quiet():
            small = xp.exp(-abs(z))
            bce = xp.log1p(small) + xp.maximum(z, 0) - z * y
            yes, no = (xp.where(side, 1, small) / (1 + small) for side in (z >= 0, z < 0))  # p and 1 - p, all digits
            wrong = no * y + yes * (1 - y)  # 1 - q
            ctx.save(y, weight, bce, yes, no, wrong)
            return (weight * wrong**self.gamma * bce).sum(), z.size

    def backward(self, ctx: Context) -> Array:
        # with u = 1 - q, u' = p (1 - p)(1 - 2 y): the gradient is a u^gamma (p - y + gamma u' / u bce), u' / u <= 1
        y, weight, bce, yes, no, wrong = ctx.saved
        xp = ctx.xp
        with ctx.ops.quiet():
            slope = xp.where(wrong > 0, yes * no * (1 - 2 * y) / wrong, 0)
            return weight * wrong**self.gamma * (yes - y + self.gamma * xp.where(slope == 0, 0, slope * bce))


class Hinge(Loss):
    """max(0, margin - y x)^p: each output x shall be on its target's side of 0, by the margin.

    Shape: outputs x and float targets y, each -1 or 1, of one shape (N, ...). The mean is over all elements, as in
    Torch7's MarginCriterion; `p: 2` is the squared hinge. For class labels see `MultiMargin`.

    Raises ShapeError for shapes that differ; DataError for targets that are no floats, or, on the host, not -1 or 1.
    """

    targets = "numbers"

    def __init__(self, margin: float = 1.0, p: Literal[1, 2] = 1) -> None:
        if not math.isfinite(margin):
            raise ValueError(f"margin must be finite, got {margin}")
        if p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {p}")
        self.margin, self.p = margin, p

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        y = like_outputs(self, outputs, target, ctx)
        given = as_array(target)
        if isinstance(given, np.ndarray) and (strange := given[abs(given) != 1]).size:
            raise DataError(f"Hinge takes targets of -1 and 1, got {strange[0]}", "for 0 and 1: 2 * target - 1")
        with ctx.ops.quiet():
            lacking = ctx.xp.maximum(self.margin - y * outputs, 0)
            ctx.save(lacking, y)
            return (lacking**self.p).sum(), outputs.size

    def backward(self, ctx: Context) -> Array:
        lacking, y = ctx.saved
        with ctx.ops.quiet():
            return -y * ((lacking > 0) if self.p == 1 else 2 * lacking)
