"""What every family of kernels stands on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


class KernelFamily:
    """A set of kernels on one array module."""

    xp: Any

    def quiet(self) -> AbstractContextManager[Any]:
        """Within it, infinities and NaNs pass without numpy's warnings, as they always do on cupy."""
        return self.xp.errstate(all="ignore") if hasattr(self.xp, "errstate") else nullcontext()
