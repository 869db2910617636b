"""One call of a function: CuPy's signature and rules at the front, numpy's function at the back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._array import NO_INDEX, ndarray, refuse_numpy
from ._surface import bind
from ._sync import synchronizes


def _words(text: str) -> set[str]:
    return set(text.split())


# parameters, by CuPy's names for them
_ARRAYS = _words("a b m v x y z f A ar ar1 ar2 arr arr1 arr2 array ary a1 a2 x1 x2 element dst prototype")
_ARRAYS |= _words("condition indices values weights test_elements mask vals choices tup")
_INTEGERS = _words("shape newshape new_shape axis axes axis1 axis2 reps pad_width source destination")
_INTEGERS |= _words("indices_or_sections dimensions num start stop step N k n window_shape")

# functions
_TAKE_SCALARS = _words("isclose allclose where copyto size ndim shape isscalar take put place putmask")
_TAKE_SCALARS |= _words("fill_diagonal nan_to_num searchsorted interp")
_SYNCHRONIZE = _words("nonzero flatnonzero argwhere extract compress place bincount percentile quantile")
_SYNCHRONIZE |= _words("unique unique_all unique_counts unique_inverse unique_values trim_zeros")
_SYNCHRONIZE |= _words("histogram histogram2d histogramdd intersect1d union1d setdiff1d setxor1d")
_SUM = _words("sum prod cumsum cumprod dot tensordot einsum inner vdot")

_SOMETIMES_SYNCHRONIZE: dict[str, Callable[[dict[str, Any]], bool]] = {
    "where": lambda given: "x" not in given,
    "repeat": lambda given: _holds_array(given["repeats"]),
    "average": lambda given: given.get("weights") is not None,
    "choose": lambda given: given.get("mode", "raise") == "raise",
}


def wrap(result: Any) -> Any:
    """numpy's result with every array in it on the device."""
    if isinstance(result, np.ndarray | np.generic):
        return ndarray.of(np.asarray(result))
    if isinstance(result, list | tuple):
        return type(result)(wrap(r) for r in result) if type(result) in (list, tuple) else tuple(map(wrap, result))
    return result


def unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, list | tuple):
        return type(value)(unwrap(v) for v in value)
    return value


def call(name: str, function: Callable[..., Any], words: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call numpy's function with what CuPy's accepts. Raises as CuPy does, or where CuPy is silently wrong."""
    bound = bind(name, words, args, kwargs)
    given = bound.arguments
    short = name.rpartition(".")[2]
    for parameter, value in given.items():
        refuse_numpy(f"{name}()", [value])
        if parameter in _INTEGERS and _holds_array(value):
            raise TypeError(f"{name}({parameter}=...): {NO_INDEX}")
        stranger = parameter in _ARRAYS and not _holds_array(value) and value is not None
        if stranger and (short not in _TAKE_SCALARS or isinstance(value, list | tuple)):
            raise TypeError(f"{name}() takes device arrays; {parameter} is {type(value).__name__} {value!r}")
    if short in _SYNCHRONIZE or _SOMETIMES_SYNCHRONIZE.get(short, _never)(given):
        synchronizes(short)
    out = given.get("out")
    if out is not None:
        if not isinstance(out, ndarray):
            raise TypeError(f"{name}(out=...) takes a device array, got {type(out).__name__}")
        out.check_writable()
    positional, keywords = _as_numpy_takes_them(bound)
    with np.errstate(all="ignore"):
        if short in _SUM and is_half(positional) and "dtype" not in keywords and out is None:
            return wrap(_halves_in_single(function, positional, keywords))
        try:
            result = function(*positional, **keywords)
        except IndexError as error:
            raise IndexError(f"{name}(): {error}; CuPy would not look, and read something") from None
    if short in ("diagonal", "diag") and isinstance(result, np.ndarray):
        result = _writable_diagonal(result, positional[0])
    return out if out is not None else wrap(result)


def _as_numpy_takes_them(bound: Any) -> tuple[list[Any], dict[str, Any]]:
    """Required arguments by position, as their names differ here and there, and optional ones by name."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        value = unwrap(value)
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            keywords.update(value)
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(value)
        else:
            keywords[name] = value
    return positional, keywords


def _never(given: dict[str, Any]) -> bool:
    return False


def _holds_array(value: Any) -> bool:
    return isinstance(value, ndarray) or (isinstance(value, list | tuple) and any(map(_holds_array, value)))


def is_half(values: list[Any]) -> bool:
    dtypes = [v.dtype for v in values if isinstance(v, np.ndarray)]
    return bool(dtypes) and np.result_type(*dtypes) == np.float16


def _halves_in_single(function: Callable[..., Any], positional: list[Any], keywords: dict[str, Any]) -> Any:
    """Sums of float16 are taken in float32 on the device."""
    single = [v.astype("float32") if isinstance(v, np.ndarray) else v for v in positional]
    return np.asarray(function(*single, **keywords)).astype("float16")


def _writable_diagonal(view: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if whole.flags.writeable and view.base is not None:
        view.flags.writeable = True
    return view
