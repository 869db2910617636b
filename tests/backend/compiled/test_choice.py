"""Which kernels are taken, what is said where they cannot be had, and who works beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from layernet.backend.device import get_device, host
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.pool import OneBlasThread
from layernet.core.net import Net
from layernet.errors import DeviceError
from layernet.layers.linear import Linear

ROOT = Path(__file__).parents[3]


def in_a_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"unknown kernels 'fast'; use auto, numpy or numba"):
        get_device("cpu", kernels="fast")


@pytest.mark.usefixtures("without_numba")
def test_without_numba_auto_is_numpy_and_numba_tells_the_cure() -> None:
    assert type(get_device("cpu").ops) is NumpyOps
    assert get_device("cpu").facts()["kernels"] == "numpy"
    with pytest.raises(DeviceError, match=r"kernels 'numba' cannot be used.*pip install 'layernet\[fast\]'"):
        get_device("cpu", kernels="numba")


def test_one_device_for_one_choice() -> None:
    assert get_device("cpu", kernels="numpy") is host()
    assert get_device("cpu", "numpy", precise=True) is not host()
    assert get_device("cpu") is get_device("cpu", kernels="auto")


@pytest.mark.usefixtures("needs_numba")
def test_auto_is_numba_where_it_can_be() -> None:
    fast = get_device("cpu")
    assert fast is get_device("cpu", kernels="numba")
    assert fast.facts()["kernels"] == "numba"
    assert fast.facts()["lanes"] in (4, 8, 16)
    assert fast.facts()["threading_layer"] in ("omp", "tbb")
    assert get_device("cpu", precise=True).facts()["precise"]
    assert Net([Linear(2)], (3,)).bind("cpu").device is fast
    assert Net([Linear(2)], (3,)).bind("cpu", "float64").device is host()  # compiled kernels are of float32


@pytest.mark.usefixtures("needs_numba")
def test_threads_that_start_slowly_are_refused() -> None:
    code = "from layernet.backend import compiled; print(compiled.problem())"
    assert "'workqueue'" in in_a_process(code, NUMBA_THREADING_LAYER="workqueue")
    assert "no threads" in in_a_process(code, NUMBA_THREADING_LAYER="nonsense")


@pytest.mark.usefixtures("needs_numba")
def test_threads_are_limited_and_given_back() -> None:
    device = get_device("cpu", "numba")
    with device.limited(None):
        most = device.facts()["threads"]
        with device.limited(1):
            assert device.facts()["threads"] == 1
        with device.limited(10**6):
            assert device.facts()["threads"] == most
        assert device.facts()["threads"] == most


def test_numpys_threads_are_limited_and_given_back() -> None:
    before = blas_threads()
    with threadpoolctl.threadpool_limits(2, "blas"):
        with host().limited(1):
            assert set(blas_threads()) == {1}
            assert host().facts()["threads"] == 1
        assert set(blas_threads()) == {2}
    assert blas_threads() == before


def test_blas_has_one_thread_until_the_last_one_leaves() -> None:
    one = OneBlasThread()
    with threadpoolctl.threadpool_limits(2, "blas"):
        with one:
            with one:
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {2}
        with pytest.raises(KeyError), one:
            raise KeyError
        assert set(blas_threads()) == {2}

        def enter(_: int) -> None:
            for _ in range(200):
                with one:
                    pass

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enter, range(4)))
        assert set(blas_threads()) == {2}


@pytest.mark.usefixtures("needs_numba")
def test_a_pass_has_the_cores_to_itself() -> None:
    seen: list[int] = []

    class Look(Linear):
        def forward(self, x: object, ctx: object) -> object:
            seen.extend(blas_threads())
            return super().forward(x, ctx)  # type: ignore[arg-type]

    with threadpoolctl.threadpool_limits(2, "blas"):
        net = Net([Look(2)], (3,)).bind(get_device("cpu", "numba"))
        net.predict(np.zeros((1, 3)))
        assert set(seen) == {1}
        assert set(blas_threads()) == {2}
