"""Every layer on compiled kernels, with arrays that end or begin where memory ends: run by test_borders.py.

Each array that a kernel is given or makes stands right before (`end`) or right behind (`start`) a page that must not be
touched, so what reads or writes beyond it there is killed; on its other side stand marks, which must stay. What is made
uninitialised is full of NaN. Results must be those of an ordinary pass, bit for bit.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

from layernet.backend import compiled
from layernet.backend.compiled import scratch
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.compiled.warmup import kernels
from layernet.backend.device import Device
from layernet.core.layer import Layer
from layernet.layers.block import Bottleneck
from layernet.layers.conv import Conv2d
from layernet.layers.linear import Linear
from layernet.layers.local_norm import LocalResponseNorm
from layernet.layers.pool import MaxPool2d
from layernet.testing.bench import Bench
from layernet.testing.cases import LAYERS, STEPS
from layernet.testing.kernels import FAMILIES

PAGE = mmap.PAGESIZE
MARK = 0xA5
NO_ACCESS = 0
C = ctypes.CDLL(None, use_errno=True)
C.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

LARGE: dict[str, tuple[Callable[[], Layer], tuple[int, ...], int]] = {
    "3x3, Winograd": (lambda: Conv2d(19, 3, padding=1), (37, 35, 17), 2),
    "3x3, no padding, many frequencies": (lambda: Conv2d(67, 3), (17, 15, 71), 2),
    "3x3, by panels, at once": (lambda: Conv2d(259, 3, padding=1), (9, 11, 249), 1),
    "5x5, Winograd": (lambda: Conv2d(19, 5, padding=2), (17, 15, 17), 2),
    "5x5, by panels, at once": (lambda: Conv2d(187, 5, padding=2), (7, 9, 181), 1),
    "few channels": (lambda: Conv2d(20, 3, stride=2, padding=1), (17, 15, 3), 2),
    "many places, few filters": (lambda: Conv2d(5, 5, padding=2), (11, 9, 3), 2),
    "1x1": (lambda: Conv2d(37, 1), (9, 5, 21), 2),
    "depthwise, strided": (lambda: Conv2d(21, 3, stride=2, padding=1, groups=21), (9, 7, 21), 2),
    "depthwise, several filters a channel": (lambda: Conv2d(42, 3, padding=1, groups=21), (9, 7, 21), 2),
    "groups of few channels, strided": (lambda: Conv2d(35, 3, stride=2, padding=1, groups=5), (9, 7, 25), 2),
    "groups of many": (lambda: Conv2d(38, 3, padding=1, groups=2), (9, 7, 34), 2),
    "1x1 in groups": (lambda: Conv2d(57, 1, groups=3), (9, 5, 21), 2),
    "dilated": (lambda: Conv2d(19, 3, padding=2, dilation=2), (11, 9, 17), 2),
    "dilated, strided": (lambda: Conv2d(19, 3, stride=2, padding=3, dilation=3), (13, 11, 5), 2),
    "blocks": (lambda: Bottleneck(17, stride=2), (13, 11, 35), 2),
    "pooling": (lambda: MaxPool2d(2), (14, 10, 37), 3),
    "response": (lambda: LocalResponseNorm(5), (9, 7, 37), 2),
    "products": (lambda: Linear(131), (67,), 71),
    "one product": (lambda: Linear(131), (67,), 1),
}
"""What the small cases of the layers do not reach: (layer, shape, batch)."""


class Guards:
    """Arrays at the border of what may be touched, and whether all around them is as it was."""

    def __init__(self, side: str) -> None:
        self.side = side
        self._placed: list[tuple[Any, int, int]] = []

    def empty(self, shape: Any, dtype: Any = float, fill: int = 0xFF) -> Any:
        dtype = np.dtype(dtype)
        shape = tuple(np.atleast_1d(shape)) if np.ndim(shape) else (shape,)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        room = -(-max(size, 1) // PAGE) * PAGE
        memory = mmap.mmap(-1, room + PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        guard, start = (base + room, room - size) if self.side == "end" else (base, PAGE)
        usable = 0 if self.side == "end" else PAGE
        memory[usable : usable + room] = bytes([MARK]) * room
        memory[start : start + size] = bytes([fill]) * size
        if C.mprotect(guard, PAGE, NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._placed.append((memory, start, size))
        return np.frombuffer(memory, dtype, size // dtype.itemsize, start).reshape(shape)

    def copy(self, array: Any) -> Any:
        copied = self.empty(array.shape, array.dtype)
        copied[...] = array
        return copied

    def check(self) -> None:
        """That nothing was written around the arrays since the last check."""
        for memory, start, size in self._placed:
            room = len(memory) - PAGE
            begin = 0 if self.side == "end" else PAGE
            around = memory[begin:start] + memory[start + size : begin + room]
            assert around == bytes([MARK]) * len(around), f"written beside an array of {size} bytes"
        self._placed.clear()


class GuardedOps:
    """Compiled kernels that are given guarded copies of what they are called with, and make guarded arrays."""

    def __init__(self, guards: Guards) -> None:
        self._ops, self._guards = CompiledOps(), guards

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ops, name)
        if not callable(method) or name in ("alone", "facts", "limited", "quiet"):
            return method

        def call(*arguments: Any, **settings: Any) -> Any:
            pairs: list[tuple[Any, Any]] = []

            def guarded(value: Any) -> Any:
                if isinstance(value, np.ndarray) and value.flags.c_contiguous and value.ndim:
                    pairs.append((value, self._guards.copy(value)))
                    return pairs[-1][1]
                return value

            with self.made():
                result = method(*map(guarded, arguments), **{key: guarded(value) for key, value in settings.items()})
            for original, copied in pairs:
                if original.flags.writeable:
                    original[...] = copied  # what updates in place
            return result

        return call

    @contextmanager
    def made(self) -> Iterator[None]:
        """Within it, numpy makes guarded arrays where kernels' arrays come from."""
        guards, names = self._guards, ("empty", "empty_like", "zeros", "zeros_like")
        before = {name: getattr(np, name) for name in names}
        scratch.forget()
        np.empty = guards.empty  # type: ignore[assignment]
        np.empty_like = lambda a, dtype=None: guards.empty(a.shape, dtype or a.dtype)  # type: ignore[assignment]
        np.zeros = lambda shape, dtype=float: guards.empty(shape, dtype, fill=0)  # type: ignore[assignment]
        np.zeros_like = lambda a, dtype=None: guards.empty(a.shape, dtype or a.dtype, fill=0)  # type: ignore[assignment]
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(np, name, function)
            scratch.forget()


def passes(make: Callable[[], Layer], shape: tuple[int, ...], batch: int, ops: Any) -> dict[str, Any]:
    """All that training and evaluation of a layer give."""
    bench = Bench(make(), shape, dtype="float32", device=Device("cpu", ops))
    found = {}
    x, dy = bench.input(batch), bench.output_grad(batch)
    for training in bench.modes(batch):
        found |= {f"{name}, {training}": value for name, value in bench.run(x, dy, training).items()}
    found["inference"] = bench.host(bench.forward(x, False, recording=False)[0])
    return found


def families(name: str) -> Callable[[Any], dict[str, Any]]:
    def run(ops: Any) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        results = FAMILIES[name](ops, lambda *shape: rng.standard_normal(shape).astype(np.float32))
        return {str(i): np.array(result) for i, result in enumerate(results)}

    return run


def cases() -> Iterator[tuple[str, int, Callable[[Any], dict[str, Any]]]]:
    """(label, threads, what gives results with some kernels)."""
    for case in (*LAYERS, *STEPS):
        batch = max(2, case.options.get("batch", 3))
        yield case.label, 1, lambda ops, case=case, batch=batch: passes(case.make, case.shape, batch, ops)
    for label, (make, shape, batch) in LARGE.items():
        yield label, 3, lambda ops, make=make, shape=shape, batch=batch: passes(make, shape, batch, ops)
    for name in FAMILIES:
        yield f"family {name}", 3, families(name)


def main() -> None:
    faulthandler.enable()
    assert compiled.problem() is None
    for label, threads, run in cases():
        print(label, flush=True)  # the last one, where memory ends
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with np.errstate(all="ignore"):
            wanted = run(CompiledOps())
            for side in ("end", "start"):
                guards = Guards(side)
                found = run(GuardedOps(guards))
                guards.check()
                assert found.keys() == wanted.keys()
                for name, value in wanted.items():
                    assert np.array_equal(found[name], value, equal_nan=True), f"{label}, {side}: {name} differs"
    missed = [f"{k.function.__module__}.{k.function.__name__}" for k in kernels() if "address" not in vars(k)]
    assert not missed, f"no case runs {missed}: add one to LARGE"


if __name__ == "__main__":
    sys.exit(main())
