"""Convolution with stride 1 by minimal filtering (see filtering.py), forwards, and back to the input."""

from __future__ import annotations

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.filtering import (
    INPUT,
    NEAR,
    OUTPUT,
    SIDE,
    TRANSFORMS,
    place,
    prefetch_tiles,
    spread_window,
)
from layernet.backend.compiled.lanes import BYTES, LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, run_routine, split, threads
from layernet.backend.compiled.product import offsets
from layernet.backend.compiled.scratch import FREQUENCIES, SLABS, TILES
from layernet.backend.compiled.squares import STEADY, multiply_by_square
from layernet.backend.compiled.tile import NARROW_ROWS, TILE_COLUMNS, TILE_ROWS, narrow_tile, tile
from layernet.backend.compiled.vectors import load, load_first, maximum, splat, store, store_first
from layernet.backend.compiled.winograd_filters import crosswise_filters, filter_room, transform_filters, turned_filters

BLOCK_BYTES = 400_000
"""What a block of transformed tiles takes, inputs and outputs: it should stay in the level-2 cache."""

BLOCK_ROWS = 48
"""Tiles in a block at most."""

PANEL_TILES = 512
"""Up to so many tiles in all, many filters are taken a panel at a time."""

FILTER_BYTES = 4 << 20
"""From so many bytes of transformed filters on, they are taken a panel at a time where tiles are few."""


@njit
def _finish(transform, a, products, m_step, index, y, bias, relu, out_height, out_width, outs, begin, end, spare):
    """Transform a tile's products back and store what lies in the image, for channels `begin` to before `end`."""
    n, i, j = place(index, (out_height + SIDE - 1) // SIDE, (out_width + SIDE - 1) // SIDE, SIDE)
    vectors = vectors_of(end - begin)
    plain = not bias and not relu
    rows, columns = min(SIDE, out_height - i), min(SIDE, out_width - j)
    if plain and rows == SIDE and columns == SIDE and end % LANES == 0:
        target = y + ((n * out_height + i) * out_width + j) * outs * 4 + begin * 4
        run_routine(
            transform, OUTPUT, products, a * m_step, m_step, target, out_width * outs * 4, outs * 4, vectors, 0, 0
        )  # fmt: skip
        return
    run_routine(
        transform, OUTPUT, products, a * m_step, m_step, spare, SIDE * vectors * BYTES, vectors * BYTES, vectors, 0, 0
    )  # fmt: skip
    floor = splat(np.float32(0)) if relu else splat(np.float32(-np.inf))
    for p in range(rows):
        for q in range(columns):
            source = spare + (p * SIDE + q) * vectors * BYTES
            target = y + ((n * out_height + i + p) * out_width + j + q) * outs * 4
            for c in range(begin, end, LANES):
                value = load(source + (c - begin) * 4)
                if bias:
                    value = value + load_first(bias + c * 4, end - c)
                value = maximum(value, floor)
                if c + LANES <= end:
                    store(target + c * 4, value)
                else:
                    store_first(target + c * 4, value, end - c)


@Kernel
def _convolve(
    task, tasks, transform, a, x, u, u_step, y, bias, relu, images, height, width, ins, out_height, out_width, outs,
    top, left, block, panels, panel_width, a_rows, c_rows, slab, slab_size,
):  # fmt: skip
    """y = conv(x, w) for a share of the tiles, a block at a time: transform, multiply, transform back, store."""
    in_pitch = vectors_of(ins) * BYTES
    out_pitch = panels * panel_width * 4
    v_step, m_step = block * in_pitch + 64, block * out_pitch + 64
    spare = slab + task * slab_size
    v = spare + BYTES + a * a * in_pitch
    store(spare, splat(np.float32(0)))
    products = v + a * a * v_step
    finished = products + a * a * m_step
    rows = TILE_ROWS if panel_width == TILE_COLUMNS else NARROW_ROWS
    down, across = (out_height + SIDE - 1) // SIDE, (out_width + SIDE - 1) // SIDE
    start, stop = split(images * down * across, task, tasks)
    for begin in range(start, stop, block):
        count = min(block, stop - begin)
        for t in range(count):
            if ins > LANES and t + NEAR < count:
                ahead = begin + t + NEAR
                prefetch_tiles(x, ahead, ahead + 1, down, across, height, width, ins, a - SIDE - top, False)
            n, i, j = place(begin + t, down, across, SIDE)
            image = x + n * height * width * ins * 4
            spread_window(
                transform, INPUT, a, image, i - top, j - left, height, width, ins, spare, v + t * in_pitch, v_step, a
            )
        waiting = min(block, stop - begin - count)
        for f in range(a * a):
            ahead, after = split(waiting, f, a * a)
            first = begin + count
            prefetch_tiles(x, first + ahead, first + after, down, across, height, width, ins, a - SIDE - top, False)
            ahead, after = split(count, f, a * a)
            prefetch_tiles(
                y, begin + ahead, begin + after, down, across, out_height, out_width, outs, 0, True
            )  # fmt: skip
            if STEADY and ins == LANES and panel_width == LANES:
                multiply_by_square(v + f * v_step, u + f * u_step, products + f * m_step, in_pitch, count)
                continue
            for panel in range(panels):
                b = u + f * u_step + panel * ins * panel_width * 4
                c = products + f * m_step + panel * panel_width * 4
                for t in range(0, count, rows):
                    if panel_width == TILE_COLUMNS:
                        tile(
                            v + f * v_step + t * in_pitch, a_rows, 0, 4, b, 0, panel_width * 4, 1, ins,
                            c + t * out_pitch, c_rows, 0, panel_width, 0,
                        )  # fmt: skip
                    else:
                        narrow_tile(
                            v + f * v_step + t * in_pitch, a_rows, 0, 4, b, 0, panel_width * 4, 1, ins,
                            c + t * out_pitch, c_rows, 0, panel_width, 0,
                        )  # fmt: skip
        for t in range(count):
            if outs > LANES and t + NEAR < count:
                ahead = begin + t + NEAR
                prefetch_tiles(y, ahead, ahead + 1, down, across, out_height, out_width, outs, 0, True)
            _finish(
                transform, a, products + t * out_pitch, m_step, begin + t, y, bias, relu,
                out_height, out_width, outs, 0, outs, finished,
            )  # fmt: skip


@Kernel
def _transform_inputs(
    task, tasks, transform, a, x, height, width, ins, down, across, top, left, tiles, v, v_step, slab, slab_size,
):  # fmt: skip
    """V = B^T x B for a share of all tiles."""
    pitch = vectors_of(ins) * BYTES
    spare = slab + task * slab_size
    store(spare, splat(np.float32(0)))
    first, last = split(tiles, task, tasks)
    for t in range(first, last):
        n, i, j = place(t, down, across, SIDE)
        image = x + n * height * width * ins * 4
        spread_window(
            transform, INPUT, a, image, i - top, j - left, height, width, ins, spare,
            v + t * pitch, v_step, a,
        )  # fmt: skip


@Kernel
def _convolve_panels(
    task, tasks, transform, a, r, w, turned, v, v_step, y, bias, relu, tiles, ins, out_height, out_width, outs, panels,
    depth_block, a_rows, c_rows, m_step, slab, slab_size,
):  # fmt: skip
    """y for a share of the panels of output channels, all tiles at once; filters are transformed as they are used."""
    in_pitch, out_pitch = vectors_of(ins) * BYTES, TILE_COLUMNS * 4
    u = slab + task * slab_size
    u_step = depth_block * TILE_COLUMNS * 4 + 64
    products = u + a * a * u_step
    spare = products + a * a * m_step
    first, last = split(panels, task, tasks)
    for panel in range(first, last):
        column = panel * TILE_COLUMNS
        for k in range(0, ins, depth_block):
            end = min(k + depth_block, ins)
            if turned:
                turned_filters(transform, a, r, w, outs, k, end, column, u, u_step, TILE_COLUMNS, spare)
            else:
                for c in range(k, end, LANES):
                    for o in range(0, TILE_COLUMNS, LANES):
                        to = u + ((c - k) * TILE_COLUMNS + o) * 4
                        crosswise_filters(
                            transform, a, r, w, ins, outs, column + o, c, to, u_step, TILE_COLUMNS, spare
                        )  # fmt: skip
            start = -1 if k else 0
            for f in range(a * a):
                for t in range(0, tiles, TILE_ROWS):
                    tile(
                        v + f * v_step + t * in_pitch + k * 4, a_rows, 0, 4, u + f * u_step, 0, TILE_COLUMNS * 4,
                        1, end - k, products + f * m_step + t * out_pitch, c_rows, start, TILE_COLUMNS, 0,
                    )  # fmt: skip
        for t in range(tiles):
            _finish(
                transform, a, products + t * out_pitch, m_step, t, y, bias, relu,
                out_height, out_width, outs, column, min(column + TILE_COLUMNS, outs), spare,
            )  # fmt: skip


def _panels(width: int) -> tuple[int, int]:
    """How many panels of packed weights, and their columns."""
    panel_width = LANES if width <= LANES else TILE_COLUMNS
    return -(-width // panel_width), panel_width


def convolve(
    x: Array, filters: Array, bias: Array | None, padding: tuple[int, int], out: Array, relu: bool = False,
    turned: bool = False,
) -> None:  # fmt: skip
    """out (N, H', W', out) = conv(x, filters), `padding` (top, left) zeros; with `turned`, what takes dy back to dx.

    The filters (out, r, r, in) are then turned by half a turn, their in and out exchanged: (out) -> (in).
    """
    n, height, width, ins = x.shape
    out_height, out_width, outs = out.shape[1:]
    r = filters.shape[1]
    a = SIDE + r - 1
    transform = TRANSFORMS[r].address
    panels, panel_width = _panels(outs)
    down, across = -(-out_height // SIDE), -(-out_width // SIDE)
    tiles = n * down * across
    if tiles <= PANEL_TILES and a * a * panels * ins * panel_width * 4 > FILTER_BYTES:
        _by_panels(x, filters, bias, padding, out, relu, turned)
        return
    u_step = panels * ins * panel_width * 4 + 64  # off the powers of two, where all frequencies would meet in one set
    u = FREQUENCIES.room(a * a * u_step)
    room = filter_room(a, r)
    transform_filters.launch(
        transform=transform, a=a, r=r, w=filters, ins=outs if turned else ins, outs=ins if turned else outs,
        turned=int(turned), u=u, u_step=u_step, panels=panels, panel_width=panel_width,
        slab=SLABS.room(threads() * room), slab_size=room,
    )  # fmt: skip
    rows = TILE_ROWS if panel_width == TILE_COLUMNS else NARROW_ROWS
    in_pitch, out_pitch = vectors_of(ins) * BYTES, panels * panel_width * 4
    block = max(rows, min(BLOCK_ROWS, BLOCK_BYTES // (a * a * (in_pitch + out_pitch))) // rows * rows)
    slab = BYTES + a * a * (in_pitch + block * (in_pitch + out_pitch) + 128) + SIDE * SIDE * out_pitch
    slab = -(-slab // 64) * 64
    a_rows, c_rows = offsets(rows, in_pitch), offsets(rows, out_pitch)
    _convolve.launch(
        transform=transform, a=a, x=x, u=u, u_step=u_step, y=out, bias=bias, relu=int(relu), images=n, height=height,
        width=width, ins=ins, out_height=out_height, out_width=out_width, outs=outs, top=padding[0], left=padding[1],
        block=block, panels=panels, panel_width=panel_width, a_rows=a_rows, c_rows=c_rows,
        slab=SLABS.room(threads() * slab), slab_size=slab,
    )  # fmt: skip


def _by_panels(
    x: Array, filters: Array, bias: Array | None, padding: tuple[int, int], out: Array, relu: bool, turned: bool
) -> None:
    """`convolve` with many filters and few tiles: it is the tiles that all stay in the cache, not the filters."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = out.shape[1:]
    r = filters.shape[1]
    a = SIDE + r - 1
    transform = TRANSFORMS[r].address
    down, across = -(-out_height // SIDE), -(-out_width // SIDE)
    tiles = n * down * across
    in_pitch = vectors_of(ins) * BYTES
    v_step = (tiles + TILE_ROWS) * in_pitch + 64
    v = TILES.room(a * a * v_step)
    window = BYTES + a * a * in_pitch
    _transform_inputs.launch(
        transform=transform, a=a, x=x, height=height, width=width, ins=ins, down=down, across=across, top=padding[0],
        left=padding[1], tiles=tiles, v=v, v_step=v_step, slab=SLABS.room(threads() * window),
        slab_size=window,
    )  # fmt: skip
    depth_block = 64
    m_step = (tiles + TILE_ROWS) * TILE_COLUMNS * 4 + 64
    slab = a * a * (depth_block * TILE_COLUMNS * 4 + 64 + m_step) + filter_room(a, r)
    slab = -(-slab // 64) * 64
    a_rows, c_rows = offsets(TILE_ROWS, in_pitch), offsets(TILE_ROWS, TILE_COLUMNS * 4)
    _convolve_panels.launch(
        transform=transform, a=a, r=r, w=filters, turned=int(turned), v=v, v_step=v_step, y=out, bias=bias,
        relu=int(relu), tiles=tiles, ins=ins, out_height=out_height, out_width=out_width, outs=outs,
        panels=-(-outs // TILE_COLUMNS), depth_block=depth_block, a_rows=a_rows, c_rows=c_rows, m_step=m_step,
        slab=SLABS.room(threads() * slab), slab_size=slab,
    )  # fmt: skip
