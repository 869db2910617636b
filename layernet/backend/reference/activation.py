"""Nonlinearities that need care with extremes, or functions that numpy lacks."""

from __future__ import annotations

import math
from typing import Any, Literal

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily

# Chebyshev coefficients in u = 2 t - 1 of ln(erfc(x) / t) + x^2 with t = 2 / (2 + x), x >= 0: the smooth rest of erfc
# once its decay is taken out. Computed with 50 digits from 40 Chebyshev nodes; what is cut off is below 1e-16. The
# form is that of Numerical Recipes (Press et al. 2007, section 6.2.2).
_ERFC = (
    -0.65132685989085474301, 0.6419697923564903121, 0.01947647320418578464, -0.0095615147868085801693,
    -0.00094659534448208806004, 0.00036683949785281228781, 0.00004252332480685737189, -0.000020278578112484357297,
    -1.6242900046963205542e-6, 1.3036558356291514162e-6, 1.562644167417973641e-8, -8.5238095867855780705e-8,
    6.5290543929163143271e-9, 5.0593435407745713353e-9, -9.913642006869699585e-10, -2.2736507919655608302e-10,
    9.6467869087289010573e-11, 2.3940787874866866693e-12, -6.8860669397631319619e-12, 8.9452598862025898235e-13,
    3.1305548926528466055e-13, -1.1267304009951176148e-13, 3.4742841663723004863e-16, 7.138186412679843834e-15,
    -1.553494212114300448e-15, -6.5778699849339728308e-17,
)  # fmt: skip
_SINGLE = 13  # as many of them reach float32 precision
_FAR = 40.0  # beyond, exp(-x^2 / 2) is 0 in float64
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBIC = 0.044715


class ActivationOps(KernelFamily):
    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)), by the form whose exponential cannot overflow."""
        z = self.xp.exp(-abs(x))
        return self.xp.where(x >= 0, 1.0, z) / (1.0 + z)

    def softmax(self, x: Array) -> tuple[Array, Any]:
        """exp(x) / sum exp(x) over the last axis, after subtracting the maximum, which changes nothing: (y, res)."""
        with self.quiet():  # the difference of huge values of both signs overflows to -inf, whose exp is the right 0
            y = self.xp.exp(x - x.max(axis=-1, keepdims=True))
        y /= y.sum(axis=-1, keepdims=True)
        return y, y

    def softmax_backward(self, dy: Array, res: Any) -> Array:
        """dx: as dy_i/dx_j = y_i ([i = j] - y_j), dx_j = y_j (dy_j - sum_i dy_i y_i)."""
        y = res
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True))

    def normal_cdf(self, x: Array) -> Array:
        """The standard normal distribution function, erfc(-x / sqrt 2) / 2, to relative precision in both tails."""
        xp = self.xp
        z = xp.minimum(abs(x), _FAR) * math.sqrt(0.5)
        t = 2.0 / (2.0 + z)
        u = 2.0 * (2.0 * t - 1.0)
        upper, after = xp.zeros_like(z), xp.zeros_like(z)
        for coefficient in reversed(_ERFC[1:_SINGLE] if x.dtype == "float32" else _ERFC[1:]):  # Clenshaw's recurrence
            upper, after = u * upper - after + coefficient, upper
        tail = 0.5 * t * xp.exp(0.5 * u * upper - after + _ERFC[0] - z * z)
        return xp.where(x < 0, tail, 1.0 - tail)

    def gelu(self, x: Array, approximate: Literal["none", "tanh"] = "none") -> tuple[Array, Any]:
        """x Phi(x), Phi the normal distribution function, or its tanh approximation: (y, res)."""
        gate = self.normal_cdf(x) if approximate == "none" else 0.5 * (1.0 + self.xp.tanh(self._tanh_argument(x)))
        return x * gate, (x, gate, approximate)

    def gelu_backward(self, dy: Array, res: Any) -> Array:
        """dx = dy (gate + x gate'), where Phi' is the normal density, and 2 gate - 1 = tanh a has derivative
        (1 - tanh^2 a) a' = 4 gate (1 - gate) a'."""
        x, gate, approximate = res
        near = self.xp.clip(x, -_FAR, _FAR)  # further out the derivative of the gate is 0
        if approximate == "none":
            slope = self.xp.exp(-0.5 * near * near) * (1.0 / math.sqrt(2.0 * math.pi))
        else:
            slope = 2.0 * gate * (1.0 - gate) * _TANH_SCALE * (1.0 + 3.0 * _TANH_CUBIC * near * near)
        return dy * (gate + near * slope)

    def _tanh_argument(self, x: Array) -> Array:
        near = self.xp.clip(x, -_FAR, _FAR)
        return _TANH_SCALE * (near + _TANH_CUBIC * near * near * near)
