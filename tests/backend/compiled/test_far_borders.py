"""Winograd's windows far outside the image, of which nothing or one corner lies in it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from layernet.backend.compiled import convolution
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.window import Window


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("padding", [1, 2, 9, 66])
@pytest.mark.parametrize("channels", [16, 32, 40])
def test_windows_far_outside_see_zeros(kernel, padding, channels, monkeypatch):
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", 0)
    rng = np.random.default_rng(padding)
    x = rng.standard_normal((1, 6, 5, channels)).astype("float32")
    w = rng.standard_normal((channels, kernel, kernel, channels)).astype("float32")
    window = Window((kernel, kernel), padding=((padding, padding),) * 2)
    y, res = CompiledOps().conv2d(x, w, None, window)
    exact, _ = NumpyOps().conv2d(x.astype("float64"), w.astype("float64"), None, window)
    np.testing.assert_allclose(y, exact, atol=2e-5 * kernel * channels**0.5)
    dy = rng.standard_normal(y.shape).astype("float32")
    dx, dw, _ = CompiledOps().conv2d_backward(dy, res, need_db=False)
    _, exact_res = NumpyOps().conv2d(x.astype("float64"), w.astype("float64"), None, window)
    exact_dx, exact_dw, _ = NumpyOps().conv2d_backward(dy.astype("float64"), exact_res, need_db=False)
    np.testing.assert_allclose(dx, exact_dx, atol=2e-5 * kernel * channels**0.5)
    np.testing.assert_allclose(dw, exact_dw, atol=2e-4 * kernel)
