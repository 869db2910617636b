"""Norms folded into filters, launches of a single task, and predictions from several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import layernet as ln
from layernet.backend.compiled.launch import LITTLE, threads, threads_for
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.device import get_device
from layernet.backend.ops import Ops

FAST, REFERENCE = CompiledOps(), Ops(np)
ROUNDOFF = 2.0**-24


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(7, 3, 5, 3), (40, 3, 3, 16), (1, 1, 1, 1), (16, 5, 9)])
def test_filters_are_folded_within_rounding(shape: tuple[int, ...], affine: bool, own: bool) -> None:
    rng = np.random.default_rng(shape)
    filters = rng.normal(size=shape).astype(np.float32)
    mean, weight, bias, biases = rng.normal(size=(4, len(filters))).astype(np.float32)
    var = rng.uniform(0, 2, len(filters)).astype(np.float32)
    found = FAST.fold_norm(
        filters, biases if own else None, mean, var, weight if affine else None, bias if affine else None, 1e-3
    )
    # written out, in float64 but for eps, which kernels take as float32
    scale = (weight.astype(float) if affine else 1.0) / np.sqrt(var.astype(float) + float(np.float32(1e-3)))
    scale = np.broadcast_to(scale, len(filters))
    exact = filters * scale.reshape(-1, *[1] * (len(shape) - 1))
    offset = ((biases if own else 0) - mean.astype(float)) * scale + (bias if affine else 0)
    assert found[0].dtype == found[1].dtype == np.float32
    assert (abs(found[0] - exact) <= 2 * ROUNDOFF * abs(exact)).all()
    assert (abs(found[1] - offset) <= 2 * ROUNDOFF * (abs(offset))).all()


def test_a_deviation_of_nothing_and_of_no_number() -> None:
    filters, ones = np.ones((3, 2), np.float32), np.ones(3, np.float32)
    var = np.array([0, np.nan, -1], np.float32)
    with np.errstate(all="ignore"):
        arguments = (filters, None, np.zeros(3, np.float32), var, ones, None, 0.0)
        for found, exact in zip(FAST.fold_norm(*arguments), REFERENCE.fold_norm(*arguments), strict=True):
            np.testing.assert_array_equal(found, exact)


def test_vectors_that_kernels_cannot_read_go_to_numpy() -> None:
    filters = np.ones((4, 3), np.float32)
    gaps = np.arange(1, 9, dtype=np.float32)[::2]
    found = FAST.fold_norm(filters, None, gaps, gaps, None, None, 1e-3)
    exact = REFERENCE.fold_norm(filters, None, gaps, gaps, None, None, 1e-3)
    assert all((a == b).all() for a, b in zip(found, exact, strict=True))
    with pytest.raises(ValueError, match="broadcast"):
        FAST.fold_norm(filters, None, gaps[:3], gaps[:3], None, None, 1e-3)


def test_little_work_has_one_thread() -> None:
    assert threads_for(LITTLE - 1) == 1
    assert threads_for(LITTLE) == threads()


def test_threads_may_predict_at_once() -> None:
    """Scratch memory is each thread's own: many predictions side by side give the bits of one after the other."""
    layers: list[ln.Layer] = []
    for channels in (8, 32):
        layers += [ln.Conv2d(channels, 3, padding=1), ln.BatchNorm(), ln.ReLU(), ln.MaxPool2d(2)]
    net = ln.Net([*layers, ln.Flatten(), ln.Linear(40), ln.ReLU(), ln.Linear(10)], (16, 16, 3))
    net.bind(get_device("cpu", "numba"))
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1 + i % 3, 16, 16, 3)).astype(np.float32) for i in range(60)]
    alone = [net.predict(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(net.predict, inputs * 3))
    assert all((one == many).all() for one, many in zip(alone * 3, together, strict=True))
