"""What a training step keeps for its backward: counted in a pass, predicted for a batch of any size, and from shapes
alone the least that it can be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.core.sequential import Sequential

_FEW, _MORE = 2, 4  # examples in the passes that a prediction looks at: batch norm takes no single one


def kept(net: Net, tape: Tape) -> dict[str, int]:
    """Bytes of the arrays that a recorded pass keeps, by the label of the layer that first keeps each.

    An array counts whole, and once, also where several layers keep it or a part of it. The net's own are left out.
    """
    seen = {id(_owner(tensor.data)) for tensor in (*net.params().values(), *net.buffers().values())}
    seen |= {id(_owner(const.data)) for const in net.root.consts().values()}
    found: dict[str, int] = {}

    def count(value: Any, label: str) -> None:
        if isinstance(value, Context):
            count(value._saved, value.layer.label if value.layer else label)
        elif isinstance(value, dict):
            count(list(value.values()), label)
        elif isinstance(value, list | tuple):
            for item in value:
                count(item, label)
        elif hasattr(value, "nbytes") and hasattr(value, "dtype"):
            owner = _owner(value)
            if id(owner) not in seen:
                seen.add(id(owner))
                found[label] = found.get(label, 0) + int(owner.nbytes)

    count(tape.root, "the net")
    count(tape.outputs, "its outputs")
    return found


def predict(net: Net, batch_size: int) -> dict[str, int]:
    """What `kept` will find after the forward of a training step with so many examples.

    Taken from two passes with a few examples: what does not grow with them stays, the rest grows as they do.
    """
    few, more = (_kept_by(net, examples) for examples in (_FEW, _MORE))
    return {
        label: round(few.get(label, 0) + (size - few.get(label, 0)) * (batch_size - _FEW) / (_MORE - _FEW))
        for label, size in more.items()
    }


def _kept_by(net: Net, examples: int) -> dict[str, int]:
    dtype = "int64" if net.root.reader.integer_input else net.dtype
    with np.errstate(all="ignore"), net.device.activate():
        x = net.device.xp.zeros((examples, *net.input_shape), dtype=dtype)
        return kept(net, net.forward(x, training=True, step=0))


class Least(NamedTuple):
    """The least numbers that a net needs at once for each example, whatever its kernels and its plan."""

    kept: int
    """Until backward: what goes into layers with weights, which their gradients are products with."""
    passing: int
    """Beside those: the output of the layer where that is most; without backward, its input too."""
    alone: int
    largest: Layer
    """The layer of `passing`."""


def least(net: Net) -> Least:
    """From the declared shapes: no array is looked at or made. An input that branches share counts once."""
    leaves = [layer for _, layer in net.root.walk() if not layer.children()]
    largest = max(leaves or [net.root], key=lambda layer: math.prod(layer.out_shape))
    alone = max(math.prod(layer.in_shape) + math.prod(layer.out_shape) for layer in leaves or [net.root])
    return Least(sum(_inputs(net.root, [False])), math.prod(largest.out_shape), alone, largest)


def _inputs(layer: Layer, counted: list[bool]) -> Iterator[int]:
    """The sizes of the arrays kept in it; `counted` says, and learns, whether that of its own input is counted."""
    weighs = any(len(param.shape) > 1 and not param.frozen for param in layer.own(Param).values())
    if (weighs or layer.recomputes) and not counted[0]:
        counted[0] = True
        yield math.prod(layer.in_shape)
    if layer.recomputes:
        return
    for child in layer.children().values():
        yield from _inputs(child, counted)
        if isinstance(layer, Sequential):
            counted = [False]  # the next gets what this one gives


def _owner(array: Any) -> Any:
    """The array that holds the memory that this one looks at."""
    while hasattr(getattr(array, "base", None), "nbytes") and hasattr(array.base, "dtype"):
        array = array.base
    return array
