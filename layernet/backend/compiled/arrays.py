"""Which arrays the compiled kernels take."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array


def takes(*arrays: Array | None) -> bool:
    """Whether all are float32, in C order and not empty; None, for what was left out, passes."""
    return all(a is None or (a.dtype == np.float32 and a.flags.c_contiguous and a.size > 0) for a in arrays)
