"""Devices: where arrays live and which kernels run on them. The one place that imports cupy, and only when asked."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from layernet.backend import Array
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

    def facts(self) -> dict[str, str]:
        """What the device is, and the versions of what runs on it."""
        return {}

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """Within it, arrays are made on this device."""
        return contextlib.nullcontext()


@dataclass(frozen=True)
class CudaDevice(Device):
    """One CUDA device, through cupy."""

    index: int

    def facts(self) -> dict[str, str]:
        cuda = self.xp.cuda
        name = cuda.runtime.getDeviceProperties(self.index)["name"]
        return {
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "cupy": str(self.xp.__version__),
            "cuda_runtime": str(cuda.runtime.runtimeGetVersion()),
            "cuda_driver": str(cuda.runtime.driverGetVersion()),
        }

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.index).synchronize()

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.index)  # type: ignore[no-any-return]


@cache
def get_device(name: str = "auto") -> Device:
    """The device called `cpu`, `cuda`, `cuda:N`, or `auto` (cuda where cupy finds a device, otherwise cpu).

    Raises DeviceError, with the cure, where it cannot be used.
    """
    if name == "auto":
        return get_device("cuda:0") if _cuda_problem(0) is None else get_device("cpu")
    if name == "cpu":
        return Device("cpu", NumpyOps())
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise DeviceError(f"unknown device {name!r}", "use cpu, cuda, cuda:N or auto")
    index = int(match[1] or 0)
    if problem := _cuda_problem(index):
        raise problem
    import cupy

    return CudaDevice(f"cuda:{index}", Ops(cupy), index)


def device_of(array: Array) -> Device:
    """The device that holds the array: cpu for what is not a cupy array (lists and numbers too)."""
    index = getattr(getattr(array, "device", None), "id", None)  # numpy's `device` is the text "cpu"
    return get_device("cpu") if index is None else get_device(f"cuda:{index}")


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
