"""What every family of kernels stands on."""

from __future__ import annotations

from typing import Any


class KernelFamily:
    """A set of kernels on one array module."""

    xp: Any
