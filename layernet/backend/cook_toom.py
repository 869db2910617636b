"""The matrices of Winograd's minimal filtering F(m, r), by the construction of Cook and Toom.

y = A^T [(G g) * (B^T d)] correlates d (m + r - 1) with g (r), y_i = sum over k of g_k d_(i + k). A product of
polynomials g and u of degrees r - 1 and m - 1 is found from its values at m + r - 2 points and at infinity: evaluation
of g and u, then interpolation. Transposed with respect to u that is correlation: A is the evaluation of u, B the
transpose of the interpolation. The denominators of the interpolation go to G, where they are multiplied once for each
filter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layernet.backend import Array

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # they keep the numbers small


class Matrices(NamedTuple):
    """A^T (m, a), G (a, r), B^T (a, a) in float64, a = m + r - 1. A^T and B^T are exact, in float32 too."""

    outputs: Array
    filters: Array
    pixels: Array


def matrices(m: int, r: int) -> Matrices:
    """Those of F(m, r); m + r is at most 9, as there are no more points."""
    points = _POINTS[: m + r - 2]
    a = m + r - 1
    outputs, filters, pixels = np.zeros((m, a)), np.zeros((a, r)), np.zeros((a, a))
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        outputs[:, row] = point ** np.arange(m)
        filters[row] = point ** np.arange(r) / np.prod([point - other for other in others])
        pixels[row, :-1] = np.poly(others)[::-1]
    outputs[-1, -1] = filters[-1, -1] = 1
    pixels[-1] = np.poly(points)[::-1]
    return Matrices(outputs, filters, pixels)
