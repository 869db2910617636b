"""Squares of vectors: M X M^T for a fixed matrix, products with rows, and transposition."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.llvm import FLOAT, INT32, INT64, VECTOR, broadcast, constant, multiply_add, pointer


def _mates(matrix):
    """{row: (its mate, e, o, scale)} for two rows that are e + scale o and e - scale o, e and o sharing no column."""
    found = {}
    taken: set[int] = set()
    for i, row in enumerate(matrix):
        for k in range(i + 1, len(matrix)):
            even = tuple((a + b) / 2 for a, b in zip(row, matrix[k], strict=True))
            odd = tuple((a - b) / 2 for a, b in zip(row, matrix[k], strict=True))
            apart = not any(a and b for a, b in zip(even, odd, strict=True))
            if apart and any(even) and any(odd) and not taken & {i, k}:
                scale = min(abs(w) for w in odd if w)
                whole = all((w / scale).is_integer() for w in odd)  # then nothing is rounded by it
                scale = scale if whole else 1.0
                found[i] = (k, even, tuple(w / scale for w in odd), scale)
                taken |= {i, k}
    return found


def transform(matrix, cut=False):
    """The intrinsic (source, row, column, target, target_row, target_column) that stores M X M^T.

    X is a square of vectors, its rows `row` and its columns `column` bytes apart; the result likewise. The matrix is a
    tuple of rows. With `cut` it takes (..., inside, zeros) too: row i of X is there where bit i of `inside` is set,
    column j where bit j + 8 is; what is not there is read from `zeros`, the address of a vector of them.
    """
    outs, ins = len(matrix), len(matrix[0])

    def combine(builder, weights, vectors):
        """The weighted sum, zeros left out and ones not multiplied by."""
        terms = sorted(((w, v) for w, v in zip(weights, vectors, strict=True) if w), key=lambda t: abs(t[0]) != 1)
        (weight, result), *rest = terms
        if weight != 1:
            result = builder.fmul(constant(weight), result) if weight != -1 else builder.fneg(result)
        for weight, vector in rest:
            if weight == 1:
                result = builder.fadd(result, vector)
            elif weight == -1:
                result = builder.fsub(result, vector)
            else:
                result = multiply_add(builder, constant(weight), vector, result)
        return result

    mates = _mates(matrix)

    def product(builder, vectors):
        """The matrix times a line. Rows that are e + o and e - o, as those of points p and -p are, share e and o."""
        results = [None] * outs
        for i, weights in enumerate(matrix):
            if results[i] is not None:
                continue
            if i not in mates:
                results[i] = combine(builder, weights, vectors)
                continue
            mate, even, odd, scale = mates[i]
            e, o = combine(builder, even, vectors), combine(builder, odd, vectors)
            if scale == 1:
                results[i], results[mate] = builder.fadd(e, o), builder.fsub(e, o)
            else:
                results[i] = multiply_add(builder, constant(scale), o, e)
                results[mate] = multiply_add(builder, constant(-scale), o, e)
        return results

    def generate(context, builder, signature, values):
        source, row, column, target, target_row, target_column, *rest = values
        inside, zeros = rest or (None, None)

        def at(base, i, down, j, right):
            return builder.add(base, builder.add(builder.mul(down, INT64(i)), builder.mul(right, INT64(j))))

        def bit(number):
            return builder.trunc(builder.lshr(inside, INT64(number)), ir.IntType(1))

        def where(i, j):
            there = at(source, i, row, j, column)
            return builder.select(builder.and_(bit(i), bit(j + 8)), there, zeros) if cut else there

        halves = []
        for j in range(ins):
            line = [builder.load(pointer(builder, where(i, j), VECTOR), align=4) for i in range(ins)]
            halves.append(product(builder, line))
        for i in range(outs):
            line = [halves[j][i] for j in range(ins)]
            for j, value in enumerate(product(builder, line)):
                builder.store(
                    value,
                    pointer(builder, at(target, i, target_row, j, target_column), VECTOR),
                    align=4,
                )
        return context.get_dummy_value()

    @intrinsic
    def apply(typingctx, source, row, column, target, target_row, target_column):
        return types.void(*[types.intp] * 6), generate

    @intrinsic
    def apply_cut(typingctx, source, row, column, target, target_row, target_column, inside, zeros):
        return types.void(*[types.intp] * 8), generate

    return apply_cut if cut else apply


STEADY = LANES == 16
"""Whether the registers hold a square of LANES x LANES and have room to work: AVX-512 has twice as many as others."""


@intrinsic
def multiply_by_square(typingctx, rows, square, target, pitch, count):
    """Store `count` rows of LANES floats times a square, held in registers meanwhile; rows are `pitch` bytes apart."""

    def generate(context, builder, signature, values):
        rows, square, target, pitch, count = values

        def vector(base, i):
            return pointer(builder, builder.add(base, INT64(4 * LANES * i)), VECTOR)

        held = [builder.load(vector(square, i), align=4) for i in range(LANES)]
        with cgutils.for_range(builder, count) as loop:
            at = builder.mul(loop.index, pitch)
            row = builder.add(rows, at)
            sums = [constant(0.0)] * 2  # two chains: each waits for itself
            for i in range(LANES):
                number = builder.load(pointer(builder, builder.add(row, INT64(4 * i)), FLOAT), align=4)
                sums[i % 2] = multiply_add(builder, broadcast(builder, number), held[i], sums[i % 2])
            builder.store(builder.fadd(*sums), vector(builder.add(target, at), 0), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@intrinsic
def transpose_square(typingctx, source, source_pitch, target, target_pitch):
    """Store a square of LANES x LANES floats transposed; its rows are `source_pitch` and `target_pitch` bytes apart."""

    def generate(context, builder, signature, values):
        source, source_pitch, target, target_pitch = values
        rows = [
            builder.load(pointer(builder, builder.add(source, builder.mul(source_pitch, INT64(i))), VECTOR), align=4)
            for i in range(LANES)
        ]
        # Eklundh: exchange the off-diagonal quarters of blocks of 2, 4, 8, ... rows and columns
        half = 1
        while half < LANES:
            first = [lane + LANES - half if lane & half else lane for lane in range(LANES)]
            second = [lane + LANES if lane & half else lane + half for lane in range(LANES)]
            masks = [ir.Constant(ir.VectorType(INT32, LANES), mask) for mask in (first, second)]
            for i in range(LANES):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    rows[i], rows[i + half] = (builder.shuffle_vector(a, b, mask) for mask in masks)
            half *= 2
        for i in range(LANES):
            to = builder.add(target, builder.mul(target_pitch, INT64(i)))
            builder.store(rows[i], pointer(builder, to, VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate
