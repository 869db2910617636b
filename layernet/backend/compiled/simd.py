"""What the compiled kernels are written in: addresses, vectors of floats, and the register tile of a matrix product.

numba compiles loops, but does not speak of vector registers. Here is a type `Vec` of `LANES` floats with its loads,
stores and arithmetic, so that a kernel says which numbers stand side by side instead of hoping that a compiler finds
out. Every operation is one of LLVM's, which lowers it to the processor's own: nothing here is of one instruction set.

Addresses are plain integers, counted in bytes. A kernel's arguments come as an array of them.
"""

from __future__ import annotations

import operator
import os

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from layernet.errors import DeviceError


def _widest() -> int:
    """How many floats a vector register of this processor holds. LAYERNET_LANES sets it, as tests do."""
    if forced := os.environ.get("LAYERNET_LANES"):
        if forced not in ("4", "8", "16"):
            raise DeviceError(f"LAYERNET_LANES must be 4, 8 or 16, got {forced!r}", "leave it out for the widest")
        return int(forced)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") and features.get("fma") else 4


LANES = _widest()
"""Floats in a vector: 16 with AVX-512, 8 with AVX2 and FMA, otherwise 4, which every processor has some form of."""

BYTES = 4 * LANES
"""Bytes in a vector."""

TILE_COLUMNS = 2 * LANES
"""Columns of the register tile: of a panel of packed weights."""

TILE_ROWS = 12 if LANES == 16 else 6 if LANES == 8 else 4
"""Rows of the register tile: as many as leave registers for the other operands."""

PACKED_ROWS = 13 if LANES == 16 else TILE_ROWS
"""Rows of the tile that needs but one address for them: five make up 65, hardly more than 64 channels."""

NARROW_ROWS = 12
"""Rows of the narrow tile: enough sums at a time to hide how long each takes, few enough for their addresses."""

_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


class VecType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Vec{LANES}")


vec = VecType()


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _pointer(builder, address, to):
    return builder.inttoptr(address, to.as_pointer())


def _call(builder, name, returns, arguments):
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(returns, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


def _fma(builder, a, b, c):
    return _call(builder, f"llvm.fma.v{LANES}f32", _VECTOR, [a, b, c])


def _constant(value: float):
    return ir.Constant(_VECTOR, [value] * LANES)


def _splat(builder, number):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _INT32(0))
    return builder.shuffle_vector(
        one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    )


def _first(builder, count):
    """The mask of the first `count` lanes."""
    lanes = ir.Constant(ir.VectorType(_INT64, LANES), list(range(LANES)))
    limit = builder.insert_element(ir.Constant(lanes.type, ir.Undefined), count, _INT32(0))
    limit = builder.shuffle_vector(
        limit, ir.Constant(lanes.type, ir.Undefined), ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    )
    return builder.icmp_signed("<", lanes, limit)


def _masked_load(builder, address, count):
    pointer = _pointer(builder, address, _VECTOR)
    return _call(
        builder,
        f"llvm.masked.load.v{LANES}f32.p0",
        _VECTOR,
        [pointer, _INT32(4), _first(builder, count), _constant(0.0)],
    )


def _masked_store(builder, address, value, count):
    pointer = _pointer(builder, address, _VECTOR)
    _call(
        builder,
        f"llvm.masked.store.v{LANES}f32.p0",
        ir.VoidType(),
        [value, pointer, _INT32(4), _first(builder, count)],
    )


def _operation(returns, *takes):
    """An intrinsic of these types from a function (builder, *values) -> value that emits it."""

    def make(emit):
        def typed(typingctx, *arguments):
            def generate(context, builder, signature, values):
                result = emit(builder, *values)
                return context.get_dummy_value() if result is None else result

            return returns(*takes), generate

        names = ", ".join(f"a{i}" for i in range(len(takes)))
        scope = {"typed": typed}
        exec(f"def {emit.__name__}(typingctx, {names}): return typed(typingctx, {names})", scope)
        return intrinsic(scope[emit.__name__])

    return make


@_operation(vec, types.intp)
def load(builder, address):
    """The vector at an address; of any alignment."""
    return builder.load(_pointer(builder, address, _VECTOR), align=4)


@_operation(vec, types.intp, types.intp)
def load_first(builder, address, count):
    """The first `count` floats at an address, then zeros; reads no further."""
    # a load by mask is not prefetched from memory: measured at 10 M numbers, passes take 2.5 times as long
    with builder.if_else(builder.icmp_signed(">=", count, _INT64(LANES)), likely=True) as (whole, part):
        with whole:
            full = builder.load(_pointer(builder, address, _VECTOR), align=4)
            full_block = builder.block
        with part:
            some = _masked_load(builder, address, count)
            some_block = builder.block
    result = builder.phi(_VECTOR)
    result.add_incoming(full, full_block)
    result.add_incoming(some, some_block)
    return result


@_operation(types.void, types.intp, vec)
def store(builder, address, value):
    builder.store(value, _pointer(builder, address, _VECTOR), align=4)


@_operation(types.void, types.intp, vec, types.intp)
def store_first(builder, address, value, count):
    """Store the first `count` floats."""
    with builder.if_else(builder.icmp_signed(">=", count, _INT64(LANES)), likely=True) as (whole, part):
        with whole:
            builder.store(value, _pointer(builder, address, _VECTOR), align=4)
        with part:
            _masked_store(builder, address, value, count)


@_operation(types.float32, types.intp)
def load_float(builder, address):
    return builder.load(_pointer(builder, address, _FLOAT), align=4)


@_operation(types.void, types.intp, types.float32)
def store_float(builder, address, value):
    builder.store(value, _pointer(builder, address, _FLOAT), align=4)


@_operation(types.intp, types.intp)
def load_int(builder, address):
    return builder.load(_pointer(builder, address, _INT64), align=8)


@_operation(vec, types.float32)
def splat(builder, number):
    """The number in every lane."""
    return _splat(builder, number)


@_operation(vec, vec, vec, vec)
def fma(builder, a, b, c):
    """a b + c, rounded once."""
    return _fma(builder, a, b, c)


@_operation(vec, vec, vec)
def greater(builder, a, b):
    """1 where a > b, else 0."""
    return builder.select(builder.fcmp_ordered(">", a, b), _constant(1.0), _constant(0.0))


@_operation(vec, vec, vec)
def maximum(builder, a, b):
    """The larger; NaN where a is NaN."""
    return builder.select(builder.fcmp_ordered(">=", b, a), b, a)


@_operation(vec, vec, vec, vec)
def where_positive(builder, condition, a, b):
    """a where the condition is above 0, else b."""
    return builder.select(builder.fcmp_ordered(">", condition, _constant(0.0)), a, b)


@_operation(vec, vec, vec, vec, vec)
def where_greater(builder, left, right, a, b):
    """a where left > right, else b."""
    return builder.select(builder.fcmp_ordered(">", left, right), a, b)


@_operation(vec, vec)
def square_root(builder, a):
    return _call(builder, f"llvm.sqrt.v{LANES}f32", _VECTOR, [a])


@_operation(types.float32, vec)
def total(builder, a):
    """The sum over the lanes, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        half = ir.Constant(ir.VectorType(_INT32, width), list(range(width)))
        other = ir.Constant(ir.VectorType(_INT32, width), list(range(width, 2 * width)))
        nothing = ir.Constant(a.type, ir.Undefined)
        a = builder.fadd(builder.shuffle_vector(a, nothing, half), builder.shuffle_vector(a, nothing, other))
    return builder.extract_element(a, _INT32(0))


def _arithmetic(symbol, emit):
    operation = _operation(vec, vec, vec)(emit)

    @overload(symbol)
    def implementation(a, b):
        if isinstance(a, VecType) and isinstance(b, VecType):
            return lambda a, b: operation(a, b)
        return None


def _add(builder, a, b):
    return builder.fadd(a, b)


def _sub(builder, a, b):
    return builder.fsub(a, b)


def _mul(builder, a, b):
    return builder.fmul(a, b)


def _div(builder, a, b):
    return builder.fdiv(a, b)


_arithmetic(operator.add, _add)
_arithmetic(operator.sub, _sub)
_arithmetic(operator.mul, _mul)
_arithmetic(operator.truediv, _div)


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
                    builder.add(base, builder.load(_pointer(builder, builder.add(rows_at, _INT64(8 * i)), _INT64)))
                    for i in range(rows)
                ]

            targets = table(c, c_rows)
            sources = [builder.add(a, _INT64(4 * i)) for i in range(rows)] if side_by_side else table(a, a_rows)
            # what the sums start from: 0 for start = 0, C itself for start = -1, else the vector at that address
            zero = _constant(0.0)
            before = builder.block
            loads, biased, outer_loop = (builder.append_basic_block(n) for n in ("onto", "biased", "outer"))
            choose = builder.append_basic_block("choose")
            builder.cbranch(builder.icmp_signed("==", start, _INT64(0)), outer_loop, choose)
            builder.position_at_end(choose)
            builder.cbranch(builder.icmp_signed("==", start, _INT64(-1)), loads, biased)

            def at(base, v):
                return builder.add(base, _INT64(BYTES * v))

            def left(v):
                return builder.sub(columns, _INT64(LANES * v))

            builder.position_at_end(loads)
            onto = [[_masked_load(builder, at(targets[i], v), left(v)) for v in range(vectors)] for i in range(rows)]
            builder.branch(outer_loop)
            builder.position_at_end(biased)
            bias = [_masked_load(builder, at(start, v), left(v)) for v in range(vectors)]
            builder.branch(outer_loop)

            builder.position_at_end(outer_loop)
            i1 = builder.phi(_INT64)
            a1, b1 = builder.phi(_INT64), builder.phi(_INT64)
            sums1 = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in range(rows)]
            for block in (before, loads, biased):
                i1.add_incoming(_INT64(0), block)
                a1.add_incoming(_INT64(0), block)
                b1.add_incoming(b, block)
            for i in range(rows):
                for v in range(vectors):
                    sums1[i][v].add_incoming(zero, before)
                    sums1[i][v].add_incoming(onto[i][v], loads)
                    sums1[i][v].add_incoming(bias[v], biased)
            inner_loop = builder.append_basic_block("inner")
            builder.branch(inner_loop)

            builder.position_at_end(inner_loop)
            i2 = builder.phi(_INT64)
            a2, b2 = builder.phi(_INT64), builder.phi(_INT64)
            sums = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in range(rows)]
            right = [builder.load(_pointer(builder, at(b2, v), _VECTOR), align=4) for v in range(vectors)]
            new = [[None] * vectors for _ in range(rows)]
            for i in range(rows):
                factor = _splat(builder, builder.load(_pointer(builder, builder.add(sources[i], a2), _FLOAT), align=4))
                for v in range(vectors):
                    new[i][v] = _fma(builder, factor, right[v], sums[i][v])
            next2 = builder.add(i2, _INT64(1))
            for phi, first, then in (
                (i2, _INT64(0), next2),
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
            next1 = builder.add(i1, _INT64(1))
            i1.add_incoming(next1, after_inner)
            a1.add_incoming(builder.add(a1, a_outer), after_inner)
            b1.add_incoming(builder.add(b1, b_outer), after_inner)
            for i in range(rows):
                for v in range(vectors):
                    sums1[i][v].add_incoming(new[i][v], after_inner)
            done = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed("<", next1, outer), outer_loop, done)

            builder.position_at_end(done)
            positive = builder.icmp_signed("!=", relu, _INT64(0))
            floor = builder.select(positive, zero, _constant(float("-inf")))
            result = [
                [builder.select(builder.fcmp_ordered("<", new[i][v], floor), floor, new[i][v]) for v in range(vectors)]
                for i in range(rows)
            ]
            whole = builder.icmp_signed(">=", columns, _INT64(LANES * vectors))
            with builder.if_else(whole, likely=True) as (full, part):
                with full:
                    for i in range(rows):
                        for v in range(vectors):
                            builder.store(result[i][v], _pointer(builder, at(targets[i], v), _VECTOR), align=4)
                with part:
                    for i in range(rows):
                        for v in range(vectors):
                            _masked_store(builder, at(targets[i], v), result[i][v], left(v))
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


@intrinsic
def run(typingctx, routine, a0, a1, a2, a3, a4, a5, a6, a7, a8, a9):
    """Call a routine of ten integers by its address."""

    def generate(context, builder, signature, values):
        function = ir.FunctionType(ir.VoidType(), [_INT64] * 10)
        builder.call(builder.inttoptr(values[0], function.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11), generate
