"""Losses with their gradients, which cost little while the outputs are at hand: cross-entropy and its binary kin.

The coefficients a_c of a row, and the formulas, are those of reference/loss.py. A term whose a_c is 0 counts 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.arrays import by_channel, takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.norm import Rows
from layernet.backend.compiled.vecmath import exp, log1p
from layernet.backend.compiled.vectors import (
    absolute,
    first_or,
    fma,
    largest,
    load_first,
    load_float,
    load_int,
    maximum,
    splat,
    store_first,
    store_float,
    total,
    where_positive,
)
from layernet.backend.reference.loss import LossOps

_MINUS_INFINITY, _ZERO, _ONE = np.float32(-np.inf), np.float32(0), np.float32(1)
_NAN = np.float32(np.nan)


@njit(inline="always")
def _exponentials(source: int, size: int, target: int) -> Any:
    """(max z, sum of exp(z - max z)); each exp is stored."""
    zero, top = splat(_ZERO), splat(_MINUS_INFINITY)
    for c in range(0, size, LANES):
        top = maximum(top, first_or(size - c, load_first(source + c * 4, size - c), splat(_MINUS_INFINITY)))
    peak = largest(top)
    highest, mass = splat(peak), zero
    for c in range(0, size, LANES):
        e = exp(load_first(source + c * 4, size - c) - highest)
        store_first(target + c * 4, e, size - c)
        mass = mass + first_or(size - c, e, zero)
    return peak, total(mass)


@Kernel
def _cross_entropy(
    task, tasks, z, labels, rows, size, ignores, ignored, weight, spread, constants, losses, weights, dz,
):  # fmt: skip
    """losses = A lse(z) - sum of a_c z_c and dz = A softmax(z) - a; 0 for the label to ignore, NaN for none.

    a = keep w_label at the label, and everywhere what `spread` holds, where it is given.
    """
    first, last = split(rows, task, tasks)
    zero = splat(_ZERO)
    keep, spread_mass = load_float(constants), load_float(constants + 4)
    for row in range(first, last):
        source, target = z + row * size * 4, dz + row * size * 4
        label = load_int(labels + row * 8)
        skip = ignores and label == ignored
        if skip or label < 0 or label >= size:
            nothing = _ZERO if skip else _NAN
            store_float(losses + row * 4, nothing)
            store_float(weights + row * 4, nothing)
            for c in range(0, size, LANES):
                store_first(target + c * 4, splat(nothing), size - c)
            continue
        row_weight = load_float(weight + label * 4) if weight else _ONE
        at_label = keep * row_weight
        peak, whole = _exponentials(source, size, target)
        mass, dot = at_label, _ZERO
        if at_label != 0:
            dot = at_label * (load_float(source + label * 4) - peak)
        if spread:
            mass, highest, part = mass + spread_mass, splat(peak), zero
            for c in range(0, size, LANES):
                left, share = size - c, load_first(spread + c * 4, size - c)
                part = part + where_positive(share, share * (load_first(source + c * 4, left) - highest), zero)
            dot = dot + total(part)
        store_float(losses + row * 4, mass * np.float32(math.log(whole)) - dot)
        store_float(weights + row * 4, row_weight)
        factor = splat(mass / whole)
        for c in range(0, size, LANES):
            p = load_first(target + c * 4, size - c) * factor
            if spread:
                p = p - load_first(spread + c * 4, size - c)
            store_first(target + c * 4, p, size - c)
        store_float(target + label * 4, load_float(target + label * 4) - at_label)


@Kernel
def _soft_cross_entropy(task, tasks, z, q, rows, size, weight, constants, losses, dz):
    """The same for a = weight (keep q + least)."""
    first, last = split(rows, task, tasks)
    zero = splat(_ZERO)
    keep, least = splat(load_float(constants)), splat(load_float(constants + 4))
    for row in range(first, last):
        at = row * size * 4
        peak, whole = _exponentials(z + at, size, dz + at)
        highest, part, dot = splat(peak), zero, zero
        for c in range(0, size, LANES):
            to, left = at + c * 4, size - c
            share = fma(load_first(q + to, left), keep, least)
            if weight:
                share = share * load_first(weight + c * 4, left)
            share = first_or(left, share, zero)
            part = part + share
            dot = dot + where_positive(absolute(share), share * (load_first(z + to, left) - highest), zero)
        mass = total(part)
        store_float(losses + row * 4, mass * np.float32(math.log(whole)) - total(dot))
        factor = splat(mass / whole)
        for c in range(0, size, LANES):
            to, left = at + c * 4, size - c
            share = fma(load_first(q + to, left), keep, least)
            if weight:
                share = share * load_first(weight + c * 4, left)
            store_first(dz + to, load_first(dz + to, left) * factor - share, left)


@Kernel
def _binary_cross_entropy(task, tasks, z, y, rows, columns, weight, sums, dz):
    """dz = p mass - positive, and of each row the sum of the losses, as the reference has them."""
    first, last = split(rows, task, tasks)
    zero, one = splat(_ZERO), splat(_ONE)
    for row in range(first, last):
        part = zero
        for c in range(0, columns, LANES):
            at, left = (row * columns + c) * 4, columns - c
            a, b = load_first(z + at, left), load_first(y + at, left)
            positive = b
            if weight:
                positive = b * load_first(weight + c * 4, left)
            rest = one - b
            mass = positive + rest
            small = exp(zero - absolute(a))
            loss = fma(mass, log1p(small), where_positive(a, rest * a, zero - positive * a))
            part = part + first_or(left, loss, zero)
            p = where_positive(a, one, small) / (one + small)
            store_first(dz + at, fma(p, mass, zero - positive), left)
        store_float(sums + row * 4, total(part))


class _Known(NamedTuple):
    """A gradient that was computed on the way."""

    dz: Array


class CompiledLossOps(LossOps):
    def cross_entropy(
        self,
        z: Array,
        labels: Array,
        *,
        weight: Array | None = None,
        smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> tuple[tuple[Array, Array], Any]:
        fits = takes(z, weight) and z.ndim == 2 and by_channel(z.shape[-1], weight)
        if not fits or labels.dtype != np.int64 or labels.shape != z.shape[:1]:
            return super().cross_entropy(z, labels, weight=weight, smoothing=smoothing, ignore_index=ignore_index)
        rows, size = z.shape
        losses, weights = np.empty((2, rows), dtype=np.float32)
        dz = np.empty_like(z)
        spread = None
        if smoothing:
            spread = np.multiply(smoothing / size, np.ones(size) if weight is None else weight, dtype=np.float32)
        mass = 0.0 if spread is None else float(spread.sum(dtype=np.float64))
        _cross_entropy.launch(
            z=z, labels=np.ascontiguousarray(labels), rows=rows, size=size, ignores=int(ignore_index is not None),
            ignored=ignore_index or 0, weight=weight, spread=spread,
            constants=np.array([1.0 - smoothing, mass], dtype=np.float32), losses=losses, weights=weights, dz=dz,
        )  # fmt: skip
        return (losses, weights), _Known(dz)

    def cross_entropy_backward(self, res: Any) -> Array:
        return res.dz if isinstance(res, _Known) else super().cross_entropy_backward(res)

    def soft_cross_entropy(
        self, z: Array, target: Array, *, weight: Array | None = None, smoothing: float = 0.0
    ) -> tuple[Array, Any]:
        if not takes(z, target, weight) or z.shape != target.shape or not by_channel(z.shape[-1], weight):
            return super().soft_cross_entropy(z, target, weight=weight, smoothing=smoothing)
        rows, size = z.shape
        losses, dz = np.empty(rows, dtype=np.float32), np.empty_like(z)
        constants = np.array([1.0 - smoothing, smoothing / size], dtype=np.float32)
        _soft_cross_entropy.launch(
            z=z, q=target, rows=rows, size=size, weight=weight, constants=constants, losses=losses, dz=dz,
        )  # fmt: skip
        return losses, _Known(dz)

    def soft_cross_entropy_backward(self, res: Any) -> Array:
        return res.dz if isinstance(res, _Known) else super().soft_cross_entropy_backward(res)

    def binary_cross_entropy(self, z: Array, y: Array, weight: Array | None) -> tuple[Any, Any]:
        if not takes(z, y, weight) or z.ndim < 1 or z.shape != y.shape or not by_channel(z.shape[-1], weight):
            return super().binary_cross_entropy(z, y, weight)
        view, dz = Rows.of(z), np.empty_like(z)
        sums = np.empty(view.rows, dtype=np.float32)
        weight = None if weight is None else view.spread(weight)
        _binary_cross_entropy.launch(z=z, y=y, rows=view.rows, columns=view.columns, weight=weight, sums=sums, dz=dz)
        with self.quiet():  # a sum too large for float32 is infinite
            return sums.sum(dtype=np.float64).astype(np.float32), _Known(dz)

    def binary_cross_entropy_backward(self, res: Any) -> Array:
        return res.dz if isinstance(res, _Known) else super().binary_cross_entropy_backward(res)
