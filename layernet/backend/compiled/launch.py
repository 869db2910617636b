"""Running a compiled kernel on all cores.

A kernel is a function (task, tasks, ...) of integers: `task` a number from 0 to before `tasks`, the others addresses
and sizes. Its `launch` is given these by their names, and runs all tasks side by side, one for each thread. Kernels are
compiled one by one when they are first launched, and kept in a cache on disk.
"""

from __future__ import annotations

import ctypes
import os
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

_FORKED: list[int] = []  # this process, where it was forked from one whose threads were OpenMP's


def _note_fork() -> None:
    with suppress(ValueError):  # no threads were started
        if threading_layer() == "omp":
            _FORKED.append(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


MOST = 40
"""How many arguments a kernel may have beside `task` and `tasks`."""


class Routine:
    """A function of integers that is compiled when its address is first asked for; kernels call it by that."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        code = function.__code__
        self.parameters = code.co_varnames[: code.co_argcount]

    @property
    def kept(self) -> bool:
        """Whether this machine has compiled it before."""
        return is_kept(self.function)

    @cached_property
    def address(self) -> int:
        """Where its machine code begins; compiles it, or reads it from the cache."""
        signature = types.void(*[types.intp] * len(self.parameters))
        self._compiled = cached(partial(cfunc, signature), self.function)
        return int(self._compiled.address)


class Kernel(Routine):
    """A function (task, tasks, ...) of at most MOST more integers, addresses and sizes, and what launches it."""

    launch: Callable[..., None]
    """launch(*, tasks=0, ...): run the tasks, as many as threads unless `tasks` says how many, side by side.

    All arguments by their names. An array is passed by its address, and lives at least until all is done; None is
    passed as 0. Raises TypeError where one is missing or not the kernel's.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function)
        names = self.parameters[2:]
        if len(names) > MOST:
            raise TypeError(f"a kernel has at most {MOST} arguments, {function.__name__} {len(names)}")
        # made for these names, as a NamedTuple is: Python itself checks them, at half the cost of **arguments
        given, values = "".join(f"{name}, " for name in names), ", ".join(names)
        scope: dict[str, Any] = {"_kernel": self, "_start": _start, "_count": _count}
        exec(
            f"def {function.__name__}(*, {given}tasks=0):\n"
            f"    _start((_kernel.address, {len(names)}, tasks or _count(), {values}))",
            scope,
        )
        self.launch = scope[function.__name__]


def _start(arguments: tuple[int | Array | None, ...]) -> None:
    """Run a kernel: its address, how many arguments it has, how many tasks, and the arguments."""
    if _FORKED:
        raise DeviceError(
            "OpenMP's threads do not live on in a forked process", "start processes by spawn, or take kernels: numpy"
        )
    packed = array("q", [a if isinstance(a, int) else 0 if a is None else address(a) for a in arguments])
    if packed[2] == 1:
        _alone()(packed.buffer_info()[0])
    else:
        _runner()(packed.buffer_info()[0], packed[2])


def ready() -> None:
    """Make ready what launches kernels."""
    _alone()
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


@njit(inline="always")
def split(items, task, tasks):
    """The task's share of `items`: from the first to before the last."""
    return items * task // tasks, items * (task + 1) // tasks


@intrinsic
def run_routine(typingctx, routine, a0, a1, a2, a3, a4, a5, a6, a7, a8, a9):
    """Call a routine of ten integers by its address."""

    def generate(context, builder, signature, values):
        function = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 10)
        builder.call(builder.inttoptr(values[0], function.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11), generate


@intrinsic
def _run(typingctx: Any, packed: Any, task: Any) -> Any:
    """Call the kernel of `packed`, int64: its address, how many arguments it has, `tasks`, and these arguments."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        start, task = values
        integer = ir.IntType(64)
        base = builder.inttoptr(start, integer.as_pointer())

        def at(i: int) -> Any:
            return builder.load(builder.gep(base, [integer(i)]))

        address, count = at(0), at(1)
        done = builder.append_basic_block("done")
        by_count = builder.switch(count, done)
        for n in range(MOST + 1):
            by_count.add_case(integer(n), case := builder.append_basic_block(f"of_{n}"))
            builder.position_at_end(case)
            function = ir.FunctionType(ir.VoidType(), [integer] * (n + 2))
            builder.call(
                builder.inttoptr(address, function.as_pointer()), [task, at(2), *(at(3 + i) for i in range(n))]
            )
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


def _first_task(packed: Any) -> None:
    _run(packed, 0)


def _side_by_side(packed: Any, tasks: Any) -> None:
    for task in prange(tasks):
        _run(packed, task)


@cache
def _alone() -> Any:
    """Runs a single task: that needs no threads, which take longer to wake than it may."""
    return cached(partial(cfunc, "void(intp)"), _first_task).ctypes


@cache
def _runner() -> Any:
    return cached(partial(njit, "void(intp, intp)", parallel=True, nogil=True), _side_by_side)
