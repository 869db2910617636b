"""Every compiled kernel against the reference in float64, on shapes of all kinds, within a stated bound.

The bounds are multiples of float32's unit roundoff u times what the terms of a sum amount to without their signs:
|x| * |w| for a convolution. A sum of n products in any order is within about n u of that, place by place, so direct
kernels are held to (n + 4) u. Winograd's transforms spread what is in a tile over all of its outputs: they are held to
the largest such amount anywhere, times 100 u for F(4, 3) and 200 u for F(4, 5); over 400 random shapes of up to 200
channels the most was 41 and 85.
"""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend.compiled import convolution, parts
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.ops import Ops
from layernet.backend.window import Window

REFERENCE, FAST, PRECISE = Ops(np), CompiledOps(), CompiledOps(precise=True)
ROUNDOFF = 2.0**-24
WINOGRAD = {3: 100.0, 5: 200.0}

Arrays = tuple[Any, ...]
MOST = int(os.environ.get("LAYERNET_EXAMPLES", "1000"))  # fewer where kernels of other widths are tested


def examples(count: int) -> Any:
    return settings(max_examples=min(count, MOST), deadline=None, derandomize=True)


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
    groups = draw(st.sampled_from([1, 1, 1, 2] if winograd else [1, 1, 1, 2, 5]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 2)]))
    stride = (1, 1) if winograd else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    side = st.integers(0, 4)
    padding = ((draw(side), draw(side)), (draw(side), draw(side)))
    window = Window(kernel, stride, padding, dilation)
    size = tuple(max(draw(st.integers(1, 13)), window.extent[axis] - sum(padding[axis])) for axis in (0, 1))
    return {
        "window": window,
        "n": draw(st.integers(1, 3)),
        "size": size,
        "ins": groups * draw(st.integers(16, 50) if winograd else st.integers(1, 35)),
        "outs": groups * draw(st.integers(1, 50 if groups < 5 else 17)),
        "groups": groups,
        "bias": draw(st.booleans()),
        "layouts": [draw(st.sampled_from(["C", "C", "C", "F", "gaps"])) for _ in range(4)],
        "relu": draw(st.booleans()),
        "threads": draw(st.sampled_from([1, 1, 3])),
        "filtered": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


def check_convolution(ops: CompiledOps, case: dict[str, Any]) -> None:
    """Hold it to its bounds; with `filtered`, forwards by Winograd's filtering too where so few do without."""
    rng = np.random.default_rng(case["seed"])
    window, groups, outs = case["window"], case["groups"], case["outs"]
    layouts = case["layouts"]
    x = normal(rng, (case["n"], *case["size"], case["ins"]), layouts[0])
    w = normal(rng, (outs, *window.kernel, case["ins"] // groups), layouts[1])
    b = normal(rng, (outs,), layouts[2]) if case["bias"] else None
    dy = normal(rng, (case["n"], *window.out_size(case["size"]), outs), layouts[3])

    places = dy[0, :, :, 0].size * len(x)
    terms = (w[0].size + 1, w[:, :, :, 0].size, places, places)
    winograd = ops._by_winograd(w.shape[3], parts.plain(window, case["size"]).window)  # of groups and parts, too
    least = 0 if case["filtered"] else convolution.LEAST_PRODUCTS
    with ops.limited(case["threads"]), mock.patch.object(convolution, "LEAST_PRODUCTS", least):
        compare(
            "conv2d_relu" if case["relu"] else "conv2d",
            ops,
            (x, w, b, window, groups),
            dy,
            dict(zip(("y", "dx", "dw", "db"), terms, strict=True)),
            WINOGRAD[window.kernel[0]] if winograd else None,
        )


def compare(
    name: str, ops: Ops, arguments: Arrays, dy: Any, terms: dict[str, int], spread: float | None = None
) -> None:
    """Both halves of a pair against the reference in float64; where a ReLU follows, with the same places at 0.

    `terms`: of how many products y, dx, dw and db are sums; `spread` times u times the largest amount is the bound
    where they are computed otherwise.
    """
    plain = name.removesuffix("_relu")

    def passes(kernels: Ops, name: str, arguments: Arrays, dy: Any) -> Arrays:
        y, res = getattr(kernels, name)(*arguments)
        return y, *getattr(kernels, f"{name}_backward")(dy, res)

    x, w, b, *rest = arguments
    found = passes(ops, name, arguments, dy)
    double = in_float64(x, w, b, dy if plain == name else dy * (found[0] > 0))
    exact = list(passes(REFERENCE, plain, (*double[:3], *rest), double[3]))
    if plain != name:
        exact[0] = np.maximum(exact[0], 0)
    double = absolute(*double)
    amount = passes(REFERENCE, plain, (*double[:3], *rest), double[3])
    for (what, count), got, truth, most in zip(terms.items(), found, exact, amount, strict=True):
        if spread is None or what == "db":
            assert_near(got, truth, (count + 4) * ROUNDOFF * most, what)
        else:
            assert_near(got, truth, spread * ROUNDOFF * np.max(most), what)


@given(convolutions())
@examples(120)
def test_convolution(case: dict[str, Any]) -> None:
    check_convolution(FAST, case)


@given(convolutions())
@examples(40)
def test_precise_convolution_rounds_as_sums_do(case: dict[str, Any]) -> None:
    check_convolution(PRECISE, case)


@given(
    shape=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    outs=st.integers(1, 70),
    bias=st.booleans(),
    relu=st.booleans(),
    layouts=st.lists(st.sampled_from(["C", "C", "F", "gaps"]), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
@examples(80)
def test_linear(shape: list[int], outs: int, bias: bool, relu: bool, layouts: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w, dy = (
        normal(rng, tuple(size), layout)
        for size, layout in zip((shape, (outs, shape[-1]), (*shape[:-1], outs)), layouts[:3], strict=True)
    )
    b = normal(rng, (outs,), layouts[3]) if bias else None
    rows = x.size // shape[-1]
    terms = {"y": shape[-1] + 1, "dx": outs, "dw": rows, "db": rows}
    with FAST.limited(1 + seed % 3):
        compare("linear_relu" if relu else "linear", FAST, (x, w, b), dy, terms)


@given(
    shape=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    layouts=st.lists(st.sampled_from(["C", "C", "F", "gaps"]), min_size=2, max_size=2),
    seed=st.integers(0, 99),
)
@examples(60)
def test_relu_is_exact_and_sums_are_near(shape: list[int], layouts: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = (normal(rng, tuple(shape), layout) for layout in layouts)
    x[rng.random(shape) < 0.2] = 0
    y, res = FAST.relu(x)
    assert (y == np.maximum(x, 0)).all()
    assert (FAST.relu_backward(dy, res) == np.where(x > 0, dy, 0)).all()
    axes = tuple(range(x.ndim - 1))
    bound = (x.size // x.shape[-1] + 4) * ROUNDOFF * abs(x).sum(axes, dtype=float)
    assert_near(FAST.channel_sum(x), x.sum(axes, dtype=float), bound, "channel_sum")


@given(
    shape=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    channels=st.integers(1, 70),
    centre=st.sampled_from([0.0, 1.0, 30.0]),
    affine=st.booleans(),
    relu=st.booleans(),
    shortcut=st.booleans(),
    layouts=st.lists(st.sampled_from(["C", "C", "F", "gaps"]), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
@examples(80)
def test_batch_norm(
    shape: list[int],
    channels: int,
    centre: float,
    affine: bool,
    relu: bool,
    shortcut: bool,
    layouts: list[str],
    seed: int,
) -> None:
    """Held to 40 u of (|x| + |mean|) / std for y, and of the like for gradients: of that much is what cancels."""
    rng = np.random.default_rng(seed)
    size = (*shape, channels)
    x, dy, other = (normal(rng, size, layout) for layout in layouts)
    x += np.float32(centre)
    weight, bias = (normal(rng, (channels,)) if affine else None for _ in range(2))
    eps = 1e-2  # a channel of one value has no deviation of its own
    extra = (other,) if relu and shortcut else ()
    name = "batch_norm_relu" if relu else "batch_norm"
    with FAST.limited(1 + seed % 3):
        y, mean, var, res = getattr(FAST, name)(x, weight, bias, eps, *extra)
        found = getattr(FAST, f"{name}_backward")(dy, res)
    x64, dy64, weight64, bias64, other64 = in_float64(x, dy, weight, bias, other)
    exact_y, exact_mean, exact_var, exact_res = REFERENCE.batch_norm(x64, weight64, bias64, eps)
    if relu:
        exact_y = np.maximum(exact_y + other64 if shortcut else exact_y, 0)
        dy64 = dy64 * (y > 0)
    exact = REFERENCE.batch_norm_backward(dy64, exact_res)
    axes = tuple(range(x.ndim - 1))
    unit = 40 * ROUNDOFF
    std = np.sqrt(exact_var + eps)
    ratio = 1 + (abs(x64).max(axes) + abs(exact_mean)) / std  # of the numbers to what is left of them
    slope = 1.0 if weight64 is None else abs(weight64)
    assert_near(mean, exact_mean, unit * abs(x64).max(axes), "mean")
    assert_near(var, exact_var, unit * (exact_var + std * abs(x64).max(axes)), "var")
    assert_near(y, exact_y, unit * (ratio * slope + 1 + abs(exact_y) + (abs(other64) if extra else 0)), "y")
    most = abs(dy64).max(axes)
    assert_near(found[0], exact[0], unit * ratio * slope * most / std * 2, "dx")
    assert_near(found[1], exact[1], unit * ratio * abs(dy64).sum(axes), "dw")
    assert_near(found[2], exact[2], unit * abs(dy64).sum(axes), "db")
    if extra:
        assert (found[3] == dy64).all()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (64, 40), (1, 3)])
def test_batch_norm_by_given_statistics(shape: tuple[int, ...], relu: bool, shortcut: bool, affine: bool) -> None:
    rng = np.random.default_rng(shape)
    x, dy, other = (normal(rng, shape) for _ in range(3))
    mean, weight, bias = (normal(rng, shape[-1:]) for _ in range(3))
    var = abs(normal(rng, shape[-1:]))
    given = (mean, var, weight if affine else None, bias if affine else None)
    extra = (other,) if relu and shortcut else ()
    name = "batch_norm_given_relu" if relu else "batch_norm_given"
    y, res = getattr(FAST, name)(x, *given, 1e-2, *extra)
    exact_y, exact_res = getattr(REFERENCE, name)(*in_float64(x, *given), 1e-2, *in_float64(*extra))
    size = 40 * ROUNDOFF * (1 + abs(exact_y) + (abs(x) + abs(mean)) * abs(weight) / np.sqrt(var + 1e-2))
    assert_near(y, exact_y, size + 40 * ROUNDOFF * abs(other), "y")
    found = getattr(FAST, f"{name}_backward")(dy, res)
    exact = getattr(REFERENCE, f"{name}_backward")(dy.astype("float64"), exact_res)
    axes = tuple(range(x.ndim - 1))
    assert_near(found[0], exact[0], 40 * ROUNDOFF * abs(exact[0]).max(), "dx")
    most = (abs(x) + abs(mean)).max(axes) / np.sqrt(var + 1e-2)
    assert_near(found[1], exact[1], 40 * ROUNDOFF * most * abs(dy).sum(axes), "dw")
    assert_near(found[2], exact[2], 40 * ROUNDOFF * abs(dy).sum(axes), "db")
    if extra:
        assert (found[3] == exact[3]).all()
    dx_alone = getattr(FAST, f"{name}_backward")(dy, res, need_dw=False, need_db=False)[0]
    assert (dx_alone == found[0]).all()


def test_a_pass_in_float64_is_numpys() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 6, 6, 16)), rng.normal(size=(8, 3, 3, 16))
    window = Window((3, 3))
    assert (FAST.conv2d(x, w, None, window)[0] == NumpyOps().conv2d(x, w, None, window)[0]).all()


def test_the_same_bits_run_after_run_at_any_count_of_threads() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = normal(rng, (7, 11, 9, 24)), normal(rng, (20, 3, 3, 24)), normal(rng, (7, 11, 9, 20))
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)))
    for threads in (1, None):
        with FAST.limited(threads):
            runs = [
                [a.tobytes() for a in (y, *FAST.conv2d_backward(dy, res))]
                for y, res in (FAST.conv2d(x, w, None, window) for _ in range(4))
            ]
        assert all(run == runs[0] for run in runs)
