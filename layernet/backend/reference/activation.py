"""Elementwise nonlinearities, and softmax. No finite input overflows: every exp has an argument that is not positive.

Nothing here selects by `where`: on a CPU a select by random signs costs ten times an arithmetic pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from layernet.backend import Array
from layernet.backend.reference.channels import ChannelOps

Approximate = Literal["none", "tanh"]

# erf(x) = x P(x^2) / Q(x^2) for |x| up to the bound, beyond which erf rounds to +-1.
# The coefficients are our own fit: least squares of (P - f Q) / (f Q), f = erf(sqrt z) / sqrt z, on 200 Chebyshev nodes
# in 60 digits, with Q from the round before in the denominator and the nodes reweighted by their error (Lawson's
# method) until it is level. Fit error 3.5e-17 and 1.9e-8. All coefficients are positive, so nothing cancels: the
# rounding of the evaluation, below 4 units of relative precision, is all that is left.
# That a rational function of x^2 serves is W. J. Cody, "Rational Chebyshev approximations for the error function",
# Math. Comp. 23 (1969).
_ERF64 = (
    5.95,
    (
        1.1283791670955126,
        0.22049503038586077,
        0.06617800884640532,
        0.0069070331651009545,
        0.0008572152227894216,
        5.713909315555912e-05,
        3.910713928134356e-06,
        1.701517729857282e-07,
        6.77812632331094e-09,
        1.7253949026592095e-10,
        3.331990974833624e-12,
        2.2110693053022407e-14,
        1.553462870766158e-17,
    ),
    (
        1.0,
        0.5287419661898045,
        0.13489605537583932,
        0.022021877748207595,
        0.002570172393820437,
        0.00022668168514976186,
        1.554523981666019e-05,
        8.377816532776774e-07,
        3.527422412539009e-08,
        1.1279381753568132e-09,
        2.553676054298943e-11,
        3.3044514825161503e-13,
        8.768120117849317e-16,
    ),
)
_ERF32 = (
    3.92,
    (1.12837915, 0.19036033, 0.0527426751, 0.00376364953, 0.000284840606, 2.05047202e-06),
    (1.0, 0.502035203, 0.114090085, 0.0149652816, 0.00116206203, 3.80934931e-05),
)

_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBE = 0.044715
_TANH_SATURATED = 10.0  # the tanh of GELU's approximation is exactly +-1 from 8 on, in float64 too
_DENSITY_GONE = 40.0  # exp(-t^2 / 2) is exactly 0 from 39 on, in float64 too


class ActivationOps(ChannelOps):
    def relu(self, x: Array) -> tuple[Array, Any]:
        """max(x, 0)."""
        y = self.xp.maximum(x, 0)
        return y, y

    def relu_backward(self, dy: Array, res: Any) -> Array:
        """dy where x > 0."""
        return dy * (res > 0)

    def leaky_relu(self, x: Array, slope: float) -> tuple[Array, Any]:
        """x where x > 0, slope * x elsewhere; slope >= 0."""
        pick = self.xp.maximum if slope <= 1 else self.xp.minimum
        y = pick(x, x * slope)
        return y, (y, slope)  # y has x's sign, and the next layer keeps y anyway

    def leaky_relu_backward(self, dy: Array, res: Any) -> Array:
        """dy where x > 0, slope * dy elsewhere."""
        y, slope = res
        return _leak(dy, y > 0, slope)

    def prelu(self, x: Array, weight: Array) -> tuple[Array, Any]:
        """x where x > 0, weight * x elsewhere, one weight (C,) a channel."""
        y = self.channel_affine(self.xp.minimum(x, 0), weight)
        y += self.xp.maximum(x, 0)
        return y, (x, weight)

    def prelu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True
    ) -> tuple[Array | None, Array | None]:
        """(dx, dweight)."""
        x, weight = res
        dw = self.channel_dot(dy, self.xp.minimum(x, 0)) if need_dw else None
        return _leak(dy, x > 0, weight) if need_dx else None, dw

    def sigmoid(self, x: Array) -> tuple[Array, Any]:
        """1 / (1 + exp(-x))."""
        y = self._logistic(x)
        return y, y

    def sigmoid_backward(self, dy: Array, res: Any) -> Array:
        """dy y (1 - y)."""
        dx = 1 - res
        dx *= res
        dx *= dy
        return dx

    def tanh(self, x: Array) -> tuple[Array, Any]:
        """The hyperbolic tangent."""
        y = self.xp.tanh(x)
        return y, y

    def tanh_backward(self, dy: Array, res: Any) -> Array:
        """dy (1 - y^2)."""
        dx = 1 - res * res
        dx *= dy
        return dx

    def silu(self, x: Array) -> tuple[Array, Any]:
        """x sigmoid(x)."""
        return x * self._logistic(x), x

    def silu_backward(self, dy: Array, res: Any) -> Array:
        """dy s (1 + x (1 - s)), with s = sigmoid(x) computed again rather than kept."""
        s = self._logistic(res)
        dx = 1 - s
        dx *= res
        dx += 1
        dx *= s
        dx *= dy
        return dx

    def gelu(self, x: Array, approximate: Approximate) -> tuple[Array, Any]:
        """x Phi(x), Phi being the normal distribution function or its tanh approximation."""
        return x * (self._normal_cdf(x) if approximate == "none" else self._tanh_cdf(x)[0]), (x, approximate)

    def gelu_backward(self, dy: Array, res: Any) -> Array:
        """dy (Phi(x) + x Phi'(x))."""
        x, approximate = res
        if approximate == "none":
            dx = self._normal_density(x)
            cdf = self._normal_cdf(x)
        else:
            cdf, clipped = self._tanh_cdf(x)
            # Phi = (1 + tanh u) / 2, so Phi' = u' (1 - tanh^2 u) / 2 = 2 u' Phi (1 - Phi)
            dx = (2 * _TANH_SCALE) * (1 + (3 * _TANH_CUBE) * clipped * clipped)
            dx *= cdf * (1 - cdf)
        dx *= x
        dx += cdf
        dx *= dy
        return dx

    def glu(self, x: Array) -> tuple[Array, Any]:
        """a sigmoid(b), a being the first half of the channels and b the second: (..., 2 C) -> (..., C)."""
        half = x.shape[-1] // 2
        gate = self._logistic(x[..., half:])
        y = x[..., :half] * gate
        return y, (y, gate)

    def glu_backward(self, dy: Array, res: Any) -> Array:
        """dy sigmoid(b) and dy a sigmoid(b) (1 - sigmoid(b)), side by side."""
        y, gate = res
        return self.xp.concatenate([dy * gate, dy * y * (1 - gate)], axis=-1)

    def softmax(self, x: Array) -> tuple[Array, Any]:
        """exp(x) / sum of exp(x), over the last axis."""
        with self.quiet():  # huge x of both signs: the difference overflows to -inf, whose exp is the right 0
            y = x - x.max(axis=-1, keepdims=True)
        self.xp.exp(y, out=y)
        y /= self.row_sum(y)
        return y, y

    def softmax_backward(self, dy: Array, res: Any) -> Array:
        """y (dy - sum of dy y): the Jacobian is diag(y) - y y^T."""
        return res * (dy - self.row_dot(dy, res))

    def erf(self, x: Array) -> Array:
        """The error function, to 4 units of relative precision. (On cupy, cupyx.scipy.special.erf is one launch.)"""
        bound, above, below = _ERF64 if x.dtype == "float64" else _ERF32
        x = self.xp.clip(x, -bound, bound)
        square = x * x
        y = x * _polynomial(above, square)
        y /= _polynomial(below, square)
        return self.xp.clip(y, -1, 1)

    def _logistic(self, x: Array) -> Array:
        # 1 / (1 + e) where x >= 0 and e / (1 + e) elsewhere, e = exp(-|x|) <= 1
        e = self.xp.exp(-abs(x))
        y = self.xp.maximum(e, x >= 0)
        e += 1
        y /= e
        return y

    def _normal_cdf(self, x: Array) -> Array:
        y = self.erf(x * math.sqrt(0.5))
        y += 1
        y *= 0.5
        return y

    def _normal_density(self, x: Array) -> Array:
        t = self.xp.minimum(abs(x), _DENSITY_GONE)
        t *= t
        t *= -0.5
        self.xp.exp(t, out=t)
        t *= 1.0 / math.sqrt(2.0 * math.pi)
        return t

    def _tanh_cdf(self, x: Array) -> tuple[Array, Array]:
        """(1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), and x held where u cannot overflow."""
        clipped = self.xp.clip(x, -_TANH_SATURATED, _TANH_SATURATED)
        u = clipped * clipped
        u *= _TANH_CUBE
        u += 1
        u *= clipped
        u *= _TANH_SCALE
        self.xp.tanh(u, out=u)
        u += 1
        u *= 0.5
        return u, clipped


def _leak(dy: Array, positive: Array, slope: Array | float) -> Array:
    """dy where positive, slope * dy elsewhere."""
    passed = dy * positive
    dx = dy - passed
    dx *= slope
    dx += passed
    return dx


def _polynomial(coefficients: Sequence[float], z: Array) -> Array:
    """The sum of c_k z^k, even and odd powers apart: half the roundings in a row."""
    square = z * z
    y = _horner(coefficients[1::2], square)
    y *= z
    y += _horner(coefficients[0::2], square)
    return y


def _horner(coefficients: Sequence[float], z: Array) -> Array:
    y = z * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        y += c
        y *= z
    y += coefficients[0]
    return y
