"""Objectives: losses, which look at outputs and targets, and penalties, which look at parameters.

A loss gives a sum over its batch and a normaliser, and the gradient of the sum. The mean is taken once, by whoever
trains, as sum of sums over sum of normalisers; so class weights, ignored labels, short batches, accumulation and
several processes all average right. Called like a function, a loss does that for one batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.device import device_of
from layernet.core.configurable import Configurable
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.core.targets import check_labels
from layernet.errors import DataError, ShapeError, UsageError

Number = Any
"""A Python number, or an array of no axes on the device: reading it there would wait for the device."""


class Loss(Configurable):
    """Base of all losses. A subclass writes `forward` and `backward`, and `check` where it is choosy about shapes."""

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        """(sum, normaliser) over a batch: their quotient is the mean. What backward needs goes into `ctx.save`.

        `outputs` are on the device in the net's float type; `target` may still be on the host, where checking it does
        not wait for the device.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, ctx: Context) -> Array:
        """The gradient of the sum with respect to the outputs."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def check(self, output_shape: Shape) -> None:
        """Raise ShapeError where outputs of this shape (of one example, without N) cannot be used."""

    def __call__(self, outputs: Array, target: Array) -> tuple[float, Array]:
        """(mean, gradient of the mean) for one batch; both are 0 where nothing in it counts."""
        device = device_of(outputs)
        outputs = device.asarray(outputs)
        if outputs.dtype.name not in ("float32", "float64"):
            raise DataError(f"the outputs are {outputs.dtype}, a loss takes float32 or float64")
        ctx = Context(Tape(device, outputs.dtype.name, training=True))
        with device.activate(), device.ops.quiet():
            total, normaliser = self.forward(outputs, target, ctx)
            scale = inverse(normaliser)
            return float(total * scale), self.backward(ctx) * scale


def inverse(normaliser: Number) -> Number:
    """1 / normaliser, and 0 where it is 0, without waiting for the device: what turns a sum into a mean."""
    return (normaliser != 0) / (normaliser + (normaliser == 0))  # booleans keep the normaliser's own type


class CrossEntropy(Loss):
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
        if class_weight is not None and not all(0.0 <= w < math.inf for w in class_weight):
            raise ValueError(f"class_weight must be finite and not negative, got {class_weight}")
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.ignore_index = ignore_index

    def check(self, output_shape: Shape) -> None:
        if not output_shape:
            raise ShapeError(
                "CrossEntropy needs outputs of shape (N, ..., classes)", "end the net with Linear(classes)"
            )
        if self.class_weight is not None and len(self.class_weight) != output_shape[-1]:
            raise ShapeError(
                f"class_weight has {len(self.class_weight)} numbers, the outputs {output_shape[-1]} classes"
            )

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        self.check(outputs.shape[1:])
        target = _array(target)
        weight = None if self.class_weight is None else ctx.xp.asarray(self.class_weight, dtype=ctx.dtype)
        logits = outputs.reshape(-1, outputs.shape[-1])
        if target.dtype.kind == "f":
            self._check_soft(outputs, target)
            q = _to_device(target, ctx, ctx.dtype).reshape(logits.shape)
            losses, res = ctx.ops.soft_cross_entropy(logits, q, weight=weight, smoothing=self.label_smoothing)
            normaliser: Number = len(logits)
        else:
            check_labels(target, outputs.shape, self.ignore_index)
            labels = _to_device(target, ctx, "int64").reshape(-1)
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


class BCEWithLogits(Loss):
    """Binary cross-entropy of each output by itself, with p = sigmoid(outputs): -(w y log p + (1 - y) log(1 - p)).

    Shape: outputs and float targets y in 0..1 of one shape (N, ...). `pos_weight` w, a number or a list with one for
    each entry of the last axis, makes positives count more. The mean is over all elements, as in
    torch.nn.BCEWithLogitsLoss. Raises ShapeError for shapes that differ, DataError for targets that are no floats.
    """

    def __init__(self, pos_weight: float | list[float] | None = None) -> None:
        weights = pos_weight if isinstance(pos_weight, list) else [1.0 if pos_weight is None else pos_weight]
        if not all(0.0 <= w < math.inf for w in weights):
            raise ValueError(f"pos_weight must be finite and not negative, got {pos_weight}")
        self.pos_weight = pos_weight

    def check(self, output_shape: Shape) -> None:
        if isinstance(self.pos_weight, list) and output_shape[-1:] != (len(self.pos_weight),):
            raise ShapeError(f"pos_weight has {len(self.pos_weight)} numbers, the outputs have shape {output_shape}")

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        # log p = -softplus(-z) and log(1 - p) = -softplus(-z) - z, with softplus(-z) = log(1 + e^-|z|) + max(-z, 0)
        self.check(outputs.shape[1:])
        xp, z, y = ctx.xp, outputs, _like_outputs(self, outputs, target, ctx)
        positive = y if self.pos_weight is None else y * xp.asarray(self.pos_weight, dtype=ctx.dtype)
        mass = positive + (1 - y)
        with ctx.ops.quiet():
            small = xp.exp(-abs(z))
            losses = (1 - y) * z + mass * (xp.log1p(small) + xp.maximum(-z, 0))
            p = xp.where(z >= 0, 1, small) / (1 + small)
            ctx.save(p, mass, positive)
            return losses.sum(), z.size

    def backward(self, ctx: Context) -> Array:
        p, mass, positive = ctx.saved
        return p * mass - positive


class MSE(Loss):
    """(outputs - target)^2, the mean over all elements as in torch.nn.MSELoss.

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        with ctx.ops.quiet():
            difference = outputs - _like_outputs(self, outputs, target, ctx)
            ctx.save(difference)
            return (difference * difference).sum(), outputs.size

    def backward(self, ctx: Context) -> Array:
        (difference,) = ctx.saved
        with ctx.ops.quiet():
            return 2 * difference


class L1(Loss):
    """|outputs - target|, the mean over all elements as in torch.nn.L1Loss; the gradient where they are equal is 0.

    Shape: outputs and float targets of one shape (N, ...). Raises ShapeError for shapes that differ, DataError for
    targets that are no floats.
    """

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        with ctx.ops.quiet():
            difference = outputs - _like_outputs(self, outputs, target, ctx)
            ctx.save(difference)
            return abs(difference).sum(), outputs.size

    def backward(self, ctx: Context) -> Array:
        (difference,) = ctx.saved
        with ctx.ops.quiet():
            return ctx.xp.sign(difference)


class Penalty(Configurable):
    """Base of the objectives that look at parameters: those whose path matches the shell pattern `params`.

    The gain of a norm is called `weight` too; name layers (`conv*.weight`) to leave it out.
    """

    def __init__(self, params: str = "*.weight") -> None:
        self.params = params

    def select(self, net: Net) -> list[Param]:
        """The parameters it looks at. Raises UsageError when the pattern matches none."""
        return net.matching(self.params)

    def forward(self, params: list[Param], ctx: Context) -> Number:
        """The penalty's value."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, params: list[Param], scale: Number, ctx: Context) -> None:
        """Add `scale` times the gradient of the value to the parameters' gradients, through `ctx.add_grad`."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")


class L2Penalty(Penalty):
    """1/2 sum w^2: its gradient is w, so under plain SGD a weight of x acts like `weight_decay: x`."""

    def forward(self, params: list[Param], ctx: Context) -> Number:
        return 0.5 * sum(ctx.xp.vdot(p.data, p.data) for p in params)

    def backward(self, params: list[Param], scale: Number, ctx: Context) -> None:
        for param in params:
            if ctx.needs_grad(param):
                ctx.add_grad(param, scale * param.data)


class L1Penalty(Penalty):
    """sum |w|: its gradient is sign(w), 0 at 0; it draws weights to exactly 0."""

    def forward(self, params: list[Param], ctx: Context) -> Number:
        return sum(abs(p.data).sum() for p in params)

    def backward(self, params: list[Param], scale: Number, ctx: Context) -> None:
        for param in params:
            if ctx.needs_grad(param):
                ctx.add_grad(param, scale * ctx.xp.sign(param.data))


@dataclass(frozen=True)
class Objective:
    """A loss on one of the net's outputs, or a penalty on its parameters, and how much it counts.

    `name` is what logs call it; `named` gives one to those that have none.
    """

    loss: Loss | Penalty
    on: str = "output"
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight must be finite, got {self.weight}")
        if isinstance(self.loss, Penalty) and self.on != "output":
            raise ValueError(f"on: {self.on} means nothing for {type(self.loss).__name__}: it looks at parameters")


def named(objectives: Sequence[Objective]) -> list[Objective]:
    """The objectives, each with a name of its own: by default its class in snake_case, then with `_2`, `_3`, ...

    Raises UsageError for a name that is given twice.
    """
    taken = [objective.name for objective in objectives if objective.name]
    for name in taken:
        if taken.count(name) > 1:
            raise UsageError(f"two objectives are called {name!r}", "give each its own name")
    found = []
    for objective in objectives:
        if not objective.name:
            base = name = _snake_case(type(objective.loss).__name__)
            number = 1
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            taken.append(name)
            objective = replace(objective, name=name)
        found.append(objective)
    return found


def _snake_case(name: str) -> str:
    """CrossEntropy -> cross_entropy, BCEWithLogits -> bce_with_logits, L2Penalty -> l2_penalty."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _array(value: Any) -> Array:
    """Arrays as they are, on host or device; lists and numbers as numpy."""
    return value if hasattr(value, "dtype") else np.asarray(value)


def _to_device(target: Array, ctx: Context, dtype: str) -> Array:
    return ctx.tape.device.asarray(target, dtype)


def _like_outputs(loss: Loss, outputs: Array, target: Array, ctx: Context) -> Array:
    """The target on the device: floats of the outputs' shape, never broadcast."""
    name, target = type(loss).__name__, _array(target)
    if target.dtype.kind != "f":
        raise DataError(
            f"{name} takes float targets, got {target.dtype}",
            "class labels go with CrossEntropy; numbers need astype('float32')",
        )
    if target.shape != outputs.shape:
        raise ShapeError(f"{name}: the target has shape {target.shape}, the outputs have {outputs.shape}")
    return _to_device(target, ctx, ctx.dtype)
