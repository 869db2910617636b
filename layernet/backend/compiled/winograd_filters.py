"""Filters, transformed and packed for the products of Winograd's convolution."""

from __future__ import annotations

import numpy as np
from numba import njit

from layernet.backend.compiled.filtering import FILTER
from layernet.backend.compiled.lanes import BYTES, LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, run_routine, split
from layernet.backend.compiled.squares import transpose_square
from layernet.backend.compiled.vectors import load, load_first, splat, store


@njit
def turned_filters(transform, a, r, w, ins, first, last, c, target, u_step, panel_width, spare):
    """U[f, out, c..] = G w G^T of the turned filters `first` to before `last`, a panel from channel c on.

    A last, partly filled vector is copied first.
    """
    column = -ins * 4
    for o in range(first, last):
        for v in range(0, panel_width, LANES):
            to = target + ((o - first) * panel_width + v) * 4
            source = w + (o * r * r + r * r - 1) * ins * 4 + (c + v) * 4
            if c + v + LANES <= ins:
                run_routine(transform, FILTER, source, r * column, column, to, a * u_step, u_step, 1, 0, 0)
            else:
                for i in range(r * r):
                    store(spare + i * BYTES, load_first(source + i * column, ins - c - v))
                run_routine(transform, FILTER, spare, r * BYTES, BYTES, to, a * u_step, u_step, 1, 0, 0)


@njit
def crosswise_filters(transform, a, r, w, ins, outs, o0, c, target, u_step, panel_width, spare):
    """U[f, c.., o0..] = G w G^T for a square of LANES channels and LANES filters.

    The filters have their channels side by side, and so have the transforms; the product wants filters side by side.
    """
    square = spare + r * r * BYTES
    turned = square + LANES * BYTES
    step = LANES * BYTES + 64
    zero = splat(np.float32(0))
    for o in range(LANES):
        source = w + ((o0 + o) * r * r * ins + c) * 4
        to = turned + o * BYTES
        if o0 + o >= outs:
            for f in range(a * a):
                store(to + f * step, zero)
        elif c + LANES <= ins:
            run_routine(transform, FILTER, source, r * ins * 4, ins * 4, to, a * step, step, 1, 0, 0)
        else:
            for i in range(r * r):
                store(spare + i * BYTES, load_first(source + i * ins * 4, ins - c))
            run_routine(transform, FILTER, spare, r * BYTES, BYTES, to, a * step, step, 1, 0, 0)
    for f in range(a * a):
        if c + LANES <= ins:
            transpose_square(turned + f * step, BYTES, target + f * u_step, panel_width * 4)
        else:
            transpose_square(turned + f * step, BYTES, square, BYTES)
            for k in range(ins - c):
                store(target + f * u_step + k * panel_width * 4, load(square + k * BYTES))


def filter_room(a: int, r: int) -> int:
    """Bytes that these two take to work in."""
    return (r * r + LANES) * BYTES + a * a * (LANES * BYTES + 64)


@Kernel
def transform_filters(
    task, tasks, transform, a, r, w, ins, outs, turned, u, u_step, panels, panel_width, slab, slab_size,
):  # fmt: skip
    """U[f, panel, k, :] for a share of the panels and k; k counts filters where they are turned, else channels."""
    spare = slab + task * slab_size
    depth = outs if turned else ins
    blocks = vectors_of(depth)
    first, last = split(panels * blocks, task, tasks)
    for block in range(first, last):
        panel, k = block // blocks, block % blocks * LANES
        target = u + (panel * depth + k) * panel_width * 4
        if turned:
            end = min(k + LANES, outs)
            turned_filters(
                transform, a, r, w, ins, k, end, panel * panel_width, target, u_step, panel_width, spare
            )  # fmt: skip
        else:
            for v in range(0, panel_width, LANES):
                crosswise_filters(
                    transform,
                    a,
                    r,
                    w,
                    ins,
                    outs,
                    panel * panel_width + v,
                    k,
                    target + v * 4,
                    u_step,
                    panel_width,
                    spare,
                )
