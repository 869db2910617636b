"""What a wrong gradient looks like: the mistakes that can be told from the numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from layernet.testing.differences import Verdict
from layernet.testing.engine import Compared, Variable
from layernet.testing.sampling import HostArray

_CLOSE = 1e-4


def likely_cause(variable: Variable, compared: Sequence[Compared], counts: Mapping[str, int]) -> str:
    """In words, or nothing where no common mistake fits.

    `counts` are sizes by name that a gradient may be wrong by as a factor.
    """
    if variable.missing:
        return "backward never adds a gradient for it (ctx.add_grad)"
    reasons = {c.point.reason for c in compared if c.point.verdict is Verdict.FAILED} - {""}
    if reasons:
        return ""  # the message says it
    known = [c for c in compared if c.index is not None and not c.point.tiny and math.isfinite(c.point.numeric[0])]
    wrong = [c for c in known if c.point.verdict is Verdict.FAILED]
    if not wrong:
        return ""
    if not variable.gradient.any():
        return "the gradient is zero everywhere"
    if all(c.point.numeric[0] == 0 for c in wrong):
        return "the function is flat here: its true gradient is zero"
    return (
        _borders(variable.gradient.shape, known, wrong)
        or _factor(wrong, counts)
        or _rearranged(variable.gradient, known)
        or _only_one(known, wrong)
        or _zeros(wrong)
        or _by_feature(known)
        or _offset(known)
    )


def _factor(wrong: Sequence[Compared], counts: Mapping[str, int]) -> str:
    ratios = [c.point.analytic / c.point.numeric[0] for c in wrong if c.point.numeric[0]]
    if len(ratios) < 2 or not math.isfinite(ratios[0]) or ratios[0] == 0:
        return ""
    ratio = float(np.median(ratios))
    if not all(math.isclose(r, ratio, rel_tol=_CLOSE) for r in ratios):
        return ""
    sign = "the opposite sign" if ratio < 0 else ""
    size = abs(ratio)
    names = {"2": 2.0, **{f"{n} ({name})": float(n) for name, n in counts.items() if n > 1}}
    found = ""
    for name, value in sorted(names.items(), key=lambda item: ("(" not in item[0], item[1])):
        if math.isclose(size, value, rel_tol=_CLOSE):
            found = found or f"too large by a factor of {name}"
        if math.isclose(size * value, 1.0, rel_tol=_CLOSE):
            found = found or f"too small by a factor of {name}"
    if not found and not math.isclose(size, 1.0, rel_tol=_CLOSE):
        found = f"off by a constant factor of {size:.6g}"
    return " and ".join(part for part in (sign, found) if part)


def _rearranged(gradient: HostArray, known: Sequence[Compared]) -> str:
    def fits(candidate: HostArray) -> bool:
        return all(
            math.isclose(float(candidate[c.index]), c.point.numeric[0], rel_tol=_CLOSE, abs_tol=1e-12) for c in known
        )

    if gradient.ndim < 2 or len(known) < 2:
        return ""
    for how, candidate in _rearrangements(gradient):
        if fits(candidate):
            return how
        if fits(-candidate):
            return f"{how}, and the opposite sign"
    return ""


def _rearrangements(gradient: HostArray) -> Iterator[tuple[str, HostArray]]:
    shape, axes = gradient.shape, range(gradient.ndim)
    if gradient.ndim <= 4:
        for order in itertools.permutations(axes):
            if order == tuple(axes):
                continue
            how = "it is transposed" if gradient.ndim == 2 else f"its axes are permuted to {order}"
            if tuple(shape[i] for i in order) == shape:
                yield how, gradient.transpose(order)
            yield f"{how} and reshaped", gradient.reshape([shape[i] for i in order]).transpose(np.argsort(order))
    for count in range(1, gradient.ndim + 1):
        for flipped in itertools.combinations(axes, count):
            yield f"it is flipped along axes {flipped}", np.flip(gradient, flipped)


def _only_one(known: Sequence[Compared], wrong: Sequence[Compared]) -> str:
    return "this element alone is wrong among those compared" if len(wrong) == 1 and len(known) > 2 else ""


def _zeros(wrong: Sequence[Compared]) -> str:
    return "the gradient is zero where it should not be" if all(c.point.analytic == 0 for c in wrong) else ""


def _borders(shape: tuple[int, ...], known: Sequence[Compared], wrong: Sequence[Compared]) -> str:
    def on_border(c: Compared, axis: int) -> bool:
        assert c.index is not None
        return c.index[axis] in (0, shape[axis] - 1)

    right = [c for c in known if c.point.verdict is not Verdict.FAILED]
    for axis in range(1, len(shape)):
        if shape[axis] > 2 and right and all(on_border(c, axis) for c in wrong):
            inside = [c for c in right if on_border(c, axis)]
            if len(inside) < len(wrong):
                return f"only elements at the border of axis {axis} are wrong: padding or a window's edge"
    return ""


def _by_feature(known: Sequence[Compared]) -> str:
    ratios = _grouped([c for c in known if c.point.numeric[0]], -1, lambda a, n: a / n)
    if len(ratios) > 1 and all(math.isclose(r, group[0], rel_tol=_CLOSE) for group in ratios for r in group):
        return "it is off by one factor for each entry of the last axis: a weight or scale is left out or too much"
    return ""


def _offset(known: Sequence[Compared]) -> str:
    for axis, what in ((-1, "for each entry of the last axis"), (0, "for each example")):
        groups = _grouped(known, axis, lambda a, n: a - n)
        size = max((abs(d) for group in groups for d in group), default=0.0)
        if len(groups) > 1 and all(max(group) - min(group) <= _CLOSE * size for group in groups):
            return f"the deviation is one number {what}: a mean (or sum) over the others is missing"
    return ""


def _grouped(known: Sequence[Compared], axis: int, measure: Callable[[float, float], float]) -> list[list[float]]:
    """`measure(analytic, numeric)` of the points by their coordinate on an axis, where there are several."""
    groups: dict[int, list[float]] = {}
    for c in known:
        assert c.index is not None
        if len(c.index) > 1:
            groups.setdefault(c.index[axis], []).append(measure(c.point.analytic, c.point.numeric[0]))
    return [group for group in groups.values() if len(group) > 1]
