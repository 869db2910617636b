"""Sums over all but the last axis (one a channel) or over the last (one a row), and scalings: what norms are made of.

Channels are the last axis; a row is the channels of one place.
"""

from __future__ import annotations

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class ChannelOps(KernelFamily):
    def channel_sum(self, a: Array) -> Array:
        """(..., C) -> (C,): the sum over all axes but the last."""
        return a.reshape(-1, a.shape[-1]).sum(axis=0)

    def channel_dot(self, a: Array, b: Array) -> Array:
        """(..., C), (..., C) -> (C,): the sum of a * b over all axes but the last."""
        return self.channel_sum(a * b)

    def channel_mean_square(self, a: Array) -> Array:
        """(..., C) -> (C,): the mean of a^2 over all axes but the last, finite where it can be, for large a too."""
        return self.channel_dot(a, a * (a.shape[-1] / a.size))

    def channel_affine(self, a: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
        """a * scale + shift with one scale and one shift (C,) a channel, as a new array; None leaves a step out."""
        if scale is None:
            return a.copy() if shift is None else a + shift
        y = a * scale
        if shift is not None:
            y += shift
        return y

    def row_sum(self, a: Array) -> Array:
        """(..., C) -> (..., 1): the sum over the last axis."""
        return a.sum(axis=-1, keepdims=True)

    def row_dot(self, a: Array, b: Array) -> Array:
        """(..., C), (..., C) -> (..., 1): the sum of a * b over the last axis."""
        return self.row_sum(a * b)

    def row_mean_square(self, a: Array) -> Array:
        """(..., C) -> (..., 1): the mean of a^2 over the last axis, finite where it can be, for large a too."""
        return self.row_dot(a, a * (1 / a.shape[-1]))

    def example_sum(self, a: Array) -> Array:
        """(N, P, C) -> (N, 1, C): the sum over the places of each example."""
        return a.sum(axis=1, keepdims=True)

    def example_dot(self, a: Array, b: Array) -> Array:
        """(N, P, C), (N, P, C) -> (N, 1, C): the sum of a * b over the places of each example."""
        return self.example_sum(a * b)
