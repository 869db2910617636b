"""What a training step keeps for its backward, in bytes: counted in a pass, and predicted for a batch of any size."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.core.context import Context, Tape
from layernet.core.net import Net

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


def _owner(array: Any) -> Any:
    """The array that holds the memory that this one looks at."""
    while hasattr(getattr(array, "base", None), "nbytes") and hasattr(array.base, "dtype"):
        array = array.base
    return array
