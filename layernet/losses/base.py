"""What all losses share.

A loss gives a sum over its batch and a normaliser, and the gradient of the sum. The mean is taken once, by whoever
trains, as sum of sums over sum of normalisers; so class weights, ignored labels, short batches, accumulation and
several processes all average right. Called like a function, a loss does that for one batch.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.device import device_of
from layernet.core.configurable import Configurable
from layernet.core.context import Context, Tape
from layernet.core.targets import check_labels
from layernet.errors import ContractError, DataError, ShapeError

Number = Any
"""A Python number, or an array of no axes on the device: reading it there would wait for the device."""


class Loss(Configurable):
    """Base of all losses. A subclass writes `forward` and `backward`, and `check` where it is choosy about shapes."""

    targets: ClassVar[Literal["any", "classes", "numbers"]] = "any"
    """What targets it takes, as far as a config can be held to it: `classes` needs an output for every class of the
    data, `numbers` are not class labels."""

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
            total, normaliser = forward(self, outputs, target, ctx)
            scale = inverse(normaliser)
            return float(total * scale), backward(self, outputs, target, ctx) * scale


def forward(loss: Loss, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
    """What `loss.forward` returns. Raises ContractError where that is not two numbers."""
    found = loss.forward(outputs, target, ctx)
    expected = f"{type(loss).__name__}.forward must return (sum, normaliser), two numbers"
    if not isinstance(found, tuple | list) or len(found) != 2:
        got = f"{len(found)} of them" if isinstance(found, tuple | list) else type(found).__name__
        raise ContractError(f"{expected}, got {got}", "for a mean over the batch: return values.sum(), values.size")
    for name, number in zip(("sum", "normaliser"), found, strict=True):
        if number is None or getattr(number, "shape", ()) != ():
            got = "None" if number is None else f"one of shape {number.shape}"
            raise ContractError(f"{expected}; its {name} is {got}")
    return found[0], found[1]


def backward(loss: Loss, outputs: Array, target: Array, ctx: Context) -> Array:
    """What `loss.backward` returns. Raises ContractError where that has not the shape of the outputs."""
    dy = loss.backward(ctx)
    if getattr(dy, "shape", None) != outputs.shape:
        got = f"one of shape {dy.shape}" if hasattr(dy, "shape") else "None" if dy is None else type(dy).__name__
        given = as_array(target).shape if target is not None else outputs.shape
        raise ContractError(
            f"{type(loss).__name__}.backward must return a gradient of the outputs' shape {outputs.shape}, got {got}",
            f"outputs {outputs.shape} and target {given} broadcast: reshape one of them"
            if given != outputs.shape
            else "",
        )
    return dy


class LabelLoss(Loss):
    """Base of the losses on class labels: an output a class on the last axis, and perhaps a weight a class."""

    targets = "classes"
    class_weight: list[float] | None = None

    def check(self, output_shape: Shape) -> None:
        name, weight = type(self).__name__, self.class_weight
        if not output_shape:
            raise ShapeError(f"{name} needs outputs of shape (N, ..., classes)", "end the net with Linear(classes)")
        if weight is not None and len(weight) != output_shape[-1]:
            raise ShapeError(f"class_weight has {len(weight)} numbers, the outputs {output_shape[-1]} classes")

    def rows(self, outputs: Array, target: Array, ctx: Context, ignore_index: int | None) -> tuple[Array, Array, Array]:
        """(outputs (M, C), labels (M,), weights (M,)), checked: a row for each label.

        A row labelled `ignore_index` has weight and outputs 0. A label that is no class, which only the host can
        refuse, has weight NaN; the label stands as 0 in both cases.
        """
        self.check(outputs.shape[1:])
        target = as_array(target)
        check_labels(target, outputs.shape, ignore_index)
        xp, classes = ctx.xp, outputs.shape[-1]
        rows, labels = outputs.reshape(-1, classes), to_device(target, ctx, "int64").reshape(-1)
        known = (labels >= 0) & (labels < classes)
        ignored = labels == ignore_index if ignore_index is not None else None
        labels = xp.where(known, labels, 0)
        weight = xp.ones(classes, ctx.dtype)
        if self.class_weight is not None:
            weight = xp.asarray(self.class_weight, dtype=ctx.dtype)
        weight = xp.where(known, weight[labels], math.nan)
        if ignored is not None:
            rows, weight = xp.where(ignored[:, None], 0, rows), xp.where(ignored, 0, weight)
        return rows, labels, weight


def check_weights(name: str, weights: list[float] | None) -> None:
    """Raise ValueError unless they are numbers to weigh with."""
    if weights is not None and not all(0.0 <= w < math.inf for w in weights):
        raise ValueError(f"{name} must be finite and not negative, got {weights}")


def inverse(normaliser: Number) -> Number:
    """1 / normaliser, and 0 where it is 0, without waiting for the device: what turns a sum into a mean."""
    return (normaliser != 0) / (normaliser + (normaliser == 0))  # booleans keep the normaliser's own type


def as_array(value: Any) -> Array:
    """Arrays as they are, on host or device; lists and numbers as numpy."""
    return value if hasattr(value, "dtype") else np.asarray(value)


def to_device(target: Array, ctx: Context, dtype: str) -> Array:
    return ctx.tape.device.asarray(target, dtype)


def like_outputs(loss: Loss, outputs: Array, target: Array, ctx: Context) -> Array:
    """The target on the device: floats of the outputs' shape, never broadcast."""
    name, target = type(loss).__name__, as_array(target)
    if target.dtype.kind != "f":
        raise DataError(
            f"{name} takes float targets, got {target.dtype}",
            "class labels go with CrossEntropy; numbers need astype('float32')",
        )
    if target.shape != outputs.shape:
        raise ShapeError(f"{name}: the target has shape {target.shape}, the outputs have {outputs.shape}")
    return to_device(target, ctx, ctx.dtype)
