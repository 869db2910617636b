"""The device of the stand-in: the reference kernels on fakecupy."""

from __future__ import annotations

from layernet.backend.device import Device
from layernet.backend.ops import Ops
from tests import fakecupy


def fake_device() -> Device:
    """A device like `cuda:0`, without one: `net.bind(fake_device(), "float64")`."""
    return Device("fake", Ops(fakecupy))
