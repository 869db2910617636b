"""What operations on vectors are made of: LLVM's types, and functions that emit its instructions.

Every operation is one of LLVM's, which lowers it to the processor's own: nothing here is of one instruction set. Only
the operations of vectors.py, windows.py, tile.py and squares.py are made of these; kernels are written in those.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from layernet.backend.compiled.lanes import LANES

FLOAT = ir.FloatType()
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
BYTE_VECTOR = ir.VectorType(ir.IntType(8), LANES)
INTEGERS = ir.VectorType(INT32, LANES)


class VecType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Vec{LANES}")


vec = VecType()


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, VECTOR)


def pointer(builder, address, to):
    """An address, an integer, as a pointer to values of a type."""
    return builder.inttoptr(address, to.as_pointer())


def call(builder, name, returns, arguments):
    """Call one of LLVM's own functions."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(returns, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


def multiply_add(builder, a, b, c):
    """a b + c, rounded once."""
    return call(builder, f"llvm.fma.v{LANES}f32", VECTOR, [a, b, c])


def constant(value: float) -> ir.Constant:
    """The number in every lane."""
    return ir.Constant(VECTOR, [value] * LANES)


def integers(number: int) -> ir.Constant:
    """The whole number in every lane."""
    return ir.Constant(INTEGERS, [number] * LANES)


def broadcast(builder, number):
    """A number that is known only when the kernel runs, in every lane."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, number, INT32(0)), nothing, integers(0))


def first_lanes(builder, count):
    """The mask of the first `count` lanes."""
    lanes = ir.Constant(ir.VectorType(INT64, LANES), list(range(LANES)))
    nothing = ir.Constant(lanes.type, ir.Undefined)
    limit = builder.shuffle_vector(builder.insert_element(nothing, count, INT32(0)), nothing, integers(0))
    return builder.icmp_signed("<", lanes, limit)


def masked_load(builder, address, count):
    """The first `count` floats at an address, then zeros; reads no further."""
    arguments = [pointer(builder, address, VECTOR), INT32(4), first_lanes(builder, count), constant(0.0)]
    return call(builder, f"llvm.masked.load.v{LANES}f32.p0", VECTOR, arguments)


def masked_store(builder, address, value, count):
    """Store the first `count` floats."""
    arguments = [value, pointer(builder, address, VECTOR), INT32(4), first_lanes(builder, count)]
    call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), arguments)


def operation(returns, *takes):
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
