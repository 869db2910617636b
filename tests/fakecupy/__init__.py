"""A strict stand-in for CuPy: `import fakecupy as xp` instead of `import cupy as xp`, on machines without a GPU.

numpy computes behind it, but its arrays are no numpy arrays, it has the names and keywords of CuPy 14.2 and no other,
and it raises where CuPy raises. It is stricter than CuPy, on purpose, where CuPy is silently wrong or slow: numpy
functions called on device arrays, host arrays as indices and in assignments, element-wise ops on host arrays,
out-of-range and doubled indices, writes into views that share memory. `empty` gives NaN.

`count_syncs()` counts what makes the host wait for the device, `forbid_sync()` forbids it.
What CuPy has and the stand-in does not know raises NotImplementedError: then the stand-in wants a few lines more.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import _functions, _ufunc
from ._array import ndarray
from ._surface import CUPY, SURFACE
from ._sync import DeviceSynchronized, count_syncs, forbid_sync
from ._ufunc import ufunc

__all__ = ["DeviceSynchronized", "count_syncs", "forbid_sync", "ndarray", "ufunc"]

_ufunc.give_operators()
_functions.give_methods()
_OTHERS = SURFACE["others"].split()


class _Namespace(SimpleNamespace):
    def __init__(self, name: str, **members: Any) -> None:
        super().__init__(**members)
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{CUPY} has no {self.__name__}.{name}", name=name, obj=self)


def _make_linalg() -> _Namespace:
    make = partial(_functions.make_function, numpy_module=np.linalg, table=SURFACE["linalg"], prefix="linalg.")
    functions = {name: make(name) for name in SURFACE["linalg"]}
    return _Namespace("linalg", **functions, matmul=_ufunc.ufuncs["matmul"], LinAlgError=np.linalg.LinAlgError)


def _make_lib() -> _Namespace:
    make = partial(_functions.make_function, numpy_module=np.lib.stride_tricks, table=SURFACE["stride_tricks"])
    windows = make("sliding_window_view", prefix="lib.stride_tricks.")
    tricks = _Namespace("lib.stride_tricks", as_strided=_functions.as_strided, sliding_window_view=windows)
    return _Namespace("lib", stride_tricks=tricks)


linalg = _make_linalg()
lib = _make_lib()


def __getattr__(name: str) -> Any:
    if name in _ufunc.ufuncs:
        return _ufunc.ufuncs[name]
    if name in SURFACE["functions"]:
        return _functions.make_function(name, np, SURFACE["functions"])
    if name in _OTHERS:
        return _constant_or_type(name)
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"{CUPY} has no function or name {name!r}", name=name)


def _constant_or_type(name: str) -> Any:
    """What is numpy's own in CuPy too: numbers, types, helpers without arrays."""
    value = getattr(np, name, None)
    if isinstance(value, float) or name in ("newaxis", "dtype", "finfo", "iinfo", "s_", "index_exp", "ndindex"):
        return value
    if isinstance(value, type) and issubclass(value, np.generic):
        return value
    hint = "; draw from ctx.rng, whose numbers are the same on every device" if name == "random" else ""
    raise NotImplementedError(f"{CUPY} has {name}, the stand-in does not know it{hint}")
