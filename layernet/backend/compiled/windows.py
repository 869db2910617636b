"""Operations on several vectors at once: taps of a filter, windows of a pooling, groups' inputs."""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.llvm import (
    BYTE_VECTOR,
    INT32,
    INT64,
    INTEGERS,
    VECTOR,
    call,
    constant,
    integers,
    masked_load,
    masked_store,
    multiply_add,
    pointer,
    vec,
)


def taps_in_line(taps: int):
    """The intrinsic (line, tap_step, place_step, filter, filter_step, a, b, c, d) for `taps` taps of four places.

    Each of a, b, c, d, the sums of places `place_step` bytes apart, gains the products of numbers `tap_step` apart with
    weights `filter_step` apart.
    """

    @intrinsic
    def products(typingctx, line, tap_step, place_step, filter, filter_step, a, b, c, d):
        def generate(context, builder, signature, arguments):
            line, tap_step, place_step, filter, filter_step, *sums = arguments
            bases = [builder.add(line, builder.mul(place_step, INT64(p))) for p in range(len(sums))]
            for tap in range(taps):
                at = builder.add(filter, builder.mul(filter_step, INT64(tap)))
                weight = builder.load(pointer(builder, at, VECTOR), align=4)
                across = builder.mul(tap_step, INT64(tap))
                for p, base in enumerate(bases):
                    value = builder.load(pointer(builder, builder.add(base, across), VECTOR), align=4)
                    sums[p] = multiply_add(builder, value, weight, sums[p])
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
                    at = builder.add(line, builder.mul(step, INT64(p)))
                    seen.append(builder.load(pointer(builder, at, VECTOR), align=4))
                for tap in range(taps):
                    at = builder.add(filter, builder.mul(filter_step, INT64(i * taps + tap)))
                    weight = builder.load(pointer(builder, at, VECTOR), align=4)
                    sums = [multiply_add(builder, seen[p + tap], weight, sum) for p, sum in enumerate(sums)]
                line = builder.add(line, line_step)
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(vec, 4)(*[types.intp] * 5, vec, vec, vec, vec), generate

    return products


def _whole_or_part(builder, count, emit):
    """What `emit(load, store)` emits, once for whole vectors and once for their first `count` lanes.

    Loads by mask are slower, and not prefetched.
    """
    results = []
    with builder.if_else(builder.icmp_signed(">=", count, INT64(LANES)), likely=True) as (whole, part):
        with whole:
            result = emit(
                lambda at: builder.load(pointer(builder, at, VECTOR), align=4),
                lambda at, value: builder.store(value, pointer(builder, at, VECTOR), align=4),
            )
            results.append((result, builder.block))
        with part:
            result = emit(
                lambda at: masked_load(builder, at, count), lambda at, value: masked_store(builder, at, value, count)
            )
            results.append((result, builder.block))
    if results[0][0] is None:
        return None
    joined = builder.phi(VECTOR)
    for result, block in results:
        joined.add_incoming(result, block)
    return joined


def _window(builder, load, corner, line_step, tap_step, rows, columns):
    """The vectors under a window, in reading order."""
    values = []
    for i in range(rows):
        line = builder.add(corner, builder.mul(line_step, INT64(i)))
        for j in range(columns):
            values.append(load(builder.add(line, builder.mul(tap_step, INT64(j)))))
    return values


def window_peak(rows: int, columns: int):
    """The intrinsic (corner, line_step, tap_step, count, limit, y, winners) for a window of `rows` x `columns` taps.

    It stores the maximum of the first `count` lanes, and where `winners` is not 0 the number of the first tap that has
    it, as bytes. In the place of a maximum not above the limit it stores 0, and nobody has won: 255; so with NaN, which
    stays. A pair (value, tap) is beaten by a later one only if that is larger; whether a NaN is among the values is
    asked of two at a time.
    """

    @intrinsic
    def peak(typingctx, corner, line_step, tap_step, count, limit, y, winners):
        def generate(context, builder, signature, arguments):
            corner, line_step, tap_step, count, limit, y, winners = arguments

            def emit(load, store):
                values = _window(builder, load, corner, line_step, tap_step, rows, columns)
                broken = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [0] * LANES)
                for a, b in zip(values[0::2], [*values[1::2], values[-1]], strict=False):
                    broken = builder.or_(broken, builder.fcmp_unordered("uno", a, b))
                pairs = [(value, constant(float(tap))) for tap, value in enumerate(values)]
                while len(pairs) > 1:
                    beaten = []
                    for (a, at), (b, bt) in zip(pairs[0::2], pairs[1::2], strict=False):
                        wins = builder.fcmp_ordered(">", b, a)
                        beaten.append((builder.select(wins, b, a), builder.select(wins, bt, at)))
                    pairs = beaten + pairs[len(beaten) * 2 :]
                best, winner = pairs[0]
                low = builder.fcmp_ordered("<=", best, limit)
                best = builder.select(low, constant(0.0), best)
                store(y, builder.select(broken, constant(float("nan")), best))
                return builder.select(builder.or_(broken, low), constant(255.0), winner)

            winner = _whole_or_part(builder, count, emit)
            with builder.if_then(builder.icmp_signed("!=", winners, INT64(0))):
                narrow = builder.trunc(builder.fptosi(winner, INTEGERS), BYTE_VECTOR)
                builder.store(narrow, pointer(builder, winners, BYTE_VECTOR), align=1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4, vec, types.intp, types.intp), generate

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
            numbers = builder.load(pointer(builder, lanes, INTEGERS), align=4)
            sums = []
            for offset, before in zip(offsets, (a, b, c, d), strict=True):
                at = builder.add(address, offset)
                value = None
                for v in range(vectors):
                    held = builder.load(pointer(builder, builder.add(at, INT64(4 * LANES * v)), VECTOR), align=4)
                    picked = _pick(builder, held, numbers)
                    here = builder.icmp_signed("<", numbers, integers(LANES * v))
                    value = picked if value is None else builder.select(here, value, picked)
                sums.append(multiply_add(builder, value, factor, before))
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(vec, 4)(*[types.intp] * 6, vec, vec, vec, vec, vec), generate

    return products


def _pick(builder, values, numbers):
    """The lanes of `values` of these numbers modulo LANES."""
    if _PERMUTE:
        return call(builder, _PERMUTE, VECTOR, [values, numbers])
    numbers = builder.and_(numbers, integers(LANES - 1))
    picked = ir.Constant(VECTOR, ir.Undefined)
    for lane in range(LANES):
        at = builder.extract_element(numbers, INT32(lane))
        picked = builder.insert_element(picked, builder.extract_element(values, at), INT32(lane))
    return picked


def _permutation() -> str:
    """The processor's own permutation of lanes, which LLVM has no name for that fits all of them; or nothing."""
    features = llvm.get_host_cpu_features()
    if LANES == 16 and features.get("avx512f"):
        return "llvm.x86.avx512.permvar.sf.512"
    return "llvm.x86.avx2.permps" if LANES == 8 and features.get("avx2") else ""


_PERMUTE = _permutation()
