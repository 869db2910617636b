"""What the contract rules look with: memory layouts, locks, poison, fingerprints, and what stays behind."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.random import Stream
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.sequential import Sequential
from layernet.testing.bench import Bench, Result

NUMPY_DOMAIN = 389047
"""`np.lib.tracemalloc_domain`: under it numpy reports the memory of its arrays."""


class Twice(Sequential):
    """y = f(x) + f(x with the examples in reverse)."""

    def forward(self, x: Array, ctx: Context) -> Array:
        (layer,) = self.layers
        y, first = ctx.call(layer, x, needs_input_grad=ctx.needs_input_grad)
        z, second = ctx.call(layer, x[::-1], needs_input_grad=ctx.needs_input_grad)
        ctx.save(first, second)
        return y + z

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        first, second = ctx.saved
        dz, dx = ctx.backward(second, dy), ctx.backward(first, dy)
        return None if dx is None or dz is None else dx + dz[::-1]


class Watched:
    """An array and a weak reference that tells whether anybody still holds it."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def release(self) -> weakref.ref[Any]:
        reference = weakref.ref(self.array)
        del self.array
        return reference


def gone(reference: weakref.ref[Any]) -> bool:
    """Whether nobody holds the object any more, but for cycles that the collector would break."""
    if reference() is not None:  # collecting takes longer than many passes: only where it may matter
        gc.collect()
    return reference() is None


def is_random(bench: Bench, x: Array) -> bool:
    """Whether a training pass draws random numbers."""
    drawn = []
    before = Context.rng

    def watched(self: Context) -> Stream:
        drawn.append(self)
        stream: Stream = before.__get__(self)
        return stream

    Context.rng = property(watched)  # type: ignore[method-assign,assignment]
    try:
        bench.forward(x, True)
    finally:
        Context.rng = before  # type: ignore[method-assign]
    return bool(drawn)


def gradients(result: Result) -> Result:
    """A result without the outputs."""
    return {name: array for name, array in result.items() if name != "y" and not name.startswith("output ")}


def choices(paths: list[str]) -> list[list[str]]:
    """Which parameters to freeze together: each alone, all others, and all."""
    alone = [[path] for path in paths]
    return [*alone, *([p for p in paths if p != path] for path in paths if len(paths) > 2), *[paths][: len(paths) > 1]]


def growth(bench: Bench, training: bool, recording: bool) -> int:
    """How many bytes of arrays each of three more passes leaves behind; the first may fill what is kept by shape."""
    x, dy = bench.input(3), bench.output_grad(3)

    def held(collect: bool) -> int:
        y, call = bench.forward(x, training, recording=recording)
        if recording:
            bench.backward(call, dy)
        del y, call
        if collect:
            gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, NUMPY_DOMAIN)]).traces
        return sum(trace.size for trace in traces)

    if tracemalloc.is_tracing():  # somebody else's measurement
        return 0
    tracemalloc.start()
    try:
        for collect in (False, True):  # collecting takes longer than the passes: only where it may matter
            sizes = [held(collect) for _ in range(4)]
            growth = min(later - earlier for earlier, later in itertools.pairwise(sizes[1:]))
            if growth <= 0:
                break
    finally:
        tracemalloc.stop()
    return growth


@contextmanager
def read_only(arrays: Any) -> Iterator[None]:
    """Within it, the arrays cannot be written, where the array module knows such a thing."""
    locked = [array for array in arrays if hasattr(array.flags, "writeable")]
    for array in locked:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in locked:
            array.flags.writeable = True


@contextmanager
def poisoned() -> Iterator[None]:
    """Within it, what ctx.empty and ctx.scratch give is full of nan (of -1 for integers)."""

    def poisoned(self: Context, shape: Any, dtype: str | None = None) -> Array:
        array = self.xp.empty(shape, dtype=dtype or self.dtype)
        array[...] = float("nan") if array.dtype.kind == "f" else -1 if array.dtype.kind == "i" else 1
        return array

    before = Context.empty, Context.scratch
    Context.empty = Context.scratch = poisoned  # type: ignore[method-assign]
    try:
        yield
    finally:
        Context.empty, Context.scratch = before  # type: ignore[method-assign]


def snapshot(layer: Layer) -> dict[str, str]:
    """What every attribute of a layer and the layers in it holds; parameters are watched elsewhere."""
    return {
        f"{path or type(part).__name__}.{name}": fingerprint(value)
        for path, part in layer.walk()
        for name, value in vars(part).items()
    }


def fingerprint(value: Any) -> str:
    if isinstance(value, dict | list | tuple | set):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return f"{type(value).__name__}[{', '.join(f'{key}: {fingerprint(item)}' for key, item in items)}]"
    if isinstance(value, bool | int | float | str | type(None)):
        return repr(value)
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.tobytes()!r}"
    return f"{type(value).__name__} at {id(value)}"


def column_major(bench: Bench, array: Array) -> Array:
    """The same values in column-major memory."""
    return bench.net.device.xp.asfortranarray(array)


def strided(bench: Bench, array: Array) -> Array:
    """The same values in memory that is not contiguous."""
    room = bench.net.device.xp.zeros((*array.shape, 2), dtype=array.dtype)
    room[..., 0] = array
    return room[..., 0]
