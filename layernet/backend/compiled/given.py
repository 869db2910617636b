"""Batch norm by statistics that are given: what it does in evaluation, and to the filters of a convolution before it.

y = scale x + shift with scale = weight / sqrt(var + eps), shift = bias - scale mean. Both are found in float64, where a
mean that is large beside the deviation leaves digits enough, in the launch that uses them: of one image, a dozen passes
over short vectors would take longer than the image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads_for
from layernet.backend.compiled.norm import Rows
from layernet.backend.compiled.scratch import Scratch
from layernet.backend.compiled.vectors import fma, load_first, load_float, maximum, splat, store_first, store_float

_ZERO = np.float32(0)


@njit
def _rstd_and_scale(c, var, weight, eps):
    """1 / sqrt(var + eps) and that times the weight, of channel c."""
    deviation = np.sqrt(np.float64(load_float(var + c * 4)) + np.float64(load_float(eps)))
    rstd = 1.0 / deviation if deviation != 0.0 else np.inf  # numba's division would raise
    return rstd, rstd * np.float64(load_float(weight + c * 4)) if weight else rstd


_SLABS = Scratch()


@Kernel
def _normalise(
    task, tasks, x, rows, channels, fold, mean, var, weight, bias, eps, shortcut, relu, y, kept, slab, slab_size,
):  # fmt: skip
    """y = x scale + shift, plus a shortcut, not below 0 where relu is set.

    A row is `fold` pixels. The first task also writes (mean, rstd, scale, shift) of each channel.
    """
    scale = slab + task * slab_size
    columns = channels * fold
    shift = scale + columns * 4
    for c in range(channels):
        m = np.float64(load_float(mean + c * 4))
        rstd, factor = _rstd_and_scale(c, var, weight, eps)
        offset = np.float64(load_float(bias + c * 4)) - m * factor if bias else -m * factor
        for i in range(c, columns, channels):
            store_float(scale + i * 4, np.float32(factor))
            store_float(shift + i * 4, np.float32(offset))
        if task == 0:
            store_float(kept + c * 4, np.float32(m))
            store_float(kept + (channels + c) * 4, np.float32(rstd))
            store_float(kept + (2 * channels + c) * 4, np.float32(factor))
            store_float(kept + (3 * channels + c) * 4, np.float32(offset))
    floor = splat(_ZERO) if relu else splat(np.float32(-np.inf))
    first, last = split(rows, task, tasks)
    for row in range(first, last):
        at = row * columns * 4
        for c in range(0, columns, LANES):
            left, to = columns - c, at + c * 4
            value = fma(load_first(x + to, left), load_first(scale + c * 4, left), load_first(shift + c * 4, left))
            if shortcut:
                value = value + load_first(shortcut + to, left)
            store_first(y + to, maximum(value, floor), left)


def normalise(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float, relu: bool,
    shortcut: Array | None,
) -> tuple[Array, Array]:  # fmt: skip
    """(y, what a backward needs: mean, rstd, scale and shift, a row each); all float32 and contiguous."""
    view = Rows.of(x)
    channels = x.shape[-1]
    y, kept = np.empty_like(x), np.empty((4, channels), dtype=np.float32)
    room, tasks = 2 * view.columns * 4 + 64, threads_for(x.size)
    _normalise.launch(
        x=x, rows=view.rows, channels=channels, fold=view.fold, mean=mean, var=var, weight=weight, bias=bias,
        eps=_number(eps), shortcut=shortcut, relu=int(relu), y=y, kept=kept, slab=_SLABS.room(tasks * room),
        slab_size=room, tasks=tasks,
    )  # fmt: skip
    return y, kept


@Kernel
def _fold(task, tasks, filters, outs, size, own, mean, var, weight, bias, eps, folded, offsets):
    """Filters times their channel's scale, biases as the norm moves them."""
    first, last = split(outs, task, tasks)
    for o in range(first, last):
        _, factor = _rstd_and_scale(o, var, weight, eps)
        offset = np.float64(load_float(bias + o * 4)) if bias else 0.0
        centre = np.float64(load_float(own + o * 4)) if own else 0.0
        store_float(offsets + o * 4, np.float32(offset + (centre - np.float64(load_float(mean + o * 4))) * factor))
        times = splat(np.float32(factor))
        for c in range(0, size, LANES):
            at = (o * size + c) * 4
            store_first(folded + at, load_first(filters + at, size - c) * times, size - c)


def fold(
    filters: Array, own: Array | None, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array]:
    """(filters, biases) that do what `filters` with biases `own`, and then the norm, do."""
    folded, offsets = np.empty_like(filters), np.empty(len(filters), dtype=np.float32)
    _fold.launch(
        filters=filters, outs=len(filters), size=filters[0].size, own=own, mean=mean, var=var, weight=weight, bias=bias,
        eps=_number(eps), folded=folded, offsets=offsets, tasks=threads_for(filters.size),
    )  # fmt: skip
    return folded, offsets


@lru_cache(maxsize=64)
def _number(value: float) -> Array:
    """A number as kernels read it."""
    return np.array([value], dtype=np.float32)
