"""The device of the stand-in: the reference kernels on fakecupy."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

import fakecupy
from layernet.backend import Array
from layernet.backend.device import Device
from layernet.backend.ops import Ops


@dataclass(frozen=True)
class FakeDevice(Device):
    """What CudaDevice is to cupy."""

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        return array.get() if isinstance(array, fakecupy.ndarray) else np.asarray(array)


def fake_device() -> FakeDevice:
    """A device like `cuda:0`, without one: `net.bind(fake_device(), "float64")`."""
    return FakeDevice("fake", Ops(sys.modules["fakecupy"]))
