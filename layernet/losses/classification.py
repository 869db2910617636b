"""Losses that look at class labels: of the last axis, one output a class."""

from __future__ import annotations

import math
from typing import Literal

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.targets import check_labels
from layernet.errors import DataError, ShapeError
from layernet.losses.base import LabelLoss, Number, as_array, check_weights, to_device


class CrossEntropy(LabelLoss):
    """Softmax and cross-entropy: -log p_y, or -sum_c q_c log p_c, with p = softmax(outputs).

    Shape: outputs (N, ..., C), logits. The target is integer class labels (N, ...), or float soft labels q (N, ..., C).
    `label_smoothing` e replaces q by (1 - e) q + e / C. `class_weight`, one number a class, multiplies each class's
    term; the normaliser is the sum of the labels' weights, for soft labels the number of rows. Labels equal to
    `ignore_index` count nowhere. All of it as torch.nn.CrossEntropyLoss, except that the mean of no labels is 0.

    Raises DataError for a label that is no class, where the target is on the host; ShapeError for shapes that differ.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weight: list[float] | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must lie in 0..1, got {label_smoothing}")
        check_weights("class_weight", class_weight)
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.ignore_index = ignore_index

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        self.check(outputs.shape[1:])
        target = as_array(target)
        weight = None if self.class_weight is None else ctx.xp.asarray(self.class_weight, dtype=ctx.dtype)
        logits = outputs.reshape(-1, outputs.shape[-1])
        if target.dtype.kind == "f":
            self._check_soft(outputs, target)
            q = to_device(target, ctx, ctx.dtype).reshape(logits.shape)
            losses, res = ctx.ops.soft_cross_entropy(logits, q, weight=weight, smoothing=self.label_smoothing)
            normaliser: Number = len(logits)
        else:
            check_labels(target, outputs.shape, self.ignore_index)
            labels = to_device(target, ctx, "int64").reshape(-1)
            (losses, counts), res = ctx.ops.cross_entropy(
                logits, labels, weight=weight, smoothing=self.label_smoothing, ignore_index=self.ignore_index
            )
            normaliser = counts.sum()
        ctx.save(res, target.dtype.kind == "f", outputs.shape)
        with ctx.ops.quiet():
            return losses.sum(), normaliser

    def backward(self, ctx: Context) -> Array:
        res, soft, shape = ctx.saved
        back = ctx.ops.soft_cross_entropy_backward if soft else ctx.ops.cross_entropy_backward
        return back(res).reshape(shape)

    def _check_soft(self, outputs: Array, target: Array) -> None:
        if target.shape != outputs.shape:
            raise ShapeError(
                f"soft labels (float) have shape {target.shape}, the outputs {outputs.shape}",
                "soft labels have the outputs' shape; class labels are integers",
            )
        if self.ignore_index is not None and self.ignore_index >= 0:
            raise DataError(
                f"ignore_index: {self.ignore_index} means nothing for soft labels", "set ignore_index: null"
            )


class NLL(LabelLoss):
    """-w_y x_y: cross-entropy of log-probabilities, such as LogSoftmax gives.

    Shape: outputs (N, ..., C), log-probabilities; integer class labels y (N, ...). The normaliser is the sum of the
    labels' weights w; labels equal to `ignore_index` count nowhere. As torch.nn.NLLLoss, except that the mean of no
    labels is 0. `CrossEntropy` is LogSoftmax and NLL in one, and keeps more digits.

    Raises DataError for a label that is no class, where the target is on the host; ShapeError for shapes that differ.
    """

    def __init__(self, class_weight: list[float] | None = None, ignore_index: int | None = -100) -> None:
        check_weights("class_weight", class_weight)
        self.class_weight, self.ignore_index = class_weight, ignore_index

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        rows, labels, weight = self.rows(outputs, target, ctx, self.ignore_index)
        ctx.save(labels, weight, outputs.shape)
        picked = ctx.xp.take_along_axis(rows, labels[:, None], axis=1)[:, 0]
        with ctx.ops.quiet():
            return -ctx.xp.where(weight == 0, 0, weight * picked).sum(), weight.sum()

    def backward(self, ctx: Context) -> Array:
        labels, weight, shape = ctx.saved
        dx = ctx.xp.zeros((len(labels), shape[-1]), dtype=ctx.dtype)
        dx[ctx.xp.arange(len(labels)), labels] = -weight
        return dx.reshape(shape)


class Focal(LabelLoss):
    """-w_y (1 - p_y)^gamma log p_y, p = softmax(outputs): cross-entropy that counts less what is learned already.

    Shape: outputs (N, ..., C), logits; integer class labels y (N, ...). gamma 0 is CrossEntropy, with the same
    `class_weight` w, `ignore_index` and normaliser. The paper (Lin et al. 2017, arXiv:1708.02002) has one yes or no for
    each class in place of the softmax: that is `SigmoidFocal`.

    Raises DataError for a label that is no class, where the target is on the host; ShapeError for shapes that differ.
    """

    def __init__(
        self, gamma: float = 2.0, class_weight: list[float] | None = None, ignore_index: int | None = -100
    ) -> None:
        if not 0.0 <= gamma < math.inf:
            raise ValueError(f"gamma must be a finite number of at least 0, got {gamma}")
        check_weights("class_weight", class_weight)
        self.gamma, self.class_weight, self.ignore_index = gamma, class_weight, ignore_index

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        rows, labels, weight = self.rows(outputs, target, ctx, self.ignore_index)
        losses, res = ctx.ops.focal(rows, labels, weight, self.gamma)
        ctx.save(res, outputs.shape)
        with ctx.ops.quiet():
            return losses.sum(), weight.sum()

    def backward(self, ctx: Context) -> Array:
        res, shape = ctx.saved
        return ctx.ops.focal_backward(res).reshape(shape)


class MultiMargin(LabelLoss):
    """w_y / C sum_(c != y) max(0, margin - x_y + x_c)^p: the label's output shall lead all others by the margin.

    Shape: outputs x (N, ..., C), scores; integer class labels y (N, ...). The mean is over the labels, whatever their
    `class_weight` w, as in torch.nn.MultiMarginLoss (Crammer and Singer 2001).

    Raises DataError for a label that is no class, where the target is on the host; ShapeError for shapes that differ.
    """

    def __init__(self, p: Literal[1, 2] = 1, margin: float = 1.0, class_weight: list[float] | None = None) -> None:
        if p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {p}")
        if not math.isfinite(margin):
            raise ValueError(f"margin must be finite, got {margin}")
        check_weights("class_weight", class_weight)
        self.p, self.margin, self.class_weight = p, margin, class_weight

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        rows, labels, weight = self.rows(outputs, target, ctx, None)
        xp, share = ctx.xp, weight[:, None] / rows.shape[1]
        with ctx.ops.quiet():
            gap = rows - xp.take_along_axis(rows, labels[:, None], axis=1) + self.margin
            others = xp.arange(rows.shape[1]) != labels[:, None]
            lacking = xp.where(others, xp.maximum(gap, 0), 0)
            ctx.save(lacking, share, labels, outputs.shape)
            return (share * lacking**self.p).sum(), len(rows)

    def backward(self, ctx: Context) -> Array:
        lacking, share, labels, shape = ctx.saved
        with ctx.ops.quiet():
            dx = share * ((lacking > 0) if self.p == 1 else 2 * lacking)
            dx[ctx.xp.arange(len(labels)), labels] = -dx.sum(axis=1)
        return dx.reshape(shape)
