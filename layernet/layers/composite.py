"""Layers made of layers: how a chain holds residuals, branches, side heads and blocks."""

from __future__ import annotations

from collections.abc import Sequence

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.sequential import Sequential
from layernet.errors import ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.conv import Conv2d
from layernet.layers.norm import BatchNorm


class Residual(Layer):
    """y = body(x) + shortcut(x); an empty shortcut is the identity (He et al. 2015, arXiv:1512.03385).

    Shape: body and shortcut must give the same shape; ShapeError otherwise.
    """

    def __init__(self, body: list[Layer], shortcut: list[Layer] | None = None) -> None:
        self.body = Sequential(body)
        self.shortcut = Sequential(shortcut or [])

    def build(self, in_shape: Shape) -> Shape:
        out_shape, shortcut_shape = self.body.connect(in_shape), self.shortcut.connect(in_shape)
        if out_shape != shortcut_shape:
            raise ShapeError(
                f"the body gives shape {out_shape}, the shortcut {shortcut_shape}",
                "they are added: let the shortcut change the shape too, for example with a 1x1 Conv2d",
            )
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, body = ctx.call(self.body, x, needs_input_grad=ctx.needs_input_grad)
        z, shortcut = ctx.call(self.shortcut, x, needs_input_grad=ctx.needs_input_grad)
        ctx.save(body, shortcut)
        return y + z

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        body, shortcut = ctx.saved
        return _sum([ctx.backward(body, dy), ctx.backward(shortcut, dy)])


class Add(Layer):
    """y = the sum of the branches, each a list of layers on the same x.

    Shape: all branches must give the same shape; ShapeError otherwise.
    """

    def __init__(self, branches: list[list[Layer]]) -> None:
        self.branches = _branches(branches)

    def build(self, in_shape: Shape) -> Shape:
        shapes = [branch.connect(in_shape) for branch in self.branches]
        if len(set(shapes)) > 1:
            raise ShapeError(f"the branches give the shapes {shapes}", "they are added: make them equal")
        return shapes[0]

    def forward(self, x: Array, ctx: Context) -> Array:
        outputs, tapes = _call_all(self.branches, x, ctx)
        ctx.save(tapes)
        y = outputs[0] + outputs[1] if len(outputs) > 1 else outputs[0]
        for other in outputs[2:]:
            y += other
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tapes,) = ctx.saved
        return _sum([ctx.backward(tape, dy) for tape in tapes])


class Concat(Layer):
    """y = the branches' outputs side by side on the last axis; each branch is a list of layers on the same x.

    Shape: (N, ..., C_1), (N, ..., C_2), ... -> (N, ..., C_1 + C_2 + ...). An empty branch passes x on. The layout of
    Inception (Szegedy et al. 2014, arXiv:1409.4842) and DenseNet (Huang et al. 2016, arXiv:1608.06993).
    """

    def __init__(self, branches: list[list[Layer]]) -> None:
        self.branches = _branches(branches)

    def build(self, in_shape: Shape) -> Shape:
        shapes = [branch.connect(in_shape) for branch in self.branches]
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ShapeError(f"the branches give the shapes {shapes}", "all axes but the last must be equal")
        self.widths = [shape[-1] for shape in shapes]
        return (*shapes[0][:-1], sum(self.widths))

    def forward(self, x: Array, ctx: Context) -> Array:
        outputs, tapes = _call_all(self.branches, x, ctx)
        ctx.save(tapes)
        return ctx.xp.concatenate(outputs, axis=-1)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tapes,) = ctx.saved
        grads, start = [], 0
        for tape, width in zip(tapes, self.widths, strict=True):
            grads.append(ctx.backward(tape, dy[..., start : start + width]))
            start += width
        return _sum(grads)


class Recompute(Layer):
    """y = body(x), keeping x alone: backward runs the body's forward again (Chen et al. 2016, arXiv:1604.06174).

    Costs a second forward, saves what the body would have kept. Randomness is keyed and statistics move once, so the
    results are the same bits as without it.
    """

    def __init__(self, body: list[Layer]) -> None:
        self.body = Sequential(body)

    def build(self, in_shape: Shape) -> Shape:
        return self.body.connect(in_shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, tape = ctx.call(self.body, x, recording=False)
        ctx.save(x, tape)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        x, tape = ctx.saved
        return ctx.backward(ctx.recall(tape, x), dy)


class AuxiliaryHead(Layer):
    """y = x; on the side, layers turn x into the output called `name`, which an objective can look at (`on: name`).

    The head's gradient joins the one from above (Szegedy et al. 2014, arXiv:1409.4842). Shape: any -> same.
    """

    def __init__(self, name: str, layers: list[Layer]) -> None:
        self.name = name
        self.head = Sequential(layers)

    def build(self, in_shape: Shape) -> Shape:
        self.head.connect(in_shape)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, tape = ctx.call(self.head, x, needs_input_grad=ctx.needs_input_grad)
        ctx.emit(str(self.name), y)
        ctx.save(tape)
        return x

    def backward(self, dy: Array, ctx: Context) -> Array:
        (tape,) = ctx.saved
        side = ctx.output_grad(str(self.name))
        if side is None:
            return dy
        dx = ctx.backward(tape, side)
        return dy if dx is None else dy + dx


class Block(Sequential):
    """A chain whose layers follow from its arguments and its input shape: subclass it and write `chain`."""

    def chain(self, in_shape: Shape) -> list[Layer]:
        """The layers, new ones."""
        raise NotImplementedError(f"{type(self).__name__} has no chain")

    def build(self, in_shape: Shape) -> Shape:
        self.layers = self.chain(in_shape)
        return super().build(in_shape)


class BasicBlock(Block):
    """ReLU(x + conv-norm-ReLU-conv-norm (x)), two 3x3 convolutions (He et al. 2015, arXiv:1512.03385).

    The shortcut is a 1x1 convolution and norm where the shape changes. Shape: (N, H, W, C) -> (N, H / stride,
    W / stride, channels), rounded up.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        self.channels, self.stride = channels, stride

    def chain(self, in_shape: Shape) -> list[Layer]:
        def conv(kernel_size: int, stride: int, padding: int) -> Conv2d:
            return Conv2d(self.channels, kernel_size, stride=stride, padding=padding, bias=False)

        same = self.stride == 1 and in_shape[-1] == self.channels
        body = [
            conv(3, self.stride, 1).named("conv1"),
            BatchNorm().named("bn1"),
            ReLU(),
            conv(3, 1, 1).named("conv2"),
            BatchNorm().named("bn2"),
        ]
        shortcut = [] if same else [conv(1, self.stride, 0), BatchNorm()]
        return [Residual(body, shortcut).named("residual"), ReLU()]


def _branches(branches: list[list[Layer]]) -> list[Sequential]:
    if not branches:
        raise ValueError("branches must hold at least one list of layers")
    return [Sequential(branch).named(f"branch{number}") for number, branch in enumerate(branches, start=1)]


def _call_all(branches: Sequence[Layer], x: Array, ctx: Context) -> tuple[list[Array], list[Context]]:
    calls = [ctx.call(branch, x, needs_input_grad=ctx.needs_input_grad) for branch in branches]
    return [y for y, _ in calls], [tape for _, tape in calls]


def _sum(grads: Sequence[Array | None]) -> Array | None:
    """The sum of the gradients that are there, in a new array where there are several; None where there is none."""
    there = [grad for grad in grads if grad is not None]
    if not there:
        return None
    total = there[0]
    for grad in there[1:]:
        total = total + grad
    return total
