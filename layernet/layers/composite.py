"""Layers made of layers: branches that run side by side, and blocks.

The gradients that branches return are added into a new array, never in place: a branch may have returned the very array
that it was given, which another branch still reads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.plan import chain_of, untouched
from layernet.core.sequential import Sequential
from layernet.errors import ContractError, ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.conv import Conv2d
from layernet.layers.fused import ResidualReLU
from layernet.layers.norm import BatchNorm
from layernet.layers.pool import Ties, one_of_ties


class _Branches(Layer):
    """Chains that all read the same input."""

    branches: list[Layer]

    def _connect_branches(self, in_shape: Shape) -> list[Shape]:
        return [branch.connect(in_shape) for branch in self.branches]

    def _forward_branches(self, x: Array, ctx: Context) -> tuple[list[Array], list[Context]]:
        # said of each: that a branch before it is trained does not make x depend on anything trained
        calls = [ctx.call(branch, x, needs_input_grad=ctx.needs_input_grad) for branch in self.branches]
        return [y for y, _ in calls], [tape for _, tape in calls]

    def _backward_branches(self, tapes: Sequence[Context], gradients: Sequence[Array], ctx: Context) -> Array | None:
        return _sum([ctx.backward(tape, dy) for tape, dy in zip(tapes, gradients, strict=True)], ctx)


class _Elementwise(_Branches):
    """Branches whose outputs, all of one shape, are combined number by number."""

    verb: str

    def __init__(self, branches: list[list[Layer]]) -> None:
        self.branches = _named_branches(branches)

    def build(self, in_shape: Shape) -> Shape:
        shapes = self._connect_branches(in_shape)
        for number, shape in enumerate(shapes, 1):
            if shape != shapes[0]:
                raise ShapeError(
                    f"branches with different shapes cannot be {self.verb}: branch 1 gives {list(shapes[0])}, "
                    f"branch {number} gives {list(shape)}",
                    "give both the same strides and the same number of channels",
                )
        return shapes[0]


class Add(_Elementwise):
    """y = sum of the branches' outputs, each branch a list of layers run on x; an empty list is x itself.

    Shape: what the branches take -> what they give, all the same. Raises ShapeError where they differ.
    """

    verb = "added"

    def forward(self, x: Array, ctx: Context) -> Array:
        outputs, tapes = self._forward_branches(x, ctx)
        ctx.save(tapes)
        y = _sum(outputs, ctx)
        assert y is not None
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tapes,) = ctx.saved
        return self._backward_branches(tapes, [dy] * len(tapes), ctx)


class Multiply(_Elementwise):
    """y = product of the branches' outputs, each branch a list of layers run on x; an empty list is x itself.

    A gate is a branch that ends in a Sigmoid. Shape: what the branches take -> what they give, all the same. Raises
    ShapeError where they differ.
    """

    verb = "multiplied"

    def forward(self, x: Array, ctx: Context) -> Array:
        outputs, tapes = self._forward_branches(x, ctx)
        ctx.save(tapes, outputs)
        return math.prod(outputs[1:], start=outputs[0])

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        tapes, outputs = ctx.saved
        # never y / output: an output may be 0
        gradients = [math.prod(outputs[:i] + outputs[i + 1 :], start=dy) for i in range(len(outputs))]
        return self._backward_branches(tapes, gradients, ctx)


class Maximum(_Elementwise):
    """y = maximum of the branches' outputs, each branch a list of layers run on x; an empty list is x itself.

    Where several branches give the maximum, the "first" of them gets the gradient, or with `ties` "all" each of them
    gets all of it (cuda-convnet's `eltmax`); torch.maximum shares it between them. Shape: what the branches take ->
    what they give, all the same. Raises ShapeError where they differ.
    """

    verb = "compared"

    def __init__(self, branches: list[list[Layer]], ties: Ties = "first") -> None:
        self.branches = _named_branches(branches)
        self.ties = one_of_ties(ties)

    def forward(self, x: Array, ctx: Context) -> Array:
        outputs, tapes = self._forward_branches(x, ctx)
        y = functools.reduce(ctx.xp.maximum, outputs)
        ctx.save(tapes, [output == y for output in outputs])
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        tapes, largest = ctx.saved
        gradients, taken = [], ctx.xp.zeros(dy.shape, dtype=bool)
        for here in largest:
            gradients.append(ctx.xp.where(here & ~taken, dy, 0))
            if self.ties == "first":
                taken = taken | here
        return self._backward_branches(tapes, gradients, ctx)


class Residual(Add):
    """y = body(x) + shortcut(x); without a shortcut, body(x) + x (He et al. 2015, arXiv:1512.03385).

    Shape: what body takes -> what it gives; the shortcut must give the same. Raises ShapeError where it does not.
    """

    adds_level = False

    def __init__(self, body: list[Layer], shortcut: list[Layer] | None = None) -> None:
        self.branches = [Sequential(body), Sequential(shortcut or [])]

    def build(self, in_shape: Shape) -> Shape:
        body, shortcut = self._connect_branches(in_shape)
        if body != shortcut:
            side = "its input" if shortcut == in_shape else "its shortcut"
            raise ShapeError(
                f"the body gives shape {list(body)}, {side} has shape {list(shortcut)}: they cannot be added",
                "make the body keep the shape, or give a shortcut that makes the same change, "
                "such as a 1x1 Conv2d with the body's stride",
            )
        return body

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        body, shortcut = self.branches
        assert isinstance(body, Sequential)
        norm = body.layers[-1] if body.layers else None
        if type(following) is not ReLU or type(norm) is not BatchNorm or not untouched(norm):
            return None
        return ResidualReLU(self, following, chain_of(body.layers[:-1], body), norm, shortcut)


class Concat(_Branches):
    """y = the branches' outputs side by side along the last axis; an empty list of layers is x itself.

    Shape: (N, ..., C) -> (N, ..., sum of the branches' channels). Raises ShapeError where another axis differs.
    """

    def __init__(self, branches: list[list[Layer]]) -> None:
        self.branches = _named_branches(branches)

    def build(self, in_shape: Shape) -> Shape:
        shapes = self._connect_branches(in_shape)
        for number, shape in enumerate(shapes, 1):
            if not shape or shape[:-1] != shapes[0][:-1]:
                raise ShapeError(
                    f"branches cannot be put side by side: branch 1 gives {list(shapes[0])}, "
                    f"branch {number} gives {list(shape)}",
                    "all axes but the last must agree: give the branches the same strides and padding",
                )
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def forward(self, x: Array, ctx: Context) -> Array:
        outputs, tapes = self._forward_branches(x, ctx)
        ctx.save(tapes)
        return ctx.ops.concat(outputs)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tapes,) = ctx.saved
        parts = ctx.ops.cut(dy, [branch.out_shape[-1] for branch in self.branches])
        return self._backward_branches(tapes, parts, ctx)


class Recompute(Layer):
    """y = body(x), keeping only x: backward runs the body's forward again (Chen et al. 2016, arXiv:1604.06174).

    Memory for one forward more. Gradients, dropout masks and running statistics are the same, bit for bit, as without.
    Shape: what body takes -> what it gives.
    """

    adds_level = False
    recomputes = True

    def __init__(self, body: list[Layer]) -> None:
        self.body = [Sequential(body)]

    def build(self, in_shape: Shape) -> Shape:
        return self.body[0].connect(in_shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, tape = ctx.call(self.body[0], x, recording=False)
        ctx.save(x, tape)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        x, tape = ctx.saved
        return ctx.backward(ctx.recall(tape, x), dy)


class AuxiliaryHead(Layer):
    """Feeds x to a side chain of layers, whose output the net gives out as `name`; x passes on unchanged.

    An objective `on: name` sends its gradient through the head into x (Szegedy et al. 2014, arXiv:1409.4842). When none
    looks at it, the head gets no gradient. Shape: any -> same.
    """

    def __init__(self, name: str, layers: list[Layer]) -> None:
        if name == "output":
            raise ValueError("name 'output' is that of the net's own output")
        self.name = name
        self.head = [Sequential(layers)]

    def build(self, in_shape: Shape) -> Shape:
        if self.name is None:  # a clone that a Ref made, which goes by the Ref's name
            raise ShapeError(
                "a Ref to an AuxiliaryHead needs a name", "its output is called by it: Ref(...).named('aux2')"
            )
        self.head[0].connect(in_shape)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, tape = ctx.call(self.head[0], x)
        ctx.emit(self._output_name, y)
        ctx.save(tape)
        return x

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tape,) = ctx.saved
        gradient = ctx.output_grad(self._output_name)
        if gradient is None:
            return dy
        dx = ctx.backward(tape, gradient)
        return None if dx is None else dy + dx

    @property
    def _output_name(self) -> str:
        assert self.name is not None
        return self.name


class Block(Layer):
    """A chain of layers that a class writes down: the base of a user's own blocks.

    class ConvReLU(Block):
        def __init__(self, channels: int):
            self.channels = channels

        def layers(self, in_shape):
            return [Conv2d(self.channels, 3, padding=1), ReLU()]
    """

    def layers(self, in_shape: Shape) -> list[Layer]:
        """New layers, in order, for an input of this shape. Give them names: they become the parameters' paths."""
        raise NotImplementedError(f"{type(self).__name__} has no layers")

    def build(self, in_shape: Shape) -> Shape:
        layers = self.layers(in_shape)
        if not isinstance(layers, list) or not all(isinstance(layer, Layer) for layer in layers):
            raise ContractError(f"{self.label}: layers() returned {layers!r}", "it must return a list of layers")
        self.chain = [Sequential(layers)]
        return self.chain[0].connect(in_shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, tape = ctx.call(self.chain[0], x)
        ctx.save(tape)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tape,) = ctx.saved
        return ctx.backward(tape, dy)


class BasicBlock(Block):
    """ReLU(f(x) + shortcut(x)), f being conv, norm, ReLU, conv, norm; 3x3 filters (He et al. 2015, arXiv:1512.03385).

    ResNet-18's block. The first convolution has the stride; all have `channels` filters and no bias. The shortcut is x
    itself, or a 1x1 convolution and a norm where `stride` or `channels` change the shape. The parameters are called as
    torchvision's, but for downsample and downsample_bn, which are downsample.0 and downsample.1 there.
    Shape: (N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), channels).
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        if channels < 1 or stride < 1:
            raise ValueError(f"channels and stride must be at least 1, got {channels} and {stride}")
        self.channels, self.stride = channels, stride

    def layers(self, in_shape: Shape) -> list[Layer]:
        body = [
            Conv2d(self.channels, 3, stride=self.stride, padding=1, bias=False).named("conv1"),
            BatchNorm().named("bn1"),
            ReLU().named("relu1"),
            Conv2d(self.channels, 3, padding=1, bias=False).named("conv2"),
            BatchNorm().named("bn2"),
        ]
        shortcut: list[Layer] = []
        if self.stride != 1 or in_shape[-1:] != (self.channels,):
            shortcut = [
                Conv2d(self.channels, 1, stride=self.stride, bias=False).named("downsample"),
                BatchNorm().named("downsample_bn"),
            ]
        return [Residual(body, shortcut), ReLU().named("relu2")]


def _named_branches(branches: list[list[Layer]]) -> list[Layer]:
    if not branches:
        raise ValueError("branches must hold at least one list of layers")
    return [Sequential(layers).named(f"branch_{number}") for number, layers in enumerate(branches, 1)]


def _sum(arrays: Sequence[Array | None], ctx: Context) -> Array | None:
    """The sum, in an array of its own unless there is but one; None when nothing is to be added."""
    total: Array | None = None
    for array in arrays:
        if array is not None:
            total = array if total is None else ctx.ops.add(total, array)
    return total
