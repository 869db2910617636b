"""The device array: numpy's values behind a wall that only explicit crossings pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import EllipsisType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from ._surface import CUPY, SURFACE, bind
from ._sync import synchronizes, transferred

_COMPARISONS = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
DTYPES = "?bBhHiIlLqQefdFD"
NO_INDEX = "a device array has no __index__: it is no shape, axis, or range"


class ndarray:
    """A stand-in for cupy.ndarray: wraps, and never is, a numpy array."""

    __slots__ = ("__weakref__", "_host")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    __contains__ = None

    def __init__(self, shape: Any, dtype: Any = float, *, order: str = "C") -> None:
        self._host = poisoned(np.empty(shape, check_dtype(dtype), order))  # type: ignore[call-overload]

    @classmethod
    def of(cls, host: np.ndarray[Any, Any]) -> ndarray:
        """The device array that holds (not copies) this numpy array."""
        check_dtype(host.dtype)
        self = cls.__new__(cls)
        self._host = host
        return self

    # no way out that is not asked for by name

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            f"numpy was given a device array of shape {self.shape}: CuPy converts none by itself; "
            "compute with ctx.xp, or fetch it with .get() or device.to_numpy"
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        # an operator with a numpy scalar on its left, np.float32(2) * x, arrives here too, and alone may pass; where it
        # compares, numpy has made an array of the scalar
        if ufunc in _COMPARISONS:
            inputs = tuple(x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs)
        refuse_numpy(f"numpy.{ufunc.__name__}", [*inputs, *out])
        if method == "__call__" and not kwargs and not out and any(isinstance(x, np.generic) for x in inputs):
            from ._ufunc import ufuncs

            return ufuncs[ufunc.__name__](*inputs)
        raise _numpy_call(ufunc.__name__)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        raise _numpy_call(func.__name__)

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        given = bind("ndarray.get", SURFACE["methods"]["get"], args, kwargs).arguments
        synchronizes("get")
        if given.get("out") is not None:
            given["out"][...] = self._host
            return given["out"]  # type: ignore[no-any-return]
        return self._host.copy(order=given.get("order", "C"))

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError(f"{CUPY}: ndarray.set() takes a numpy array, got {type(arr).__name__}")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"set() needs {self.dtype} {self.shape}, got {arr.dtype} {arr.shape}")
        transferred("to_device")
        self._host[...] = arr

    def item(self) -> Any:
        synchronizes("item")
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._host.item()

    def tolist(self) -> Any:
        synchronizes("tolist")
        return self._host.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        synchronizes("tobytes")
        return self._host.tobytes(order)

    def __float__(self) -> float:
        synchronizes("float")
        return float(self._host)

    def __int__(self) -> int:
        synchronizes("int")
        return int(self._host)

    def __complex__(self) -> complex:
        synchronizes("complex")
        return complex(self._host)

    def __bool__(self) -> bool:
        synchronizes("bool")
        return bool(self._host)

    def __format__(self, spec: str) -> str:
        synchronizes("format")
        return format(self._host, spec) if self.ndim else format(self._host.item(), spec)

    def __str__(self) -> str:
        synchronizes("str")
        return str(self._host)

    def __repr__(self) -> str:  # for the eyes of a debugger: not counted, though CuPy waits here too
        return f"fakecupy.{self._host!r}"

    def __copy__(self) -> ndarray:
        return ndarray.of(self._host.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return ndarray.of(copy.deepcopy(self._host))

    # what it says about itself

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    base = property(lambda self: None if self._host.base is None else ndarray.of(np.asarray(self._host.base)))
    T = property(lambda self: ndarray.of(self._host.T))
    mT = property(lambda self: ndarray.of(self._host.mT))
    real = property(lambda self: ndarray.of(self._host.real))
    imag = property(lambda self: ndarray.of(np.asarray(self._host.imag)))
    device = property(lambda self: SimpleNamespace(id=0))

    @property
    def flags(self) -> Any:
        """Only what CuPy's has; in particular nothing is writeable or not."""
        flags = self._host.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    def __getattr__(self, name: str) -> NoReturn:
        if name in SURFACE["methods"] or name in SURFACE["attributes"].split():
            raise NotImplementedError(f"{CUPY} has ndarray.{name}, the stand-in does not know it yet")
        raise AttributeError(f"{CUPY} has no ndarray.{name}", name=name, obj=self)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # indices

    def __getitem__(self, key: Any) -> ndarray:
        host_key, arrays = host_index(key)
        if any(array.dtype == bool for array in arrays):
            synchronizes("mask")
        if not arrays and not _has_ellipsis(host_key):
            host_key = (*host_key, ...)  # numpy would hand out a scalar; CuPy a view of no axes
        try:
            return ndarray.of(np.asarray(self._host[host_key]))
        except IndexError as error:
            raise _index_error(error, arrays) from None

    def __setitem__(self, key: Any, value: Any) -> None:
        host_key, arrays = host_index(key)
        value = host_value(value, f"x[...] = {type(value).__name__}")
        self.check_writable()
        if any(array.dtype == bool for array in arrays):
            synchronizes("mask")
        elif arrays and np.size(value) > 1:
            _check_distinct(self._host, host_key)
        with np.errstate(all="ignore"):
            try:
                self._host[host_key] = value
            except IndexError as error:
                raise _index_error(error, arrays) from None

    def check_writable(self) -> None:
        if not self._host.flags.writeable:
            raise ValueError(
                f"writing into an array of shape {self.shape} whose elements share memory (broadcast_to or windows): "
                "numpy refuses, CuPy writes through it in undefined order; copy it first"
            )

    def __imatmul__(self, other: Any) -> NoReturn:
        raise TypeError("CuPy has no in-place @: `x @= y` would make a new array and leave the old one as it was")

    # methods with rules of their own; the others come from _functions.py

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        if dtype is None:
            return ndarray.of(self._host.view())
        dtype = check_dtype(dtype)
        if dtype.itemsize != self.itemsize and not self._host.flags.c_contiguous:
            raise ValueError("a view with items of another size needs a C-contiguous array")
        return ndarray.of(self._host.view(dtype))

    def astype(self, *args: Any, **kwargs: Any) -> ndarray:
        given = bind("ndarray.astype", SURFACE["methods"]["astype"], args, kwargs).arguments
        for keyword in ("casting", "subok"):
            if given.pop(keyword, None) is not None:
                raise TypeError(f"{CUPY} has no working keyword {keyword!r} for ndarray.astype()")
        dtype = check_dtype(given.pop("dtype"))
        if dtype == self.dtype and given.get("copy") is False and given.get("order", "K") in ("K", None):
            return self
        try:
            with np.errstate(invalid="raise"):
                return ndarray.of(self._host.astype(dtype, **given))
        except FloatingPointError:
            message = f"astype({dtype}) of NaN or of what does not fit: CuPy and numpy give different numbers"
            raise ValueError(message) from None

    def fill(self, value: Any) -> None:
        self[...] = value

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        self.check_writable()
        self._host.sort(axis, kind=sort_kind(kind))


def check_dtype(dtype: Any) -> np.dtype[Any]:
    dtype = np.dtype(float if dtype is None else dtype)
    if dtype.char not in DTYPES:
        raise ValueError(f"{CUPY} has no arrays of {dtype}")
    return dtype


def poisoned(host: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Fresh memory as it may be found: NaN, or all bits set."""
    if host.dtype.kind in "fc":
        host.fill(np.nan)
    elif host.dtype.kind == "b":
        host.fill(True)
    else:
        host.fill(-1 if host.dtype.kind == "i" else np.iinfo(host.dtype).max)
    return host


def refuse_numpy(where: str, values: Any) -> None:
    """Raise TypeError for a numpy array anywhere in it."""
    for value in values:
        if isinstance(value, np.ndarray):
            raise TypeError(
                f"{where} mixes a device array with a numpy array of shape {value.shape}: CuPy raises TypeError; "
                "make a constant on the device once, as a Const of the layer, or with ctx.xp.asarray"
            )
        if isinstance(value, list | tuple):
            refuse_numpy(where, value)


def host_value(value: Any, where: str) -> Any:
    """What stands behind an operand: a numpy array for a device array, a scalar for itself, nothing else."""
    if isinstance(value, ndarray):
        return value._host
    refuse_numpy(where, [value])
    if isinstance(value, np.generic):
        check_dtype(value.dtype)
        return value
    if isinstance(value, bool | int | float | complex):
        return value
    raise TypeError(f"{where}: unsupported type {type(value)}; CuPy takes device arrays and scalars")


def host_index(key: Any) -> tuple[tuple[Any, ...], list[np.ndarray[Any, Any]]]:
    """The index for numpy, always a tuple, and the arrays in it."""
    parts = []
    arrays = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, ndarray):
            part = part._host
            if part.dtype.kind not in "biu":
                raise IndexError(f"arrays used as indices must be integers or booleans, got {part.dtype}")
            arrays.append(part)
        elif isinstance(part, slice) and any(isinstance(n, ndarray) for n in (part.start, part.stop, part.step)):
            raise TypeError(NO_INDEX)
        elif isinstance(part, np.ndarray | list | range | tuple):
            raise TypeError(
                f"a {type(part).__name__} from the host as index: CuPy copies it to the device at every call; make it "
                "once, as a Const of the layer, or with ctx.xp.asarray"
            )
        elif not isinstance(part, int | np.integer | slice | EllipsisType | None):
            raise IndexError(f"{type(part).__name__} is no index")
        parts.append(part)
    if sum(array.dtype == bool for array in arrays) > 1:
        raise IndexError(f"{CUPY} has no index with two boolean arrays")
    return tuple(parts), arrays


def sort_kind(kind: Any) -> str:
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    return "stable"


def _has_ellipsis(parts: tuple[Any, ...]) -> bool:
    return any(part is Ellipsis for part in parts)


def _check_distinct(host: np.ndarray[Any, Any], key: tuple[Any, ...]) -> None:
    places = np.arange(host.size).reshape(host.shape)[key].ravel()
    if len(np.unique(places)) < len(places):
        raise ValueError("x[index] = values with an element named twice: on the device, which value stays is undefined")


def _index_error(error: IndexError, arrays: list[np.ndarray[Any, Any]]) -> IndexError:
    return IndexError(
        f"{error}; CuPy would wrap it around without a word" if arrays and "out of bounds" in str(error) else str(error)
    )


def _numpy_call(name: str) -> TypeError:
    return TypeError(
        f"numpy.{name} was called on a device array: write ctx.xp.{name}, so that it runs where the array is "
        "(CuPy redirects some of these calls and refuses others; the stand-in refuses all)"
    )
