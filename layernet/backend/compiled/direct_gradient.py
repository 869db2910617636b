"""The gradient of the filters, straight through the register tile."""

from __future__ import annotations

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.columns import columns_of, is_small
from layernet.backend.compiled.crosswise import multiply_crosswise
from layernet.backend.compiled.direct import bordered
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.product import linear_weight_gradient, offsets
from layernet.backend.compiled.scratch import PARTS, SLABS
from layernet.backend.compiled.tile import TILE_COLUMNS, TILE_ROWS, tile
from layernet.backend.compiled.vectors import load, splat, store, store_first
from layernet.backend.window import Window


@Kernel
def _filter_gradient(
    task, tasks, x, dy, dw, dw_size, images, height, width, ins, out_height, out_width, outs, top, left, padded_height,
    padded_width, down, right, kh, kw, a_rows, c_rows, slab, slab_size,
):  # fmt: skip
    """Per task its own sum over a share of the images of dy^T times what the windows see, row of taps by row."""
    padded = slab + task * slab_size
    target = dw + task * dw_size
    first, last = split(images, task, tasks)
    zero = splat(np.float32(0))
    if first == last:
        for c in range(0, dw_size, LANES * 4):
            store(target + c, zero)
    run = kw * ins
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        gradient = dy + n * out_height * out_width * outs * 4
        start = 0 if n == first else -1
        for i in range(kh):
            for column in range(0, run, TILE_COLUMNS):
                multiply_crosswise(
                    gradient, out_width * outs * 4, outs * 4, a_rows, outs,
                    padded + (i * padded_width * ins + column) * 4, down * padded_width * ins * 4, right * ins * 4,
                    out_height, out_width, target + (i * run + column) * 4, c_rows, run - column, start,
                    run - column <= LANES,
                )  # fmt: skip


@njit
def add_by_taps(
    padded, gradient, dw, start, ins, padded_width, out_height, out_width, outs, down, right, taps, a_rows, c_rows,
):  # fmt: skip
    """dw (taps and channels, out to whole panels) = or, from `start` -1, += what an image's windows see times dy."""
    for column in range(0, outs, TILE_COLUMNS):
        for i in range(0, taps, TILE_ROWS):
            tile(
                padded, a_rows + i * 8, down * padded_width * ins * 4, right * ins * 4,
                gradient + column * 4, out_width * outs * 4, outs * 4, out_height, out_width,
                dw + column * 4, c_rows + i * 8, start, TILE_COLUMNS, 0,
            )  # fmt: skip


@Kernel
def _filter_gradient_by_taps(
    task, tasks, x, dy, dw, dw_size, images, height, width, ins, out_height, out_width, outs, top, left, padded_height,
    padded_width, down, right, taps, a_rows, c_rows, copies, padded_size, slab, slab_size,
):  # fmt: skip
    """The same transposed, (taps and channels, out): for few channels, of which a run of taps fills no panel."""
    padded = slab + task * slab_size
    target = dw + task * dw_size
    first, last = split(images, task, tasks)
    zero = splat(np.float32(0))
    if first == last:
        for c in range(0, dw_size, LANES * 4):
            store(target + c, zero)
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        gradient = dy + n * out_height * out_width * outs * 4
        if copies:  # what a panel reads beyond the last row must be there
            bordered(
                gradient, out_height, out_width, outs, 0, 0, padded + padded_size, out_height, out_width
            )  # fmt: skip
            gradient = padded + padded_size
        add_by_taps(
            padded, gradient, target, 0 if n == first else -1, ins, padded_width, out_height, out_width, outs, down,
            right, taps, a_rows, c_rows,
        )  # fmt: skip


def filter_gradient(x: Array, dy: Array, window: Window, dw: Array) -> None:
    """dw (out, kh, kw, in); without dilation."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = dy.shape[1:]
    (kh, kw), (down, right) = window.kernel, window.stride
    (top, bottom), (left, after) = window.padding
    if is_small(window, out_height * out_width):
        columns = columns_of(x, window, (out_height, out_width))
        linear_weight_gradient(columns, dy.reshape(-1, outs), dw.reshape(outs, -1))
        return
    padded_height, padded_width = height + top + bottom, width + left + after
    padded_size = -(-padded_height * padded_width * ins * 4 // 64) * 64 + 512
    taps = kh * kw * ins
    if not by_taps(kw * ins, taps, outs):
        size = -(-dw.size // 16) * 16
        parts = PARTS.room(threads() * size * 4)
        a_rows, c_rows = offsets(outs, 4), offsets(outs, taps * 4)
        _filter_gradient.launch(
            x=x, dy=dy, dw=parts, dw_size=size * 4, images=n, height=height, width=width, ins=ins,
            out_height=out_height, out_width=out_width, outs=outs, top=top, left=left, padded_height=padded_height,
            padded_width=padded_width, down=down, right=right, kh=kh, kw=kw, a_rows=a_rows, c_rows=c_rows,
            slab=SLABS.room(threads() * padded_size), slab_size=padded_size,
        )  # fmt: skip
        add_parts.launch(parts=parts, part_size=size * 4, count=threads(), target=dw, size=dw.size)
        return
    pitch = panels_width(outs)
    size = taps * pitch
    parts = PARTS.room(threads() * size * 4)
    a_rows, c_rows = offsets(kh, padded_width * ins * 4, kw * ins, 4), offsets(taps, pitch * 4)
    copies = int(outs % TILE_COLUMNS != 0)
    slab = padded_size + copies * (-(-out_height * out_width * outs * 4 // 64) * 64 + 512)
    _filter_gradient_by_taps.launch(
        x=x, dy=dy, dw=parts, dw_size=size * 4, images=n, height=height, width=width, ins=ins, out_height=out_height,
        out_width=out_width, outs=outs, top=top, left=left, padded_height=padded_height, padded_width=padded_width,
        down=down, right=right, taps=taps, a_rows=a_rows, c_rows=c_rows, copies=copies, padded_size=padded_size,
        slab=SLABS.room(threads() * slab), slab_size=slab,
    )  # fmt: skip
    add_parts_by_taps(parts, dw)


def by_taps(run: int, taps: int, outs: int) -> bool:
    """Whether dw is better found transposed: a run of taps, kw in, fills fewer of the tile's columns than filters."""
    return _waste(run, TILE_COLUMNS) * _waste(outs, TILE_ROWS) > _waste(taps, TILE_ROWS) * _waste(outs, TILE_COLUMNS)


def panels_width(outs: int) -> int:
    """The columns of the panels that hold so many."""
    return -(-outs // TILE_COLUMNS) * TILE_COLUMNS


def add_parts_by_taps(parts: int, dw: Array) -> None:
    """dw (out, ...) = the sum of the tasks' parts, (taps and channels, out to whole panels)."""
    rows = dw.reshape(len(dw), -1)
    total = np.empty((rows.shape[1], panels_width(len(rows))), dtype=np.float32)
    add_parts.launch(parts=parts, part_size=total.nbytes, count=threads(), target=total, size=total.size)
    rows[...] = total[:, : len(rows)].T


def _waste(count: int, unit: int) -> float:
    """How much more is computed when `count` rows or columns are rounded up to whole units."""
    return -(-count // unit) * unit / count


@Kernel
def add_parts(task, tasks, parts, part_size, count, target, size):
    """target = the sum of the parts, in order."""
    first, last = split(vectors_of(size), task, tasks)
    for v in range(first, last):
        total = load(parts + v * LANES * 4)
        for part in range(1, count):
            total = total + load(parts + part * part_size + v * LANES * 4)
        store_first(target + v * LANES * 4, total, size - v * LANES)
