"""What compiled kernels are written in: vectors of floats, side by side, with their loads, stores and arithmetic.

numba compiles loops, but does not speak of vector registers. Here is a type `Vec` of `LANES` floats, so that a kernel
says which numbers stand side by side instead of hoping that a compiler finds out.

Addresses are plain integers, counted in bytes.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.extending import overload

from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.llvm import (
    BYTE_VECTOR,
    FLOAT,
    INT32,
    INT64,
    INTEGERS,
    VECTOR,
    VecType,
    broadcast,
    call,
    constant,
    first_lanes,
    integers,
    masked_load,
    masked_store,
    multiply_add,
    operation,
    pointer,
    vec,
)


@operation(vec, types.intp)
def load(builder, address):
    """The vector at an address; of any alignment."""
    return builder.load(pointer(builder, address, VECTOR), align=4)


@operation(vec, types.intp, types.intp)
def load_first(builder, address, count):
    """The first `count` floats at an address, then zeros; reads no further."""
    # a load by mask is not prefetched from memory: measured at 10 M numbers, passes take 2.5 times as long
    with builder.if_else(builder.icmp_signed(">=", count, INT64(LANES)), likely=True) as (whole, part):
        with whole:
            full = builder.load(pointer(builder, address, VECTOR), align=4)
            full_block = builder.block
        with part:
            some = masked_load(builder, address, count)
            some_block = builder.block
    result = builder.phi(VECTOR)
    result.add_incoming(full, full_block)
    result.add_incoming(some, some_block)
    return result


@operation(types.void, types.intp, vec)
def store(builder, address, value):
    builder.store(value, pointer(builder, address, VECTOR), align=4)


@operation(types.void, types.intp, vec, types.intp)
def store_first(builder, address, value, count):
    """Store the first `count` floats."""
    with builder.if_else(builder.icmp_signed(">=", count, INT64(LANES)), likely=True) as (whole, part):
        with whole:
            builder.store(value, pointer(builder, address, VECTOR), align=4)
        with part:
            masked_store(builder, address, value, count)


@operation(types.float32, types.intp)
def load_float(builder, address):
    return builder.load(pointer(builder, address, FLOAT), align=4)


@operation(types.void, types.intp, types.float32)
def store_float(builder, address, value):
    builder.store(value, pointer(builder, address, FLOAT), align=4)


@operation(types.intp, types.intp)
def load_int(builder, address):
    return builder.load(pointer(builder, address, INT64), align=8)


@operation(vec, types.float32)
def splat(builder, number):
    """The number in every lane."""
    return broadcast(builder, number)


@operation(vec, vec, vec, vec)
def fma(builder, a, b, c):
    """a b + c, rounded once."""
    return multiply_add(builder, a, b, c)


@operation(vec, vec, vec)
def greater(builder, a, b):
    """1 where a > b, else 0."""
    return builder.select(builder.fcmp_ordered(">", a, b), constant(1.0), constant(0.0))


@operation(vec, vec, vec)
def maximum(builder, a, b):
    """The larger; NaN where a is NaN."""
    return builder.select(builder.fcmp_ordered(">=", b, a), b, a)


@operation(vec, vec, vec, vec)
def where_positive(builder, condition, a, b):
    """a where the condition is above 0, else b."""
    return builder.select(builder.fcmp_ordered(">", condition, constant(0.0)), a, b)


@operation(vec, vec, vec, vec, vec)
def where_greater(builder, left, right, a, b):
    """a where left > right, else b."""
    return builder.select(builder.fcmp_ordered(">", left, right), a, b)


@operation(vec, vec)
def square_root(builder, a):
    return call(builder, f"llvm.sqrt.v{LANES}f32", VECTOR, [a])


@operation(types.float32, vec)
def total(builder, a):
    """The sum over the lanes, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        half = ir.Constant(ir.VectorType(INT32, width), list(range(width)))
        other = ir.Constant(ir.VectorType(INT32, width), list(range(width, 2 * width)))
        nothing = ir.Constant(a.type, ir.Undefined)
        a = builder.fadd(builder.shuffle_vector(a, nothing, half), builder.shuffle_vector(a, nothing, other))
    return builder.extract_element(a, INT32(0))


@operation(vec, vec, vec, vec, vec)
def where_beats(builder, left, right, a, b):
    """a where left > right or left is NaN, else b."""
    wins = builder.or_(builder.fcmp_ordered(">", left, right), builder.fcmp_unordered("uno", left, left))
    return builder.select(wins, a, b)


@operation(vec, vec, vec, vec, vec)
def where_equal(builder, left, right, a, b):
    """a where left == right, else b."""
    return builder.select(builder.fcmp_ordered("==", left, right), a, b)


@operation(vec, vec, vec, vec, vec)
def where_at_most(builder, left, right, a, b):
    """a where left <= right, else b."""
    return builder.select(builder.fcmp_ordered("<=", left, right), a, b)


@operation(vec, vec, vec)
def minimum(builder, a, b):
    """The smaller; NaN where a is NaN."""
    return builder.select(builder.fcmp_ordered("<=", b, a), b, a)


@operation(vec, vec)
def absolute(builder, a):
    return call(builder, f"llvm.fabs.v{LANES}f32", VECTOR, [a])


@operation(vec, vec, vec)
def with_sign(builder, a, b):
    """|a| with the sign of b."""
    return call(builder, f"llvm.copysign.v{LANES}f32", VECTOR, [a, b])


@operation(vec, vec)
def nearest(builder, a):
    """The nearest whole number."""
    return call(builder, f"llvm.nearbyint.v{LANES}f32", VECTOR, [a])


@operation(vec, vec)
def power_of_two(builder, a):
    """2^a for whole a in -126..127: a + 127 is the exponent's bits."""
    bits = builder.shl(builder.add(builder.fptosi(a, INTEGERS), integers(127)), integers(23))
    return builder.bitcast(bits, VECTOR)


@operation(types.float32, vec)
def largest(builder, a):
    """The largest lane; NaN where one is."""
    width = LANES
    while width > 1:
        width //= 2
        nothing = ir.Constant(a.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                a, nothing, ir.Constant(ir.VectorType(INT32, width), list(range(start, start + width)))
            )
            for start in (0, width)
        )
        wins = builder.or_(builder.fcmp_ordered(">", high, low), builder.fcmp_unordered("uno", high, high))
        a = builder.select(wins, high, low)
    return builder.extract_element(a, INT32(0))


@operation(vec, types.intp, vec, vec)
def first_or(builder, count, a, b):
    """a in the first `count` lanes, b in the others."""
    return builder.select(first_lanes(builder, count), a, b)


@operation(types.void, types.intp, vec)
def store_bytes(builder, address, value):
    """Store whole numbers in 0..255 as bytes."""
    narrow = builder.trunc(builder.fptosi(value, INTEGERS), BYTE_VECTOR)
    builder.store(narrow, pointer(builder, address, BYTE_VECTOR), align=1)


@operation(vec, types.intp, types.intp, vec)
def where_byte(builder, address, number, a):
    """a where the byte at the address and behind is the number, else 0."""
    byte = builder.trunc(number, ir.IntType(8))
    nothing = ir.Constant(BYTE_VECTOR, ir.Undefined)
    everywhere = builder.shuffle_vector(builder.insert_element(nothing, byte, INT32(0)), nothing, integers(0))
    same = builder.icmp_unsigned("==", builder.load(pointer(builder, address, BYTE_VECTOR), align=1), everywhere)
    return builder.select(same, a, constant(0.0))


@operation(types.void, types.intp, types.intp)
def store_int(builder, address, value):
    builder.store(value, pointer(builder, address, INT64), align=8)


def _ask(builder, address, writes):
    arguments = [pointer(builder, address, ir.IntType(8)), INT32(writes), INT32(2), INT32(1)]
    call(builder, "llvm.prefetch.p0", ir.VoidType(), arguments)


@operation(types.void, types.intp)
def prefetch(builder, address):
    """Ask for the cache line at an address, which need not be valid, without waiting for it."""
    _ask(builder, address, 0)


@operation(types.void, types.intp)
def prefetch_to_write(builder, address):
    """The same for a line that will be written."""
    _ask(builder, address, 1)


def _arithmetic(symbol, emit):
    implemented = operation(vec, vec, vec)(emit)

    @overload(symbol)
    def implementation(a, b):
        if isinstance(a, VecType) and isinstance(b, VecType):
            return lambda a, b: implemented(a, b)
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
