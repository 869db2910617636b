"""Running a compiled kernel on all cores.

A kernel is a function (arguments, task): `arguments` the address of an array of int64 (addresses, sizes), `task` a
number from 0. `launch` runs tasks 0 to n - 1 side by side, one for each thread. Kernels are compiled one by one when
they are first launched, and kept in a cache on disk.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, get_num_threads, njit, prange, threading_layer, types
from numba.extending import intrinsic
from numba.np.ufunc import parallel

from layernet.backend import Array
from layernet.backend.compiled.cache import cached, is_kept
from layernet.errors import DeviceError

_SIGNATURE = types.void(types.intp, types.intp)
_local = threading.local()
_FORKED: list[int] = []  # this process, where it was forked from one whose threads were OpenMP's


def _note_fork() -> None:
    with suppress(ValueError):  # no threads were started
        if threading_layer() == "omp":
            _FORKED.append(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Kernel:
    """A function (arguments, task) that is compiled at its first launch."""

    signature = _SIGNATURE

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    @property
    def kept(self) -> bool:
        """Whether this machine has compiled it before."""
        return is_kept(self.function)

    @cached_property
    def address(self) -> int:
        """Where its machine code begins; compiles it, or reads it from the cache."""
        self._compiled = cached(partial(cfunc, self.signature), self.function)
        return int(self._compiled.address)

    @cached_property
    def alone(self) -> Callable[[int, int], None]:
        """The machine code as a function: a single task needs no threads, which take longer to wake than it may."""
        return ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, ctypes.c_ssize_t)(self.address)


class Routine(Kernel):
    """A function of `count` integers that other kernels call by its address."""

    def __init__(self, function: Callable[..., None], count: int) -> None:
        super().__init__(function)
        self.signature = types.void(*[types.intp] * count)


def launch(kernel: Kernel, *arguments: int | Array | None) -> None:
    """Run the kernel's tasks side by side, one for each thread. The last argument is how many there are.

    An array is passed by its address, and lives at least until all is done; None is passed as 0.
    """
    if _FORKED:
        raise DeviceError(
            "OpenMP's threads do not live on in a forked process", "start processes by spawn, or take kernels: numpy"
        )
    packed = array("q", [a if isinstance(a, int) else 0 if a is None else address(a) for a in arguments])
    if packed[-1] == 1:
        kernel.alone(packed.buffer_info()[0], 0)
    else:
        _runner()(kernel.address, packed.buffer_info()[0], packed[-1])


def ready() -> None:
    """Make ready what launches kernels."""
    _runner()


def threads() -> int:
    """How many threads kernels run on."""
    return int(_count())


LITTLE = 1 << 16
"""Numbers, or sixteen times as many multiply-adds, that one thread is done with before a second has woken up: 4 us."""


def threads_for(numbers: int) -> int:
    """How many threads are worth their start for a kernel that reads or writes so many numbers."""
    return 1 if numbers < LITTLE else threads()


def _quick_count() -> Callable[[], int]:
    """numba's own count: get_num_threads takes a lock first, lest the threads be started twice, which costs 0.4 us."""
    get_num_threads()  # starts them
    count: Callable[[], int] = getattr(parallel, "_get_num_threads", get_num_threads)
    return count


_count = _quick_count()


def _public_address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _field_address(array: Array) -> int:
    """The field `data` of numpy's PyArrayObject, whose place is part of its C interface: six times as fast."""
    return _int_at(id(array) + _DATA_FIELD).value


_DATA_FIELD = object.__basicsize__
_int_at = ctypes.c_int64.from_address
_SAMPLE = np.zeros(3)
address = _field_address if _field_address(_SAMPLE[1:]) == _public_address(_SAMPLE[1:]) else _public_address
"""Where an array's first element is."""


def scratch(name: str, size: int) -> int:
    """The address of `size` bytes, on a cache line, with room behind; the thread's until it asks by this name again."""
    slabs = _local.__dict__.setdefault("slabs", {})
    room, start, _ = slabs.get(name, (0, 0, None))
    if room < size:
        slab = np.zeros(size + 512, dtype=np.uint8)
        start = -(-address(slab) // 64) * 64
        slabs[name] = (size, start, slab)
    return int(start)


@intrinsic(prefer_literal=True)
def unpack(typingctx: Any, arguments: Any, count: Any) -> Any:
    """The first `count` arguments, as a tuple."""
    n = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        integer = ir.IntType(64)
        base = builder.inttoptr(values[0], integer.as_pointer())
        loaded = [builder.load(builder.gep(base, [integer(i)])) for i in range(n)]
        return context.make_tuple(builder, signature.return_type, loaded)

    return types.UniTuple(types.intp, n)(types.intp, count), generate


@njit(inline="always")
def split(items, task, tasks):
    """The task's share of `items`: from the first to before the last."""
    return items * task // tasks, items * (task + 1) // tasks


@intrinsic
def _run(typingctx: Any, kernel: Any, arguments: Any, task: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kernel, arguments, task = values
        integer = ir.IntType(64)
        function = ir.FunctionType(ir.VoidType(), [integer, integer])
        builder.call(builder.inttoptr(kernel, function.as_pointer()), [arguments, task])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


def _side_by_side(kernel: Any, arguments: Any, tasks: Any) -> None:
    for task in prange(tasks):
        _run(kernel, arguments, task)


@cache
def _runner() -> Any:
    return cached(partial(njit, "void(intp, intp, intp)", parallel=True), _side_by_side)
