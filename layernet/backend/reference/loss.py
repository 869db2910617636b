"""Softmax and cross-entropy in one, for class labels and for soft labels.

With logits z of one row, log p_c = z_c - lse(z), where lse(z) = log sum_c exp(z_c). Weights, smoothing and soft labels
all come down to coefficients a_c of the row:

    loss = -sum_c a_c log p_c = A lse(z) - sum_c a_c z_c,   A = sum_c a_c,   d loss / d z_c = A p_c - a_c

z is shifted by its maximum first, which changes neither and keeps exp below 1. A term whose a_c is 0 counts 0, also
where z_c is minus infinity (a class that is masked out).
"""

from __future__ import annotations

import math
from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class LossOps(KernelFamily):
    def cross_entropy(
        self,
        z: Array,
        labels: Array,
        *,
        weight: Array | None = None,
        smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> tuple[tuple[Array, Array], Any]:
        """Losses and weights of the rows, both (M,), for logits (M, C) and labels (M,).

        The label y of a row gives a_c = (1 - smoothing) w_y [c = y] + smoothing w_c / C, and the row's weight is w_y. A
        row labelled `ignore_index` has loss, weight and gradient 0 whatever its logits; for a label that is neither
        that nor in 0..C-1 they are NaN, because raising an error would wait for the device.
        """
        xp, classes = self.xp, z.shape[1]
        counted = None
        if ignore_index is not None:
            counted = labels != ignore_index
            labels = xp.where(counted, labels, 0)
            z = xp.where(counted[:, None], z, 0)
        ones = xp.ones(len(labels), z.dtype) if counted is None else counted.astype(z.dtype)
        known = (labels >= 0) & (labels < classes)
        ones = xp.where(known, ones, math.nan)
        labels = xp.where(known, labels, 0)
        row_weight = ones if weight is None else ones * weight[labels]
        peak = (1.0 - smoothing) * row_weight
        spread = None
        with self.quiet():
            shifted, exp, total = self._softmax_parts(z)
            lse = xp.log(total)
            picked = xp.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
            loss = peak * lse - _times(xp, peak, picked)
            mass = peak
            if smoothing:
                each = xp.ones(classes, z.dtype) if weight is None else weight
                spread = (smoothing / classes) * (ones[:, None] * each)
                spread_mass = spread.sum(axis=1)
                loss += spread_mass * lse - _times(xp, spread, shifted).sum(axis=1)
                mass = peak + spread_mass
        return (loss, row_weight), (exp, total, mass, peak, labels, spread)

    def cross_entropy_backward(self, res: Any) -> Array:
        """The gradient (M, C) of the sum of the losses: A p_c - a_c."""
        exp, total, mass, peak, labels, spread = res
        with self.quiet():
            dz = exp * (mass / total)[:, None]
            dz[self.xp.arange(len(labels)), labels] -= peak
            if spread is not None:
                dz -= spread
        return dz

    def soft_cross_entropy(
        self, z: Array, target: Array, *, weight: Array | None = None, smoothing: float = 0.0
    ) -> tuple[Array, Any]:
        """Losses (M,) of the rows for logits (M, C) and a target q (M, C).

        a_c = w_c ((1 - smoothing) q_c + smoothing / C).
        """
        xp = self.xp
        share = target
        if smoothing:
            share = (1.0 - smoothing) * target + smoothing / z.shape[1]
        if weight is not None:
            share = share * weight
        with self.quiet():
            shifted, exp, total = self._softmax_parts(z)
            mass = share.sum(axis=1)
            loss = mass * xp.log(total) - _times(xp, share, shifted).sum(axis=1)
        return loss, (exp, total, mass, share)

    def soft_cross_entropy_backward(self, res: Any) -> Array:
        """The gradient (M, C) of the sum of the losses: A p_c - a_c."""
        exp, total, mass, share = res
        with self.quiet():
            dz = exp * (mass / total)[:, None]
            dz -= share
        return dz

    def binary_cross_entropy(self, z: Array, y: Array, weight: Array | None) -> tuple[Any, Any]:
        """The sum of -(w y log p + (1 - y) log(1 - p)), p = sigmoid(z), for logits and targets of one shape.

        w, one for each entry of the last axis, is 1 where there is no weight.
        """
        # -log p = softplus(-z) and -log(1 - p) = softplus(z), with softplus(z) = log(1 + e^-|z|) + max(z, 0)
        xp = self.xp
        positive = y if weight is None else y * weight
        mass = positive + (1 - y)
        with self.quiet():
            small = xp.exp(-abs(z))
            losses = xp.where(z > 0, (1 - y) * z, -positive * z) + mass * xp.log1p(small)
            p = xp.where(z >= 0, 1, small) / (1 + small)
            return losses.sum(), (p, mass, positive)

    def binary_cross_entropy_backward(self, res: Any) -> Array:
        """The gradient of the sum: p (w y + 1 - y) - w y."""
        p, mass, positive = res
        return p * mass - positive

    def focal(self, z: Array, labels: Array, weight: Array, gamma: float) -> tuple[Array, Any]:
        """Losses (M,) of the rows for logits (M, C), labels in 0..C-1 and weights (M,): -w (1 - p_y)^gamma log p_y."""
        xp = self.xp
        with self.quiet():
            shifted, exp, total = self._softmax_parts(z)
            log_p = xp.take_along_axis(shifted, labels[:, None], axis=1)[:, 0] - xp.log(total)
            factor = weight * (-xp.expm1(log_p)) ** gamma
            loss = -_times(xp, factor, log_p)
        return loss, (exp, total, labels, log_p, factor, gamma)

    def focal_backward(self, res: Any) -> Array:
        """The gradient (M, C) of the sum of the losses.

        With q = 1 - p_y, d loss / d log p_y = -w q^gamma (1 - gamma (p_y log p_y) / q), where the quotient comes near
        -1 as q comes near 0; and d log p_y / d z_c = [c = y] - p_c.
        """
        xp = self.xp
        exp, total, labels, log_p, factor, gamma = res
        with self.quiet():
            p, q = xp.exp(log_p), -xp.expm1(log_p)
            quotient = xp.where(q > 0, _times(xp, p, log_p) / q, -1)
            slope = factor * (1 - gamma * quotient)
            dz = exp * (slope / total)[:, None]
            dz[xp.arange(len(labels)), labels] -= slope
        return dz

    def _softmax_parts(self, z: Array) -> tuple[Array, Array, Array]:
        """(z - max z, its exp, the sum of that over each row)."""
        shifted = z - z.max(axis=1, keepdims=True)
        exp = self.xp.exp(shifted)
        return shifted, exp, exp.sum(axis=1)


def _times(xp: Any, a: Array, x: Array) -> Array:
    """a x, and 0 where a is 0, also where x is infinite."""
    return xp.where(a == 0, 0, a * x)
