"""Vector operations beyond simd.py's arithmetic: comparisons, bytes, powers of two, pieces of another vector."""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from layernet.backend.compiled.simd import (
    _INT32,
    _INT64,
    _VECTOR,
    LANES,
    _call,
    _constant,
    _fma,
    _masked_load,
    _masked_store,
    _operation,
    _pointer,
    vec,
)

_BYTES = ir.VectorType(ir.IntType(8), LANES)
_INTEGERS = ir.VectorType(_INT32, LANES)


def _same(number: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [number] * LANES)


@_operation(vec, vec, vec, vec, vec)
def where_beats(builder, left, right, a, b):
    """a where left > right or left is NaN, else b."""
    wins = builder.or_(builder.fcmp_ordered(">", left, right), builder.fcmp_unordered("uno", left, left))
    return builder.select(wins, a, b)


@_operation(vec, vec, vec, vec, vec)
def where_equal(builder, left, right, a, b):
    """a where left == right, else b."""
    return builder.select(builder.fcmp_ordered("==", left, right), a, b)


@_operation(vec, vec, vec)
def minimum(builder, a, b):
    """The smaller; NaN where a is NaN."""
    return builder.select(builder.fcmp_ordered("<=", b, a), b, a)


@_operation(vec, vec)
def absolute(builder, a):
    return _call(builder, f"llvm.fabs.v{LANES}f32", _VECTOR, [a])


@_operation(vec, vec, vec)
def with_sign(builder, a, b):
    """|a| with the sign of b."""
    return _call(builder, f"llvm.copysign.v{LANES}f32", _VECTOR, [a, b])


@_operation(vec, vec)
def nearest(builder, a):
    """The nearest whole number."""
    return _call(builder, f"llvm.nearbyint.v{LANES}f32", _VECTOR, [a])


@_operation(vec, vec)
def power_of_two(builder, a):
    """2^a for whole a in -126..127: a + 127 is the exponent's bits."""
    bits = builder.shl(builder.add(builder.fptosi(a, _INTEGERS), _same(127)), _same(23))
    return builder.bitcast(bits, _VECTOR)


@_operation(types.float32, vec)
def largest(builder, a):
    """The largest lane; NaN where one is."""
    width = LANES
    while width > 1:
        width //= 2
        nothing = ir.Constant(a.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                a, nothing, ir.Constant(ir.VectorType(_INT32, width), list(range(start, start + width)))
            )
            for start in (0, width)
        )
        wins = builder.or_(builder.fcmp_ordered(">", high, low), builder.fcmp_unordered("uno", high, high))
        a = builder.select(wins, high, low)
    return builder.extract_element(a, _INT32(0))


@_operation(vec, types.intp, vec, vec)
def first_or(builder, count, a, b):
    """a in the first `count` lanes, b in the others."""
    lanes = ir.Constant(ir.VectorType(ir.IntType(64), LANES), list(range(LANES)))
    limit = builder.insert_element(ir.Constant(lanes.type, ir.Undefined), count, _INT32(0))
    limit = builder.shuffle_vector(limit, ir.Constant(lanes.type, ir.Undefined), _same(0))
    return builder.select(builder.icmp_signed("<", lanes, limit), a, b)


@_operation(types.void, types.intp, vec)
def store_bytes(builder, address, value):
    """Store whole numbers in 0..255 as bytes."""
    narrow = builder.trunc(builder.fptosi(value, _INTEGERS), _BYTES)
    builder.store(narrow, _pointer(builder, address, _BYTES), align=1)


@_operation(vec, types.intp, types.intp, vec)
def where_byte(builder, address, number, a):
    """a where the byte at the address and behind is the number, else 0."""
    byte = builder.trunc(number, ir.IntType(8))
    nothing = ir.Constant(_BYTES, ir.Undefined)
    everywhere = builder.shuffle_vector(builder.insert_element(nothing, byte, _INT32(0)), nothing, _same(0))
    same = builder.icmp_unsigned("==", builder.load(_pointer(builder, address, _BYTES), align=1), everywhere)
    return builder.select(same, a, _constant(0.0))


@_operation(types.void, types.intp, types.intp)
def store_int(builder, address, value):
    builder.store(value, _pointer(builder, address, _INT64), align=8)


def _ask(builder, address, writes):
    arguments = [_pointer(builder, address, ir.IntType(8)), _INT32(writes), _INT32(2), _INT32(1)]
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), arguments)


@_operation(types.void, types.intp)
def prefetch(builder, address):
    """Ask for the cache line at an address, which need not be valid, without waiting for it."""
    _ask(builder, address, 0)


@_operation(types.void, types.intp)
def prefetch_to_write(builder, address):
    """The same for a line that will be written."""
    _ask(builder, address, 1)


def taps_in_line(taps: int):
    """The intrinsic (line, tap_step, place_step, filter, filter_step, a, b, c, d) for `taps` taps of four places.

    Each of a, b, c, d, the sums of places `place_step` bytes apart, gains the products of numbers `tap_step` apart with
    weights `filter_step` apart.
    """

    @intrinsic
    def products(typingctx, line, tap_step, place_step, filter, filter_step, a, b, c, d):
        def generate(context, builder, signature, arguments):
            line, tap_step, place_step, filter, filter_step, *sums = arguments
            bases = [builder.add(line, builder.mul(place_step, _INT64(p))) for p in range(len(sums))]
            for tap in range(taps):
                at = builder.add(filter, builder.mul(filter_step, _INT64(tap)))
                weight = builder.load(_pointer(builder, at, _VECTOR), align=4)
                across = builder.mul(tap_step, _INT64(tap))
                for p, base in enumerate(bases):
                    value = builder.load(_pointer(builder, builder.add(base, across), _VECTOR), align=4)
                    sums[p] = _fma(builder, value, weight, sums[p])
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(vec, 4)(*[types.intp] * 5, vec, vec, vec, vec), generate

    return products


def taps_side_by_side(lines: int, taps: int):
    """The intrinsic (line, line_step, step, filter, filter_step, a, b, c, d): `lines` lines of `taps` taps each.

    As `taps_in_line` where places are as far apart as taps: they share what they see.
    """

    @intrinsic
    def products(typingctx, line, line_step, step, filter, filter_step, a, b, c, d):
        def generate(context, builder, signature, arguments):
            line, line_step, step, filter, filter_step, *sums = arguments
            for i in range(lines):
                seen = []
                for p in range(taps + len(sums) - 1):
                    at = builder.add(line, builder.mul(step, _INT64(p)))
                    seen.append(builder.load(_pointer(builder, at, _VECTOR), align=4))
                for tap in range(taps):
                    at = builder.add(filter, builder.mul(filter_step, _INT64(i * taps + tap)))
                    weight = builder.load(_pointer(builder, at, _VECTOR), align=4)
                    sums = [_fma(builder, seen[p + tap], weight, sum) for p, sum in enumerate(sums)]
                line = builder.add(line, line_step)
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(vec, 4)(*[types.intp] * 5, vec, vec, vec, vec), generate

    return products


def _whole_or_part(builder, count, emit):
    """What `emit(load, store)` emits, once for whole vectors and once for their first `count` lanes.

    Loads by mask are slower, and not prefetched.
    """
    results = []
    with builder.if_else(builder.icmp_signed(">=", count, _INT64(LANES)), likely=True) as (whole, part):
        with whole:
            result = emit(
                lambda at: builder.load(_pointer(builder, at, _VECTOR), align=4),
                lambda at, value: builder.store(value, _pointer(builder, at, _VECTOR), align=4),
            )
            results.append((result, builder.block))
        with part:
            result = emit(
                lambda at: _masked_load(builder, at, count), lambda at, value: _masked_store(builder, at, value, count)
            )
            results.append((result, builder.block))
    if results[0][0] is None:
        return None
    joined = builder.phi(_VECTOR)
    for result, block in results:
        joined.add_incoming(result, block)
    return joined


def _window(builder, load, corner, line_step, tap_step, rows, columns):
    """The vectors under a window, in reading order."""
    values = []
    for i in range(rows):
        line = builder.add(corner, builder.mul(line_step, _INT64(i)))
        for j in range(columns):
            values.append(load(builder.add(line, builder.mul(tap_step, _INT64(j)))))
    return values


def window_peak(rows: int, columns: int):
    """The intrinsic (corner, line_step, tap_step, count, y, winners) for a window of `rows` x `columns` taps.

    It stores the maximum of the first `count` lanes, and where `winners` is not 0 the number of the first tap that has
    it, as bytes. A pair (value, tap) is beaten by a later one only if that is larger; whether a NaN is among the values
    is asked of two at a time.
    """

    @intrinsic
    def peak(typingctx, corner, line_step, tap_step, count, y, winners):
        def generate(context, builder, signature, arguments):
            corner, line_step, tap_step, count, y, winners = arguments

            def emit(load, store):
                values = _window(builder, load, corner, line_step, tap_step, rows, columns)
                broken = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [0] * LANES)
                for a, b in zip(values[0::2], [*values[1::2], values[-1]], strict=False):
                    broken = builder.or_(broken, builder.fcmp_unordered("uno", a, b))
                pairs = [(value, _constant(float(tap))) for tap, value in enumerate(values)]
                while len(pairs) > 1:
                    beaten = []
                    for (a, at), (b, bt) in zip(pairs[0::2], pairs[1::2], strict=False):
                        wins = builder.fcmp_ordered(">", b, a)
                        beaten.append((builder.select(wins, b, a), builder.select(wins, bt, at)))
                    pairs = beaten + pairs[len(beaten) * 2 :]
                best, winner = pairs[0]
                store(y, builder.select(broken, _constant(float("nan")), best))
                return winner

            winner = _whole_or_part(builder, count, emit)
            with builder.if_then(builder.icmp_signed("!=", winners, _INT64(0))):
                narrow = builder.trunc(builder.fptosi(winner, _INTEGERS), _BYTES)
                builder.store(narrow, _pointer(builder, winners, _BYTES), align=1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), generate

    return peak


def window_sum(rows: int, columns: int):
    """The intrinsic (corner, line_step, tap_step, count): the sum over a window, of the first `count` lanes."""

    @intrinsic
    def sum_of(typingctx, corner, line_step, tap_step, count):
        def generate(context, builder, signature, arguments):
            corner, line_step, tap_step, count = arguments

            def emit(load, store):
                values = _window(builder, load, corner, line_step, tap_step, rows, columns)
                while len(values) > 1:
                    halves = [builder.fadd(a, b) for a, b in zip(values[0::2], values[1::2], strict=False)]
                    values = halves + values[len(halves) * 2 :]
                return values[0]

            return _whole_or_part(builder, count, emit)

        return vec(*[types.intp] * 4), generate

    return sum_of


def spread_products(vectors: int):
    """The intrinsic (address, o0, o1, o2, o3, lanes, factor, a, b, c, d): each sum gains factor times what lies there.

    What lies at address + o: of its first `vectors` vectors those floats whose numbers, int32, stand at `lanes`.
    """

    @intrinsic
    def products(typingctx, address, o0, o1, o2, o3, lanes, factor, a, b, c, d):
        def generate(context, builder, signature, arguments):
            address, *offsets, lanes, factor, a, b, c, d = arguments
            numbers = builder.load(_pointer(builder, lanes, _INTEGERS), align=4)
            sums = []
            for offset, before in zip(offsets, (a, b, c, d), strict=True):
                at = builder.add(address, offset)
                value = None
                for v in range(vectors):
                    held = builder.load(_pointer(builder, builder.add(at, _INT64(4 * LANES * v)), _VECTOR), align=4)
                    picked = _pick(builder, held, numbers)
                    here = builder.icmp_signed("<", numbers, _same(LANES * v))
                    value = picked if value is None else builder.select(here, value, picked)
                sums.append(_fma(builder, value, factor, before))
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(vec, 4)(*[types.intp] * 6, vec, vec, vec, vec, vec), generate

    return products


def _pick(builder, values, numbers):
    """The lanes of `values` of these numbers modulo LANES."""
    if _PERMUTE:
        return _call(builder, _PERMUTE, _VECTOR, [values, numbers])
    numbers = builder.and_(numbers, _same(LANES - 1))
    picked = ir.Constant(_VECTOR, ir.Undefined)
    for lane in range(LANES):
        at = builder.extract_element(numbers, _INT32(lane))
        picked = builder.insert_element(picked, builder.extract_element(values, at), _INT32(lane))
    return picked


def _permutation() -> str:
    """The processor's own permutation of lanes, which LLVM has no name for that fits all of them; or nothing."""
    features = llvm.get_host_cpu_features()
    if LANES == 16 and features.get("avx512f"):
        return "llvm.x86.avx512.permvar.sf.512"
    return "llvm.x86.avx2.permps" if LANES == 8 and features.get("avx2") else ""


_PERMUTE = _permutation()
