"""The plan of a built net: which neighbours in its chains run as one step.

A chain keeps its layers as they were declared: paths, parameters, checkpoints and tables know of no plan. Only what
runs in their place is another list, in which a run of layers may be replaced by one `Step` that uses their parameters.
A layer says itself what it can be joined with (`Layer.fuse`). What is somebody's own stays as it is: classes that do
not define `fuse` themselves, so also subclasses of those that do; layers whose forward was replaced; tied layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layernet.core.context import Steps
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.core.sequential import Sequential


class Step(Layer):
    """Built neighbours of a chain, run as one. Stands in a plan, never in a net."""

    def __init__(self, parts: Sequence[Layer]) -> None:
        self.parts = list(parts)
        self.inside: list[Layer] = []
        """The layers that it calls."""
        self.placed = True
        self.in_shape, self.out_shape = parts[0].in_shape, parts[-1].out_shape
        beside = parts[0].path.rpartition(".")[0] + "."
        self.path = "+".join([parts[0].path, *(part.path.removeprefix(beside) for part in parts[1:])])
        self.learns = any(part.learns for part in parts)
        self.learns_itself = any(part.learns_itself for part in parts)

    def params(self) -> dict[str, Param]:
        return {param.path: param for part in self.parts for param in part.params().values()}

    def _members(self) -> Iterator[tuple[str | None, Layer]]:
        yield from ((None, layer) for layer in self.inside)

    @property
    def type_name(self) -> str:
        return "+".join(part.type_name for part in self.parts)


def plan_steps(root: Layer, inference: bool) -> dict[Layer, list[Layer]]:
    """What runs in the place of the layers of each chain in `root`; chains that run as they are, are left out.

    `inference`: for passes in evaluation that nothing goes back through.
    """
    planned: dict[Layer, list[Layer]] = {}
    waiting = [root]
    while waiting:
        layer = waiting.pop()
        if type(layer) is Sequential:
            steps = fused(layer.layers, inference)
            if len(steps) < len(layer.layers):
                planned[layer] = steps
            waiting += steps
        else:
            waiting += [inner for _, inner in layer._members()]
    return planned


def fused(layers: Sequence[Layer], inference: bool) -> list[Layer]:
    """The layers of a chain, joined from the first to the last wherever one takes the next into its step."""
    steps: list[Layer] = []
    for layer in layers:
        joined = None
        if steps and "fuse" in vars(type(steps[-1])) and untouched(steps[-1]) and untouched(layer):
            joined = steps[-1].fuse(layer, inference)
        if joined is None:
            steps.append(layer)
        else:
            steps[-1] = joined
    return steps


def chain_of(layers: Sequence[Layer], whole: Sequential) -> Sequential:
    """The first of a chain's layers, as a chain that a step can call."""
    chain = Sequential(list(layers))
    chain.placed, chain.path = True, whole.path
    chain.in_shape, chain.out_shape = whole.in_shape, layers[-1].out_shape if layers else whole.in_shape
    chain.learns = any(layer.learns for layer in layers)
    return chain


def untouched(layer: Layer) -> bool:
    """Whether it does what its class says, with parameters of its own."""
    return not (layer.tied or "forward" in vars(layer) or "backward" in vars(layer))


def running(layer: Layer, planned: Steps) -> Iterator[Layer]:
    """The layer and all in it that are called in a pass with this plan, in the order in which they stand."""
    yield layer
    for inner in planned.get(layer) or [member for _, member in layer._members()]:
        yield from running(inner, planned)
