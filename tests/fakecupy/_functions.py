"""The functions of the module and the methods of the array."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ._array import check_dtype, host_value, ndarray, poisoned, refuse_numpy, sort_kind
from ._calls import call, unwrap, wrap
from ._surface import CUPY, SURFACE, bind
from ._sync import transferred
from ._ufunc import check_out


def dot(*args: Any, **kwargs: Any) -> Any:
    given = bind("dot", SURFACE["functions"]["dot"], args, kwargs).arguments
    check_out("dot", [host_value(given[n], "dot()") for n in ("a", "b")], given.get("out"))
    return call("dot", np.dot, SURFACE["functions"]["dot"], args, kwargs)


def asarray(name: str, always_copy: bool) -> Callable[..., ndarray]:
    """`array` or `asarray`: where host values cross over to the device."""

    def function(*args: Any, **kwargs: Any) -> ndarray:
        given = bind(name, SURFACE["functions"][name], args, kwargs).arguments
        for keyword in ("blocking", "subok"):
            given.pop(keyword, None)
        value = given.pop("a" if "a" in given else "obj")
        if given.get("dtype") is not None:
            check_dtype(given["dtype"])
        if not isinstance(value, ndarray):
            transferred("to_device")
            given["copy"] = True
        else:
            given["copy"] = given.get("copy", True if always_copy else None)
        host = np.array(unwrap(value), **given)
        same = isinstance(value, ndarray) and np.shares_memory(host, value._host) and host.shape == value.shape
        return value if same and host.strides == value.strides else ndarray.of(host)

    return function


def ascontiguousarray(*args: Any, **kwargs: Any) -> Any:
    """Keeps arrays of no axes as they are, where numpy's gives them one."""
    words = SURFACE["functions"]["ascontiguousarray"]
    return call("ascontiguousarray", partial(np.asarray, order="C"), words, args, kwargs)


def asnumpy(*args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
    given = bind("asnumpy", SURFACE["functions"]["asnumpy"], args, kwargs).arguments
    value = given.pop("a")
    given.pop("blocking", None)
    return value.get(**given) if isinstance(value, ndarray) else np.asarray(value)


def get_array_module(*args: Any) -> Any:
    return sys.modules[__package__] if any(isinstance(arg, ndarray) for arg in args) else np


def made_empty(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        result = call(name, getattr(np, name), SURFACE["functions"][name], args, kwargs)
        poisoned(result._host)
        return result

    return function


def argsort(name: str, words: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        given = bind(name, words, args, kwargs).arguments
        kind = sort_kind(given.pop("kind", None))
        return call(name, lambda *a, **k: getattr(np, name)(*a, kind=kind, **k), words, (), given)

    return function


def clip(*args: Any, **kwargs: Any) -> Any:
    """`a_min` and `a_max`, never `min` and `max`; None is no bound."""
    return call("clip", np.clip, SURFACE["functions"]["clip"], args, kwargs)


def where(*args: Any, **kwargs: Any) -> Any:
    given = bind("where", SURFACE["functions"]["where"], args, kwargs).arguments
    if not isinstance(given["condition"], ndarray):
        refuse_numpy("where()", [given["condition"]])
        raise TypeError(f"where() needs a device array as condition, got {type(given['condition']).__name__}")
    if len(given) == 2:
        raise ValueError("where() takes both x and y, or neither")
    operands = tuple(host_value(v, "where()") for v in list(given.values())[1:])
    if not operands:
        return call("where", np.where, "condition", args, kwargs)
    return wrap(np.where(given["condition"]._host, *operands))


def as_strided(*args: Any, **kwargs: Any) -> Any:
    view = call("as_strided", np.lib.stride_tricks.as_strided, SURFACE["stride_tricks"]["as_strided"], args, kwargs)
    offsets = np.zeros((), dtype=np.intp)
    for n, stride in zip(view.shape, view.strides, strict=True):
        offsets = offsets[..., None] + np.arange(n) * stride
    if len(np.unique(offsets)) < offsets.size:
        view._host.flags.writeable = False  # elements that share memory
    return view


def _array_equal(name: str) -> Callable[..., Any]:
    """Yes or no as an array of no axes, where numpy gives a bool."""

    def function(*args: Any, **kwargs: Any) -> Any:
        result = call(name, getattr(np, name), SURFACE["functions"][name], args, kwargs)
        return result if isinstance(result, ndarray) else wrap(np.asarray(result))

    return function


SPECIAL: dict[str, Callable[..., Any]] = {
    "array": asarray("array", always_copy=True),
    "asarray": asarray("asarray", always_copy=False),
    "asanyarray": asarray("asanyarray", always_copy=False),
    "asnumpy": asnumpy,
    "get_array_module": get_array_module,
    "ascontiguousarray": ascontiguousarray,
    "empty": made_empty("empty"),
    "empty_like": made_empty("empty_like"),
    "argsort": argsort("argsort", SURFACE["functions"]["argsort"]),
    "sort": argsort("sort", SURFACE["functions"]["sort"]),
    "dot": dot,
    "clip": clip,
    "where": where,
    **{name: _array_equal(name) for name in ("allclose", "array_equal", "array_equiv", "count_nonzero")},
}


def make_function(name: str, numpy_module: Any, table: dict[str, str], prefix: str = "") -> Callable[..., Any]:
    """The function of this name; NotImplementedError when it is called, where numpy has none."""
    if not prefix and name in SPECIAL:
        return SPECIAL[name]
    back = getattr(numpy_module, name, None)

    def function(*args: Any, **kwargs: Any) -> Any:
        if back is None:
            raise NotImplementedError(f"{CUPY} has {prefix}{name}, the stand-in does not know it")
        return call(prefix + name, back, table[name], args, kwargs)

    function.__name__ = name
    return function


def _make_method(name: str, words: str) -> Callable[..., Any]:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        def back(host: np.ndarray[Any, Any], *a: Any, **k: Any) -> Any:
            return getattr(host, name)(*a, **k)

        return call(f"ndarray.{name}", back, f"self {words}".strip(), (self, *args), kwargs)

    method.__name__ = name
    return method


def _method_of_function(name: str, words: str) -> Callable[..., Any]:
    """A method that is the function of the same name."""

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        bind(f"ndarray.{name}", f"self {words}".strip(), (self, *args), kwargs)
        return SPECIAL[name](self, *args, **kwargs)

    return method


def give_methods() -> None:
    """Give the array the methods that are not written out in its class."""
    own = {"astype", "view", "get", "set", "item", "tolist", "tobytes", "fill", "sort"}
    absent = {"dump", "dumps", "tofile", "toDlpack", "mdspan", "reduced_view", "ptp", "partition", "argpartition"}
    absent |= {"scatter_add", "scatter_max", "scatter_min"}
    for name, words in SURFACE["methods"].items():
        if name in ("argsort", "dot"):
            setattr(ndarray, name, _method_of_function(name, words))
        elif name not in own | absent:
            setattr(ndarray, name, _make_method(name, words))
