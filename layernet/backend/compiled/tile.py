"""The register tile of a matrix product."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from layernet.backend.compiled.lanes import BYTES, LANES
from layernet.backend.compiled.llvm import (
    FLOAT,
    INT64,
    VECTOR,
    broadcast,
    constant,
    masked_load,
    masked_store,
    multiply_add,
    pointer,
)

TILE_COLUMNS = 2 * LANES
"""Columns of the register tile: of a panel of packed weights."""

TILE_ROWS = 12 if LANES == 16 else 6 if LANES == 8 else 4
"""Rows of the register tile: as many as leave registers for the other operands."""

PACKED_ROWS = 13 if LANES == 16 else TILE_ROWS
"""Rows of the tile that needs but one address for them: five make up 65, hardly more than 64 channels."""

NARROW_ROWS = 12
"""Rows of the narrow tile: enough sums at a time to hide how long each takes, few enough for their addresses."""


def _tile(rows: int, vectors: int, side_by_side: bool = False):
    """The intrinsic for a register tile of `rows` rows and `vectors` vectors of columns.

    With `side_by_side`, A's rows are neighbouring floats, and `a_rows` is not read.
    """

    @intrinsic
    def tile(
        typingctx, a, a_rows, a_outer, a_inner, b, b_outer, b_inner, outer, inner, c, c_rows, start, columns, relu
    ):
        def generate(context, builder, signature, values):
            a, a_rows, a_outer, a_inner, b, b_outer, b_inner, outer, inner, c, c_rows, start, columns, relu = values

            def table(base, rows_at):
                return [
                    builder.add(base, builder.load(pointer(builder, builder.add(rows_at, INT64(8 * i)), INT64)))
                    for i in range(rows)
                ]

            targets = table(c, c_rows)
            sources = [builder.add(a, INT64(4 * i)) for i in range(rows)] if side_by_side else table(a, a_rows)
            # what the sums start from: 0 for start = 0, C itself for start = -1, else the vector at that address
            zero = constant(0.0)
            before = builder.block
            loads, biased, outer_loop = (builder.append_basic_block(n) for n in ("onto", "biased", "outer"))
            choose = builder.append_basic_block("choose")
            builder.cbranch(builder.icmp_signed("==", start, INT64(0)), outer_loop, choose)
            builder.position_at_end(choose)
            builder.cbranch(builder.icmp_signed("==", start, INT64(-1)), loads, biased)

            def at(base, v):
                return builder.add(base, INT64(BYTES * v))

            def left(v):
                return builder.sub(columns, INT64(LANES * v))

            builder.position_at_end(loads)
            onto = [[masked_load(builder, at(targets[i], v), left(v)) for v in range(vectors)] for i in range(rows)]
            builder.branch(outer_loop)
            builder.position_at_end(biased)
            bias = [masked_load(builder, at(start, v), left(v)) for v in range(vectors)]
            builder.branch(outer_loop)

            builder.position_at_end(outer_loop)
            i1 = builder.phi(INT64)
            a1, b1 = builder.phi(INT64), builder.phi(INT64)
            sums1 = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(rows)]
            for block in (before, loads, biased):
                i1.add_incoming(INT64(0), block)
                a1.add_incoming(INT64(0), block)
                b1.add_incoming(b, block)
            for i in range(rows):
                for v in range(vectors):
                    sums1[i][v].add_incoming(zero, before)
                    sums1[i][v].add_incoming(onto[i][v], loads)
                    sums1[i][v].add_incoming(bias[v], biased)
            inner_loop = builder.append_basic_block("inner")
            builder.branch(inner_loop)

            builder.position_at_end(inner_loop)
            i2 = builder.phi(INT64)
            a2, b2 = builder.phi(INT64), builder.phi(INT64)
            sums = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(rows)]
            right = [builder.load(pointer(builder, at(b2, v), VECTOR), align=4) for v in range(vectors)]
            new = [[None] * vectors for _ in range(rows)]
            for i in range(rows):
                factor = broadcast(builder, builder.load(pointer(builder, builder.add(sources[i], a2), FLOAT), align=4))
                for v in range(vectors):
                    new[i][v] = multiply_add(builder, factor, right[v], sums[i][v])
            next2 = builder.add(i2, INT64(1))
            for phi, first, then in (
                (i2, INT64(0), next2),
                (a2, a1, builder.add(a2, a_inner)),
                (b2, b1, builder.add(b2, b_inner)),
            ):
                phi.add_incoming(first, outer_loop)
                phi.add_incoming(then, inner_loop)
            for i in range(rows):
                for v in range(vectors):
                    sums[i][v].add_incoming(sums1[i][v], outer_loop)
                    sums[i][v].add_incoming(new[i][v], inner_loop)
            after_inner = builder.append_basic_block("after_inner")
            builder.cbranch(builder.icmp_signed("<", next2, inner), inner_loop, after_inner)

            builder.position_at_end(after_inner)
            next1 = builder.add(i1, INT64(1))
            i1.add_incoming(next1, after_inner)
            a1.add_incoming(builder.add(a1, a_outer), after_inner)
            b1.add_incoming(builder.add(b1, b_outer), after_inner)
            for i in range(rows):
                for v in range(vectors):
                    sums1[i][v].add_incoming(new[i][v], after_inner)
            done = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed("<", next1, outer), outer_loop, done)

            builder.position_at_end(done)
            positive = builder.icmp_signed("!=", relu, INT64(0))
            floor = builder.select(positive, zero, constant(float("-inf")))
            result = [
                [builder.select(builder.fcmp_ordered("<", new[i][v], floor), floor, new[i][v]) for v in range(vectors)]
                for i in range(rows)
            ]
            whole = builder.icmp_signed(">=", columns, INT64(LANES * vectors))
            with builder.if_else(whole, likely=True) as (full, part):
                with full:
                    for i in range(rows):
                        for v in range(vectors):
                            builder.store(result[i][v], pointer(builder, at(targets[i], v), VECTOR), align=4)
                with part:
                    for i in range(rows):
                        for v in range(vectors):
                            masked_store(builder, at(targets[i], v), result[i][v], left(v))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 14), generate

    return tile


tile = _tile(TILE_ROWS, 2)
"""tile(a, a_rows, a_outer, a_inner, b, b_outer, b_inner, outer, inner, c, c_rows, start, columns, relu)

C[i, :] = start[i, :] + sum over p < outer, q < inner of A[i, p, q] B[p, q, :] for i < TILE_ROWS, TILE_COLUMNS wide, of
which the first `columns` are stored. A's row i begins at a + a_rows[i], C's at c + c_rows[i] (tables of int64). All
strides are bytes. `start` is 0, -1 for what C holds, or the address of a row of biases; `relu` not 0 stores max(C, 0).
"""

packed_tile = _tile(PACKED_ROWS, 2, side_by_side=True)
"""The same with A's rows side by side in memory, as channels are: one address does for all of them."""

packed_narrow_tile = _tile(LANES, 1, side_by_side=True)
"""The same with LANES rows and half the columns."""

narrow_tile = _tile(NARROW_ROWS, 1)
"""The same with NARROW_ROWS rows and half the columns: for weights of few output channels."""
