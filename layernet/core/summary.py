"""A net as a table, from its declared shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from layernet.backend import Shape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.core.sequential import Sequential


@dataclass(frozen=True)
class LayerRow:
    """One layer of a net."""

    path: str
    type: str
    depth: int
    """0 for a layer of the chain, 1 for a layer in it, and so on."""
    in_shape: Shape
    out_shape: Shape
    params: int
    """Learned numbers, those of layers inside included; shared ones count where they stand first."""
    flops: int | None
    """Multiply-adds for one example, those of layers inside included; None where nobody counted."""
    bytes: int
    """Bytes of the layer's own output for one batch."""
    tied_to: str | None = None
    """For a `ref`, the path of the layer whose parameters it shares."""


def summarize(net: Net, batch_size: int = 1, dtype: str = "float32") -> list[LayerRow]:
    """A row for every layer, in order, composites before what they are made of."""
    itemsize = {"float32": 4, "float64": 8}[dtype]
    owners = {id(param): layer for _, layer in reversed(list(net.root.walk())) for param in layer.own(Param).values()}

    def rows(layer: Layer, depth: int) -> Iterator[LayerRow]:
        if type(layer) is Sequential and layer.name is None:  # only a composite's way to run a list
            for child in layer.children().values():
                yield from rows(child, depth)
            return
        inside = {id(part) for _, part in layer.walk()}
        yield LayerRow(
            path=layer.path,
            type=type(layer).__name__,
            depth=depth,
            in_shape=layer.in_shape,
            out_shape=layer.out_shape,
            params=sum(p.size for p in layer.params().values() if id(owners[id(p)]) in inside),
            flops=count_flops(layer),
            bytes=batch_size * math.prod(layer.out_shape) * itemsize,
            tied_to=net.ties[layer].path if layer in net.ties else None,
        )
        for child in layer.children().values():
            yield from rows(child, depth + 1)

    return [row for layer in net.layers for row in rows(layer, 0)]


def count_flops(layer: Layer) -> int | None:
    """Multiply-adds of a layer for one example: its own count, or the sum over the layers it is made of."""
    own = layer.flops(layer.in_shape)
    if own is not None:
        return own
    counts = [count_flops(child) for child in layer.children().values()]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
