"""Whether all is finite, and if not, where the first NaN or infinity came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.core.plan import running
from layernet.data.loader import Batch
from layernet.losses import Objective
from layernet.train.update import Update

POLICIES = ("stop", "skip")
PATIENCE = 20
"""Steps in a row that `skip` skips before it stops: what does not pass by itself needs somebody to look."""


def is_finite(flat: Array, xp: Any = np) -> bool:
    """Whether a flat float array holds neither NaN nor infinity: read once, by its product with itself."""
    if math.isfinite(float(xp.dot(flat, flat))):
        return True
    return bool(xp.isfinite(flat).all())  # a square may overflow where the number does not


def bad_values(net: Net) -> list[str]:
    """The paths of the parameters and running statistics that are not finite."""
    with net.device.activate():
        xp = net.device.xp
        tensors = {**net.params(), **net.buffers()}
        return [path for path, tensor in tensors.items() if not bool(xp.isfinite(tensor.data).all())]


def origin(net: Net, objectives: Sequence[Objective], step: int, batches: Sequence[Batch]) -> str:
    """Where on the way through data, layers, loss and back the first value that is not finite stands, in words.

    Runs the step once more, layer by layer: randomness is keyed, so all of it is as it was. Nothing is updated, and
    gradients are left as they come. Empty where it does not happen again.
    """
    for batch in batches:
        for what, array in (("input", batch.x), ("target", batch.target)):
            if (row := _bad_row(array)) is not None:
                return f"the {what} of example {batch.indices[row]} of the training set is not finite"
    if paths := bad_values(net):
        return f"{paths[0]} is not finite, since an earlier update"
    with _watched(net) as found:
        update = Update(objectives, net, step)
        for batch in batches:
            update.forward(batch)
            for name, (value, _) in update.sums.items():
                if not found and not math.isfinite(value):
                    found.append(f"all outputs are finite, the objective {name} is {value}")
            if not found:
                update.backward()
            if found:
                return found[0]
        update.finish()
    wrong = [path for path, param in net.params().items() if not _finite_gradient(param, net)]
    return f"the gradient of {wrong[0]} is not finite" if wrong else ""


def _bad_row(array: Array) -> int | None:
    """The first example that is not finite."""
    if array.dtype.kind != "f":
        return None
    good = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    return None if good.all() else int(good.argmin())


def _finite_gradient(param: Param, net: Net) -> bool:
    return not param.has_grad or bool(net.device.xp.isfinite(param.grad_buffer()).all())


@contextmanager
def _watched(net: Net) -> Iterator[list[str]]:
    """Within it, every layer's output and gradients are looked at; the list gets what is not finite, as it comes."""
    found: list[str] = []
    isfinite = net.device.xp.isfinite

    def bad(array: Array | None) -> bool:
        return array is not None and array.dtype.kind == "f" and not bool(isfinite(array).all())

    def forward(layer: Layer, run: Callable[[Array, Context], Array]) -> Callable[[Array, Context], Array]:
        def watched(x: Array, ctx: Context) -> Array:
            y = run(x, ctx)
            if not found and bad(y):
                found.append(f"{layer.label} is the first whose output is not finite")
            return y

        return watched

    def backward(layer: Layer, run: Callable[[Array, Context], Any]) -> Callable[[Array, Context], Any]:
        def watched(dy: Array, ctx: Context) -> Any:
            if not found and bad(dy):
                found.append(f"the gradient that {layer.label} gets is the first that is not finite")
            dx = run(dy, ctx)
            wrong = [param.path for param in layer.params().values() if not _finite_gradient(param, net)]
            if not found and (bad(dx) or wrong):
                of = f"that of {wrong[0]}" if wrong else "that of its input"
                found.append(f"{layer.label} is the first on the way back whose gradient is not finite: {of}")
            return dx

        return watched

    layers = list(dict.fromkeys(running(net.root, net.steps())))
    for layer in layers:
        vars(layer).update(forward=forward(layer, layer.forward), backward=backward(layer, layer.backward))
    try:
        yield found
    finally:
        for layer in layers:
            del vars(layer)["forward"], vars(layer)["backward"]
