"""The gradient of the filters by minimal filtering: dw = G^T [sum over tiles (A dy A^T) * (B^T x B)] G."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.crosswise import multiply_crosswise
from layernet.backend.compiled.direct_gradient import add_parts
from layernet.backend.compiled.filtering import (
    GATHER,
    INPUT,
    NEAR,
    SIDE,
    SPREAD,
    TRANSFORMS,
    place,
    prefetch_tiles,
    spread_window,
)
from layernet.backend.compiled.lanes import BYTES, LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, run_routine, split, threads
from layernet.backend.compiled.product import offsets
from layernet.backend.compiled.scratch import FREQUENCIES, SLABS, TILES
from layernet.backend.compiled.tile import TILE_COLUMNS, TILE_ROWS, tile
from layernet.backend.compiled.vectors import load, splat, store, store_first
from layernet.backend.compiled.winograd import BLOCK_ROWS

OWN_BYTES = 450_000
"""Up to so many bytes of dU, every task has its own; and so much a block of its transformed tiles takes."""

CHUNK_BYTES = 8 << 20
"""What a chunk of transformed tiles takes for the gradient of the filters: it should stay in the level-3 cache."""

FEW_TILES = 96
"""Up to so many tiles in all, a dU that would not fit the cache is never made: dw is found square by square."""


@Kernel
def _transform_both(
    task, tasks, transform, a, x, dy, height, width, ins, out_height, out_width, outs, top, left, begin, count, v,
    v_step, z, z_step, slab, slab_size,
):  # fmt: skip
    """V = B^T x B and Z = A dy A^T for a share of a chunk of tiles."""
    in_pitch, out_pitch = vectors_of(ins) * BYTES, vectors_of(outs) * BYTES
    spare = slab + task * slab_size
    store(spare, splat(np.float32(0)))
    down, across = (out_height + SIDE - 1) // SIDE, (out_width + SIDE - 1) // SIDE
    first, last = split(count, task, tasks)
    for t in range(first, last):
        ahead = begin + t + NEAR
        after = min(ahead + 1, begin + last)
        prefetch_tiles(x, ahead, after, down, across, height, width, ins, a - SIDE - top, False)
        prefetch_tiles(dy, ahead, after, down, across, out_height, out_width, outs, 0, False)
        n, i, j = place(begin + t, down, across, SIDE)
        image, gradient = x + n * height * width * ins * 4, dy + n * out_height * out_width * outs * 4
        spread_window(
            transform, INPUT, a, image, i - top, j - left, height, width, ins, spare, v + t * in_pitch, v_step, a
        )
        spread_window(
            transform, SPREAD, SIDE, gradient, i, j, out_height, out_width, outs, spare, z + t * out_pitch, z_step, a
        )


@Kernel
def _multiply_frequencies(
    task, tasks, frequencies, count, ins, outs, v, v_step, z, z_step, du, du_step, a_rows, c_rows, onto,
):  # fmt: skip
    """dU[f] = or += Z[f]^T V[f] for a share of the frequencies."""
    in_pitch, out_pitch = vectors_of(ins) * BYTES, vectors_of(outs) * BYTES
    start = -1 if onto else 0
    first, last = split(frequencies, task, tasks)
    for f in range(first, last):
        target = du + f * du_step
        for c in range(0, ins, TILE_COLUMNS):
            multiply_crosswise(
                z + f * z_step, 0, out_pitch, a_rows, outs, v + f * v_step + c * 4, 0, in_pitch, 1, count,
                target + c * 4, c_rows, TILE_COLUMNS, start, ins - c <= LANES,
            )  # fmt: skip


@Kernel
def _accumulate_blocks(
    task, tasks, transform, a, x, dy, height, width, ins, out_height, out_width, outs, top, left, tiles, block, du,
    du_size, du_step, a_rows, c_rows, slab, slab_size,
):  # fmt: skip
    """Per task its own dU, from blocks of tiles that stay in its level-2 cache with it."""
    in_pitch, out_pitch = vectors_of(ins) * BYTES, vectors_of(outs) * BYTES
    v_step, z_step = block * in_pitch + 64, block * out_pitch + 64
    v = slab + task * slab_size
    z = v + a * a * v_step
    spare = z + a * a * z_step
    store(spare, splat(np.float32(0)))
    own = du + task * du_size
    down, across = (out_height + SIDE - 1) // SIDE, (out_width + SIDE - 1) // SIDE
    first, last = split(tiles, task, tasks)
    if first == last:
        for c in range(0, du_size, BYTES):
            store(own + c, splat(np.float32(0)))
    for begin in range(first, last, block):
        count = min(block, last - begin)
        for t in range(count):
            if max(ins, outs) > LANES:
                ahead = begin + t + NEAR
                after = min(ahead + 1, begin + count)
                prefetch_tiles(x, ahead, after, down, across, height, width, ins, a - SIDE - top, False)
                prefetch_tiles(dy, ahead, after, down, across, out_height, out_width, outs, 0, False)
            n, i, j = place(begin + t, down, across, SIDE)
            image, gradient = x + n * height * width * ins * 4, dy + n * out_height * out_width * outs * 4
            spread_window(
                transform, INPUT, a, image, i - top, j - left, height, width, ins, spare, v + t * in_pitch, v_step, a
            )
            spread_window(
                transform,
                SPREAD,
                SIDE,
                gradient,
                i,
                j,
                out_height,
                out_width,
                outs,
                spare,
                z + t * out_pitch,
                z_step,
                a,
            )
        start = 0 if begin == first else -1
        waiting = min(block, last - begin - count)
        for f in range(a * a):
            ahead, after = split(waiting, f, a * a)
            after, ahead = begin + count + after, begin + count + ahead
            prefetch_tiles(x, ahead, after, down, across, height, width, ins, a - SIDE - top, False)
            prefetch_tiles(dy, ahead, after, down, across, out_height, out_width, outs, 0, False)
            for c in range(0, ins, TILE_COLUMNS):
                multiply_crosswise(
                    z + f * z_step, 0, out_pitch, a_rows, outs, v + f * v_step + c * 4, 0, in_pitch, 1, count,
                    own + f * du_step + c * 4, c_rows, TILE_COLUMNS, start, ins - c <= LANES,
                )  # fmt: skip


@Kernel
def _transform_back(task, tasks, transform, a, r, ins, outs, du, du_pitch, du_step, dw, slab):
    """dw = G^T dU G for a share of the filters."""
    spare = slab + task * r * r * BYTES
    first, last = split(outs, task, tasks)
    for o in range(first, last):
        for c in range(0, ins, LANES):
            run_routine(
                transform, GATHER, du + o * du_pitch + c * 4, a * du_step, du_step, spare, r * BYTES, BYTES, 1, 0, 0
            )
            for i in range(r * r):
                store_first(dw + ((o * r * r + i) * ins + c) * 4, load(spare + i * BYTES), ins - c)


@Kernel
def _multiply_and_transform_back(
    task, tasks, transform, a, r, count, ins, outs, v, v_step, z, z_step, dw, a_rows, c_rows, slab, slab_size,
):  # fmt: skip
    """dw for a share of the squares of filters and channels; with few tiles, dU need not leave the cache."""
    in_pitch, out_pitch = vectors_of(ins) * BYTES, vectors_of(outs) * BYTES
    spare = slab + task * slab_size
    square = spare + r * r * BYTES
    square_step = TILE_ROWS * TILE_COLUMNS * 4 + 64
    columns = (ins + TILE_COLUMNS - 1) // TILE_COLUMNS
    first, last = split((outs + TILE_ROWS - 1) // TILE_ROWS * columns, task, tasks)
    for block in range(first, last):
        o0, c0 = block // columns * TILE_ROWS, block % columns * TILE_COLUMNS
        for f in range(a * a):
            tile(
                z + f * z_step, a_rows + o0 * 8, 0, out_pitch, v + f * v_step + c0 * 4, 0, in_pitch, 1, count,
                square + f * square_step, c_rows, 0, TILE_COLUMNS, 0,
            )  # fmt: skip
        for o in range(o0, min(o0 + TILE_ROWS, outs)):
            for c in range(c0, min(c0 + TILE_COLUMNS, ins), LANES):
                source = square + (o - o0) * TILE_COLUMNS * 4 + (c - c0) * 4
                run_routine(transform, GATHER, source, a * square_step, square_step, spare, r * BYTES, BYTES, 1, 0, 0)
                for i in range(r * r):
                    store_first(dw + ((o * r * r + i) * ins + c) * 4, load(spare + i * BYTES), ins - c)


def filter_gradient(x: Array, dy: Array, padding: tuple[int, int], dw: Array) -> None:
    """dw (out, r, r, in) = the gradient of the filters."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = dy.shape[1:]
    r = dw.shape[1]
    a = SIDE + r - 1
    transform = TRANSFORMS[r].address
    in_pitch, out_pitch = vectors_of(ins) * BYTES, vectors_of(outs) * BYTES
    tiles = n * -(-out_height // SIDE) * -(-out_width // SIDE)
    du_pitch = -(-ins // TILE_COLUMNS) * TILE_COLUMNS * 4
    du_step = outs * du_pitch + 64
    slab = BYTES + a * a * max(in_pitch, out_pitch)
    a_rows, c_rows = offsets(outs, 4), offsets(outs, du_pitch)
    if a * a * du_step <= OWN_BYTES:
        block = max(8, min(BLOCK_ROWS, OWN_BYTES // (a * a * (in_pitch + out_pitch))))
        room = -(-(a * a * (block * (in_pitch + out_pitch) + 128) + slab) // 64) * 64
        du = FREQUENCIES.room(threads() * a * a * du_step)
        _accumulate_blocks.launch(
            transform=transform, a=a, x=x, dy=dy, height=height, width=width, ins=ins, out_height=out_height,
            out_width=out_width, outs=outs, top=padding[0], left=padding[1], tiles=tiles, block=block, du=du,
            du_size=a * a * du_step, du_step=du_step, a_rows=a_rows, c_rows=c_rows,
            slab=SLABS.room(threads() * room), slab_size=room,
        )  # fmt: skip
        add_parts.launch(parts=du, part_size=a * a * du_step, count=threads(), target=du, size=a * a * du_step // 4)
        spare = SLABS.room(threads() * slab)
        _transform_back.launch(
            transform=transform, a=a, r=r, ins=ins, outs=outs, du=du, du_pitch=du_pitch, du_step=du_step, dw=dw,
            slab=spare,
        )  # fmt: skip
        return
    chunk = min(tiles, max(FEW_TILES, CHUNK_BYTES // (a * a * (in_pitch + out_pitch))))
    chunk = -(-tiles // -(-tiles // chunk))  # of equal size
    v_step, z_step = chunk * in_pitch + 64, chunk * out_pitch + 64
    v = TILES.room(a * a * (v_step + z_step))
    z = v + a * a * v_step
    at_once = tiles <= FEW_TILES and a * a * du_step > CHUNK_BYTES
    du = 0 if at_once else FREQUENCIES.room(a * a * du_step)
    spare = SLABS.room(threads() * slab)
    for begin in range(0, tiles, chunk):
        count = min(chunk, tiles - begin)
        _transform_both.launch(
            transform=transform, a=a, x=x, dy=dy, height=height, width=width, ins=ins, out_height=out_height,
            out_width=out_width, outs=outs, top=padding[0], left=padding[1], begin=begin, count=count, v=v,
            v_step=v_step, z=z, z_step=z_step, slab=spare, slab_size=slab,
        )  # fmt: skip
        if at_once:
            room = (r * r * BYTES + a * a * (TILE_ROWS * TILE_COLUMNS * 4 + 64)) // 64 * 64 + 64
            c_rows = offsets(TILE_ROWS, TILE_COLUMNS * 4)
            _multiply_and_transform_back.launch(
                transform=transform, a=a, r=r, count=count, ins=ins, outs=outs, v=v, v_step=v_step, z=z, z_step=z_step,
                dw=dw, a_rows=a_rows, c_rows=c_rows, slab=SLABS.room(threads() * room), slab_size=room,
            )  # fmt: skip
            return
        _multiply_frequencies.launch(
            frequencies=a * a, count=count, ins=ins, outs=outs, v=v, v_step=v_step, z=z, z_step=z_step, du=du,
            du_step=du_step, a_rows=a_rows, c_rows=c_rows, onto=int(begin > 0),
        )  # fmt: skip
    _transform_back.launch(
        transform=transform, a=a, r=r, ins=ins, outs=outs, du=du, du_pitch=du_pitch, du_step=du_step, dw=dw, slab=spare,
    )  # fmt: skip
