"""Elementwise functions, matrix products, and the operators made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ._array import host_index, host_value, ndarray, refuse_numpy
from ._calls import call, is_half, wrap
from ._surface import CUPY, SURFACE, check_keywords

_SCATTER = {"add": "iIlLqQefd", "subtract": "iI", "maximum": "iIlLqQfd", "minimum": "iIlLqQfd"}


class ufunc:
    """An elementwise function: device arrays and scalars in, device arrays out."""

    def __init__(self, name: str, function: Any, keywords: str, nin: int, nout: int) -> None:
        self.__name__ = name
        self.nin, self.nout = nin, nout
        self._function = function
        self._keywords = [word.rstrip("=") for word in keywords.split()]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__
        check_keywords(name, self._keywords, kwargs)
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"{CUPY}: {name}() takes {self.nin} operands and {self.nout} outputs, got {len(args)}")
        inputs = [host_value(arg, f"{name}()") for arg in args[: self.nin]]
        out = args[self.nin :] or kwargs.pop("out", None)
        outs = out if isinstance(out, tuple) else () if out is None else (out,)
        for one in outs:
            if not isinstance(one, ndarray):
                refuse_numpy(f"{name}(out=...)", [one])
                raise TypeError(f"{name}(out=...) takes a device array, got {type(one).__name__}")
            one.check_writable()
        self._check(inputs, outs)
        with np.errstate(all="ignore"):
            result = self._compute(inputs, tuple(one._host for one in outs), kwargs)
        if outs:
            return outs if len(outs) > 1 else outs[0]
        return wrap(result)

    def _check(self, inputs: list[Any], outs: tuple[ndarray, ...]) -> None:
        """Rules of one function only."""

    def _compute(self, inputs: list[Any], outs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._function(*inputs, **({"out": outs} if outs else {}), **kwargs)

    def _only(self, method: str, names: Iterable[str]) -> None:
        if self.__name__ not in names:
            raise NotImplementedError(f"{CUPY} has no {self.__name__}.{method}; only of {', '.join(names)}")

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        self._only("reduce", ("add", "multiply"))
        return call("ufunc.reduce", self._function.reduce, "array axis= dtype= out= keepdims=", args, kwargs)

    def accumulate(self, *args: Any, **kwargs: Any) -> Any:
        self._only("accumulate", ("add", "multiply"))
        return call("ufunc.accumulate", self._function.accumulate, "array axis= dtype= out=", args, kwargs)

    def reduceat(self, *args: Any, **kwargs: Any) -> Any:
        self._only("reduceat", ("add",))
        return call("ufunc.reduceat", self._function.reduceat, "array indices axis= dtype= out=", args, kwargs)

    def outer(self, a: Any, b: Any) -> Any:
        return wrap(self._function.outer(host_value(a, "outer()"), host_value(b, "outer()")))

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        self._only("at", tuple(_SCATTER))
        if not isinstance(a, ndarray):
            raise TypeError(f"{self.__name__}.at() takes a device array, got {type(a).__name__}")
        if a.dtype.char not in _SCATTER[self.__name__]:
            raise TypeError(f"{CUPY} has no {self.__name__}.at for {a.dtype}")
        a.check_writable()
        self._function.at(a._host, host_index(indices)[0], host_value(b, f"{self.__name__}.at()"))


class matmul_ufunc(ufunc):
    """The matrix product; float16 is multiplied and summed in float32."""

    def _check(self, inputs: list[Any], outs: tuple[ndarray, ...]) -> None:
        if not all(isinstance(x, np.ndarray) for x in inputs):
            raise TypeError("matmul() takes device arrays, no scalars")
        check_out("matmul", inputs, outs[0] if outs else None)

    def _compute(self, inputs: list[Any], outs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_half(inputs):
            return super()._compute(inputs, outs, kwargs)
        result = np.matmul(*(x.astype("float32") for x in inputs)).astype("float16")
        if outs:
            outs[0][...] = result
        return result


def check_out(name: str, inputs: list[np.ndarray[Any, Any]], out: ndarray | None) -> None:
    """The output of a matrix product must be exactly what it makes: CuPy's dot raises, its matmul copies."""
    if out is None:
        return
    dtype = np.result_type(*inputs)
    if out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"{name}(out=...) needs a C-contiguous {dtype} array, got {out.dtype} with strides {out.strides}; "
            "CuPy refuses it in dot and computes into a hidden copy in matmul"
        )


def _make_ufuncs() -> dict[str, ufunc]:
    made: dict[str, ufunc] = {}
    for name in SURFACE["ufuncs"].split():
        function = getattr(np, name, None)
        if function is not None:
            nin, nout = getattr(function, "nin", 1), getattr(function, "nout", 1)
            made[name] = ufunc(name, function, SURFACE["ufunc_keywords"], nin, nout)
    made["matmul"] = matmul_ufunc("matmul", np.matmul, SURFACE["matmul_keywords"], 2, 1)
    return made


ufuncs = _make_ufuncs()


def _operator(function: ufunc, reflected: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if in_place:
            return function(self, other, out=self)
        return function(other, self) if reflected else function(self, other)

    return operate


def give_operators() -> None:
    """Give the array its operators."""
    binary = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide"}
    binary |= {"mod": "remainder", "pow": "power", "lshift": "left_shift", "rshift": "right_shift"}
    binary |= {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
    for name, function in binary.items():
        setattr(ndarray, f"__{name}__", _operator(ufuncs[function]))
        setattr(ndarray, f"__r{name}__", _operator(ufuncs[function], reflected=True))
        setattr(ndarray, f"__i{name}__", _operator(ufuncs[function], in_place=True))
    for name in ("matmul", "divmod"):
        setattr(ndarray, f"__{name}__", _operator(ufuncs[name]))
        setattr(ndarray, f"__r{name}__", _operator(ufuncs[name], reflected=True))
    comparisons = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"}
    for name, function in (comparisons | {"gt": "greater", "ge": "greater_equal"}).items():
        setattr(ndarray, f"__{name}__", _operator(ufuncs[function]))
    for name, function in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{name}__", lambda self, f=ufuncs[function]: f(self))
