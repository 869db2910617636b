"""Winograd's convolution through matrix products, against the definition in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend import numpy_threads, numpy_winograd
from layernet.backend.device import get_device
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.window import Window
from tests import naive_images as naive

BOUND = 1e-4
"""Largest error over the standard deviation of what is right, or over a quarter of its largest. Measured: 5e-5."""


def reference(x: Any, w: Any, b: Any, dy: Any, window: Window) -> tuple[Any, ...]:
    """(y, dx, dw) by the definition."""
    x, w, dy = (a.astype(np.float64) for a in (x, w, dy))
    dx, dw, _ = naive.conv2d_backward(dy, x, w, window, 1)
    return naive.conv2d(x, w, b, window, 1), dx, dw


def assert_close(mine: Any, right: Any) -> None:
    assert mine.dtype == np.float32
    assert mine.shape == right.shape
    assert abs(mine - right).max() <= BOUND * max(1.0, np.std(right), abs(right).max() / 4)


@pytest.mark.parametrize("taps", [3, 5])
def test_the_transforms_are_the_definition(taps: int) -> None:
    """In float64, from the float32 tables: A^T [(G g G^T) * (B^T d B)] A on one tile, by loops."""
    t = numpy_winograd.transforms(taps)
    rng = np.random.default_rng(taps)
    d, g = rng.standard_normal((t.side, t.side)), rng.standard_normal((taps, taps))
    y = t.outputs.astype(float) @ ((t.filters.astype(float) @ g.ravel()) * (t.pixels.astype(float) @ d.ravel()))
    for i in range(4):
        for j in range(4):
            assert abs(y[4 * i + j] - (d[i : i + taps, j : j + taps] * g).sum()) < 1e-5


@pytest.mark.parametrize("taps", [3, 5])
def test_the_tables_that_meet_pixels_are_exact(taps: int) -> None:
    t = numpy_winograd.transforms(taps)
    for table in (t.pixels, t.outputs):
        scaled = table.astype(np.float64) * 4096  # powers of 1/2 and sums of few of them
        assert (scaled == np.round(scaled)).all()


@st.composite
def drawn_cases(draw: st.DrawFn) -> tuple[Any, ...]:
    taps = draw(st.sampled_from([3, 5]))
    padding = tuple(draw(st.tuples(st.integers(0, taps + 1), st.integers(0, taps + 1))) for _ in range(2))
    size = [draw(st.integers(max(1, taps - sum(pad)), 11)) for pad in padding]
    return draw(st.integers(1, 4)), *size, draw(st.integers(1, 9)), draw(st.integers(1, 9)), taps, padding


@settings(max_examples=80, deadline=None)
@given(drawn_cases(), st.sampled_from([1, 3]), st.sampled_from([1, 40_000, 1 << 22]), st.booleans(), st.booleans())
def test_against_loops(case: Any, threads: int, block: int, relu: bool, with_bias: bool) -> None:
    """Odd channels, one image, padding wider than the filter; whatever the blocks and the threads."""
    n, height, width, ins, outs, taps, padding = case
    window = Window((taps, taps), padding=padding)
    rng = np.random.default_rng(height * width + ins)
    x = rng.standard_normal((n, height, width, ins)).astype(np.float32)
    w = (rng.standard_normal((outs, taps, taps, ins)) / taps).astype(np.float32)
    b = rng.standard_normal(outs).astype(np.float32) if with_bias else None
    dy = rng.standard_normal((n, *window.out_size((height, width)), outs)).astype(np.float32)
    y, dx, dw = reference(x, w, np.zeros(outs) if b is None else b, dy, window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_threads, "blas", lambda: (threads, ""))
        patch.setattr(numpy_winograd, "LEAST_PRODUCT", 1)
        patch.setattr(numpy_winograd, "_BLOCK_BYTES", block)
        patch.setattr(numpy_winograd, "_UNIT_BYTES", min(block, 1 << 18))
        patch.setattr(numpy_winograd, "suits", lambda *_: True)
        ops = NumpyOps()
        got, res = (ops.conv2d_relu if relu else ops.conv2d)(x, w, b, window)
        assert_close(got, np.maximum(y, 0) if relu else y)
        gradients = ops.conv2d_backward(dy, res[0] if relu else res)
    assert_close(gradients[0], dx)
    assert_close(gradients[1], dw)


@pytest.mark.parametrize("shape", [(4, 12, 12, 64), (4, 9, 7, 256)], ids=str)
def test_rounding_is_what_is_claimed(shape: tuple[int, ...]) -> None:
    """rms error / output std of at most 5e-6, with ReLU's inputs and He's weights; the definition's is about 2e-7."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal(shape), 0).astype(np.float32)
    w = (rng.standard_normal((32, 3, 3, shape[3])) * np.sqrt(2 / (9 * shape[3]))).astype(np.float32)
    window = Window((3, 3), padding=((1, 1), (1, 1)))
    exact = NumpyOps().conv2d(x.astype(np.float64), w.astype(np.float64), None, window)[0]

    def error(ops: NumpyOps) -> float:
        return float(np.sqrt(np.mean((ops.conv2d(x, w, None, window)[0] - exact) ** 2)) / exact.std())

    assert error(NumpyOps(precise=True)) < 6e-7
    assert 6e-7 < error(NumpyOps()) < 5e-6


def test_precise_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("by Winograd")

    monkeypatch.setattr(numpy_winograd, "convolve", never)
    monkeypatch.setattr(numpy_winograd, "filter_gradient", never)
    x, w = np.ones((8, 8, 8, 32), dtype=np.float32), np.ones((32, 3, 3, 32), dtype=np.float32)
    window = Window((3, 3), padding=((1, 1), (1, 1)))
    precise = get_device("cpu", "numpy", precise=True).ops
    y, res = precise.conv2d(x, w, None, window)
    precise.conv2d_backward(y, res)
    NumpyOps().conv2d(x.astype(np.float64), w.astype(np.float64), None, window)  # nor is float64 ever
    with pytest.raises(AssertionError, match="by Winograd"):
        NumpyOps().conv2d(x, w, None, window)
    with pytest.raises(AssertionError, match="by Winograd"):
        NumpyOps().conv2d_backward(y, res)


@pytest.mark.parametrize(
    ("window", "x", "filters", "expected"),
    [
        (Window((3, 3)), (64, 16, 16, 64), 64, True),
        (Window((5, 5)), (64, 12, 12, 20), 50, True),
        (Window((3, 3)), (64, 32, 32, 3), 64, False),
        (Window((3, 3), stride=(2, 2)), (64, 16, 16, 64), 64, False),
        (Window((3, 3), dilation=(2, 2)), (64, 16, 16, 64), 64, False),
        (Window((3, 5)), (64, 16, 16, 64), 64, False),
        (Window((1, 1)), (64, 16, 16, 64), 64, False),
        (Window((3, 3)), (1, 4, 4, 512), 512, False),
    ],
)
def test_it_is_for_shapes_that_gain(window: Window, x: tuple[int, ...], filters: int, expected: bool) -> None:
    assert numpy_winograd.suits(window, x, filters) is expected


def test_nan_goes_through() -> None:
    x, w = np.ones((1, 8, 8, 32), dtype=np.float32), np.ones((32, 3, 3, 32), dtype=np.float32)
    x[0, 2, 2, 0] = np.nan
    window = Window((3, 3), padding=((1, 1), (1, 1)))
    assert numpy_winograd.suits(window, x.shape, 32)
    with np.errstate(invalid="ignore"):
        y = NumpyOps().conv2d(x, w, None, window)[0]
    assert np.isnan(y[0, 1:4, 1:4]).all()
    assert np.isfinite(y[0, 6:, 6:]).all()
