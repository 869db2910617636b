"""Nonlinearities that are about 0 on one side and about x on the other. No finite input overflows.

As in activation.py, nothing selects by `where`.
"""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.activation import ActivationOps


class RectifierOps(ActivationOps):
    def hardtanh(self, x: Array, low: float, high: float) -> tuple[Array, Any]:
        """x, held between low and high."""
        y = self.xp.clip(x, low, high)
        return y, (y, low, high)

    def hardtanh_backward(self, dy: Array, res: Any) -> Array:
        """dy where low < x < high."""
        y, low, high = res
        return dy * ((y > low) & (y < high))

    def elu(self, x: Array, alpha: float, scale: float) -> tuple[Array, Any]:
        """scale * x where x > 0, scale * alpha * (exp(x) - 1) elsewhere; alpha >= 0, scale > 0."""
        y = self.xp.expm1(self.xp.minimum(x, 0))
        y *= alpha
        y += self.xp.maximum(x, 0)
        if scale != 1:
            with self.quiet():
                y *= scale
        return y, (y, alpha, scale)

    def elu_backward(self, dy: Array, res: Any) -> Array:
        """dy scale where x > 0, dy scale alpha exp(x) = dy (y + scale alpha) elsewhere; y has the sign of x."""
        y, alpha, scale = res
        dx = self.xp.minimum(y, 0)
        dx += scale * alpha
        positive = y > 0
        dx *= ~positive
        dx += scale * positive
        dx *= dy
        return dx

    def hardswish(self, x: Array) -> tuple[Array, Any]:
        """x min(max(x + 3, 0), 6) / 6."""
        y = self.xp.clip(x + 3, 0, 6)
        y *= 1 / 6
        y *= x
        return y, x

    def hardswish_backward(self, dy: Array, res: Any) -> Array:
        """dy (2 x + 3) / 6 where |x| < 3, 0 below and dy above."""
        x = res
        held = self.xp.clip(x, -3, 3)
        dx = held * (abs(x) < 3)
        dx += held
        dx += 3
        dx *= 1 / 6
        dx *= dy
        return dx

    def softplus(self, x: Array, beta: float, threshold: float) -> tuple[Array, Any]:
        """log(1 + exp(beta x)) / beta = max(x, 0) + log(1 + exp(-|beta x|)) / beta, and x where beta x > threshold."""
        y = self._log_one_plus(x, beta)
        with self.quiet():
            y *= x * beta <= threshold
        y *= 1 / beta
        y += self.xp.maximum(x, 0)
        return y, (x, beta, threshold)

    def softplus_backward(self, dy: Array, res: Any) -> Array:
        """dy sigmoid(beta x), and dy where beta x > threshold."""
        x, beta, threshold = res
        with self.quiet():
            scaled = x * beta
        dx = self._logistic(scaled)
        return dy * self.xp.maximum(dx, scaled > threshold)

    def log_sigmoid(self, x: Array) -> tuple[Array, Any]:
        """log(1 / (1 + exp(-x))) = min(x, 0) - log(1 + exp(-|x|))."""
        return self.xp.minimum(x, 0) - self._log_one_plus(x), x

    def log_sigmoid_backward(self, dy: Array, res: Any) -> Array:
        """dy sigmoid(-x)."""
        return dy * self._logistic(-res)

    def mish(self, x: Array) -> tuple[Array, Any]:
        """x tanh(softplus(x))."""
        return x * self._tanh_softplus(x), x

    def mish_backward(self, dy: Array, res: Any) -> Array:
        """dy (t + x (1 - t^2) sigmoid(x)), t = tanh(softplus(x)) computed again rather than kept."""
        x = res
        t = self._tanh_softplus(x)
        dx = 1 - t * t
        dx *= self._logistic(x)
        dx *= x
        dx += t
        dx *= dy
        return dx

    def log_softmax(self, x: Array) -> tuple[Array, Any]:
        """x - log of the sum of exp(x), over the last axis; what float cannot hold becomes its lowest number."""
        with self.quiet():
            y = x - x.max(axis=-1, keepdims=True)
        y = self.xp.maximum(y, float(self.xp.finfo(x.dtype).min))
        y -= self.xp.log(self.row_sum(self.xp.exp(y)))
        return y, y

    def log_softmax_backward(self, dy: Array, res: Any) -> Array:
        """dy - softmax(x) times the sum of dy."""
        return dy - self.xp.exp(res) * self.row_sum(dy)

    def _log_one_plus(self, x: Array, beta: float = 1.0) -> Array:
        """log(1 + exp(-|beta x|)), in (0, log 2]."""
        y = abs(x)
        with self.quiet():
            y *= -beta
        self.xp.exp(y, out=y)
        self.xp.log1p(y, out=y)
        return y

    def _tanh_softplus(self, x: Array) -> Array:
        y = self._log_one_plus(x)
        y += self.xp.maximum(x, 0)
        self.xp.tanh(y, out=y)
        return y
