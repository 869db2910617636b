"""exp and what is made of it, on vectors of floats.

exp(x) = 2^n exp(r) with n the whole number nearest to x / log 2, so |r| <= log(2) / 2, where the Taylor polynomial of
degree 7 is off by 5e-9 of the value. n log 2 is taken off in two parts, the first exact. Largest errors measured,
in units of relative precision (2^-24): exp 1.5, sigmoid 2.9, tanh 2.9, erf 4.9.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from layernet.backend.compiled.vectors import (
    absolute,
    fma,
    maximum,
    minimum,
    nearest,
    power_of_two,
    splat,
    where_greater,
    where_positive,
    with_sign,
)
from layernet.backend.reference.activation import _ERF32

_LOG2E = np.float32(math.log2(math.e))
_LOG2_HIGH = np.float32(0.693359375)  # 355 / 512: n times it is exact
_LOG2_LOW = np.float32(math.log(2) - 0.693359375)
_LEAST = np.float32(-87.3)  # exp of less is 0 here: no denormal numbers
_MOST = np.float32(88)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
_A1, _A2, _A3, _A4, _A5, _A6, _A7 = (np.float32(1 / (2 * k + 1)) for k in range(1, 8))
_BOUND = np.float32(_ERF32[0])
_P0, _P1, _P2, _P3, _P4, _P5 = (np.float32(c) for c in _ERF32[1])
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5 = (np.float32(c) for c in _ERF32[2])


@njit(inline="always")
def _parts(x: Any) -> Any:
    """(2^n, exp(r) - 1) of an x within bounds."""
    n = nearest(x * splat(_LOG2E))
    r = fma(n, splat(-_LOG2_HIGH), x)
    r = fma(n, splat(-_LOG2_LOW), r)
    p = fma(splat(_C7), r, splat(_C6))
    p = fma(p, r, splat(_C5))
    p = fma(p, r, splat(_C4))
    p = fma(p, r, splat(_C3))
    p = fma(p, r, splat(_C2))
    return power_of_two(n), fma(p * r, r, r)


@njit(inline="always")
def exp(x: Any) -> Any:
    """exp(x): 0 below -87.3, no more than exp(88); NaN of NaN."""
    scale, rest = _parts(maximum(minimum(x, splat(_MOST)), splat(_LEAST)))
    return where_greater(splat(_LEAST), x, splat(_ZERO), fma(scale, rest, scale))


@njit(inline="always")
def expm1(x: Any) -> Any:
    """exp(x) - 1 for x <= 0: 2^n (exp(r) - 1) + (2^n - 1) cancels nowhere."""
    scale, rest = _parts(maximum(x, splat(_LEAST)))
    return fma(scale, rest, scale - splat(_ONE))


@njit(inline="always")
def log1p(x: Any) -> Any:
    """log(1 + x) for x in 0..1: 2 artanh(s) with s = x / (2 + x) <= 1 / 3; what the series leaves out is 2e-9 of it."""
    s = x / (x + splat(_TWO))
    z = s * s
    p = fma(z, splat(_A7), splat(_A6))
    p = fma(p, z, splat(_A5))
    p = fma(p, z, splat(_A4))
    p = fma(p, z, splat(_A3))
    p = fma(p, z, splat(_A2))
    p = fma(p, z, splat(_A1))
    return fma(p * z, s, s) * splat(_TWO)


@njit(inline="always")
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)): with e = exp(-|x|), 1 / (1 + e) above 0 and e / (1 + e) below."""
    one = splat(_ONE)
    e = exp(splat(_ZERO) - absolute(x))
    return where_positive(x, one, e) / (one + e)


@njit(inline="always")
def tanh(x: Any) -> Any:
    """-m / (m + 2) with m = exp(-2 |x|) - 1, and x's sign. m = 2^n (exp(r) - 1) + (2^n - 1) cancels nowhere."""
    one = splat(_ONE)
    scale, rest = _parts(maximum(splat(_ZERO) - absolute(x) * splat(_TWO), splat(_LEAST)))
    m = fma(scale, rest, scale - one)
    return with_sign(m / (m + splat(_TWO)), x)


@njit(inline="always")
def erf(x: Any) -> Any:
    """The error function, by the rational function of the reference."""
    x = maximum(minimum(x, splat(_BOUND)), splat(-_BOUND))
    z = x * x
    p = fma(splat(_P5), z, splat(_P4))
    p = fma(p, z, splat(_P3))
    p = fma(p, z, splat(_P2))
    p = fma(p, z, splat(_P1))
    p = fma(p, z, splat(_P0))
    q = fma(splat(_Q5), z, splat(_Q4))
    q = fma(q, z, splat(_Q3))
    q = fma(q, z, splat(_Q2))
    q = fma(q, z, splat(_Q1))
    q = fma(q, z, splat(_Q0))
    one = splat(_ONE)
    return maximum(minimum(x * p / q, one), splat(_ZERO) - one)
