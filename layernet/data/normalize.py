"""Normalize: numbers of mean 0 and standard deviation 1, by given or measured statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.data.transforms import Transform
from layernet.errors import CheckpointError, ContractError, DataError, ShapeError

Per = Literal["channel", "pixel", "all"]
Statistic = float | list[float] | Literal["measure"]


class Normalize(Transform):
    """y = (x - mean) / std, float32. uint8 pixels count as x / 255, so mean and std are in units of 0..1.

    `mean`, `std`: a number, a number for each channel (the last axis), or `measure`: over the whole training set, once,
    exactly for uint8 and in float64 for the rest. `per`: what is measured has a value for each `channel`, for each
    `pixel` of each channel (the mean image, as cuda-convnet subtracts it), or one for `all`.
    cuda-convnet's data providers subtract the mean image and do not divide: `per: pixel, std: 1.0`, in units of 0..1.
    Where nothing varies the measured std is taken as 1: a constant becomes 0 and is never divided by 0.

    Shape: (..., C) -> same. Raises ValueError for a std that is not positive, ShapeError where the shapes of
    statistics and examples differ, ContractError in use before it has measured, DataError where the training data holds
    NaN or infinite values.
    """

    def __init__(self, mean: Statistic = "measure", std: Statistic = "measure", per: Per = "channel") -> None:
        if per not in ("channel", "pixel", "all"):
            raise ValueError(f"per must be channel, pixel or all, got {per!r}")
        self.per = per
        asked = {"mean": mean, "std": std}
        self._given = {n: _given(n, v) for n, v in asked.items() if not (isinstance(v, str) and v == "measure")}
        if "std" in self._given and not (self._given["std"] > 0).all():
            raise ValueError(f"std must be positive, got {std}")
        self._measured: dict[str, Array] = {}

    @property
    def needs_fit(self) -> bool:  # type: ignore[override]
        """Whether something is still to be measured."""
        return len(self._given) + len(self._measured) < 2

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        if self.needs_fit:
            raise ContractError(f"{self!r} has not measured the training data", "call fit, or fit_transforms")
        self.out_shape(x.shape[1:])
        values = self._given | self._measured
        unit = 255.0 if x.dtype == np.uint8 else 1.0
        kind = np.result_type(x.dtype, np.float32)  # wide integers and float64 lose their digits only after the mean
        # flat and repeated, because numpy is slow where the innermost axis is as short as a pixel's channels
        mean, factor = (
            np.broadcast_to(value, x.shape[1:]).reshape(-1).astype(kind)
            for value in (values["mean"] * unit, 1.0 / (values["std"] * unit))
        )
        y = np.subtract(x.reshape(len(x), mean.size), mean, dtype=kind)
        y *= factor
        return y.reshape(x.shape).astype(np.float32, copy=False)

    def out_shape(self, in_shape: Shape) -> Shape:
        for name, value in (self._given | self._measured).items():
            if value.ndim and in_shape[-value.ndim :] != value.shape:
                got = f"{len(value)} values" if value.ndim == 1 else f"shape {value.shape}"
                raise ShapeError(
                    f"Normalize has a {name} of {got}, which does not fit examples of shape {in_shape}",
                    "give one number for all channels, or one for each",
                )
        return in_shape

    def fit(self, batches: Iterable[Array]) -> None:
        moments = _Moments(self.per)
        for x in batches:
            moments.add(x)
        mean, std = moments.result()
        measured = {"mean": mean, "std": np.where(std == 0.0, 1.0, std)}
        self._measured = {name: value for name, value in measured.items() if name not in self._given}

    def state(self) -> dict[str, Array]:
        return dict(self._measured)

    def load_state(self, state: Mapping[str, Array]) -> None:
        wanted = {"mean", "std"} - set(self._given)
        values = {name: np.array(value, dtype=np.float64) for name, value in state.items()}
        sound = all(np.isfinite(value).all() for value in values.values())
        if set(values) != wanted or not sound or not (values.get("std", np.ones(1)) > 0).all():
            found = ", ".join(f"{name} {value.shape}" for name, value in values.items()) or "nothing"
            raise CheckpointError(f"{self!r} stores {', '.join(sorted(wanted)) or 'nothing'}; found {found}")
        self._measured = values


def _given(name: str, value: float | list[float] | str) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim > 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a number, a list of numbers or 'measure', got {value!r}")
    return array.astype(np.float64)


class _Moments:
    """Mean and standard deviation in one pass over batches, for each channel, each pixel or all in one.

    With d = x - c for any constant c:  mean = c + sum(d)/n,  n^2 std^2 = n sum(d^2) - sum(d)^2.
    For uint8 c = 0 and the sums are integers, so std is exact to its last rounding. For floats c is the first value,
    which keeps the difference of the two terms well away from cancelling, and makes it exactly 0 for a constant.
    """

    def __init__(self, per: Per) -> None:
        self._per = per
        self._count = 0
        self._sum: Array = 0
        self._squares: Array = 0
        self._unit = 1.0
        self._origin: Array = 0.0

    def add(self, x: Array) -> None:
        size = math.prod(x.shape[1:])
        flat = x.reshape(len(x), size)
        if x.dtype == np.uint8:
            self._unit = 255.0
            sums = (
                flat.sum(axis=0, dtype=np.int64),
                np.multiply(flat, flat, dtype=np.uint16).sum(axis=0, dtype=np.int64),
            )
        else:
            if not self._count:
                self._origin = self._first(x)
            with np.errstate(invalid="ignore", over="ignore"):  # `result` reports what is not finite
                flat = flat - np.broadcast_to(self._origin, x.shape[1:]).reshape(-1).astype(np.float64)
                sums = flat.sum(axis=0), np.einsum("ij,ij->j", flat, flat)
        axes = {"channel": tuple(range(x.ndim - 2)), "pixel": (), "all": tuple(range(x.ndim - 1))}[self._per]
        add, add_squares = (np.asarray(s.reshape(x.shape[1:]).sum(axis=axes)) for s in sums)
        self._sum = self._sum + add
        self._squares = self._squares + add_squares
        self._count += len(x) * size // max(1, add.size)

    def _first(self, x: Array) -> Array:
        if self._per == "pixel":
            return x[0]
        return x[0].reshape(-1, x.shape[-1])[0] if self._per == "channel" else x.reshape(-1)[0]

    def result(self) -> tuple[Array, Array]:
        if not self._count:
            raise DataError("there is no training data to measure")
        n, total, squares = self._count, np.asarray(self._sum), np.asarray(self._squares)
        if total.dtype.kind == "i":
            total, squares = total.astype(object), squares.astype(object)  # Python's integers have no largest
        mean = self._origin + np.asarray(total / n, dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            variance = np.asarray((n * squares - total * total) / n**2, dtype=np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise DataError("Normalize cannot measure the training data: it holds NaN or infinite values")
        return mean / self._unit, np.sqrt(np.maximum(variance, 0.0)) / self._unit
