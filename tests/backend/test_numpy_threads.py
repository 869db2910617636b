"""The threads that numpy's kernels run on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from layernet.backend import numpy_threads
from layernet.backend.device import get_device
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.numpy_strips import strips
from layernet.backend.numpy_threads import Workers, passes, slices, workers
from layernet.core.net import Net
from layernet.layers.activation import ReLU
from layernet.layers.conv import Conv2d
from layernet.layers.linear import Linear
from layernet.layers.shape import Flatten
from tests import naive_images as naive

ROOT = Path(__file__).parents[2]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, for work of any size, whatever the machine has."""
    monkeypatch.setattr(numpy_threads, "blas", lambda: (3, ""))
    for module, name in every_threshold():
        monkeypatch.setattr(module, name, 1)


def every_threshold() -> list[tuple[Any, str]]:
    loaded = [module for name, module in sys.modules.items() if name.startswith("layernet.backend.numpy_")]
    return [(module, name) for module in loaded for name in ("LEAST_PRODUCT", "LEAST_PASS") if hasattr(module, name)]


@pytest.mark.usefixtures("three")
def test_parts_run_at_once_and_come_back_in_order() -> None:
    meet = threading.Barrier(3, timeout=20)

    def task(part: slice) -> tuple[int, int]:
        meet.wait()  # passes only when all three are at work
        return part.start, part.stop

    assert workers.split(10, 3, task) == [(0, 3), (3, 6), (6, 10)]
    assert workers.split(2, 1, lambda part: part) == [slice(0, 2)]
    assert workers.split(0, 3, lambda part: part) == [slice(0, 0)]


@pytest.mark.usefixtures("three")
def test_no_more_parts_than_things() -> None:
    assert workers.split(2, 3, lambda part: part) == [slice(0, 1), slice(1, 2)]


@pytest.mark.usefixtures("three")
def test_inside_of_a_part_the_parts_follow_each_other() -> None:
    def outer(part: slice) -> list[str]:
        return workers.split(3, 3, lambda _: threading.current_thread().name)

    for names in workers.split(3, 3, outer):
        assert len(set(names)) == 1


@pytest.mark.usefixtures("three")
def test_an_error_is_raised_when_all_have_ended_and_the_threads_go_on() -> None:
    ended: list[int] = []

    def task(part: slice) -> None:
        ended.append(part.start)
        if part.start:
            raise KeyError(part.start)

    with pytest.raises(KeyError, match="1"):
        workers.split(3, 3, task)
    assert sorted(ended) == [0, 1, 2]
    assert workers.split(3, 3, lambda part: part.start) == [0, 1, 2]


@pytest.mark.usefixtures("three")
def test_numpys_warnings_are_as_the_caller_wants_them() -> None:
    def task(part: slice) -> Any:
        return np.float32(1) / np.zeros(1, dtype=np.float32)

    with np.errstate(divide="ignore"):
        workers.split(3, 3, task)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        workers.split(3, 3, task)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        workers.split(3, 1, task)
    assert seen


@pytest.mark.usefixtures("three")
def test_blas_has_one_thread_meanwhile() -> None:
    def task(part: slice) -> set[int]:
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, "blas"):
        assert workers.split(3, 3, task) == [{1}] * 3
        assert task(slice(0)) == {2}


@pytest.mark.usefixtures("three")
def test_threads_that_cannot_be_had_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading, "Thread", Refused)
    assert Workers().split(3, 3, lambda part: part.start) == [0, 1, 2]


def test_limits_hold_and_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_threads, "blas", lambda: (4, ""))
    ours = Workers()
    assert ours.count == 4
    with ours.limited(3):
        assert ours.count == 3
        with ours.limited(1):
            assert (ours.count, ours.shares(100, 1)) == (1, 1)
        with ours.limited(100):
            assert ours.count == 4
        assert ours.count == 3
    assert (ours.count, ours.shares(11, 4), ours.shares(0, 4)) == (4, 2, 1)


def test_sums_over_blocks_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.random.default_rng(0).standard_normal((5000, 24)).astype(np.float32)
    monkeypatch.setattr(numpy_threads, "LEAST_PASS", 1)
    monkeypatch.setattr(numpy_threads, "BLOCK", 1 << 10)
    sums = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(numpy_threads, "blas", lambda threads=threads: (threads, ""))
        sums.append(NumpyOps().channel_sum(a))
    np.testing.assert_array_equal(sums[0], sums[1])
    np.testing.assert_array_equal(sums[0], sums[2])
    np.testing.assert_allclose(sums[0], a.astype(np.float64).sum(axis=0), rtol=0, atol=2e-4)  # found: 4e-5


def test_passes_cover_every_row_once() -> None:
    for size, width in ((0, 3), (1, 3), (7, 1 << 15), (100_000, 3)):
        seen = [row for block in passes((size, width), lambda rows: rows) for row in range(block.start, block.stop)]
        assert seen == list(range(size))


@given(st.integers(0, 200), st.integers(0, 50), st.integers(1, 5))
def test_slices_are_alike_and_as_many_for_each_share(count: int, most: int, shares: int) -> None:
    found = slices(count, most, shares)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(count))
    lengths = {part.stop - part.start for part in found}
    assert max(lengths, default=0) <= max(1, most)
    assert max(lengths, default=0) - min(lengths, default=0) <= 1
    assert len(found) % shares == 0 or len(found) == count


@given(st.integers(0, 20), st.integers(1, 20), st.integers(1, 100), st.integers(1, 4000), st.integers(1, 5))
def test_strips_cover_every_row_once(count: int, rows: int, row_bytes: int, budget: int, shares: int) -> None:
    found = strips(count, rows, row_bytes, budget, shares)
    seen = [
        (image, row)
        for images, lines in found
        for image in range(images.start, images.stop)
        for row in range(lines.start, lines.stop)
    ]
    assert sorted(seen) == [(image, row) for image in range(count) for row in range(rows)]
    assert all(strip.shape == (1, 1) or strip.shape[0] * strip.shape[1] * row_bytes <= budget for strip in found)
    assert len(found) >= min(shares, count * rows)


def small_net() -> Net:
    layers = [Conv2d(32, 3, padding=1), ReLU(), Conv2d(32, 3, padding=1), ReLU(), Flatten(), Linear(10)]
    return Net(layers, (9, 9, 3)).bind(get_device("cpu", "numpy"))


@pytest.mark.usefixtures("three")
def test_several_predict_at_once() -> None:
    net = small_net()
    inputs = [np.random.default_rng(i).standard_normal((6, 9, 9, 3)).astype(np.float32) for i in range(4)]
    expected = [net.predict(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            for got, wanted in zip(pool.map(net.predict, inputs), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)  # who is busy decides who works, not on what


def gradients(threads: int, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray[Any, Any]]:
    monkeypatch.setattr(numpy_threads, "blas", lambda: (threads, ""))
    rng = np.random.default_rng(3)
    net = small_net()
    tape = net.forward(rng.standard_normal((8, 9, 9, 3)).astype(np.float32), training=True)
    net.backward(tape, rng.standard_normal((8, 10)).astype(np.float32))
    return [tape.output, *(param.grad.copy() for param in net.params().values())]


def test_bit_equal_at_one_count_and_within_rounding_at_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in every_threshold():
        monkeypatch.setattr(module, name, 1)
    results = [gradients(threads, monkeypatch) for threads in (3, 3, 1, 2)]
    for first, *others in zip(*results, strict=True):
        np.testing.assert_array_equal(first, others[0])
        for other in others[1:]:
            # sums in another order: found, a third of it
            np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-5 * abs(first).max())


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_over_threads_equals_loops(groups: int, stride: int) -> None:
    rng = np.random.default_rng(groups + stride)
    x, w = rng.standard_normal((5, 7, 6, 4)), rng.standard_normal((6, 3, 3, 4 // groups))
    bias, window = rng.standard_normal(6), naive.window(3, stride, 1, 1)
    y, res = NumpyOps().conv2d(x, w, bias, window, groups)
    np.testing.assert_allclose(y, naive.conv2d(x, w, bias, window, groups), rtol=1e-12, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    for mine, theirs in zip(
        NumpyOps().conv2d_backward(dy, res), naive.conv2d_backward(dy, x, w, window, groups), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("shapes", [((7, 5), (5, 3)), ((3, 5), (5, 8)), ((4, 2, 5), (4, 5, 3)), ((4, 2, 5), (5, 3))])
def test_products_over_threads(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (np.random.default_rng(len(shape)).standard_normal(shape) for shape in shapes)
    expected = np.einsum("...ij,...jk->...ik", a, b)
    np.testing.assert_allclose(NumpyOps().matmul(a, b), expected, rtol=1e-13, atol=1e-13)
    out = np.empty_like(expected)
    assert NumpyOps().matmul(a, b, out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_makes_threads_of_its_own_and_ends() -> None:
    code = """
import os
from layernet.backend import numpy_threads
numpy_threads.blas = lambda: (3, "")
names = lambda: numpy_threads.workers.split(3, 3, lambda part: part.start)
assert names() == [0, 1, 2]
child = os.fork()
if child == 0:
    assert numpy_threads.workers._doors == []
    os._exit(0 if names() == [0, 1, 2] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert names() == [0, 1, 2]
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, timeout=60)


def test_threads_are_those_of_blas_before_it_was_limited() -> None:
    code = """
import numpy as np, threadpoolctl
threadpoolctl.threadpool_limits(3, "blas")
import layernet as ln
from layernet.backend.device import get_device
from layernet.backend.numpy_threads import workers
net = ln.Net([ln.Linear(2)], (3,)).bind(get_device("cpu", "numpy"))
net.predict(np.zeros((1, 3)))  # BLAS has one thread meanwhile
print(workers.count)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout == "3\n"


@pytest.mark.usefixtures("three")
def test_a_limit_is_that_of_one_thread() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> int:
        with workers.limited(2):
            inside.set()
            leave.wait(20)
            return workers.count

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(other)
        inside.wait(20)
        with workers.limited(1):
            leave.set()
            assert found.result() == 2
            assert workers.count == 1
        assert workers.count == 3
