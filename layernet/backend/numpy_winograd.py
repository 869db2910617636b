"""Convolution by Winograd's minimal filtering, as numpy and BLAS do it fast: everything is a matrix product.

A square of m x m outputs of a filter of r x r taps is A^T [(G g G^T) * (B^T d B)] A, d being the a x a pixels below it,
a = m + r - 1 (Lavin and Gray 2016, arXiv:1509.09308; the matrices are from cook_toom.py): a^2 multiplications where the
definition takes m^2 r^2. With squares flattened, rows and columns are one product with a Kronecker square,
(B^T x B^T) d; summed over channels, the middle is one matrix product at each of the a^2 places.

y is linear in g and in d, so the gradients are the same three products, transposed: dx is the convolution of dy with
the filters turned by half a turn, and dg = (G x G)^T sum over tiles of [(A x A) dy] * [(B^T x B^T) d].

It rounds five to ten times as coarsely as the definition: see docs/decisions/0035-numpy-kernels.md.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.cook_toom import matrices
from layernet.backend.numpy_strips import Canvas, Strip, copy_squares, strips
from layernet.backend.numpy_threads import LEAST_PRODUCT, slices, workers
from layernet.backend.window import Pair, Window

M = 4
"""Outputs along the side of a tile."""

_UNIT_BYTES = 1 << 20  # pixels that are transformed at a time: in between, threads wait for Python's lock
_BLOCK_BYTES = 1 << 22  # transforms that a product takes: fewer, and BLAS packs the filters too often


class Transforms(NamedTuple):
    """Kronecker squares: of pixels (a^2, a^2), of filters (a^2, r^2), of outputs (m^2, a^2)."""

    side: int
    pixels: Array
    filters: Array
    outputs: Array


@cache
def transforms(taps: int) -> Transforms:
    """F(4 x 4, taps x taps) in float32, which holds the entries of `pixels` and `outputs` exactly."""
    of = matrices(M, taps)
    squares = (np.kron(matrix, matrix).astype(np.float32) for matrix in (of.pixels, of.filters, of.outputs))
    return Transforms(len(of.pixels), *squares)


def suits(window: Window, x: Shape, filters: int) -> bool:
    """Whether it is faster than the definition: a matter of shapes.

    Transforms cost as much for each channel, products save for each pair of channels; and where filters outnumber
    tiles, it is their transform that costs.
    """
    if window.kernel not in ((3, 3), (5, 5)) or window.stride != (1, 1) or window.dilation != (1, 1):
        return False
    rows, columns = _tiles(window.out_size((x[1], x[2])))
    few, many = sorted((x[3], filters))
    return few * math.prod(window.kernel) >= 256 and 16 * x[0] * rows * columns >= many


def convolve(x: Array, weight: Array, bias: Array | None, window: Window, *, relu: bool, turned: bool = False) -> Array:
    """y (N, height, width, out) for x (N, H, W, C) and weight (out, r, r, C).

    With `turned` for x (N, H, W, out), and y has C channels: the filters turned by half a turn, in and out exchanged.
    """
    t = transforms(window.kernel[0])
    filters = _filters(weight, t, turned)
    ins, outs = filters.shape[1:]
    y = np.empty((len(x), *window.out_size(x.shape[1:3]), outs), dtype=x.dtype)
    row_bias = None if bias is None else np.tile(bias, M * M)
    work = _Work(x, window, t, outs)

    def task(part: slice) -> None:
        pixels, products = work.room(ins), work.room(outs)
        corners = np.empty((work.unit, M * M, outs), dtype=x.dtype)
        source = _Source(x, work, t.side, (window.padding[0][0], window.padding[1][0]))
        for block in work.blocks[part]:
            tiles = work.transform(block, source, t.pixels, pixels)
            by_place = products[:tiles].transpose(1, 0, 2)
            np.matmul(pixels[:tiles].transpose(1, 0, 2), filters, out=by_place)
            first = 0
            for strip in block:
                last = first + work.tiles(strip)
                out = np.matmul(t.outputs, products[first:last], out=corners[: last - first])
                flat = out.reshape(len(out), -1)
                if row_bias is not None:
                    flat += row_bias
                if relu:
                    np.maximum(flat, 0, out=flat)
                work.lay(out, strip, y)
                first = last

    workers.split(len(work.blocks), work.shares, task)
    return y


def filter_gradient(dy: Array, x: Array, shape: Shape, window: Window) -> Array:
    """dw (out, r, r, C) for dy (N, height, width, out) and x (N, H, W, C)."""
    t = transforms(window.kernel[0])
    outs, ins = shape[0], shape[3]
    work = _Work(x, window, t, outs, 8 * t.side**2 * ins * outs)
    spread = np.ascontiguousarray(t.outputs.T)

    def task(part: slice) -> Array:
        pixels, changes = work.room(ins), work.room(outs)
        total = more = np.zeros((t.side**2, outs, ins), dtype=x.dtype)
        below = _Source(x, work, t.side, (window.padding[0][0], window.padding[1][0]))
        above = _Source(dy, work, M, (0, 0))
        for i, block in enumerate(work.blocks[part]):
            tiles = work.transform(block, below, t.pixels, pixels)
            work.transform(block, above, spread, changes)
            left, right = changes[:tiles].transpose(1, 2, 0), pixels[:tiles].transpose(1, 0, 2)
            if i == 0:
                np.matmul(left, right, out=total)
                continue
            more = np.matmul(left, right, out=None if i == 1 else more)
            total += more
        return total

    return _gathered(workers.split(len(work.blocks), work.shares, task), t, shape)


class _Work:
    """How a convolution is cut: units that are transformed at once, blocks of units whose products are one."""

    def __init__(self, x: Array, window: Window, t: Transforms, outs: int, block_bytes: int = 0) -> None:
        self.places, ins = t.side**2, x.shape[3]
        self.size = window.out_size(x.shape[1:3])
        self.rows, self.columns = _tiles(self.size)
        tile = 4 * self.places * max(ins, outs)
        count = len(x) * self.rows * self.columns
        self.shares = workers.shares(count * self.places * (ins * outs + 36 * ins), LEAST_PRODUCT)
        units = strips(len(x), self.rows, self.columns * tile, _UNIT_BYTES, self.shares)
        self.unit = max((self.tiles(strip) for strip in units), default=0)
        together = max(block_bytes, _BLOCK_BYTES) // max(1, 2 * self.unit * tile)
        self.blocks = [units[part] for part in slices(len(units), together, self.shares)]
        self.most = max((sum(map(self.tiles, block)) for block in self.blocks), default=0)

    def tiles(self, strip: Strip) -> int:
        """How many tiles a strip of rows of tiles has."""
        return math.prod(strip.shape) * self.columns

    def room(self, channels: int) -> Array:
        """For the transforms of a block: (tiles, a^2, channels)."""
        return np.empty((self.most, self.places, channels), dtype=np.float32)

    def transform(self, block: list[Strip], source: _Source, matrix: Array, out: Array) -> int:
        """The transforms of all squares below the tiles of a block, and how many they are."""
        first = 0
        for strip in block:
            last = first + self.tiles(strip)
            np.matmul(matrix, source.squares(strip), out=out[first:last])
            first = last
        return first

    def lay(self, tiles: Array, strip: Strip, y: Array) -> None:
        """Put (tiles, m^2, C) in their places in y; what sticks out at its end is left out."""
        count, rows = strip.shape
        shape = (count, rows, M, self.columns, M, tiles.shape[2])
        turned = tiles.reshape(count, rows, self.columns, M, M, -1).transpose(0, 1, 3, 2, 4, 5)
        target = y[strip.images, strip.rows.start * M : strip.rows.stop * M]
        if target.shape[1:3] == (rows * M, self.columns * M):
            target.reshape(shape)[...] = turned
        else:
            whole = turned.reshape(count, rows * M, self.columns * M, -1)
            target[...] = whole[:, : target.shape[1], : target.shape[2]]


class _Source:
    """Squares of an image, one below each tile."""

    def __init__(self, image: Array, work: _Work, side: int, corner: Pair) -> None:
        self.image, self.work, self.side, self.corner = image, work, side, corner
        images, rows = (max(strip.shape[axis] for block in work.blocks for strip in block) for axis in (0, 1))
        beyond = side - M
        self.canvas = Canvas(images, rows * M + beyond, work.columns * M + beyond, image)
        self.room = np.empty((work.unit, side * side, image.shape[3]), dtype=image.dtype)

    def squares(self, strip: Strip) -> Array:
        """(tiles, side^2, C) of a strip; the next overwrites them."""
        count, rows = strip.shape
        top = strip.rows.start * M - self.corner[0]
        image = self.canvas.paint(self.image, strip.images, top, self.corner[1], rows * M + self.side - M)
        room = self.room[: count * rows * self.work.columns]
        copy_squares(image, (self.side, self.side), (M, M), (1, 1), (rows, self.work.columns), room)
        return room


def _tiles(size: Pair) -> Pair:
    return -(-size[0] // M), -(-size[1] // M)


def _filters(weight: Array, t: Transforms, turned: bool) -> Array:
    """(a^2, channels of the input, channels of the output)"""
    outs, r, _, ins = weight.shape
    rows = weight.reshape(outs, r * r, ins)
    taps = rows.transpose(1, 0, 2)[::-1] if turned else rows.transpose(1, 2, 0)
    found = np.empty((t.side**2, *taps.shape[1:]), dtype=weight.dtype)

    def task(part: slice) -> None:
        flat = np.ascontiguousarray(taps[:, part]).reshape(r * r, -1)
        np.matmul(t.filters, flat, out=found[:, part].reshape(len(found), -1))

    workers.split(taps.shape[1], workers.shares(found.size * r * r, LEAST_PRODUCT), task)
    return found


def _gathered(parts: list[Array], t: Transforms, shape: Shape) -> Array:
    """dw from the sums (a^2, out, C) of each share."""
    dw = np.empty(shape, dtype=parts[0].dtype)
    outs, r, _, ins = shape
    back = np.ascontiguousarray(t.filters.T)

    def task(part: slice) -> None:
        whole = parts[0][:, part]
        for other in parts[1:]:
            whole += other[:, part]
        taps = back @ whole.reshape(len(whole), -1)
        dw[part].reshape(-1, r * r, ins)[...] = taps.reshape(r * r, -1, ins).transpose(1, 0, 2)

    workers.split(outs, workers.shares(parts[0].size * r * r, LEAST_PRODUCT), task)
    return dw
