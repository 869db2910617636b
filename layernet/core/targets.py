"""What losses and metrics share: a look at class labels before they are used as indices."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array, Shape
from layernet.errors import DataError, ShapeError


def check_labels(target: Array, output_shape: Shape, ignore_index: int | None) -> None:
    """Raise ShapeError or DataError unless `target` holds class labels for outputs of shape (N, ..., C).

    The values are looked at only on the host: on a device that would wait for it, and a wrong label there gives NaN.
    """
    classes = output_shape[-1]
    if target.dtype.kind not in "iu":
        raise DataError(
            f"class labels are {target.dtype}", "give integers (N, ...), or soft labels as floats (N, ..., classes)"
        )
    if target.shape != output_shape[:-1]:
        hint = "one-hot and soft labels must be floats" if target.shape == output_shape else "one label a row"
        raise ShapeError(
            f"class labels have shape {target.shape}, outputs of shape {output_shape} take {output_shape[:-1]}", hint
        )
    if isinstance(target, np.ndarray):
        wrong = (target < 0) | (target >= classes)
        if ignore_index is not None:
            wrong &= target != ignore_index
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise DataError(
                f"label {int(target[where])} at {list(where)} is none of the {classes} classes of the outputs",
                f"labels are 0..{classes - 1}",
            )
