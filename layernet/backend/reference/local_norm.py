"""Normalisation by the neighbours of each number: response normalisation, and contrast normalisation."""

from __future__ import annotations

from typing import Any, NamedTuple

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily

# Both divide x by d^beta, d = k + alpha S(e^2): S sums over the neighbours, and e is x itself (response) or x less the
# mean of its neighbours, e = x - A x (contrast). With g the gradient of y = x d^-beta,
#     the gradient of d is   -beta g x d^(-beta - 1),
#     that of e              h = 2 alpha e S'(-beta g x d^(-beta - 1)),
#     that of x              g d^-beta + h            (response),
#                            g d^-beta + h - A' h     (contrast),
# where S' and A' are the transposes: S' sums over those whose neighbour a number is, which differs from S where the
# window reaches further back than forward; A x = S(x) / count, so A' h = S'(h / count).
# cuda-convnet leaves A' h out.


class Neighbourhood(NamedTuple):
    """Along each of `axes`, from `size // 2` places back `size` places on, those that exist; or, `blocked`, the blocks
    of `size` places from the first on, of which the last may be cut short.
    """

    size: int
    axes: tuple[int, ...]
    blocked: bool = False

    def counts(self, length: int) -> list[int]:
        """How many neighbours each of `length` places has along one axis; for windows that slide."""
        starts = [place - self.size // 2 for place in range(length)]
        return [min(length, start + self.size) - max(0, start) for start in starts]


class LocalNormOps(KernelFamily):
    def local_response_norm(
        self, x: Array, around: Neighbourhood, alpha: float, beta: float, k: float
    ) -> tuple[Array, Any]:
        """x / (k + alpha * sum of the neighbours' squares) ** beta."""
        d = self._denominator(x, around, alpha, k)
        return x * self._inverse_power(d, beta), (x, d, around, alpha, beta)

    def local_response_norm_backward(self, dy: Array, res: Any) -> Array:
        """dx."""
        x, d, around, alpha, beta = res
        dx, de = self._through_denominator(dy, x, x, d, around, alpha, beta)
        dx += de
        return dx

    def local_contrast_norm(
        self, x: Array, around: Neighbourhood, counts: Array, alpha: float, beta: float, k: float
    ) -> tuple[Array, Any]:
        """x / (k + alpha * sum of the neighbours' (x - mean of its neighbours)^2) ** beta; `counts` of neighbours."""
        e = x - self.neighbour_sum(x, around) / counts
        d = self._denominator(e, around, alpha, k)
        return x * self._inverse_power(d, beta), (x, e, d, around, counts, alpha, beta)

    def local_contrast_norm_backward(self, dy: Array, res: Any) -> Array:
        """dx."""
        x, e, d, around, counts, alpha, beta = res
        dx, de = self._through_denominator(dy, x, e, d, around, alpha, beta)
        dx += de
        dx -= self.neighbour_sum(de / counts, around, transposed=True)
        return dx

    def neighbour_sum(self, a: Array, around: Neighbourhood, transposed: bool = False) -> Array:
        """The sum over the neighbours of each place; `transposed`, over those places whose neighbour it is."""
        before = around.size // 2
        after = around.size - 1 - before
        if transposed:
            before, after = after, before
        for axis in around.axes:
            a = self._block_sum(a, around.size, axis) if around.blocked else _sliding_sum(a, axis, before, after)
        return a

    def _denominator(self, e: Array, around: Neighbourhood, alpha: float, k: float) -> Array:
        squares = e * e
        squares *= alpha  # before the sum, which might overflow
        d = self.neighbour_sum(squares, around)
        d += k
        return d

    def _through_denominator(
        self, dy: Array, x: Array, e: Array, d: Array, around: Neighbourhood, alpha: float, beta: float
    ) -> tuple[Array, Array]:
        """dy d^-beta and h, the gradient of e."""
        straight = dy * self._inverse_power(d, beta)
        de = straight * x
        de /= d
        de = self.neighbour_sum(de, around, transposed=True)
        de *= -2.0 * alpha * beta
        de *= e
        return straight, de

    def _inverse_power(self, d: Array, beta: float) -> Array:
        """d ** -beta."""
        if beta != 0.75:
            return d**-beta
        root = self.xp.sqrt(d)  # the usual power, four times faster by roots
        root *= self.xp.sqrt(root)
        return 1.0 / root

    def _block_sum(self, a: Array, size: int, axis: int) -> Array:
        moved = self.xp.moveaxis(a, axis, -1)
        whole = moved.shape[-1] // size * size
        sums = []
        if whole:
            blocks = moved[..., :whole].reshape(*moved.shape[:-1], whole // size, size).sum(axis=-1)
            sums.append(self.xp.repeat(blocks, size, axis=-1))
        if rest := moved.shape[-1] - whole:
            sums.append(self.xp.repeat(moved[..., whole:].sum(axis=-1, keepdims=True), rest, axis=-1))
        return self.xp.moveaxis(self.xp.concatenate(sums, axis=-1), -1, axis)


def _sliding_sum(a: Array, axis: int, before: int, after: int) -> Array:
    """The sum over each place, `before` places before it and `after` behind it, those that exist."""
    y = a.copy()
    most, ahead = a.shape[axis] - 1, (slice(None),) * (axis % a.ndim)
    for shift in range(1, min(before, most) + 1):
        y[(*ahead, slice(shift, None))] += a[(*ahead, slice(-shift))]
    for shift in range(1, min(after, most) + 1):
        y[(*ahead, slice(-shift))] += a[(*ahead, slice(shift, None))]
    return y
