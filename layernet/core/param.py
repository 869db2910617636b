"""What a layer declares in `build`: Param (learned), Buffer (running statistics, saved), Const (never saved)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.device import Device, host
from layernet.backend.random import Stream, key_of
from layernet.core.init import InitFunction
from layernet.errors import ContractError, UsageError

_ALIGN = 16  # elements: every parameter starts on a cache line


class Tensor:
    """A named array of fixed shape that a net owns. `path` and `data` are there once the net is bound."""

    def __init__(self, shape: Shape, init: InitFunction) -> None:
        kind = type(self).__name__
        if not isinstance(shape, Iterable):
            raise TypeError(f"a {kind} takes a shape, got {shape!r}; one axis is ({shape!r},)")
        if not callable(init):
            raise TypeError(f"a {kind} takes an initialiser, such as init.constant(0.0), got {type(init).__name__}")
        self.shape: Shape = tuple(int(n) for n in shape)
        self.init = init
        self.path = ""
        self._frozen = False
        self._data: Array | None = None

    @property
    def frozen(self) -> bool:
        """Whether training leaves it alone. Changed by `net.freeze`, which also knows what needs no gradient then."""
        return self._frozen

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def data(self) -> Array:
        """The values, on the net's device. Write into it (`p.data[...] = v`), never rebind it."""
        if self._data is None:
            raise ContractError(f"{self} has no values yet", "call net.bind(device) first")
        return self._data

    @property
    def bound(self) -> bool:
        """Whether the values exist."""
        return self._data is not None

    def __array_ufunc__(self, *_: Any, **__: Any) -> None:
        """Arithmetic with an array, on numpy and cupy: what was meant is `data`."""
        raise TypeError(f"a {type(self).__name__} is no array: its array is .data")

    def draw(self, seed: int) -> np.ndarray[Any, Any]:
        """The initial values: a function of the seed and the path alone, drawn on the host in float64."""
        rng = Stream(key_of(seed, "init", self.path), host().ops, "float64")
        try:
            values = np.asarray(self.init(self.shape, rng))
        except ValueError as error:
            raise UsageError(f"{self} cannot be initialised: {error}") from error
        if values.shape != self.shape:
            raise ContractError(f"the initialiser of {self} returned shape {values.shape}, expected {self.shape}")
        return values

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.path or '(unnamed)'} {self.shape}"


class Param(Tensor):
    """Learned values with a gradient. `lr_mult` and `decay_mult` scale the optimizer's lr and weight decay.

    After `net.bind`, `data` and `grad` are views into two flat arrays that hold all parameters of the net.
    """

    units: tuple[Shape, tuple[int, ...]] | None = None
    """(the shape to see the values in, the axes of it that count units): all numbers along its other axes lead to one
    unit. None: the first axis counts them."""

    def __init__(self, shape: Shape, init: InitFunction, lr_mult: float = 1.0, decay_mult: float = 1.0) -> None:
        super().__init__(shape, init)
        self.lr_mult = lr_mult
        self.decay_mult = decay_mult
        self.has_grad = False
        self._grad: Array | None = None

    @property
    def grad(self) -> Array:
        """The gradient summed since `zero_grad`: zeros where nothing was added."""
        buffer = self.grad_buffer()
        if not self.has_grad:
            buffer[...] = 0
        return buffer

    def grad_buffer(self) -> Array:
        """Where the gradient stands. Its content means nothing while `has_grad` is false."""
        if self._grad is None:
            raise ContractError(f"{self} has no gradient yet", "call net.bind(device) first")
        return self._grad


class Buffer(Tensor):
    """Values that a layer tracks and a checkpoint keeps, but no optimizer touches (running statistics)."""

    def place(self, device: Device, dtype: str) -> None:
        """Make room for the values on `device`."""
        self._data = device.xp.zeros(self.shape, dtype=dtype)


class Const:
    """Values that a layer needs and no checkpoint keeps; made on the device by `net.bind`.

    `make` is called with the array module and the net's float type and returns the array.
    """

    def __init__(self, make: Callable[[Any, str], Array]) -> None:
        self.make = make
        self._data: Array | None = None

    @property
    def data(self) -> Array:
        """The values, on the net's device."""
        if self._data is None:
            raise ContractError("a Const has no values yet", "call net.bind(device) first")
        return self._data

    def place(self, device: Device, dtype: str) -> None:
        """Make the values on `device`."""
        self._data = self.make(device.xp, dtype)
        if hasattr(self._data, "setflags"):  # numpy's: so that kernels may remember what they made of it
            self._data.setflags(write=False)


class Arena:
    """All parameters of a net in two flat arrays, `data` and `grad`, so that one call can update everything.

    Both are 0 at first, whatever the parameters held before. Those that weight decay spares stand behind the others:
    an optimizer then meets few stretches of equal treatment. Between parameters are up to 15 elements of padding,
    always zero.
    """

    def __init__(self, params: Iterable[Param], device: Device, dtype: str) -> None:
        self.params = sorted(params, key=lambda p: p.decay_mult == 0)
        self.spans: list[slice] = []
        self.device = device
        start = 0
        for param in self.params:
            self.spans.append(slice(start, start + param.size))
            start += -(-param.size // _ALIGN) * _ALIGN
        self.data = device.xp.zeros(start, dtype=dtype)
        self.grad = device.xp.zeros(start, dtype=dtype)
        for param, span in zip(self.params, self.spans, strict=True):
            param._data = self.data[span].reshape(param.shape)
            param._grad = self.grad[span].reshape(param.shape)
            param.has_grad = False

    def zero_grad(self) -> None:
        """Forget all gradients. Costs nothing: the next one written overwrites."""
        for param in self.params:
            param.has_grad = False

    def settle(self) -> None:
        """Make `grad` whole: zeros for every parameter that got no gradient since `zero_grad`."""
        for param in self.params:
            if not param.has_grad:
                param.grad_buffer()[...] = 0

    def like(self) -> Array:
        """A flat array of zeros in the arena's layout, for an optimizer's state."""
        return self.device.xp.zeros_like(self.data)
