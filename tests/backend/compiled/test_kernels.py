"""Every compiled kernel against the reference in float64, on shapes of all kinds, within a stated bound.

The bounds are multiples of float32's unit roundoff u times what the terms of a sum amount to without their signs:
|x| * |w| for a convolution. A sum of n products in any order is within about n u of that, place by place, so direct
kernels are held to (n + 4) u. Winograd's transforms spread what is in a tile over all of its outputs: they are held to
the largest such amount anywhere, times 40 u for F(4, 3) and 120 u for F(4, 5), which measured at most 11 and 37.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops
from layernet.backend.window import Window

REFERENCE, FAST, PRECISE = Ops(np), CompiledOps(), CompiledOps(precise=True)
ROUNDOFF = 2.0**-24
WINOGRAD = {3: 40.0, 5: 120.0}

Arrays = tuple[Any, ...]
Random = np.random.Generator


def normal(rng: Random, shape: tuple[int, ...], layout: str = "C") -> Any:
    """float32 numbers, in memory in C order, Fortran order, or with gaps."""
    if layout == "gaps":
        return rng.normal(size=(*shape, 2)).astype(np.float32)[..., 0]
    return np.asarray(rng.normal(size=shape).astype(np.float32), order=layout)  # type: ignore[call-overload]


def in_float64(*arrays: Any) -> Arrays:
    return tuple(None if a is None else np.asarray(a, dtype=np.float64) for a in arrays)


def absolute(*arrays: Any) -> Arrays:
    return tuple(None if a is None else abs(a) for a in arrays)


def assert_near(found: Any, exact: Any, bound: Any, what: str) -> None:
    assert (found is None) == (exact is None), what
    if found is None:
        return
    assert found.dtype == np.float32, what
    assert found.shape == exact.shape, what
    worst = np.max(abs(found - exact) / np.maximum(bound, 1e-30), initial=0.0)
    assert worst <= 1, f"{what}: {worst:.3g} times the bound"


@st.composite
def convolutions(draw: Any) -> dict[str, Any]:
    """Geometry and sizes of a convolution that has at least one place."""
    winograd = draw(st.booleans())
    kernel = draw(st.sampled_from([(3, 3), (5, 5)])) if winograd else (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    groups = 1 if winograd else draw(st.sampled_from([1, 1, 1, 2]))
    dilation = (1, 1) if winograd else draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1)]))
    stride = (1, 1) if winograd else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    side = st.integers(0, 4)
    padding = ((draw(side), draw(side)), (draw(side), draw(side)))
    window = Window(kernel, stride, padding, dilation)
    size = tuple(
        max(draw(st.integers(1, 13)), window.extent[axis] - sum(padding[axis])) for axis in (0, 1)
    )
    return {
        "window": window,
        "n": draw(st.integers(1, 3)),
        "size": size,
        "ins": groups * draw(st.integers(16, 50) if winograd else st.integers(1, 35)),
        "outs": groups * draw(st.integers(1, 50)),
        "groups": groups,
        "bias": draw(st.booleans()),
        "layouts": [draw(st.sampled_from(["C", "C", "C", "F", "gaps"])) for _ in range(4)],
        "relu": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


def check_convolution(ops: CompiledOps, case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    window, groups, outs = case["window"], case["groups"], case["outs"]
    layouts = case["layouts"]
    x = normal(rng, (case["n"], *case["size"], case["ins"]), layouts[0])
    w = normal(rng, (outs, *window.kernel, case["ins"] // groups), layouts[1])
    b = normal(rng, (outs,), layouts[2]) if case["bias"] else None
    dy = normal(rng, (case["n"], *window.out_size(case["size"]), outs), layouts[3])

    def passes(kernels: Ops, x: Any, w: Any, b: Any, dy: Any) -> Arrays:
        y, res = kernels.conv2d(x, w, b, window, groups)
        return y, *kernels.conv2d_backward(dy, res)

    found = passes(ops, x, w, b, dy)
    exact = passes(REFERENCE, *in_float64(x, w, b, dy))
    amount = passes(REFERENCE, *absolute(*in_float64(x, w, b, dy)))
    places = dy[0, :, :, 0].size * len(x)
    terms = (w[0].size + 1, w[:, :, :, 0].size, places, places)
    winograd = ops._by_winograd(w.shape[3], window) and groups == 1
    for name, got, truth, most, count in zip(("y", "dx", "dw", "db"), found, exact, amount, terms, strict=True):
        if winograd and name != "db":
            assert_near(got, truth, WINOGRAD[window.kernel[0]] * ROUNDOFF * np.max(most), name)
        else:
            assert_near(got, truth, (count + 4) * ROUNDOFF * most, name)


@given(convolutions())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_convolution(case: dict[str, Any]) -> None:
    check_convolution(FAST, case)


@given(convolutions())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_precise_convolution_rounds_as_sums_do(case: dict[str, Any]) -> None:
    check_convolution(PRECISE, case)
