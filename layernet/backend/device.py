"""Devices: where arrays live and which kernels run on them. The one place that imports cupy, and only when asked."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from layernet.backend import Array, compiled
from layernet.backend.allocation import available, keep_pages
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.ops import Ops
from layernet.errors import DeviceError


@dataclass(frozen=True)
class Device:
    """A processor with its array module and its kernels."""

    name: str
    ops: Ops

    @property
    def xp(self) -> Any:
        """numpy or cupy."""
        return self.ops.xp

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        """The value as a C-contiguous array on this device; copies only where it must."""
        return self.xp.asarray(value, dtype=dtype, order="C")  # unlike ascontiguousarray, keeps arrays of no axes

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """The array on the host, wherever it was: a net may move here from a GPU."""
        return array.get() if hasattr(array, "get") else np.asarray(array)

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """Within it, arrays are made on this device, and its kernels have the cores to themselves."""
        return self.ops.alone()

    def facts(self) -> dict[str, Any]:
        """What computes: `kernels`, with their `lanes`, `threads`, `threading_layer`; a GPU with its versions."""
        return self.ops.facts()

    def limited(self, threads: int | None) -> contextlib.AbstractContextManager[Any]:
        """Within it, kernels run on so many threads; None: on one for each core. As many as there are at most."""
        return self.ops.limited(threads)


@dataclass(frozen=True)
class CudaDevice(Device):
    """One CUDA device, through cupy."""

    index: int

    def facts(self) -> dict[str, Any]:
        cuda = self.xp.cuda
        name = cuda.runtime.getDeviceProperties(self.index)["name"]
        return {
            **super().facts(),
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "cupy": str(self.xp.__version__),
            "cuda_runtime": str(cuda.runtime.runtimeGetVersion()),
            "cuda_driver": str(cuda.runtime.driverGetVersion()),
        }

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.index).synchronize()

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.index)  # type: ignore[no-any-return]


def get_device(name: str = "auto", kernels: str = "auto", precise: bool = False) -> Device:
    """The device called `cpu`, `cuda`, `cuda:N`, or `auto` (cuda where cupy finds a device, otherwise cpu).

    `kernels` are the CPU's: `numpy`, `numba` (compiled for this processor), or `auto`: numba where it can be imported
    and its threads are those of omp or tbb, otherwise numpy. `precise` leaves out those that round more than sums must
    (Winograd's filtering). Raises DeviceError, with the cure, where a device or its kernels cannot be used.
    """
    if kernels not in KERNELS:
        raise DeviceError(f"unknown kernels {kernels!r}", f"use {', '.join(KERNELS[:-1])} or {KERNELS[-1]}")
    return _find(name, kernels, precise)


def available_memory(name: str) -> int | None:
    """Bytes that can still be had on the device called so, before it is used; None where that is not known."""
    return available() if name == "cpu" or (name == "auto" and _cuda_problem(0)) else None


KERNELS = ("auto", "numpy", "numba")
"""Names of kernels for the CPU."""


def kernels_for(dtype: str, kernels: str = "auto") -> str:
    """`auto` made definite where the type decides: all kernels but numpy's are of float32."""
    return "numpy" if kernels == "auto" and dtype != "float32" else kernels


@cache
def _find(name: str, kernels: str, precise: bool) -> Device:
    if name == "auto":
        return _find("cuda:0" if _cuda_problem(0) is None else "cpu", kernels, precise)
    if name == "cpu":
        return _cpu(kernels, precise)
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise DeviceError(f"unknown device {name!r}", "use cpu, cuda, cuda:N or auto")
    return _cuda(int(match[1] or 0))


def _cpu(kernels: str, precise: bool) -> Device:
    keep_pages()
    if kernels == "auto":
        return _find("cpu", "numba" if compiled.problem() is None else "numpy", precise)
    if kernels == "numpy":
        return Device("cpu", NumpyOps(precise))
    if problem := compiled.problem():
        raise DeviceError(f"kernels 'numba' cannot be used: {problem}", f"{compiled.CURE}, or take kernels: numpy")
    from layernet.backend.compiled.ops import CompiledOps

    return Device("cpu", CompiledOps(precise))


@cache
def _cuda(index: int) -> Device:
    if problem := _cuda_problem(index):
        raise problem
    import cupy

    return CudaDevice(f"cuda:{index}", Ops(cupy), index)


def host() -> Device:
    """The CPU with numpy's kernels: for what is drawn, loaded and checked beside a net. Starts at once."""
    return get_device("cpu", "numpy")


def device_of(array: Array) -> Device:
    """The device that holds the array: the host for what is not a cupy array (lists and numbers too)."""
    index = getattr(getattr(array, "device", None), "id", None)  # numpy's `device` is the text "cpu"
    return host() if index is None else get_device(f"cuda:{index}")


def _cuda_problem(index: int) -> DeviceError | None:
    """Why CUDA device `index` cannot be used; None where it can."""
    try:
        import cupy
    except ImportError as error:
        return DeviceError(
            f"device 'cuda' needs cupy, which cannot be imported ({error})",
            "install layernet[cuda12] or layernet[cuda13], or set device: cpu",
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return DeviceError(f"cupy finds no CUDA device ({error})", "check the driver, or set device: cpu")
    if index >= count:
        return DeviceError(f"there is no CUDA device {index}: cupy finds {count}", "use device: cuda:0 or cpu")
    return None
