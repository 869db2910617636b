"""The verdict on one derivative, and the measure of rounding noise, on functions known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from layernet.testing.differences import Tolerance, Verdict, judge, measure_noise

STEP = 1e-5
FINE = Tolerance(1e-6, 1e-16)


def verdict_of(f, slope, x=0.0, tolerance=FINE):
    """The point found for a function at x, with the slope that is claimed."""
    return judge(lambda t: ((x + t) - x, f(x + t)), f(x), slope, STEP, tolerance)


@pytest.mark.parametrize(
    ("f", "slope", "x"),
    [
        (math.exp, math.exp(0.7), 0.7),
        (math.sin, math.cos(2.0), 2.0),
        (lambda x: 3 * x - 1, 3.0, 5.0),
        (lambda x: x**2, 0.0, 0.0),
        (lambda x: 7.0, 0.0, 1.0),
    ],
)
def test_right_slopes_pass(f, slope, x):
    assert verdict_of(f, slope, x).verdict is Verdict.PASSED


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0, 1 + 1e-5])
def test_wrong_slopes_of_a_smooth_function_fail_with_both_steps(factor):
    point = verdict_of(math.exp, factor * math.exp(0.7), 0.7)
    assert point.verdict is Verdict.FAILED
    assert point.numeric == pytest.approx((math.exp(0.7),) * 2, rel=1e-6)
    assert point.steps == (STEP, STEP / 2)


@pytest.mark.parametrize(("slope", "right"), [(-1.0, True), (0.0, True), (1.0, True), (1.01, False), (-2.0, False)])
def test_at_a_kink_the_slope_must_lie_between_the_sides(slope, right):
    point = verdict_of(abs, slope)
    # the central difference of |x| at 0 is 0 by symmetry: that slope agrees with it
    assert point.verdict is (Verdict.FAILED if not right else Verdict.PASSED if slope == 0 else Verdict.KINK)
    if slope == 1:
        assert point.unproven
    if not right:
        assert "one-sided slopes" in point.reason


@pytest.mark.parametrize("place", [0.9, 0.4, 1 / 3, 0.1, 0.01, -0.3, -0.7])
@pytest.mark.parametrize("slope", [0.0, 1.0, 0.5, -1.0])
def test_beside_a_kink_only_the_own_side_is_right(place, slope):
    kink = place * STEP
    point = verdict_of(lambda x: max(0.0, x - kink), slope)
    right = 1.0 if place < 0 else 0.0
    assert (point.verdict is Verdict.FAILED) == (slope != right)
    assert not point.unproven


def test_two_kinks_around_the_point():
    def f(x):
        return max(0.0, x - 2e-6) + max(0.0, -x - 3e-6)

    assert verdict_of(f, 0.0).verdict is Verdict.KINK
    assert verdict_of(f, 0.3).verdict is Verdict.FAILED


@pytest.mark.parametrize("slope", [0.0, 1.0, 1e6])
def test_a_jump_is_never_right(slope):
    point = verdict_of(lambda x: float(x >= 0), slope)
    assert point.verdict is Verdict.FAILED
    assert "jumps" in point.reason


def test_a_function_too_curved_for_the_step_is_told():
    def f(x):
        return math.sin(1e4 * x) / 1e4

    point = verdict_of(f, 1.0)
    assert point.verdict is Verdict.ILL_CONDITIONED
    assert not point.unproven
    assert verdict_of(f, 1.01).verdict is Verdict.FAILED


def test_what_is_not_finite_fails():
    point = verdict_of(lambda x: math.nan if x > 0 else 0.0, 0.0)
    assert point.verdict is Verdict.FAILED
    assert "finite" in point.reason


def test_noise_sets_the_floor():
    rng = np.random.default_rng(0)

    def f(x):
        return x + 1e-12 * rng.standard_normal()

    loose = Tolerance(1e-6, 1e-12)
    assert all(verdict_of(f, 1.0, tolerance=loose).verdict is Verdict.PASSED for _ in range(300))
    assert verdict_of(f, 1.0 + 6 * loose.floor(STEP), tolerance=loose).verdict is Verdict.FAILED
    tiny = verdict_of(lambda x: 0.0, loose.floor(STEP) / 2, tolerance=loose)
    assert tiny.verdict is Verdict.PASSED
    assert tiny.tiny


@pytest.mark.parametrize("level", [1e-6, 1e-12, 1e-15])
def test_noise_is_measured_below_a_smooth_function(level):
    rng = np.random.default_rng(1)
    measured = [measure_noise(lambda t: math.exp(t) + level * rng.standard_normal(), 1e-10) for _ in range(100)]
    assert 0.6 * level < np.median(measured) < 2 * level
    assert min(measured) > level / 5


def test_noise_of_a_smooth_function_alone_is_rounding():
    assert measure_noise(lambda t: 1 + t, 1e-10) < 5e-16
    assert measure_noise(lambda t: math.inf, 1e-10) == math.inf
